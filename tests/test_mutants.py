"""The tests must fail when the package is wrong: see ``mutants``."""

import shutil
from pathlib import Path

import pytest

from tests import copies
from tests.mutants import MUTANTS, Mutant

TESTS = Path(__file__).parent


def examine(folder: Path, mutant: Mutant) -> tuple[int, str]:
    """The exit code of the mutant's tests on a copy with the mutation, and what they print."""
    copies.make(folder, mutant.file, mutant.old, mutant.new)
    (folder / "tests").mkdir()
    for name in ("conftest.py", mutant.tests):
        shutil.copy(TESTS / name, folder / "tests")
    return copies.run_pytest(folder, ["-k", mutant.select, f"tests/{mutant.tests}"], seconds=120)


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
