"""The only module that knows what machine it runs on: device, processes, precision, versions."""

import ast
import contextlib
import datetime
import functools
import hashlib
import inspect
import multiprocessing
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from lucir_edu.config import DEVICES, UsageError


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes the fastest one available.

    Raises:
        UsageError: there is no such device.
    """
    there = {  # (asked only when needed: to look at a GPU starts its driver)
        "cuda": lambda: torch.cuda.is_available() and not _is_too_old(),
        "mps": lambda: torch.backends.mps.is_available() and ranks() == 1,  # one process alone
        "cpu": lambda: True,
    }
    if name == "auto":
        name = next(device for device, is_there in there.items() if is_there())
    elif name not in there:
        raise UsageError(f"no device {name!r}; choose one of: {', '.join(DEVICES)}")
    elif not there[name]():
        driver = ""
        if name == "cuda" and torch.version.cuda:
            driver = f", or it or its driver is too old for CUDA {torch.version.cuda}"
        raise UsageError(f"this machine has no {name} device{driver}; use --device auto")
    if name == "cuda" and ranks() > 1:
        wanted, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if wanted > gpus:
            raise UsageError(
                f"{wanted} processes for {gpus} GPUs; start torchrun with --nproc-per-node={gpus}"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # for code that names no device
        return torch.device(name, int(os.environ["LOCAL_RANK"]))
    return torch.device(name)


def _is_too_old() -> bool:
    """Whether this process's NVIDIA card is older than those that this PyTorch has code for."""
    listed = [re.match(r"sm_(\d+)", name) for name in torch.cuda.get_arch_list()]
    oldest = min((int(found[1]) for found in listed if found), default=0)
    card = int(os.environ.get("LOCAL_RANK", 0))
    major, minor = torch.cuda.get_device_capability(card if card < torch.cuda.device_count() else 0)
    return 10 * major + minor < oldest


def pick_precision(name: str, device: torch.device) -> str:
    """The precision of that name; "auto" is "bfloat16" where that is faster, else "float32".

    For "float32" on NVIDIA's cards it turns TF32 off in convolutions, for the whole process.
    """
    if name == "float32" and device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # which NVIDIA's cards would use for it
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        amx, avx = (
            getattr(torch.cpu, f"_is_{feature}_supported", bool)()
            for feature in ("amx_tile", "avx512_bf16")
        )
        native = amx or (avx and not _is_intel())  # Intel's AVX is no faster in bfloat16
    else:
        native = False
    return "bfloat16" if native else "float32"


def _is_intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    names = cpuinfo.read_text() if cpuinfo.exists() else platform.processor()
    return "GenuineIntel" in names


def leave_a_core() -> None:
    """Compute with one thread fewer than there are cores, unless OMP_NUM_THREADS says how many.

    For notebooks, which share the machine with a browser: an operation that runs on all cores waits
    for the thread whose core is busy. On two cores, one of them busy, a step took 4 to 23 times as
    long with two threads as with one; on an idle machine, with two threads, it took three quarters
    of the time.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def judging_batch(device: torch.device) -> int:
    """How many images at a time when nothing is learned: on a CPU as many as its caches hold."""
    return 128 if device.type == "cpu" else 1024


def forks() -> bool:
    """Whether new processes are forked; elsewhere (on Windows, macOS, and from Python 3.14 on) each
    takes seconds to start."""
    return multiprocessing.get_all_start_methods()[0] == "fork"  # (the first is the default)


def layout(device: torch.device) -> torch.memory_format:
    """How images are laid out in memory: channels last, which is faster, except on Apple's GPUs,
    where batch norm had wrong gradients with it (pytorch issue 175189)."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


class SGD(torch.optim.SGD):
    """torch's SGD, with the same steps but without its compiler: the first optimiser and its first
    step would import that, which takes seconds and memory, though nothing here is compiled."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """A context in which convolutions run in the given precision."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it; only needed for timing."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


