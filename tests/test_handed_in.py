"""Handed-in notebooks are graded exercise by exercise, whatever is in them."""

import csv
import json
import os
import shutil
from pathlib import Path

import nbformat
import pytest

from lucir_edu import cli
from lucir_edu.lab import checks, handed_in

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
RIGHT = "    return base * (num_old / num_new) ** 0.5"
STUB = "def adaptive_lambda(base, num_old, num_new):\n    raise NotImplementedError"
SOLVED = STUB.replace("    raise NotImplementedError", RIGHT)
POWERED = SOLVED.replace("0.5", "power")
CHECK = "adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)"


@pytest.fixture
def hand_in(tmp_path):
    """Write a notebook of these code cells."""

    def write(*cells, name="ann.ipynb"):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        (tmp_path / name).write_text(json.dumps(notebook))  # nbformat refuses half a character
        return tmp_path / name

    return write


def verdicts(path):
    return {one.exercise: one.verdict for one in handed_in.grade(path)}


def reasons(path):
    return {one.exercise: one.because for one in handed_in.grade(path)}


def test_solved_and_unsolved_notebooks():
    name = "04_margin_ranking.ipynb"
    exercises = ["hardest_negatives", "margin_ranking", "angles"]
    assert verdicts(NOTEBOOKS / "solved" / name) == dict.fromkeys(exercises, "right")
    assert verdicts(NOTEBOOKS / name) == dict.fromkeys(exercises, "not written yet")


def test_the_course_s_exercises_are_those_of_its_notebooks():
    for stem, group in checks.NOTEBOOKS.items():
        text = (NOTEBOOKS / "sources" / f"{stem}.py").read_text()
        places = [text.index(f" = checks.{exercise.name}(") for exercise in group]
        assert places == sorted(places)


def test_each_exercise_gets_its_verdict_and_the_first_thing_that_is_wrong(hand_in):
    path = hand_in(
        "import torch\nfrom lucir_edu import losses\nfrom lucir_edu.lab import checks",
        "def score_distillation(cosines_old, teacher_cosines):\n"
        "    return losses.score_distillation(cosines_old, teacher_cosines)",
        "def less_forget(features, old_features):\n"
        "    return 1 - torch.cosine_similarity(features, old_features).mean()",
        "less_forget = checks.less_forget(less_forget)",
    )
    assert verdicts(path) == {
        "score_distillation": "right", "less_forget": "not yet right",
        "adaptive_lambda": "not written yet",
    }  # fmt: skip
    because = reasons(path)
    assert because["score_distillation"] == (
        "the package's own does it: `losses.score_distillation`"
    )
    assert "a gradient flows into `old_features`" in because["less_forget"]
    assert because["adaptive_lambda"] == ""


def test_where_the_package_s_own_does_it_it_is_said_too(hand_in):
    path = hand_in(
        "from lucir_edu.losses import adaptive_lambda as own",
        "def adaptive_lambda(base, num_old, num_new, own=own):\n"
        "    return own(base, num_old, num_new)",
        CHECK,
    )
    assert verdicts(path)["adaptive_lambda"] == "right"
    said = "the package's own does it: `losses.adaptive_lambda`"
    assert reasons(path)["adaptive_lambda"] == said


def test_what_the_functions_need_is_there_and_nothing_else_is_run(hand_in, tmp_path):
    trained = tmp_path / "trained"
    path = hand_in(
        "%matplotlib inline\nfrom lucir_edu.lab import checks\nimport math",
        "HALF = 0.5\nroot = lambda value: math.pow(value, HALF)",
        f"open({str(trained)!r}, 'w')\nnetwork = open({str(trained)!r}, 'w')",
        "from functools import partial\nratio = partial(lambda one, other: one / other)\n"
        "def adaptive_lambda(base, num_old, num_new):\n"
        "    return base * root(ratio(num_old, num_new))",
        "adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)",
    )
    assert verdicts(path)["adaptive_lambda"] == "right"
    assert not trained.exists()


def test_an_exercise_may_be_assigned_and_timed_and_values_named_together(hand_in):
    path = hand_in(
        "import functools\nfrom lucir_edu.lab import checks",
        "HALF, ONE = 0.5, 1\nSAME: float = 1.0",
        "def weight(power, base, num_old, num_new):\n"
        "    return base * (num_old / num_new) ** power * ONE * SAME",
        "%%time\nadaptive_lambda = functools.partial(weight, HALF)",
        "adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)",
    )
    assert verdicts(path)["adaptive_lambda"] == "right"


