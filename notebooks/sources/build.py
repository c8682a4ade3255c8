"""Make the notebooks from their sources: ``python notebooks/sources/build.py [--check] [NAME …]``.

A source is a script in the py:percent format (jupytext). It becomes the learner's notebook and,
where a cell has a solution between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, the solved one
too: the learner's has ``raise NotImplementedError`` in its place, and the solution folded below the
cell that checks it. A markdown cell that begins with ``# %% [markdown] lang="de"`` is the German
version of the cell before it, and makes one more notebook of the same code.

Notebooks are executed in order and keep their outputs, the seconds it took and the peak of memory,
of which the README's table is made. What has not changed is not run again, unless it is named.
``--handout DIR`` writes notebooks for a class there, and runs nothing.
``--check`` runs nothing and fails when a notebook or the README has drifted from the sources.
"""

import argparse
import copy
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from lucir_edu import runs

SOURCES = Path(__file__).parent
NOTEBOOKS = SOURCES.parent
README = NOTEBOOKS.parent / "README.md"
WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
PLACEHOLDER = "An interactive part: run this cell to see it."
SOLUTION = re.compile(
    r"^(?P<indent> *)### BEGIN SOLUTION\n(?P<code>.*?)^ *### END SOLUTION\n?", re.M | re.S
)
FORMATTING = re.compile(r" *# fmt: (skip|off|on)$", re.M)  # not for readers
STUB = "raise NotImplementedError  # your code here"
# Of the kernel alone: on Linux getrusage would count what started it, and this process has grown
PEAK = (
    "int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) // 2**10 "
    "if __import__('sys').platform == 'linux' else "
    "__import__('psutil').Process().memory_info().peak_wset // 2**20 "
    "if __import__('sys').platform == 'win32' else "
    "__import__('resource').getrusage(0).ru_maxrss // 2**20"
)
BLOCK = r"(<!-- {name}: made by make notebooks -->\n).*?(<!-- end -->)"
METHODS = ("finetune", "replay", "icarl", "linear+mr", "linear+lf", "linear+lf+mr", "cosine",
           "cosine+mr", "cosine+lf", "lucir", "frozen", "joint")  # fmt: skip


# ---- From a source to notebooks ---------------------------------------------------------------


def versions(source: Path) -> dict[str, NotebookNode]:
    """The notebooks that a source describes, not yet executed, by their path below notebooks/."""
    cells = jupytext.read(source).cells
    name = f"{source.stem}.ipynb"
    found = {name: _assemble(source.stem, learners(in_language(cells, None)))}
    if any(SOLUTION.search(cell.source) for cell in cells):
        found[f"solved/{name}"] = _assemble(source.stem, below(solved(in_language(cells, None))))
    for language in sorted({cell.metadata["lang"] for cell in cells if "lang" in cell.metadata}):
        path = f"{language}/{name}"
        found[path] = _assemble(source.stem, below(learners(in_language(cells, language))))
    return found


