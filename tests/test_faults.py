"""Nothing is lost: killed at any moment, interrupted, a full disk, two runs into one folder."""

import contextlib
import dataclasses
import errno
import os
import random
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lucir_edu import cli, files, hardware, runs, trainer
from lucir_edu.config import UsageError
from lucir_edu.runs import perform
from lucir_edu.trainer import EpochEnd, PhaseEnd, PhaseStart, StepEnd, train

KILLS = 50


class Stopped(Exception):
    pass


def stop(kind, phase, number=1):
    """A watcher that stops at the so-manieth event of a kind in a phase."""
    seen = []

    def watch(event):
        if isinstance(event, kind) and event.phase == phase:
            seen.append(event)
            if len(seen) == number:
                raise Stopped

    return watch


def figures(run):
    """All that is measured, without the clock."""
    phases = [{**phase, "seconds": None} for phase in run["phases"]]
    return {**run, "phases": phases}, {name: a.tobytes() for name, a in run.arrays.items()}


def exemplars(folder):
    return [e.tolist() for e in runs.load_state(folder, 2).exemplars]


@pytest.fixture
def settings(make_config):
    return make_config(epochs=4, warmup=0.3)


@pytest.fixture
def whole(settings, dataset, tmp_path):
    """A run left alone, and its folder."""
    folder = tmp_path / "whole"
    return perform(settings, dataset, out=folder, device="cpu"), folder


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(runs, "KEEP_EVERY", 0.0)


# ---- Going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("setting", ["lucir", "replay", "balanced"])
def test_a_phase_goes_on_from_its_last_epoch_kept(
    phase, setting, settings, dataset, tmp_path, often
):
    changes = {
        "lucir": {},
        "replay": {"cosine": False, "less_forget": False, "margin_ranking": False},
        "balanced": {"balanced_finetune": True, "balanced_epochs": 2},
    }[setting]
    config = type(settings).from_dict({**settings.to_dict(), **changes})
    alone = perform(config, dataset, out=tmp_path / "alone", device="cpu")
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        perform(config, dataset, out=out, device="cpu", watch=stop(EpochEnd, phase, 3))
    assert runs.kept(out).endswith(f"3 epochs of phase {phase}")
    events = []
    run = perform(config, dataset, out=out, device="cpu", resume=True, watch=events.append)
    learnt = [(e.phase, e.epoch) for e in events if isinstance(e, EpochEnd)]
    assert learnt[0] == (phase, 4), "epochs are learnt again"
    assert figures(run) == figures(alone)
    assert exemplars(out) == exemplars(tmp_path / "alone")
    assert not (out / runs.MIDWAY).exists()
    assert runs.kept(out) == "3 finished phases"


@pytest.mark.parametrize("number", [5, 6])
def test_stopped_in_class_balance_tuning_a_phase_goes_on_from_its_last_epoch_before_it(
    number, settings, dataset, tmp_path, often
):
    changes = {"balanced_finetune": True, "balanced_epochs": 2}
    config = type(settings).from_dict({**settings.to_dict(), **changes})
    alone = perform(config, dataset, out=tmp_path / "alone", device="cpu")
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        perform(config, dataset, out=out, device="cpu", watch=stop(EpochEnd, 1, number))
    assert runs.kept(out) == "1 finished phase and 4 epochs of phase 1"
    run = perform(config, dataset, out=out, device="cpu", resume=True)
    assert figures(run) == figures(alone) and exemplars(out) == exemplars(tmp_path / "alone")


def test_stopped_twice_nothing_is_lost(settings, dataset, tmp_path, often):
    alone = perform(settings, dataset, out=tmp_path / "alone", device="cpu")
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        perform(settings, dataset, out=out, device="cpu", watch=stop(EpochEnd, 1, 3))
    for event in (PhaseStart, StepEnd):  # before there is anything new to keep
        with pytest.raises(Stopped):
            perform(settings, dataset, out=out, device="cpu", resume=True, watch=stop(event, 1))
        assert runs.kept(out) == "1 finished phase and 3 epochs of phase 1"
    assert figures(perform(settings, dataset, out=out, device="cpu", resume=True)) == figures(alone)


