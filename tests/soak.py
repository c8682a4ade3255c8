"""Long use, and many learners.

``python -m tests.soak use --minutes 20`` toggles, trains and stops in a playground at random, in a
kernel of its own; ``python -m tests.soak class --learners 30`` has so many kernels run a notebook
at the same time. Both print what it took as JSON.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
MB = 2**20
PARTS = 4  # of the time; the first is for warming up
TOGGLES = 60  # in each part at least, however long a slow machine takes


# ---- Long use ---------------------------------------------------------------------------------


async def use(seconds: float, seed: int = 0) -> dict[str, list[float]]:
    """Use a playground at random; in a kernel.

    Returns:
        For each quarter of the use: ``megabytes``, the median of the process's memory;
        ``milliseconds``, the median of what a toggle takes; ``toggles``, ``trainings``; and
        for its end, when what was training has been stopped: ``threads`` and ``tasks``.
    """
    from lucir_edu.lab.playground import playground

    panel, chance, process = playground(), random.Random(seed), psutil.Process()
    parts = {name: [] for name in
             ("megabytes", "milliseconds", "toggles", "trainings", "threads", "tasks")}  # fmt: skip
    for _ in range(PARTS):
        memory, latencies, trainings, end = [], [], 0, time.monotonic() + seconds / PARTS
        while time.monotonic() < end or len(latencies) < TOGGLES:
            began = time.perf_counter()
            toggle(panel.explorer, chance)
            latencies.append(1000 * (time.perf_counter() - began))
            memory.append(process.memory_info().rss / MB)
            if chance.random() < 0.02:
                panel.live.exemplars.value = chance.choice([1, 3, 5])
                panel.live.train()
                trainings += 1
            elif chance.random() < 0.01:
                panel.live.stop()
            await asyncio.sleep(chance.uniform(0, 0.1))
        panel.live.stop()
        while panel.live.running:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for name, value in {
            "megabytes": statistics.median(memory[len(memory) // 2 :]),
            "milliseconds": statistics.median(latencies),
            "toggles": len(latencies),
            "trainings": trainings,
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
        }.items():
            parts[name].append(round(value, 1))
    return parts


def toggle(explorer, chance: random.Random) -> None:
    """Give one of an explorer's controls another value."""
    controls = [*explorer.a.switches.values(), *explorer.b.switches.values(), explorer.compare,
                explorer.view, explorer.phase, explorer.seed, explorer.a.other]  # fmt: skip
    control = chance.choice(controls)
    if isinstance(control.value, bool):
        control.value = not control.value
    elif hasattr(control, "options"):
        options = [one[1] if isinstance(one, tuple) else one for one in control.options]
        control.value = chance.choice(options)
    else:
        control.value = chance.randint(control.min, control.max)


def soak(seconds: float) -> dict[str, list[float]]:
    """What :func:`use` gives in a kernel as learners have it."""
    code = f"from tests import soak\nimport json\nprint(json.dumps(await soak.use({seconds})))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(
        notebook, timeout=10 * seconds + 120, resources={"metadata": {"path": ROOT}}
    ).execute()
    (output,) = (o for o in notebook.cells[0].outputs if o.output_type == "stream")
    return json.loads(output.text)


# ---- A class ----------------------------------------------------------------------------------


def learn_together(learners: int, name: str = "00_start_here") -> dict[str, float]:
    """So many kernels run a notebook at the same time, each with one thread.

    Returns:
        ``seconds`` until the last is done; per learner ``cpu_seconds`` and, at the most,
        ``megabytes`` that are a kernel's own; ``total_megabytes``, at the most, of all kernels.
    """
    began, kernels, seen, cpu = time.perf_counter(), [], [], []

    async def learn() -> None:
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        client = NotebookClient(
            notebook, timeout=3600, resources={"metadata": {"path": ROOT / "notebooks"}}
        )
        async with client.async_setup_kernel(env={**os.environ, "OMP_NUM_THREADS": "1"}):
            kernels.append(kernel := psutil.Process(client.km.provisioner.pid))
            for number, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, number)
            await asyncio.sleep(1)  # for the watch to see all of it
            cpu.append(sum(kernel.cpu_times()[:2]))

    async def watch() -> None:
        while True:
            own, shared = [], []
            for kernel in kernels:
                try:
                    memory = kernel.memory_full_info()
                except psutil.Error:
                    continue
                own.append(memory.uss / MB)
                shared.append(getattr(memory, "pss", memory.uss) / MB)
            seen.append((max(own, default=0), sum(shared)))
            await asyncio.sleep(0.5)

    async def main() -> None:
        watching = asyncio.ensure_future(watch())
        await asyncio.gather(*(learn() for _ in range(learners)))
        watching.cancel()

    with ThreadPoolExecutor(1) as pool:  # where no loop runs yet
        pool.submit(asyncio.run, main()).result()
    return {
        "learners": learners,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(statistics.mean(cpu), 1),
        "megabytes": round(max(own for own, _ in seen)),
        "total_megabytes": round(max(total for _, total in seen)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("what", choices=["use", "class"])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--learners", type=int, default=30)
    parser.add_argument("--notebook", default="00_start_here")
    options = parser.parse_args()
    result = (
        soak(60 * options.minutes)
        if options.what == "use"
        else learn_together(options.learners, options.notebook)
    )
    print(json.dumps(result, indent=1))
