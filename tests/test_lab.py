"""Figures, the report page, and live training; the panels themselves are tested in a browser."""

import asyncio
import dataclasses
import itertools
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lucir_edu import hardware, losses, runs, stream
from lucir_edu.config import preset
from lucir_edu.datasets import load
from lucir_edu.lab import drawings, lessons, plots, report, sphere
from lucir_edu.lab.live import Live, Probe, Throttle
from lucir_edu.lab.panels import MarginPanel, SpherePanel, TrainingPanel
from lucir_edu.lab.playground import playground
from lucir_edu.lab.views import angles
from lucir_edu.model import build
from lucir_edu.trainer import EpochEnd, PhaseEnd, State, objective, train

# ---- Figures ----


@pytest.fixture
def trained(make_config, dataset):
    """The same tiny experiment with the linear and the cosine head."""
    linear = make_config(cosine=False, less_forget=False, margin_ranking=False)
    return {
        name: runs.perform(config, dataset, preset="toy")
        for name, config in (("replay", linear), ("lucir", make_config()))
    }


def recorded(method):
    return runs.load(runs.BANK / f"glyphs-b50-5/{method}/seed0")


def test_every_figure_is_a_picture_with_a_description(trained, make_config, dataset):
    learner = stream.make(make_config(), dataset)
    for described in (
        plots.samples(load(preset())),
        plots.images_per_class(learner, 1, 3),
        plots.accuracy(trained),
        plots.by_group(trained["replay"], ["Latin", "Greek", "Cyrillic"]),
        *(plots.head(run, phase) for run in trained.values() for phase in (0, -1)),
        *(plots.confusion(run, phase) for run in trained.values() for phase in (0, -1)),
    ):
        figure, description = described
        assert isinstance(figure, Figure) and len(description) > 40
        assert plots.png(figure, dpi=40).startswith(b"\x89PNG")


def test_descriptions_say_what_was_measured(trained):
    run = trained["replay"]
    _, words = plots.accuracy({"replay": run})
    first, last = run["phases"][0]["cnn"], run["phases"][-1]["cnn"]
    assert f"replay from {first:.0f} to {last:.0f} %" in words
    _, words = plots.confusion(run)
    assert f"{run['phases'][-1]['old_to_new']:.0f} % taken for a new class" in words
    assert f"{run['phases'][-1]['cnn_new']:.0f} % are right, " in words
    _, words = plots.confusion(run, 0)  # no class is old
    right = run["phases"][0]["cnn"]
    assert words == f"After phase 0: of new classes' images {right:.0f} % are right."
    _, words = plots.head(run)
    norms = run.arrays["weight_norms"][-1]
    assert f"embedding: old {norms[:9].mean():.2f}, new {norms[9:].mean():.2f}" in words
    assert "bias" in words and "bias" not in plots.head(trained["lucir"])[1]


def test_a_description_is_printed_in_lines_that_fit_and_numbers_stay_whole(capsys):
    words = "; ".join(f"method {number}: {number}.0 ± 1.5 %" for number in range(10, 40))
    plots.show((Figure(), words))
    lines = capsys.readouterr().out.splitlines()[1:]  # the first is the picture's
    assert max(map(len, lines)) <= 90 and len(lines) > 5
    assert " ".join(lines).replace("\u00a0", " ") == words
    assert all(re.search(r"[^±%]$", line) and not re.match("[±%]", line) for line in lines[:-1])


def test_bars_tell_old_from_new_by_hatch_as_well_as_by_colour(trained):
    figure, _ = plots.head(trained["replay"])
    bars = figure.axes[0].patches
    assert len(bars) == 12
    assert {(b.get_facecolor(), b.get_hatch()) for b in bars[:9]}.isdisjoint(
        {(b.get_facecolor(), b.get_hatch()) for b in bars[9:]}
    )
    assert {bar.get_hatch() for bar in bars[:9]} == {None}
    assert None not in {bar.get_hatch() for bar in bars[9:]}
    heights = [bar.get_height() for bar in bars]
    assert heights == pytest.approx(trained["replay"].arrays["weight_norms"][-1].tolist())


def test_accuracy_has_a_curve_per_run_with_a_point_per_phase(trained):
    figure, _ = plots.accuracy(trained)
    for line, (name, run) in zip(figure.axes[0].lines, trained.items(), strict=True):
        assert line.get_label() == name
        points = [(phase["classes_seen"], phase["cnn"]) for phase in run["phases"]]
        assert line.get_xydata().tolist() == [list(point) for point in points]


def test_the_head_has_bars_for_all_that_its_titles_name(trained):
    named = {"length": "weight_norms", "bias": "biases", "mean": "mean_logits"}
    named["spread"] = "logit_sds"
    for name, kinds in (("replay", 4), ("lucir", 3)):
        figure, _ = plots.head(trained[name], 1)
        assert len(figure.axes) == kinds
        for axes in figure.axes:
            key = named[axes.get_title(loc="left").split()[0]]
            values = trained[name].arrays[key][1, :9].tolist()
            assert [bar.get_height() for bar in axes.patches] == pytest.approx(values), key


def test_the_picture_of_the_imbalance_counts_images(make_config, dataset):
    figure, words = plots.images_per_class(stream.make(make_config(), dataset), 1, 2)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [2] * 6 + [8] * 3
    assert "6 old classes has 2 " in words and "3 new ones 8: 4 times" in words


