"""The command line: lucir-edu run | sweep | report | bench | data | grade."""

import argparse
import contextlib
import csv
import dataclasses
import glob
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lucir_edu import __version__
from lucir_edu import config as configs
from lucir_edu.config import DEVICES, METHODS, PRESETS, UsageError, parse, preset

# Modules that need torch are imported where they are used: a mistake in the arguments should be
# reported at once, not after seconds.


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)  # sweep's --seeds is not run's --seed

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            message += configs.nearest(found[1], re.findall(r"[\w-]+", found[2]))
        raise UsageError(f"{message}; see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0 if all went well, 2 for a user's mistake, 130 after Ctrl-C."""
    code = _do(arguments)
    if code and "TORCHELASTIC_RUN_ID" in os.environ:
        # Leaving in good order, this process might wait for others that wait for it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _do(arguments: Sequence[str] | None) -> int:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed, as it is for programs without a console
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):  # a pipe on Windows may not be able to encode "–" or "Я"
        sys.stdout.reconfigure(errors="replace")
    try:
        try:
            options = _parser().parse_args(arguments)
            if "TORCHELASTIC_RUN_ID" in os.environ and options.command is not _run:
                raise UsageError("torchrun is for `run` alone: its processes train one network")
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return options.command(options) or 0
        finally:
            sys.stdout.flush()  # here, where it can be told that nobody reads it
    except UsageError as error:
        if os.environ.get("RANK", "0") != "0":
            time.sleep(2)  # all processes make the same mistake; the first reports it and ends us
        print(f"lucir-edu: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output is gone, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a name that is too long, a disk that is full …
        where = f" ({error.filename})" if error.filename else ""
        told = UsageError(f"{error.strerror or error}{where}; check the paths and the disk")
        print(f"lucir-edu: {told}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        from lucir_edu import runs

        if not (told := runs.shortage(error)):
            raise
        print(f"lucir-edu: {told}; what is finished is kept", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nlucir-edu: stopped", file=sys.stderr)
        return 130


def _show_warning(message: Warning, category: type, filename: str, line: int, *_: object) -> None:
    """Print our own warnings in one line, those of libraries as usual."""
    if category.__module__.startswith("lucir_edu"):
        text = f"lucir-edu: warning: {message}\n"
    else:
        text = warnings.formatwarning(message, category, filename, line)
    sys.stderr.write(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lucir-edu",
        description="Class-incremental learning with LUCIR (Hou et al., CVPR 2019).",
        epilog="Run `lucir-edu COMMAND --help` for details.",
    )
    parser.add_argument("--version", action="version", version=f"lucir-edu {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="train through all phases and save the results",
        description="Train through all phases, print a table, and save the results in a folder.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    _add_run_options(run)
    run.add_argument("--seed", type=int, help="seed of weights, batches, augmentation (default 0)")
    run.add_argument("--resume", action="store_true", help="continue the run in --out")
    run.set_defaults(command=_run)

    sweep = commands.add_parser(
        "sweep",
        help="many runs: a grid of settings, several seeds each",
        description="Run every combination of a grid; continue where an earlier call stopped.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    _add_run_options(sweep)
    sweep.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="WHAT",
        help="switches (cosine,less_forget) or a setting and its values (method=replay,lucir); "
        "may be repeated",
    )
    sweep.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="run seeds 0 … N-1 (default 1)"
    )
    sweep.add_argument(
        "--processes", type=int, default=1, metavar="N", help="how many runs at a time (default 1)"
    )
    sweep.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of a Dask cluster perform the runs; --out must be on a disk that "
        "all machines share (tcp://host:8786)",
    )
    sweep.add_argument(
        "--bases",
        type=_path,
        metavar="DIR",
        help="reuse base phases that runs in DIR have learned with the same settings, code and "
        "machine (those in --out are reused anyway)",
    )
    sweep.set_defaults(command=_sweep)

    report = commands.add_parser(
        "report",
        help="compare runs: mean and sd over seeds",
        description="Print a table of all runs in some folders; write a page with figures.",
    )
    report.add_argument("folders", nargs="+", type=_path, metavar="DIR")
    report.add_argument("--html", type=_path, metavar="FILE", help="write one self-contained page")
    report.set_defaults(command=_report)

    bench = commands.add_parser(
        "bench",
        help="speed of the training step, compared with its limits",
        description="Measure images per second of the training step and of evaluation, compared "
        "with a plain pipeline and the machine's limits. Takes a few minutes; leave the machine "
        "alone meanwhile.",
    )
    bench.add_argument(
        "--json", type=_path, metavar="FILE", help="also write the figures to a file"
    )
    bench.add_argument("--device", default="auto", choices=DEVICES)
    bench.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="turns of each contender (default 7)"
    )
    bench.set_defaults(command=_bench)

    data = commands.add_parser(
        "data",
        help="fetch or check a data set",
        description="Fetch a data set, or check it; for a folder of images, every image is read.",
    )
    data.add_argument("--dataset", default="glyphs", choices=configs.CHOICES["dataset"])
    data.add_argument(
        "--data-root",
        type=_path,
        metavar="DIR",
        help="where data sets are kept (default: the project's folder data)",
    )
    data.set_defaults(command=_data)

    grade = commands.add_parser(
        "grade",
        help="grade the exercises of handed-in notebooks",
        description="Grade the exercises of notebooks. Their imports and definitions are run with "
        "your permissions; nothing is trained.",
    )
    grade.add_argument("notebooks", nargs="+", type=_path, metavar="NOTEBOOK")
    grade.add_argument("--csv", type=_path, metavar="FILE", help="also write a table to a file")
    grade.set_defaults(command=_grade)
    return parser


def _path(text: str) -> Path:
    if not text:  # from a shell variable that is not set, say; it would mean the current folder
        raise argparse.ArgumentTypeError("a path is empty; name one")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} names a user that is not known") from None


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=f"one of: {', '.join(PRESETS)}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting (see below); method=NAME sets a method's switches; may be repeated",
    )
    parser.add_argument(
        "--data-root",
        type=_path,
        metavar="DIR",
        help="where data sets are kept (default: the project's folder data)",
    )
    parser.add_argument(
        "--out", type=_path, metavar="DIR", help="where results go (default: a folder in runs)"
    )
    parser.add_argument("--device", default="auto", choices=DEVICES)