def test_seconds_go_on_too(settings, dataset, tmp_path, often):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 3))
    identity = runs.safe_open(tmp_path / runs.MIDWAY, "pt").metadata()["identity"]
    midway = runs.load_midway(tmp_path, identity)
    late = type(midway)(**{**vars(midway), "seconds": 1000.0})
    runs.save_midway(late, identity, tmp_path)
    run = perform(settings, dataset, out=tmp_path, device="cpu", resume=True)
    assert 1000 < run["phases"][0]["seconds"] < 1100
    assert run["phases"][1]["seconds"] < 100


def test_a_state_that_was_read_may_be_replaced(whole, settings, dataset, tmp_path, often):
    """No file stays mapped into memory, which Windows would not replace."""
    _, folder = whole
    state = runs.load_state(folder, 2)
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 3))
    identity = runs.safe_open(tmp_path / runs.MIDWAY, "pt").metadata()["identity"]
    midway = runs.load_midway(tmp_path, identity)
    maps = Path("/proc/self/maps")  # of Linux; what is tested is the same everywhere
    mapped = maps.read_text() if maps.exists() else ""
    assert state.weights and midway.tensors and "/midway.safetensors" not in mapped
    assert "/phase_02.safetensors" not in mapped


def test_the_number_of_workers_may_change(settings, dataset, tmp_path, often):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 1, 3))
    other = type(settings).from_dict({**settings.to_dict(), "workers": settings.workers + 1})
    events = []
    perform(other, dataset, out=tmp_path, device="cpu", resume=True, watch=events.append)
    learnt = [(e.phase, e.epoch) for e in events if isinstance(e, EpochEnd)]
    assert learnt[0] == (1, 4)


@pytest.mark.parametrize("other", ["settings", "data"])
def test_a_base_phase_that_was_begun_with_other_settings_or_data_is_not_lost(
    settings, dataset, tmp_path, often, other
):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 3))
    changed, data, says = settings, dataset, "holds a run on other data; choose another --out"
    if other == "settings":
        changed = type(settings).from_dict({**settings.to_dict(), "lr": 0.01})
        says = rf"holds a run with other settings \(lr={settings.lr}\); choose another --out"
    else:
        data = dataclasses.replace(dataset, fingerprint="another")
    with pytest.raises(UsageError, match=says):
        perform(changed, data, out=tmp_path, device="cpu", resume=True)
    assert runs.kept(tmp_path) == "3 epochs of phase 0"
    run = perform(settings, dataset, out=tmp_path, device="cpu", resume=True)
    assert figures(run) == figures(perform(settings, dataset, device="cpu"))


@pytest.mark.parametrize("other", ["code", "torch", "device", "precision"])
def test_a_state_on_another_machine_is_not_gone_on_from(
    settings, dataset, tmp_path, often, monkeypatch, other
):
    """Inside the base phase there are no results yet that would tell."""
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 3))
    assert runs.kept(tmp_path) == "3 epochs of phase 0"
    describe = hardware.describe
    monkeypatch.setattr(hardware, "describe", lambda *a: {**describe(*a), other: "another"})
    learnt = []
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", resume=True,
                watch=lambda e: learnt.append(e) or stop(EpochEnd, 0)(e))  # fmt: skip
    assert learnt[-1].epoch == 1


@pytest.mark.parametrize("damage", [b"", b"nonsense", "cut off", "one letter"])
def test_a_damaged_state_costs_its_phase_alone(whole, settings, dataset, tmp_path, often, damage):
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        perform(settings, dataset, out=out, device="cpu", watch=stop(EpochEnd, 1, 3))
    content = (out / runs.MIDWAY).read_bytes()
    if damage == "cut off":
        damage = content[:-100]
    elif damage == "one letter":
        damage = content.replace(b'\\"epoch\\":', b'\\"epoch\\";')
        assert damage != content
    (out / runs.MIDWAY).write_bytes(damage)
    events = []
    run = perform(settings, dataset, out=out, device="cpu", resume=True, watch=events.append)
    assert figures(run) == figures(whole[0])
    learnt = [(e.phase, e.epoch) for e in events if isinstance(e, EpochEnd)]
    assert learnt[0] == (1, 1)


