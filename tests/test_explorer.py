"""The explorer without a browser: what its views draw, its string, its controls, and its page."""

import base64
import contextlib
import gzip
import itertools
import json
import math
import random
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given
from hypothesis import strategies as st

from lucir_edu import runs
from lucir_edu.config import UsageError, preset
from lucir_edu.datasets import load
from lucir_edu.datasets.images import FileSplit
from lucir_edu.lab import explorer, report, views
from lucir_edu.lab.explorer import Bank, Explorer, Shown, combination, parse
from tests import soak

EIGHT = [combination(*on) for on in itertools.product([False, True], repeat=3)]
SWITCHES = ("cosine", "less_forget", "margin_ranking")


@pytest.fixture(scope="module")
def bank():
    """Recorded runs: the eight combinations with two seeds, and iCaRL with one."""
    found = list(runs.load_bank("glyphs-b50-5"))
    return [
        run
        for run in found
        if (runs.label(run) in explorer.EIGHT and run["seed"] < 2)
        or (run["method"] == "icarl" and run["seed"] == 1)
    ]


@pytest.fixture(scope="module")
def glyphs():
    return load(preset())


def of(bank, setting, seed=0):
    return Bank(bank)[setting, seed]


# ---- Views ----


def test_accuracy_draws_what_was_measured_after_each_phase(bank):
    run = of(bank, "cos+lf+mr")
    traces, _, words = views.draw("accuracy", run, 2)
    drawn = {trace["name"]: trace["y"] for trace in traces}
    for name, key in (("all, by the head", "cnn"), ("all, by NME", "nme"),
                      ("old classes", "cnn_old"), ("new classes", "cnn_new")):  # fmt: skip
        assert drawn[name] == [phase[key] for phase in run["phases"]]
    now = run["phases"][2]
    assert f"After phase 2: {now['cnn']:.1f} % of all 70" in words
    assert f"old classes {now['cnn_old']:.1f} %" in words


@pytest.mark.parametrize(
    ("setting", "key"), [("-cos-lf-mr", "biases"), ("cos+lf+mr", "mean_logits")]
)
def test_norms_tell_old_from_new_by_colour_and_hatch(bank, setting, key):
    run = of(bank, setting)
    traces, layout, words = views.draw("norms", run, 1)
    for (old, new), values in zip((traces[:2], traces[2:]), ("weight_norms", key), strict=True):
        expected = run.arrays[values][1][:60]
        np.testing.assert_allclose(np.r_[old["y"], new["y"]], expected, atol=1e-4)
        assert (len(old["x"]), len(new["x"])) == (50, 10)
        assert old["marker"]["color"] != new["marker"]["color"]
        assert old["marker"]["pattern"] != new["marker"]["pattern"]
        assert [*old["customdata"], *new["customdata"]] == run["classes"][:60]
    assert ("has no biases" in layout["annotations"][1]["text"]) == (key == "mean_logits")
    length = run.arrays["weight_norms"][1]
    assert f"length: old {length[:50].mean():.2f}, new {length[50:60].mean():.2f}" in words


def test_confusion_draws_shares_and_where_images_go(bank):
    run = of(bank, "-cos-lf-mr")
    (matrix, right, own, other), _, words = views.draw("confusion", run, 5)
    counts = run.arrays["confusion_cnn"][5]
    assert matrix["z"].shape == (100, 100) and matrix["x"] == matrix["y"] == run["classes"]
    assert np.array_equal(matrix["z"], np.rint(2.0 * counts)), "fifty test images per class"
    assert right["y"] == [round(run["phases"][5][key], 1) for key in ("cnn_old", "cnn_new")]
    taken = counted(run, 5)
    assert other["y"] == [round(taken[key], 1) for key in ("old_to_new", "new_to_old")]
    for bars in (right, own, other):
        assert bars["text"] == [f"{y:.1f}" if y >= 6 else "" for y in bars["y"]]
    assert "" in other["text"], "a bar that is too low for its number"
    assert np.array([right["y"], own["y"], other["y"]]).sum(axis=0) == pytest.approx(100, abs=0.2)
    np.fill_diagonal(counts := counts.copy(), 0)
    worst = re.search(r"The commonest mistake: (.) read as (.)\.", words)
    a, b = (run["classes"].index(name) for name in worst.groups())
    assert counts[a, b] == counts.max()