def test_by_group_writes_the_accuracy_matrix_row_by_row(trained):
    run = trained["replay"]
    figure, words = plots.by_group(run, ["Latin", "Greek", "Cyrillic"])
    matrix = run.accuracy_matrix()
    lower = [f"{matrix[row, column]:.0f}" for row in range(3) for column in range(row + 1)]
    assert [text.get_text() for text in figure.axes[0].texts] == lower
    assert ", ".join(f"{value:.0f}" for value in matrix[:, 0]) in words


def test_the_bars_of_the_confusion_are_what_becomes_of_old_and_new_images():
    run = recorded("lucir")
    figure, words = plots.confusion(run)
    bars = figure.axes[1].patches
    heights = np.array([bar.get_height() for bar in bars]).reshape(3, 2)
    last = run["phases"][-1]
    assert heights[0] == pytest.approx([last["cnn_old"], last["cnn_new"]])
    new = run.arrays["confusion_cnn"][-1][90:]
    to_old = 100 * new[:, :90].sum() / new.sum()
    assert heights[2] == pytest.approx([last["old_to_new"], to_old])
    assert words == (
        f"After phase 5: of old classes' images {last['cnn_old']:.0f} % are right, "
        f"{last['old_to_new']:.0f} % taken for a new class; of new classes' images "
        f"{last['cnn_new']:.0f} % are right, {to_old:.0f} % taken for an old one."
    )
    assert heights.sum(axis=0) == pytest.approx([100, 100])


def test_the_confusion_has_a_true_class_per_row_and_its_images_make_100(trained):
    run = trained["replay"]
    figure, _ = plots.confusion(run, 1)
    counts = run.arrays["confusion_cnn"][1]
    shown = figure.axes[0].images[0].get_array()
    assert shown.tolist() == [[100 * n / 5 for n in row[:9]] for row in counts[:9].tolist()]
    assert (figure.axes[0].get_ylabel(), figure.axes[0].get_xlabel()) == (
        "true class", "predicted class"
    )  # fmt: skip


def test_features_are_drawn_where_they_are_at_the_end_and_where_they_came_from(trained):
    figure, _ = plots.features(trained)
    for axes, run in zip(figure.axes, trained.values(), strict=True):
        positions = run.arrays["positions"].astype(float)
        *ways, old, new = axes.lines
        assert (old.get_label(), new.get_label()) == ("old classes", "new classes")
        now = positions[2].reshape(12, -1, 2)
        np.testing.assert_array_equal(old.get_xydata(), now[:9].reshape(-1, 2))
        np.testing.assert_array_equal(new.get_xydata(), now[9:].reshape(-1, 2))
        assert np.isfinite(new.get_xydata()).any()
        ends = np.array([way.get_xydata() for way in ways])
        moves = np.stack([positions[0, :6].reshape(-1, 2), positions[2, :6].reshape(-1, 2)], axis=1)
        np.testing.assert_array_equal(ends, moves)


def test_words_about_features_say_how_far_the_base_classes_moved():
    compared = {name: recorded(name) for name in ("lucir", "linear+lf")}
    _, words = plots.features(compared)
    moved = []
    for run in compared.values():
        before, after = run.arrays["positions"][[0, 5], :50].astype(float)
        moved.append(f"{np.sqrt(((after - before) ** 2).sum(axis=-1)).mean():.2f}")
    assert re.findall(r"(\S+): images .*? moved by (\S+) on", words) == [
        *zip(compared, moved, strict=True)
    ]
    assert moved[0] != moved[1]


def test_words_about_groups_give_the_first_s_accuracies_and_each_one_s_own():
    run = recorded("icarl")
    _, words = plots.by_group(run, ["Latin", *"BCDEF"])

    def right(phase, group):
        a, b = run["bounds"][group : group + 2]
        counts = run.arrays["confusion_cnn"][phase][a:b]
        return f"{100 * np.trace(counts[:, a:b]) / counts.sum():.0f}"

    first, newest = ([right(t, t * own) for t in range(6)] for own in (0, 1))
    assert words.endswith(
        f" Latin, after each phase: {', '.join(first)} %. "
        f"Each alphabet just after it was learned: {', '.join(newest)} %."
    )


def test_the_head_has_lines_at_the_means_of_old_and_of_new_classes():
    run = recorded("linear+lf")
    figure, words = plots.head(run, 2)
    keys = ("weight_norms", "biases", "mean_logits", "logit_sds")
    for axes, key in zip(figure.axes, keys, strict=True):
        values = run.arrays[key][2].astype(float)
        old, new = values[:60].mean(), values[60:70].mean()
        assert abs(old - new) > 0.02, "an exchange would not be seen"
        lines = [line.get_segments()[0] for line in axes.collections]
        np.testing.assert_allclose(
            lines, [[(-0.5, old), (59.5, old)], [(59.5, new), (69.5, new)]], rtol=1e-5
        )
        title = axes.get_title(loc="left")
        assert f"{title}: old {old:.2f}, new {new:.2f} on average" in words


def test_a_base_phase_of_one_class_has_no_angle_yet(make_config, dataset, recwarn):
    config = make_config(base_classes=1, increment=1, top_k=1, epochs=1)
    run = runs.perform(config, dataset, device="cpu")
    words = [angles(run, phase, True).words for phase in range(3)]
    assert words[0] == "After phase 0: there are no two classes yet."
    assert words[1].startswith("After phase 1: there are no two old classes yet, an old and a new")
    assert words[2].startswith("After phase 2: two old classes are ")
    assert not any(isinstance(warning.message, RuntimeWarning) for warning in recwarn)


