"""A sweep on a Dask cluster: a real scheduler and two real workers, on this machine."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from unittest import mock

import cloudpickle
import distributed
import numpy as np
import psutil
import pytest
import torch

import lucir_edu
from lucir_edu import cli, cluster, config, datasets, hardware, runs, sweep
from lucir_edu.config import UsageError, parse, preset
from lucir_edu.trainer import EpochEnd, TrainingWarning

QUICK = ["--set", "epochs=1", "--set", "train_per_class=4", "--set", "test_per_class=2",
         "--set", "width=4", "--set", "precision=float32"]  # fmt: skip
FIXED = parse(QUICK[1::2])
GRID = ["sweep", "glyphs-b50-5", *QUICK, "--grid", "method=replay,cosine,lucir"]


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """A client of a cluster that was started as the README tells."""
    folder = tmp_path_factory.mktemp("cluster")
    cards = folder / "scheduler.json"

    def start(*arguments):
        command = [sys.executable, "-m", "dask", *arguments, "--dashboard-address", "127.0.0.1:0"]
        return subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)

    started = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", cards)]
    wait_until(cards.exists)
    with distributed.Client(scheduler_file=str(cards), set_as_default=False) as client:
        address = client.scheduler.address
        started += [
            start(
                "worker", address, "--nthreads", "1", "--memory-limit", "0", "--host", "127.0.0.1"
            )
            for _ in range(2)
        ]
        client.wait_for_workers(2, timeout=60)
        yield client
        client.shutdown()
    for process in started:
        process.wait(timeout=30)


def wait_until(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def halfway(out):
    """A run in a folder that has some of its phases, but not all."""
    try:
        return next((run for run in runs.find([out]) if not run.complete), None)
    except UsageError:  # none, or one that is written at the moment
        return None


def mistake(capsys, *arguments):
    """The line that a command ends with."""
    assert cli.main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr().err.rpartition("\r")[2]  # what comes before removes the bar
    assert printed.startswith("lucir-edu: ") and printed.count("\n") == 1, printed
    return printed


# ---- On this machine ----------------------------------------------------------------------------


def test_a_process_that_is_killed_ends_the_sweep_and_is_told(tmp_path, capsys):
    others = set(multiprocessing.active_children())

    def kill():
        wait_until(lambda: len(list(tmp_path.rglob(".lock"))) == 2)  # both have begun with a run
        (set(multiprocessing.active_children()) - others).pop().kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        said = mistake(capsys, *GRID, "--set", "epochs=50", "--out", tmp_path, "--processes", 2)
    finally:
        thread.join()
    assert "ended from outside" in said and f"kept in {tmp_path}" in said


def test_when_the_sweep_is_killed_its_processes_end_too(tmp_path):
    command = [sys.executable, "-m", "lucir_edu", *GRID, "--set", "epochs=500", "--processes", "2"]
    started = subprocess.Popen([*command, "--out", tmp_path], stderr=subprocess.DEVNULL)
    wait_until(lambda: len(list(tmp_path.rglob(".lock"))) == 2)
    processes = psutil.Process(started.pid).children(recursive=True)
    assert len(processes) >= 2
    started.kill()
    started.wait()
    assert not psutil.wait_procs(processes, timeout=30)[1]


def test_processes_share_the_cores_and_a_base_phase_and_how_much_is_done_is_told(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what each process would take if it were not told
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    told = []
    settings = [{**FIXED, "epochs": 12, "method": m} for m in ("cosine", "lucir", "replay")]
    done = list(
        sweep.sweep("glyphs-b50-5", settings, [0], tmp_path, processes=2,
                    progress=lambda *both: told.append(both))
    )  # fmt: skip
    assert [run["environment"]["threads"] for run in done] == [1, 1, 1], "two processes, two cores"
    base, reused, other = (run["phases"][0]["seconds"] for run in done)
    assert base == reused != other
    shares = [share for share, _ in told]
    assert {count for _, count in told} == {3}
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 3
    assert any(share % 1 for share in shares), "parts of runs count"
    told.clear()
    assert list(sweep.sweep("glyphs-b50-5", settings, [0], tmp_path, processes=2,
                            progress=lambda *both: told.append(both))) == done  # fmt: skip
    assert set(told) == {(3, 3)}, "what is complete counts from the start"


# ---- Runs -------------------------------------------------------------------------------------


def test_a_sweep_on_a_cluster_survives_a_worker_and_ends_like_a_local_one(
    dask, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    there = [*GRID, "--out", "there", "--scheduler", dask.scheduler.address]
    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.main(there)))
    thread.start()
    partial = wait_until(lambda: halfway(tmp_path / "there"))
    name = str(partial.path.relative_to(tmp_path / "there"))
    (worker,) = (w for w, keys in dask.processing().items() if name in [k[1] for k in keys])
    os.kill(dask.run(os.getpid)[worker], signal.SIGKILL)
    killed = runs.load(partial.path)
    assert 1 <= len(killed["phases"]) < 6, "it was finished before it was killed"
    thread.join(timeout=120)
    assert codes == [0]
    output, bar = capsys.readouterr()
    shares = [float(share) for share in re.findall(r"([\d.]+) of 3 runs", bar)]
    assert min(shares) >= 0 and max(shares) <= 3 and any(share % 1 for share in shares)

    resumed = runs.load(partial.path)
    assert resumed.complete
    kept = len(killed["phases"])  # a phase done anew takes other seconds
    assert resumed["phases"][:kept] == killed["phases"]

    assert cli.main([*GRID, "--out", "here"]) == 0
    assert capsys.readouterr().out == output, "the same lines and the same table"
    both = [list(runs.find([tmp_path / name])) for name in ("here", "there")]
    assert len(both[0]) == 3
    for a, b in zip(*both, strict=True):
        assert a.path.relative_to(tmp_path / "here") == b.path.relative_to(tmp_path / "there")
        assert a["environment"] == b["environment"]
        for name in a.arrays:
            np.testing.assert_array_equal(a.arrays[name], b.arrays[name])
        for kind in ("cnn", "nme"):
            assert a.accuracies(kind) == b.accuracies(kind)

    def happened():
        return dask.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)

    before = happened(), [run.path.stat().st_mtime_ns for run in both[1]]
    assert cli.main(there) == 0
    assert capsys.readouterr().out == output
    assert (happened(), [run.path.stat().st_mtime_ns for run in both[1]]) == before
    left = {path.name for path in (tmp_path / "there").iterdir()}
    assert left == {path.name for path in (tmp_path / "here").iterdir()}


def test_ctrl_c_stops_the_workers_and_says_what_is_kept(dask, tmp_path, capsys):
    def interrupt():
        wait_until(lambda: halfway(tmp_path))
        os.kill(os.getpid(), signal.SIGINT)

    dask.wait_for_workers(2, timeout=60)
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        code = cli.main([*GRID, "--out", str(tmp_path), "--scheduler", dask.scheduler.address])
    finally:
        signal.signal(signal.SIGINT, earlier)
        thread.join()
    assert code == 130
    assert f"what is finished is kept in {tmp_path}; run the same command to go on" in (
        capsys.readouterr().err
    )

    def busy(dask_worker):
        return dask_worker.state.executing_count

    wait_until(lambda: not any(dask.run(busy).values()), seconds=20)
    assert halfway(tmp_path), "the run that was going on was not stopped"
    assert not any(dask.processing().values())
    assert not list(tmp_path.glob(".sweep*"))


def start_a_process(out, watch=None):
    """A sweep's run that does nothing but this, as the loader of image files does."""

    def start(*_, **__):
        process = multiprocessing.Process(target=int)
        process.start()
        process.join()
        return process.exitcode

    with mock.patch.object(runs, "perform", start), mock.patch.object(datasets, "load"):
        return sweep._perform(("", None), "", out, out, data_root=None, device="cpu")


