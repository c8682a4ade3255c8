"""The command line: lucir-edu run | sweep | report | bench | data."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lucir_edu import config as configs
from lucir_edu.config import DEVICES, METHODS, PRESETS, UsageError, parse, preset

# What needs torch is imported where it is used: a mistake in the arguments should not wait seconds.


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` shows what is possible")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when all went well, 2 for a user's mistake, 130 after Ctrl-C."""
    try:
        options = _parser().parse_args(arguments)
        return options.command(options) or 0
    except UsageError as error:
        print(f"lucir-edu: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nlucir-edu: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="lucir-edu",
        description="Class-incremental learning with LUCIR (Hou et al., CVPR 2019).",
        epilog="`lucir-edu COMMAND --help` tells more.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="train through all phases and keep the results",
        description="Train through all phases; print a table; keep the results in a folder.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_settings(),
    )
    _add_run_options(run)
    run.add_argument("--seed", type=int, help="of weights, batches and augmentation (default 0)")
    run.add_argument("--resume", action="store_true", help="go on with the run in --out")
    run.set_defaults(command=_run)

    sweep = commands.add_parser(
        "sweep",
        help="many runs: a grid of settings, several seeds each",
        description="Perform every combination of a grid; go on where an earlier call stopped.",
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
        "may be given again",
    )
    sweep.add_argument("--seeds", type=int, default=1, help="run seeds 0 … N-1 (default 1)")
    sweep.add_argument(
        "--processes", type=int, default=1, metavar="N", help="so many runs at a time (default 1)"
    )
    sweep.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="let the workers of a Dask cluster perform the runs; --out must be on a disk that "
        "all machines share (tcp://host:8786)",
    )
    sweep.add_argument(
        "--bases",
        type=Path,
        metavar="DIR",
        help="take over base phases that runs in DIR have learnt with the same settings "
        "(default: --out)",
    )
    sweep.set_defaults(command=_sweep)

    report = commands.add_parser(
        "report",
        help="compare runs: mean and sd over seeds",
        description="Print a table of all runs in some folders; write a page with figures.",
    )
    report.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    report.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    report.set_defaults(command=_report)

    bench = commands.add_parser(
        "bench",
        help="speed of the training step, beside its limits",
        description="Measure images per second of the training step and of evaluation, beside a "
        "plain pipeline and the machine's limits. Takes some minutes; leave the machine alone.",
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    bench.add_argument("--device", default="auto", choices=DEVICES)
    bench.add_argument(
        "--rounds", type=int, default=7, metavar="N", help="turns of each contender (default 7)"
    )
    bench.set_defaults(command=_bench)

    data = commands.add_parser(
        "data", help="fetch or check a data set", description="Fetch a data set, or check it."
    )
    data.add_argument("--dataset", default="glyphs", choices=configs.CHOICES["dataset"])
    data.add_argument("--data-root", type=Path, metavar="DIR")
    data.set_defaults(command=_data)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", metavar="PRESET", help=f"one of: {', '.join(PRESETS)}")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting (see below); method=NAME sets all switches; may be given again",
    )
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where data sets are kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--device", default="auto", choices=DEVICES)


