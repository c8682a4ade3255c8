"""The stream: the order in which classes come, and what each phase brings."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucir_edu.config import Config, UsageError
from lucir_edu.datasets import Dataset


def class_order(num_classes: int, seed: int | None = 1993) -> list[int]:
    """The order in which classes come: entry i is the class that takes row i of the head.

    With seed 1993 it is the order that iCaRL and LUCIR use, from numpy's legacy generator;
    with None, the data set's own order.

    >>> class_order(100)[:5]
    [68, 56, 78, 8, 23]
    """
    order = np.arange(num_classes)
    if seed is not None:
        np.random.RandomState(seed).shuffle(order)
    return order.tolist()


@dataclass(frozen=True)
class Phase:
    """What one phase brings. Classes are numbered in the order in which they come."""

    number: int  # 0 is the base phase
    num_old: int  # classes 0 .. num_old-1 are old
    num_new: int
    train: Tensor  # indices of the new classes' training images
    test: Tensor  # indices of the test images of all classes seen

    @property
    def num_seen(self) -> int:
        return self.num_old + self.num_new


@dataclass(frozen=True)
class Stream:
    """A data set, renumbered in the order of its classes, cut into phases."""

    dataset: Dataset
    order: list[int]  # the data set's own class numbers
    phases: list[Phase]

    @property
    def bounds(self) -> list[int]:
        """Where the phases' classes start and end: [0, 50, 60, …, 100]."""
        return [0, *(phase.num_seen for phase in self.phases)]

    def check(self) -> None:
        """Raise a UsageError if a class has no training or no test image."""
        parts = {"training": self.dataset.train, "test": self.dataset.test}
        for part, split in parts.items():
            counts = torch.bincount(split.labels, minlength=len(self.order))
            if not counts.all():
                name = self.dataset.classes[int(counts.argmin())]
                raise UsageError(f"class {name!r} has no {part} image; leave it out, or add one")


def make(config: Config, dataset: Dataset) -> Stream:
    """Put the classes in order and cut the data set into phases.

    Raises:
        UsageError: the config does not fit the number of classes.
    """
    order = class_order(len(dataset.classes), config.order_seed)
    dataset = dataset.with_labels(order)
    phases, num_old = [], 0
    for number, num_new in enumerate(config.phase_sizes(len(order))):
        labels, seen = dataset.train.labels, num_old + num_new
        is_new = (labels >= num_old) & (labels < seen)
        phases.append(
            Phase(
                number,
                num_old,
                num_new,
                train=torch.nonzero(is_new)[:, 0],
                test=torch.nonzero(dataset.test.labels < seen)[:, 0],
            )
        )
        num_old = seen
    return Stream(dataset, order, phases)
