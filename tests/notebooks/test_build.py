"""From one source: the learner's notebook, the solved one, and other languages."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
SOURCE = """# %% [markdown]
# # Title
#
# *About it.*

# %% [markdown] lang="de"
# # Titel

# %%
def answer(x):
    \"\"\"What is asked.\"\"\"
    ### BEGIN SOLUTION
    y = x + 1
    return y
    ### END SOLUTION

# %% tags=["nbval-check-output"]
answer = check(answer)

# %% [markdown]
# Afterwards, [`02_next`](02_next.ipynb) and [a page](https://example.org/02_next.ipynb).
"""
AFTER = SOURCE.splitlines()[-1].removeprefix("# ")


@pytest.fixture(scope="module")
def build():
    path = ROOT / "notebooks" / "sources" / "build.py"
    spec = importlib.util.spec_from_file_location("build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def made(build, tmp_path):
    source = tmp_path / "01_sample.py"
    source.write_text(SOURCE)
    return build.versions(source)


def test_a_source_makes_three_notebooks(made):
    assert set(made) == {"01_sample.ipynb", "solved/01_sample.ipynb", "de/01_sample.ipynb"}


def test_the_learner_has_a_stub_and_the_solution_folded_below_the_check(made):
    title, stub, check, folded, after = made["01_sample.ipynb"].cells
    assert title.source.startswith("# Title") and after.source == AFTER
    assert stub.source.splitlines() == [
        "def answer(x):",
        '    """What is asked."""',
        "    raise NotImplementedError  # your code here",
    ]
    assert check.source == "answer = check(answer)"
    assert check.metadata["tags"] == ["nbval-check-output"]
    assert folded.cell_type == "markdown" and "<details>" in folded.source
    assert "    y = x + 1\n    return y" in folded.source and "SOLUTION" not in folded.source


def test_the_solution_comes_after_the_help(build, tmp_path):
    source = tmp_path / "01_sample.py"
    help_cell = "# <details><summary>Help</summary>\n#\n# Add one.\n# </details>\n#\n"
    source.write_text(SOURCE.replace("# Afterwards", f"{help_cell}# Afterwards"))
    *_, last = build.versions(source)["01_sample.ipynb"].cells
    parts = [last.source.index(part) for part in ("Help", "Add one", "Solution", "y = x + 1")]
    assert parts == sorted(parts) and last.source.endswith(f"</details>\n\n{AFTER}")


def test_the_solved_one_has_the_solution_in_its_place(made):
    title, solution, check, after = made["solved/01_sample.ipynb"].cells
    assert title.source.startswith("# Title (solved)")
    assert solution.source.endswith('"""\n    y = x + 1\n    return y')
    above = AFTER.replace("(02", "(../02")
    assert (check.source, after.source) == ("answer = check(answer)", above)


def test_what_is_handed_out_has_neither_solutions_nor_outputs(build, made, tmp_path):
    build.hand_out(tmp_path / "01_sample.py", tmp_path / "out.ipynb")
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    learners = made["01_sample.ipynb"].cells
    assert [c.source for c in cells] == [c.source for c in learners if "Solution" not in c.source]
    assert not any(cell.get("outputs") for cell in cells)


def test_the_command_hands_out_all_notebooks(build, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["build.py", "--handout", str(tmp_path / "class")])
    assert build.main() == 0
    names = sorted(path.name for path in (tmp_path / "class").iterdir())
    assert names == sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    text = "".join((tmp_path / "class" / name).read_text() for name in names)
    assert "raise NotImplementedError" in text and "<summary>Solution" not in text
    assert capsys.readouterr().out == f"written: 8 notebooks in {tmp_path / 'class'}\n"


def test_another_language_changes_prose_alone(made):
    english, german = made["01_sample.ipynb"].cells, made["de/01_sample.ipynb"].cells
    assert german[0].source == "# Titel" and len(german) == len(english)
    code = [[c.source for c in cells if c.cell_type == "code"] for cells in (english, german)]
    assert code[0] == code[1]
    assert german[-1].source == AFTER.replace("(02", "(../02"), "what is not translated stays"
    assert english[-1].source == AFTER


def test_the_same_source_makes_the_same_notebooks(build, made, tmp_path):
    again = build.versions(tmp_path / "01_sample.py")
    assert again == made


def test_drift_is_seen(build, made):
    stored = made["01_sample.ipynb"]
    before = build.essence(stored)
    stored.cells[1].source += "  # changed"
    assert build.essence(stored) != before


def test_a_notebook_that_is_named_is_compared_too(build, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["build.py", "--check", "06_reproducing_the_paper"])
    assert build.main() == 0, capsys.readouterr().out


def test_outputs_are_kept_as_they_stand_in_the_end(build):
    def printed(text, name="stdout"):
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output("display_data", {"text/plain": "picture"})
    outputs = [
        printed("head\n\rphase 1:  50%|#"), printed("\r          \r    1   2.5\n"),
        printed("\rphase 2: 10%|", "stderr"), printed("\r   \r", "stderr"), picture,
        printed("a warning\n", "stderr"),
    ]  # fmt: skip
    head, shown, warning = build.merged(outputs)
    assert (head.text, shown, warning.text) == ("head\n    1   2.5\n", picture, "a warning\n")


def test_the_readme_s_table_is_replaced_and_nothing_else(build):
    readme = "before\n<!-- notebooks: made by make notebooks -->\nold\n<!-- end -->\nafter\n"
    changed = build.with_tables(readme)
    assert changed.startswith("before\n<!--") and changed.endswith("<!-- end -->\nafter\n")
    assert "old" not in changed.splitlines() and "| notebook |" in changed
    assert build.with_tables(changed) == changed
