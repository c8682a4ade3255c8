"""Images per second of the training step, and what to compare it with: ``lucir-edu bench``.

The contenders take turns, so that a busy machine slows each of them equally. The median over rounds
is reported; a ratio is the median of the ratios within a round. The images are noise, because what
they show makes no difference to the speed: no data set is needed.
"""

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lucir_edu import hardware, trainer
from lucir_edu.config import preset
from lucir_edu.datasets import Dataset, TensorSplit
from lucir_edu.loader import Batch, TensorLoader
from lucir_edu.memory import Memory
from lucir_edu.trainer import Learner, StepEnd

# preset, training images per class, shape of an image
NETWORKS = {
    "ResNet-32": ("cifar100-b50-5", 500, (3, 32, 32)),
    "Glyphs": ("glyphs-b50-5", 100, (1, 24, 24)),
}
WORKERS = 2  # of the plain pipeline's DataLoader
STEPS = 8  # of a turn, after two that warm up
CONTENDERS = {
    "ours": "our step",
    "data_free": "the same without work on data",
    "plain": "a plain pipeline",
    "convolutions": "the step's convolutions alone",
    "evaluation": "evaluation",
    "herding": "herding, features included",
}
RATIOS = {
    "ours_over_plain": "plain",
    "ours_over_data_free": "data_free",
    "ours_over_limit": "convolutions",
}
STAGES = ("convolutions", "batch norm", "ReLU and sums", "the rest")


