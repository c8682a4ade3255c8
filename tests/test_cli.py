"""The command line as a user meets it: in its own process, judged by what it prints and leaves."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lucir_edu import cli, datasets, runs, sweep
from lucir_edu.config import UsageError, parse
from lucir_edu.trainer import PhaseStart

QUICK = ["--set", "epochs=1", "--set", "train_per_class=4", "--set", "test_per_class=2",
         "--set", "width=4", "--set", "precision=float32"]  # fmt: skip


# Two tests run at a time, and threads would wait for each other's cores
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def lucir_edu(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "lucir_edu", *map(str, arguments)],
        env=ONE_THREAD,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["run"], "PRESET"),
        (["run", "glyphs-b50"], "did you mean 'glyphs-b50-5'"),
        (["run", "glyphs-b50-5", "--set", "cosin=true"], "did you mean 'cosine'"),
        (["run", "glyphs-b50-5", "--set", "lr=fast"], "lr='fast' is not a finite number"),
        (["run", "glyphs-b50-5", "--set", "lr=nan"], "lr=nan is not a finite number"),
        (["run", "glyphs-b50-5", "--set", "cosine=maybe"], "true or false"),
        (["run", "glyphs-b50-5", "--set", "epochs"], "lacks a value"),
        (["run", "glyphs-b50-5", "--set", "method=lucid"], "did you mean 'lucir'"),
        (["run", "glyphs-b50-5", "--set", "increment=7"], "divides evenly"),
        (["run", "glyphs-b50-5", "--set", "increment=1"], "top_k=2"),
        (["run", "glyphs-b50-5", "--set", "base_classes=200"], "100 classes do not make"),
        (["run", "glyphs-b50-5", "--seed", "x"], "invalid int"),
        (["run", "glyphs-b50-5", "--device", "cuda"], "no cuda device"),
        (["run", "cifar100-b50-5", "--data-root", "nowhere"], "lucir-edu data --dataset cifar100"),
        (["run", "folder", "--data-root", "nowhere"], "a folder of images for every class"),
        (["run", "glyphs-b50-5", "--out", "a_file"], "is a file"),
        (["run", "glyphs-b50-5", "--data-root", "a_file"], "is a file"),
        (["sweep", "glyphs-b50-5", "--grid", "colour", "--out", "s"], "no setting 'colour'"),
        (["sweep", "glyphs-b50-5", "--grid", "cosine,epochs"], "gives epochs no values; write epo"),
        (["sweep", "glyphs-b50-5", "--grid", "method"], "'method' gives method no values"),
        (["run", "glyphs-b50-5", "--seed", "3", "--set", "seed=4"], "leave one out"),
        (["sweep", "glyphs-b50-5", "--seeds", "0", "--out", "s"], "at least one seed"),
        (["sweep", "glyphs-b50-5", "--processes", "0", "--out", "s"], "at least one process"),
        (
            ["sweep", "glyphs-b50-5", "--grid", "method=replay,cosine", "--grid", "cosine"],
            "method=replay,cosine=False and method=cosine,cosine=False would be one row",
        ),
        (
            ["sweep", "glyphs-b50-5", "--grid", "less_forget,adaptive_lambda"],
            "less_forget=False,adaptive_lambda=False and less_forget=False,adaptive_lambda=True",
        ),
        (
            ["sweep", "glyphs-b50-5", "--grid", "method=lucir,lucir"],
            "method=lucir and method=lucir",
        ),
        (["report", "nowhere"], "holds no run"),
        (["bench", "--rounds", "0"], "at least one"),
        (["bench", "--json", "a_file/x.json"], "cannot write a_file/x.json"),
        (["data", "--dataset", "mnist"], "invalid choice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gives_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    if "cuda" in arguments and torch.cuda.is_available():
        arguments = ["run", "glyphs-b50-5", "--device", "gpu"]
        says = "invalid choice"
    (tmp_path / "a_file").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.startswith("lucir-edu: ") and printed.err.count("\n") == 1
    assert printed.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file"], "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["grade", "b.ipynb", "--csv"], "a.ipynb"),
        (["report", "run", "--html"], "run/results.json"),
        (["bench", "--json"], "run/results.json"),
        (["bench", "--json"], "run/table.csv"),
    ],
)
def test_only_a_file_of_the_same_kind_is_replaced(arguments, name, tmp_path, monkeypatch, capsys):
    """In `grade --csv *.ipynb` the shell names a learner's notebook there."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("hours of work")
    assert cli.main([*arguments, name]) == 2
    assert f"{name} exists, and is not what is to be written" in capsys.readouterr().err
    assert file.read_text() == "hours of work" and len(list(file.parent.iterdir())) == 1


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert not ended.value.code and re.fullmatch(r"lucir-edu [\d.]+\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", ["sweep glyphs-b50-5", "report runs", "bench", "data"])
def test_torchrun_is_for_one_run(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match="2"):
        cli.main(command.split())
    assert "torchrun is for `run` alone" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_what_is_printed_may_have_nowhere_to_go(closed, finished, monkeypatch):
    """`>&-` in a shell, and every program without a console on Windows."""
    folder, _ = finished
    monkeypatch.setattr(sys, closed, None)
    assert cli.main(["report", str(folder / "run")]) == 0
    assert cli.main(["report", "nowhere"]) == 2