# ---- Several processes, one network -----------------------------------------------------------
#
# Each process takes its share of every batch through the backbone. The features are then gathered,
# so that head, losses, memory and metrics see the whole batch in every process, as if alone.


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Work with the other processes that torchrun started, if any; only the first one prints
    and warns."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo")
    with contextlib.ExitStack() as stack:
        if not is_first():
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            stack.enter_context(warnings.catch_warnings(action="ignore"))
        yield
    # Not after an error: it would wait for the others, which wait for this process in a step
    distributed.destroy_process_group()


def ranks() -> int:
    """How many processes train one network together."""
    there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if there else 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return ranks() == 1 or distributed.get_rank() == 0


@contextlib.contextmanager
def first_before_others() -> Iterator[None]:
    """The first process does the work before the others, which can use what it has found out; then
    it waits for them."""
    if ranks() == 1:
        yield
        return
    # with gloo, and patient: other groups give up after minutes
    group = distributed.new_group(backend="gloo", timeout=datetime.timedelta(days=1))
    if not is_first():
        distributed.barrier(group)
    try:
        yield
    finally:
        if is_first():
            distributed.barrier(group)
    distributed.barrier(group)


def share(rows: Tensor) -> Tensor:
    """This process's part of a batch; all of it when there are fewer rows than processes."""
    count = ranks()
    if count == 1 or len(rows) < count:
        return rows
    return rows.tensor_split(count)[distributed.get_rank()]


def gather(features: Tensor, total: int) -> Tensor:
    """The features (total, d) of a batch from those of every process's :func:`share`.

    All processes compute the same loss from them. The gradient of a process's own share is
    multiplied by the number of processes, so that the mean over processes that :func:`parallel`
    takes is the gradient that a single process would have.
    """
    count = ranks()
    if count == 1 or total < count:
        return features
    sizes = [total // count + (rank < total % count) for rank in range(count)]
    mine = F.pad(features, (0, 0, 0, sizes[0] - len(features)))
    parts = [torch.empty_like(mine) for _ in sizes]
    distributed.all_gather(parts, mine.detach())
    if mine.requires_grad:
        mine.register_hook(lambda gradient: count * gradient)
    parts[distributed.get_rank()] = mine
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def spread(net: nn.Module) -> nn.Module:
    """The network to be trained by all processes; on GPUs its batch norms see the whole batch."""
    if ranks() > 1 and next(net.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)
    return net


def parallel(net: nn.Module) -> nn.Module:
    """What to call for a forward pass in training, so that all processes make the same step."""
    if ranks() == 1:
        return net
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        # Running statistics are shared when all is learned, by agree()
        return nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)


def agree(net: nn.Module) -> None:
    """Give every process the first one's running statistics."""
    if ranks() > 1:
        for buffer in net.buffers():
            distributed.broadcast(buffer, 0)


# ---- Versions ---------------------------------------------------------------------------------


def describe(device: torch.device, precision: str) -> dict[str, str | int | None]:
    """What a result depends on besides its config."""
    from importlib.metadata import PackageNotFoundError, version

    from lucir_edu import __version__

    versions = {}
    for package in ("torch", "torchvision", "numpy", "pillow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:  # each instruction set, such as AVX2, has its own rounding
        name = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
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
        "processes": ranks(),
        "precision": precision,
    }


# What decides the results of a config, besides versions and machine
MODULES = (
    "config", "datasets/__init__", "datasets/cifar", "datasets/folder", "datasets/glyphs",
    "datasets/images", "datasets/pictures", "hardware", "loader", "losses", "memory", "metrics",
    "model", "stream", "trainer",
)  # fmt: skip


@functools.cache
def code() -> str:
    """A fingerprint of the code that makes results; comments, docstrings, layout do not count."""
    digest = hashlib.sha256()
    for module in MODULES:
        source = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        digest.update(_meaning(ast.parse(source)).encode())
    return digest.hexdigest()[:12]


def _meaning(node: object) -> str:
    """A syntax tree without docstrings and empty fields: the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(map(_meaning, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list):
            value = [statement for statement in value if not _is_text(statement)]
        if value is not None and value != []:
            parts.append(f"{name}={_meaning(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _is_text(statement: ast.stmt) -> bool:
    constant = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


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
