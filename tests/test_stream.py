"""The order of classes, and the phases that a data set is cut into."""

import numpy as np
import pytest
import torch

from lucir_edu import stream
from lucir_edu.config import Config, UsageError

# ---- Order ------------------------------------------------------------------------------------


def test_seed_1993_gives_the_fields_order():
    order = stream.class_order(100)
    assert order[:10] == [68, 56, 78, 8, 23, 84, 90, 65, 74, 76]
    assert order[50:60] == [37, 95, 14, 71, 96, 98, 97, 2, 64, 66]
    assert order[-5:] == [67, 29, 49, 57, 33]
    assert stream.class_order(10, seed=1993) == [4, 2, 7, 6, 0, 3, 5, 8, 9, 1]


def test_the_order_is_that_of_numpys_legacy_generator_which_is_left_alone():
    before = np.random.get_state()[1].tolist()
    found = stream.class_order(30, seed=7)
    assert np.random.get_state()[1].tolist() == before
    expected = np.arange(30)
    np.random.RandomState(7).shuffle(expected)
    assert found == expected.tolist()


@pytest.mark.parametrize("seed", [0, 1, 1993, None])
def test_an_order_has_every_class_once(seed):
    order = stream.class_order(20, seed)
    assert sorted(order) == list(range(20))
    assert (order == list(range(20))) == (seed is None)


# ---- Phases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "base", "increment", "expected"),
    [
        (100, 50, 10, [50] + [10] * 5),
        (100, 50, 2, [50] + [2] * 25),
        (100, 50, 50, [50, 50]),
        (100, 20, 20, [20] * 5),
        (100, 100, 10, [100]),
        (40, None, None, [20] + [4] * 5),
        (12, None, 2, [2] * 6),
        (7, None, None, [3, 2, 2]),
        (5, None, None, [3, 2]),
        (2, None, None, [2]),
        (1, None, None, [1]),
        (12, None, None, [2] * 6),
        (19, None, None, [9] + [2] * 5),
    ],
)
def test_how_many_classes_each_phase_brings(total, base, increment, expected):
    config = Config(base_classes=base, increment=increment)
    assert config.phase_sizes(total) == expected


@pytest.mark.parametrize(("total", "base", "increment"), [(100, 50, 30), (40, 50, 10)])
def test_classes_must_fill_the_phases(total, base, increment):
    with pytest.raises(UsageError, match=f"{total} classes.*{base}.*{increment}"):
        Config(base_classes=base, increment=increment).phase_sizes(total)


def test_phases_tell_old_from_new_classes(config, dataset):
    phases = stream.make(config, dataset).phases
    assert [(p.number, p.num_old, p.num_new, p.num_seen) for p in phases] == [
        (0, 0, 6, 6),
        (1, 6, 3, 9),
        (2, 9, 3, 12),
    ]


def test_a_phase_trains_on_new_classes_and_is_tested_on_all_seen(config, dataset):
    cut = stream.make(config, dataset)
    for phase in cut.phases:
        train = cut.dataset.train.labels[phase.train]
        test = cut.dataset.test.labels[phase.test]
        assert train.unique().tolist() == list(range(phase.num_old, phase.num_seen))
        assert train.bincount().tolist()[phase.num_old :] == [8] * phase.num_new
        assert test.bincount().tolist() == [5] * phase.num_seen
    together = torch.cat([phase.train for phase in cut.phases])
    assert sorted(together.tolist()) == list(range(96))


def test_classes_are_renumbered_in_their_order(config, dataset):
    cut = stream.make(config, dataset)
    assert cut.order == stream.class_order(12, 1993)
    assert cut.bounds == [0, 6, 9, 12]
    assert cut.dataset.classes == tuple(dataset.classes[c] for c in cut.order)
    for row, label in enumerate(cut.order):
        assert torch.equal(cut.dataset.train.labels == row, dataset.train.labels == label)
        assert torch.equal(cut.dataset.test.labels == row, dataset.test.labels == label)
    assert torch.equal(cut.dataset.train.images, dataset.train.images)


def test_without_a_seed_the_data_sets_own_order_stays(make_config, dataset):
    cut = stream.make(make_config(order_seed=None), dataset)
    assert cut.dataset.classes == dataset.classes


def test_hard_negatives_need_enough_new_classes(make_config, make_dataset):
    config = make_config(base_classes=None, increment=None, top_k=3)
    with pytest.raises(UsageError, match=r"top_k=3.*2 new.*lower top_k, or set"):
        stream.make(config, make_dataset(classes=12))
    allowed = make_config(base_classes=None, increment=None, top_k=2, margin_ranking=False)
    assert len(stream.make(allowed, make_dataset(classes=12)).phases) == 6