def test_the_exit_code_reaches_the_shell(tmp_path):
    result = lucir_edu("run", "glyphs-b50", cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "did you mean" in result.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a quick run, its output, and how it ended."""
    folder = tmp_path_factory.mktemp("run")
    return folder, lucir_edu("run", "glyphs-b50-5", *QUICK, "--out", "run", cwd=folder)


def test_run_prints_a_table_and_keeps_what_the_contract_names(finished):
    folder, result = finished
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].split()[:4] == ["phase", "classes", "CNN", "NME"]
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:7]] == [
        [str(phase), str(50 + 10 * phase)] for phase in range(6)
    ]
    assert "phase 5 of 5" in result.stderr, "no progress bar"
    left = {path.name for path in (folder / "run").iterdir()}
    states = {f"phase_{phase:02d}.safetensors" for phase in range(6)}
    assert left == {"results.json", "arrays.npz", *states}
    stored = json.loads((folder / "run" / "results.json").read_text())
    summary = "average_incremental_accuracy last_accuracy forgetting environment"
    assert {"preset", "config", "seed", "phases", *summary.split()} <= stored.keys()
    figures = "cnn nme cnn_old cnn_new old_to_new weight_norm_old weight_norm_new seconds"
    assert {"phase", "classes_seen", *figures.split()} <= stored["phases"][0].keys()
    for key in ("average_incremental_accuracy", "last_accuracy", "forgetting"):
        assert stored[key].keys() == {"cnn", "nme"}
    assert stored["config"]["width"] == 4 and stored["preset"] == "glyphs-b50-5"


def test_run_prints_what_it_writes(finished):
    folder, result = finished
    stored = json.loads((folder / "run" / "results.json").read_text())
    _, *rows, _, kinds, average, last, forgetting, _, end = result.stdout.splitlines()
    keys = ("cnn", "nme", "cnn_old", "cnn_new", "old_to_new", "seconds")
    for row, phase in zip(rows, stored["phases"], strict=True):
        figures = ["–" if phase[key] is None else f"{phase[key]:.1f}" for key in keys]
        assert row.split() == [str(phase["phase"]), str(phase["classes_seen"]), *figures]
    assert kinds.split() == ["CNN", "NME"]
    for line, name, key in (
        (average, "average", "average_incremental_accuracy"),
        (last, "last", "last_accuracy"),
        (forgetting, "forgetting", "forgetting"),
    ):
        assert line.split() == [name, *(f"{stored[key][kind]:.2f}" for kind in ("cnn", "nme"))]
    assert end == "glyphs-b50-5, lucir, seed 0; results are in run"


def test_a_folder_is_named_for_what_is_run(monkeypatch, capsys):
    def perform(*_, out, **__):
        raise UsageError(f"to {out.as_posix()}")

    monkeypatch.setattr(runs, "perform", perform)
    for switches, name in (
        (["method=replay"], "replay"),
        (["method=replay", "cosine=true"], "cosine"),
        (["cosine=false"], "linear+lf+mr"),
    ):
        chosen = [part for switch in switches for part in ("--set", switch)]
        assert cli.main(["run", "glyphs-b50-5", *chosen, "--seed", "3"]) == 2
        assert f"to runs/glyphs-b50-5/{name}-seed3\n" in capsys.readouterr().err


def test_run_does_not_overwrite_and_resume_has_nothing_left_to_do(finished):
    folder, _ = finished
    before = (folder / "run" / "results.json").read_bytes()
    again = lucir_edu("run", "glyphs-b50-5", *QUICK, "--out", "run", cwd=folder)
    assert again.returncode == 2 and "--resume" in again.stderr
    other = lucir_edu("run", "glyphs-b50-5", *QUICK, "--seed", 1, "--out", "run", "--resume",
                      cwd=folder)  # fmt: skip
    assert other.returncode == 2 and "seed=0" in other.stderr
    resumed = lucir_edu("run", "glyphs-b50-5", *QUICK, "--out", "run", "--resume", cwd=folder)
    assert resumed.returncode == 0
    assert (folder / "run" / "results.json").read_bytes() == before


def test_interrupted_run_keeps_its_phases_and_resume_ends_like_an_uninterrupted_one(
    finished, tmp_path
):
    folder, _ = finished
    command = [sys.executable, "-m", "lucir_edu", "run", "glyphs-b50-5", *QUICK, "--out", "run"]
    # A shell in the background may ignore SIGINT; the child must not inherit that.
    process = subprocess.Popen(
        command,
        env=ONE_THREAD,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    results = tmp_path / "run" / "results.json"
    deadline = time.monotonic() + 120
    while not results.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "kept in run; go on with the same command and --resume" in errors
    assert "Traceback" not in errors
    kept = len(json.loads(results.read_text())["phases"])
    assert 1 <= kept < 6

    resumed = lucir_edu("run", "glyphs-b50-5", *QUICK, "--out", "run", "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    one, other = runs.load(folder / "run"), runs.load(tmp_path / "run")
    for ours, theirs in zip(one["phases"], other["phases"], strict=True):
        assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    assert one.arrays.keys() == other.arrays.keys()
    for name, values in one.arrays.items():
        assert values.tobytes() == other.arrays[name].tobytes(), name


def test_sweep_does_the_grid_and_goes_on_and_report_compares(tmp_path):
    command = ["sweep", "glyphs-b50-5", *QUICK, "--set", "base_classes=80", "--grid",
               "method=replay,lucir", "--seeds", 2, "--out", "s"]  # fmt: skip
    first = lucir_edu(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    found = sorted(tmp_path.rglob("results.json"))
    assert len(found) == 4
    times = [path.stat().st_mtime_ns for path in found]
    again = lucir_edu(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert [path.stat().st_mtime_ns for path in found] == times, "done again"

    report = lucir_edu("report", "s", "--html", "page.html", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    rows = runs.compare(runs.find([tmp_path / "s"]))
    assert {tuple(row["seeds"]) for row in rows} == {(0, 1)} and len(rows) == 2
    page = (tmp_path / "page.html").read_text()
    for row in rows:
        mean, sd = row["average (CNN)"]
        assert f"{mean:.2f} ± {sd:.2f}" in " ".join(page.split())
        assert f"{mean:.2f} ± " in " ".join(report.stdout.split())
        shared = row["label"].partition(" ")[2]
        assert "base_classes=80" in shared
        heading, _, *lines = report.stdout.splitlines()[:4]
        assert heading.startswith(f"glyphs-b50-5 {shared}: "), "told once"
        assert not any("=" in line for line in lines), lines
    assert page.count("<img alt=") == 5  # accuracies; head and confusion of both
    assert page.count("<noscript>") == 1
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)  # a browser test watches those
    assert 'src="http' not in markup and "href=" not in markup, "asks for other files"


def test_sweep_with_several_processes_gives_the_same_runs(tmp_path):
    command = ["sweep", "glyphs-b50-5", *QUICK, "--set", "base_classes=80", "--grid",
               "method=replay,lucir"]  # fmt: skip
    one = lucir_edu(*command, "--out", "one", cwd=tmp_path)
    two = lucir_edu(*command, "--out", "two", "--processes", 2, cwd=tmp_path)
    assert two.returncode == 0, two.stderr
    assert one.stdout.splitlines()[-3:] == two.stdout.splitlines()[-3:], "the same table"
    assert "2/2 " in two.stdout
    for a, b in zip(*(runs.find([tmp_path / name]) for name in ("one", "two")), strict=True):
        assert a.path.relative_to(tmp_path / "one") == b.path.relative_to(tmp_path / "two")
        assert (a.accuracies(), a["environment"]) == (b.accuracies(), b["environment"])


def test_sweep_learns_a_common_base_phase_once(tmp_path, monkeypatch):
    fixed = parse(["base_classes=80", *QUICK[1::2]])
    settings = [{**fixed, "method": method} for method in ("cosine", "lucir", "replay")]
    learnt = []

    def watch(event):
        if isinstance(event, PhaseStart) and event.phase == 0:
            learnt.append(event)

    done = list(sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "s", watch=watch))
    assert len(learnt) == 2, "one with the cosine head, one with the linear"
    (alone,) = sweep.sweep("glyphs-b50-5", settings[1:2], [0], tmp_path / "t")
    assert done[1].accuracies() == alone.accuracies()
    assert done[1]["phases"][0]["losses"] == alone["phases"][0]["losses"]

    twice = [{**settings[1], "base_classes": 80, "increment": 20}]
    (other,) = sweep.sweep(
        "glyphs-b50-5", twice, [0], tmp_path / "u", bases=tmp_path / "s", watch=watch
    )
    assert len(learnt) == 2 and other["phases"][0]["cnn"] == done[1]["phases"][0]["cnn"]

    monkeypatch.setattr(runs, "same_base", lambda *_: pytest.fail("looks for what it has"))
    again = list(sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "s", watch=watch))
    assert again == done and len(learnt) == 2, "complete runs are not done again"


def test_report_leaves_out_a_run_that_is_not_complete(finished, tmp_path, capsys):
    folder, _ = finished
    shutil.copytree(folder / "run", tmp_path / "whole")
    half = runs.load(folder / "run")
    half["phases"] = half["phases"][:3]
    half.arrays = {name: values[:3] for name, values in half.arrays.items()}
    half.update(runs._summaries(half))
    runs.save(half, tmp_path / "half")
    assert cli.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "not complete" in printed.err and "half" in printed.err
    mean = runs.load(folder / "run")["average_incremental_accuracy"]["cnn"]
    row = printed.out.splitlines()[-1]
    assert f"1  {mean:9.2f}  " in row, "one seed, that of the whole run"
    assert "±" not in row, "one run has no standard deviation"
    assert cli.main(["report", str(tmp_path / "half")]) == 2
    assert "none of the runs is complete" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_whole_leaves_the_one_before(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    page.write_text("the one before")

    def half(path, text, **kwargs):
        path.write_bytes(text[:100].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    bank = runs.BANK / "glyphs-b50-5" / "finetune"
    assert cli.main(["report", str(bank), "--html", str(page)]) == 2
    printed = capsys.readouterr()
    assert "No space left on device" in printed.err and "written" not in printed.out
    assert page.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize(
    ("command", "room", "needs"),
    [
        (["report", "data/bank", "--html", "page.html"], "report", "plotly"),
        (["grade", "any.ipynb"], "handed_in", "nbformat"),
    ],
)
def test_without_jupyter_what_needs_it_is_told(command, room, needs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, needs, None)
    monkeypatch.delitem(sys.modules, f"lucir_edu.lab.{room}", raising=False)
    monkeypatch.delattr(f"lucir_edu.lab.{room}", raising=False)
    assert cli.main(command) == 2
    printed = capsys.readouterr()
    assert f"({needs}" in printed.err and '".[lab]"' in printed.err and not printed.out


def test_runs_of_other_code_are_named(finished, tmp_path, capsys):
    folder, _ = finished
    for name in ("one", "two"):
        shutil.copytree(folder / "run", tmp_path / name)
        run = runs.load(tmp_path / name)
        run["seed"] = run["config"]["seed"] = run["seed"] + (name == "two")
        run["environment"]["code"] = "older"
        runs.save(run, tmp_path / name)
    assert cli.main(["report", str(folder / "run")]) == 0
    assert "another version" not in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path)]) == 0
    told = f"by another version of the code: {tmp_path / 'one'} and 1 more; to recompute one"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "folder"),
    [(["run", "--resume"], ""), (["sweep"], f"{','.join(QUICK[1::2])}/seed0")],
    ids=["run", "sweep"],
)
def test_a_complete_run_of_other_code_is_not_done_again_but_named(
    command, folder, finished, tmp_path, monkeypatch, capsys
):
    run = runs.load(finished[0] / "run")
    run["environment"]["code"] = "older"
    runs.save(run, tmp_path / folder)
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("done again"))
    name, *options = command
    assert cli.main([name, "glyphs-b50-5", *QUICK, *options, "--out", str(tmp_path)]) == 0
    told = f"by another version of the code: {tmp_path / folder}; to recompute one, remove"
    assert told in capsys.readouterr().err
    assert runs.load(tmp_path / folder) == run


def test_a_sign_that_the_output_has_no_letter_for_ends_nothing(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert cli.main(["report", str(runs.BANK / "glyphs-b50-5" / "finetune")]) == 0
    sys.stdout.flush()
    heading, _, row = written.getvalue().decode().splitlines()
    assert "mean ? sd" in heading and row.startswith("finetune")


def test_data_tells_what_is_there(tmp_path):
    result = lucir_edu("data", "--data-root", "d", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "100 classes, 10000 training and 5000 test images" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "buffered"),
    [
        (["run", "--help"], True),
        (["report", runs.BANK / "questions"], True),
        (["report", runs.BANK / "questions"], False),
    ],
)
def test_a_closed_pipe_is_no_error(arguments, buffered, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONUNBUFFERED": "" if buffered else "1"}
    result = subprocess.run(
        [sys.executable, "-m", "lucir_edu", *arguments], cwd=tmp_path, env=environment,
        stdout=writer, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    assert result.returncode == 141
    assert all(line.startswith("lucir-edu: warn") for line in result.stderr.splitlines())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), "/dev/shm"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "batch_size"),
        (MemoryError(), "batch_size"),
        (None, "batch_size"),
    ],
)
def test_what_the_machine_runs_out_of_is_told_in_a_line(error, says, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        if error is None:
            torch.empty(10**14)  # in torch's own words
        raise error

    monkeypatch.setattr(runs, "perform", fail)
    monkeypatch.setattr(datasets, "load", lambda *_: None)
    assert cli.main(["run", "glyphs-b50-5", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and said.endswith("what is finished is kept\n")


def test_other_errors_are_not_hidden(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(runs, "perform", fail)
    monkeypatch.setattr(datasets, "load", lambda *_: None)
    with pytest.raises(RuntimeError, match="ours"):
        cli.main(["run", "glyphs-b50-5", "--out", str(tmp_path / "run")])