def test_where_all_is_right_there_is_no_commonest_mistake(bank):
    run = of(bank, "cos+lf+mr")
    right = np.stack([np.diag(counts.sum(axis=1)) for counts in run.arrays["confusion_cnn"]])
    run = runs.Run(run, {**run.arrays, "confusion_cnn": right})
    words = views.draw("confusion", run, 5).words
    assert words.endswith("0 % taken for new. The commonest mistake: none.")


def test_angles_are_those_between_embeddings(bank):
    run = of(bank, "cos+lf-mr")
    (matrix, old, mixed), _, words = views.draw("angles", run, 1)
    degrees = run.arrays["embedding_angles"][1].astype(int)
    assert np.array_equal(matrix["z"], degrees[:60, :60])
    for trace, pairs in (
        (old, [degrees[a, b] for a in range(50) for b in range(a)]),
        (mixed, degrees[:50, 50:60].ravel()),
    ):
        assert sum(trace["y"]) == pytest.approx(100, abs=0.2)
        below = sum(y for x, y in zip(trace["x"], trace["y"], strict=True) if x < 90)
        assert below == pytest.approx(100 * np.mean(np.array(pairs) < 90), abs=0.2)
    names = re.search(r"new class: (.) and (.), (\d+)°", words)
    assert "After phase 1: two old classes are" in words
    (_, _, mixed), layout, first = views.draw("angles", run, 0)  # where no class is old
    assert re.fullmatch(r"After phase 0: two classes are \d+° apart on average\.", first)
    assert len(mixed["x"]) == len(mixed["y"]) == 0, "pairs that are not there"
    scale = layout["coloraxis"]
    assert (scale["cmin"], scale["cmax"]) == (0, 180), "no angle is beyond the scale"
    a, b = (run["classes"].index(name) for name in names.groups()[:2])
    assert a < 50 <= b < 60 and degrees[a, b] == int(names[3]) == degrees[:50, 50:60].min()


def test_features_are_shown_where_they_are_and_how_far_they_moved(bank):
    run = of(bank, "cos-lf-mr")
    (paths, old, new), _, words = views.draw("features", run, 2)
    positions = run.arrays["positions"].astype(float)
    np.testing.assert_allclose(
        np.c_[new["x"], new["y"]], positions[2, 60:70].reshape(-1, 2), atol=1e-3
    )
    assert len(old["x"]) == 60 * 3 and old["customdata"][:4] == ["A", "A", "A", "B"]
    np.testing.assert_allclose(paths["x"][:2], positions[[0, 2], 0, 0, 0], atol=1e-3)
    moved = np.linalg.norm(positions[2, :50] - positions[0, :50], axis=-1).mean()
    assert moved > 0.01 and f"moved by {moved:.2f} on average" in words


def test_losses_have_a_point_per_epoch_of_each_term(bank):
    run = of(bank, "cos+lf+mr")
    traces, _, words = views.draw("losses", run, 1)
    shown = {trace["name"]: trace for trace in traces if trace["visible"]}
    assert set(shown) == {"cross entropy", "less forget", "margin ranking"}
    means = run["phases"][1]["losses"]["less_forget"]
    x, y = (shown["less forget"][axis] for axis in "xy")
    assert [b for a, b in zip(x, y, strict=True) if 0 < a <= 1 and b is not None] == means
    assert f"less forget from {means[0]:.2f} to {means[-1]:.2f}" in words
    assert len([one for one in shown["cross entropy"]["y"] if one is not None]) == 9 * 6
    assert "fine-tuning" not in words


def test_the_class_balance_fine_tuning_is_no_part_of_a_phase_s_losses():
    (run,) = runs.find([runs.BANK / "glyphs-b50-5/cosine+lf+mr+balanced_finetune/seed0"])
    traces, _, words = views.draw("losses", run, 1)
    shown = {trace["name"]: trace for trace in traces if trace["visible"]}
    means = run["phases"][1]["losses"]["less_forget"]
    assert len(means) == 9 + 20
    x, y = (shown["less forget"][axis] for axis in "xy")
    assert [b for a, b in zip(x, y, strict=True) if 0 < a <= 1 and b is not None] == means[:9]
    assert f"less forget from {means[0]:.2f} to {means[8]:.2f}" in words
    assert words.endswith("(before the class-balance fine-tuning).")


def recorded(method):
    return runs.load(runs.BANK / f"glyphs-b50-5/{method}/seed0")