def test_a_check_in_the_same_cell_does_not_put_the_package_s_in_its_place(hand_in):
    path = hand_in(
        "from lucir_edu.lab import checks",
        "def adaptive_lambda(base, num_old, num_new):\n    return base * num_old\n"
        "adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)\nchecks.angles(None)",
    )
    assert verdicts(path)["adaptive_lambda"] == "not yet right"


@pytest.mark.parametrize(
    "check",
    [
        f"if True:\n    {CHECK}", f"import io\nwith io.StringIO():\n    {CHECK}", "a = " + CHECK,
        "adaptive_lambda, a = checks.adaptive_lambda(adaptive_lambda), 1", CHECK + "\n" + CHECK,
        "adaptive_lambda = checks.adaptive_lambda(submission=adaptive_lambda)",
        "assert checks.adaptive_lambda(adaptive_lambda)",
    ],
    ids=["in an if", "in a with", "two targets", "a pair", "twice", "by name", "in an assertion"],
)  # fmt: skip
def test_what_is_wrong_is_told_wherever_the_check_stands(hand_in, check):
    path = hand_in(SOLVED.replace("0.5", "2"), check)
    assert verdicts(path)["adaptive_lambda"] == "not yet right"
    assert "value: off by" in reasons(path)["adaptive_lambda"]


@pytest.mark.parametrize(
    "patch",
    ["grading.same = lambda *_: True", "grading.Exercise.verdict = lambda *_: ('right', [])"],
)
@pytest.mark.parametrize("where", ["a cell", "the function"])
def test_who_changes_the_grader_is_graded_like_all_others(hand_in, patch, where):
    wrong = SOLVED.replace("0.5", "2")
    cells = [f"{patch}\n{wrong}"]
    if where == "the function":
        cells = [wrong.replace(RIGHT, f"    {patch}\n{RIGHT}")]
    path = hand_in("from lucir_edu.lab import grading", *cells, CHECK)
    assert verdicts(path)["adaptive_lambda"] == "not yet right"


def test_a_check_within_a_function_that_is_checked_gives_no_grade(hand_in):
    path = hand_in(SOLVED.replace(RIGHT, f"    checks.angles(None)\n{RIGHT}"), CHECK)
    assert verdicts(path)["adaptive_lambda"] == "right"
    assert verdicts(path)["angles"] == "not written yet"


def test_what_is_built_on_another_exercise_is_graded_by_itself(hand_in):
    solved = (NOTEBOOKS / "sources" / "04_margin_ranking.py").read_text()
    margin_ranking = solved[solved.index("def margin_ranking(") :].partition("    ### END")[0]
    path = hand_in(
        "def hardest_negatives(cosines, num_old, top_k):\n    raise NotImplementedError",
        margin_ranking,
        "checks.margin_ranking(margin_ranking)",
    )
    assert "hardest_negatives(" in margin_ranking
    assert verdicts(path) == {
        "hardest_negatives": "not written yet", "margin_ranking": "right",
        "angles": "not written yet",
    }  # fmt: skip


def test_a_definition_that_raises_is_told(hand_in):
    path = hand_in("class CosineHead(nn.Modul):\n    pass", "checks.CosineHead(CosineHead)")
    assert reasons(path)["CosineHead"] == ("code cell 1 raises NameError: name 'nn' is not defined")


def test_the_line_that_raises_is_quoted(hand_in):
    path = hand_in(
        "from lucir_edu.lab import checks",
        "def adaptive_lambda(base, num_old, num_new):\n    return bass * num_old",
        "checks.adaptive_lambda(adaptive_lambda)",
    )
    (one,) = (g for g in handed_in.grade(path) if g.exercise == "adaptive_lambda")
    assert "raises NameError: name 'bass' is not defined" in "\n".join(one.lines)
    assert "in line 2 of adaptive_lambda: return bass * num_old" in "\n".join(one.lines)


def test_a_cell_that_is_no_python_is_named(hand_in):
    path = hand_in(
        "from lucir_edu.lab import checks",
        "def angles(weight):\n    return (weight",
        "angles = checks.angles(angles)",
    )
    assert verdicts(path)["angles"] == "not written yet"
    assert reasons(path)["angles"] == "code cell 2 is not Python: '(' was never closed (line 2)"


