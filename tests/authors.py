"""Whole phases of training, ours against the authors' code: ``python -m tests.authors CLONE``.

CLONE is a clone of github.com/hshustc/CVPR19_Incremental_Learning (read at e5a90ae), which is not
part of this project. The base phase and two more are trained in double precision: by our
trainer, then by the authors' loops from the same weights on the same batches. Network, losses, λ,
which weights are learned, and the optimiser have to agree, or the weights would not.
"""

import contextlib
import dataclasses
import importlib
import io
import itertools
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from lucir_edu import model, trainer
from lucir_edu.config import METHODS, Config
from lucir_edu.datasets import Dataset, TensorSplit

LOOPS = {  # our method: our switches, and what their loop's name ends with
    "lucir": (METHODS["lucir"], "_MR_LF"),
    "cosine+lf": (METHODS["cosine+lf"], "_LF"),
    "cosine+score_distillation": (METHODS["cosine"] | {"score_distillation": True}, "_MS"),
    "icarl": (METHODS["icarl"], ""),  # (their network has a last ReLU there; none has here)
}
SMALL = Config(
    base_classes=6, increment=3, exemplars_per_class=4, backbone="resnet32", batch_size=16,
    epochs=3, schedule="steps", warmup=0.0, milestones=(0.5,), precision="float32", flip=True,
)  # fmt: skip