def test_runs_elsewhere_may_start_processes_of_their_own(dask, tmp_path):
    (tmp_path / runs.RESULTS).touch()
    with multiprocessing.get_context("spawn").Pool(1, sweep._start_worker, (1, None)) as pool:
        assert pool.apply(start_a_process, (tmp_path,)) == 0

    sign = tmp_path / "sign"
    sign.touch()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers lack this module
    there = dask.submit(
        lambda: cluster._perform_there(start_a_process, tmp_path, sign, hardware.code())
    )
    assert there.result(timeout=60) == 0


def test_a_run_that_is_being_written_is_no_base_and_no_mistake(tmp_path):
    settings = [{**FIXED, "base_classes": 80, "increment": 20}]
    (whole,) = sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "bases")
    damaged = tmp_path / "bases" / "a"
    damaged.mkdir()
    (damaged / runs.RESULTS).write_text("{")
    (run,) = sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "s", bases=tmp_path / "bases")
    assert run.accuracies() == whole.accuracies()
    assert run["phases"][0]["seconds"] == whole["phases"][0]["seconds"], "the base is taken over"


def test_those_with_a_base_phase_of_their_own_come_first():
    jobs = [
        (f"{method}/{seed}", preset(method=method, seed=seed))
        for method in ("replay", "cosine", "lucir", "icarl")
        for seed in (0, 1)
    ]
    names = [name for name, _ in runs.bases_first(jobs)]
    assert names == ["replay/0", "replay/1", "cosine/0", "cosine/1",
                     "lucir/0", "lucir/1", "icarl/0", "icarl/1"]  # fmt: skip
    jobs.append(("other", preset(method="icarl", lr=0.2)))
    assert [name for name, _ in runs.bases_first(jobs)][4] == "other"