@pytest.mark.parametrize(
    "cells",
    [
        [STUB, f"def mine(base, num_old, num_new):\n{RIGHT}",
         "adaptive_lambda = checks.adaptive_lambda(mine)"],
        [STUB, "adaptive_lambda = checks.adaptive_lambda(lambda b, o, n: b * (o / n) ** 0.5)"],
        [SOLVED, CHECK, STUB],
        [SOLVED, CHECK,
         "def adaptive_lambda(base, num_old, num_new):\n    return 0.0"],
        ["def adaptive_lambda(base, num_old, num_new):\n    return 0.0", CHECK,
         SOLVED],
        ["if True:\n    def adaptive_lambda(base, num_old, num_new):\n    " + RIGHT, CHECK],
        ["\n%%time\n" + SOLVED, CHECK],
        ["power = pow", "import functools\nroot = functools.partial(power, exp=0.5)",
         "ratio = max([1, 0])\ndef halved(value):\n    return root(value * ratio)",
         SOLVED.replace("(num_old / num_new) ** 0.5", "halved(num_old / num_new)"), CHECK],
        ["power = 1", "power /= 2", POWERED, CHECK],
        ["power = [1]\nclass Keep:\n    pass\nkeep = Keep()", "keep.list = power",
         "keep.list[0] = 0.5", POWERED.replace("power", "keep.list[0]"), CHECK],
        ["try:\n    from maths import root\nexcept ImportError:\n    from math import sqrt as root",
         SOLVED.replace("(num_old / num_new) ** 0.5", "root(num_old / num_new)"), CHECK],
        ["for power in (2, 1, 0.5):\n    pass", POWERED, CHECK],
        ["import io", "with io.StringIO('0.5') as file:\n    power = float(file.read())",
         "return", "nonlocal power", POWERED, CHECK],
        ["def root(ratio):\n    return ratio**0.5",
         SOLVED.replace("(num_old / num_new) ** 0.5", "root(num_old / num_new)"), CHECK,
         "def root(ratio):\n    return ratio"],
        ["power = 0.5", POWERED, CHECK, "power = 1"],
        [STUB, f"mine = [lambda base, num_old, num_new:\n{RIGHT.replace('return', '')}][0]",
         "if True:\n    checks.adaptive_lambda(mine)"],
    ],
    ids=["another name", "a lambda", "a stub later", "an experiment later", "mended later",
         "in an if", "a blank line", "helpers", "changed in place", "changed in part", "in a try",
         "in a for", "in a with", "a helper replaced later", "a value replaced later",
         "another name in a block"],
)  # fmt: skip
def test_what_was_right_in_the_notebook_is_right(hand_in, cells):
    path = hand_in("from lucir_edu.lab import checks", *cells)
    assert verdicts(path)["adaptive_lambda"] == "right"


def test_after_a_check_what_is_not_right_is_replaced_as_in_the_notebook(hand_in):
    ratio = "ratio = adaptive_lambda(1, 4, 1)"
    powered = (
        "def less_forget(one, two):\n    return (1 - torch.cosine_similarity(one, two.detach())"
    )
    path = hand_in(
        "import torch", SOLVED.replace("0.5", "2"), CHECK, ratio,
        powered + ".mean()) * ratio / 2", "less_forget = checks.less_forget(less_forget)",
    )  # fmt: skip
    assert verdicts(path)["less_forget"] == "right"


def test_what_no_exercise_reads_is_not_run(hand_in, tmp_path):
    """Not even when it has the name of something inside a function."""
    touched = tmp_path / "touched"
    path = hand_in(
        f"from pathlib import Path\nroot = Path({str(touched)!r}).touch()",
        "def adaptive_lambda(base, num_old, num_new):\n    root = (num_old / num_new) ** 0.5\n"
        "    return base * root",
        "adaptive_lambda = checks.adaptive_lambda(adaptive_lambda)\nprint(root)",
    )
    assert verdicts(path)["adaptive_lambda"] == "right" and not touched.exists()


def test_what_replaces_a_helper_after_the_check_is_not_run(hand_in, tmp_path):
    touched = tmp_path / "touched"
    later = f"from pathlib import Path\npower = Path({str(touched)!r}).touch()"
    path = hand_in("power = 0.5", POWERED, CHECK, later)
    assert verdicts(path)["adaptive_lambda"] == "right" and not touched.exists()


def test_an_exercise_of_another_notebook_is_a_name_like_others(hand_in, tmp_path):
    touched = tmp_path / "touched"
    path = hand_in(
        f"from pathlib import Path\nangles = Path({str(touched)!r}).touch()", SOLVED, CHECK
    )
    assert verdicts(path)["adaptive_lambda"] == "right" and not touched.exists()


@pytest.mark.parametrize(
    "scratch", ["def f(x):\n        y = 1\n    return y", "# \ud800", "1 +" * 10]
)
def test_a_cell_that_is_no_python_costs_no_other_its_grade(hand_in, scratch):
    path = hand_in(scratch, SOLVED, CHECK)
    assert verdicts(path)["adaptive_lambda"] == "right"
    assert reasons(path)["less_forget"].startswith("code cell 1 is not Python: ")


