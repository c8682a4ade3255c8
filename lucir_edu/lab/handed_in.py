"""Handed-in notebooks, graded: ``lucir-edu grade``.

Only what a notebook's exercises need is run, in the order of its cells: the cells in which an
exercise is written, and the imports, functions, classes and plain values of all others. Nothing is
trained. As in the notebook, the package's own function stands in for one that is not right, so that
what is built on it is graded by itself. Every notebook has a process of its own, which it may end
or hold up without harm to the others; there it has the permissions of the person who grades.
"""

import ast
import contextlib
import io
import json
import linecache
import multiprocessing
import re
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from lucir_edu.config import UsageError
from lucir_edu.lab import checks
from lucir_edu.lab.grading import NOT_WRITTEN, RIGHT

PATIENCE = 120.0  # seconds until the next verdict; a behaviour has a limit of its own
MAGIC = re.compile(r"^%%(time|capture)\b.*\n")  # below such a line a cell is ordinary Python


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
    """All exercises of those of the course's notebooks from which the sources have any."""
    used = {name for name in checks.EXERCISES if any(f"checks.{name}(" in s for s in sources)}
    groups = [group for group in checks.NOTEBOOKS.values() if used & {e.name for e in group}]
    return [exercise.name for group in groups for exercise in group]


def _work(sources: list[str], names: list[str], answers: Connection) -> None:
    """In a process of its own: define what the notebook defines, and send a verdict for each."""
    space: dict[str, Any] = {"__name__": "__main__"}
    unread: list[str] = []
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        _define(sources, space, unread)
        for name in names:
            exercise = checks.EXERCISES[name]
            if name in space:
                verdict, lines = exercise.verdict(space[name])
            else:
                verdict, lines = NOT_WRITTEN, [f"  – {reason}" for reason in unread]
            if verdict != RIGHT:
                space[name] = exercise.stand_in
            answers.send_bytes(json.dumps((name, verdict, lines)).encode())


def _define(sources: list[str], space: dict[str, Any], unread: list[str]) -> None:
    for number, source in enumerate(sources, 1):
        file = f"<code cell {number}>"
        code = TransformerManager().transform_cell(MAGIC.sub("", source))
        linecache.cache[file] = len(code), None, code.splitlines(keepends=True), file
        try:
            statements = ast.parse(code, file).body
        except SyntaxError as error:
            unread.append(f"code cell {number} is not Python: {error.msg} (line {error.lineno})")
            continue
        whole = any(_exercise(statement) for statement in statements)
        for statement in statements:
            if _grades(statement) or not (whole or _only_defines(statement)):
                continue
            try:
                exec(compile(ast.Module([statement], []), file, "exec"), space)
            except Exception as error:  # a function that needs what is missing shows it
                if _exercise(statement):
                    unread.append(f"code cell {number} raises {type(error).__name__}: {error}")


def _exercise(statement: ast.stmt) -> bool:
    """Whether it defines, or assigns, what an exercise asks for."""
    names = {target.id for target in _targets(statement) if isinstance(target, ast.Name)}
    names.add(getattr(statement, "name", ""))
    return not names.isdisjoint(checks.EXERCISES) and not _grades(statement)


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


def _only_defines(statement: ast.stmt) -> bool:
    """Whether it imports, defines, or names plain values."""
    if targets := _targets(statement):
        simple = all(isinstance(target, ast.Name) for target in targets)
        calls = any(isinstance(node, ast.Call) for node in ast.walk(statement))
        return simple and (isinstance(statement.value, ast.Lambda) or not calls)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
