"""Handed-in notebooks, graded: ``lucir-edu grade``.

Only what a notebook's exercises need is run, in the order of its cells: the cells in which an
exercise is written; of all others the imports, functions, classes and plain values, and whatever
else an exercise reads. So nothing is trained, unless an exercise reads the result. As in the
notebook, the package's own function stands in for one that is not right, so that what is built on
it is graded by itself. Every notebook has a process of its own, which it may end or hold up without
harm to the others; there it has the permissions of the person who grades.
"""

import ast
import contextlib
import functools
import io
import json
import linecache
import multiprocessing
import re
import symtable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from lucir_edu.config import UsageError
from lucir_edu.lab import checks
from lucir_edu.lab.grading import NOT_WRITTEN, RIGHT

PATIENCE = 120.0  # seconds until the next verdict; a behaviour has a limit of its own
HANDED = "_handed_to_a_check"
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
        while len(found) < len(names):
            if not ours.poll(PATIENCE):
                ending = f"no answer for {PATIENCE:.0f} s"
                break
            name, verdict, lines = json.loads(ours.recv_bytes())  # (recv would unpickle)
            found[name] = verdict, lines
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
    """In a process of its own: define what the notebook defines, and send a verdict for each."""
    space: dict[str, Any] = {"__name__": "__main__"}
    unread: list[str] = []
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        checked = _define(sources, space, unread)
        for name in names:
            exercise = checks.EXERCISES[name]
            # What was right at its check may have been replaced in an experiment later
            submissions = checked.get(name, []) + ([space[name]] if name in space else [])
            verdict, lines = NOT_WRITTEN, [f"  – {reason}" for reason in unread]
            for submission in {id(one): one for one in submissions}.values():
                verdict, lines = exercise.verdict(submission)
                if verdict == RIGHT:
                    space[name] = submission
                    break
            else:
                space[name] = exercise.stand_in
            answers.send_bytes(json.dumps((name, verdict, lines)).encode())


def _define(sources: list[str], space: dict[str, Any], unread: list[str]) -> dict[str, list[Any]]:
    """Run what the exercises need; return what the notebook's checks were called with."""
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
    needed = _needed([statement for statements in cells.values() for statement in statements])
    checked: dict[str, list[Any]] = {}
    for cell, statements in cells.items():
        whole = any(_exercise(statement) for statement in statements)
        for statement in statements:
            part = statement
            if _grades(statement):
                part = ast.Assign([ast.Name(HANDED, ast.Store())], _handed(statement))
            elif not (whole or _only_defines(statement) or _names(statement) & needed):
                continue
            try:
                module = ast.fix_missing_locations(ast.Module([part], []))
                exec(compile(module, f"<{cell}>", "exec"), space)
            except Exception as error:  # a function that needs what is missing shows it
                if _exercise(statement):
                    unread.append(f"{cell} raises {type(error).__name__}: {error}")
            if HANDED in space:
                name = ast.unparse(statement.value.func).removeprefix("checks.")
                checked.setdefault(name, []).append(space.pop(HANDED))
    return checked


def _needed(notebook: list[ast.stmt]) -> set[str]:
    """The names that exercises read, and in turn those that the code behind these names reads."""
    todo: list[ast.AST] = [statement for statement in notebook if _exercise(statement)]
    todo += [_handed(statement) for statement in notebook if _grades(statement)]
    needed: set[str] = set()
    while todo:
        new = _reads(todo.pop()) - needed
        needed |= new
        todo += [s for s in notebook if not _grades(s) and not new.isdisjoint(_names(s))]
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


def _exercise(statement: ast.stmt) -> bool:
    """Whether it defines, or assigns, what an exercise asks for."""
    return not (_grades(statement) or _names(statement).isdisjoint(checks.EXERCISES))


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


def _grades(statement: ast.stmt) -> bool:
    """Whether it is the notebook's own check, which would replace a wrong function with the
    package's."""
    call = getattr(statement, "value", None)
    return isinstance(call, ast.Call) and ast.unparse(call.func).startswith("checks.")


def _handed(check: ast.stmt) -> ast.expr:
    """What a check is called with."""
    handed, *_ = [*check.value.args, ast.Constant(None)]
    return ast.Constant(None) if isinstance(handed, ast.Starred) else handed


def _only_defines(statement: ast.stmt) -> bool:
    """Whether it imports, defines, or names plain values."""
    if targets := _targets(statement):
        simple = all(isinstance(target, ast.Name) for target in targets)
        calls = any(isinstance(node, ast.Call) for node in ast.walk(statement))
        return simple and (isinstance(statement.value, ast.Lambda) or not calls)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
