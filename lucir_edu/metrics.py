"""Metrics of a run. Accuracies are percentages; phase 0 is the base phase."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


def accuracy(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Percentage of predictions that are right; NaN when there is none.

    >>> accuracy([1, 2, 3, 3], [1, 2, 3, 0])
    75.0
    """
    predictions, targets = _pair(predictions, targets)
    return 100 * float(np.mean(predictions == targets)) if len(targets) else float("nan")


def average_incremental_accuracy(phase_accuracies: Sequence[float]) -> float:
    """Unweighted mean over the phases, the base phase included: the main number in the field.

    Each accuracy is over the test images of all classes seen so far.

    >>> round(average_incremental_accuracy([76.86, 69.62, 64.64, 59.26, 55.92, 54.41]), 2)
    63.45
    """
    return float(np.mean(_not_empty(phase_accuracies)))


def last(phase_accuracies: Sequence[float]) -> float:
    """Accuracy after the last phase, over all classes."""
    return float(_not_empty(phase_accuracies)[-1])


def forgetting(matrix: ArrayLike) -> float:
    """Mean over groups of classes of (best accuracy before the end - accuracy at the end).

    Args:
        matrix: (phases, phases); row t, column j: accuracy after phase t on the classes that
            came in phase j. What lies above the diagonal is not read.

    Returns:
        Percentage points, without the last group; 0 for a single phase.

    Raises:
        ValueError: the matrix is not square.

    >>> forgetting([[90, 0, 0], [70, 80, 0], [50, 85, 95]])
    17.5
    """
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"forgetting needs a square matrix, not one of shape {matrix.shape}")
    end = len(matrix) - 1
    drops = [matrix[group:end, group].max() - matrix[end, group] for group in range(end)]
    return float(np.mean(drops)) if drops else 0.0


class OldNewConfusion(NamedTuple):
    """How old and new classes' images are classified, in percent of each."""

    old_correct: float
    old_to_old: float  # another old class
    old_to_new: float
    new_correct: float
    new_to_new: float  # another new class
    new_to_old: float


def old_new_confusion(predictions: ArrayLike, targets: ArrayLike, num_old: int) -> OldNewConfusion:
    """How old and new images are classified; NaN for a side without images.

    Args:
        predictions, targets: (n,) class numbers, old ones below ``num_old``.

    >>> old_new_confusion([0, 5, 1, 5, 0], [0, 0, 0, 5, 5], num_old=5).old_to_new.__round__(2)
    33.33
    """
    predictions, targets = _pair(predictions, targets)
    is_old, to_old = targets < num_old, predictions < num_old
    right = predictions == targets

    def share(which: np.ndarray, of: np.ndarray) -> float:
        return 100 * float(np.mean(which[of])) if of.any() else float("nan")

    return OldNewConfusion(
        old_correct=share(right, is_old),
        old_to_old=share(to_old & ~right, is_old),
        old_to_new=share(~to_old, is_old),
        new_correct=share(right, ~is_old),
        new_to_new=share(~to_old & ~right, ~is_old),
        new_to_old=share(to_old, ~is_old),
    )


def confusion_matrix(predictions: ArrayLike, targets: ArrayLike, num_classes: int) -> np.ndarray:
    """Counts, (num_classes, num_classes): row the true class, column the predicted one.

    Raises:
        ValueError: a class is not in 0..num_classes-1.

    >>> confusion_matrix([0, 1, 1], [0, 0, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    pair = np.stack(_pair(predictions, targets)).astype(np.int64)  # bytes would overflow below
    if pair.size and not 0 <= pair.min() <= pair.max() < num_classes:
        raise ValueError(f"classes are 0 to {num_classes - 1}, not {pair.min()} to {pair.max()}")
    predictions, targets = pair
    flat = np.bincount(targets * num_classes + predictions, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def group_accuracies(confusion: np.ndarray, bounds: Sequence[int]) -> np.ndarray:
    """Accuracy on each group of classes, a row for :func:`forgetting`.

    Args:
        confusion: counts, as returned by :func:`confusion_matrix`.
        bounds: where the groups start and end: [0, 50, 60] means classes 0..49 and 50..59.

    >>> group_accuracies(np.array([[3, 1, 0], [0, 4, 0], [2, 0, 2]]), [0, 2, 3]).tolist()
    [87.5, 50.0]
    """
    right, total = np.diag(confusion), confusion.sum(axis=1)
    return np.array(
        [100 * right[a:b].sum() / total[a:b].sum() for a, b in itertools.pairwise(bounds)]
    )


def _pair(predictions: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    if predictions.shape != targets.shape or predictions.ndim != 1:
        raise ValueError(
            f"predictions and targets must be lists of one length, "
            f"not of shapes {predictions.shape} and {targets.shape}"
        )
    return predictions, targets


def _not_empty(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError("needs the accuracy of at least one phase")
    return values
