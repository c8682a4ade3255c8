"""Notebooks must turn red when the package is wrong: see ``mutants``.

A notebook's cells run in order on a copy of the package with one mistake, until one is red: it
raises, or a compared cell prints something else than is stored.
"""

import json
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.mutants import MUTANTS, NotebookMutant

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted({mutant.notebook for mutant in MUTANTS})

# A server imports what is slow to import, once; each notebook runs in a fork of it.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(
        ["torch._dynamo", "safetensors.torch", "hypothesis", "pytest", "IPython", "ipywidgets",
         "matplotlib.figure", "plotly.graph_objects", "plotly.subplots"]
    )  # fmt: skip


def run_cells(folder: str, notebook: str, limit: int) -> None:
    """In a process of its own: run cells, and write down which one was red, and how."""
    os.chdir(folder)
    os.environ["IPYTHONDIR"] = folder
    sys.path.insert(0, folder)
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    import lucir_edu

    assert Path(lucir_edu.__file__).is_relative_to(folder), "another package than the copy"
    torch.set_num_threads(1)
    shell, red = InteractiveShell.instance(), None
    cells = nbformat.read(notebook, as_version=4).cells
    for number, cell in enumerate(cells[:limit]):
        tags = cell.metadata.get("tags", [])
        if "nbval-ignore-output" in tags:
            break  # a panel, which needs a kernel
        if cell.cell_type != "code":
            continue
        with capture_output() as printed:
            result = shell.run_cell(cell.source)
        stored = "".join(output.get("text", "") for output in cell.outputs)
        if not result.success:
            red = (number, repr(result.error_before_exec or result.error_in_exec))
        elif "nbval-check-output" in tags and printed.stdout != stored:
            red = (number, printed.stdout)
        if red:
            break
    Path(folder, "red.json").write_text(json.dumps(red))


def examine(folder: Path, notebook: str, mutant: NotebookMutant | None, limit: int = 10**6):
    """The number of the red cell and what was wrong with it; None when all are green."""
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lucir_edu", folder / "lucir_edu", ignore=unwanted)
    (folder / "data").symlink_to(ROOT / "data")
    if mutant:
        path = folder / "lucir_edu" / mutant.file
        text = path.read_text(encoding="utf-8")
        assert text.count(mutant.old) == 1, f"{mutant.file} must have {mutant.old!r} exactly once"
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    source = str(ROOT / "notebooks" / f"{notebook}.ipynb")
    process = PROCESSES.Process(target=run_cells, args=(str(folder), source, limit))
    process.start()
    process.join(300)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, "the process that ran the cells did not come to its end"
    return json.loads((folder / "red.json").read_text())


@pytest.fixture(scope="module")
def examined(tmp_path_factory):
    """Two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            mutant: pool.submit(examine, tmp_path_factory.mktemp("copy"), mutant.notebook, mutant)
            for mutant in MUTANTS
        }


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mistake_turns_a_cell_red(examined, mutant):
    assert examined[mutant].result(), "all cells are green"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_without_a_mistake_these_cells_are_green(examined, notebook, tmp_path):
    last = max(examined[m].result()[0] for m in MUTANTS if m.notebook == notebook)
    assert examine(tmp_path, notebook, None, last + 1) is None


def test_mutants_are_different():
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
