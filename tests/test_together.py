"""Two processes that train one network, started by torchrun as users start them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lucir_edu import cli, runs

ROOT = Path(__file__).parents[1]
QUICK = ["--set", "epochs=1", "--set", "train_per_class=4", "--set", "test_per_class=2",
         "--set", "width=4", "--set", "precision=float32", "--set", "base_classes=90"]  # fmt: skip


def torchrun(*arguments, cwd):
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        cwd=cwd, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """What two_processes.py found."""
    folder = tmp_path_factory.mktemp("together")
    done = torchrun(Path(__file__).parent / "two_processes.py", folder / "result", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "result").read_text())


def test_two_processes_have_the_gradients_of_one(learnt):
    """With batches that share evenly, unevenly, and of one image."""
    assert 0 < learnt["gradient_error"] < 1e-4


def test_all_processes_have_the_same_network_exemplars_and_accuracies(learnt):
    assert learnt["ranks_agree"] is True
    assert learnt["exemplars"] == [4] * 12


def test_what_the_first_process_does_first_is_done_when_others_begin_and_it_waits_for_them(learnt):
    assert learnt["all_waited"] is True


def test_two_processes_learn_as_well_as_one(learnt):
    together, alone = (np.array(learnt[key]) for key in ("together", "alone"))
    assert alone.mean() > 40, "nothing is learnt"
    assert abs(together.mean() - alone.mean()) < 2 * np.std(alone, ddof=1)


def test_only_the_first_process_prints_and_warns(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import warnings\nfrom lucir_edu import hardware\nwith hardware.together():\n"
        "    print('printed')\n    warnings.warn('warned', stacklevel=1)\n"
    )
    done = torchrun(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("printed"), done.stderr.count("UserWarning: warned")) == (1, 1)


def test_run_by_torchrun_prints_once_and_leaves_one_set_of_files(tmp_path):
    command = ["-m", "lucir_edu", "run", "glyphs-b50-5", *QUICK, "--out", "run"]
    done = torchrun(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    assert done.stdout.count("results are in run") == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:3]] == [
        ["0", "90"],
        ["1", "100"],
    ]
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    states = ["phase_00.safetensors", "phase_01.safetensors"]
    assert left == ["arrays.npz", *states, "results.json"]
    run = runs.load(tmp_path / "run")
    assert run.complete and run["environment"]["processes"] == 2


def test_a_process_other_than_the_first_waits_before_it_complains(monkeypatch, capsys):
    """torchrun ends it meanwhile, if the first one has the same complaint."""
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    for rank, waits in (("0", []), ("1", [2])):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(["run", "nowhere"]) == 2
        assert waited == waits and capsys.readouterr().err.count("lucir-edu: ") == 1


def test_a_process_that_cannot_go_on_does_not_wait_for_the_others(monkeypatch, capsys):
    """Where others wait in a step for this process, leaving in good order would wait for them."""
    left = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(os, "_exit", left.append)
    assert cli.main(["run", "nonsense"]) == 2
    assert left == [2] and "nonsense" in capsys.readouterr().err
    monkeypatch.setattr(cli, "_run", lambda options: 0)
    assert cli.main(["run", "glyphs-b50-5"]) == 0
    assert left == [2]
