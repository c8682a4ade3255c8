"""The bench compares like with like, and its arithmetic is right. How fast anything is, it is not
asked here: that is for the bench itself to say."""

import json
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from lucir_edu import bench, cli

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject():
    return bench.Subject("Glyphs", CPU)


def arithmetic(steps):
    """Operations of the convolutions in one step."""
    next(steps)
    with bench._Ledger(CPU) as ledger:
        next(steps)
    return sum(entry[1] for entry in ledger.entries if entry[0] == "convolutions")


def test_all_contenders_do_the_same_convolutions(subject):
    expected = arithmetic(subject.ours())
    size = subject.config.batch_size
    stem = 2 * size * 16 * 24 * 24 * 9  # forward, 1 channel to 16
    assert expected > 30 * stem
    for contender in (subject.data_free, subject.plain, subject.convolutions):
        assert arithmetic(contender()) == expected


def test_the_data_free_step_touches_no_data(subject, monkeypatch):
    def refuse(*_):
        raise AssertionError("it makes a batch")

    steps = subject.data_free()
    monkeypatch.setattr(bench.TensorLoader, "_crop", refuse)
    assert len(list(islice(steps, 3 * len(subject.indices) // subject.config.batch_size))) > 9
    with pytest.raises(AssertionError, match="it makes a batch"):
        next(subject.ours())


def test_the_plain_pipeline_is_plain(subject, monkeypatch):
    seen = []

    def convolution(x, *arguments, **more):
        seen.append((x.dtype, x.is_contiguous(), torch.is_grad_enabled()))
        return plain(x, *arguments, **more)

    plain = F.conv2d
    monkeypatch.setattr(torch.nn.modules.conv.F, "conv2d", convolution)
    next(subject.plain())
    assert len(seen) == 18, "nine convolutions of the student, nine of the teacher"
    assert set(seen) == {(torch.float32, True, True)}


def test_the_ledger_counts_operations_and_bytes():
    x, w = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    with bench._Ledger(CPU) as ledger:
        y = F.conv2d(x, w, padding=1)
        y.view(-1)  # moves nothing
        torch.relu(y)
    stage, operations, moved, seconds = ledger.entries[0]
    assert (stage, operations) == ("convolutions", 2 * 2 * 4 * 8 * 8 * 3 * 9)
    assert moved == 4 * (x.numel() + w.numel() + y.numel()) and seconds > 0
    assert ledger.entries[1][1:3] == (0, 0)
    assert ledger.entries[2][:3] == ("ReLU and sums", 0, 2 * 4 * y.numel())


def test_a_turn_leaves_out_what_warms_up(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])

    def contender():
        for seconds in (10, 10, 1, 1, 2, 99):
            clock[0] += seconds
            yield 50

    assert bench._turn(contender(), 120, CPU) == 150 / 4


def test_what_is_measured_fits_together(tmp_path, monkeypatch, capsys):
    networks = {"Glyphs": bench.NETWORKS["Glyphs"]}
    monkeypatch.setattr(bench, "NETWORKS", networks)
    file = tmp_path / "new" / "bench.json"
    assert cli.main(["bench", "--rounds", "1", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    glyphs = result["networks"]["Glyphs"]
    speeds = {name: speed["median"] for name, speed in glyphs["images_per_second"].items()}
    assert set(speeds) == set(bench.CONTENDERS) and min(speeds.values()) > 0
    for ratio, other in (
        ("ours_over_plain", "plain"),
        ("ours_over_data_free", "data_free"),
        ("ours_over_limit", "convolutions"),
    ):
        assert result[ratio] == glyphs[ratio] == pytest.approx(speeds["ours"] / speeds[other])
    assert all(stage["least_ms"] > 0 for stage in glyphs["stages"].values())
    printed = capsys.readouterr().out
    assert f"{speeds['ours']:.0f}" in printed
    assert f"ours is {result['ours_over_plain']:.2f} times this" in printed
    assert list(file.parent.iterdir()) == [file]
