"""Notebooks must turn red when the package is wrong: see ``mutants``.

Each runs on a copy of the package with one mistake, by the same nbval and with the same settings as
in the rest of the tests, up to its first red cell; but without what trains for long.
"""

import re
from pathlib import Path

import nbformat
import pytest

from tests import copies
from tests.notebooks.mutants import LAST, LEFT_OUT, MUTANTS

ROOT = Path(__file__).parents[2]


def run(notebook: str, folder: Path) -> tuple[int, str]:
    """pytest's exit code for a notebook beside a copy of the package, and what it prints."""
    (folder / "data").symlink_to(ROOT / "data")
    content = nbformat.read(ROOT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    code = [cell for cell in content.cells if cell.cell_type == "code"]
    kept = set(range(LAST[notebook] + 1)) - LEFT_OUT.get(notebook, set())
    content.cells = [cell for number, cell in enumerate(code) if number in kept]
    copied = folder / f"{notebook}.ipynb"
    copied.parent.mkdir(exist_ok=True)
    nbformat.write(content, copied)
    lax = ["-p", "nbval.plugin", "--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=180"]
    return copies.run_pytest(folder, [*lax, str(copied)], seconds=600)


@pytest.mark.parametrize("notebook", LAST)
def test_a_copy_without_a_mistake_stays_green(notebook, tmp_path):
    unchanged = "class UsageError(ValueError):"
    copies.make(tmp_path, "config.py", unchanged, unchanged)
    code, output = run(notebook, tmp_path)
    assert code == 0, output
    assert f"{LAST[notebook] + 1 - len(LEFT_OUT.get(notebook, ()))} passed" in output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_turns_a_cell_red(mutant, tmp_path):
    copies.make(tmp_path, mutant.file, mutant.old, mutant.new)
    code, output = run(mutant.notebook, tmp_path)
    assert code == 1, output
    red = re.findall(r"^FAILED .*::Cell (\d+)", output, re.MULTILINE)
    assert red and red != ["0"], f"it is not a cell after the imports that failed: {output}"


def test_mutants_are_different():
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
