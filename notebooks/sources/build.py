"""Make the notebooks from their sources: ``python notebooks/sources/build.py [--check] [NAME …]``.

A source is a script in the py:percent format (jupytext). The notebook has the same cells, executed
in order, with their outputs. ``--check`` runs nothing and fails when a notebook and its source
have drifted apart.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

SOURCES = Path(__file__).parent
NOTEBOOKS = SOURCES.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
PLACEHOLDER = "Run this cell to see the panel."


def from_source(source: Path) -> nbformat.NotebookNode:
    """The notebook that a source describes, not yet executed."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{source.stem.split('_')[0]}-{number:02d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells, and keep only outputs that mean something without a kernel."""
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": NOTEBOOKS}}).execute()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = merged(o for o in cell.outputs if not is_progress(o))
            for output in cell.outputs:
                if WIDGET in output.get("data", {}):
                    output["data"] = {"text/plain": PLACEHOLDER}


def merged(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What was printed in pieces, in one piece."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        stream = output.output_type == "stream"
        if stream and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def is_progress(output: nbformat.NotebookNode) -> bool:
    """Whether it is nothing but a progress bar's trace; warnings and errors stay."""
    if output.output_type != "stream" or output.name != "stderr":
        return False
    parts = [part.strip() for part in output.text.replace("\n", "\r").split("\r")]
    return all(not part or part.startswith("phase ") for part in parts)


def essence(notebook: nbformat.NotebookNode) -> list[tuple]:
    """What must be the same in a source and its notebook."""
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources to make; default: all")
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args()
    sources = [s for s in sorted(SOURCES.glob("[0-9][0-9]_*.py"))]
    if options.names:
        sources = [s for s in sources if s.stem in options.names]
    drifted = []
    for source in sources:
        target = NOTEBOOKS / f"{source.stem}.ipynb"
        notebook = from_source(source)
        if options.check:
            stored = nbformat.read(target, as_version=4) if target.exists() else None
            if stored is None or essence(stored) != essence(notebook):
                drifted.append(target.name)
            continue
        print(f"running {source.name}", flush=True)
        execute(notebook)
        nbformat.write(notebook, target)
    if drifted:
        print(f"not what their sources say: {', '.join(drifted)}; run `make notebooks`")
    return 1 if drifted else 0


if __name__ == "__main__":
    sys.exit(main())
