"""A playground used for a minute, and four learners at the same time; see ``soak``."""

from tests import soak


def test_a_minute_of_random_use_leaves_nothing_behind():
    found = soak.soak(60)
    assert sum(found["trainings"]) > 3, found
    warm, *_, last = found["megabytes"]
    assert last - warm < 100, found
    assert len(set(found["threads"][1:])) == len(set(found["tasks"])) == 1, found
    assert found["milliseconds"][-1] < 5 * found["milliseconds"][1], found


def test_four_learners_at_once_each_need_less_than_a_gigabyte():
    found = soak.learn_together(4, "06_reproducing_the_paper")
    assert 100 < found["megabytes"] < 1000, found
    assert found["total_megabytes"] < 4 * found["megabytes"] + 500, found
