"""Handed-in notebooks, graded: ``lucir-edu grade``.

Only what a notebook's exercises need is run, in the order of its cells: the cells in which an
exercise is written, and the checks; of all others the imports, functions, classes and plain values,
and whatever else an exercise reads that stands above its last check or definition. So nothing is
trained, unless an exercise reads the result. As in the notebook, the verdict is given where the
check stands, and the package's own function stands in for one that is not right, so that what is
built on it is graded by itself; what is never checked is judged at the end. Every notebook has a
process of its own, which it may end or hold up without harm to the others; there it has the
permissions of the person who grades.
"""

import ast
import contextlib
import functools
import io
import itertools
import json
import linecache
import multiprocessing
import re
import symtable
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from lucir_edu.config import UsageError
from lucir_edu.lab import checks
from lucir_edu.lab.grading import NOT_WRITTEN, RIGHT, STAND_IN, Exercise
from lucir_edu.lab.sandbox import put_back

PATIENCE = 120.0  # seconds until the next verdict; a behaviour has a limit of its own
MAGIC = re.compile(r"^\s*%%(time|capture)\b.*\n")  # below such a line a cell is ordinary Python


class Grade(NamedTuple):
    """The grade of an exercise: the verdict of its check, and the lines that say why."""

    notebook: Path
    exercise: str
    verdict: str
    lines: list[str]

    @property
    def because(self) -> str:
        """The first thing that is wrong; "" when there is none."""
        told = (line.strip(" ✗–") for line in self.lines if line.startswith(("  ✗", "  –")))
        return next(told, "").partition("\n")[0]


def grade(path: Path) -> list[Grade]:
    """Grade the exercises of a notebook, in the course's order.

    Raises:
        UsageError: it is not a notebook, or one without exercises.
    """
    try:
        cells = nbformat.read(path, as_version=4).cells
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from None
    except Exception as error:  # of many kinds: of JSON, of the notebook format, of the text
        reason = " ".join(str(error).split())[:100]
        raise UsageError(f"{path} is not a notebook ({reason})") from None
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    names = _exercises(sources)
    if not names:
        raise UsageError(f"{path} has no exercise in it; name notebooks that learners handed in")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sources, names, theirs), daemon=True)
    process.start()
    theirs.close()
    found: dict[str, tuple[str, list[str]]] = {}
    ending = "its code ended the process"
    with contextlib.suppress(EOFError, BrokenPipeError):  # the latter on Windows
        while ours.poll(PATIENCE):
            if not (verdict := json.loads(ours.recv_bytes())):  # (recv would unpickle)
                break
            found |= verdict
        else:
            ending = f"no answer for {PATIENCE:.0f} s"
    process.kill()
    process.join()
    return [Grade(path, name, *found.get(name, (f"not graded: {ending}", []))) for name in names]


def _exercises(sources: list[str]) -> list[str]:
    """All exercises of the course's notebook that this is, and those copied from others."""
    used = {name for name in checks.EXERCISES if any(f"checks.{name}(" in s for s in sources)}
    groups = [[exercise.name for exercise in group] for group in checks.NOTEBOOKS.values()]
    this = max(groups, key=lambda names: len(used.intersection(names)))
    return [n for names in groups for n in names if n in used or (used and names is this)]


def _work(sources: list[str], names: list[str], answers: Connection) -> None:
    """In a process of its own: run what the exercises need, and send a verdict for each as soon as
    it is known, the last one being valid; at the end, nothing."""
    space: dict[str, Any] = {"__name__": "__main__", "checks": checks}
    right: dict[str, Any] = {}
    told: set[str] = set()
    unread: list[str] = []
    usual = Exercise.__call__

    def tell(name: str, verdict: str, lines: list[str]) -> None:
        told.add(name)
        answers.send_bytes(json.dumps({name: (verdict, lines)}).encode())

    def check(exercise: Exercise, submission: Any) -> Any:
        """The notebook's check; what was right once may be replaced in an experiment later."""
        if threading.current_thread() is not threading.main_thread():
            return usual(exercise, submission)  # within a function that is being checked
        name = exercise.name
        if name not in right:
            before = itertools.takewhile(lambda other: other != name, names)
            others = {n: right.get(n, checks.EXERCISES[n].stand_in) for n in before}
            verdict, lines = _verdict(exercise, submission, space, others)
            if verdict == RIGHT:
                right[name] = submission
            if verdict != STAND_IN or name not in told:
                tell(name, verdict, lines)
        return right.get(name, exercise.stand_in)

    Exercise.__call__ = check
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        _run(sources, names, space, unread)
        for name in names:
            if name in space:
                checks.EXERCISES[name](space[name])
            elif name not in told:
                tell(name, NOT_WRITTEN, [f"  – {reason}" for reason in unread])
        answers.send_bytes(b"{}")


