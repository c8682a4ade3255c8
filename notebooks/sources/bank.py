"""Keep sweeps' results with the project: ``python notebooks/sources/bank.py SWEEP_DIR …``.

Results and arrays of every run go to data/bank, in place of those of the same preset; of seed 0,
the networks after the base phase, with the linear and the cosine head, to data/checkpoints.
"""

import shutil
import sys
from pathlib import Path

from lucir_edu import runs
from lucir_edu.config import UsageError

# The eight combinations, and the methods that they are compared with
WHOLE = ("replay", "linear+mr", "linear+lf", "linear+lf+mr", "cosine", "cosine+mr", "cosine+lf",
         "lucir", "finetune", "icarl", "joint")  # fmt: skip


def main(sweeps: list[Path]) -> None:
    found = list(runs.find(sweeps))
    for preset in {run["preset"] for run in found}:
        shutil.rmtree(runs.BANK / preset, ignore_errors=True)
    for run in found:
        if not run.complete:
            raise UsageError(f"{run.path} is not complete")
        setting = runs.label(run).replace(" ", ",")
        if len(setting) > 60:  # a path may have 260 characters on Windows
            setting = f"{run['method']},short"
        target = runs.BANK / run["preset"] / setting / f"seed{run['seed']}"
        target.mkdir(parents=True)
        if setting not in WHOLE:
            run.arrays.pop("embedding_angles", None)  # the bulk; nothing shows it for these
        runs.save(run, target)
        head = {"replay": "linear", "lucir": "cosine"}.get(setting)
        if head and run["seed"] == 0 and run["preset"] == "glyphs-b50-5":
            runs.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                run.path / "phase_00.safetensors",
                runs.CHECKPOINTS / f"{run['preset']}-{head}.safetensors",
            )


if __name__ == "__main__":
    try:
        if not sys.argv[1:]:
            raise UsageError("no folder named")
        main([Path(argument) for argument in sys.argv[1:]])
    except UsageError as error:
        sys.exit(f"{error}; usage: python notebooks/sources/bank.py SWEEP_DIR …")