def counted(run, phase):
    """The numbers of a phase by plain counting in the run's arrays; None: there is nothing."""
    num_old, seen = run["bounds"][phase : phase + 2]
    last = len(run["phases"]) - 1
    one = {name: values[phase].astype(float) for name, values in run.arrays.items()}
    counts, angles = one["confusion_cnn"], one["embedding_angles"]

    def right(after, a, b, kind="cnn"):
        if a == b or f"confusion_{kind}" not in run.arrays:
            return None
        rows = run.arrays[f"confusion_{kind}"][after][a:b]
        return 100 * np.trace(rows[:, a:b]) / rows.sum()

    def mean(name, a, b):
        return one[name][a:b].mean() if name in one and a < b else None

    found = {
        "seen": seen,
        "all": right(phase, 0, seen),
        "nme": right(phase, 0, seen, "nme"),
        "old": right(phase, 0, num_old),
        "new": right(phase, num_old, seen),
        "average": np.mean([right(t, 0, run["bounds"][t + 1]) for t in range(last + 1)]),
        "forgotten": np.mean(
            [
                max(right(t, a, b) for t in range(group, last)) - right(last, a, b)
                for group, (a, b) in enumerate(itertools.pairwise(run["bounds"][:-1]))
            ]
        ),
        "old_to_new": None,
        "longer": None,
    }
    for name in ("weight_norms", "biases", "mean_logits"):
        found[f"{name}_old"] = mean(name, 0, num_old)
        found[f"{name}_new"] = mean(name, num_old, seen)
    if num_old:
        found["old_to_new"] = 100 * counts[:num_old, num_old:].sum() / counts[:num_old].sum()
        new = counts[num_old:seen]
        found["new_to_old"] = 100 * new[:, :num_old].sum() / new.sum()
        found["longer"] = 100 * found["weight_norms_new"] / found["weight_norms_old"] - 100
        found["apart"] = np.mean([angles[a, b] for a in range(num_old) for b in range(a)])
        found["between"] = angles[:num_old, num_old:seen].mean()
        moves = one["positions"][:50] - run.arrays["positions"][0, :50]
        found["moved"] = np.sqrt((moves**2).sum(axis=-1)).mean()
        across = [float(x) for x in run.arrays["positions"][..., 0].ravel() if np.isfinite(x)]
        found["wide"] = max(across) - min(across)
    for term, means in run["phases"][phase]["losses"].items():
        found[f"{term}_first"], found[f"{term}_last"] = means[0], means[-1]
    return found


@pytest.mark.parametrize(
    ("method", "phase"), [("lucir", 1), ("icarl", 4), ("linear+lf", 0), ("finetune", 5)]
)
def test_the_figures_of_a_comparison_are_counted_from_the_run(method, phase):
    run = recorded(method)
    own = counted(run, phase)
    rows = {
        "accuracy on all classes seen, head (%)": own["all"],
        "the same, NME (%)": own["nme"],
        "old classes (%)": own["old"],
        "new classes (%)": own["new"],
        "old taken for new (%)": own["old_to_new"],
        "new embeddings longer than old by (%)": own["longer"],
        "whole run: average incremental accuracy (%)": own["average"],
        "whole run: forgetting (points)": own["forgotten"],
    }
    shown, rows = (
        {name: math.nan if value is None else value for name, value in one.items()}
        for one in (views.figures(run, phase), rows)
    )
    assert shown == pytest.approx(rows, rel=1e-5, nan_ok=True)
    if method in ("lucir", "icarl"):
        assert len(set(rows.values())) == 8, "an exchange would not be seen"