def _settings() -> str:
    lines = [f"methods: {', '.join(METHODS)}", "", "settings and their defaults (glyphs-b50-5):"]
    for field in dataclasses.fields(configs.Config):
        line = f"  {field.name} = {field.default}"
        if field.name in configs.CHOICES:
            line += f"  ({' | '.join(configs.CHOICES[field.name])})"
        lines.append(line)
    return "\n".join([*lines, "", "Each setting is explained in lucir_edu/config.py."])


def _check(settings: Iterable[configs.Config], options: argparse.Namespace) -> None:
    """Refuse what cannot be trained before anything is loaded or written."""
    from lucir_edu import datasets, hardware, model, stream

    if options.out and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"{options.out} is a file; choose another --out")
    if getattr(options, "scheduler", None) is None:  # else it is the workers' device
        hardware.pick_device(options.device)
    for config in settings:
        outline = datasets.outline(config)
        if outline is not None:
            stream.make(config, outline)
            model.build(config, 1, len(outline.mean), seed=0)


def _run(options: argparse.Namespace) -> int:
    changes = parse(options.set)
    if options.seed is not None:
        if "seed" in changes:
            raise UsageError("--seed and --set seed=… exclude each other; leave one out")
        changes["seed"] = options.seed
    config = preset(options.preset, **changes)
    name = f"{configs.method_of(config)}-seed{config.seed}"
    out = options.out or Path("runs") / options.preset / name
    _check([config], options)

    from lucir_edu import datasets, hardware, runs
    from lucir_edu.progress import Progress

    if not options.resume:
        runs.check_free(out)  # before the images of a folder are read
    try:
        with hardware.together(), Progress(hidden=not hardware.is_first()) as progress:
            with hardware.first_before_others():
                data = datasets.load(config, options.data_root)
            run = runs.perform(
                config, data, preset=options.preset, out=out,
                resume=options.resume, device=options.device, watch=progress,
            )  # fmt: skip
            _print_summary(run, out)
            if hardware.is_first():
                _name_stale([run])
    except KeyboardInterrupt:
        kept = runs.kept(out)
        how = "go on with the same command" + " and --resume" * bool(kept)
        print(f"\nlucir-edu: stopped; {kept or 'nothing'} kept in {out}; {how}", file=sys.stderr)
        return 130
    return 0


def _print_summary(run: dict, out: Path) -> None:
    average, final, lost = (
        run[key] for key in ("average_incremental_accuracy", "last_accuracy", "forgetting")
    )
    print("\n              CNN    NME")
    for name, values in (("average", average), ("last", final), ("forgetting", lost)):
        shown = [
            f"{values[kind]:6.2f}" if values[kind] is not None else "     –" for kind in values
        ]
        print(f"{name:10s} {' '.join(shown)}")
    print(f"\n{run['preset']}, {run['method']}, seed {run['seed']}; results are in {out}")


