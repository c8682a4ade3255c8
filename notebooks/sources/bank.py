"""Keep sweeps' results with the project: ``python notebooks/sources/bank.py SWEEP_DIR …``.

Results and arrays of every run go to data/bank, in place of those of the same preset; of seed 0,
the networks after the base phase, with the linear and the cosine head, to data/checkpoints.

``--paper`` keeps runs of the paper's protocols on CIFAR-100, in data/bank/cifar100, beside those that
are there. They take an hour or a GPU each: they are not recomputed when the code changes, and each
says which commit made it.

``--confirm`` is for a change of the code that cannot alter a result: it computes two recorded runs
anew, and when they agree to the last digit, marks all as made by the code that is here.
"""

import shutil
import sys
from pathlib import Path

from lucir_edu import datasets, hardware, runs
from lucir_edu.config import Config, UsageError
from lucir_edu.lab.explorer import EIGHT

PAPER = runs.BANK / "cifar100"
WHOLE = (*EIGHT, "finetune", "icarl", "joint")


def keep(sweeps: list[Path]) -> None:
    found = list(runs.find(sweeps))
    for run in found:
        if not run.complete:
            raise UsageError(f"{run.path} is not complete")
    for preset in {run["preset"] for run in found}:
        shutil.rmtree(runs.BANK / preset, ignore_errors=True)
    for run in found:
        setting = runs.label(run).replace(" ", ",")
        if len(setting) > 60:  # a path may have 260 characters on Windows
            setting = f"{run['method']},short"
        target = runs.BANK / run["preset"] / setting / f"seed{run['seed']}"
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


def keep_paper(sweeps: list[Path]) -> None:
    for run in runs.find(sweeps):
        if run.complete:
            setting = runs.label(run).replace(" ", ",")
            target = PAPER / run["preset"] / setting / f"seed{run['seed']}"
            target.mkdir(parents=True, exist_ok=True)
            runs.save(run, target)


def confirm() -> None:
    bank = [run for run in runs.load_bank() if PAPER not in run.path.parents]
    first = runs.firsts(run for run in bank if run["preset"] == "glyphs-b50-5")
    for run in (first["icarl"], first["lucir"]):
        settings = Config.from_dict(run["config"])
        again = runs.perform(settings, datasets.load(settings))
        kinds = [(one.accuracies(kind), kind) for kind in ("cnn", "nme") for one in (again, run)]
        if kinds[0] != kinds[1] or kinds[2] != kinds[3]:
            raise UsageError(
                f"{run.path} comes out otherwise: recompute the bank (make bank); confirming works "
                f"on the kind of machine that made it ({run['environment']['precision']}, "
                f"{run['environment']['threads']} threads) alone"
            )
    for run in bank:
        run["environment"]["code"] = hardware.code()
        runs.save(run, run.path)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    try:
        if not arguments:
            raise UsageError("no folder named")
        if arguments == ["--confirm"]:
            confirm()
        elif arguments[0] == "--paper":
            keep_paper([Path(a) for a in arguments[1:]])
        else:
            keep([Path(a) for a in arguments])
    except UsageError as error:
        usage = "python notebooks/sources/bank.py [--paper] SWEEP_DIR … | --confirm"
        sys.exit(f"{error}; usage: {usage}")