@pytest.mark.parametrize(
    ("view", "method", "phase", "sentence"),
    [
        ("accuracy", "lucir", 3, "{all:.1f} % of all {seen} classes' images are right, by NME "
         "{nme:.1f} %; old classes {old:.1f} %, new ones {new:.1f} %."),
        ("accuracy", "finetune", 2, "{all:.1f} % of all {seen} classes' images are right; old "
         "classes {old:.1f} %, new ones {new:.1f} %."),
        ("norms", "linear+lf", 2, "length: old {weight_norms_old:.2f}, new {weight_norms_new:.2f} "
         "on average; bias: old {biases_old:.2f}, new {biases_new:.2f} on average."),
        ("norms", "lucir", 2, "length: old {weight_norms_old:.2f}, new {weight_norms_new:.2f} on "
         "average; mean logit: old {mean_logits_old:.2f}, new {mean_logits_new:.2f} on average."),
        ("norms", "icarl", 0, "length: {weight_norms_new:.2f} on average; bias: {biases_new:.2f} "
         "on average."),
        ("confusion", "lucir", 4, "of new classes' images {new:.0f} % are right and "
         "{new_to_old:.0f} % taken for old ones; of old classes' {old:.0f} % are right and "
         "{old_to_new:.0f} % taken for new. "),
        ("angles", "icarl", 3, "two old classes are {apart:.0f}° apart on average, an old and a "
         "new one {between:.0f}°. "),
        ("features", "lucir", 3, "After phase 3: 240 test images. Those of the base classes have "
         "moved by {moved:.2f} on average since the base phase, where the plane is {wide:.2f} "
         "wide."),
        ("losses", "lucir", 2, "cross entropy from {cross_entropy_first:.2f} to "
         "{cross_entropy_last:.2f}; less forget from {less_forget_first:.2f} to "
         "{less_forget_last:.2f}; margin ranking from {margin_ranking_first:.2f} to "
         "{margin_ranking_last:.2f}."),
    ],
)  # fmt: skip
def test_the_numbers_of_a_view_s_words_are_counted_from_the_run(view, method, phase, sentence):
    run = recorded(method)
    expected = sentence.format(**counted(run, phase))
    assert expected in views.draw(view, run, phase).words
    shown = re.findall(r"-?[\d.]*\d", expected)
    assert len(set(shown)) == len(shown), "an exchange would not be seen"


@pytest.mark.parametrize("view", views.VIEWS)
def test_every_view_draws_every_phase_of_every_run_alike(bank, view):
    shapes = set()
    for run, phase, wide in itertools.product(bank, range(6), (True, False)):
        traces, layout, words = views.draw(view, run, phase, wide)
        shapes.add(tuple(trace["type"] for trace in traces))
        assert len(words) > 30 and layout["height"] <= 560
        domains = [
            (layout[f"xaxis{n}"]["domain"], layout[f"yaxis{n}"]["domain"])
            for n in ("", "2")
            if f"xaxis{n}" in layout
        ]
        if len(domains) == 2:
            (left, above), (right, below) = domains
            assert left[1] < right[0] if wide else below[1] < above[0], "plots overlap"
    assert len(shapes) == 1


def test_two_drawings_side_by_side_have_the_same_ranges(bank):
    layouts = [
        views.draw("norms", of(bank, name), 5).layout for name in ("-cos-lf-mr", "-cos+lf+mr")
    ]
    tops = [layout["yaxis"]["range"][1] for layout in layouts]
    assert tops[0] != tops[1]
    views.align(layouts)
    assert [layout["yaxis"]["range"] for layout in layouts] == [[0, max(tops)]] * 2
    assert layouts[0]["yaxis2"]["range"] == layouts[1]["yaxis2"]["range"]


def test_a_bias_and_a_mean_logit_have_no_scale_in_common(bank):
    layouts = [
        views.draw("norms", of(bank, name), 5).layout for name in ("-cos-lf-mr", "cos-lf-mr")
    ]
    before = [layout["yaxis2"]["range"] for layout in layouts]
    views.align(layouts)
    assert [layout["yaxis2"]["range"] for layout in layouts] == before
    assert layouts[0]["yaxis"]["range"] == layouts[1]["yaxis"]["range"]


# ---- The string ----


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", Shown()),
        ("cos+lf-mr/seed3/phase4/norms", Shown("cos+lf-mr", None, 3, 4, "norms")),
        ("norms/cos", Shown("cos-lf-mr", None, 0, 5, "norms")),
        ("#-cos+mr~icarl/phase0", Shown("-cos-lf+mr", "icarl", 0, 0)),
        ("+lf+cos", Shown("cos+lf-mr")),
        (' #"cos+lf-mr" ', Shown("cos+lf-mr")),
        ("lucir,lambda_rule=paper/seed1", Shown("lucir lambda_rule=paper", None, 1)),
    ],
)
def test_a_string_names_a_view(text, shown):
    assert parse(text) == shown