def test_a_check_copied_from_another_notebook_brings_no_other_exercise(hand_in):
    path = hand_in("checks.less_forget(None)", "checks.lucir_loss(None)", "checks.main_effect(0)")
    assert list(verdicts(path)) == ["less_forget", "lucir_loss", "main_effect", "nearest_mean"]


@pytest.mark.parametrize("villain", ["import os; os._exit(0)", "while True: pass"])
def test_a_notebook_that_harms_its_process_costs_its_own_grades(hand_in, villain, monkeypatch):
    monkeypatch.setattr(handed_in, "PATIENCE", 15.0)
    path = hand_in(f"checks.angles(angles)\nclass Villain:\n    {villain}")
    told = set(verdicts(path).values())
    assert told == {
        "not graded: "
        + ("its code ended the process" if "exit" in villain else "no answer for 15 s")
    }


def test_the_command_prints_a_table_and_writes_one(hand_in, tmp_path, capsys):
    good, bad, table = tmp_path / "Bo.ipynb", tmp_path / "Cy.ipynb", tmp_path / "table.csv"
    shutil.copy(NOTEBOOKS / "solved" / "03_less_forget_constraint.ipynb", good)
    bad.write_text("no notebook")
    empty = hand_in("1 + 1")
    command = ["grade", str(bad), str(empty), str(good), "--csv", str(table)]
    assert cli.main(command) == 2, "two could not be graded"
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        str(good),
        "  score_distillation        right",
        "  less_forget               right",
        "  adaptive_lambda           right",
    ]
    assert f"{bad} is not a notebook" in err and f"{empty} has no exercise in it" in err
    assert table.read_bytes().startswith(b"\xef\xbb\xbf"), "for Excel"
    with open(table, newline="", encoding="utf-8-sig") as file:
        header, *lines = csv.reader(file)
    assert header == ["notebook", "exercise", "verdict", "because"]
    assert [line[1:] for line in lines] == [
        [name, "right", ""] for name in ("score_distillation", "less_forget", "adaptive_lambda")
    ]


def test_half_a_character_in_a_name_or_a_message_is_no_end_of_the_table(
    tmp_path, monkeypatch, capsys
):
    """As in a file name of an archive in another encoding."""
    half = "\udce9"
    grade = handed_in.Grade(Path(f"B{half}.ipynb"), "angles", "not yet right", [f"  ✗ not {half}"])
    monkeypatch.setattr(handed_in, "grade", lambda path: [grade])
    monkeypatch.setattr("tqdm.tqdm.write", lambda text, file=None: None)
    table = tmp_path / "table.csv"
    assert cli.main(["grade", "any.ipynb", "--csv", str(table)]) == 0
    line = table.read_text(encoding="utf-8").splitlines()[1]
    assert line == "B?.ipynb,angles,not yet right,not ?"


def test_where_the_table_cannot_be_written_nothing_is_graded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(handed_in, "grade", lambda path: pytest.fail("too late"))
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for table, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "x.csv", "cannot write"),
        (tmp_path / "pipe", "is a device or a pipe"),
    ):
        assert cli.main(["grade", "any.ipynb", "--csv", str(table)]) == 2
        assert says in capsys.readouterr().err


def test_where_nothing_is_graded_an_earlier_table_stays(hand_in, tmp_path, capsys):
    table = tmp_path / "new" / "table.csv"
    command = ["grade", str(tmp_path / "typo.ipynb"), "--csv", str(table)]
    assert cli.main(command) == 2
    assert "table.csv is not written: no notebook was graded" in capsys.readouterr().err
    assert not table.parent.exists(), "nor is its folder"
    table.parent.mkdir()
    table.write_text("grades")
    assert cli.main(command) == 2 and table.read_text() == "grades"


def test_a_pattern_that_the_shell_has_left_alone_names_its_files(tmp_path, monkeypatch, capsys):
    graded = []
    monkeypatch.setattr(handed_in, "grade", lambda path: graded.append(path.name) or [])
    for name in ("b.ipynb", "a.ipynb", "[x].ipynb", "notes.txt"):
        (tmp_path / name).touch()
    command = ["grade", str(tmp_path / "?.ipynb"), str(tmp_path / "[x].ipynb")]
    assert cli.main(command) == 0
    assert graded == ["a.ipynb", "b.ipynb", "[x].ipynb"]


def test_a_notebook_that_is_not_there_is_told(tmp_path, capsys):
    assert cli.main(["grade", str(tmp_path / "none.ipynb")]) == 2
    err = capsys.readouterr().err
    assert "none.ipynb cannot be read (No such file or directory)" in err
