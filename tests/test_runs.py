"""What a run leaves on disk, and that it can be read, continued and compared."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lucir_edu import metrics, runs
from lucir_edu.config import METHODS, Config, UsageError
from lucir_edu.runs import Run, perform
from lucir_edu.trainer import PhaseEnd, PhaseStart, train

FILES = ["arrays.npz", "phase_00.safetensors", "phase_01.safetensors", "phase_02.safetensors",
         "results.json"]  # fmt: skip


class Stopped(Exception):
    pass


def stop_before(phase):
    def watch(event):
        if isinstance(event, PhaseStart) and event.phase == phase:
            raise Stopped

    return watch


def without_seconds(run):
    phases = [{k: v for k, v in phase.items() if k != "seconds"} for phase in run["phases"]]
    return {**run, "phases": phases}


def assert_same_arrays(a, b):
    assert a.arrays.keys() == b.arrays.keys()
    for name, values in a.arrays.items():
        assert values.dtype == b.arrays[name].dtype
        np.testing.assert_array_equal(values, b.arrays[name])


@pytest.fixture
def short(make_config) -> Config:
    return make_config(epochs=1)


@pytest.fixture
def done(short, dataset, tmp_path):
    """A complete run and its folder."""
    folder = tmp_path / "done"
    return perform(short, dataset, preset="toy", out=folder, device="cpu"), folder


@pytest.fixture
def halted(short, dataset, tmp_path):
    """The folder of a run that was stopped before its last phase."""
    folder = tmp_path / "halted"
    with pytest.raises(Stopped):
        perform(short, dataset, preset="toy", out=folder, device="cpu", watch=stop_before(2))
    return folder


# ---- What is written --------------------------------------------------------------------------


def test_a_run_comes_back_from_disk_as_it_was(done):
    run, folder = done
    back = runs.load(folder)
    assert back == json.loads(json.dumps(run)) and back.complete
    assert back.path == folder
    assert_same_arrays(run, back)


def test_a_run_knows_its_folder_at_once(done, short, dataset):
    run, folder = done
    assert run.path == folder == runs.load(folder).path
    other = perform(dataclasses.replace(short, margin=0.2), dataset, base=run, device="cpu")
    assert other.path is None and other["phases"][0]["losses"] == run["phases"][0]["losses"]


def test_a_run_leaves_its_files_and_no_others(done):
    _, folder = done
    assert sorted(path.name for path in folder.iterdir()) == FILES


def test_files_are_as_private_as_the_user_wants_them(short, dataset, tmp_path):
    before = os.umask(0o077)
    try:
        perform(short, dataset, out=tmp_path)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_results_have_what_is_promised(done):
    _, folder = done
    written = json.loads((folder / "results.json").read_text())
    assert {"preset", "config", "seed", "phases", "average_incremental_accuracy", "last_accuracy",
            "forgetting", "environment"} <= set(written)  # fmt: skip
    assert len(written["phases"]) == 3
    for phase in written["phases"]:
        assert {"phase", "classes_seen", "cnn", "nme", "cnn_old", "cnn_new", "old_to_new",
                "weight_norm_old", "weight_norm_new", "seconds"} <= set(phase)  # fmt: skip
    for name in ("average_incremental_accuracy", "last_accuracy", "forgetting"):
        assert set(written[name]) == {"cnn", "nme"}
    assert {"torch", "numpy", "device", "precision", "commit"} <= set(written["environment"])
    assert written["environment"]["device"] == "cpu"
    assert written["environment"]["precision"] == "float32"
    assert set(written["config"]) == set(Config().to_dict())
    assert (written["preset"], written["seed"]) == ("toy", 0)


def test_the_summaries_follow_from_the_phases(done):
    run, _ = done
    for kind in ("cnn", "nme"):
        values = [phase[kind] for phase in run["phases"]]
        assert run.accuracies(kind) == values
        assert run["average_incremental_accuracy"][kind] == pytest.approx(np.mean(values))
        assert run["last_accuracy"][kind] == values[-1]
        matrix = run.accuracy_matrix(kind)
        for t, seen in enumerate((6, 9, 12)):
            counts = run.arrays[f"confusion_{kind}"][t]
            assert counts[:seen, :seen].sum() == counts.sum() == 5 * seen
            assert 100 * np.trace(counts) / counts.sum() == pytest.approx(values[t])
            for j, (a, b) in enumerate([(0, 6), (6, 9), (9, 12)][: t + 1]):
                right = sum(counts[c, c] for c in range(a, b))
                assert matrix[t, j] == pytest.approx(100 * right / (5 * (b - a)))
        assert np.isnan(matrix[np.triu_indices(3, 1)]).all()
        drops = [max(matrix[0, 0], matrix[1, 0]) - matrix[2, 0], matrix[1, 1] - matrix[2, 1]]
        assert run["forgetting"][kind] == pytest.approx(np.mean(drops))


def test_arrays_have_a_row_per_phase_with_nothing_for_classes_to_come(done):
    run, _ = done
    for name in ("weight_norms", "mean_logits", "logit_sds"):
        values = run.arrays[name]
        assert values.shape == (3, 12)
        assert [int(np.isfinite(row).sum()) for row in values] == [6, 9, 12]
        assert np.isnan(values[0, 6:]).all()
    assert "biases" not in run.arrays
    angles = run.arrays["embedding_angles"]
    assert angles.shape == (3, 12, 12) and angles.dtype == np.uint8
    assert angles[0, :6, :6].any() and not angles[0, 6:].any() and not angles[0, :, 6:].any()


def test_a_linear_head_leaves_its_biases(make_config, dataset):
    run = perform(make_config(epochs=1, cosine=False), dataset, device="cpu")
    assert [int(np.isfinite(row).sum()) for row in run.arrays["biases"]] == [6, 9, 12]


@pytest.mark.parametrize("memory", [0, 3])
def test_json_has_no_nan(make_config, dataset, tmp_path, memory):
    config = make_config(epochs=1, exemplars_per_class=memory)
    run = perform(config, dataset, out=tmp_path / "run", device="cpu")

    def refuse(word):
        raise AssertionError(word)

    text = (tmp_path / "run" / "results.json").read_text()
    assert json.loads(text, parse_constant=refuse) == run
    assert (run["average_incremental_accuracy"]["nme"] is None) == (memory == 0)
    assert (run["forgetting"]["nme"] is None) == (memory == 0)
    assert run["phases"][0]["cnn_old"] is None


def test_what_cannot_be_measured_is_not_written_as_a_number(done, tmp_path):
    run, _ = done
    broken = Run({**run, "seed": float("nan")}, run.arrays)
    with pytest.raises(ValueError, match="JSON"):
        runs.save(broken, tmp_path / "broken")
    assert not (tmp_path / "broken" / "results.json").exists()
    assert not list((tmp_path / "broken").glob("*.tmp"))


def test_the_network_and_the_exemplars_are_kept_after_every_phase(short, dataset, tmp_path):
    kept = []

    def watch(event):
        if isinstance(event, PhaseEnd):
            weights = {k: v.clone() for k, v in event.model.state_dict().items()}
            kept.append((weights, list(event.memory.ranked)))

    perform(short, dataset, out=tmp_path / "run", device="cpu", watch=watch)
    for phase, (weights, exemplars) in enumerate(kept):
        state = runs.load_state(tmp_path / "run", phase)
        assert state.phase == phase and state.weights.keys() == weights.keys()
        assert all(torch.equal(state.weights[name], weights[name]) for name in weights)
        assert all(map(torch.equal, state.exemplars, exemplars))


def test_without_a_folder_nothing_is_written(short, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = perform(short, dataset, device="cpu")
    assert run.complete and run.path is None
    assert list(tmp_path.iterdir()) == []


# ---- Going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [1, 2])
def test_a_resumed_run_equals_one_that_was_never_stopped(done, short, dataset, tmp_path, phase):
    whole, folder = done
    out = tmp_path / "stopped"
    with pytest.raises(Stopped):
        perform(short, dataset, preset="toy", out=out, device="cpu", watch=stop_before(phase))
    partial = runs.load(out)
    assert len(partial["phases"]) == phase and not partial.complete
    resumed = perform(short, dataset, preset="toy", out=out, device="cpu", resume=True)
    assert without_seconds(resumed) == without_seconds(whole)
    assert_same_arrays(resumed, whole)
    assert without_seconds(runs.load(out)) == without_seconds(runs.load(folder))
    a, b = (load_file(f / "phase_02.safetensors") for f in (out, folder))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    for before, now in zip(partial["phases"], resumed["phases"], strict=False):
        assert before == now  # seconds included


def test_resuming_a_complete_run_trains_no_more(done, short, dataset):
    run, folder = done
    events = []
    again = perform(short, dataset, out=folder, device="cpu", resume=True, watch=events.append)
    assert again == json.loads(json.dumps(run)) and events == []


@pytest.mark.parametrize("key", ["code", "torch", "device", "precision"])
def test_a_complete_run_of_another_kind_is_returned_as_it_is(done, short, dataset, key):
    run, folder = done
    run["environment"][key] = "another"
    runs.save(run, folder)
    before = (folder / "results.json").read_bytes()
    again = perform(short, dataset, out=folder, device="cpu", resume=True, watch=pytest.fail)
    assert again == json.loads(json.dumps(run)) and runs.stale(again) == (key == "code")
    assert (folder / "results.json").read_bytes() == before


def test_a_base_phase_taken_over_gives_the_same_run(short, dataset, tmp_path):
    other = dataclasses.replace(short, less_forget=False, exemplars_per_class=1)
    perform(other, dataset, out=tmp_path, device="cpu")
    base = runs.load(tmp_path)
    assert runs.same_base(short, dataset, "cpu", [base]) is base
    events = []
    taken = perform(short, dataset, base=base, device="cpu", watch=events.append)
    assert min(e.phase for e in events if isinstance(e, PhaseStart)) == 1
    whole = perform(short, dataset, device="cpu")
    assert without_seconds(taken) == without_seconds(whole)
    assert_same_arrays(taken, whole)
    assert taken["phases"][0]["seconds"] == base["phases"][0]["seconds"]


OTHER_LATER = {
    "exemplars_per_class": 1, "memory_total": 12, "joint": True, "less_forget": False,
    "margin_ranking": False, "imprint": False, "adaptive_lambda": False,
    "freeze_old_embeddings": False, "balanced_finetune": True, "frozen_network": True,
    "score_distillation": True, "distillation": True, "lambda_base": 1.0, "lambda_rule": "paper",
    "top_k": 1, "margin": 0.1, "margin_weight": 2.0, "margin_reduction": "paper",
    "temperature": 1.0, "distillation_weight": 1.0, "balanced_epochs": 3,
    "balanced_lr": 0.1, "workers": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", runs.LATER)
def test_settings_said_to_count_later_do_not_change_the_base_network(done, dataset, tmp_path, name):
    run, folder = done
    config = Config.from_dict(run["config"] | {name: OTHER_LATER[name]})
    assert config.to_dict()[name] != run["config"][name]
    assert runs.same_base(config, dataset, "cpu", [runs.load(folder)])
    with pytest.raises(Stopped):
        perform(config, dataset, out=tmp_path / "other", device="cpu", watch=stop_before(1))
    there, here = (runs.load_state(f, 0).weights for f in (folder, tmp_path / "other"))
    assert all(torch.equal(there[key], here[key]) for key in there | here)


def test_the_increment_counts_later_where_it_does_not_set_the_base(done, dataset):
    run, folder = done
    base, same = runs.load(folder), Config.from_dict(run["config"])
    other = dataclasses.replace(same, increment=4)
    assert other.increment != same.increment
    assert runs.same_base(other, dataset, "cpu", [base])
    base["config"]["base_classes"] = None
    other = dataclasses.replace(other, base_classes=None)
    assert not runs.same_base(other, dataset, "cpu", [base])


def test_a_base_phase_is_not_taken_from_a_run_that_learnt_another(done, dataset, make_dataset):
    run, folder = done
    base, same = runs.load(folder), Config.from_dict(run["config"])
    for name, value in (("seed", 1), ("lr", 0.05), ("cosine", False), ("epochs", 2), ("width", 8)):
        assert not runs.same_base(
            dataclasses.replace(same, **{name: value}), dataset, "cpu", [base]
        )
    other = dataclasses.replace(make_dataset(), fingerprint="another")
    assert not runs.same_base(same, other, "cpu", [base])
    for name, value in (
        ("code", "of yesterday"), ("precision", "bfloat16"), ("threads", 99),
        ("device_name", "another CPU"),
    ):  # fmt: skip
        changed = runs.Run(
            {**base, "environment": {**base["environment"], name: value}}, base.arrays, folder
        )
        assert not runs.same_base(same, dataset, "cpu", [changed])
    (folder / "phase_00.safetensors").unlink()
    assert not runs.same_base(same, dataset, "cpu", [base])


def test_a_run_may_start_from_a_base_network(done, short, dataset):
    run, folder = done
    state = runs.load_state(folder, 0)
    again = perform(short, dataset, preset=run["preset"], start=state, device="cpu")
    assert again["phases"][0]["losses"] == {}, "the base phase was not trained here"
    again["phases"][0]["losses"] = run["phases"][0]["losses"]
    for phase, other in zip(again["phases"], run["phases"], strict=True):
        assert {**phase, "seconds": 0} == {**other, "seconds": 0}


def test_resuming_what_has_not_begun_begins(short, dataset, tmp_path):
    run = perform(short, dataset, out=tmp_path / "new" / "run", device="cpu", resume=True)
    assert run.complete and runs.load(tmp_path / "new" / "run").complete


def test_a_folder_with_a_run_is_not_written_over(done, short, dataset):
    _, folder = done
    before = (folder / "results.json").read_bytes()
    with pytest.raises(UsageError, match="holds a run already; add --resume"):
        perform(short, dataset, out=folder, device="cpu")
    assert (folder / "results.json").read_bytes() == before


def test_changed_settings_are_named(halted, make_config, dataset):
    changed = make_config(epochs=1, lr=0.05, margin=0.25)
    with pytest.raises(UsageError, match=r"other settings \(margin=0.5, lr=0.1\)"):
        perform(changed, dataset, out=halted, device="cpu", resume=True)


def test_other_data_is_told_apart(halted, short, dataset):
    other = type(dataset)(**{**vars(dataset), "fingerprint": "other"})
    with pytest.raises(UsageError, match="a run on other data"):
        perform(short, other, out=halted, device="cpu", resume=True)


@pytest.mark.parametrize("key", ["code", "torch", "device", "precision"])
def test_one_run_is_not_of_two_kinds(halted, short, dataset, key):
    results = halted / "results.json"
    before = json.loads(results.read_text())
    before["environment"][key] = "another"
    results.write_text(json.dumps(before))
    with pytest.raises(UsageError, match=f"begun with {key} another; go on with that, or choose"):
        perform(short, dataset, out=halted, device="cpu", resume=True)
    assert json.loads(results.read_text()) == before


def test_a_run_that_went_on_elsewhere_says_so(halted, short, dataset):
    results = halted / "results.json"
    before = json.loads(results.read_text())
    before["environment"]["threads"] = 99
    results.write_text(json.dumps(before))
    run = perform(short, dataset, out=halted, device="cpu", resume=True)
    here = torch.get_num_threads()
    assert run["environment"]["threads"] == f"99, then {here}"
    assert runs.load(halted)["environment"] == run["environment"]
    assert run["environment"]["torch"] == torch.__version__.partition("+")[0]
    assert not runs.same_base(short, dataset, "cpu", [run])


@pytest.mark.parametrize(("part", "kind"), [("test", "test"), ("train", "training")])
def test_a_class_without_an_image_is_named(short, dataset, part, kind, tmp_path):
    split = getattr(dataset, part)
    rest = split.take(torch.nonzero(split.labels != 10)[:, 0])
    lacking = dataclasses.replace(dataset, **{part: rest})
    told = f"class '{dataset.classes[10]}' has no {kind} image"
    with pytest.raises(UsageError, match=told):
        perform(short, lacking, out=tmp_path / "run", device="cpu")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=told):
        next(train(short, lacking, device="cpu"))


def test_a_run_starts_from_its_base_phase(halted, short, dataset):
    later = runs.load_state(str(halted), 1)
    with pytest.raises(UsageError, match="from a base phase, not from phase 1"):
        perform(short, dataset, device="cpu", start=later)


def test_a_file_is_no_folder(short, dataset, tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UsageError, match="is a file"):
        perform(short, dataset, out=path, device="cpu")
    with pytest.raises(UsageError, match="cannot write to"):
        perform(short, dataset, out=path / "run", device="cpu")


def test_ready_made_base_networks_are_states_after_the_base_phase(
    make_config, dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path)
    for head, cosine in (("linear", False), ("cosine", True)):
        perform(make_config(epochs=1, cosine=cosine), dataset, out=tmp_path / head, device="cpu")
        (tmp_path / head / "phase_00.safetensors").rename(tmp_path / f"toy-{head}.safetensors")
    bases = runs.load_bases("toy")
    assert set(bases) == {"linear", "cosine"}
    assert all(state.phase == 0 and state.exemplars is None for state in bases.values())
    assert "head.eta" in bases["cosine"].weights and "head.new_bias" in bases["linear"].weights
    with pytest.raises(UsageError, match="missing"):
        runs.load_bases("nothing")


# ---- Damage -----------------------------------------------------------------------------------


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGE = {
    "results cut": lambda f: cut(f / "results.json"),
    "results empty": lambda f: (f / "results.json").write_text(""),
    "results not text": lambda f: (f / "results.json").write_bytes(b"\xff\xfe\x00"),
    "results a list": lambda f: (f / "results.json").write_text("[1, 2]"),
    "results of another program": lambda f: (f / "results.json").write_text('{"accuracy": 3}'),
    "config of another program": lambda f: edit(f / "results.json", config={"layers": 3}),
    "config with a wrong value": lambda f: edit(f / "results.json", config={"epochs": -1}),
    "phases missing": lambda f: edit(f / "results.json", phases=[]),
    "environment a list": lambda f: edit(f / "results.json", environment=[]),
    "no classes": lambda f: edit(f / "results.json", bounds=[]),
    "arrays cut": lambda f: cut(f / "arrays.npz"),
    "arrays empty": lambda f: (f / "arrays.npz").write_bytes(b""),
    "arrays not arrays": lambda f: (f / "arrays.npz").write_text("hello"),
    "arrays missing": lambda f: (f / "arrays.npz").unlink(),
    "arrays of another run": lambda f: np.savez(f / "arrays.npz", weight_norms=np.zeros((5, 12))),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_in_one_line(done, damage):
    _, folder = done
    damage(folder)
    with pytest.raises(UsageError, match="damaged") as raised:
        runs.load(folder)
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_without_a_run_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="holds no run"):
            runs.load(folder)
        with pytest.raises(UsageError, match="holds no run"):
            list(runs.find([folder]))


STATE_DAMAGE = {
    "cut": cut,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "text": lambda path: path.write_text("hello"),
    "of another network": lambda path: save_file({"model.w": torch.zeros(2)}, path),
    "no network": lambda path: save_file({"x": torch.zeros(2)}, path),
}


@pytest.mark.parametrize("damage", STATE_DAMAGE.values(), ids=STATE_DAMAGE)
def test_a_damaged_checkpoint_is_told_when_the_run_is_resumed(halted, short, dataset, damage):
    damage(halted / "phase_01.safetensors")
    with pytest.raises(UsageError, match="phase_01") as raised:
        perform(short, dataset, out=halted, device="cpu", resume=True)
    assert "\n" not in str(raised.value)


# ---- Comparing --------------------------------------------------------------------------------


def made_up(method="lucir", preset="glyphs-b50-5", seed=0, average=60.0, nme=50.0, **changes):
    """A run's results without the training: two phases of two classes."""
    known = method if method in METHODS else "lucir"
    config = runs.make_preset(preset, method=known, seed=seed, **changes)
    summary = {"cnn": average, "nme": nme}
    return Run(
        {
            "preset": preset, "method": method, "seed": seed, "config": config.to_dict(),
            "bounds": [0, 2, 4], "phases": [{"old_to_new": None}, {"old_to_new": average / 4}],
            "average_incremental_accuracy": summary, "last_accuracy": {"cnn": average - 10,
            "nme": nme}, "forgetting": {"cnn": 12.0, "nme": nme}, "classes": list("abcd"),
            "environment": {"precision": "float32", "device": "cpu", "torch": "2.15.0"},
        },
        {"weight_norms": np.array([[1.0, 1.0, np.nan, np.nan], [1.0, 3.0, 4.0, 5.0]])},
    )  # fmt: skip