def test_pairs_of_letters_are_shown_side_by_side():
    data = load(preset())
    figure, words = plots.pairs(data, ("RЯ", "0θ"), per_letter=3)
    assert [axes.get_ylabel() for axes in figure.axes] == ["R", "Я", "0", "θ"]
    shown = figure.axes[1].images[0].get_array()
    rows = np.flatnonzero(data.train.labels == data.classes.index("Я"))[:3]
    assert np.array_equal(shown, np.hstack(data.train.images[rows, 0].numpy()))
    assert "R and Я" in words and "0 and θ" in words


def test_curves_draw_the_points_they_are_given():
    figure, words = plots.curves({"a": ([1, 2, 4], [5, 6, 9])}, "x", "height", marks=True, log=True)
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 4] and line.get_ydata().tolist() == [5, 6, 9]
    assert line.get_marker() == "o" and figure.axes[0].get_xscale() == "log"
    assert "a: from 5 at 1 to 9 at 4" in words


def test_the_drawing_of_the_protocol_has_what_is_learnt_and_tested_in_each_phase():
    figure, words = drawings.protocol(["Latin", "Greek", "Cyrillic"], exemplars=2)
    (axes,) = figure.axes
    tested = [box for box in axes.patches if not box.get_fill()]
    assert [round(box.get_height()) for box in tested] == [1, 2, 3], "all groups so far"
    assert len(axes.patches) - len(tested) == 3, "the own group"
    assert [len(kept.get_segments()) for kept in axes.collections] == [0, 1, 2], "those before"
    assert "2 exemplars" in words and "Latin, Greek, Cyrillic" in words
    assert "1 exemplar of each" in drawings.protocol(["Latin", "Greek"], exemplars=1)[1]
    figure, words = drawings.protocol(["Latin", "Greek"], exemplars=0)
    assert not figure.axes[0].collections and "exemplar" not in words


def test_arrows_point_where_they_should():
    arrows = [("a", 0, 2.0, "old"), ("b", 90, 1.0, "feature")]
    figure, words = drawings.directions({"one": (arrows, [(0, 90, "right")]), "two": (arrows, [])})
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    for axes in figure.axes:
        tips = [line.get_xydata()[-1] for line in axes.lines[1:3]]  # the first is the circle
        assert np.allclose(tips, [(2, 0), (0, 1)])
    assert len(figure.axes[0].lines) == len(figure.axes[1].lines) + 1, "the arc"
    named = "a at 0°, length 2, b at 90°, length 1"
    assert words == f"Vectors in a plane. “one”: {named}; “two”: {named}."


def test_the_drawing_of_the_objective_has_all_terms():
    figure, words = drawings.objective()
    texts = figure.axes[0].texts
    at = {tuple(text.get_position()): text.get_text() for text in texts if text.get_text()}
    ways = {(at[way.xyann], at[way.xy]) for way in texts if not way.get_text()}
    comes_from = {
        "λ × less-forget": {"feature f(x)", "feature f*(x)"},
        "margin ranking\n(old images only)": {"cosines with θ;\nold θ are frozen"},
        "cross-entropy": {"logits:\nη × cosines"},
    }
    for term, sources in comes_from.items():
        assert {start for start, end in ways if end == term} == sources
        assert term.removeprefix("λ × ").partition("\n")[0] in words.lower()


def contrast(colour, background="white"):
    """As the accessibility guidelines (WCAG 2) define it."""
    light, dark = sorted(
        (
            np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
            @ [0.2126, 0.7152, 0.0722]
            for c in (np.array(to_rgb(one)) for one in (colour, background))
        ),
        reverse=True,
    )
    return (light + 0.05) / (dark + 0.05)


def test_words_in_drawings_can_be_read():
    assert 3.8 < contrast(plots.ORANGE) < 3.9 and contrast("black") == pytest.approx(21)
    arrows = [("old", 10, 1, "old"), ("new", 80, 1, "new"), ("f(x)", 30, 1, "feature")]
    for figure, _ in (drawings.objective(), drawings.directions({"one": (arrows, [])})):
        words = [text for axes in figure.axes for text in axes.texts if text.get_text()]
        assert len(words) >= 3
        for text in words:
            box = text.get_bbox_patch()
            background = box.get_facecolor() if box else "white"
            assert contrast(text.get_color(), background) >= 4.5, text.get_text()


def test_bars_have_their_mean_and_spread():
    figure, words = plots.bars({"one": (40.0, 1.5), "two": (60.0, 3.0)}, "accuracy")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [40, 60]
    assert "one: 40.0 ± 1.5; two: 60.0 ± 3.0" in words


def test_margins_count_the_pairs_on_which_the_loss_acts():
    cosines = torch.tensor(
        [[0.9, 0.0, 0.2, 0.1], [0.1, 0.5, 0.4, -0.2], [0.0, 0.0, 0.9, 0.1]]
    )  # two old classes, two new; the last image is of a new one
    figure, words = plots.margins(cosines, torch.tensor([0, 1, 2]), 2, top_k=2, margin=0.5)
    # gaps: 0.7, 0.8; 0.1, 0.7
    assert "25 % of the 4 pairs" in words and "2 exemplars" in words and "0 % are on" in words
    pulled = sum(bar.get_height() for bar in figure.axes[0].containers[0])
    far = sum(bar.get_height() for bar in figure.axes[0].containers[1])
    assert (pulled, far) == (1, 3)