def test_short_phases_leave_no_state(settings, dataset, tmp_path):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 4))
    assert not (tmp_path / runs.MIDWAY).exists() and runs.kept(tmp_path) == ""


def test_long_phases_leave_a_state_at_most_once_a_minute(
    make_config, dataset, tmp_path, monkeypatch
):
    now, saved = 0.0, []

    def watch(event):
        nonlocal now
        now += 25 * isinstance(event, EpochEnd)

    monkeypatch.setattr(runs, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(runs, "save_midway", lambda midway, *_: saved.append((now, midway.epoch)))
    config = make_config(epochs=8, base_classes=12)
    assert perform(config, dataset, out=tmp_path, device="cpu", watch=watch).complete
    assert saved == [(75, 4), (150, 7)]


def test_a_state_inside_the_base_phase_is_not_overwritten(settings, dataset, tmp_path, often):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(EpochEnd, 0, 2))
    with pytest.raises(UsageError, match="--resume"):
        perform(settings, dataset, out=tmp_path, device="cpu")


# ---- Killed -----------------------------------------------------------------------------------


def test_killed_at_any_moment_a_run_ends_as_if_left_alone(
    whole, settings, dataset, tmp_path, often
):
    """Processes are forked, killed at random moments and followed by others, until one ends."""
    alone, _ = whole
    clock = time.perf_counter()
    perform(settings, dataset, out=tmp_path / "timed", device="cpu")
    seconds = time.perf_counter() - clock
    chance = random.Random(0)
    kills = within = unfinished = number = 0
    while kills < KILLS:
        out, number = tmp_path / f"out {number}", number + 1
        for _ in range(40):
            child = os.fork()
            if not child:
                torch.set_num_threads(1)
                perform(settings, dataset, out=out, device="cpu", resume=True)
                os._exit(0)
            time.sleep(chance.uniform(0, 0.7 * seconds))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            if not os.WIFSIGNALED(status):
                break
            kills += 1
            within += "epoch" in runs.kept(out)
            unfinished += any(out.glob(".*.tmp"))
        run = perform(settings, dataset, out=out, device="cpu", resume=True)
        assert figures(run) == figures(alone)
        assert exemplars(out) == exemplars(tmp_path / "whole")
        assert [path.name for path in out.glob(".*")] == []
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"tested with {KILLS} kills at random moments" in readme
    assert within > KILLS / 5, "too few were killed inside a phase"
    assert unfinished, "none was killed while it wrote"


def test_what_a_run_killed_while_it_wrote_leaves_is_removed(settings, dataset, tmp_path):
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", watch=stop(PhaseStart, 1))
    names = {path.name for path in tmp_path.iterdir()}
    (tmp_path / ".results.json.x1y2z3.tmp").touch()
    (tmp_path / ".phase_00.safetensors.x1y2z3.tmp").touch()
    (tmp_path / ".notes.tmp").write_text("the user's own")
    with pytest.raises(Stopped):
        perform(settings, dataset, out=tmp_path, device="cpu", resume=True,
                watch=stop(PhaseStart, 1))  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {*names, ".notes.tmp"}


def test_what_a_run_killed_at_its_very_end_leaves_is_removed(whole, settings, dataset):
    alone, out = whole
    names = {path.name for path in out.iterdir()}
    for leftover in (runs.MIDWAY, runs.LOCK):
        (out / leftover).touch()
    assert figures(perform(settings, dataset, out=out, device="cpu", resume=True)) == figures(alone)
    assert {path.name for path in out.iterdir()} == names


# ---- The folder -------------------------------------------------------------------------------


