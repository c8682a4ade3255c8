"""The progress bar stands where the training does."""

import io
import re
import sys
import time

import pytest
import tqdm

from lucir_edu.progress import Progress, Share
from lucir_edu.trainer import EpochEnd, PhaseStart, StepEnd


@pytest.fixture
def bar():
    """Of a phase of ten steps; called with the steps that end, it gives steps done and in all."""
    with Progress() as progress:
        progress(PhaseStart(1, 6, 50, 10, 1000, 150, 5, 10))

        def shown(*steps):
            for step in steps:
                progress(StepEnd(1, 1, step, {}))
            return progress._bar.n, progress._bar.total

        yield shown


def test_each_step_counts(bar):
    assert bar(1, 2, 3) == (3, 10)


def test_a_run_that_goes_on_inside_a_phase_begins_where_it_was(bar):
    assert bar(7) == (7, 10) and bar(8) == (8, 10)


def test_class_balance_tuning_comes_on_top(bar):
    assert bar(*range(1, 11), 1, 2) == (12, 12)


@pytest.mark.parametrize("notebook", [True, False])
def test_a_notebook_does_not_show_the_bar_as_an_error(notebook, monkeypatch):
    class Stream(io.StringIO):
        __module__ = "ipykernel.iostream" if notebook else "io"

    out, err = Stream(), Stream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with Progress() as progress:
        progress(PhaseStart(1, 6, 50, 10, 1000, 150, 5, 10))
    shown, other = (out, err) if notebook else (err, out)
    assert "phase 1 of 5" in shown.getvalue() and not other.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def clock(kind, monkeypatch):
    """Standard error of a kind, and a function that lets time pass."""
    now = [1000.0]
    monkeypatch.setattr(sys, "stderr", kind())
    for module in (time, tqdm.std):
        monkeypatch.setattr(module, "time", lambda: now[0])

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_of_several_runs_it_shows_how_many_are_done(kind, monkeypatch):
    wait = clock(kind, monkeypatch)
    with Progress() as progress:
        for done in (1, 1.25, 1.25, 3.5):
            progress.runs(done, 4)
            wait(1)
    shown = re.findall(r"([\d.]+) of 4 runs", sys.stderr.getvalue())
    assert shown == (["1.00", "1.25", "1.25", "3.50"] if sys.stderr.isatty() else ["1.00"])


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_log_is_not_filled_with_bars(kind, monkeypatch):
    wait = clock(kind, monkeypatch)
    with Progress() as progress:
        progress(PhaseStart(1, 6, 50, 10, 1000, 150, 5, 1000))
        for step in range(1, 301):  # 90 seconds
            wait(0.3)
            progress(StepEnd(1, 1, step, {}))
    shown = sys.stderr.getvalue().count("phase 1 of 5")
    assert shown >= 100 if sys.stderr.isatty() else 2 <= shown <= 4


def test_the_share_of_a_run_that_is_done():
    told = []
    share = Share(told.append)
    for phase in (1, 2):  # the base phase was learned earlier
        share(PhaseStart(phase, 4, 50, 10, 1000, 150, 2, 10))
        share(StepEnd(phase, 1, 1, {}))
        for epoch, tuning in ((1, False), (2, False), (1, True)):
            share(EpochEnd(phase, epoch, {}, 0.0, 0.1, None, None if tuning else lambda: None))
    assert told == [1 / 4, 1.5 / 4, 2 / 4, 2 / 4, 2.5 / 4, 3 / 4]
