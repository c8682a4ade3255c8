"""Notebooks must turn red when the package is wrong: see ``mutants``.

Each runs on a copy of the package with one mistake, by the same nbval and with the same settings as
in the rest of the tests, up to its first red cell.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.notebooks.mutants import MUTANTS, NotebookMutant

ROOT = Path(__file__).parents[2]


def examine(mutant: NotebookMutant, folder: Path) -> tuple[int, str]:
    """pytest's exit code for the notebook, on a copy of the package with the mistake."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lucir_edu", folder / "lucir_edu", ignore=unwanted)
    (folder / "data").symlink_to(ROOT / "data")
    path = folder / "lucir_edu" / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.file} must have {mutant.old!r} exactly once"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    notebook = folder / f"{mutant.notebook}.ipynb"
    notebook.parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "notebooks" / f"{mutant.notebook}.ipynb", notebook)
    lax = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=180"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", *lax, "-o", "addopts=", "-p",
         "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}", str(notebook)],
        cwd=folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="session")
def examined(tmp_path_factory):
    """Two at a time, for a kernel spends much of its start waiting."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            mutant: pool.submit(examine, mutant, tmp_path_factory.mktemp("copy"))
            for mutant in MUTANTS
        }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_turns_a_cell_red(examined, mutant):
    code, output = examined[mutant].result()
    assert code == 1, output
    assert "FAILED" in output and "::Cell " in output, "it is not a cell that failed"


def test_mutants_are_different():
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