@given(
    st.sampled_from([*EIGHT, "icarl", "lucir lambda_rule=paper milestones=0.3;0.7"]),
    st.sampled_from([None, *EIGHT, "joint"]),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(list(views.VIEWS)),
)
def test_what_is_shown_can_be_written_and_read(a, b, seed, phase, view):
    shown = Shown(a, b, seed, phase, view)
    assert parse(str(shown)) == shown and " " not in str(shown)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nroms", r"'nroms' is not recorded \(did you mean 'norms'\?\)"),
        ("cos+lf/nroms", r"names 'nroms' beside a setting \(did you mean 'norms'\?\)"),
        ("cos+fl", r"'cos\+fl' is not recorded"),
        ("icral", r"did you mean 'icarl'"),
        ("cos~lf~mr", "more than two settings"),
        ("seed-1", "'seed-1' is not recorded"),
        ("cos+lf+mr~", "lacks a setting beside the ~"),
        ("-cos+cos", "'-cos.cos' names a component twice"),
        ("cos,lf", "'cos,lf' is not recorded"),
        ("cos/icarl", "names 'icarl' beside a setting; to compare, write A~B"),
        ("norms/angles", "names several views"),
        ("seed1/cos/seed0", "names several seeds"),
    ],
)
def test_a_wrong_string_is_answered_in_one_line_and_changes_nothing(bank, glyphs, text, words):
    panel = Explorer(bank, glyphs, "cos/norms")
    with pytest.raises(UsageError, match=words) as error:
        panel.shown = text
    assert "\n" not in str(error.value)
    panel.link.value = text
    assert re.search(words, panel.words.value.replace("&#x27;", "'"))
    assert panel.shown == parse("cos/norms/phase5") and panel.a.switches["cosine"].value


def test_what_a_string_leaves_out_stays_as_it_is(bank, glyphs):
    panel = Explorer(bank, glyphs, "cos~icarl/seed1/phase2/norms")
    panel.link.value = "angles"
    assert panel.shown == Shown("cos-lf-mr", "icarl", 1, 2, "angles")
    panel.link.value = "mr"
    assert panel.shown == Shown("-cos-lf+mr", None, 1, 2, "angles")
    assert "is not recorded" not in panel.words.value


def test_at_first_the_last_phase_that_there_is_is_shown(bank, glyphs):
    short = Explorer([in_three_phases(of(bank, "cos+lf+mr"))], glyphs, "norms")
    assert (short.shown.phase, short.shown.view) == (2, "norms")
    assert "is not recorded" not in short.words.value


def test_images_on_disk_have_no_thumbnails(bank, glyphs):
    split = FileSplit(np.array(["a.png"]), torch.zeros(1, dtype=torch.long))
    disk = replace(glyphs, test=split, train=split, mean=(0.5,) * 3, std=(0.3,) * 3)
    panel = Explorer(bank, disk, "confusion")
    (figure,) = panel.figures
    panel._on_hover(figure.data[0], SimpleNamespace(point_inds=[(3, 71)]), None)
    names = [bank[0]["classes"][i] for i in (3, 71)]
    assert panel.hovered.value.strip().startswith("{} read as {}: ".format(*names))


def test_a_seed_or_phase_that_is_not_recorded_is_said(bank, glyphs):
    panel = Explorer(bank, glyphs, "cos/seed7/phase9")
    assert panel.shown == Shown("cos-lf-mr", None, 1, 5)
    assert (
        "seed7/phase9/accuracy is not recorded; shown: cos-lf-mr/seed1/phase5" in panel.words.value
    )


# ---- Controls ----


def assert_shows(panel, bank):
    """All that is seen agrees with the controls and with the bank."""
    shown = panel.shown
    settings = [name for name in (shown.a, shown.b) if name]
    assert panel.a.value == shown.a and panel.compare.value == (shown.b is not None)
    assert (panel.phase.value, panel.seed.value) == (shown.phase, shown.seed)
    assert (panel.view.value, panel.link.value) == (shown.view, str(shown))
    assert len(panel.figures) == len(settings)
    drawings = [
        views.draw(shown.view, of(bank, name, shown.seed), shown.phase, len(settings) == 1)
        for name in settings
    ]
    views.align([drawing.layout for drawing in drawings])
    for figure, drawing in zip(panel.figures, drawings, strict=True):
        for trace, expected in zip(figure.data, drawing.traces, strict=True):
            assert trace.name == expected.get("name")
            for axis in "xyz":
                if axis in expected:
                    np.testing.assert_array_equal(trace[axis], np.asarray(expected[axis]))
        assert len(figure.layout.shapes) == len(drawing.layout.get("shapes", ()))
        if "range" in drawing.layout["yaxis"]:
            assert list(figure.layout.yaxis.range) == drawing.layout["yaxis"]["range"]