def _verdict(
    exercise: Exercise, submission: Any, space: dict[str, Any], others: dict[str, Any]
) -> tuple[str, list[str]]:
    """As in the notebook; if it is not right there, with right ones for the exercises before."""
    verdict, lines = exercise.verdict(submission)
    if verdict in (RIGHT, STAND_IN) or all(space.get(n) is other for n, other in others.items()):
        return verdict, lines
    kept = dict(space)
    space.update(others)
    verdict, lines = exercise.verdict(submission)
    space.clear()
    space.update(kept)
    return verdict, lines


def _run(sources: list[str], names: list[str], space: dict[str, Any], unread: list[str]) -> None:
    """Run what the exercises need; what cannot be run is added to ``unread``."""
    cells: dict[str, list[ast.stmt]] = {}
    for number, source in enumerate(sources, 1):
        name = f"code cell {number}"
        try:
            code = TransformerManager().transform_cell(MAGIC.sub("", source))
            cells[name] = ast.parse(code, f"<{name}>").body
        except Exception as error:  # IPython's are of many kinds
            words, line = getattr(error, "msg", error), getattr(error, "lineno", None)
            unread.append(f"{name} is not Python: {words}{f' (line {line})' if line else ''}")
            continue
        linecache.cache[f"<{name}>"] = len(code), None, code.splitlines(keepends=True), f"<{name}>"
    needed = _needed([*itertools.chain(*cells.values())], names)
    for cell, statements in cells.items():
        whole = any(_written(statement, names) for statement in statements)
        for statement in statements:
            if not (whole or statement in needed or _only_defines(statement)):
                continue
            try:
                module = ast.fix_missing_locations(ast.Module([statement], []))
                code = compile(module, f"<{cell}>", "exec")
                with put_back(checks.GRADER):  # so that it judges honestly
                    exec(code, space)
            except Exception as error:  # a function that needs what is missing shows it
                if _written(statement, names):
                    unread.append(f"{cell} raises {type(error).__name__}: {error}")


def _needed(notebook: list[ast.stmt], names: list[str]) -> set[ast.stmt]:
    """The checks, and what stands above the last check or definition of an exercise and assigns
    what the exercise reads, or what the code behind that reads."""
    ends = {name: place for place, statement in enumerate(notebook)
            for name in _written(statement, names) | _checked(statement, names)}  # fmt: skip
    todo: list[tuple[int, ast.stmt]] = []
    for place, statement in enumerate(notebook):
        todo += [(ends[name], statement) for name in _written(statement, names)]
        todo += [(place, statement)] if _checked(statement, names) else []
    todo.sort(key=lambda item: item[0])  # the last end first, which includes what others read
    needed, read = {s for s in notebook if _checked(s, names)}, dict[str, int]()
    while todo:
        end, statement = todo.pop()
        new = {name for name in _reads(statement) if read.get(name, -1) < end}
        read |= dict.fromkeys(new, end)
        found = [s for s in notebook[:end] if not new.isdisjoint(_names(s))]
        needed.update(found)
        todo += [(end, s) for s in found]
    return needed


def _reads(node: ast.AST) -> set[str]:
    """The global names that a piece of code reads."""
    tables = _tables(node)
    for table in tables:
        tables += table.get_children()
    return {
        symbol.get_name()
        for table in tables
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table is tables[0])
    }


def _tables(node: ast.AST) -> list[symtable.SymbolTable]:
    """Python's own table of the names in a piece of code; none if it does not compile."""
    try:
        return [symtable.symtable(ast.unparse(node), "", "exec")]
    except SyntaxError:
        return []


def _written(statement: ast.stmt, names: list[str]) -> set[str]:
    """The exercises that it defines or assigns, but not by a check."""
    return set() if _checked(statement, names) else _names(statement).intersection(names)


def _checked(statement: ast.stmt, names: list[str]) -> set[str]:
    """The exercises that it checks when it is run, in a block too."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return set()
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    called = {ast.unparse(function) for function in calls}
    return {name for name in names if f"checks.{name}" in called}


@functools.cache
def _names(statement: ast.stmt) -> set[str]:
    """What it defines, assigns to, or changes a part of, in a block too; not what it imports."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    symbols = [symbol for table in _tables(statement) for symbol in table.get_symbols()]
    names = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    for node in ast.walk(statement):
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
            while isinstance(node, ast.Subscript | ast.Attribute):
                node = node.value
            names |= {node.id} if isinstance(node, ast.Name) else set()
    return names


def _targets(statement: ast.stmt) -> list[ast.expr]:
    """What it assigns to, one by one."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return [part for target in targets for part in getattr(target, "elts", [target])]


def _only_defines(statement: ast.stmt) -> bool:
    """Whether it imports, defines, or names plain values."""
    if targets := _targets(statement):
        simple = all(isinstance(target, ast.Name) for target in targets)
        calls = any(isinstance(node, ast.Call) for node in ast.walk(statement))
        return simple and (isinstance(statement.value, ast.Lambda) or not calls)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