def test_where_the_increment_sets_the_base_it_makes_another_base_phase():
    jobs = [
        (f"{method}/{increment}", preset("folder", method=method, increment=increment))
        for increment in (2, 5)
        for method in ("cosine", "lucir")
    ]
    names = [name for name, _ in runs.bases_first(jobs)]
    assert names == ["cosine/2", "cosine/5", "lucir/2", "lucir/5"]


def test_a_run_has_its_share_of_the_cores_however_many_runs_are_left(tmp_path, monkeypatch):
    """The number of threads decides what a run learns, and which base phases it may reuse."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    settings, asked = [{**FIXED, "base_classes": 90}], []

    class Stop(Exception):
        pass

    def pool(count, start, arguments):
        asked.append((count, *arguments[:1]))
        raise Stop

    monkeypatch.setattr(
        multiprocessing, "get_context",
        lambda kind: types.SimpleNamespace(Pool=pool, RawArray=lambda kind, done: done),
    )  # fmt: skip
    for seeds in ([0], [0, 1, 2, 3]):
        with pytest.raises(Stop):
            next(sweep.sweep("glyphs-b50-5", settings, seeds, tmp_path, processes=3))
    assert asked == [(1, 2), (3, 2)]


def test_the_processes_of_a_pool_begin_deaf_to_ctrl_c():
    """They would print their tracebacks while they still import torch."""

    def within():
        with sweep._ctrl_c_ignored():
            found.append(signal.getsignal(signal.SIGINT))

    found, usual = [], signal.default_int_handler
    before = signal.signal(signal.SIGINT, usual)  # (in the background a shell has it ignored)
    try:
        within()
        assert signal.getsignal(signal.SIGINT) is usual
        elsewhere = threading.Thread(target=within)
        elsewhere.start()
        elsewhere.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == [signal.SIG_IGN, usual], "only the main thread may set a handler"


@pytest.mark.parametrize("processes", [1, 2])
def test_data_that_is_missing_costs_its_run_alone(processes, tmp_path):
    (tmp_path / "data").mkdir()
    settings = [{**FIXED, "base_classes": 90, "dataset": name} for name in ("cifar100", "glyphs")]
    done = []
    with pytest.raises(UsageError, match=r"1 of 2 runs failed.*dataset=cifar100/seed0: .*data --"):
        for run in sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "out",
                               data_root=tmp_path / "data", processes=processes):  # fmt: skip
            done.append(run["config"]["dataset"])
    assert done == ["glyphs"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried …")])
def test_a_run_too_large_for_the_machine_costs_itself_alone(error, tmp_path, monkeypatch):
    perform = runs.perform

    def full(config, *arguments, **options):
        if config.width == 5:
            raise error
        return perform(config, *arguments, **options)

    monkeypatch.setattr(runs, "perform", full)
    settings = [{**FIXED, "base_classes": 90, "width": width} for width in (5, 4)]
    done = []
    with pytest.raises(UsageError, match=r"1 of 2 runs failed.*width=5.*/seed0: there is not enou"):
        for run in sweep.sweep("glyphs-b50-5", settings, [0], tmp_path):
            done.append(run["config"]["width"])
    assert done == [4]
    monkeypatch.setattr(runs, "perform", mock.Mock(side_effect=RuntimeError("a mistake of ours")))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(sweep.sweep("glyphs-b50-5", settings[:1], [0], tmp_path))


def test_a_base_phase_that_cannot_be_read_is_learned_again(tmp_path):
    settings = {**FIXED, "base_classes": 90}
    (first,) = sweep.sweep("glyphs-b50-5", [{**settings, "method": "cosine"}], [0], tmp_path)
    network = first.path / "phase_00.safetensors"
    network.write_bytes(network.read_bytes()[:100])
    events = []
    other = {**settings, "method": "lucir"}
    (run,) = sweep.sweep("glyphs-b50-5", [other], [0], tmp_path, watch=events.append)
    assert [e.phase for e in events if isinstance(e, EpochEnd)] == [0, 1]
    assert run["phases"][0]["cnn"] == first["phases"][0]["cnn"]


def test_it_is_told_when_no_run_has_the_base_phase(tmp_path):
    """Who names a folder of them does not expect to wait for hours. It is learned once."""
    settings = [{**FIXED, "base_classes": 90, "method": m} for m in ("cosine", "lucir")]
    (tmp_path / "none").mkdir()
    events = []
    says = r"no run in .*none has learned the base phase of .*method=cosine/seed0; it is learned a"
    with pytest.warns(TrainingWarning, match=says) as told:
        list(sweep.sweep("glyphs-b50-5", settings, [0], tmp_path / "out",
                         bases=tmp_path / "none", watch=events.append))  # fmt: skip
    assert len([one for one in told if "has learned" in str(one.message)]) == 1
    assert [e.phase for e in events if isinstance(e, EpochEnd)] == [0, 1, 1]


def test_a_run_with_many_settings_has_a_name_that_a_disk_takes(tmp_path):
    many = {**FIXED, "base_classes": 90, **{switch: False for switch in config.SWITCHES}}
    settings = [{**many, "margin": 0.123456789, "lr": rate} for rate in (0.05, 0.06)]
    found = [run.path for run in sweep.sweep("glyphs-b50-5", settings, [0], tmp_path)]
    assert len(set(found)) == 2 and all(len(path.parent.name) < 180 for path in found)
    assert all(path.parent.name.startswith("epochs=1,train_per_class=4,") for path in found)
    events = []
    again = list(sweep.sweep("glyphs-b50-5", settings, [0], tmp_path, watch=events.append))
    assert [run.path for run in again] == found and not events


def test_only_the_workers_need_the_device(tmp_path, monkeypatch, capsys):
    """The machine that starts a sweep on a cluster often has no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    there = "tcp://127.0.0.1:1"
    said = mistake(capsys, "sweep", "glyphs-b50-5", "--device", "cuda", "--scheduler", there,
                   "--out", tmp_path / "s")  # fmt: skip
    assert f"no Dask scheduler answers at {there}" in said


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_that_fails_does_not_stop_the_others(processes, tmp_path, capfd):
    """A learning rate at which the loss is no longer a number."""
    arguments = ["sweep", "glyphs-b50-5", *QUICK, "--set", "base_classes=90", "--set",
                 "batch_size=16", "--set", "method=replay", "--grid", "lr=1000,0.05,0.02",
                 "--processes", processes, "--out", str(tmp_path)]  # fmt: skip
    for _ in range(2):  # the second time only the one that failed is tried again
        assert cli.main(arguments) == 2
        printed = capfd.readouterr()
        last = printed.err.rpartition("lucir-edu: ")[2]
        told = r"1 of 3 runs failed, the others are in .*: \S*,lr=1000.0/seed0: the loss is no .*"
        assert re.fullmatch(told, last.strip())
        rows = re.findall(r"^replay .*lr=(\S+)", printed.out, re.M)
        assert rows == ["0.05", "0.02"]
    done = [run["config"]["lr"] for run in runs.find([tmp_path])]
    assert sorted(done) == [0.02, 0.05]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_damaged_run_does_not_stop_the_others(processes, tmp_path, capfd):
    arguments = ["sweep", "glyphs-b50-5", *QUICK, "--set", "base_classes=90", "--seeds", "2",
                 "--processes", processes, "--out", str(tmp_path)]  # fmt: skip
    assert cli.main([*arguments, "--seeds", "1"]) == 0
    (results,) = tmp_path.rglob(runs.RESULTS)
    results.write_text("{")
    assert cli.main(arguments) == 2
    assert "1 of 2 runs failed" in capfd.readouterr().err
    assert [run["seed"] for run in sweep._readable(tmp_path)] == [1]