def test_arrays_written_before_a_kill_do_not_cost_the_run(whole, settings, dataset, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        perform(settings, dataset, out=out, device="cpu", watch=stop(PhaseStart, 2))
    (out / runs.ARRAYS).write_bytes((whole[1] / runs.ARRAYS).read_bytes())
    half = runs.load(out)
    assert len(half["phases"]) == 2 and {len(a) for a in half.arrays.values()} == {2}
    assert figures(perform(settings, dataset, out=out, device="cpu", resume=True)) == figures(
        whole[0]
    )


@pytest.mark.parametrize("refusals", [0, 2, 3])
def test_a_file_that_another_has_open_is_replaced_a_moment_later(tmp_path, monkeypatch, refusals):
    """As on Windows, where it cannot be replaced just then."""
    target, left, replace = tmp_path / "file", refusals, os.replace

    def refuse(source, to):
        nonlocal left
        left -= 1
        if left >= 0:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, to)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(files, "PAUSES", (0, 0))
    target.write_text("old")
    expected = pytest.raises(PermissionError) if refusals > 2 else contextlib.nullcontext()
    with expected, files.whole(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == ("old" if refusals > 2 else "new")
    assert list(tmp_path.iterdir()) == [target]


def test_two_runs_do_not_share_a_folder(settings, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "LOCK_PATIENCE", 0.1)

    def meanwhile(event):
        if isinstance(event, PhaseStart):
            with pytest.raises(UsageError, match="another run is writing"):
                perform(settings, dataset, out=tmp_path, device="cpu", resume=True)

    run = perform(settings, dataset, out=tmp_path, device="cpu", watch=meanwhile)
    assert run.complete
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "arrays.npz", *(f"phase_0{t}.safetensors" for t in range(3)), "results.json"
    ]  # fmt: skip


def test_a_run_waits_for_one_that_was_just_stopped_to_leave(settings, dataset, tmp_path):
    lock = runs.FileLock(tmp_path / runs.LOCK, thread_local=False)
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    assert perform(settings, dataset, out=tmp_path, device="cpu").complete


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB and True; a folder and False where none can be mounted, but for root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True
    ).returncode
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_keeps_what_is_there(whole, settings, dataset, small_disk, monkeypatch, often):
    disk, mounted = small_disk
    out = disk / "run"
    full = [mounted]
    if not mounted:  # then the disk is full from the second phase on

        def as_bytes(*content):
            if full[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return made(*content)

        made = runs.as_bytes
        monkeypatch.setattr(runs, "as_bytes", as_bytes)

    ballast = disk / "ballast"

    def fill(event):
        if isinstance(event, PhaseEnd) and event.measurement.phase == 0:
            full[0] = True
            if mounted:
                with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError):
                    while file.write(b"x" * 4096):
                        pass

    with pytest.raises(UsageError) as told:
        perform(settings, dataset, out=out, device="cpu", watch=fill)
    assert "No space left" in str(told.value) and "1 finished phase is kept" in str(told.value)
    assert runs.load(out)["phases"] == figures_of_first(whole[0], out)
    full[0] = False
    ballast.unlink(missing_ok=True)
    run = perform(settings, dataset, out=out, device="cpu", resume=True)
    assert figures(run) == figures(whole[0])
    assert not any(out.glob(".*"))


def figures_of_first(run, out):
    """The first phase of a run, with the seconds that a folder's run has."""
    return [{**run["phases"][0], "seconds": runs.load(out)["phases"][0]["seconds"]}]


# ---- Training that goes wrong -----------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run_and_says_where(
    settings, dataset, tmp_path, monkeypatch, value
):
    monkeypatch.setattr(trainer, "LOOK_EVERY", 2)
    calls = []
    plain = trainer.losses.less_forget

    def broken(*arguments):
        calls.append(1)
        return plain(*arguments) * (value if len(calls) == 4 else 1)

    monkeypatch.setattr(trainer.losses, "less_forget", broken)
    steps = []
    with pytest.raises(UsageError) as told:
        perform(
            settings, dataset, out=tmp_path, device="cpu",
            watch=lambda e: isinstance(e, StepEnd) and e.phase == 1 and steps.append(e.step),
        )  # fmt: skip
    words = str(told.value)
    assert "less forget in phase 1, step 4" in words and "lower lr=0.1" in words
    assert steps[-1] <= 4, "goes on"
    assert len(runs.load(tmp_path)["phases"]) == 1