def test_compare_gives_mean_and_standard_deviation_over_seeds():
    averages = [60.0, 63.5, 58.25]
    rows = runs.compare(
        made_up(seed=s, average=a) for s, a in zip((2, 0, 1), averages, strict=True)
    )
    (row,) = rows
    assert (row["preset"], row["label"], row["seeds"]) == ("glyphs-b50-5", "lucir", [0, 1, 2])
    assert row["average (CNN)"] == pytest.approx((np.mean(averages), np.std(averages, ddof=1)))
    old_to_new = np.array(averages) / 4
    expected = (old_to_new.mean(), old_to_new.std(ddof=1))
    assert row["old taken for new"] == pytest.approx(expected)
    assert row["last (CNN)"][0] == pytest.approx(np.mean(averages) - 10)
    assert row["forgetting (CNN)"] == (12, 0)


def test_compare_groups_by_preset_method_and_settings():
    found = [
        made_up(seed=0), made_up(seed=1), made_up("icarl"), made_up(seed=0, lambda_base=2.0),
        made_up(preset="cifar100-b50-5"), made_up(seed=3, workers=0),
    ]  # fmt: skip
    rows = {(row["preset"], row["label"]): row["seeds"] for row in runs.compare(found)}
    assert rows == {
        ("glyphs-b50-5", "lucir"): [0, 1, 3],
        ("glyphs-b50-5", "icarl"): [0],
        ("glyphs-b50-5", "lucir lambda_base=2.0"): [0],
        ("cifar100-b50-5", "lucir"): [0],
    }