def test_when_all_runs_fail_alike_it_is_told_once(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise UsageError("no luck")

    monkeypatch.setattr(runs, "perform", fail)
    told = mistake(capsys, *GRID, "--seeds", "2", "--out", str(tmp_path))
    assert told == "lucir-edu: no luck\n"


def test_a_run_is_known_by_its_settings_however_they_were_named(tmp_path):
    settings = [parse(["base_classes=90", "epochs=1", "train_per_class=4", "test_per_class=2"])]
    events = []
    (first,) = sweep.sweep("glyphs-b50-5", settings, [0], tmp_path)
    for other in (dict(reversed(settings[0].items())), {**settings[0], "method": "lucir"},
                  {**settings[0], "workers": 1}):  # fmt: skip
        (again,) = sweep.sweep("glyphs-b50-5", [other], [0], tmp_path, watch=events.append)
        assert again.path == first.path and not events
    (other,) = sweep.sweep("glyphs-b50-5", settings, [1], tmp_path)
    assert other.path != first.path
    assert len(list(runs.find([tmp_path]))) == 2


def test_warnings_of_other_processes_name_the_run(monkeypatch, capsys):
    def one(job, watch):
        warnings.warn("it cannot go well", TrainingWarning, stacklevel=1)
        return job

    monkeypatch.setattr(sweep, "_shares", [0.0])
    assert sweep._perform_here(one, ("lr=9/seed0", preset()), 0) == ("lr=9/seed0", preset())
    told = capsys.readouterr().err
    assert told == "lucir-edu: warning: lr=9/seed0: it cannot go well\n" and sweep._shares == [1]


# ---- Mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "specs", [["lr=0.1", "lr=0.2"], ["cosine", "less_forget,cosine"], ["cosine", "cosine=true"]]
)
def test_a_setting_that_is_named_twice(specs):
    with pytest.raises(UsageError, match="is named twice; give all its values at once"):
        sweep.grid(specs)