def test_margins_draw_pairs_that_are_far_apart_and_say_when_there_is_none():
    cosines = torch.tensor([[1.0, -1.0, 0.9], [-1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 0])
    figure, words = plots.margins(cosines, labels, 1, top_k=2, margin=0.5)  # gaps 2, 0.1, -2, -2
    drawn = [sum(bar.get_height() for bar in part) for part in figure.axes[0].containers]
    assert drawn == [3, 1] and "75 % of the 4 pairs" in words and "50 % are on" in words
    _, words = plots.margins(cosines, labels + 1, 1, top_k=1, margin=0.5)
    assert words.startswith("0 exemplars of old classes") and "0 % of the 0 pairs" in words


def test_the_margin_panel_follows_its_sliders():
    cosines = torch.tensor([[0.9, 0.0, 0.2, 0.1], [0.1, 0.5, 0.4, -0.2]])
    panel = MarginPanel(cosines, torch.tensor([0, 1]), 2, losses.margin_ranking)
    assert "25 % of the 4 pairs" in panel.words.value
    assert f"Loss: {0.4 / 4:.4f}" in panel.words.value
    before = panel.image.value
    panel.margin.value = 0.75
    assert "75 % of the 4 pairs" in panel.words.value and panel.image.value != before
    panel.top_k.value = 1
    assert "100 % of the 2 pairs" in panel.words.value
    assert f"Loss: {(0.05 + 0.65) / 2:.4f}" in panel.words.value
    assert panel.top_k.max == 2


def test_curves_differ_in_line_and_marker():
    assert len({(line, marker) for _, line, marker in plots.LINES}) == len(plots.LINES)
    assert len({colour for colour, _, _ in plots.LINES}) == len(plots.LINES)


def test_no_curve_is_left_out_however_many_there_are(trained):
    figure, words = plots.accuracy({f"setting {n}": trained["lucir"] for n in range(40)})
    lines = figure.axes[0].lines
    assert len(lines) == words.count("setting") == 40
    for mark in ("get_linestyle", "get_marker"):
        styles = {(line.get_color(), getattr(line, mark)()) for line in lines}
        assert len(styles) > 27, "more than the recorded settings have to be told apart"


def test_a_label_that_is_a_whole_configuration_leaves_room_for_the_curves(trained):
    settings = " ".join(f"a_long_setting={n}" for n in range(12))
    figure, _ = plots.accuracy({f"{name} {settings}": run for name, run in trained.items()})
    figure.draw_without_rendering()
    place = figure.axes[0].get_position()
    legend = figure.axes[0].get_legend().get_window_extent()
    assert place.width > 0.4 and place.height > 0.7
    assert legend.y0 >= 0 and legend.y1 <= figure.bbox.height and legend.x1 <= figure.bbox.width


def test_report_escapes_names_and_asks_for_no_other_file(trained, tmp_path):
    run = trained["replay"]
    run["preset"] = "<script>alert(1)</script>"
    report.write([run, trained["lucir"]], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;" in page
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"(src|href)=\"(?!data:)", markup)
    assert page.count("<figcaption>") == page.count("<img alt=") == 6


def test_report_shows_the_lowest_seed_of_each_setting(trained, config, dataset, tmp_path):
    later = runs.perform(dataclasses.replace(config, seed=1), dataset, preset="toy")
    report.write([later, trained["lucir"]], tmp_path / "page.html")
    headings = re.findall("<h3>(.*)</h3>", (tmp_path / "page.html").read_text())
    assert [heading.split(", ")[-1] for heading in headings] == ["Explore", "seed 0"]


# ---- Live training ----


def in_a_loop(coroutine):
    """Run it on a loop of its own, in a thread: the browser tests keep one running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asyncio.wait_for(coroutine, 60)).result()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_live_hands_on_every_event_and_leaves_room_for_others():
    async def main():
        live, seen, ended, ticks = Live(), [], [], 0
        live.start(iter(range(100)), seen.append, ended.append)
        assert live.running and not seen
        while live.running:
            ticks += 1
            await asyncio.sleep(0)
        assert seen == list(range(100)) and ended == ["done"]
        assert ticks >= 100, "events came without a pause between them"

    in_a_loop(main())


def test_live_stops_when_told_and_closes_the_events():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async def main():
        live, seen, ended = Live(), [], []
        live.start(endless(), seen.append, ended.append)
        await until(lambda: len(seen) > 5)
        live.stop()
        count = len(seen)
        await until(lambda: not live.running)
        assert len(seen) <= count + 1 and ended == ["stopped"] and closed == [True]
        live.stop()  # nothing runs; nothing happens

    in_a_loop(main())


def test_live_started_twice_the_last_wins():
    async def main():
        live, seen, ended = Live(), [], []
        for number in range(20):
            live.start(
                iter([number] * 50), seen.append, lambda how, n=number: ended.append((n, how))
            )
            await asyncio.sleep(0)
        await until(lambda: not live.running)
        assert seen.count(19) == 50 and ended == [(19, "done")]

    in_a_loop(main())


def test_a_cell_that_is_run_again_stops_the_training_that_it_started(monkeypatch):
    shell = SimpleNamespace(parent_header={"metadata": {"cellId": "one"}})
    monkeypatch.setattr("lucir_edu.lab.live.get_ipython", lambda: shell)

    async def main():
        ended = []
        first = Live()
        first.start(itertools.count(), lambda event: None, lambda how: ended.append("first"))
        shell.parent_header = {"metadata": {"cellId": "another"}}
        other = Live()
        other.start(itertools.count(), lambda event: None, lambda how: ended.append("other"))
        shell.parent_header = {"metadata": {"cellId": "one"}}
        again = Live()
        again.start(itertools.count(), lambda event: None, lambda how: ended.append("again"))
        await until(lambda: not first.running)
        assert ended == ["first"] and other.running and again.running
        other.stop()
        again.stop()
        await until(lambda: len(ended) == 3)

    in_a_loop(main())


def test_live_tells_an_error_instead_of_losing_it():
    def failing():
        yield 1
        raise ValueError("no such luck")

    async def main():
        live, ended = Live(), []
        live.start(failing(), lambda event: None, ended.append)
        await until(lambda: not live.running)
        assert ended == ["ValueError: no such luck"]

    in_a_loop(main())


def test_throttle_lets_through_so_many_a_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lucir_edu.lab.live.time.monotonic", lambda: now[0])
    throttle, passed = Throttle(5), 0
    for step in range(1000):
        now[0] = step / 100
        passed += throttle()
    assert 48 <= passed <= 50


def test_probe_agrees_with_the_judgement_on_all_images(make_config, dataset):
    """With as many images per class as there are, the quick look is the whole truth."""
    config = make_config()
    probe = Probe(config, dataset, per_class=10)
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, PhaseEnd):
            m = event.measurement
            old, new, both = probe(event.model, m.classes_seen - 3 if m.phase else 0)
            assert both == pytest.approx(m.cnn) and new == pytest.approx(m.cnn_new)
            assert np.isnan(old) if m.phase == 0 else old == pytest.approx(m.cnn_old)
        elif isinstance(event, EpochEnd):
            assert event.model.training
            probe(event.model, 0)
            assert event.model.training, "the probe leaves the model as it was"


# ---- The panel, without a browser ----


@pytest.fixture
def toy(make_config, dataset):
    return make_config(cosine=False, less_forget=False, margin_ranking=False), dataset


def test_where_the_base_phase_is_learnt_too_its_curves_have_room(toy):
    """They lie left of phase 0."""

    async def main():
        assert TrainingPanel(*toy).figure.layout.xaxis.range[0] < -1
        with_bases = TrainingPanel(*toy, bases={"linear": None, "cosine": None})
        assert -1 < with_bases.figure.layout.xaxis.range[0] < 0
        with_one = TrainingPanel(*toy, bases={"linear": None})  # the other head has to learn it
        assert with_one.figure.layout.xaxis.range[0] < -1

    in_a_loop(main())


def test_panel_trains_what_its_switches_say_and_remembers_it(toy, with_a_gpu):
    async def main():
        panel = TrainingPanel(*toy)
        assert "not trained yet: replay" in panel.status.value
        panel.switches["cosine"].value = panel.switches["margin_ranking"].value = True
        panel.train_button.click()
        assert panel.train_button.disabled and panel.switches["cosine"].disabled
        await until(lambda: not panel.stop_button.disabled)
        await until(lambda: panel.stop_button.disabled)
        assert panel.status.value == "done: cosine+mr, 3 exemplars"
        (run,) = panel.runs.values()
        assert run.complete and run["config"]["margin_ranking"] and not run["config"]["less_forget"]
        config = dataclasses.replace(toy[0], cosine=True, margin_ranking=True)
        alone = runs.perform(config, toy[1], device="cpu")
        assert run.accuracies() == alone.accuracies()
        bars = panel.figure.data[-2:]
        drawn = np.concatenate([bar.y for bar in bars])
        assert drawn == pytest.approx(alone.arrays["weight_norms"][-1]) and len(bars[1].y) == 3
        assert f"{alone['last_accuracy']['cnn']:.1f} %" in panel.table.value

        panel.switches["cosine"].value = False
        assert "not trained yet" in panel.status.value
        panel.switches["cosine"].value = True
        assert "trained before" in panel.status.value
        assert np.concatenate([bar.y for bar in panel.figure.data[-2:]]) == pytest.approx(drawn)

    in_a_loop(main())


def test_panel_draws_what_it_trains_with_the_exemplars_asked_for(toy):
    async def main():
        panel = TrainingPanel(*toy)
        panel._redraw, panel._probe = lambda: True, lambda model, num_old: (1.0, 2.0, 3.0)
        panel.exemplars.value = 1
        assert panel.status.value.endswith(", 1 exemplar")
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        (run,) = panel.runs.values()
        assert [phase["exemplars"] for phase in run["phases"]] == [6, 9, 12]
        drawn = {trace.name: trace for trace in panel.figure.data if trace.type == "scatter"}
        steps = 2 * (3 + 2 + 2)  # epochs times batches: of 48, 30 and 33 images
        assert len(drawn["cross entropy"].y) == steps and min(drawn["cross entropy"].y) > 0
        assert not drawn["less forget"].visible and drawn["cross entropy"].visible
        for name, figure, looked in (
            ("old classes", "cnn_old", 1.0),
            ("new classes", "cnn_new", 2.0),
            ("all seen", "cnn", 3.0),
        ):
            points = dict(zip(drawn[name].x, drawn[name].y, strict=True))
            measured = {float(phase["phase"]): phase[figure] for phase in run["phases"]}
            on_the_way = {-0.5: looked, 0.5: looked, 1.5: looked}
            assert points == measured | on_the_way, name

    in_a_loop(main())


def test_panel_keeps_as_many_exemplars_as_asked_for_where_there_was_a_total(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], memory_total=36), toy[1])
        panel.exemplars.value = 2
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        (run,) = panel.runs.values()
        assert [phase["exemplars"] for phase in run["phases"]] == [12, 18, 24]

    in_a_loop(main())


def test_panel_leaves_the_class_balance_fine_tuning_out_of_its_curves(toy):
    """It is on other images, and its steps are counted from 1 again."""

    async def main():
        panel = TrainingPanel(
            dataclasses.replace(toy[0], balanced_finetune=True, balanced_epochs=3), toy[1]
        )
        panel._redraw, said = lambda: True, []
        panel.status.observe(lambda change: said.append(change["new"]), "value")
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        drawn = {trace.name: trace for trace in panel.figure.data if trace.type == "scatter"}
        x = drawn["cross entropy"].x
        assert len(x) == 2 * (3 + 3 + 4) and list(x) == sorted(x)  # epochs times batches
        assert list(drawn["all seen"].x) == [-0.5, 0, 0.5, 1, 1.5, 2]
        assert "phase 2: class-balance fine-tuning" in said

    in_a_loop(main())


def test_the_panel_s_table_has_the_numbers_of_its_runs(make_config, dataset):
    async def main():
        panel = TrainingPanel(make_config(base_classes=2, increment=2), dataset)  # six phases
        panel.runs = {name: recorded(name) for name in ("lucir", "icarl")}
        panel._draw_table()
        headings, *rows = (
            re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
            for row in panel.table.value.split("</tr>")[:-1]
        )
        for (name, run), cells in zip(panel.runs.items(), rows, strict=True):
            counts, norms = run.arrays["confusion_cnn"], run.arrays["weight_norms"][-1]
            right = [100 * np.trace(c) / c.sum() for c in counts]
            taken = 100 * counts[5, :90, 90:].sum() / counts[5, :90].sum()
            longer = 100 * norms[90:].mean() / norms[:50].mean() - 100
            assert dict(zip(headings, cells, strict=True)) == {
                "trained here": name,
                "phases": "5 of 5",
                "average": f"{np.mean(right):.1f} %",
                "last": f"{right[-1]:.1f} %",
                "old taken for new": f"{taken:.1f} %",
                "newest embeddings longer by": f"{longer:.0f} %",
            }

    in_a_loop(main())


def test_what_a_panel_has_trained_can_be_saved_and_loaded(toy, tmp_path):
    async def main():
        panel = TrainingPanel(*toy)
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        ((name, run),) = panel.runs.items()
        assert name == "replay, 3 exemplars" and run["method"] == "replay"
        runs.save(run, tmp_path)
        again = runs.load(tmp_path)
        assert again.accuracies() == run.accuracies() and not runs.stale(again)

    in_a_loop(main())


def test_panel_stopped_keeps_the_phases_that_are_done(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], epochs=20), toy[1])
        panel.train()
        await until(lambda: len(panel.runs) and len(next(iter(panel.runs.values()))["phases"]) == 2)
        panel.stop_button.click()
        await until(lambda: panel.stop_button.disabled)
        assert panel.status.value == "stopped after 1 new phase: replay, 3 exemplars"
        rows = {trace.name: len(trace.y) for trace in panel.figure.data if trace.type == "bar"}
        assert rows == {"old classes": 6, "new classes": 3}
        (run,) = panel.runs.values()
        assert len(run["phases"]) == 2 and not run.complete
        assert not panel.train_button.disabled and not panel.switches["cosine"].disabled

    in_a_loop(main())


def test_after_the_base_phase_its_classes_are_drawn_as_the_old_ones_that_they_are_now(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], epochs=20), toy[1])
        panel.train()
        await until(lambda: len(panel.runs))
        panel.stop_button.click()
        await until(lambda: panel.stop_button.disabled)
        assert len(next(iter(panel.runs.values()))["phases"]) == 1
        rows = {trace.name: len(trace.y) for trace in panel.figure.data if trace.type == "bar"}
        assert rows == {"old classes": 6, "new classes": 0}

    in_a_loop(main())


def test_panel_told_to_train_another_setting_keeps_the_phases_of_the_first(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], epochs=20), toy[1])
        panel.train()
        await until(lambda: len(panel.runs))
        panel.exemplars.value = 1
        panel.train()
        await until(lambda: len(panel.runs) == 2)
        panel.stop()
        await until(lambda: not panel.running)
        panel.exemplars.value = 3
        assert panel.status.value == "trained before: replay, 3 exemplars"
        (bars,) = (trace for trace in panel.figure.data[-2:] if len(trace.y))
        norms = panel.runs["replay, 3 exemplars"].arrays["weight_norms"][0]
        assert bars.y == pytest.approx(norms[: len(bars.y)])

    in_a_loop(main())


def test_panel_says_what_went_wrong_and_can_be_used_again(toy, monkeypatch):
    async def main():
        panel = TrainingPanel(*toy)
        monkeypatch.setattr("lucir_edu.trainer.objective", lambda *_: 1 / 0)
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        assert "ZeroDivisionError" in panel.status.value
        monkeypatch.undo()
        panel.train()
        await until(lambda: panel.stop_button.disabled)
        assert panel.status.value.startswith("done")

    in_a_loop(main())


def test_panel_trains_a_setting_anew_and_puts_back_what_it_had_if_it_is_stopped(toy):
    async def main():
        panel = TrainingPanel(*toy)
        panel.train()
        await until(lambda: not panel.running)
        (before,), table = panel.runs.values(), panel.table.value
        assert "<td" in table and before.complete
        panel.train()
        assert not panel.runs and not panel.table.value
        panel.stop()
        await until(lambda: not panel.running)
        assert list(panel.runs.values()) == [before] and panel.table.value == table
        panel.train()
        panel.train()
        panel.stop()
        await until(lambda: not panel.running)
        assert list(panel.runs.values()) == [before]
        panel.train()
        await until(lambda: not panel.running)
        (after,) = panel.runs.values()
        assert after is not before and after.complete

    in_a_loop(main())


def test_panel_tells_of_switches_that_do_not_go_with_its_config(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], increment=1), toy[1])
        panel.switches["margin_ranking"].value = True
        assert "top_k=2 hard negatives need at least as many" in panel.status.value
        panel.switches["margin_ranking"].value = False
        assert panel.status.value == "not trained yet: replay, 3 exemplars"

    in_a_loop(main())


def test_panel_begins_with_the_exemplars_of_its_config(toy):
    async def main():
        panel = TrainingPanel(dataclasses.replace(toy[0], exemplars_per_class=50), toy[1])
        assert panel.setting().exemplars_per_class == 50

    in_a_loop(main())


def test_every_control_of_the_panel_has_a_label(toy):
    async def main():
        panel = TrainingPanel(*toy)
        controls = [*panel.switches.values(), panel.exemplars, panel.train_button,
                    panel.stop_button]  # fmt: skip
        assert all(control.description for control in controls)

    in_a_loop(main())


# ---- What the notebooks do again and again ----


def test_learn_ends_after_the_phase_it_is_told(make_config, dataset):
    config = make_config(epochs=1)
    assert lessons.learn(config, dataset, until=1).measurement.phase == 1
    assert lessons.learn(config, dataset).measurement.phase == 2


def test_learn_goes_on_from_a_state_with_another_objective(make_config, dataset):
    config, asked = make_config(epochs=1), []
    base = lessons.learn(config, dataset, until=0)
    start = State(0, {name: value.clone() for name, value in base.model.state_dict().items()})

    def mine(config, output, targets, old, num_old):
        asked.append(num_old)
        return objective(config, output, targets, old, num_old)

    assert lessons.learn(config, dataset, start, until=1, objective=mine).measurement.phase == 1
    assert set(asked) == {6}, "the base phase was learnt again"


def test_look_gives_what_the_network_says_of_the_images_asked_for(make_config, dataset):
    config = make_config(epochs=1)
    end = lessons.learn(config, dataset, until=1)
    output, labels = lessons.look(end.model, config, dataset, range(9))
    found = 100 * (output.logits.argmax(dim=1) == labels).float().mean().item()
    assert found == pytest.approx(end.measurement.cnn) and len(labels) == 45
    _, new = lessons.look(end.model, config, dataset, range(6, 9))
    assert sorted(set(new.tolist())) == [6, 7, 8]
    kept, owners = lessons.look(end.model, config, dataset, end.memory.indices, "train")
    assert owners.tolist() == [c for c in range(9) for _ in range(3)] and len(kept.features) == 27


@pytest.fixture
def with_a_gpu(monkeypatch):
    """One that fails when it is used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "_is_too_old", lambda: False)
    assert hardware.pick_device("auto").type == "cuda"