def test_firsts_has_the_lowest_seed_of_each_setting(done, make_config, dataset):
    run, _ = done
    other = runs.Run({**run, "seed": run["seed"] + 1}, run.arrays)
    assert runs.firsts([other, run]) == {runs.label(run): run}


def test_one_run_has_no_spread_and_a_missing_figure_stays_missing():
    (row,) = runs.compare([made_up(nme=None)])
    assert row["average (CNN)"] == (60, 0)
    assert row["average (NME)"] is None and row["last (NME)"] is None


def test_the_norm_gap_is_how_much_longer_the_newest_embeddings_are():
    assert runs.norm_gap(made_up()) == pytest.approx(100 * (4.5 / 2 - 1))
    base_only = made_up()
    base_only["phases"] = base_only["phases"][:1]
    assert runs.norm_gap(base_only) is None


def test_settings_tell_runs_apart_whose_method_has_no_name_too():
    switches = {"cosine": False, "less_forget": True}
    named = [runs.label(made_up("linear+lf+mr", **switches, margin=m)) for m in (0.5, 0.2)]
    assert named == ["linear+lf+mr", "linear+lf+mr margin=0.2"]


def test_what_all_labels_name_is_told_apart_from_what_some_do():
    labels = ["lucir epochs=5 lr=0.2", "icarl epochs=5 lr=0.1", "lucir epochs=5 lr=0.2"]
    assert runs.in_common(labels) == (
        ["epochs=5"],
        {"lucir epochs=5 lr=0.2": "lucir lr=0.2", "icarl epochs=5 lr=0.1": "icarl lr=0.1"},
    )
    assert runs.in_common(labels[:1] * 2) == ([], {labels[0]: labels[0]}), "one has no other"
    assert runs.in_common([]) == ([], {})