def _sweep(options: argparse.Namespace) -> int:
    from lucir_edu import sweep

    fixed, settings = parse(options.set), sweep.grid(options.grid)
    for name, value, most in (
        ("seeds", options.seeds, 1000),
        ("processes", options.processes, 60 if os.name == "nt" else 256),  # (Windows waits for 63)
    ):
        if value > most:
            raise UsageError(f"--{name} {value} is too many; choose at most {most}")
    if any("seed" in setting for setting in (fixed, *settings)):
        raise UsageError("a sweep gets its seeds from --seeds N; remove seed from --set and --grid")
    if options.bases and not options.bases.is_dir():
        raise UsageError(f"--bases {options.bases} is not a folder; name one that holds runs")
    settings = [{**fixed, **setting} for setting in settings]
    _check((preset(options.preset, **setting) for setting in settings), options)
    out = options.out or Path("runs") / f"sweep-{options.preset}"

    from tqdm import tqdm

    from lucir_edu import runs
    from lucir_edu.progress import Progress

    def announce(number: int, count: int, name: str) -> None:
        tqdm.write(f"{number}/{count}  {name}")
        sys.stdout.flush()

    done = []
    try:
        with Progress(table=False) as progress:
            for run in sweep.sweep(
                options.preset,
                settings,
                range(options.seeds),
                out,
                data_root=options.data_root,
                device=options.device,
                processes=options.processes,
                scheduler=options.scheduler,
                bases=options.bases,
                announce=announce,
                watch=progress,
                progress=progress.runs,
            ):
                done.append(run)
    except UsageError:
        if done:
            print()
            _print_table(runs.compare(done))
        raise
    except KeyboardInterrupt:
        print(
            f"\nlucir-edu: stopped; what is finished is kept in {out}; "
            "run the same command to go on",
            file=sys.stderr,
        )
        return 130
    print()
    _print_table(runs.compare(done))
    _name_stale(done)
    return 0


def _report(options: argparse.Namespace) -> int:
    from lucir_edu import runs

    if options.html:
        with _of_the_lab("--html"):
            from lucir_edu.lab import report
    with _writable(options.html, ".html", ".htm") as page:
        every = list(runs.find(options.folders))
        found = [run for run in every if run.complete]
        for run in every:
            if not run.complete:
                print(f"left out because it is not complete: {run.path}", file=sys.stderr)
        if not found:
            raise UsageError(
                "none of the runs is complete; continue one with lucir-edu run --resume"
            )
        _print_table(runs.compare(found))
        _name_stale(found)
        if page:
            report.write(found, page)
    if options.html:
        print(f"\nwritten: {options.html}")
    return 0


def _name_stale(found: Iterable[Any]) -> None:
    from lucir_edu import runs

    paths = [run.path for run in found if runs.stale(run)]
    if paths:
        print(
            f"lucir-edu: warning: computed by another version of the code: {paths[0]}"
            f"{f' and {len(paths) - 1} more' * (len(paths) > 1)}; to recompute one, remove "
            f"its folder and run it again",
            file=sys.stderr,
        )


@contextlib.contextmanager
def _of_the_lab(what: str) -> Iterator[None]:
    """For an import that may fail where Jupyter is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{what} needs the notebooks' packages ({error.name} is missing); install them: "
            f'pip install -c constraints.txt -e ".[lab]"'
        ) from None


@contextlib.contextmanager
def _writable(path: Path | None, *kinds: str) -> Iterator[Path | None]:
    """A file to write to; it appears when all is done, and whole. It is created first: nobody wants
    to hear after minutes of work that its folder is read-only. It replaces only a file of the same
    kind: in `grade --csv handed_in/*.ipynb` the shell puts a learner's notebook in its place."""
    if path is None:
        yield None
        return
    from lucir_edu.files import whole

    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():  # a file would replace /dev/stdout for good
        raise UsageError(f"{path} is a device or a pipe; name a file")
    if path.exists() and (path.suffix.lower() not in kinds or path.name == "results.json"):
        raise UsageError(f"{path} exists, and is not what is to be written; name another file")
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(whole(path))
        except OSError as error:
            raise UsageError(f"cannot write {path} ({error.strerror}); name another file") from None
        yield file


