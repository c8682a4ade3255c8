"""How a run grows with classes and images: ``python -m tests.scale``, some minutes.

Made images, 8 x 8 and grey, and the smallest network, so that what is not the network's shows. Half
of the classes are the base phase; the second half is measured. Each row is a process of its own.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch

from lucir_edu import runs
from lucir_edu.config import Config
from lucir_edu.datasets import Dataset, TensorSplit
from lucir_edu.trainer import EpochEnd, Event, Pause, PhaseStart

SIZES = [(100, 10_000), (100, 100_000), (100, 1_000_000), (316, 100_000), (1000, 100_000)]


def made(classes: int, images: int) -> Dataset:
    """Noise, and a tenth as many test images as training images."""

    def split(count: int) -> TensorSplit:
        labels = torch.arange(count) % classes
        return TensorSplit(torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8), labels)

    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("made", names, split(images), split(images // 10), (0.5,), (0.3,), "made")


def measure(classes: int, images: int) -> dict[str, float]:
    """Seconds of each part of the second phase, the memory held above torch, and file sizes."""
    process = psutil.Process()
    config = Config(
        base_classes=classes // 2, increment=classes - classes // 2, exemplars_per_class=20,
        width=4, epochs=1, batch_size=1000, crop_padding=1, precision="float32", lr=0.01,
    )  # fmt: skip
    before, peak = process.memory_info().rss, 0
    seconds: dict[str, float] = {}
    part, since = "", time.perf_counter()

    def watch(event: Event) -> None:
        """Name the part that has just ended: the last event of learning is its epoch's end."""
        nonlocal part, since, peak
        now = time.perf_counter()
        if isinstance(event, PhaseStart):
            seconds.clear()
            part = "learning"
        else:
            seconds[part] = seconds.get(part, 0.0) + now - since
            if isinstance(event, EpochEnd):
                part = "herding"
            elif isinstance(event, Pause):
                part = "evaluation"
        since, peak = now, max(peak, process.memory_info().rss)

    dataset = made(classes, images)
    with tempfile.TemporaryDirectory() as folder:
        runs.perform(config, dataset, out=folder, device="cpu", watch=watch)
        sizes = {p.name: p.stat().st_size / 2**20 for p in sorted(Path(folder).iterdir())}
    sizes.pop("phase_00.safetensors")
    return {**seconds, "MB": (peak - before) / 2**20, **sizes}


def tell(classes: int, images: int) -> None:
    print(json.dumps(measure(classes, images)))


def main() -> None:
    rows = {}
    for classes, images in SIZES:
        code = f"from tests import scale\nscale.tell({classes}, {images})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows[classes, images] = row = json.loads(done.stdout.splitlines()[-1])
        if len(rows) == 1:
            print("| classes | images |", " | ".join(row), "|")
            print("|---" * (len(row) + 2) + "|")
        print(f"| {classes} | {images:,} |", " | ".join(f"{v:.2f}" for v in row.values()), "|")
    for name, small, large in (
        ("images", (100, 100_000), (100, 1_000_000)), ("classes", (100, 100_000), (1000, 100_000)),
    ):  # fmt: skip
        powers = [f"{k} {math.log10(v / rows[small][k]):.2f}" for k, v in rows[large].items()]
        print(f"power of {name}: {', '.join(powers)}")


if __name__ == "__main__":
    main()
