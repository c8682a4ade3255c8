"""Tests on a copy of the package that has a mistake.

Each in a process of its own, which need not import torch first: a server did, and is forked.
Importing takes many times as long as most of these tests.
"""

import asyncio
import importlib.util
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from jupyter_client.provisioning import local_provisioner

ROOT = Path(__file__).parents[1]
STRANGER = 9  # the exit code when another lucir_edu would be imported than the folder's

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(
        ["torch", "torch._dynamo", "torch.distributed.tensor", "torchvision", "safetensors.torch",
         "hypothesis", "pytest", "nbval.plugin", "ipywidgets", "anywidget", "plotly.graph_objects",
         "matplotlib.pyplot", "ipykernel.kernelapp"]
    )  # fmt: skip


def make(folder: Path, file: str, old: str, new: str) -> None:
    """Copy the package into a folder, and replace the text that is there exactly once."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lucir_edu", folder / "lucir_edu", ignore=unwanted)
    path = folder / "lucir_edu" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file} must have {old!r} exactly once"
    path.write_text(text.replace(old, new), encoding="utf-8")


def run_pytest(folder: Path, arguments: list[str], seconds: float) -> tuple[int, str]:
    """pytest's exit code and what it prints, in a folder whose packages come before all others."""
    process = PROCESSES.Process(target=_in_folder, args=(str(folder), arguments))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode, (folder / "output.txt").read_text(errors="replace")


def _in_folder(folder: str, arguments: list[str]) -> None:
    code = STRANGER
    try:
        os.chdir(folder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they are slow
        os.environ["PYTHONPATH"] = folder
        for stream in (1, 2):
            os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.path.insert(0, folder)
        if not importlib.util.find_spec("lucir_edu").origin.startswith(folder):
            return
        if METHOD == "forkserver":
            local_provisioner.launch_kernel = fork_kernel
        torch.set_num_threads(1)  # others are at work
        usual = ["-x", "-q", "-s", "-p", "no:cacheprovider", "-o", "addopts=", "-c", os.devnull]
        code = pytest.main([*usual, f"--rootdir={folder}", *arguments])
    finally:
        sys.stdout.flush()
        os._exit(int(code))


# ---- A notebook's kernel ----------------------------------------------------------------------


class Kernel:
    """A forked kernel, as :mod:`jupyter_client` handles what it has started."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid, self.code = pid, None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def fork_kernel(command: list[str], *, cwd: str, env: dict[str, str], **_: object) -> Kernel:
    """What ``jupyter_client.launch_kernel`` does, but the kernel is a fork of this process."""
    from ipykernel.kernelapp import IPKernelApp

    parent, pid = os.getpid(), os.fork()
    os.setpgid(pid, pid)  # signals are for the whole group
    if pid:
        return Kernel(pid)
    try:
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        signal.set_wakeup_fd(-1)
        asyncio._set_running_loop(None)
        asyncio.set_event_loop(asyncio.new_event_loop())
        settings = [*command[command.index("-f") :], f"--IPKernelApp.parent_handle={parent}"]
        IPKernelApp.launch_instance(settings)
    finally:
        os._exit(0)