def test_each_switch_shows_its_run_at_once(bank, glyphs):
    panel = Explorer(bank, glyphs, "-cos/norms/phase2")
    assert_shows(panel, bank)
    for name, expected in zip(SWITCHES, ("cos-lf-mr", "cos+lf-mr", "cos+lf+mr"), strict=True):
        panel.a.switches[name].value = True
        assert panel.shown == Shown(expected, None, 0, 2, "norms")
        assert_shows(panel, bank)
    for view in views.VIEWS:
        panel.view.value = view
        assert_shows(panel, bank)
    panel.seed.value, panel.phase.value = 1, 0
    assert panel.shown == Shown("cos+lf+mr", None, 1, 0, "losses")
    assert_shows(panel, bank)


def test_two_settings_side_by_side_with_their_difference(bank, glyphs):
    panel = Explorer(bank, glyphs, "cos+lf+mr/confusion")
    assert panel.b.layout.display == "none"
    panel.compare.value = True
    panel.b.switches["cosine"].value = False
    panel.b.switches["margin_ranking"].value = True
    assert panel.shown.b == "-cos-lf+mr" and panel.b.layout.display is None
    assert_shows(panel, bank)
    titles = [figure.layout.annotations[0].text for figure in panel.figures]
    assert [title[:10] for title in titles] == ["<b>A</b>: ", "<b>B</b>: "]
    a, b = (of(bank, name)["phases"][5]["cnn"] for name in ("cos+lf+mr", "-cos-lf+mr"))
    row = re.search(r"head \(%\)</td>.*?</tr>", panel.table.value)[0]
    assert re.findall(r">([-+\d.]+)</td>", row) == [f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"]


def test_other_settings_are_folded_and_only_recorded_seeds_are_offered(bank, glyphs):
    panel = Explorer(bank, glyphs)
    panel.a.other.value = "icarl"
    assert panel.shown.a == "icarl" and panel.seed.options == (1,)
    assert all(box.disabled for box in panel.a.switches.values())
    assert_shows(panel, bank)
    panel.a.other.index = 0
    assert panel.shown.a == "cos+lf+mr" and panel.seed.options == (0, 1)
    assert not any(box.disabled for box in panel.a.switches.values())
    panel.a.other.value = "icarl"
    panel.link.value = "cos"
    assert panel.a.other.index == 0, "the list says what is shown"
    panel.a.more.value, panel.a.other.value = True, "icarl"
    panel.a.more.value = False
    assert panel.shown.a == "cos-lf-mr", "folded away, and yet in force"


def test_a_combination_that_is_not_recorded_is_said_and_the_way_back_is_open(bank, glyphs):
    some = [run for run in bank if runs.label(run) in ("replay", "lucir")]
    panel = Explorer(some, glyphs)
    panel.a.switches["cosine"].value = False
    assert "&#x27;-cos+lf+mr&#x27; is not recorded" in panel.words.value
    panel.a.switches["cosine"].value = True
    assert_shows(panel, bank)
    assert "After phase 5" in panel.words.value


def test_a_second_setting_without_a_seed_in_common_is_not_dropped_without_a_word(bank, glyphs):
    chosen = {("lucir", 0), ("replay", 1)}
    two = [run for run in bank if (runs.label(run), run["seed"]) in chosen]
    panel = Explorer(two, glyphs)
    panel.compare.value = True  # B's switches are off
    assert panel.shown == Shown("cos+lf+mr") and not panel.compare.value
    assert "cos+lf+mr~-cos-lf-mr/seed0/phase5/accuracy is not recorded" in panel.words.value


def test_a_second_setting_can_be_chosen_where_its_first_is_not_recorded(bank, glyphs):
    some = [run for run in bank if runs.label(run) in ("cosine", "lucir")]
    panel = Explorer(some, glyphs)
    panel.compare.value = True  # B's switches are off, and plain replay is not among them
    assert "is not recorded" in panel.words.value
    assert panel.b.layout.display is None, "no B can be chosen"
    panel.b.switches["cosine"].value = True
    assert panel.shown == Shown("cos+lf+mr", "cos-lf-mr")
    assert_shows(panel, bank)


def test_settings_that_all_runs_share_are_not_in_their_names(bank, glyphs):
    def hurried(run):
        return runs.Run({**run, "config": {**run["config"], "epochs": 5, "lr": 0.2}}, run.arrays)

    some = [hurried(run) for run in bank if run["seed"] == 1]
    assert "epochs=5" in runs.label(some[0])
    assert sorted(Bank(some).settings) == sorted([*EIGHT, "icarl"])
    panel = Explorer(some, glyphs)
    panel.a.switches["cosine"].value = False
    assert panel.shown.a == "-cos+lf+mr"


def test_a_string_that_names_another_setting_unfolds_the_list_of_them(bank, glyphs):
    panel = Explorer(bank, glyphs, "icarl")
    assert panel.a.more.value and panel.a.other.value == "icarl"
    assert not Explorer(bank, glyphs, "cos").a.more.value


def test_a_typed_string_moves_the_controls(bank, glyphs):
    panel = Explorer(bank, glyphs)
    panel.link.value = "-cos+lf~icarl/seed1/phase2/angles"
    assert panel.shown == Shown("-cos+lf-mr", "icarl", 1, 2, "angles")
    assert panel.b.other.value == "icarl"
    assert_shows(panel, bank)


def test_a_storm_of_toggles_from_two_threads_ends_in_the_last_state(bank, glyphs):
    """Kernels may run callbacks on several threads at once."""
    explorers = [Explorer(bank, glyphs), Explorer(bank, glyphs)]

    def storm(number):
        panel, chance = explorers[number % 2], random.Random(number)
        for _ in range(50):
            with contextlib.suppress(traitlets.TraitError):  # a seed that has just gone
                soak.toggle(panel, chance)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storm, range(4)))
    for panel in explorers:
        assert_shows(panel, bank)


