"""What every notebook must have: it was run, can fail, says what it shows, in small steps.

That the cells still do what they did is nbval's part, which runs them all.
"""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "notebooks" / "sources" / "build.py"
LEARNERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOLVED = sorted((ROOT / "notebooks" / "solved").glob("*.ipynb"))
EXERCISES = [path for path in LEARNERS if "01" <= path.stem[:2] <= "05"]
STUB = "raise NotImplementedError  # your code here"
COMPARED, IGNORED = "nbval-check-output", "nbval-ignore-output"

every_notebook = pytest.mark.parametrize(
    "path", [*LEARNERS, *SOLVED], ids=lambda path: f"{path.parent.name}-{path.stem}"
)
every_lesson = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


def read(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path):
    cells = read(path).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def tags(cell):
    return cell.metadata.get("tags", [])


def text_of(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_notebooks_are_what_their_sources_say():
    result = subprocess.run([sys.executable, BUILD, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    sources = {path.stem for path in BUILD.parent.glob("[0-9][0-9]_*.py")}
    assert {path.stem for path in LEARNERS} == sources and len(sources) == 8
    assert {path.stem for path in SOLVED} == {path.stem for path in EXERCISES}


@every_notebook
def test_every_cell_was_run_in_order_without_an_error(path):
    code = code_cells(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@every_notebook
def test_it_is_small_and_keeps_no_widget_state(path):
    assert "widgets" not in read(path).metadata and path.stat().st_size < 1_500_000


@every_notebook
def test_steps_are_small(path):
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(path))
    assert lengths[-1] <= 15 and lengths[len(lengths) // 2] <= 5


@every_notebook
def test_pictures_have_a_description(path):
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    for picture in pictures:
        assert len(picture.metadata["image/png"]["alt"]) > 40
    for cell in read(path).cells:
        assert not re.search(r"!\[\]\(|<img(?![^>]* alt=)", cell.source), cell.source


@every_notebook
def test_interactive_parts_come_after_a_picture(path):
    """So that there is something to see without a kernel."""
    seen_picture = False
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            seen_picture |= "image/png" in data
            if "interactive part" in data.get("text/plain", ""):
                assert seen_picture and "text/html" not in data


@every_notebook
def test_some_cells_are_compared_and_only_stable_ones(path):
    compared = [cell for cell in code_cells(path) if COMPARED in tags(cell)]
    assert len(compared) >= 2
    for cell in compared:
        assert cell.outputs and {o.output_type for o in cell.outputs} == {"stream"}
        text = text_of(cell)
        assert not re.search(r"0x[0-9a-f]{6,}|\d s\b|\bseconds\b|\bat 0x", text), text


@every_notebook
def test_what_cannot_be_compared_says_so(path):
    for cell in code_cells(path):
        live = any("interactive part" in o.get("data", {}).get("text/plain", "")
                   for o in cell.outputs)  # fmt: skip
        assert live == (IGNORED in tags(cell)), cell.source


@every_notebook
def test_claims_are_asserted(path):
    claims = [cell for cell in code_cells(path) if re.search(r"^ *assert ", cell.source, re.M)]
    assert len(claims) >= 2


@every_notebook
def test_it_runs_the_same_for_everybody(path):
    code = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(r"environ|getenv|\bCI\b|pytest|# fmt|# noqa", code)


@every_notebook
def test_it_computes_on_the_cpu_where_there_is_a_gpu_too(path):
    for cell in code_cells(path):
        started = len(re.findall(r"(runs\.perform|trainer\.train)\(", cell.source))
        assert cell.source.count('device="cpu"') == started


@every_notebook
def test_it_was_measured_within_a_minute_and_a_gigabyte_and_a_half(path):
    measured = read(path).metadata["measured"]
    assert 0 < measured["seconds"] <= 60
    assert 100 < measured["peak_megabytes"] <= 1536


@every_notebook
def test_it_has_the_parts_that_a_reader_needs(path):
    text = prose(path)
    for part in ("After this notebook you can", "**Time:**", "**You need:**",
                 "## What you have learned", "**Next:**"):  # fmt: skip
        assert part in text, part
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert len(re.findall(r"[Pp]redict", text)) >= 2


@every_notebook
def test_it_links_to_the_next_one(path):
    links = re.findall(r"\]\(([^):#]+)\)", prose(path))
    assert all((path.parent / link).is_file() for link in links), links
    *_, last = ["", *links]
    number = [learners.name for learners in LEARNERS].index(path.name)
    following = LEARNERS[number + 1 : number + 2]
    assert not following or (path.parent / last).resolve() == following[0]
    if number == 0:
        assert {(path.parent / link).resolve() for link in links} == set(LEARNERS)


# ---- Exercises ----


@every_lesson
def test_a_lesson_has_three_exercises_or_more_each_with_all_its_parts(path):
    cells = read(path).cells
    stubs = [number for number, cell in enumerate(cells) if STUB in cell.source]
    assert len(stubs) >= 3
    headings = re.findall(r"^## Exercise (\d+)", prose(path), re.M)
    assert headings == [str(number + 1) for number in range(len(stubs))]
    assert len(re.findall(r"\*Difficulty [●○]{4}, \d+ minutes\.\*", prose(path))) == len(stubs)
    for number in stubs:
        check, solution = cells[number + 1 : number + 3]
        name = re.search(r"^(?:def|class) (\w+)", cells[number].source, re.M)[1]
        assert check.source == f"{name} = checks.{name}({name})" and COMPARED in tags(check)
        assert text_of(check).startswith(f"{name}: not written yet")
        assert re.match(r"<details><summary>(Help|Solution)</summary>", solution.source)
        folded = solution.source.partition("<summary>Solution</summary>")[2].partition(
            "</details>"
        )[0]
        assert f"{name}(" in folded and "NotImplementedError" not in folded


@every_lesson
def test_a_lesson_has_predictions_and_a_control(path):
    text = prose(path)
    assert len(re.findall(r"\*\*Predict|^## Predict", text, re.M)) >= 3
    assert re.search(r"\bcontrol\b", text)
    code = "\n".join(cell.source for cell in code_cells(path))
    assert len(re.findall(r"^my_guess", code, re.M)) >= 2


@every_lesson
def test_the_solved_notebook_differs_in_the_exercises_alone(path):
    ours, theirs = code_cells(path), code_cells(path.parent / "solved" / path.name)
    assert len(ours) == len(theirs)
    for cell, other in zip(ours, theirs, strict=True):
        assert "SOLUTION" not in other.source and STUB not in other.source
        assert (cell.source == other.source) == (STUB not in cell.source)
        if cell.source.startswith(
            tuple(f"{n} = checks." for n in re.findall(r"^\w+", cell.source))
        ):
            assert re.match(r"\w+: right\n", text_of(other)), text_of(other)


def test_every_check_is_used_by_an_exercise():
    from lucir_edu.lab import checks

    used = [
        name
        for path in EXERCISES
        for cell in code_cells(path)
        for name in re.findall(r"= checks\.(\w+)\(", cell.source)
    ]
    assert sorted(used) == sorted(checks.EXERCISES)