@pytest.mark.parametrize(
    "wrong", ["", "local", "host:8786", "tcp://host", "tcp://host:port", "http://host:8786"]
)
def test_a_malformed_address(wrong, tmp_path, capsys):
    said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", tmp_path, "--scheduler", wrong)
    assert "not an address like tcp://host:8786" in said and repr(wrong) in said


@pytest.mark.parametrize("kind", ["closed", "silent", "no certificates"])
def test_nobody_answers(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        scheme = "tls" if kind == "no certificates" else "tcp"
        there = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        out = tmp_path / "s"
        said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", out, "--scheduler", there)
    assert f"no Dask scheduler answers at {there}" in said and not out.exists()


def test_without_dask(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "lucir_edu.cluster")
    monkeypatch.delattr(lucir_edu, "cluster")
    there = "tcp://127.0.0.1:8786"
    said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", tmp_path, "--scheduler", there)
    assert "pip install" in said and "[cluster]" in said


def test_processes_and_a_scheduler(tmp_path, capsys):
    said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", tmp_path, "--processes", 2,
                   "--scheduler", "tcp://127.0.0.1:8786")  # fmt: skip
    assert "exclude each other" in said


@pytest.mark.parametrize(
    ("workers", "says"), [(0, "has no workers"), (1, "does 2 tasks at a time")]
)
def test_workers_that_were_not_started_as_told(workers, says, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=2, processes=False, protocol="tcp",
        host="127.0.0.1", dashboard_address="127.0.0.1:0",
    ) as few:  # fmt: skip
        there = few.scheduler_address
        said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", tmp_path, "--scheduler", there)
    assert says in said and f"dask worker {there} --nthreads 1" in said