def test_pointing_at_a_cell_shows_both_classes(bank, glyphs):
    panel = Explorer(bank, glyphs, "confusion")
    (figure,) = panel.figures

    panel._on_hover(figure.data[0], SimpleNamespace(point_inds=[(3, 71)]), None)
    names = [bank[0]["classes"][i] for i in (3, 71)]
    assert re.findall(r'alt="(.)"', panel.hovered.value) == names
    assert [menu.value for menu in panel.cell] == names
    panel.view.value = "norms"
    assert panel.hovered.layout.display == panel.cell[0].layout.display == "none"


def test_a_cell_can_be_chosen_by_its_row_and_column_and_stays_chosen(bank, glyphs):
    panel = Explorer(bank, glyphs, "cos+lf+mr~icarl/seed1/phase5/confusion")
    row, column = (bank[0]["classes"][i] for i in (3, 71))
    assert panel.hovered.value == ""
    panel.cell[0].value = row
    assert panel.hovered.value == "", "no column yet"
    panel.cell[1].value = column

    def shares(phase):
        counts = [of(bank, s, 1).arrays["confusion_cnn"][phase] for s in ("cos+lf+mr", "icarl")]
        a, b = (round(100 * float(count[3, 71]) / count[3].sum()) for count in counts)
        return f"A: {row} read as {column}: {a} %; B: {row} read as {column}: {b} %"

    assert panel.hovered.value.endswith(f" {shares(5)}")
    assert re.findall(r'alt="(.)"', panel.hovered.value) == [row, column]
    panel.phase.value = 4
    assert panel.hovered.value.endswith(f" {shares(4)}")
    panel.shown = "cos+lf+mr/angles"
    degrees = of(bank, "cos+lf+mr", 1).arrays["embedding_angles"][4][3, 71]
    assert panel.hovered.value.endswith(f" {row} and {column}: {degrees}°")
    panel.phase.value = 1  # the column's class has not come yet
    assert [menu.value for menu in panel.cell] == [row, "–"] and panel.hovered.value == ""


def in_another_order(run):
    """The same figures, with the classes of the second half first."""
    turned = [*range(50, 100), *range(50)]
    names = {key: [run[key][i] for i in turned] for key in ("classes", "class_order")}
    return runs.Run({**run, **names, "config": {**run["config"], "order_seed": 7}}, run.arrays)


def test_cells_of_runs_with_different_classes_are_those_that_both_have(bank, glyphs):
    one = of(bank, "cos+lf+mr", 0)
    panel = Explorer([one, in_another_order(one)], glyphs, "cos+lf+mr/phase3/confusion")
    classes = one["classes"]
    panel.cell[0].value, panel.cell[1].value = classes[40], classes[71]
    assert panel.hovered.value
    panel.link.value = "cos+lf+mr~lucir,order_seed=7"  # B has learned 50 to 99 and 0 to 29
    assert "B − A" in panel.table.value and panel.link.value.startswith("cos+lf+mr~lucir,order")
    both = [*classes[:30], *classes[50:80]]
    assert sorted(panel.cell[0].options) == sorted(["–", *both])
    assert panel.cell[0].value == "–" and not panel.hovered.value
    panel._on_hover(panel.figures[1].data[0], SimpleNamespace(point_inds=[(40, 3)]), None)
    assert panel.cell[0].value == "–", "A has not learned it"
    panel._on_hover(panel.figures[1].data[0], SimpleNamespace(point_inds=[(2, 60)]), None)
    assert [menu.value for menu in panel.cell] == [classes[52], classes[10]]
    shares = [
        round(100 * float(one.arrays["confusion_cnn"][3][i, j])
              / one.arrays["confusion_cnn"][3][i].sum()) for i, j in ((52, 10), (2, 60))
    ]  # fmt: skip
    said = f"{classes[52]} read as {classes[10]}"
    assert panel.hovered.value.endswith(f"A: {said}: {shares[0]} %; B: {said}: {shares[1]} %")


