"""The tests must fail when the package is wrong: see ``mutants``."""

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.mutants import MUTANTS, Mutant

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "lucir_edu"
STRANGER = 9  # the exit code when another package was imported than the copy

# A server imports torch once; each copy is tested in a fork of it.
METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(["torch", "safetensors.torch", "hypothesis", "pytest"])


def test_in_copy(folder: str, tests: str, select: str) -> None:
    """In a process of its own: run a copy's tests, and end with pytest's exit code."""
    code = STRANGER
    try:
        os.chdir(folder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none is needed, and they are slow
        for stream in (1, 2):
            os.dup2(os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        sys.path.insert(0, folder)
        import lucir_edu

        if Path(lucir_edu.__file__).is_relative_to(folder):
            arguments = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
            code = pytest.main([*arguments, "-k", select, f"tests/{tests}"])
    finally:
        sys.stdout.flush()
        os._exit(int(code))


test_in_copy.__test__ = False


def examine(folder: Path, mutant: Mutant) -> tuple[int, str]:
    """The exit code of the mutant's tests on a copy with the mutation, and what they print."""
    shutil.copytree(
        PACKAGE, folder / "lucir_edu", ignore=shutil.ignore_patterns("__pycache__", "lab")
    )
    (folder / "tests").mkdir()
    for name in ("conftest.py", mutant.tests):
        shutil.copy(TESTS / name, folder / "tests")
    path = folder / "lucir_edu" / mutant.file
    text = path.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, f"{mutant.file} must have {mutant.old!r} exactly once"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    process = PROCESSES.Process(
        target=test_in_copy, args=(str(folder), mutant.tests, mutant.select)
    )
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
    return process.exitcode, (folder / "output.txt").read_text(errors="replace")


def all_selected(tests: str) -> str:
    """A -k for all the tests of a file that some mutant names."""
    selects = sorted({m.select for m in MUTANTS if m.tests == tests})
    return "" if "" in selects else " or ".join(f"({select})" for select in selects)


@pytest.mark.parametrize("tests", sorted({mutant.tests for mutant in MUTANTS}))
def test_a_copy_without_a_mistake_passes(tmp_path, tests):
    unchanged = "class UsageError(ValueError):"
    control = Mutant("none", "config.py", unchanged, unchanged, tests, all_selected(tests))
    code, output = examine(tmp_path, control)
    assert code == 0, output


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mistake_is_noticed(tmp_path, mutant):
    code, output = examine(tmp_path, mutant)
    assert code == 1, f"{mutant.name}: exit code {code}\n{output}"


def test_mutants_have_names_of_their_own():
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