def noise(classes: int = 12, each: int = 16) -> Dataset:
    """Noise around a colour of each class's own."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes * each) % classes
    colours = torch.randint(60, 196, (classes, 3, 1, 1), generator=generator)
    images = colours[labels] + torch.randint(-60, 60, (len(labels), 3, 32, 32), generator=generator)
    split = TensorSplit(images.byte(), labels)
    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("noise", names, split, split, (0.5,) * 3, (0.25,) * 3, "noise")


class Trained(NamedTuple):
    """What our trainer did in a phase."""

    start: dict[str, Tensor]  # weights, the head grown and imprinted
    end: dict[str, Tensor]
    batches: list[tuple[Tensor, Tensor]]  # augmented images and labels, every epoch's
    rates: list[float]  # of each epoch


def ours(config: Config, dataset: Dataset) -> list[Trained]:
    """Our trainer's phases, in double precision."""
    phases, images, batches, rates = [], [], [], []
    build, net = model.build, None

    def look(backbone: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        doubled = inputs[0].double()
        if backbone.training:
            images.append(doubled)
        return (doubled,)

    def built(*arguments: object) -> model.IncrementalModel:
        nonlocal net
        net = build(*arguments).double()
        net.backbone.register_forward_pre_hook(look)
        return net

    def objective(config, output, targets, old, num_old):
        batches.append((images.pop(), targets))
        return trainer.objective(config, output, targets, old, num_old)

    with mock.patch.object(model, "build", built):
        for event in trainer.train(config, dataset, device="cpu", objective=objective):
            weights = {name: value.clone() for name, value in net.state_dict().items()}
            if isinstance(event, trainer.PhaseStart):
                start = weights
            elif isinstance(event, trainer.EpochEnd):
                rates.append(event.learning_rate)
            elif isinstance(event, trainer.PhaseEnd):
                phases.append(Trained(start, weights, batches[:], rates[:]))
                batches.clear()
                rates.clear()
    return phases


class Rates:
    """In place of a scheduler: the first group's rate at each epoch (the loops step it before)."""

    def __init__(self, optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
        self.optimizer, self.rates = optimizer, iter(rates)

    def step(self) -> None:
        self.optimizer.param_groups[0]["lr"] = next(self.rates)

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


class Epochs:
    """In place of a loader: each time, the next epoch's batches."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]], epochs: int) -> None:
        self.batches, self.each = iter(batches), len(batches) // epochs

    def __len__(self) -> int:
        return self.each

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (next(self.batches) for _ in range(self.each))


class Ranking(nn.MarginRankingLoss):
    """Takes a target of (n,) for inputs of (n, 1), as PyTorch 0.4 did."""

    def forward(self, one: Tensor, other: Tensor, target: Tensor) -> Tensor:
        return super().forward(one, other, target[:, None])


class Theirs:
    """The authors' network and one of their loops."""

    def __init__(self, clone: Path, loop: str) -> None:
        for name in ("utils_pytorch", "scipy.spatial.distance", "sklearn.metrics"):
            stub = types.ModuleType(name)  # the loops import these, but do not train with them
            stub.cdist = stub.confusion_matrix = None
            sys.modules[name] = stub
        sys.path[:0] = [str(clone), str(clone / "cifar100-class-incremental")]
        self.heads = importlib.import_module("modified_linear")
        self.networks = importlib.import_module("modified_resnet_cifar")
        name = f"incremental_train_and_eval{loop}"
        self.loop = getattr(importlib.import_module(f"utils_incremental.{name}"), name)
        self.loss = loop

    def network(self, weights: dict[str, Tensor]) -> nn.Module:
        """Their network, with the weights of one of ours."""
        old, new = weights["head.old_weight"], weights["head.new_weight"]
        net = self.networks.resnet32().double()
        if "head.new_bias" in weights:
            net.fc = nn.Linear(64, len(old) + len(new))
            bias = torch.cat([weights["head.old_bias"], weights["head.new_bias"]])
            head = [torch.cat([old, new]), bias]
        elif len(old):
            net.fc = self.heads.SplitCosineLinear(64, len(old), len(new))
            head = [weights["head.eta"], old, new]
        else:
            net.fc = self.heads.CosineLinear(64, len(new))
            head = [new, weights["head.eta"]]
        net.double()
        backbone = [value for name, value in weights.items() if name.startswith("backbone.")]
        with torch.no_grad():
            for mine, value in zip(net.state_dict().values(), backbone + head, strict=True):
                mine.copy_(value.view_as(mine))
        return net

    def learn(self, net: nn.Module, teacher: nn.Module | None, batches: list, rates: list) -> None:
        """A phase, as their main script would have it; no teacher: the base phase."""
        groups, lamda = [{"params": list(net.parameters())}], SMALL.lambda_base
        if teacher and "_LF" in self.loss:
            lamda *= math.sqrt(teacher.fc.out_features / SMALL.increment)
            fixed = list(net.fc.fc1.parameters())
            rest = [p for p in net.parameters() if all(p is not old for old in fixed)]
            groups = [{"params": rest}, {"params": fixed, "lr": 0, "weight_decay": 0}]
        weights = {
            "_MR_LF": (lamda, SMALL.margin, SMALL.top_k, SMALL.margin_weight),
            "_LF": (lamda,),
            "_MS": (1,),
            "": (SMALL.temperature, SMALL.distillation_weight),
        }[self.loss]
        optimizer = torch.optim.SGD(groups, lr=rates[0], momentum=0.9, weight_decay=5e-4)
        steps = (Rates(optimizer, rates), Epochs(batches, len(rates)), batches[:1])
        with (
            mock.patch.object(nn, "MarginRankingLoss", Ranking),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            self.loop(len(rates), net, teacher, optimizer, *steps, teacher is not None, 0, *weights)


def difference(clone: Path, method: str) -> tuple[int, float]:
    """Steps trained, and the largest difference between a tensor of theirs and of ours at the end
    of a phase, as a share of how far ours has come in the phase."""
    switches, loop = LOOPS[method]
    phases, theirs = ours(dataclasses.replace(SMALL, **switches), noise()), Theirs(clone, loop)
    steps, share = 0, 0.0
    for before, phase in itertools.pairwise([None, *phases]):
        net = theirs.network(phase.start)
        teacher = before and theirs.network(before.end)
        theirs.learn(net, teacher, phase.batches, phase.rates)
        first, last = (theirs.network(weights).state_dict() for weights in phase[:2])
        for name, found in net.state_dict().items():
            apart, moved = (found - last[name]).abs().max(), (last[name] - first[name]).abs().max()
            if apart:
                share = max(share, (apart / moved).item())
        steps += len(phase.batches)
    return steps, share


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.authors CLONE")
    apart = {}
    for method in LOOPS:
        steps, apart[method] = difference(Path(sys.argv[1]), method)
        print(f"{method:26s} {steps} steps, apart by {apart[method]:.0e} of what was learned")
    if max(apart.values()) > 1e-8:  # what rounding makes of 51 steps is far below
        sys.exit("our training is not theirs")


if __name__ == "__main__":
    main()