def test_runs_of_several_presets_are_not_mixed(bank, glyphs):
    other = runs.Run({**bank[0], "preset": "another"}, bank[0].arrays)
    with pytest.raises(UsageError, match=r"several presets .another, glyphs-b50-5. cannot be"):
        Explorer([bank[0], other], glyphs)


def test_a_class_s_name_is_not_taken_for_a_part_of_the_words():
    trace = {"x": ["%{x}", "b"], "y": ["%{x}", "b"], "z": np.eye(2, dtype=np.uint8),
             "hovertemplate": "%{y} read as %{x}: %{z} %<extra></extra>"}  # fmt: skip
    assert views.cell(trace, "%{x}", "b") == "%{x} read as b: 0 %"


def test_every_control_has_a_label(bank, glyphs):
    panel = Explorer(bank, glyphs)
    for control in (*panel.a.switches.values(), *panel.b.switches.values(), panel.a.other,
                    panel.compare, panel.view, panel.phase, panel.seed, *panel.cell,
                    panel.link):  # fmt: skip
        assert control.description


def test_runs_without_the_data_for_a_view_are_shown_without_it(bank, glyphs):
    poor = [
        runs.Run(run, {k: v for k, v in run.arrays.items() if k != "positions"}) for run in bank
    ]
    least = [
        runs.Run(run, {k: run.arrays[k] for k in ("confusion_cnn", "weight_norms")}) for run in bank
    ]
    assert views.known(least[0]) == ["accuracy", "confusion", "losses"]
    panel = Explorer(poor, glyphs)
    assert "features" not in [name for _, name in panel.view.options]
    with pytest.raises(UsageError, match="no recorded data for features; choose accuracy, norms"):
        panel.shown = "features"
    with pytest.raises(UsageError, match="no recorded run"):
        Explorer([], glyphs)


def in_three_phases(whole):
    """A run as if its later classes had come in two phases."""
    config = {**whole["config"], "increment": 25}
    phases = [
        {**p, "classes_seen": c} for p, c in zip(whole["phases"], (50, 75, 100), strict=False)
    ]
    arrays = {name: values[[0, 5, 5]] for name, values in whole.arrays.items()}
    short = {**whole, "config": config, "bounds": [0, 50, 75, 100], "phases": phases}
    return runs.Run(short, arrays)


def test_a_setting_of_fewer_phases_is_shown_up_to_its_last(bank, glyphs):
    whole = of(bank, "cos+lf+mr")
    panel = Explorer([whole, in_three_phases(whole)], glyphs, "lucir,increment=25/phase5")
    assert panel.shown.phase == panel.phase.value == panel.phase.max == 2
    for _, view in panel.view.options:
        panel.shown = f"cos+lf+mr~lucir,increment=25/phase4/{view}"
        assert panel.shown.phase == panel.phase.max == 2 and len(panel.figures) == 2
    panel.shown = "cos+lf+mr/phase5"
    assert panel.phase.value == panel.phase.max == 5


# ---- The page ----


def test_the_page_has_the_drawings_of_every_run(bank, tmp_path):
    report.write(bank, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    packed = re.search(r'<script type="application/gzip">([\w+/=]+)</script>', page)[1]
    content = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert content["seeds"] == {**{name: [0, 1] for name in EIGHT}, "icarl": [1]}
    assert len(content["runs"]) == 17 and len(content["pictures"]) == 100
    run = of(bank, "cos+lf-mr", 1)
    found = content["runs"]["cos+lf-mr/1"]
    assert found["figures"][2] == pytest.approx(views.figures(run, 2))
    traces, wide, narrow, words = found["drawings"]["norms"][2]
    assert traces[0]["y"] == pytest.approx(run.arrays["weight_norms"][2][:60].tolist(), abs=1e-4)
    assert words == views.draw("norms", run, 2).words and wide["height"] < narrow["height"]
    assert '<option value="icarl">distillation (icarl)</option>' in page
