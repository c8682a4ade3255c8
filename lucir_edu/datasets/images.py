"""What a data set is: two splits of labelled images, held as one tensor or as file names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lucir_edu.config import UsageError


@dataclass(frozen=True)
class TensorSplit:
    """Images in memory: (n, channels, height, width) of uint8, and (n,) labels."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        _check_tensor("images", self.images)
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UsageError(
                f"images must be uint8, (n, channels, height, width), not "
                f"{str(self.images.dtype).removeprefix('torch.')} of shape "
                f"{tuple(self.images.shape)}"
            )

    def take(self, indices: Tensor) -> "TensorSplit":
        return TensorSplit(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class FileSplit:
    """Images on disk, read when needed: (n,) file names as bytes, and (n,) labels.

    The names are one array, each with as many bytes as the longest. Strings would take twice as
    much memory, and as much again in every process that reads, because looking at one writes to it.
    """

    paths: np.ndarray
    labels: Tensor

    def __post_init__(self) -> None:
        kind = np.asarray(self.paths)
        if not isinstance(self.paths, np.ndarray) or kind.ndim != 1 or kind.dtype.kind not in "SU":
            raise UsageError(
                "paths must be a numpy array of file names, (n,); np.array(names) makes one"
            )

    def take(self, indices: Tensor) -> "FileSplit":
        return FileSplit(self.paths[indices.numpy()], self.labels[indices])


Split = TensorSplit | FileSplit


@dataclass(frozen=True)
class Dataset:
    """Training and test images of the same classes; labels are 0..len(classes)-1."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]
    # A hash of the content, or of files' names and sizes, to tell what data a result is from
    fingerprint: str

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (*self.classes, self.fingerprint)):
            raise UsageError("the names of classes, and the fingerprint, must be text")
        for split in (self.train, self.test):
            if isinstance(split, TensorSplit):
                images, channels = split.images, split.images.shape[1]
            else:
                images, channels = split.paths, 3
            if {np.shape(self.mean), np.shape(self.std)} != {(channels,)}:
                raise UsageError(
                    f"mean and std must be {channels} numbers each, one per channel of the images"
                )
            if not all(
                0 <= m <= 1 and 0 < s <= 1 for m, s in zip(self.mean, self.std, strict=True)
            ):
                raise UsageError(
                    f"mean {self.mean} and std {self.std} must be those of pixels from 0 to 1 (std "
                    "above 0); if yours are of pixels from 0 to 255, divide by 255"
                )
            _check_tensor("labels", split.labels)
            if split.labels.dtype != torch.int64 or split.labels.shape != (len(images),):
                raise UsageError(
                    f"labels must be int64, one for each of the {len(images)} images, not "
                    f"{str(split.labels.dtype).removeprefix('torch.')} of shape "
                    f"{tuple(split.labels.shape)}"
                )
            if not len(images):
                continue
            low, high, last = split.labels.min(), split.labels.max(), len(self.classes) - 1
            if low < 0 or high > last:
                raise UsageError(
                    f"labels of {last + 1} classes are 0 to {last}, not {low} to {high}"
                )

    def with_labels(self, classes: Sequence[int]) -> "Dataset":
        """Only the named classes, renumbered in the order given.

        Args:
            classes: class numbers of this data set, each at most once.
        """
        position = torch.full((len(self.classes),), -1)
        position[torch.as_tensor(list(classes))] = torch.arange(len(classes))

        def relabel(split: Split) -> Split:
            labels = position[split.labels]
            if len(classes) < len(self.classes):
                kept = torch.nonzero(labels >= 0)[:, 0]
                return replace(split.take(kept), labels=labels[kept])
            return replace(split, labels=labels)

        names = tuple(self.classes[c] for c in classes)
        return replace(self, classes=names, train=relabel(self.train), test=relabel(self.test))


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise UsageError(
            f"{name} must be a torch tensor, not {type(value).__module__}.{type(value).__name__}; "
            f"torch.as_tensor makes one"
        )


def subset(dataset: Dataset, num_classes: int) -> Dataset:
    """The classes that the authors' ImageNet-Subset has: drawn with numpy's legacy seed 1993.

    They stay in the data set's order, as in the authors' code, which copies their folders.

    Raises:
        UsageError: there are fewer classes.
    """
    total = len(dataset.classes)
    if num_classes > total:
        raise UsageError(
            f"subset_classes={num_classes}, but {dataset.name} has {total} classes; "
            f"choose at most that many"
        )
    drawn = np.random.RandomState(1993).choice(total, num_classes, replace=False)
    return dataset.with_labels(sorted(drawn.tolist()))


def limit(dataset: Dataset, train: int | None, test: int | None) -> Dataset:
    """At most the first ``train`` or ``test`` images of every class; None keeps all."""

    def first(split: Split, count: int | None) -> Split:
        if count is None:
            return split
        rows = [torch.nonzero(split.labels == c)[:count, 0] for c in range(len(dataset.classes))]
        return split.take(torch.cat(rows))

    return replace(dataset, train=first(dataset.train, train), test=first(dataset.test, test))
