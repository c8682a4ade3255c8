"""A learner's code, run where it can do little harm.

It runs in a thread of its own, with a limit on time, memory and prints; what it changes in the
libraries, the random states and the settings that other code depends on is put back.
"""

import builtins
import contextlib
import ctypes
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, TextIO

import numpy as np
import psutil
import torch
from IPython import get_ipython

from lucir_edu import losses, memory, metrics, model

TIME_LIMIT = 5.0  # seconds for a behaviour
MEMORY_LIMIT = 2 * 2**30  # bytes more than the kernel has; on Linux: elsewhere none can be set
STOPPING = 0.5  # seconds to ask a thread to end, and as many to put it to sleep
FLOOD = 10_000  # characters that may be printed during a behaviour
SHOWN_LINES, SHOWN_CHARACTERS = 10, 1000  # of what was printed in all
SHARED = (  # what a learner's code shares with all other code
    builtins, math, random, np, torch, torch.linalg, torch.nn, torch.nn.functional, torch.nn.init,
    torch.Tensor, torch.nn.Module, torch.nn.Linear, torch.nn.Parameter,
    losses, memory, metrics, model,
)  # fmt: skip


class Wrong(Exception):
    """What is wrong, in words.

    Args:
        final: there is nothing to learn from testing further.
    """

    def __init__(self, words: str, final: bool = True) -> None:
        super().__init__(words)
        self.words, self.final = words, final


class Prints:
    """What a learner's function prints: the beginning, and how many characters there were."""

    def __init__(self) -> None:
        self.kept, self.count, self.recent = "", 0, 0  # recent: during this behaviour

    def add(self, text: str) -> None:
        self.kept += text[: SHOWN_CHARACTERS - len(self.kept)]
        self.count += len(text)
        self.recent += len(text)
        if self.recent > FLOOD:
            raise _Flood

    def shown(self) -> list[str]:
        """Lines for the report."""
        if not self.count:
            return []
        lines = self.kept.splitlines(keepends=True)[:SHOWN_LINES]
        rest = self.count - sum(map(len, lines))
        end = [f"    … and {rest:,} characters more"] if rest else []
        return ["  it printed:", *(f"    {line.rstrip()}" for line in lines), *end]


class _Flood(BaseException):
    """Ends a function that prints without end; not an Exception, so that few catch it."""


class _Sleep(BaseException):
    """For a function that catches whatever should stop it: creating one of these never ends."""

    asleep = threading.Event()

    def __init__(self) -> None:
        self.asleep.set()
        while True:
            time.sleep(3600)


_here = threading.local()  # .prints: where this thread's prints go; None: they pass through


class _Ear:
    """A stream that keeps the prints of learners' threads; those of other threads pass through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        prints = getattr(_here, "prints", None)
        if prints is None:
            return self._stream.write(text)
        prints.add(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def nothing_changes() -> Iterator[None]:
    """Random states and settings are put back afterwards; meanwhile prints are captured, and
    ``exit()`` does not end the kernel."""
    states = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    folder, depth = os.getcwd(), sys.getrecursionlimit()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    out, err, shell = _Ear(sys.stdout), _Ear(sys.stderr), get_ipython()
    with (
        torch.random.fork_rng(gpus),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            if shell is not None:
                shell.ask_exit = sys.exit
            torch.set_default_dtype(torch.float32)
            torch.default_generator.manual_seed(0)  # the same report every time
            random.seed(0), np.random.seed(0)
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)
            os.chdir(folder)
            sys.setrecursionlimit(depth)
            if shell is not None:  # its class's method is back; a check inside this one was first
                vars(shell).pop("ask_exit", None)


@contextlib.contextmanager
def _little_memory() -> Iterator[None]:
    """No more than MEMORY_LIMIT is available: asking for more raises, and the kernel lives on."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):
        yield
        return
    before, most = process.rlimit(psutil.RLIMIT_AS)
    limit = process.memory_info().vms + MEMORY_LIMIT
    if before != psutil.RLIM_INFINITY:
        limit = min(limit, before)
    process.rlimit(psutil.RLIMIT_AS, (limit, most))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_AS, (before, most))


@contextlib.contextmanager
def put_back(owners: Iterable[ModuleType | type]) -> Iterator[list[str]]:
    """Put back what is changed in these modules and classes, and list it."""
    before = [(owner, dict(vars(owner))) for owner in owners]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for owner, names in before:
            now = dict(vars(owner))
            title = owner.__name__.removeprefix("lucir_edu.")
            for name, value in names.items():
                # (torch.Storage follows the default type, which is put back separately)
                if now.get(name, changed) is not value and name != "Storage":
                    setattr(owner, name, value)
                    changed.append(f"{title}.{name}")
            for name in now.keys() - names:
                # modules are loaded on first use; names with __ are Python's own bookkeeping
                if not name.startswith("__") and not isinstance(now[name], ModuleType):
                    delattr(owner, name)
                    changed.append(f"{title}.{name}")


def apart(work: Callable[[], Any], prints: Prints | None = None) -> Any:
    """Do the work in a thread of its own, in which torch's modes are those of a fresh start.

    Args:
        prints: of a learner's function, whose time and memory are limited; None: it is ours.

    Raises:
        Wrong: a limit was reached, or a library was changed.
    """
    outcome: list[tuple[Any, BaseException | None]] = []
    done = threading.Event()

    def body() -> None:
        _here.prints = prints
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            done.set()

    thread = threading.Thread(target=body, daemon=True)
    end = math.inf if prints is None else time.monotonic() + TIME_LIMIT
    with contextlib.ExitStack() as stack:
        if prints is not None:
            stack.enter_context(_little_memory())
        changed = stack.enter_context(put_back(SHARED if prints is not None else ()))
        try:
            thread.start()
            while not done.is_set() and time.monotonic() < end:
                done.wait(0.05)  # in short pieces, so that the kernel can be interrupted
            late = not done.is_set()
        finally:
            stopped = _stop(thread, done)
    if prints is not None and prints.recent > FLOOD:
        raise Wrong(f"prints more than {FLOOD:,} characters; is there a print in a loop?")
    if late:
        rest = "" if stopped else " It cannot be stopped: restart the kernel to get rid of it."
        raise Wrong(f"ran longer than {TIME_LIMIT:g} s; is there a loop that never ends?{rest}")
    value, error = outcome.pop()
    if changed:
        raise Wrong(f"changes {', '.join(changed[:3])}, on which all other code depends (put back)")
    if error is not None:
        try:
            raise error
        finally:
            del error  # which holds this frame, which holds it, and all that the learner made
    return value


def _stop(thread: threading.Thread, done: threading.Event) -> bool:
    """End a thread, or else put it to sleep; False when neither is possible."""

    def runs() -> bool:
        # not is_alive, which an interrupt of a join makes False while the thread runs
        return not done.is_set() and thread.ident in sys._current_frames()

    def throw(error: type[BaseException]) -> None:
        ident = ctypes.c_ulong(thread.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error))
        done.wait(0.001)

    began = time.monotonic()
    while runs() and time.monotonic() < began + STOPPING:
        throw(SystemExit)  # again and again, for code that catches it
    _Sleep.asleep.clear()
    while runs() and time.monotonic() < began + 2 * STOPPING:
        if _Sleep.asleep.is_set():
            return True
        throw(_Sleep)
    return not runs()
