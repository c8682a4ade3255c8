"""The only room that knows on what machine it runs: device, precision, versions."""

import contextlib
import platform
import subprocess
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


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which convolutions run in the given precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


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
        "python": platform.python_version(),
        **versions,
        "system": platform.system(),
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


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