def _settings() -> str:
    lines = [f"methods: {', '.join(METHODS)}", "", "settings and their defaults (glyphs-b50-5):"]
    for field in dataclasses.fields(configs.Config):
        lines.append(f"  {field.name} = {field.default}")
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> int:
    changes = parse(options.set)
    if options.seed is not None:
        changes["seed"] = options.seed
    config = preset(options.preset, **changes)
    method = changes.get("method", configs.method_of(config))
    out = options.out or Path("runs") / options.preset / f"{method}-seed{config.seed}"

    from lucir_edu import datasets, runs
    from lucir_edu.progress import Progress

    dataset = datasets.load(config, options.data_root)
    try:
        with Progress() as progress:
            run = runs.perform(
                config, dataset, preset=options.preset, out=out, resume=options.resume,
                device=options.device, watch=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = len(runs.load(out)["phases"]) if (out / runs.RESULTS).exists() else 0
        what = f"{kept} finished phase{'s' * (kept != 1)} kept in {out}"
        how = "go on with the same command" + " and --resume" * bool(kept)
        print(f"\nlucir-edu: stopped; {what}; {how}", file=sys.stderr)
        return 130
    average, final, lost = (
        run[key] for key in ("average_incremental_accuracy", "last_accuracy", "forgetting")
    )
    print("\n              CNN    NME")
    for name, values in (("average", average), ("last", final), ("forgetting", lost)):
        shown = [
            f"{values[kind]:6.2f}" if values[kind] is not None else "     –" for kind in values
        ]
        print(f"{name:10s} {' '.join(shown)}")
    print(f"\n{options.preset}, {run['method']}, seed {config.seed}; results are in {out}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from lucir_edu import sweep

    fixed, settings = parse(options.set), sweep.grid(options.grid)
    out = options.out or Path("runs") / f"sweep-{options.preset}"

    from lucir_edu import runs
    from lucir_edu.progress import Progress

    def announce(number: int, count: int, name: str) -> None:
        print(f"{number}/{count}  {name}", flush=True)

    settings = [{**fixed, **setting} for setting in settings]
    try:
        with Progress(table=False) as progress:
            done = list(
                sweep.sweep(
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
                )
            )
    except KeyboardInterrupt:
        print(
            f"\nlucir-edu: stopped; what is finished is kept in {out}; the same command goes on",
            file=sys.stderr,
        )
        return 130
    print()
    _print_table(runs.compare(done))
    return 0


def _report(options: argparse.Namespace) -> int:
    from lucir_edu import runs

    every = list(runs.find(options.folders))
    found = [run for run in every if run.complete]
    for run in every:
        if not run.complete:
            print(f"left out, for it is not complete: {run.path}", file=sys.stderr)
    if not found:
        raise UsageError("none of the runs is complete; go on with one by lucir-edu run --resume")
    _print_table(runs.compare(found))
    if options.html:
        from lucir_edu.lab import report

        report.write(found, options.html)
        print(f"\nwritten: {options.html}")
    return 0


def _print_table(rows: list[dict]) -> None:
    from lucir_edu.runs import MEASURES

    width = max(len(row["label"]) for row in rows)
    for name in dict.fromkeys(row["preset"] for row in rows):
        print(f"{name}: mean ± sd over seeds, percent")
        print(f"{'':{width}}  seeds  " + "  ".join(f"{m:>17s}" for m in MEASURES))
        for row in rows:
            if row["preset"] == name:
                cells = [
                    f"{row[m][0]:9.2f} ± {row[m][1]:5.2f}" if row[m] else f"{'–':>17s}"
                    for m in MEASURES
                ]
                print(f"{row['label']:{width}}  {len(row['seeds']):5d}  " + "  ".join(cells))


def _bench(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise UsageError(f"--rounds {options.rounds}: at least one is needed")
    from tqdm import tqdm

    from lucir_edu import bench
    from lucir_edu.files import whole

    turns = options.rounds * len(bench.NETWORKS) * len(bench.CONTENDERS)
    with contextlib.ExitStack() as stack:
        if options.json:
            try:  # now, for nobody wants to hear after minutes that a folder is read-only
                file = stack.enter_context(whole(options.json))
            except OSError as error:
                raise UsageError(f"cannot write {options.json} ({error.strerror})") from None
        with tqdm(total=turns, unit="turn", leave=False) as bar:
            result = bench.measure(options.device, rounds=options.rounds, watch=bar.update)
        if options.json:
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(bench.table(result))
    return 0


def _data(options: argparse.Namespace) -> int:
    from lucir_edu import datasets

    root = options.data_root or datasets.default_root()
    if options.dataset == "cifar100":
        from lucir_edu.datasets import cifar

        cifar.fetch(root)
    dataset = datasets.load(preset("folder", dataset=options.dataset), root)
    train, test = len(dataset.train.labels), len(dataset.test.labels)
    print(
        f"{dataset.name}: {len(dataset.classes)} classes, {train} training and {test} test images"
    )
    print(f"fingerprint {dataset.fingerprint}, in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
