"""The metrics against worked examples and against loops over images."""

import math

import numpy as np
import pytest

from lucir_edu import metrics

# CNN accuracies per phase of a public run on CIFAR-100: 50 base classes and 5 phases of 10
PUBLISHED = [76.86, 69.62, 64.64, 59.26, 55.92, 54.41]
SEEDS = range(5)


def random_predictions(seed, classes=8, images=60):
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=images)
    wrong = rng.integers(classes, size=images)
    return np.where(rng.random(images) < 0.4, targets, wrong), targets


# ---- One number for a run ---------------------------------------------------------------------


def test_average_incremental_accuracy_includes_the_base_phase_and_is_not_weighted():
    average = metrics.average_incremental_accuracy(PUBLISHED)
    assert round(average, 2) == 63.45
    assert round(metrics.average_incremental_accuracy(PUBLISHED[1:]), 2) == 60.77  # without it
    weighted = np.average(PUBLISHED, weights=[50, 60, 70, 80, 90, 100])
    assert round(weighted, 2) == 61.69  # neither is this the field's number


def test_last_accuracy():
    assert metrics.last(PUBLISHED) == 54.41


@pytest.mark.parametrize("of", [metrics.average_incremental_accuracy, metrics.last])
def test_a_run_without_phases_has_no_accuracy(of):
    with pytest.raises(ValueError, match="at least one phase"):
        of([])


# ---- Accuracy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_accuracy_equals_counting(seed):
    predictions, targets = random_predictions(seed)
    right = sum(p == t for p, t in zip(predictions, targets, strict=True))
    assert metrics.accuracy(predictions, targets) == pytest.approx(100 * right / len(targets))


def test_accuracy_of_nothing_is_not_a_number():
    assert math.isnan(metrics.accuracy([], []))


@pytest.mark.parametrize("pair", [([1, 2], [1]), ([[1], [2]], [[1], [2]])])
def test_predictions_and_targets_must_be_lists_of_one_length(pair):
    for of in (
        metrics.accuracy,
        lambda p, t: metrics.old_new_confusion(p, t, 1),
        lambda p, t: metrics.confusion_matrix(p, t, 3),
    ):
        with pytest.raises(ValueError, match="of one length"):
            of(*pair)


def test_a_phases_accuracy_is_not_the_mean_of_its_groups_accuracies():
    # 50 base classes at 80 %, 10 new ones at 20 %, 10 test images of each class
    targets = np.repeat(np.arange(60), 10)
    right = np.where(targets < 50, np.arange(600) % 10 < 8, np.arange(600) % 10 < 2)
    predictions = np.where(right, targets, (targets + 1) % 60)
    confusion = metrics.confusion_matrix(predictions, targets, 60)
    assert metrics.accuracy(predictions, targets) == 70
    assert metrics.group_accuracies(confusion, [0, 60]).tolist() == [70]
    assert metrics.group_accuracies(confusion, [0, 50, 60]).mean() == 50


# ---- Forgetting -------------------------------------------------------------------------------


def plain_forgetting(matrix):
    end = len(matrix) - 1
    drops = []
    for group in range(end):
        best = max(matrix[phase][group] for phase in range(group, end))
        drops.append(best - matrix[end][group])
    return sum(drops) / len(drops) if drops else 0.0


def test_forgetting_of_the_worked_example():
    assert metrics.forgetting([[90, 0, 0], [70, 80, 0], [50, 85, 95]]) == 17.5  # (40 - 5) / 2


def test_forgetting_counts_from_the_best_phase_not_the_first():
    assert metrics.forgetting([[60, 0, 0], [90, 80, 0], [50, 70, 95]]) == 25  # (40 + 10) / 2


def test_forgetting_does_not_read_above_the_diagonal():
    matrix = [[90, math.nan, 1000], [70, 80, math.nan], [50, 85, 95]]
    assert metrics.forgetting(matrix) == 17.5