def _print_table(rows: list[dict]) -> None:
    from lucir_edu.runs import MEASURES, in_common

    for title in dict.fromkeys(row["preset"] for row in rows):
        of_preset = [row for row in rows if row["preset"] == title]
        common, names = in_common(row["label"] for row in of_preset)
        width = max(map(len, names.values()))
        print(f"{' '.join([title, *common])}: mean ± sd over seeds and class orders, percent")
        print(f"{'':{width}}   runs  " + "  ".join(f"{m:>17s}" for m in MEASURES))
        for row in of_preset:
            cells = [
                f"{'–':>17s}" if row[m] is None
                else f"{row[m][0]:9.2f}        " if len(row["seeds"]) == 1
                else f"{row[m][0]:9.2f} ± {row[m][1]:5.2f}"
                for m in MEASURES
            ]  # fmt: skip
            name = names[row["label"]]
            print(f"{name:{width}}  {len(row['seeds']):5d}  {'  '.join(cells)}".rstrip())


def _bench(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: at least one is needed")
    from tqdm import tqdm

    from lucir_edu import bench, hardware

    hardware.pick_device(options.device)
    turns = options.rounds * len(bench.NETWORKS) * len(bench.CONTENDERS)
    with _writable(options.json, ".json") as file:
        with tqdm(total=turns, unit="turn", leave=False) as bar:
            result = bench.measure(options.device, rounds=options.rounds, watch=bar.update)
        if file:
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(bench.table(result))
    return 0


def _data(options: argparse.Namespace) -> int:
    from lucir_edu import datasets

    root = datasets.folder_of(options.data_root)
    if options.dataset == "cifar100":
        from lucir_edu.datasets import cifar

        cifar.fetch(root)
    if options.dataset == "folder":
        _list_damaged(root)
    dataset = datasets.load(preset("folder", dataset=options.dataset), root)
    train, test = len(dataset.train.labels), len(dataset.test.labels)
    print(
        f"{dataset.name}: {len(dataset.classes)} classes, {train} training and {test} test images"
    )
    print(f"fingerprint {dataset.fingerprint}, in {root}")
    return 0


def _grade(options: argparse.Namespace) -> int:
    with _of_the_lab("grading"):
        from lucir_edu.lab import handed_in
    from tqdm import tqdm

    rows, refused = [("notebook", "exercise", "verdict", "because")], 0
    with _writable(options.csv, ".csv") as file:
        notebooks = [path for pattern in options.notebooks for path in _named(pattern)]
        for path in tqdm(notebooks, unit="notebook", leave=False, disable=None):
            try:
                grades = handed_in.grade(path)
            except UsageError as error:  # one of thirty must not keep the others from being graded
                tqdm.write(f"lucir-edu: {error}", file=sys.stderr)
                refused += 1
                continue
            tqdm.write(f"{path}")
            for one in grades:
                why = f": {one.because}" * bool(one.because)
                tqdm.write(f"  {one.exercise:26s}{one.verdict}{why}")
                rows.append((one.notebook, one.exercise, one.verdict, one.because))
        if file:
            if len(rows) == 1:  # an earlier table stays
                raise UsageError(f"{options.csv} is not written: no notebook was graded")
            # with a mark at the start; without it Excel assumes another encoding
            with open(file, "w", newline="", encoding="utf-8-sig", errors="replace") as stream:
                csv.writer(stream).writerows(rows)
    return 2 if refused else 0


def _named(pattern: Path) -> list[Path]:
    """The files that a pattern names: shells on Windows leave expanding it to the program."""
    if os.path.exists(pattern):
        return [pattern]
    return sorted(map(Path, glob.glob(str(pattern)))) or [pattern]


def _list_damaged(root: Path) -> None:
    import numpy as np

    from lucir_edu.datasets import default_root, folder, pictures

    dataset = folder.load(root)
    paths = np.concatenate([dataset.train.paths, dataset.test.paths])
    found = folder.damaged(paths, os.cpu_count() or 1, default_root())
    shown = list(found.items())
    if sys.stdout.isatty():
        shown = shown[:20]
    for path, reason in shown:
        print(f"{pictures.shown(path)}: {reason}")
    if len(shown) < len(found):
        print(f"… and {len(found) - len(shown)} more; add `| more` to see all of them")
    if found:
        raise UsageError(
            f"{len(found)} of {len(paths)} images cannot be read; repair or remove them, or "
            f"leave them out with --set damaged=skip"
        )


if __name__ == "__main__":
    sys.exit(main())
