"""The only room that knows on what machine it runs: device, precision, versions."""

import contextlib
import functools
import hashlib
import os
import platform
import subprocess
import tokenize
from collections.abc import Callable
from pathlib import Path

import torch

from lucir_edu.config import DEVICES, UsageError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes the fastest that is there."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if name not in there:
        raise UsageError(f"no device {name!r}; choose one of: {', '.join(DEVICES)}")
    if not there[name]:
        raise UsageError(f"this machine has no {name} device; use --device auto")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """ "bfloat16" where the machine is faster in it, when ``name`` is "auto"."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        amx, avx = (
            getattr(torch.cpu, f"_is_{feature}_supported", bool)()
            for feature in ("amx_tile", "avx512_bf16")
        )
        native = amx or (avx and not _is_intel())  # Intel's AVX has no more bfloat16 than float32
    else:
        native = False
    return "bfloat16" if native else "float32"


def _is_intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    return "GenuineIntel" in names


def leave_a_core() -> None:
    """Compute with one thread less than there are cores, unless OMP_NUM_THREADS says how many.

    For notebooks, which share the machine with a browser: an operation that runs on all cores waits
    for the thread whose core is busy. On two cores, one of them busy, a step took 4 to 23 times as
    long with two threads as with one; on an idle machine it took three quarters of the time.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def judging_batch(device: torch.device) -> int:
    """Images at a time when nothing is learnt: on a CPU as many as its caches hold."""
    return 128 if device.type == "cpu" else 1024


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which convolutions run in the given precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; for clocks only."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def describe(device: torch.device, precision: str) -> dict[str, str | int | None]:
    """What a result depends on beside its config."""
    from importlib.metadata import PackageNotFoundError, version

    from lucir_edu import __version__

    versions = {}
    for package in ("torch", "torchvision", "numpy", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "lucir_edu": __version__,
        "commit": _commit(),
        "code": code(),
        "python": platform.python_version(),
        **versions,
        "system": platform.system(),
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


# What decides the results of a config, beside versions and machine
MODULES = ("datasets/glyphs", "losses", "memory", "metrics", "model", "stream", "loader", "trainer")


@functools.cache
def code() -> str:
    """A fingerprint of the code that makes results; comments, docstrings and layout count not."""
    digest = hashlib.sha256()
    for module in MODULES:
        with open(Path(__file__).parent / f"{module}.py", "rb") as file:
            digest.update(_words(file.readline).encode())
    return digest.hexdigest()[:12]


def _words(readline: Callable[[], bytes]) -> str:
    """A source's tokens in a row, without comments, docstrings and layout."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    words, starts_statement = [], True
    for token in tokenize.tokenize(readline):
        if token.type not in layout and token.type != tokenize.ENCODING:
            if not (starts_statement and token.type == tokenize.STRING):
                words.append(token.string)
            starts_statement = False
        elif token.type in (tokenize.NEWLINE, tokenize.INDENT):
            starts_statement = True
    return "".join(words)


def _commit() -> str | None:
    """The checkout's commit, with a + when files differ from it; None outside a checkout."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None
