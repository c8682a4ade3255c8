"""Many runs: a grid of settings, several seeds each, one folder per run.

They are performed in this process, by several processes, or by the workers of a Dask cluster.
"""

import contextlib
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.pool import AsyncResult
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from lucir_edu import config as configs
from lucir_edu import datasets, runs
from lucir_edu.config import Config, UsageError, method_of
from lucir_edu.progress import Share
from lucir_edu.trainer import Event, TrainingWarning

Job = tuple[str, Config]  # the run's folder below the sweep's folder, and its settings


def grid(specs: Sequence[str]) -> list[dict[str, Any]]:
    """All combinations of the named settings.

    Args:
        specs: each either switches, ``"cosine,less_forget"`` (on and off), or one setting with
            its values, ``"method=replay,lucir"`` or ``"margin=0.2,0.5"``. (A value that has
            commas itself, such as that of milestones, can only be given to :func:`sweep`.)

    >>> grid(["method=replay,lucir"])
    [{'method': 'replay'}, {'method': 'lucir'}]
    >>> len(grid(["cosine,less_forget", "top_k=1,2"]))
    8
    """
    axes: list[list[tuple[str, Any]]] = []
    usual = {"method": "lucir", **Config().to_dict()}
    for spec in specs:
        name, equals, values = spec.partition("=")
        names = [name.strip()] if equals else [part.strip() for part in spec.split(",")]
        choices = values.split(",") if equals else ["false", "true"]
        for key in names:
            if not (equals or key in configs.SWITCHES or isinstance(usual.get(key, True), bool)):
                raise UsageError(f"--grid {spec!r} gives {key} no values; write {key}=…,…")
            if any(key == axis[0][0] for axis in axes):
                raise UsageError(f"{key} is named twice; give all its values at once: {key}=…,…")
            axes.append([(key, configs.parse([f"{key}={choice}"])[key]) for choice in choices])
    axes.sort(key=lambda axis: axis[0][0] != "method")  # single switches come on top of a method
    return [dict(combination) for combination in itertools.product(*axes)]


def sweep(
    preset: str,
    settings: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    device: str = "auto",
    processes: int = 1,
    scheduler: str | None = None,
    bases: str | Path | None = None,
    announce: Callable[[int, int, str], object] = lambda number, count, name: None,
    watch: Callable[[Event], object] = lambda event: None,
    progress: Callable[[float, int], object] = lambda done, count: None,
) -> Iterator[runs.Run]:
    """Perform every setting with every seed.

    A run that is complete in ``out`` is not repeated. If a run fails, the others are performed all
    the same. A base phase that runs have in common is learned once, unless there is nothing else to
    do for a process when the first has begun with it.

    Args:
        settings: arguments of :func:`lucir_edu.config.preset`, as returned by :func:`grid`.
        bases: a folder in which to look first for runs with the same base phase, before ``out``.
        processes: how many runs at a time, each in a process of its own with its share of the
            cores, which is the same when fewer runs are left. If more than one, a script must call
            it below ``if __name__ == "__main__":``.
        scheduler: the address of a Dask cluster, whose workers perform the runs instead, one run
            at a time each. They must have this code, and see ``out`` under the same path.
        announce: is called with each run's number (from 1), the count, and its name: before the
            run, or after it if another process performs it.
        watch: is called with every event, but not if other processes perform the runs.
        progress: is called instead, every second, with how many runs are done (2.5: two and what
            makes half a run of others) and the count.

    Yields:
        Each run, in order, when it is complete.

    Raises:
        UsageError: a setting, the cluster, or a run's folder or data is not as it should be, or
            runs failed (it is raised when all others are done, and names them).
    """
    # Absolute, because a cluster's workers start in other folders
    out = Path(out).absolute()
    # A run is known by its settings: its folder is called otherwise if they were named otherwise
    kept = [(run.path, run["preset"], runs.deciding(Config.from_dict(run["config"])))
            for run in _readable(out)]  # fmt: skip
    jobs: list[Job] = []
    names: dict[tuple[str, int], str] = {}
    for setting, seed in itertools.product(settings, seeds):
        name = ",".join(f"{key}={value}" for key, value in setting.items()) or "default"
        if len(name) > 200:  # a name may have 255 bytes, on Windows a path 260 characters
            name = f"{name[:160]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        config = configs.preset(preset, **{**setting, "seed": seed})
        about = {"preset": preset, "method": method_of(config), "config": config.to_dict()}
        row = runs.label(runs.Run(about, {})), seed
        if row in names:
            raise UsageError(f"{names[row]} and {name} would be one row of a table; leave one out")
        names[row] = name
        path = out / name / f"seed{seed}"
        if not (path / runs.RESULTS).exists():
            mine = [preset, runs.deciding(config)]
            path = next((where for where, *about in kept if about == mine), path)
        jobs.append((path.relative_to(out).as_posix(), config))
    if not jobs:
        raise UsageError("a sweep needs at least one seed; set --seeds")
    if processes < 1:
        raise UsageError(f"a sweep needs at least one process, not {processes}; set --processes")
    if scheduler is not None and processes > 1:
        raise UsageError(
            "--processes and --scheduler exclude each other; "
            "a cluster performs as many runs at a time as it has workers"
        )
    bases = out if bases is None else Path(bases).absolute()
    data_root = None if data_root is None else Path(data_root).expanduser().absolute()
    one = partial(_perform, preset=preset, out=out, bases=bases, data_root=data_root, device=device)
    here = scheduler is None and processes == 1
    if here:
        performed = (one(job, watch=watch) for job in jobs)
    elif scheduler is None:
        performed = _by_processes(one, jobs, out, processes, progress)
    else:
        try:
            from lucir_edu import cluster
        except ModuleNotFoundError:
            raise UsageError(
                '--scheduler needs Dask; install it: pip install -c constraints.txt -e ".[cluster]"'
            ) from None
        performed = cluster.perform(one, jobs, out, scheduler, progress)
    failed: dict[str, str] = {}
    with contextlib.closing(performed):
        for number, (name, _) in enumerate(jobs, 1):
            if here:
                announce(number, len(jobs), name)
            run = next(performed)
            if not here:
                announce(number, len(jobs), name)
            if isinstance(run, UsageError):
                failed[name] = str(run)
            else:
                yield run
    if failed:
        reasons = set(failed.values())
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        if len(failed) == len(jobs) and len(reasons) == 1:
            (told,) = reasons
        elif len(jobs) > 1:
            told = f"{len(failed)} of {len(jobs)} runs failed, the others are in {out}: {told}"
        raise UsageError(told)