def below(cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """For a notebook in a folder below notebooks/: links to the others lead up."""
    for cell in cells:
        cell.source = re.sub(r"\]\((\d\d_\w+\.ipynb)\)", r"](../\1)", cell.source)
        yield cell


def in_language(cells: Iterable[NotebookNode], language: str | None) -> Iterator[NotebookNode]:
    """The cells with their prose in one language; English where it is not translated."""
    kept: list[NotebookNode] = []
    for cell in cells:
        if "lang" not in cell.metadata:
            kept.append(cell)
        elif cell.metadata["lang"] == language:
            kept[-1] = cell
    return iter(kept)


def learners(cells: Iterable[NotebookNode], folded: bool = True) -> Iterator[NotebookNode]:
    """Solutions taken out, and, if ``folded``, put below the cell that checks them, after the help."""
    cells = [copy.deepcopy(cell) for cell in cells]
    for number, cell in enumerate(cells):
        code = cell.source
        cell.source = SOLUTION.sub(lambda match: f"{match['indent']}{STUB}\n", code).rstrip("\n")
        if cell.source == code or not folded:
            continue
        answer = SOLUTION.sub(lambda match: match["code"], code).rstrip("\n")
        details = f"<details><summary>Solution</summary>\n\n```python\n{answer}\n```\n\n</details>"
        following = cells[number + 2]
        if following.source.startswith("<details><summary>Help</summary>"):
            parts = following.source.partition("</details>")
            following.source = f"{parts[0]}</details>\n\n{details}{parts[2]}"
        else:
            cells.insert(number + 2, nbformat.v4.new_markdown_cell(details))
    return iter(cells)


def solved(cells: Iterable[NotebookNode]) -> Iterator[NotebookNode]:
    """Solutions left in, without their marks."""
    for number, cell in enumerate(cells):
        cell = copy.deepcopy(cell)
        cell.source = SOLUTION.sub(lambda match: match["code"], cell.source).rstrip("\n")
        if number == 0:
            cell.source = re.sub(r"^(# .*)", r"\1 (solved)", cell.source)
        yield cell


def _assemble(stem: str, cells: Iterable[NotebookNode]) -> NotebookNode:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(
        metadata={"kernelspec": kernel, "language_info": {"name": "python"}}
    )
    for number, cell in enumerate(cells):
        cell.source = FORMATTING.sub("", cell.source)
        cell["id"] = f"{stem.split('_')[0]}-{number:03d}"
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode({"tags": tags} if tags else {})
        notebook.cells.append(cell)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def hand_out(source: Path, target: Path) -> None:
    """Write a notebook for a class: without solutions, and nothing to see before it is run."""
    cells = learners(in_language(jupytext.read(source).cells, None), folded=False)
    nbformat.write(_assemble(source.stem, cells), target)


def essence(notebook: NotebookNode) -> list[tuple]:
    """What must be the same in a source and its notebook."""
    return [(c.id, c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


# ---- Running ----------------------------------------------------------------------------------


def execute(notebook: NotebookNode) -> None:
    """Run all cells, and keep only outputs that mean something without a kernel."""
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": NOTEBOOKS}})
    began = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        seconds = time.perf_counter() - began
        ask = client.kc.execute("", user_expressions={"peak": PEAK}, silent=True)
        reply = client.wait_for_reply(ask)["content"]["user_expressions"]["peak"]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    megabytes = int(reply["data"]["text/plain"])
    notebook.metadata["measured"] = {"seconds": round(seconds), "peak_megabytes": megabytes}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                tidy(output.get("data", {}))


def tidy(data: dict) -> None:
    """A live widget cannot be kept; an interactive figure says so where it cannot be drawn."""
    if WIDGET in data:
        data.clear()
        data["text/plain"] = PLACEHOLDER
    if PLOTLY in data:
        data.pop("text/html", None)
        data["text/plain"] = PLACEHOLDER


def merged(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """What was printed in pieces, in one piece, as it stands in the end: progress bars are gone."""
    kept: list[NotebookNode] = []
    for output in outputs:
        stream = output.output_type == "stream"
        if stream and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r", "", output.text)
    return [output for output in kept if output.get("text") != ""]


# ---- The README's tables ----------------------------------------------------------------------


def table() -> str:
    """A row per notebook: what it is about, minutes, exercises, and what running it takes."""
    lines = [
        "| notebook | about | minutes | exercises | seconds to run | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if "measured" not in notebook.metadata:
            continue
        opening = notebook.cells[0].source
        about = re.search(r"^\*(.+)\*$", opening, re.M)[1]
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", opening)[1]
        exercises = sum(STUB in cell.source for cell in notebook.cells)
        link = f"[{path.stem}](notebooks/{path.name})"
        if exercises:
            link += f" ([solved](notebooks/solved/{path.name}))"
        measured = notebook.metadata["measured"]
        lines.append(
            f"| {link} | {about} | {minutes} | {exercises or '–'} | {measured['seconds']} | "
            f"{measured['peak_megabytes'] / 1024:.1f} GB |"
        )
    return "\n".join(lines) + "\n"


def results() -> str:
    """A row per method: figures of the recorded runs on Glyphs-100, mean ± sd over seeds."""
    rows = {row["label"]: row for row in runs.compare(runs.load_bank("glyphs-b50-5"))}
    lines = [
        "| method | seeds | average, CNN | average, NME | last, CNN | old taken for new | norm gap |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("average (CNN)", "average (NME)", "last (CNN)", "old taken for new", "norm gap")
    for method in METHODS:
        row = rows[method]
        cells = [f"{row[k][0]:.1f} ± {row[k][1]:.1f}" if row[k] else "–" for k in keys]
        lines.append(f"| `{method}` | {len(row['seeds'])} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def with_tables(readme: str) -> str:
    for name, make in (("notebooks", table), ("results", results)):
        block = re.compile(BLOCK.format(name=name), re.S)
        readme = block.sub(lambda match, make=make: match[1] + make() + match[2], readme)
    return readme


# ---- The command ------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources to run in any case")
    parser.add_argument("--check", action="store_true", help="only compare")
    parser.add_argument(
        "--handout", type=Path, metavar="DIR", help="write notebooks without solutions and outputs"
    )
    options = parser.parse_args()
    sources = sorted(SOURCES.glob("[0-9][0-9]_*.py"))
    unknown = set(options.names) - {source.stem for source in sources}
    if unknown:
        parser.error(f"no source {', '.join(sorted(unknown))}")
    if options.handout:
        options.handout.mkdir(parents=True, exist_ok=True)
        for source in sources:
            hand_out(source, options.handout / f"{source.stem}.ipynb")
        print(f"written: {len(sources)} notebooks in {options.handout}")
        return 0
    drifted = []
    for source in sources:
        if options.names and source.stem not in options.names:
            continue
        for path, notebook in versions(source).items():
            target = NOTEBOOKS / path
            stored = nbformat.read(target, as_version=4) if target.exists() else None
            same = stored is not None and essence(stored) == essence(notebook)
            if same and (options.check or not options.names):
                continue
            drifted.append(path)
            if not options.check:
                print(f"running {path}", flush=True)
                execute(notebook)
                target.parent.mkdir(exist_ok=True)
                nbformat.write(notebook, target)
    readme = README.read_text(encoding="utf-8")
    if readme != with_tables(readme):
        drifted.append(README.name)
        if not options.check:
            README.write_text(with_tables(readme), encoding="utf-8")
    if options.check and drifted:
        print(f"not what the sources say: {', '.join(drifted)}; run `make notebooks`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
