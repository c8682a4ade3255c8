"""A sweep's runs on many machines: the workers of a Dask cluster perform them.

The only module that needs Dask. A worker writes its run to the disk that all machines share, phase
by phase. When it dies, Dask gives the run to another, which goes on from what was kept.
"""

import asyncio
import contextlib
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from distributed import CancelledError, Client, Future, KilledWorker, Security, get_worker
from distributed.comm import connect
from distributed.utils import LoopRunner, silence_logging_cmgr

from lucir_edu import hardware, runs
from lucir_edu.config import Config, UsageError
from lucir_edu.progress import Share
from lucir_edu.trainer import Event

LOOK_EVERY = 1  # seconds, at least, between two looks at the shared disk
PATIENCE = 5  # seconds in which a scheduler must answer, and have a worker
START = "dask worker {} --nthreads 1 --memory-limit 0"  # Dask's own limit is a share of the memory


def perform(
    one: Callable[..., runs.Run | UsageError],
    jobs: Sequence[tuple[str, Config]],
    out: Path,
    scheduler: str,
    progress: Callable[[float, int], object],
) -> Iterator[runs.Run | UsageError]:
    """Every job's run, or the error that ended it, in order.

    Args:
        one: performs a job, on a worker; is called with the job and ``watch``.
        jobs: each run's folder below the sweep's folder, and its settings.
        out: the sweep's folder.
        scheduler: the cluster's address.
        progress: see :func:`lucir_edu.sweep.sweep`.

    Raises:
        UsageError: there is no such cluster, or its workers cannot do what is asked of them.
    """
    todo = [job for job in jobs if not runs.is_complete(out / job[0])]
    shares = {job[0]: float(job not in todo) for job in jobs}

    def look() -> None:
        progress(sum(shares.values()), len(jobs))

    with (
        silence_logging_cmgr(logging.CRITICAL),  # what goes wrong is reported in one line
        _connect(scheduler) as client,  # leaving it takes the tasks back
        _sign(out) as sign,
    ):
        _inspect(client, sign)
        client.subscribe_topic(sign.name, lambda told: shares.update([told[1]]))
        there = partial(_perform_there, one, sign=sign, code=hardware.code())
        futures = {
            job[0]: client.submit(there, job, key=(f"run{sign.name}", job[0]), priority=-rank)
            for rank, job in enumerate(runs.bases_first(todo))
        }
        for job in jobs:
            if job[0] not in futures:
                yield one(job, device="cpu")  # it is only read, whatever device it was made on
                continue
            try:
                run = _result(futures.pop(job[0]), look)
                shares[job[0]] = 1
            except KilledWorker as error:
                raise UsageError(
                    f"several workers died one after the other while they had {job[0]}, the last "
                    f"one {error.last_worker.address}; see its log (is there enough memory?); "
                    f"what is finished is kept in {out}; run the same command to go on"
                ) from None
            except CancelledError:
                raise UsageError(
                    f"the scheduler at {scheduler} is gone; what is finished is kept in {out}; "
                    "run the same command to go on"
                ) from None
            yield run


def _result(future: Future, look: Callable[[], object]) -> runs.Run | UsageError:
    while True:
        try:
            return future.result(timeout=1)
        except TimeoutError:
            if future.status == "error":  # it is the run's own
                raise
            look()


def _connect(scheduler: str) -> Client:
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", scheduler):
        raise UsageError(f"--scheduler {scheduler!r} is not an address like tcp://host:8786")

    async def answer() -> None:  # a client would wait forever for a listener that is no scheduler
        security = Security().get_connection_args("client")
        comm = await asyncio.wait_for(connect(scheduler, PATIENCE, **security), PATIENCE)
        await comm.close()

    try:
        LoopRunner().run_sync(answer)
        return Client(scheduler, timeout=PATIENCE, set_as_default=False)
    except (OSError, TimeoutError, TypeError, ValueError) as error:  # TypeError: no certificates
        raise UsageError(
            f"no Dask scheduler answers at {scheduler} ({str(error)[:120] or 'it is silent'}); "
            "start one with `dask scheduler`, or correct --scheduler"
        ) from None


@contextlib.contextmanager
def _sign(out: Path) -> Iterator[Path]:
    """A file in ``out`` that exists as long as the sweep is running."""
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(tempfile.NamedTemporaryFile(dir=out, prefix=".sweep-"))
        except OSError as error:
            raise UsageError(
                f"cannot write to {out} ({error.strerror}); choose another --out"
            ) from None
        yield Path(file.name)


def _inspect(client: Client, sign: Path) -> None:
    """Raise an error for workers that cannot do what is asked of them."""

    def look() -> tuple[str | None, bool]:  # an inner function is sent whole, others by name
        try:
            from lucir_edu import hardware
        except ImportError:
            return None, False
        return hardware.code(), sign.exists()

    start = START.format(client.scheduler.address)
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise UsageError(f"the cluster has no workers; start some: {start}") from None
    for worker, count in client.nthreads().items():
        if count > 1:
            raise UsageError(
                f"the worker {worker} does {count} tasks at a time, and a run needs a process "
                f"of its own; start it with: {start}"
            )
    for worker, found in client.run(look, on_error="return").items():
        if isinstance(found, Exception):
            raise UsageError(f"the worker {worker} cannot be checked ({found}); restart it")
        code, sees = found
        if code is None:
            raise UsageError(f"the worker {worker} lacks lucir_edu; install it there")
        _compare(worker, code, hardware.code(), sees, sign)


def _perform_there(
    one: Callable[..., runs.Run | UsageError], job: tuple[str, Config], sign: Path, code: str
) -> runs.Run | UsageError:
    """Perform a job on this worker, which may have come after the others were inspected."""

    def look() -> None:  # a sweep that was stopped no longer has a sign
        _compare(get_worker().address, hardware.code(), code, sign.exists(), sign)

    def tell(done: float) -> None:
        get_worker().log_event(sign.name, (job[0], done))

    share = Share(tell)

    looked = 0.0

    def watch(event: Event) -> None:
        nonlocal looked
        if time.monotonic() - looked >= LOOK_EVERY:
            look()
            looked = time.monotonic()
        share(event)

    try:
        look()
    except UsageError as error:  # of this worker alone, which came later than those inspected
        return error
    return one(job, watch=watch)


def _compare(worker: str, code: str, wanted: str, sees: bool, sign: Path) -> None:
    if code != wanted:
        raise UsageError(
            f"the worker {worker} has another version of lucir_edu ({code} instead of {wanted}); "
            "install the same one there, and restart the worker"
        )
    if not sees:
        raise UsageError(
            f"the worker {worker} does not see {sign.parent}; choose an --out on a disk that all "
            "machines share"
        )