def _by_processes(
    one: Callable[..., runs.Run | UsageError],
    jobs: Sequence[Job],
    out: Path,
    processes: int,
    progress: Callable[[float, int], object],
) -> Iterator[runs.Run | UsageError]:
    threads = max(1, torch.get_num_threads() // processes)  # it can decide a result, so always that
    context = multiprocessing.get_context("spawn")
    shares = context.RawArray("d", [runs.is_complete(out / name) for name, _ in jobs])

    def look() -> None:
        progress(sum(shares), len(jobs))

    others = set(multiprocessing.active_children())
    with _ctrl_c_ignored():  # the pool's processes inherit that: the parent handles Ctrl-C
        pool = context.Pool(min(processes, len(jobs)), _start_worker, (threads, shares))
    with pool:  # it is ended on exit
        workers = set(multiprocessing.active_children()) - others
        performed = {
            job[0]: pool.apply_async(_perform_here, (one, job, jobs.index(job)))
            for job in runs.bases_first(jobs)
        }
        for name, _ in jobs:
            yield _result(performed.pop(name), workers, out, look)


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _result(
    performed: AsyncResult, workers: set[BaseProcess], out: Path, look: Callable[[], object]
) -> runs.Run | UsageError:
    """A job's result; a pool would wait forever for the run of a worker that was killed."""
    while True:
        try:
            return performed.get(timeout=1)
        except multiprocessing.TimeoutError:
            look()
            if any(worker.exitcode is not None for worker in workers):
                raise UsageError(
                    "a process was ended from outside (is there enough memory?); what is finished "
                    f"is kept in {out}; run the same command to go on"
                ) from None


def _perform(
    job: Job,
    preset: str,
    out: Path,
    bases: Path,
    data_root: str | Path | None,
    device: str,
    watch: Callable[[Event], object] = lambda event: None,
) -> runs.Run | UsageError:
    """A job's run, or the error that ended it: the other jobs are done all the same."""
    # Image files are read by other processes, which a daemonic process may not start
    multiprocessing.current_process().daemon = False
    name, config = job
    try:
        dataset = datasets.load(config, data_root)
        base = None
        if not (out / name / runs.RESULTS).exists():
            among = (bases,) if bases == out else (bases, out)
            found = itertools.chain.from_iterable(map(_readable, among))
            base = runs.same_base(config, dataset, device, found)
            if base is None and bases != out:
                told = f"no run in {bases} has learned the base phase of {name}; it is learned anew"
                warnings.warn(told, TrainingWarning, stacklevel=1)
        return runs.perform(
            config,
            dataset,
            preset=preset,
            out=out / name,
            resume=True,
            base=base,
            device=device,
            watch=watch,
        )
    except UsageError as error:
        return error
    except (RuntimeError, MemoryError) as error:
        if not (told := runs.shortage(error)):
            raise
        return UsageError(told)


def _readable(folder: Path) -> Iterator[runs.Run]:
    """The runs below a folder, except those that another process is writing at the moment."""
    for results in sorted(folder.rglob(runs.RESULTS)):
        with contextlib.suppress(UsageError):
            yield runs.load(results.parent)


_shares: Any = None  # in a pool's worker: what is done of each run


def _start_worker(threads: int, shares: Any) -> None:
    global _shares
    _shares = shares
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """A worker whose parent was killed would compute on, for hours, and keep the run's folder."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _perform_here(
    one: Callable[..., runs.Run | UsageError], job: Job, number: int
) -> runs.Run | UsageError:
    def tell(message: Warning, *_: object) -> None:
        print(f"lucir-edu: warning: {job[0]}: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = tell
        run = one(job, watch=Share(partial(_shares.__setitem__, number)))
    _shares[number] = 1
    return run