def test_forgetting_of_a_single_phase_is_zero():
    assert metrics.forgetting([[80]]) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_forgetting_equals_the_slow_version(seed):
    matrix = 100 * np.random.default_rng(seed).random((5, 5))
    assert metrics.forgetting(matrix) == pytest.approx(plain_forgetting(matrix.tolist()))


@pytest.mark.parametrize("matrix", [[], [1.0, 2.0], [[1.0, 2.0]]])
def test_forgetting_needs_a_square_matrix(matrix):
    with pytest.raises(ValueError, match="square"):
        metrics.forgetting(matrix)


# ---- Old and new ------------------------------------------------------------------------------


def plain_old_new(predictions, targets, num_old):
    counts = dict.fromkeys(metrics.OldNewConfusion._fields, 0)
    totals = {"old": 0, "new": 0}
    for p, t in zip(predictions, targets, strict=True):
        side = "old" if t < num_old else "new"
        totals[side] += 1
        if p == t:
            counts[f"{side}_correct"] += 1
        else:
            counts[f"{side}_to_{'old' if p < num_old else 'new'}"] += 1
    return {k: 100 * v / totals[k.split("_")[0]] for k, v in counts.items()}


def test_old_new_confusion_of_the_worked_example():
    found = metrics.old_new_confusion([0, 1, 4, 5, 4, 0, 4, 5], [0, 0, 0, 1, 4, 4, 5, 5], num_old=4)
    assert found._asdict() == {
        "old_correct": 25.0,
        "old_to_old": 25.0,
        "old_to_new": 50.0,
        "new_correct": 50.0,
        "new_to_new": 25.0,
        "new_to_old": 25.0,
    }


def test_the_class_at_the_boundary_is_new():
    found = metrics.old_new_confusion([3, 2], [2, 3], num_old=3)
    assert (found.old_to_new, found.new_to_old) == (100, 100)


@pytest.mark.parametrize("seed", SEEDS)
def test_old_new_confusion_equals_the_slow_version(seed):
    predictions, targets = random_predictions(seed)
    for num_old in (1, 3, 7):
        found = metrics.old_new_confusion(predictions, targets, num_old)._asdict()
        assert found == pytest.approx(plain_old_new(predictions, targets, num_old))
        assert sum(v for k, v in found.items() if k.startswith("old")) == pytest.approx(100)
        assert sum(v for k, v in found.items() if k.startswith("new")) == pytest.approx(100)


def test_a_side_without_images_is_not_a_number():
    found = metrics.old_new_confusion([0, 1], [1, 1], num_old=0)
    assert all(math.isnan(share) for share in found[:3])
    assert found[3:] == (50, 50, 0)


# ---- Confusion matrix -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_matrix_has_the_true_class_in_rows(seed):
    predictions, targets = random_predictions(seed)
    expected = np.zeros((9, 9), dtype=int)
    for p, t in zip(predictions, targets, strict=True):
        expected[t, p] += 1
    assert (metrics.confusion_matrix(predictions, targets, 9) == expected).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_confusion_matrix_counts_a_hundred_classes_in_small_numbers(kind):
    labels = np.arange(100, dtype=kind)
    assert (metrics.confusion_matrix(labels, labels, 100) == np.eye(100)).all()
    assert metrics.confusion_matrix([], [], 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("wrong", [-1, 2])
def test_confusion_matrix_refuses_a_class_that_is_not_there(wrong):
    for pair in (([wrong], [0]), ([0], [wrong])):
        with pytest.raises(ValueError, match="classes are 0 to 1"):
            metrics.confusion_matrix(*pair, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_group_accuracies_pool_the_images_of_a_group(seed):
    predictions, targets = random_predictions(seed)
    confusion = metrics.confusion_matrix(predictions, targets, 8)
    found = metrics.group_accuracies(confusion, [0, 3, 5, 8])
    for share, (a, b) in zip(found, [(0, 3), (3, 5), (5, 8)], strict=True):
        inside = (targets >= a) & (targets < b)
        assert share == pytest.approx(metrics.accuracy(predictions[inside], targets[inside]))
