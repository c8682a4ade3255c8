"""Keep a sweep's results with the project: ``python notebooks/sources/bank.py SWEEP_DIR``.

Results and arrays go to data/bank; of seed 0, the networks after the base phase, with the linear
and the cosine head, to data/checkpoints.
"""

import shutil
import sys
from pathlib import Path

from lucir_edu import runs
from lucir_edu.config import UsageError


def main(sweep: Path) -> None:
    for run in runs.find([sweep]):
        target = runs.BANK / run["preset"] / run["method"] / f"seed{run['seed']}"
        target.mkdir(parents=True, exist_ok=True)
        for name in (runs.RESULTS, runs.ARRAYS):
            shutil.copyfile(run.path / name, target / name)
        head = {"replay": "linear", "lucir": "cosine"}.get(run["method"])
        if head and run["seed"] == 0:
            runs.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                run.path / "phase_00.safetensors",
                runs.CHECKPOINTS / f"{run['preset']}-{head}.safetensors",
            )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (IndexError, UsageError) as error:
        sys.exit(f"{error}; usage: python notebooks/sources/bank.py SWEEP_DIR")