def test_a_mistake_that_a_worker_finds(dask, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = mistake(capsys, "sweep", "cifar100-b50-5", "--data-root", "nowhere", "--out", "s",
                   "--scheduler", dask.scheduler.address)  # fmt: skip
    assert f"lucir-edu data --dataset cifar100 --data-root {tmp_path / 'nowhere'}" in said


def test_a_run_that_brings_its_workers_down(dask, tmp_path, capsys):
    def allow(failures):
        def change(dask_scheduler):
            dask_scheduler.allowed_failures = failures

        dask.run_on_scheduler(change)

    def bring_down():
        wait_until(lambda: any(dask.processing().values()))
        for number in dask.run(os.getpid).values():
            os.kill(number, signal.SIGKILL)

    dask.wait_for_workers(2, timeout=60)
    allow(0)
    thread = threading.Thread(target=bring_down)
    thread.start()
    try:
        said = mistake(capsys, *GRID, "--out", tmp_path, "--scheduler", dask.scheduler.address)
    finally:
        allow(3)
        thread.join()
    assert "workers died one after the other while they had" in said and str(tmp_path) in said


def test_a_folder_that_cannot_be_written_to(dask, tmp_path, capsys):
    (tmp_path / "file").touch()
    said = mistake(capsys, "sweep", "glyphs-b50-5", "--out", tmp_path / "file" / "s",
                   "--scheduler", dask.scheduler.address)  # fmt: skip
    assert "cannot write to" in said and "--out" in said


def lack():
    def spoil():  # an inner function, for workers lack this module
        import sys

        sys.modules["lucir_edu"] = None  # as Python has it for a module that is not there

    return spoil


def differ():
    def spoil():
        from lucir_edu import hardware

        hardware.code = lambda: "0123456789ab"

    return spoil


def be_blind():
    def spoil():
        import pathlib

        exists = pathlib.Path.exists
        pathlib.Path.exists = lambda path: "s" not in path.parts and exists(path)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lack, "lacks lucir_edu"),
        (differ, "has another version of lucir_edu (0123456789ab instead of " + hardware.code()),
        (be_blind, "does not see"),
    ],
)
def test_a_worker_that_cannot_do_it(dask, spoil, says, tmp_path, capsys):
    dask.wait_for_workers(2, timeout=60)
    worker = sorted(dask.nthreads())[1]
    dask.run(spoil(), workers=[worker])
    try:
        said = mistake(capsys, "sweep", "glyphs-b50-5", *QUICK, "--out", tmp_path / "s",
                       "--scheduler", dask.scheduler.address)  # fmt: skip
    finally:
        dask.restart_workers([worker])
    assert f"the worker {worker} {says}" in said
    assert list((tmp_path / "s").iterdir()) == []


def test_a_worker_that_came_late_and_cannot_do_it_costs_its_run_alone(tmp_path, monkeypatch):
    """It was not there when the others were inspected."""
    worker = types.SimpleNamespace(address="tcp://late", log_event=lambda *_: None)
    monkeypatch.setattr(cluster, "get_worker", lambda: worker)

    def perform(sign, code):
        return cluster._perform_there(lambda *_, **__: "done", ("job", None), sign, code)

    sees = tmp_path / "sign"
    sees.touch()
    for error in (perform(sees, "another"), perform(tmp_path / "unseen", hardware.code())):
        assert isinstance(error, UsageError) and str(error).startswith("the worker tcp://late ")
    assert perform(sees, hardware.code()) == "done"
