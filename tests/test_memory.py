"""Herding, the memory and the nearest-mean classifier."""

import math

import pytest
import torch

from lucir_edu import memory
from lucir_edu.memory import Memory

SEEDS = range(5)


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def plain_unit(row):
    length = math.hypot(*row)
    return [x / length for x in row] if length else row


def plain_mean(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def plain_herding(features, count, steps=1000):
    """The authors' loop: every step counts, an image is ranked when it comes up first."""
    rows = [plain_unit(f) for f in features]
    mu = plain_mean(rows)
    w, ranked = list(mu), []
    for _ in range(steps):
        if len(ranked) == count:
            break
        scores = [dot(w, row) for row in rows]
        best = scores.index(max(scores))
        if best not in ranked:
            ranked.append(best)
        w = [a + b - c for a, b, c in zip(w, mu, rows[best], strict=True)]
    return ranked


# ---- Herding ----------------------------------------------------------------------------------


def test_herding_of_the_worked_example():
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    assert memory.herding(features, 3).tolist() == [1, 2, 0]  # it picks 1, 1, 2, 0


def test_herding_looks_at_directions_not_lengths():
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    scaled = features * torch.tensor([[100.0], [0.1], [3.0]])
    assert memory.herding(scaled, 3).tolist() == [1, 2, 0]


@pytest.mark.parametrize("seed", range(8))
def test_herding_equals_the_slow_version(seed):
    features = random(20, 6, seed=seed) + 0.5
    assert memory.herding(features, 12).tolist() == plain_herding(features.tolist(), 12)


@pytest.mark.parametrize("seed", SEEDS)
def test_fewer_exemplars_are_a_prefix_of_more(seed):
    features = random(15, 4, seed=seed)
    most = memory.herding(features, 15).tolist()
    assert sorted(most) == list(range(15))
    for count in range(15):
        assert memory.herding(features, count).tolist() == most[:count]


def test_a_herd_comes_nearer_to_the_mean_than_a_random_choice():
    features = random(60, 8, seed=3) + 0.3
    rows = [plain_unit(f) for f in features.tolist()]
    mu = plain_mean(rows)

    def distance(chosen):
        return math.dist(plain_mean([rows[i] for i in chosen]), mu)

    torch.manual_seed(0)
    chance = [distance(torch.randperm(60)[:10].tolist()) for _ in range(20)]
    assert distance(memory.herding(features, 10).tolist()) < min(chance)


def test_herding_ends_and_completes_when_it_goes_in_circles():
    # Image 1 equals image 0, and a zero feature is never the most like anything.
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert plain_herding(features.tolist(), 4) == [0, 2]
    assert memory.herding(features, 4).tolist() == [0, 2, 1, 3]
    assert memory.herding(features, 3).tolist() == [0, 2, 1]


@pytest.mark.parametrize("count", [-1, 4])
def test_herding_cannot_choose_more_than_there_are(count):
    with pytest.raises(ValueError, match=f"cannot choose {count} of 3"):
        memory.herding(torch.ones(3, 2), count)


# ---- The memory -------------------------------------------------------------------------------


def filled(store, classes, images=30, batch=1):
    """Adds classes; the images of class c are numbered from 100 c."""
    while len(store.ranked) < classes:
        known = len(store.ranked)
        for c in range(known, known + batch):
            features = random(images, 5, seed=c)
            store.add(torch.arange(images) + 100 * c, features, known + batch)
        store.trim()
    return store


def test_a_memory_per_class_keeps_the_same_number_of_each():
    store = filled(Memory(per_class=4), 3)
    assert [len(indices) for indices in store.ranked] == [4, 4, 4]
    filled(store, 6, batch=3)
    assert [len(indices) for indices in store.ranked] == [4] * 6


def test_a_memory_with_a_fixed_total_shares_it_evenly_rounding_down():
    store = Memory(total=50)
    for classes, each in ((3, 16), (6, 8), (9, 5)):
        filled(store, classes, batch=3)
        assert [len(indices) for indices in store.ranked] == [each] * classes
        assert len(store.indices) == classes * each <= 50


def test_2000_images_are_40_of_50_classes_and_20_of_100():
    store = Memory(per_class=7, total=2000)
    assert [store.quota(n) for n in (50, 60, 70, 80, 90, 100)] == [40, 33, 28, 25, 22, 20]
    assert Memory(per_class=20).quota(50) == 20
    assert Memory(everything=True).quota(50) is None


def test_a_memory_holds_herding_order_and_trims_the_worst():
    features, images = random(30, 5), torch.arange(30) + 200
    store = Memory(total=12)
    store.add(images, features, 1)
    store.trim()
    order = images[memory.herding(features, 12)]
    assert torch.equal(store.ranked[0], order)
    store.add(images + 100, random(30, 5, seed=1), 2)
    store.trim()
    assert torch.equal(store.ranked[0], order[:6])


def test_a_memory_has_no_duplicates_and_only_its_classes_images():
    store = filled(Memory(total=50), 7)
    assert len(store.indices.unique()) == len(store.indices)
    for c, indices in enumerate(store.ranked):
        assert set((indices // 100).tolist()) == {c}


def test_a_class_with_few_images_gives_all_of_them():
    store = Memory(per_class=20)
    store.add(torch.arange(5), random(5, 3), 1)
    assert sorted(store.indices.tolist()) == [0, 1, 2, 3, 4]


def test_joint_training_keeps_everything():
    store = filled(Memory(per_class=1, everything=True), 4)
    assert store.indices.tolist() == [100 * c + i for c in range(4) for i in range(30)]


def test_an_empty_memory_has_no_indices():
    assert Memory().indices.tolist() == []


# ---- Nearest mean of exemplars ----------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_class_means_equal_the_slow_version(seed):
    features = random(12, 4, seed=seed)
    labels = torch.arange(12) % 3
    found = memory.class_means(features, labels, 3)
    for c in range(3):
        rows = [plain_unit(f) for f, y in zip(features.tolist(), labels, strict=True) if y == c]
        assert found[c].tolist() == pytest.approx(plain_unit(plain_mean(rows)))


def test_class_means_weigh_images_alike_and_have_length_one():
    features = torch.tensor([[10.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    means = memory.class_means(features, torch.tensor([0, 0, 2]), 4)
    half = 0.5**0.5
    assert means.tolist() == [pytest.approx([half, half]), [0, 0], [0, 1], [0, 0]]


def test_nearest_mean_of_the_worked_example():
    query, means = torch.tensor([[5.0, 6.0]]), torch.eye(2)
    assert [(query - mean).square().sum().item() for mean in means] == [52, 50]
    assert memory.nearest_mean(query, means).tolist() == [1]


def test_nearest_mean_does_not_depend_on_the_length_of_the_means():
    query = torch.tensor([[5.0, 6.0]])
    means = torch.tensor([[6.0, 0.0], [0.0, 1.0]])  # in Euclid's sense class 0 is nearer now
    assert (query - means).norm(dim=1).argmin() == 0
    assert memory.nearest_mean(query, means).tolist() == [1]


@pytest.mark.parametrize("seed", SEEDS)
def test_nearest_mean_equals_euclid_and_cosine_for_unit_means(seed):
    features = 5 * random(40, 6, seed=seed)
    means = memory.class_means(random(20, 6, seed=seed + 50), torch.arange(20) % 4, 4)
    found = memory.nearest_mean(features, means).tolist()
    for f, c in zip(features.tolist(), found, strict=True):
        distances = [math.dist(f, mean) for mean in means.tolist()]
        cosines = [dot(plain_unit(f), mean) for mean in means.tolist()]
        assert c == distances.index(min(distances)) == cosines.index(max(cosines))


def test_a_class_without_a_mean_is_never_predicted():
    means = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert memory.nearest_mean(torch.tensor([[-3.0, 0.1], [1.0, 0.0]]), means).tolist() == [1, 1]