def test_notebooks_compute_on_the_cpu_where_there_is_a_gpu_too(make_config, dataset, with_a_gpu):
    config = make_config(epochs=1)
    end = lessons.learn(config, dataset, until=0)
    network = lessons.restore(State(0, end.model.state_dict()), config, dataset)
    output, _ = lessons.look(network, config, dataset, range(6))
    assert Probe(config, dataset, 5)(network, 6)[2] > 0
    assert output.logits.device.type == "cpu"


def test_restore_gives_the_network_of_a_state(make_config, dataset):
    config = make_config(epochs=1)
    base = lessons.learn(config, dataset, until=0)
    network = lessons.restore(State(0, base.model.state_dict()), config, dataset)
    ours, _ = lessons.look(network, config, dataset, range(6))
    theirs, _ = lessons.look(base.model, config, dataset, range(6))
    assert torch.equal(ours.logits, theirs.logits)


def test_source_prints_the_function(capsys):
    lessons.source(losses.adaptive_lambda)
    printed = capsys.readouterr().out
    assert printed.startswith("def adaptive_lambda(") and "math.sqrt" in printed


# ---- The sphere ----


@pytest.fixture
def views(make_config, dataset, with_a_gpu):
    config = make_config(epochs=1, feature_dim=3)
    backbone = build(make_config(), 6, 3, seed=1).backbone
    return {
        name: sphere.record(dataclasses.replace(config, cosine=cosine), dataset, backbone, 2)
        for name, cosine in (("linear", False), ("cosine", True))
    }