def test_a_setting_of_several_numbers_is_one_word_of_a_label():
    run = made_up(schedule="steps", milestones=(0.3, 0.7))
    assert runs.label(run) == "lucir schedule=steps milestones=0.3;0.7"


def test_class_orders_are_told_apart_and_compared_together():
    found = [
        made_up(preset="cifar100-b50-5", order_seed=o, average=a) for o, a in ((1, 60), (2, 64))
    ]
    assert [runs.label(run) for run in found] == ["lucir order_seed=1", "lucir order_seed=2"]
    (row,) = runs.compare(found)
    assert (row["label"], row["seeds"]) == ("lucir", [0, 0])
    assert row["average (CNN)"] == pytest.approx((62, 8**0.5))


def test_a_run_of_an_unknown_preset_is_told_from_the_default(done):
    run, _ = done
    label = runs.label({**run, "preset": ""})
    assert label.startswith("lucir base_classes=6 ") and " epochs=1 " in label


def test_the_same_setting_and_seed_twice_are_no_two_seeds():
    with pytest.raises(UsageError, match="have the same preset, settings and seed"):
        runs.compare([made_up(seed=1), made_up(seed=1)])


def test_runs_on_other_classes_are_no_seeds_of_one_row():
    other = made_up(seed=1)
    other["classes"] = list("dcba")  # the same in another order
    assert runs.compare([made_up(), other])[0]["seeds"] == [0, 1]
    other["classes"] = list("abcx")
    with pytest.raises(UsageError, match="glyphs-b50-5, lucir, have different classes"):
        runs.compare([made_up(), other])