class Subject:
    """A network at the start of its first incremental phase, and the contenders."""

    def __init__(self, network: str, device: torch.device) -> None:
        name, per_class, shape = NETWORKS[network]
        self.config, self.device = preset(name), device
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(100).repeat_interleave(per_class)
        pixels = torch.randint(256, (len(labels), *shape), generator=generator, dtype=torch.uint8)
        noise, classes = TensorSplit(pixels, labels), tuple(str(label) for label in range(100))
        data = Dataset("noise", classes, noise, noise, (0.5,) * shape[0], (0.3,) * shape[0], "")
        self.learner = Learner(self.config, data, device)
        base, self.phase = self.learner.stream.phases[:2]
        for label in range(base.num_new):
            rows = torch.nonzero(self.learner.stream.dataset.train.labels == label)[:, 0]
            self.learner.memory.ranked.append(rows[: self.config.exemplars_per_class])
        self.teacher = self.learner.net.teacher()
        self.learner.grow(self.phase, imprinted=False)
        size = self.config.batch_size
        indices = torch.cat([self.phase.train, self.learner.memory.indices])
        self.indices = indices[: len(indices) // size * size]  # all batches are full
        self.batch = next(self.learner.train_images.plain(self.indices, size))
        self.judged = self.phase.train[:: len(self.phase.train) // 1000]  # for evaluation, herding

    def ours(self, learner: Learner | None = None) -> Iterator[int]:
        """The step as every run takes it: data, student, teacher, losses, optimiser."""
        while True:
            for event in (learner or self.learner).fit(self.phase, self.indices, self.teacher):
                if isinstance(event, StepEnd):
                    yield self.config.batch_size

    def data_free(self) -> Iterator[int]:
        """The same on one batch that never changes."""
        learner = copy.copy(self.learner)
        learner.train_images = _Still(self.batch)
        return self.ours(learner)

    def plain(self) -> Iterator[int]:
        """The same as in published code: images transformed one by one in the workers of a
        DataLoader, NCHW, float32, a graph of the teacher, the loss read at every step."""
        from torchvision.transforms import v2

        config, dataset = self.config, self.learner.stream.dataset
        teacher = copy.deepcopy(self.learner.net).to(memory_format=torch.contiguous_format)
        net = copy.deepcopy(teacher)
        teacher.eval()
        transform = v2.Compose(
            [
                v2.ToPILImage(),
                v2.RandomCrop(self.batch[0].shape[-1], config.crop_padding),
                *[v2.RandomHorizontalFlip()] * config.flip,
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(dataset.mean, dataset.std),
            ]
        )
        images = _Transformed(dataset.train.take(self.indices), transform)
        optimizer = torch.optim.SGD(
            [p for p in net.parameters() if p.requires_grad],
            config.lr, config.momentum, weight_decay=config.weight_decay,
        )  # fmt: skip
        batches = torch.utils.data.DataLoader(
            images, config.batch_size, shuffle=True, drop_last=True, num_workers=WORKERS,
            persistent_workers=not hardware.forks(),  # else their start would be timed
        )  # fmt: skip
        while True:
            for x, y in batches:
                x, y = x.to(self.device), y.to(self.device)
                net.train()
                loss = sum(
                    trainer.objective(config, net(x), y, teacher(x), self.phase.num_old).values()
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
                yield len(x)

    def convolutions(self) -> Iterator[int]:
        """The step's convolutions alone, in our layout and precision: the machine's limit."""
        calls = []

        def note(module: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
            x, w = inputs[0].detach().to(output.dtype), module.weight.detach().to(output.dtype)
            calls.append((x, w, torch.randn_like(output), module.stride, module.padding))

        layers = [m for m in self.learner.net.modules() if isinstance(m, nn.Conv2d)]
        hooks = [layer.register_forward_hook(note) for layer in layers]
        trainer.evaluate(self.learner.net, self.batch[0], self.learner.precision)
        for hook in hooks:
            hook.remove()
        while True:
            for number, (x, w, gradient, stride, padding) in enumerate(calls):
                F.conv2d(x, w, None, stride, padding)  # the teacher's
                F.conv2d(x, w, None, stride, padding)
                torch.ops.aten.convolution_backward(
                    gradient, x, w, None, stride, padding, (1, 1), False, (0, 0), 1,
                    (number > 0, True, False),
                )  # fmt: skip
            yield self.config.batch_size

    def evaluation(self) -> Iterator[int]:
        """Evaluating test images."""
        while True:
            learner = self.learner
            trainer.predict(learner.net, learner.test_images, self.judged, learner.precision)
            yield len(self.judged)

    def herding(self) -> Iterator[int]:
        """Choosing exemplars among new classes' images, their features computed first."""
        learner = copy.copy(self.learner)
        phase = dataclasses.replace(self.phase, train=self.judged)
        while True:
            learner.memory = Memory(self.config.exemplars_per_class)
            learner.choose_exemplars(phase)
            yield len(self.judged)


class _Still(TensorLoader):
    """A loader that does no work: the same batch forever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def augmented(self, indices: Tensor, batch_size: int, generator: object) -> Iterator[Batch]:
        for _ in range(len(indices) // batch_size):
            yield self.batch


class _Transformed(torch.utils.data.Dataset):
    """Images that pass through a transform one by one."""

    def __init__(self, split: TensorSplit, transform: Callable[[Tensor], Tensor]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.split.images[index]), self.split.labels[index]


# ---- Taking turns -------------------------------------------------------------------------------


def measure(
    device: str = "auto",
    rounds: int = 7,
    watch: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Measure the training step of all networks.

    Args:
        rounds: turns of every contender.
        watch: is called after every turn.

    Returns:
        ``environment``; the three ratios of the first network, ResNet-32, ``ours_over_plain``,
        ``ours_over_data_free`` and ``ours_over_limit``; and for each network its
        ``images_per_second`` by contender (``median``, ``low`` and ``high`` quartile), the same
        ratios, and ``stages``: where the step's milliseconds go, next to the least that the
        machine's ``matrix_rate`` (operations a second) and ``bandwidth`` (bytes a second) allow.
    """
    target = hardware.pick_device(device)
    found = {name: _measure(Subject(name, target), rounds, watch) for name in NETWORKS}
    first = next(iter(found.values()))
    return {
        **{key: first[key] for key in RATIOS},
        "rounds": rounds,
        "steps": STEPS,
        "networks": found,
        "environment": hardware.describe(target, first["precision"]),
    }


def _measure(subject: Subject, rounds: int, watch: Callable[[], object]) -> dict[str, Any]:
    contenders = {name: getattr(subject, name)() for name in CONTENDERS}
    speeds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            speeds[name].append(_turn(contender, STEPS * subject.config.batch_size, subject.device))
            watch()
    rates = _matrix_rate(subject), _bandwidth(subject.device)
    return {
        "batch_size": subject.config.batch_size,
        "precision": subject.learner.precision,
        "images_per_second": {name: _spread(values) for name, values in speeds.items()},
        **{
            ratio: statistics.median(
                a / b for a, b in zip(speeds["ours"], speeds[other], strict=True)
            )
            for ratio, other in RATIOS.items()
        },
        "matrix_rate": rates[0],
        "bandwidth": rates[1],
        "stages": _stages(subject, *rates),
    }


def _turn(contender: Iterator[int], images: int, device: torch.device) -> float:
    """Images per second, over at least this many; two steps before them are not counted."""
    next(contender), next(contender)
    hardware.synchronize(device)
    began, done = time.perf_counter(), 0
    while done < images:
        done += next(contender)
    hardware.synchronize(device)
    return done / (time.perf_counter() - began)


def _spread(values: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "low": low, "high": high}


# ---- Where the time goes ------------------------------------------------------------------------


class _Ledger(TorchDispatchMode):
    """Writes down every operation: its stage, arithmetic, bytes read and written, and seconds."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.entries = device, []

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        hardware.synchronize(self.device)
        began = time.perf_counter()
        result = operation(*args, **kwargs)
        hardware.synchronize(self.device)
        seconds = time.perf_counter() - began
        arithmetic, moved = 0, 0
        if not operation.is_view:
            count = flop_registry.get(operation.overloadpacket)
            arithmetic = count(*args, **kwargs, out_val=result) if count else 0
            tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
            moved = sum(t.numel() * t.element_size() for t in tensors)
        self.entries.append((_stage(operation.name()), arithmetic, moved, seconds))
        return result


def _stage(operation: str) -> str:
    known = {
        "convolution": "convolutions",
        "batch_norm": "batch norm",
        "relu": "ReLU and sums",
        "threshold": "ReLU and sums",
        "aten::add": "ReLU and sums",
    }
    return next((stage for part, stage in known.items() if part in operation), "the rest")


def _stages(subject: Subject, rate: float, bandwidth: float) -> dict[str, dict[str, float]]:
    """A step by stage: ``ms``, and ``least_ms``, the least that arithmetic and memory allow."""
    steps, ledgers = subject.ours(), []
    next(steps), next(steps)
    for _ in range(3):
        with _Ledger(subject.device) as ledger:
            next(steps)
        ledgers.append(ledger.entries)
    found = {}
    for stage in STAGES:
        taken = [1e3 * sum(e[3] for e in entries if e[0] == stage) for entries in ledgers]
        least = [max(e[1] / rate, e[2] / bandwidth) for e in ledgers[-1] if e[0] == stage]
        found[stage] = {"ms": statistics.median(taken), "least_ms": 1e3 * sum(least)}
    return found


def _matrix_rate(subject: Subject) -> float:
    """Operations a second of a large matrix product in the step's precision."""
    on_cpu = subject.device.type == "cpu"
    dtype = getattr(torch, subject.learner.precision)
    a = torch.randn(2048 if on_cpu else 8192, 2048, device=subject.device, dtype=dtype)
    return 2 * len(a) ** 2 * 2048 / _fastest(lambda: a @ a.T, subject.device)


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy of a large tensor reads and writes."""
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    moved = 2 * source.numel() * source.element_size()
    return moved / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(10):
        hardware.synchronize(device)
        began = time.perf_counter()
        work()
        hardware.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


# ---- Reporting ----------------------------------------------------------------------------------


def table(result: Mapping[str, Any]) -> str:
    """What :func:`measure` found, as text to read."""
    about = result["environment"]
    where = f"{about['device_name']}, {about['threads']} threads, torch {about['torch']}"
    lines = [f"images per second, median (quartiles) of {result['rounds']} rounds; {where}"]
    for name, found in result["networks"].items():
        lines += ["", f"{name}, batch {found['batch_size']}, {found['precision']}"]
        ratios = {other: f"  ours is {found[r]:.2f} times this" for r, other in RATIOS.items()}
        for contender, speed in found["images_per_second"].items():
            spread = f"({speed['low']:.0f}–{speed['high']:.0f})"
            lines.append(
                f"  {CONTENDERS[contender]:30s} {speed['median']:7.0f} {spread:14s}"
                f"{ratios.get(contender, '')}".rstrip()
            )
        stages = found["stages"]
        whole = sum(spent["ms"] for spent in stages.values())
        lines.append(
            "  a step, operation by operation   ms, share   the least the machine allows, ms"
        )
        for stage, spent in stages.items():
            share = f"{100 * spent['ms'] / whole:.0f} %"
            lines.append(
                f"  {'  ' + stage:30s} {spent['ms']:7.1f} {share:>5s} {spent['least_ms']:14.1f}"
            )
        largest = max(STAGES[1:], key=lambda stage: stages[stage]["ms"])
        lines.append(f"  the largest cost besides the convolutions: {largest}")
    return "\n".join(lines)