def test_a_sphere_has_a_snapshot_per_phase_with_everything_of_length_one(views, config, dataset):
    names = stream.make(config, dataset).dataset.classes
    assert names != dataset.classes, "the order in which they come is not the data set's"
    for shots in views.values():
        assert [shot.classes for shot in shots] == [names[:6], names[:9], names]
        assert [len(shot.classes) for shot in shots] == [6, 9, 12]
        assert [shot.num_old for shot in shots] == [0, 6, 9]
        for shot in shots:
            assert shot.embeddings.shape == (len(shot.classes), 3)
            assert shot.labels.tolist() == sorted([*range(len(shot.classes))] * 2)
            for vectors in (shot.embeddings, shot.features):
                assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(vectors)))
            old, chosen = shot.side("old")
            assert list(old) == list(range(shot.num_old))
            assert chosen.sum() == 2 * shot.num_old


def test_the_sphere_s_picture_names_every_class_of_each_phase(views):
    figure, words = sphere.picture(views)
    assert [len(axes.texts) for axes in figure.axes] == [6, 9, 12, 6, 9, 12]
    shots = [shot for shots in views.values() for shot in shots]
    for axes, shot in zip(figure.axes, shots, strict=True):
        old, new = shot.num_old, len(shot.classes) - shot.num_old
        colours = [plots.BLUE] * old + [plots.ORANGE] * new
        assert [text.get_text() for text in axes.texts] == list(shot.classes)
        of_words = [plots.OF_WORDS.get(colour, colour) for colour in colours]
        assert [text.get_color() for text in axes.texts] == of_words
        assert [line.get_color() for line in axes.lines] == colours
        assert [line.get_linestyle() for line in axes.lines] == ["-"] * old + ["--"] * new
    last = views["cosine"][-1].measurement.cnn
    assert f"cosine phase 2: {last:.0f} % right" in " ".join(
        axes.get_title().replace(",", "") for axes in figure.axes
    )
    assert "linear:" in words and "cosine:" in words