@pytest.mark.parametrize("part", ["precision", "device", "threads", "torch"])
def test_a_row_of_runs_that_were_not_computed_alike_is_told(part, recwarn):
    alike, other = [made_up(seed=0), made_up(seed=1)], made_up(seed=2)
    runs.compare(alike)
    assert not recwarn
    other["environment"][part] = "else"
    with pytest.warns(runs.MixtureWarning, match=f"differ in {part} .*else"):
        runs.compare([*alike, other])


def test_a_run_that_is_not_complete_is_not_compared():
    begun = made_up(seed=1)
    del begun["phases"][1]
    with pytest.raises(UsageError, match="a run is not complete"):
        runs.compare([made_up(), begun])


def test_a_thousand_classes_come_back_from_disk(done, tmp_path):
    """Angles between so many embeddings add up to more than images are ever judged."""
    run, _ = done
    phases, classes = 4, 1000
    angles = np.full((phases, classes, classes), 90, np.uint8)
    angles[:, range(classes), range(classes)] = 0
    counts = np.zeros((phases, classes, classes), np.int32)
    counts[:, range(classes), range(classes)] = 50
    phase = run["phases"][0]
    large = Run(
        {
            **run, "classes": [str(c) for c in range(classes)], "bounds": [0, 250, 500, 750, 1000],
            "class_order": list(range(classes)),
            "phases": [{**phase, "phase": p, "classes_seen": 250 * (p + 1)} for p in range(phases)],
            **{key: {"cnn": phase["cnn"], "nme": phase["nme"]}
               for key in ("average_incremental_accuracy", "last_accuracy")},
            "forgetting": {"cnn": 0.0, "nme": None},
        },
        {
            "confusion_cnn": counts, "embedding_angles": angles,
            "weight_norms": np.ones((phases, classes), np.float32),
        },
    )  # fmt: skip
    runs.save(large, tmp_path)
    assert np.array_equal(runs.load(tmp_path).arrays["embedding_angles"], angles)
    large.arrays["embedding_angles"][0, 1, 2] = 181
    runs.save(large, tmp_path)
    with pytest.raises(UsageError, match="embedding_angles has impossible numbers"):
        runs.load(tmp_path)


def test_runs_are_found_below_folders_in_order_of_their_names(done, tmp_path):
    _, folder = done
    for name in ("b/2", "b/1", "a"):
        shutil.copytree(folder, tmp_path / "bank" / name)
    found = [run.path.relative_to(tmp_path / "bank") for run in runs.find([tmp_path / "bank"])]
    assert [str(path) for path in found] == ["a", "b/1", "b/2"]
    assert len(list(runs.find([tmp_path / "bank"]))) == 3


def test_forgetting_of_a_run_that_has_only_begun_is_zero(halted, short, dataset, tmp_path):
    out = tmp_path / "begun"
    with pytest.raises(Stopped):
        perform(short, dataset, out=out, device="cpu", watch=stop_before(1))
    assert runs.load(out)["forgetting"] == {"cnn": 0, "nme": 0}
    middle = runs.load(halted)
    matrix = middle.accuracy_matrix()
    assert matrix.shape == (2, 2)
    assert middle["forgetting"]["cnn"] == pytest.approx(metrics.forgetting(matrix))