def test_a_head_that_predicts_one_class_is_told(settings, dataset, monkeypatch, tmp_path, capsys):
    plain = trainer.evaluate

    def one_class(*arguments):
        output = plain(*arguments)
        return output._replace(
            logits=output.logits * 0 + torch.eye(12)[2, : output.logits.shape[1]]
        )

    monkeypatch.setattr(trainer, "evaluate", one_class)
    with pytest.warns(trainer.TrainingWarning, match="after phase 0 the head predicts one class"):
        next(e for e in train(settings, dataset, device="cpu") if isinstance(e, PhaseEnd))

    monkeypatch.chdir(tmp_path)
    arguments = ["run", "glyphs-b50-5", "--set", "train_per_class=1", "--set", "test_per_class=1",
                 "--set", "width=1", "--set", "base_classes=90", "--set", "epochs=1",
                 "--set", "feature_dim=1", "--set", "lr=0.0"]  # fmt: skip
    monkeypatch.setattr(
        trainer,
        "evaluate",
        lambda *arguments: (o := plain(*arguments))._replace(logits=o.logits * 0),
    )
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    told = [line for line in lines if "warning: after phase" in line]
    assert len(told) == 2 and all("lucir-edu: warning: after phase" in line for line in told)
    assert not any("TrainingWarning" in line for line in lines)


def test_nothing_is_told_of_a_training_that_goes_well(settings, dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert perform(settings, dataset, device="cpu").complete


def test_answers_that_are_no_numbers_end_the_run(settings, dataset, tmp_path, monkeypatch):
    """As after a last step that was too large, of which no loss tells any more."""
    plain = trainer.evaluate

    def broken(net, *arguments):
        output = plain(net, *arguments)
        return output._replace(logits=output.logits / (0 if net.num_classes == 9 else 1))

    monkeypatch.setattr(trainer, "evaluate", broken)
    with pytest.raises(UsageError, match=r"diverged in phase 1: .* lower lr=0\.1"):
        perform(settings, dataset, out=tmp_path, device="cpu")
    assert len(runs.load(tmp_path)["phases"]) == 1


def test_too_large_steps_are_told_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "glyphs-b50-5", "--set", "lr=1000", "--set", "train_per_class=8",
                 "--set", "epochs=3", "--set", "width=4", "--set", "cosine=false",
                 "--set", "weight_decay=1", "--out", "run"]  # fmt: skip
    assert cli.main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lucir-edu: the loss is no longer a number: cross entropy in phase 0")


def test_a_tuning_that_diverges_names_its_own_rate(settings, dataset):
    wild = dataclasses.replace(settings, balanced_finetune=True, balanced_lr=1000.0, lr=0.001,
                               cosine=False, weight_decay=1000.0)  # fmt: skip
    with pytest.raises(
        UsageError, match=r"in class-balance tuning of phase 1, .* lower balanced_lr=1000\.0"
    ):
        perform(wild, dataset, device="cpu")


def test_what_midway_keeps_is_all_that_training_depends_on(settings, dataset):
    """From the middle of a phase two trainings make the same steps, to the last bit."""
    kept, losses = None, []
    for event in train(settings, dataset, device="cpu"):
        if isinstance(event, EpochEnd) and (event.phase, event.epoch) == (0, 2):
            kept = event.midway()
        elif kept and isinstance(event, StepEnd):
            losses.append(event.losses["cross_entropy"].item())
        elif kept and isinstance(event, PhaseEnd):
            break
    again = []
    for event in train(settings, dataset, device="cpu", midway=kept):
        if isinstance(event, StepEnd):
            again.append(event.losses["cross_entropy"].item())
        elif isinstance(event, PhaseEnd):
            break
    assert again == losses and len(np.unique(again)) > 1