def test_the_sphere_s_panel_shows_one_phase_at_a_time_and_turns(views):
    panel = SpherePanel(views)
    balls = [trace for trace in panel.figure.data if trace.mode == "lines"]
    for phase, seen in ((2, 12), (0, 6), (1, 9)):
        panel.phase.value = phase
        shown = [trace for trace in panel.figure.data if trace.visible]
        assert len(balls) == 2 and len(shown) == 2 + 2 * 4
        rays = [trace for trace in shown if "embeddings" in (trace.name or "")]
        letters = [letter for trace in rays for letter in trace.text if letter]
        assert sorted(letters) == sorted(2 * views["linear"][phase].classes)
        assert len(letters) == 2 * seen
        right = views["cosine"][phase].measurement.cnn
        assert f"cosine: {right:.0f} % of the test images right" in panel.words.value
    panel.turn.value, panel.height.value = 90, 0
    for scene in (panel.figure.layout.scene, panel.figure.layout.scene2):
        eye = scene.camera.eye
        assert (eye.x, eye.z) == pytest.approx((0, 0)) and eye.y > 1


def test_the_sphere_s_traces_and_words_have_the_letters_of_the_classes_they_name():
    names, chance = "DACBE", np.random.default_rng(0)
    shots = [
        sphere.Snapshot(names[:seen], num_old, chance.normal(size=(seen, 3)),
                        chance.normal(size=(2 * seen, 3)), np.arange(seen).repeat(2),
                        SimpleNamespace(cnn=50.0))
        for num_old, seen in ((0, 2), (2, 3), (3, 5))
    ]  # fmt: skip
    panel = SpherePanel({"one": shots})
    _, *drawn = panel.figure.data  # the first is the ball
    sides = [(phase, kind) for phase in range(3) for kind in ("old", "new")]
    for (phase, kind), dots, rays in zip(sides, drawn[::2], drawn[1::2], strict=True):
        shot = shots[phase]
        part = slice(shot.num_old) if kind == "old" else slice(shot.num_old, None)
        colour, dash, symbol = {
            "old": (plots.BLUE, "solid", "circle"), "new": (plots.ORANGE, "dash", "diamond")
        }[kind]  # fmt: skip
        assert dots.meta == rays.meta == phase
        assert (dots.name, rays.name) == (f"features of {kind} classes",
                                          f"embeddings of {kind} classes")  # fmt: skip
        assert [text for text in rays.text if text] == list(shot.classes[part])
        assert list(dots.text) == [letter for letter in shot.classes[part] for _ in range(2)]
        np.testing.assert_array_equal(np.c_[rays.x, rays.y, rays.z][1::3], shot.embeddings[part])
        both = shot.features.reshape(-1, 2, 3)[part].reshape(-1, 3)
        np.testing.assert_array_equal(np.c_[dots.x, dots.y, dots.z], both)
        assert (rays.line.color, rays.line.dash) == (colour, dash)
        assert (dots.marker.color, dots.marker.symbol) == (colour, symbol)
    for phase, said in enumerate(("none; new classes D A", "D A; new classes C",
                                  "D A C; new classes B E")):  # fmt: skip
        panel.phase.value = phase
        assert panel.words.value.endswith(f"Old classes {said}.")


# ---- The playground ----


def test_a_second_playground_shows_the_runs_of_the_first():
    async def main():
        one, other = (playground(state).explorer.bank for state in ("cos", "icarl"))
        assert one is not other and one["icarl", 0] is other["icarl", 0], "loaded twice"

    in_a_loop(main())


def test_the_live_panel_takes_over_what_was_switched_while_it_trained(monkeypatch):
    async def main():
        busy = [False]
        monkeypatch.setattr(TrainingPanel, "running", property(lambda panel: busy[0]))
        panel = playground("cos+lf+mr")

        def switches(side):
            return [side.switches[name].value for name in ("cosine", "less_forget")]

        recorded, live = panel.explorer.a, panel.live
        recorded.switches["cosine"].value = False
        assert switches(live) == [False, True]
        busy[0] = True
        recorded.switches["less_forget"].value = False
        assert switches(live) == [False, True], "moved beneath a training"
        busy[0] = False
        recorded.switches["cosine"].value = True
        assert switches(live) == switches(recorded) == [True, False]

    in_a_loop(main())
