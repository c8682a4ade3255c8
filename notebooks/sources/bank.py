"""Keep sweeps' results with the project: ``python notebooks/sources/bank.py SWEEP_DIR …``.

Results and arrays of every run go to data/bank, in place of those of the same preset; of seed 0,
the networks after the base phase, with the linear and the cosine head, to data/checkpoints.

``--add FOLDER`` keeps runs beside those that are there already: ``cifar100``, the paper's protocols,
and ``questions``, which the answers in notebook 07 are from. Runs on CIFAR-100 take an hour or a GPU
each: they are not recomputed when the code changes, and each says which commit made it.

``--confirm REVISION`` is for a change of the code that cannot alter a result: it performs runs with
the revision's code, which must be what made the bank, and with the code that is here; when all they
measure is the same to the last digit, it marks the bank as made by the code that is here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lucir_edu import hardware, runs
from lucir_edu.config import UsageError
from lucir_edu.lab.explorer import EIGHT

ROOT = Path(__file__).parents[2]
PAPER = runs.BANK / "cifar100"
WHOLE = (*EIGHT, "finetune", "icarl", "frozen", "joint")


def keep(sweeps: list[Path]) -> None:
    found: dict[Path, runs.Run] = {}
    for run in runs.find(sweeps):
        if not run.complete:
            raise UsageError(f"{run.path} is not complete")
        setting = runs.label(run).replace(" ", ",")
        if len(setting) > 60:  # a path may have 260 characters on Windows
            setting = f"{run['method']},short"
        target = runs.BANK / run["preset"] / setting / f"seed{run['seed']}"
        if target in found:
            raise UsageError(f"{run.path} and {found[target].path} would both be {target}")
        found[target] = run
    for preset in {run["preset"] for run in found.values()}:
        shutil.rmtree(runs.BANK / preset, ignore_errors=True)
    for target, run in found.items():
        setting = target.parent.name
        target.mkdir(parents=True)
        if setting not in WHOLE:
            run.arrays.pop("confusion_nme", None)  # nothing shows it for these
        runs.save(run, target)
        head = {"replay": "linear", "lucir": "cosine"}.get(setting)
        if head and run["seed"] == 0 and run["preset"] == "glyphs-b50-5":
            runs.CHECKPOINTS.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                run.path / "phase_00.safetensors",
                runs.CHECKPOINTS / f"{run['preset']}-{head}.safetensors",
            )


def add(folder: str, sweeps: list[Path]) -> None:
    for run in runs.find(sweeps):
        if run.complete:
            setting = runs.label(run).replace(" ", ",")
            target = runs.BANK / folder / run["preset"] / setting / f"seed{run['seed']}"
            target.mkdir(parents=True, exist_ok=True)
            runs.save(run, target)


def confirm(revision: str) -> None:
    bank = [run for run in runs.load_bank() if PAPER not in run.path.parents]
    with tempfile.TemporaryDirectory() as name:
        then, out = Path(name) / "then", Path(name) / "runs"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(then), revision], check=True)
        try:
            for method in ("icarl", "lucir"):
                performed = [
                    _start(code, method, out / code.name / method) for code in (then, ROOT)
                ]
                if any([process.wait() for process in performed]):
                    raise UsageError(f"a run of {method} did not end well")
                old, new = (runs.load(out / code.name / method) for code in (then, ROOT))
                if stray := {run["environment"]["code"] for run in bank} - {
                    old["environment"]["code"]
                }:
                    raise UsageError(f"{revision} did not make the bank; {', '.join(stray)} did")
                if _measured(old) != _measured(new):
                    raise UsageError(
                        f"{method} comes out otherwise: recompute the bank (make bank)"
                    )
        finally:
            subprocess.run([*git, "remove", "--force", str(then)], check=True)
    for run in bank:
        run["environment"]["code"] = hardware.code()
        runs.save(run, run.path)


def _start(code: Path, method: str, out: Path) -> subprocess.Popen:
    settings = ["run", "glyphs-b50-5", "--set", f"method={method}", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lucir_edu", *settings]
    return subprocess.Popen(command, cwd=code, env=environment, stderr=subprocess.DEVNULL)


def _measured(run: runs.Run) -> tuple:
    arrays = {name: array.tobytes() for name, array in run.arrays.items()}
    return [{**phase, "seconds": None} for phase in run["phases"]], arrays


if __name__ == "__main__":
    arguments = sys.argv[1:]
    try:
        if not arguments:
            raise UsageError("no folder named")
        if arguments[0] == "--confirm" and len(arguments) == 2:
            confirm(arguments[1])
        elif arguments[0] == "--add" and len(arguments) > 2:
            add(arguments[1], [Path(a) for a in arguments[2:]])
        else:
            keep([Path(a) for a in arguments])
    except UsageError as error:
        usage = "python notebooks/sources/bank.py [--add FOLDER] SWEEP_DIR … | --confirm REVISION"
        sys.exit(f"{error}; usage: {usage}")
