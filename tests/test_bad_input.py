"""Whatever a user gets wrong ends in one line that names it, exit code 2, and no file left behind.

Cases are derived from the dataclass of settings, from the command line's own choices, and from
small real files that Hypothesis damages; nothing here needs the network or CIFAR-100.
"""

import ast
import base64
import contextlib
import dataclasses
import gzip
import hashlib
import html.parser
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import time
import typing
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torchvision.datasets import CIFAR100

from lucir_edu import bench, cli, config, datasets, runs, trainer
from lucir_edu.config import METHODS, PRESETS, Config, UsageError
from lucir_edu.lab import explorer, plots, report, views

ROOT = Path(__file__).parents[1]
LIMIT = 5  # seconds, of any answer
FUZZ = settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def untrained(monkeypatch):
    """Nothing may be trained: a case that is not refused fails at once."""

    def refuse(*_, **__):
        raise AssertionError("trained")

    monkeypatch.setattr(runs, "train", refuse)
    monkeypatch.setattr(bench, "measure", refuse)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An own folder to work in, with a file in it."""
    (tmp_path / "a_file").write_text("text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder):
    paths = sorted(Path(folder).rglob("*"))
    return [(p, p.stat().st_mtime_ns if p.is_file() else 0) for p in paths if not p.is_symlink()]


def refused(arguments, folder="."):
    """The line with which a command is refused; all that goes for every refusal is asserted."""
    before, began = snapshot(folder), time.monotonic()
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        code = cli.main(arguments)
    assert time.monotonic() - began < LIMIT
    assert code == 2, out.getvalue()[:1000]
    line = err.getvalue()
    assert re.fullmatch(r"lucir-edu: [^\n\r]{10,800}\n", line), line
    assert out.getvalue() == ""
    assert snapshot(folder) == before, "something is left behind"
    return line


def run_with(*pairs, preset="glyphs-b50-5", command="run"):
    return [command, preset, *(part for pair in pairs for part in ("--set", pair))]


# ---- Settings -----------------------------------------------------------------------------------

HINTS = typing.get_type_hints(Config)
BAD_TEXT = {  # of any setting of the kind, whatever its range
    int: (
        "",
        "x",
        "1.5",
        "1e3",
        "nan",
        "inf",
        "true",
        "-1",
        "9" * 30,
        "9" * 5000,
        "0x10",
        "1 2",
    ),
    float: ("", "x", "nan", "inf", "-inf", "1e999", "true", "-1", "1e30", "1,5", "--", "9" * 5000),
    bool: ("", "maybe", "2", "-1", "nan", "0.5", "truee"),
    str: ("", "x", "nan", "3", "y" * 5000),
    tuple: ("", ",", "a", "nan", "0.5,inf", "-1", "2", "0", "0.5,,0.6", "0.5;0.6"),
}
NAMES = [field.name for field in dataclasses.fields(Config)]


def kinds(name):
    found = typing.get_args(HINTS[name]) or (HINTS[name],)
    return [tuple if typing.get_origin(HINTS[name]) is tuple else kind for kind in found]


def kind_of(name):
    return tuple if tuple in kinds(name) else next(k for k in kinds(name) if k is not type(None))


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name in NAMES for text in BAD_TEXT[kind_of(name)]],
    ids=lambda value: value if len(value) < 60 else value[:8] + "...",
)
def test_a_setting_s_wrong_value(name, text, here, untrained):
    line = refused(run_with(f"{name}={text}"))
    assert name in line
    assert re.search("is not|must be|choose one of|are shares", line), "what is expected"
    assert len(line) < 400


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_cannot_be_none(name, here, untrained):
    if type(None) in kinds(name):
        assert config.parse([f"{name}=none"]) == {name: None}
    else:
        assert name in refused(run_with(f"{name}=none"))


def swapped(word):
    """The word with two neighbours the wrong way round."""
    at = next(i for i in range(len(word) // 2, len(word)) if word[i] != word[i - 1])
    return word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]


@pytest.mark.parametrize("name", [name for name in NAMES if len(name) > 2])
def test_a_setting_s_name_mistyped(name, here, untrained):
    assert f"did you mean '{name}'?" in refused(run_with(f"{swapped(name)}=1"))


@pytest.mark.parametrize(
    ("name", "choice"), [(name, choice) for name, of in config.CHOICES.items() for choice in of]
)
def test_a_choice_mistyped(name, choice, here, untrained):
    line = refused(run_with(f"{name}={swapped(choice)}"))
    assert f"{name}='{swapped(choice)}'" in line and f"did you mean '{choice}'?" in line


@pytest.mark.parametrize("name", METHODS)
def test_a_method_mistyped(name, here, untrained):
    assert f"did you mean '{name}'?" in refused(run_with(f"method={swapped(name)}"))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_mistyped(name, here, untrained):
    wrong = name.replace("-b", "_b").replace("tasks", "task").replace("folder", "foldr")
    for command in ("run", "sweep"):
        assert f"did you mean '{name}'?" in refused(run_with(preset=wrong, command=command))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(),
    st.sampled_from([10**5000, -(10**400), "9" * 5000, float("nan"), [0.5], {"a": 1}, 1j, (True,)]),
    st.lists(st.floats(), max_size=3).map(tuple), st.tuples(st.text(max_size=3)),
)  # fmt: skip


@FUZZ
@given(st.sampled_from(NAMES), VALUES)
def test_in_code_a_setting_is_taken_and_survives_json_or_it_is_refused(name, value):
    try:
        made = Config(**{name: value})
    except UsageError as error:
        assert name in str(error) and "\n" not in str(error) and len(str(error)) < 400
    else:
        assert Config.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False))) == made


@FUZZ
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_after_set(text):
    try:
        config.preset(**config.parse([text]))
    except UsageError as error:
        assert "\n" not in str(error)


COMBINATIONS = {  # settings, and what the line says
    "too many hard negatives": (["top_k=11"], "top_k=11"),
    "too many hard negatives for the increment": (["increment=1"], "increment=1"),
    "too many for the increment that is left open": (["increment=none", "top_k=11"], "top_k=11"),
    "increments that do not divide": (["increment=7"], "phases of 7"),
    "increments larger than the rest": (["increment=60"], "phases of 60"),
    "a base phase beyond all classes": (["base_classes=101"], "100 classes"),
    "a base phase of more than a subset": (["subset_classes=20"], "20 classes"),
    "a subset beyond all classes": (["subset_classes=101"], "subset_classes=101"),
    "a memory smaller than the classes": (["memory_total=99"], "memory_total=99"),
    "a memory of one": (["memory_total=1"], "memory_total=1"),
    "a memory smaller than the subset": (["subset_classes=70", "memory_total=69"], "70 classes"),
    "a memory after a method": (["method=icarl", "memory_total=60"], "memory_total=60"),
    "a network for colours": (["backbone=resnet18"], "resnet18"),
    "other data, increments": (["dataset=cifar100", "increment=7"], "phases of 7"),
    "other data, memory": (["dataset=cifar100", "memory_total=20"], "memory_total=20"),
    "other data, subset": (["dataset=cifar100", "subset_classes=1000"], "subset_classes=1000"),
    "an unusual order": (["margin_ranking=true", "method=lucir", "top_k=20"], "top_k=20"),
}  # fmt: skip


@pytest.mark.parametrize("command", ["run", "sweep"])
@pytest.mark.parametrize(("pairs", "says"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_settings_that_do_not_go_together(command, pairs, says, here, untrained, monkeypatch):
    """Refused before the data are looked at."""
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("loaded the data"))
    assert says in refused(run_with(*pairs, command=command))


def test_settings_that_look_odd_but_go_together_are_not_refused(here):
    before = snapshot(here)
    for changes in (
        {"memory_total": 100}, {"exemplars_per_class": 0}, {"exemplars_per_class": 10**6},
        {"method": "joint", "exemplars_per_class": 0}, {"joint": True, "memory_total": 1},
        {"base_classes": 100}, {"base_classes": 99, "increment": 1, "top_k": 1},
        {"margin_ranking": False, "top_k": 50}, {"subset_classes": 60, "memory_total": 60},
    ):  # fmt: skip
        settings = config.preset(**changes)
        cli._check([settings], cli._parser().parse_args(["run", "glyphs-b50-5"]))
        datasets.load(settings)
    assert snapshot(here) == before


def test_a_folder_s_classes_are_counted_before_it_is_learnt(here, untrained, make_dataset):
    for pairs, says in ((["increment=7", "base_classes=2"], "phases of 7"),
                        (["memory_total=11"], "memory_total=11"), (["top_k=3"], "top_k=3"),
                        (["subset_classes=13"], "subset_classes=13")):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lucir_edu.datasets.folder.load", lambda _: make_dataset())
            assert says in refused(run_with(*pairs, preset="folder"))


# ---- The command line ---------------------------------------------------------------------------

LONG = "x" * 300
RUN, SWEEP = ["run", "glyphs-b50-5"], ["sweep", "glyphs-b50-5"]
LINES = [
    (["rnu"], "did you mean 'run'"), (["swep"], "did you mean 'sweep'"),
    (["reprot"], "did you mean 'report'"), (["benhc"], "did you mean 'bench'"),
    (["dat"], "did you mean 'data'"), (["--versoin"], "COMMAND"), ([""], "COMMAND"),
    ([*RUN, "--sede", "3"], "--sede"), ([*RUN, "stray"], "stray"), ([*RUN, "--seed"], "--seed"),
    ([*RUN, "--seed", "1.5"], "'1.5'"), ([*RUN, "--seed", "-1"], "seed must be from 0"),
    ([*RUN, "--seed", str(2**32)], "seed must be from 0"), ([*RUN, "--seed", ""], "--seed"),
    ([*RUN, "--seed", "9" * 5000], "--seed"), ([*RUN, "--set"], "--set"),
    (run_with(""), "KEY=VALUE"), (run_with("="), "no setting ''"),
    (run_with("=3"), "no setting ''"),
    (run_with("lr"), "lr=VALUE"), (run_with("lr 0.1"), "lacks a value"), (run_with("lr:0.1"), ""),
    (run_with("lr==1"), "lr='=1'"), (run_with("method"), "method=VALUE"),
    (run_with("method="), "the methods are"), (run_with("method=none"), "the methods are"),
    (run_with("preset=folder"), "no setting 'preset'"), (run_with("LR=0.1"), "did you mean 'lr'"),
    (run_with("--seed=1"), "--set: expected one argument"), (run_with("l\nr=1"), "no setting"),
    ([*RUN, "--device"], "--device"), ([*RUN, "--device", "gpu"], "choose from"),
    ([*RUN, "--device", "cpu0"], "did you mean 'cpu'"), ([*RUN, "--device", "cuda:9"], "choose"),
    ([*RUN, "--device", "missing"], "choose from"),
    ([*RUN, "--out"], "--out"), ([*RUN, "--out", ""], "a path is empty"),
    ([*RUN, "--out", "a_file"], "a_file is a file"),
    ([*RUN, "--out", "a_file/x"], "cannot write to a_file/x (Not a directory)"),
    ([*RUN, "--out", LONG], "too long"), ([*RUN, "--out", "~nobody-here/x"], "not known"),
    ([*RUN, "--out", "/dev/null"], "/dev/null is a file"),
    ([*RUN, "--out", "/proc/nowhere/x"], "cannot write to /proc/nowhere/x"),
    ([*RUN, "--resume", "--out", "a_file"], "a_file is a file"),
    ([*RUN, "--data-root", "a_file"], "a_file is a file"), ([*RUN, "--data-root", ""], "is empty"),
    ([*RUN, "--data-root", LONG], "too long"), ([*RUN, "--data-root", "~nobody-here"], "not known"),
    (["run", "cifar100-2tasks", "--data-root", "no"], "lucir-edu data --dataset cifar100"),
    (["run", "cifar100-2tasks", "--data-root", "a_file"], "a_file is a file"),
    ([*SWEEP, "--seeds", "0"], "at least one seed"), ([*SWEEP, "--seeds", "-3"], "at least one"),
    ([*SWEEP, "--seeds", "x"], "--seeds"), ([*SWEEP, "--seeds", str(10**12)], "at most 1000"),
    ([*SWEEP, "--seeds", "1.5"], "--seeds"), ([*SWEEP, "--processes", "0"], "at least one process"),
    ([*SWEEP, "--processes", "-1"], "at least one process"),
    ([*SWEEP, "--processes", "100000"], "at most 256"), ([*SWEEP, "--seed", "1"], "--seed"),
    ([*SWEEP, "--resume"], "--resume"), ([*SWEEP, "--set", "seed=3"], "--seeds N"),
    ([*SWEEP, "--grid", "seed=1,2"], "--seeds N"), ([*SWEEP, "--grid"], "--grid"),
    ([*SWEEP, "--grid", ""], "no setting ''"), ([*SWEEP, "--grid", "="], "no setting ''"),
    ([*SWEEP, "--grid", "cosine,"], "no setting ''"), ([*SWEEP, "--grid", "cosine="], "cosine=''"),
    ([*SWEEP, "--grid", "cosine=true,maybe"], "cosine='maybe'"), ([*SWEEP, "--grid", "lr"], "lr="),
    ([*SWEEP, "--grid", "cosin,less_forget"], "did you mean 'cosine'"),
    ([*SWEEP, "--grid", "method=lucir,replya"], "did you mean 'replay'"),
    ([*SWEEP, "--grid", "lr=0.1,,0.2"], "lr=''"), ([*SWEEP, "--grid", "increment=10,7"], "of 7"),
    ([*SWEEP, "--grid", "memory_total=2000,20"], "memory_total=20"),
    ([*SWEEP, "--out", "a_file"], "a_file is a file"), ([*SWEEP, "--out", ""], "is empty"),
    ([*SWEEP, "--out", LONG], "too long"), ([*SWEEP, "--device", "tpu"], "choose from"),
    ([*SWEEP, "--bases", "nowhere"], "--bases nowhere"), ([*SWEEP, "--bases", "a_file"], "--bases"),
    (["report"], "DIR"), (["report", ""], "is empty"), (["report", "."], ". holds no run"),
    (["report", "nowhere"], "nowhere holds no run"), (["report", "a_file"], "a_file holds no run"),
    (["report", LONG], "too long"), (["report", ".", "--html"], "--html"),
    (["report", ".", "--html", "."], ". is a folder"), (["report", ".", "--html", ""], "is empty"),
    (["report", "~nobody-here"], "not known"), (["report", ".", "--json", "x"], "--json"),
    (["bench", "--rounds", "0"], "at least one"), (["bench", "--rounds", "-1"], "at least one"),
    (["bench", "--rounds", "x"], "--rounds"), (["bench", "--device", "tpu"], "choose from"),
    (["bench", "--json", "."], ". is a folder"), (["bench", "--json", ""], "is empty"),
    (["bench", "--json", "a_file/x"], "a_file/x"), (["bench", "--json", LONG], "too long"),
    (["bench", "glyphs"], "glyphs"), (["data", "glyphs"], "glyphs"),
    (["data", "--dataset", "cifar10"], "did you mean 'cifar100'"), (["data", "--dataset", ""], ""),
    (["data", "--data-root", "a_file"], "a_file is a file"),
    (["data", "--data-root", LONG], "too long"),
    (["data", "--dataset", "cifar100", "--data-root", "a_file"], "a_file is a file"),
    (["data", "--dataset", "cifar100", "--data-root", "new"], "no network"),
    (["data", "--dataset", "folder", "--data-root", "new"], "new/train"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"), LINES, ids=[" ".join(a)[:60].strip() or "nothing" for a, _ in LINES]
)
def test_a_mistake_on_the_command_line(arguments, says, here, untrained):
    assert says in refused(arguments)


@pytest.mark.parametrize("device", ["cuda", "mps"])
@pytest.mark.parametrize("command", [RUN, SWEEP, ["bench"]], ids=lambda command: command[0])
def test_a_device_that_is_not_there(command, device, here, untrained, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(datasets, "load", lambda *_: pytest.fail("loaded the data"))
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    why = ", or it or its driver is too old for CUDA 13.2" if device == "cuda" else ""
    assert f"no {device} device{why}; use --device auto" in refused([*command, "--device", device])


def test_a_disk_that_is_full(here, monkeypatch):
    """Or whatever else the system has against a file."""

    def full(*_, **__):
        raise OSError(28, "No space left on device", "x.npz")

    monkeypatch.setattr(runs, "perform", full)
    assert "No space left on device (x.npz)" in refused([*RUN, "--out", "x"])


def test_a_folder_that_may_not_be_written_to(here, untrained, monkeypatch):
    def forbid(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.FileLock, "acquire", forbid)
    line = refused([*RUN, "--out", str(here)])
    assert f"cannot write to {here} (Permission denied); choose another --out" in line


@FUZZ
@given(st.lists(st.one_of(
    st.sampled_from(["run", "sweep", "report", "data", "--set", "--seed", "--grid", "--out",
                     "--device", "--seeds", "glyphs-b50-5", "cosine", "lr=", "=", "--", "-"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6),
), max_size=6))  # fmt: skip
def test_any_words(words):
    """Runs and sweeps that happen to be right would train: they end where training begins."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(datasets, "load", lambda *_: (_ for _ in ()).throw(UsageError("right")))
        try:
            code = cli.main(words)
        except SystemExit as stopped:  # --help
            code = stopped.code
        assert code in (0, 2)
        if code == 2:
            assert err.getvalue().count("\n") == 1
        assert os.listdir(folder) == []


# ---- CIFAR-100 ----------------------------------------------------------------------------------


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def test_the_payload_of_these_tests_would_be_noticed(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "opened"))).close()
    assert (tmp_path / "opened").exists()


def fake_files(per_class):
    rng = np.random.default_rng(0)

    def split(labels):
        pixels = rng.integers(256, size=(len(labels), 3072), dtype=np.uint8)
        return pickle.dumps({"data": pixels, "fine_labels": labels})

    names = {"fine_label_names": [f"class {label}" for label in range(100)]}
    return {
        "train": split([*range(100)] * 2 * per_class),
        "test": split([*range(99, -1, -1)] * per_class),
        "meta": pickle.dumps(names),
    }


def tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def md5(content):
    return hashlib.md5(content).hexdigest()


FILES = fake_files(per_class=1)
ARCHIVE = tar({f"cifar-100-python/{name}": content for name, content in FILES.items()})


@pytest.fixture
def cifar(here, monkeypatch):
    """A data root with a CIFAR-100 of three images per class, taken for the published one."""
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(FILES["train"])]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(FILES["test"])]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(FILES["meta"])})
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(ARCHIVE))
    folder = here / "root" / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return here / "root"


def test_the_fake_is_read_like_the_real_one(cifar):
    data = datasets.load(config.preset("cifar100-2tasks"), cifar)
    assert data.classes[7] == "class 7"
    assert data.train.labels.tolist() == [*range(100), *range(100)]
    assert data.test.labels.tolist() == [*range(99, -1, -1)]
    for name, split in (("train", data.train), ("test", data.test)):
        rows = pickle.loads(FILES[name])["data"]  # red, green, blue, each row by row
        assert split.images.shape == (len(rows), 3, 32, 32)
        assert split.images[5, :, 2, 9].tolist() == rows[5, [73, 1024 + 73, 2048 + 73]].tolist()


def test_cifar_is_normalised_by_the_authors_numbers(cifar):
    """Their standard deviation is not that of the pixels, which is 0.2675, 0.2565, 0.2761."""
    data = datasets.load(config.preset("cifar100-2tasks"), cifar)
    assert data.mean == (0.5071, 0.4866, 0.4409)
    assert data.std == (0.2009, 0.1984, 0.2023)


def write(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def into_folder(path):
    path.unlink()
    path.mkdir()


FILE_DAMAGE = {
    "cut off": write(lambda b: b[: len(b) // 2]),
    "one bit": write(lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:]),
    "longer": write(lambda b: b + b"\0"),
    "empty": write(lambda b: b""),
    "text": write(lambda b: b"hello"),
    "missing": lambda path: path.unlink(),
    "a folder": into_folder,
    "a payload": write(lambda b: pickle.dumps(Payload("opened"))),
    "a payload before the rest": write(lambda b: pickle.dumps(Payload("opened"))[:-1] + b"0" + b),
    "a payload of an old protocol": write(lambda b: b"cos\nsystem\n(S'touch opened'\ntR."),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", FILE_DAMAGE.values(), ids=FILE_DAMAGE)
def test_a_damaged_file_of_cifar_is_refused_before_it_is_opened(name, damage, cifar, untrained):
    damage(cifar / "cifar-100-python" / name)
    line = refused(["run", "cifar100-2tasks", "--data-root", "root"])
    assert "CIFAR-100 is damaged in root; fetch it with: lucir-edu data" in line
    line = refused(["data", "--dataset", "cifar100", "--data-root", "root"])
    assert "could not be fetched to root" in line and "no network" in line
    assert not Path("opened").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_mended_from_the_archive(name, cifar):
    (cifar / "cifar-100-python" / name).write_bytes(b"")
    (cifar / CIFAR100.filename).write_bytes(ARCHIVE)
    assert cli.main(["data", "--dataset", "cifar100", "--data-root", "root"]) == 0
    assert (cifar / "cifar-100-python" / name).read_bytes() == FILES[name]


ESCAPES = {
    "above": "../escaped", "by an absolute name": f"{tempfile.gettempdir()}/escaped-lucir-edu",
    "through the folder": "cifar-100-python/../../escaped",
}  # fmt: skip
ARCHIVE_DAMAGE = {
    "cut in the middle": ARCHIVE[: len(ARCHIVE) // 2],
    "cut at the end": ARCHIVE[:-1],
    "one bit": ARCHIVE[:500] + bytes([ARCHIVE[500] ^ 1]) + ARCHIVE[501:],
    "empty": b"",
    "text": b"hello",
    "others' files": tar({"cifar-100-python/train": pickle.dumps(Payload("opened"))}),
    **{f"a member {how}": tar({name: b"x"}) for how, name in ESCAPES.items()},
}


@pytest.mark.parametrize("content", ARCHIVE_DAMAGE.values(), ids=ARCHIVE_DAMAGE)
def test_an_archive_with_another_hash_is_not_unpacked(content, cifar):
    shutil.rmtree(cifar / "cifar-100-python")
    (cifar / CIFAR100.filename).write_bytes(content)
    line = refused(["data", "--dataset", "cifar100", "--data-root", "root"])
    assert "cifar-100-python.tar.gz there is cut off or altered" in line and "yourself" in line
    assert not Path("opened").exists()


@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES)
def test_no_member_leaves_the_folder_even_with_the_right_hash(name, cifar, monkeypatch):
    shutil.rmtree(cifar / "cifar-100-python")
    content = tar({name: b"x"})
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(content))
    (cifar / CIFAR100.filename).write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()) as err:
        assert cli.main(["data", "--dataset", "cifar100", "--data-root", "root"]) == 2
    assert err.getvalue().count("\n") == 1
    assert not Path(ESCAPES["by an absolute name"]).exists()
    assert {path.name for path in Path().iterdir()} == {"a_file", "root"}


def test_files_unpacked_from_an_archive_are_hashed_before_they_are_opened(cifar, monkeypatch):
    shutil.rmtree(cifar / "cifar-100-python")
    payload = pickle.dumps(Payload("opened"))
    content = tar({f"cifar-100-python/{name}": payload for name in FILES})
    monkeypatch.setattr(CIFAR100, "tgz_md5", md5(content))
    (cifar / CIFAR100.filename).write_bytes(content)
    assert cli.main(["data", "--dataset", "cifar100", "--data-root", "root"]) == 2
    assert not Path("opened").exists()


class Reply(io.BytesIO):
    """What a server answers."""

    url = CIFAR100.url
    length = len(ARCHIVE)


@pytest.mark.parametrize(
    "content", [b"", ARCHIVE[:1000], ARCHIVE + b"x"], ids=["nothing", "a part", "more"]
)
def test_a_download_that_breaks_off_leaves_nothing(content, cifar, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Reply(content))
    shutil.rmtree(cifar)
    with contextlib.redirect_stderr(io.StringIO()) as err:  # torchvision draws a bar
        assert cli.main(["data", "--dataset", "cifar100", "--data-root", "root"]) == 2
    assert "could not be fetched" in err.getvalue().splitlines()[-1]
    assert not cifar.exists()


def test_a_download_that_is_whole_takes_the_place_of_a_broken_one(cifar, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Reply(ARCHIVE))
    (cifar / CIFAR100.filename).write_bytes(ARCHIVE[:1000])
    (cifar / "cifar-100-python" / "meta").unlink()
    assert cli.main(["data", "--dataset", "cifar100", "--data-root", "root"]) == 0
    assert len(datasets.load(config.preset("cifar100-2tasks"), cifar).classes) == 100


# ---- Files of runs ------------------------------------------------------------------------------

TINY = {
    "base_classes": 2, "increment": 1, "top_k": 1, "exemplars_per_class": 2, "width": 4,
    "epochs": 1, "batch_size": 16, "crop_padding": 1, "precision": "float32", "order_seed": 3,
    "backbone": "small", "cosine": False,
}  # fmt: skip
RESUME = [*run_with(*(f"{k}={v}" for k, v in TINY.items()), preset="folder"),
          "--out", "run", "--resume", "--device", "cpu"]  # fmt: skip


class Stopped(Exception):
    pass


def halt(event):
    if isinstance(event, trainer.PhaseStart) and event.phase == 2:
        raise Stopped


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A data set of four classes, and the files of a run on it that was stopped before phase 2."""
    pixels = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    split = datasets.TensorSplit(pixels, torch.arange(4).repeat(4))
    names, half = ("a", "b", "c", "d"), (0.5, 0.5, 0.5)
    data = datasets.Dataset("folder", names, split, split, half, half, "made up")
    folder = tmp_path_factory.mktemp("kept")
    settings = config.preset("folder", **TINY)
    with pytest.raises(Stopped):
        runs.perform(settings, data, preset="folder", out=folder, device="cpu", watch=halt)
    return data, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished(kept, tmp_path_factory):
    """The results of that run when it is gone on with to its end."""
    data, files = kept
    folder = tmp_path_factory.mktemp("finished")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    settings = config.preset("folder", **TINY)
    runs.perform(settings, data, preset="folder", out=folder, device="cpu", resume=True)
    return {name: (folder / name).read_bytes() for name in (runs.RESULTS, runs.ARRAYS)}


@pytest.fixture
def halted(kept, here, monkeypatch):
    """The folder ``run``, with those files, and the data where commands look for them."""
    data, files = kept
    monkeypatch.setattr("lucir_edu.datasets.folder.load", lambda _: data)
    (here / "run").mkdir()
    for name, content in files.items():
        (here / "run" / name).write_bytes(content)
    return here / "run"


def test_the_run_of_these_tests_can_be_resumed(halted):
    assert cli.main(RESUME) == 0
    assert runs.load(halted).complete
    assert cli.main(["report", "run"]) == 0


def test_a_resumed_run_of_other_settings(halted, untrained):
    for pair, was in (("lr=0.05", "lr=0.1"), ("cosine=true", "cosine=False"), ("seed=4", "seed=0")):
        assert was in refused([*RESUME, "--set", pair])
    assert "add --resume" in refused([word for word in RESUME if word != "--resume"])


def test_a_training_that_diverges_is_told_and_not_kept(halted):
    diverging = config.preset("folder", **{**TINY, "epochs": 9, "lr": 1e3, "weight_decay": 1e3})
    with pytest.raises(UsageError, match=r"in phase 0[^;]*; .*lower lr"):
        runs.perform(diverging, datasets.folder.load(None), out="other", device="cpu")
    assert list(Path("other").iterdir()) == []


def edit(change):
    def damage(folder):
        results = json.loads((folder / "results.json").read_text())
        change(results)
        (folder / "results.json").write_text(json.dumps(results))

    return damage


def raw(text):
    return lambda folder: (folder / "results.json").write_bytes(text)


def put(name, make):
    """Arrays in which one is another."""

    def damage(folder):
        arrays = dict(np.load(folder / "arrays.npz"))
        arrays[name] = make(arrays.get(name))
        np.savez(folder / "arrays.npz", **arrays)

    return damage


def npz(**members):
    def damage(folder):
        with zipfile.ZipFile(folder / "arrays.npz", "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)

    return damage


def npy(shape, descr="<f8", data=b""):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def dictionary_bomb(folder):
    """10 MB that say they are 3 GB, and would be if they were unpacked."""
    with zipfile.ZipFile(folder / "arrays.npz", "a") as file:
        file.writestr("x.npy", npy((3 * 2**27,)))
        file.filelist[-1].file_size = 3 * 2**30


RUN_DAMAGE = {
    "null": raw(b"null"), "a number": raw(b"7"), "a word": raw(b'"run"'),
    "nested without end": raw(b"[" * 100_000), "nested deeply": raw(b'{"phases":' * 5000 + b"1"),
    "a number of 5000 digits": raw(b'{"seed": ' + b"9" * 5000 + b"}"), "not a number": raw(b"NaN"),
    "UTF-16": raw('{"preset": "x"}'.encode("utf-16")), "Latin-1": raw(b'{"preset": "\xe9"}'),
    "two documents": raw(b"{} {}"), "zero bytes": raw(bytes(1000)),
    **{f"without {key}": edit(lambda r, key=key: r.pop(key)) for key in (
        "preset", "method", "environment", "seed", "config", "bounds", "class_order", "classes",
        "data_fingerprint", "phases", "average_incremental_accuracy", "last_accuracy",
        "forgetting")},
    **{f"{key} a list": edit(lambda r, key=key: r.update({key: [1]})) for key in (
        "preset", "method", "environment", "seed", "config", "bounds", "class_order", "classes",
        "data_fingerprint", "phases", "average_incremental_accuracy", "last_accuracy",
        "forgetting")},
    **{f"a phase without {key}": edit(lambda r, key=key: r["phases"][1].pop(key)) for key in (
        "phase", "classes_seen", "cnn", "nme", "old_to_new", "weight_norm_new", "losses")},
    "phases in a wrong order": edit(lambda r: r["phases"].reverse()),
    "a phase twice": edit(lambda r: r["phases"].append(r["phases"][0])),
    "an accuracy in words": edit(lambda r: r["phases"][0].update(cnn="high")),
    "an accuracy of NaN": edit(lambda r: r["phases"][0].update(cnn=float("nan"))),
    "an infinite accuracy": edit(lambda r: r["phases"][0].update(cnn=float("inf"))),
    "an accuracy above 100": edit(lambda r: r["phases"][0].update(cnn_new=101.0)),
    "a share below 0": edit(lambda r: r["phases"][1].update(old_to_new=-5.0)),
    "another average": edit(lambda r: r["average_incremental_accuracy"].update(cnn=99.0)),
    "another last accuracy": edit(lambda r: r["last_accuracy"].update(nme=None)),
    "another forgetting": edit(lambda r: r["forgetting"].update(cnn=50.0)),
    "norms that are no numbers": put("weight_norms", lambda a: a * np.nan),
    "norms of 0": put("weight_norms", lambda a: a * 0),
    "positions of no images": put("positions", lambda a: a[:, :, :0]),
    "a huge accuracy": edit(lambda r: r["phases"][0].update(cnn=10**400)),
    "losses in words": edit(lambda r: r["phases"][0].update(losses={"cross_entropy": ["low"]})),
    "losses as a list": edit(lambda r: r["phases"][0].update(losses=[1.0])),
    "a mean in words": edit(lambda r: r["average_incremental_accuracy"].update(cnn="x")),
    "bounds that fall": edit(lambda r: r.update(bounds=[0, 3, 2, 4])),
    "bounds of fractions": edit(lambda r: r.update(bounds=[0, 2.0, 3.0, 4.0])),
    "bounds beyond memory": edit(lambda r: r.update(bounds=[0, 2, 3, 10**15])),
    "an order of other classes": edit(lambda r: r.update(class_order=[0, 1, 2, 9])),
    "too few names": edit(lambda r: r["classes"].pop()),
    "names that are numbers": edit(lambda r: r.update(classes=[1, 2, 3, 4])),
    "another seed": edit(lambda r: r.update(seed=1)),
    "a setting of tomorrow": edit(lambda r: r["config"].update(warp=9)),
    "a setting out of range": edit(lambda r: r["config"].update(lr=-1)),
    "a setting of another kind": edit(lambda r: r["config"].update(lr={"x": 1})),
    "arrays that are pickles": put("weight_norms", lambda _: np.array([Payload("opened")], object)),
    "arrays of pickles beside": put("x", lambda _: np.array([Payload("opened")] * 2, object)),
    "a pickle as arrays": lambda f: (f / "arrays.npz").write_bytes(pickle.dumps(Payload("opened"))),
    "an npy as arrays": lambda f: (f / "arrays.npz").write_bytes(npy((2,), data=bytes(16))),
    "arrays of terabytes": npz(weight_norms=npy((10**12,))),
    "arrays beyond numbers": npz(weight_norms=npy((10**30,))),
    "arrays of negative size": npz(weight_norms=npy((-1, 4))),
    "arrays of a kind there is not": npz(weight_norms=npy((1,), descr="<x9")),
    "a header that is code": npz(weight_norms=npy("__import__('os').mkdir('opened')")),
    "arrays that would be gigabytes": dictionary_bomb,
    "no arrays at all": npz(),
    "no norms": npz(confusion_cnn=npy((2, 4, 4), "<i4", bytes(128))),
    "arrays for other classes": put("weight_norms", lambda a: a[:, :3]),
    "arrays for other phases": put("weight_norms", lambda a: a[:1]),
    "arrays of one dimension": put("confusion_cnn", lambda a: a.ravel()),
    "arrays without dimensions": put("weight_norms", lambda _: np.float32(3)),
    "arrays of words": put("weight_norms", lambda a: np.full(a.shape, "x")),
    "counts that are fractions": put("confusion_cnn", lambda a: a / 2),
    "negative counts": put("confusion_cnn", lambda a: a - 1),
    "counts beyond memory": put("confusion_cnn", lambda a: a.astype(np.int64) + 10**15),
    "positions in space": put("positions", lambda a: np.concatenate([a, a[..., :1]], axis=-1)),
    "angles of half the classes": put("embedding_angles", lambda a: a[:, :2]),
    "an array that nobody knows": put("x", lambda _: np.zeros(3)),
}  # fmt: skip


@pytest.mark.parametrize("damage", RUN_DAMAGE.values(), ids=RUN_DAMAGE)
def test_a_damaged_run_is_neither_reported_nor_resumed(damage, halted, untrained):
    damage(halted)
    for command in (["report", "run"], ["report", "run", "--html", "page.html"], RESUME):
        assert "run holds a damaged or foreign run" in refused(command)
    assert not Path("opened").exists()


def test_a_run_that_may_not_be_read_is_not_called_damaged(halted, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "run/arrays.npz")

    monkeypatch.setattr(np, "load", refuse)
    said = refused(["report", "run"])
    assert "run/arrays.npz cannot be read (Permission denied)" in said and "damaged" not in said


def test_arrays_are_not_unpacked_when_they_are_too_large(halted, monkeypatch):
    put("mean_logits", lambda a: np.zeros((2, 4, 10**6)))(halted)
    monkeypatch.setattr(runs, "MOST_BYTES", 10**6)
    assert "arrays.npz is too large" in refused(["report", "run"])


def test_a_run_without_settings_that_came_later_is_reported(halted):
    cli.main(RESUME)
    edit(lambda results: results["config"].pop("workers"))(halted)
    assert cli.main(["report", "run"]) == 0


def tensors(change):
    def damage(path):
        found = load_file(path)
        change(found)
        save_file(found, path)

    return damage


def header(described, size=16):
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


def one(dtype="F32", shape=(4,), offsets=(0, 16)):
    return header({"plane": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})


def entry(name, change):
    return tensors(lambda found: found.update({name: change(found[name])}))


FIRST = "exemplars.00000"
STATE_DAMAGE = {
    "cut in the header": write(lambda b: b[:100]),
    "cut in the data": write(lambda b: b[:-1]),
    "longer": write(lambda b: b + b"\0"),
    "a header of terabytes": write(lambda b: struct.pack("<Q", 10**13) + b[8:]),
    "a header beyond numbers": write(lambda b: b"\xff" * 8 + b[8:]),
    "a header that is empty": write(lambda b: bytes(8) + b[8:]),
    "a header that is no JSON": header(b"{" * 50), "a header that is a list": header([]),
    "a header without end": header(b'{"a":' * 3000), "nothing in it": header({}, 0),
    "a tensor of terabytes": one(shape=(10**12,), offsets=(0, 4 * 10**12)),
    "a tensor beyond numbers": one(shape=(2**62, 2**62)), "a negative tensor": one(shape=(-4,)),
    "a kind of number there is not": one(dtype="F99"), "offsets that fall": one(offsets=(16, 0)),
    "a pickle": write(lambda _: pickle.dumps(Payload("opened"))),
    "a folder": into_folder,
    "exemplars beyond the images": entry(FIRST, lambda t: t + 10**6),
    "exemplars before the images": entry(FIRST, lambda t: t - 10**6),
    "exemplars of another class": entry(FIRST, lambda t: t.flip(0) * 0 + 1),
    "exemplars as fractions": entry(FIRST, lambda t: t.float()),
    "exemplars as bytes": entry(FIRST, lambda t: t.byte()),
    "exemplars as a table": entry(FIRST, lambda t: t[None].contiguous()),
    "exemplars without dimension": entry(FIRST, lambda t: t[0].clone()),
    "exemplars of too few classes": tensors(lambda found: found.pop(FIRST)),
    "exemplars of too many classes": tensors(
        lambda found: found.update({"exemplars.99999": torch.tensor([0])})),
    "a plane of another space": entry("plane", lambda t: t[:, :-1].contiguous()),
    "a plane of whole numbers": entry("plane", lambda t: t.long()),
    "no head": tensors(lambda found: found.pop("model.head.new_weight")),
    "a head of other classes": entry("model.head.new_weight", lambda t: torch.cat([t, t])),
    "a head without classes": entry("model.head.new_weight", lambda t: t[0].clone()),
    "a layer more": tensors(lambda found: found.update({"model.x": torch.ones(1)})),
    "a layer less": tensors(lambda found: found.pop("model.backbone.0.weight")),
    "others' names": tensors(lambda found: [found.update({k[2:]: found.pop(k)}) for k in [*found]]),
}  # fmt: skip


@pytest.mark.parametrize("damage", STATE_DAMAGE.values(), ids=STATE_DAMAGE)
def test_a_damaged_checkpoint_is_not_gone_on_with(damage, halted):
    path = halted / "phase_01.safetensors"
    damage(path)
    assert "phase_01.safetensors" in refused(RESUME)
    assert not Path("opened").exists()


def damaged(content, data):
    """The bytes with some of them changed, cut out or put in."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        how = data.draw(st.sampled_from(["change", "cut", "remove", "insert"]))
        if how == "change":
            content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=4))
        elif how == "cut":
            del content[at:]
        elif how == "remove":
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            content[at:at] = data.draw(st.binary(max_size=12))
    return bytes(content)


def look(folder):
    """Read a run and all that is shown of it, or refuse it."""
    try:
        run = runs.load(folder)
    except UsageError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
        return
    if run.complete:
        runs.compare([run])
    runs.firsts([run])
    runs.stale(run)
    for phase in range(len(run["phases"])):
        views.figures(run, phase)
        for view in views.known(run):
            views.draw(view, run, phase, True)


@FUZZ
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["results.json", "arrays.npz"])
@given(data=st.data())
def test_results_with_changed_bytes_are_read_or_refused(name, finished, data):
    with tempfile.TemporaryDirectory() as folder:
        for one, content in finished.items():
            Path(folder, one).write_bytes(content)
        Path(folder, name).write_bytes(damaged(finished[name], data))
        look(Path(folder))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@FUZZ
@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
def test_results_with_other_values_are_read_or_refused(finished, data):
    results = json.loads(finished["results.json"])
    inside = results
    while True:
        keys = list(inside) if isinstance(inside, dict) else range(len(inside))
        key = data.draw(st.sampled_from(list(keys)))
        if not (isinstance(inside[key], dict | list) and inside[key]) or data.draw(st.booleans()):
            break
        inside = inside[key]
    inside[key] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "arrays.npz").write_bytes(finished["arrays.npz"])
        Path(folder, "results.json").write_text(json.dumps(results))
        look(Path(folder))


@FUZZ
@given(data=st.data())
def test_a_checkpoint_with_changed_bytes_is_gone_on_with_or_refused(kept, data):
    images, files = kept
    settings = config.preset("folder", **TINY)
    with tempfile.TemporaryDirectory() as folder:
        name = "phase_01.safetensors"
        Path(folder, name).write_bytes(damaged(files[name], data))
        try:
            state = runs.load_state(Path(folder), 1)
            for event in trainer.train(settings, images, start=state, device="cpu"):
                if isinstance(event, trainer.PhaseEnd):
                    break
        except UsageError as error:
            assert name in str(error) and "\n" not in str(error)


# ---- A notebook ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("config.preset('glyphs-b50')", "did you mean 'glyphs-b50-5'?"),
        ("config.Config(lr=float('nan'))", "lr=nan is not a finite number"),
        ("runs.load('nowhere')", "nowhere holds no run"),
        ("datasets.load(config.preset('folder'), 'nowhere')", "nowhere/train"),
        ("playground.playground('cos+xx')", "is not recorded"),
        ("config.preset(\n    epochs='9' * 5000)", "epochs='999"),
    ],
)
def test_a_mistake_in_a_cell_shows_one_line_and_no_traceback(cell, says, here, capsys):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    shell.run_cell(
        "from lucir_edu import config, datasets, runs\nfrom lucir_edu.lab import playground"
    )
    capsys.readouterr()
    result = shell.run_cell(cell)
    assert isinstance(result.error_in_exec, UsageError)
    printed = capsys.readouterr()
    shown = (printed.out + printed.err).strip()
    assert shown.startswith("UsageError: ") and says in shown
    assert "\n" not in shown and len(shown) < 700
    InteractiveShell.clear_instance()


def test_other_errors_in_a_cell_keep_their_traceback(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance().run_cell("raise ValueError('a defect')")
    assert "Traceback" in capsys.readouterr().out
    InteractiveShell.clear_instance()


# ---- Safety -------------------------------------------------------------------------------------


def calls_and_imports():
    """Of all sources: every call, written out, with its keywords; every module that is imported."""
    calls, imports = [], []
    for folder in ("lucir_edu", "notebooks/sources"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    calls.append((ast.unparse(node.func), words))
                elif isinstance(node, ast.Import | ast.ImportFrom):
                    imports += [getattr(node, "module", None), *(one.name for one in node.names)]
    return calls, imports


def test_nothing_is_unpickled_and_no_text_is_run():
    calls, imports = calls_and_imports()
    unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
    assert len(imports) > 100 and not unsafe & set(imports)
    unsafe = {"eval", "exec", "os.system", "os.popen", "torch.jit.load", "np.fromfile"}
    found = [name for name, _ in calls if name in unsafe]
    assert found == ["exec"], "of learners' definitions, when their notebooks are graded"
    assert " exec(" in (ROOT / "lucir_edu/lab/handed_in.py").read_text(encoding="utf-8")
    assert not [words for name, words in calls if "subprocess" in name and "shell" in words]
    for name, words in calls:
        if name == "torch.load":
            assert words.get("weights_only") == "True"
        if name in ("np.load", "numpy.load"):
            assert words.get("allow_pickle") == "False"
    assert "np.load" in dict(calls)


HOSTILE = (
    "<script id=hostile>alert(1)</script>", '"><img id=hostile src=x onerror=alert(2)>',
    "</script><b id=hostile onclick=alert(3)>", "' onmouseover='alert(4)' id='hostile",
)  # fmt: skip


@pytest.fixture
def hostile(kept):
    """A run whose classes, preset and environment are called so."""
    data = dataclasses.replace(kept[0], classes=HOSTILE)
    run = runs.perform(config.preset("folder", **TINY), data, preset=HOSTILE[1], device="cpu")
    run["environment"] = {**run["environment"], HOSTILE[2]: HOSTILE[3]}
    return run, data


class Elements(html.parser.HTMLParser):
    """The elements of a page, each with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def assert_harmless(self):
        for tag, attributes in self.found:
            assert attributes.get("id") != "hostile", (tag, attributes)
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)


def test_the_parser_of_these_tests_notices_what_is_not_escaped():
    for name in HOSTILE[:3]:
        with pytest.raises(AssertionError):
            Elements(f"<td>{name}</td>").assert_harmless()
    with pytest.raises(AssertionError):
        Elements(f"<img alt='{HOSTILE[3]}'>").assert_harmless()


def test_a_report_escapes_names(hostile, tmp_path, monkeypatch):
    run, _ = hostile
    report.write([run], tmp_path / "page.html", title=HOSTILE[0])
    text = (tmp_path / "page.html").read_text()
    for library in (report.get_plotlyjs(), (ROOT / "lucir_edu/lab/explorer.js").read_text()):
        assert text.count(f"<script>{library}</script>") == 1
        text = text.replace(library, "")
    page = Elements(text)
    page.assert_harmless()
    assert [tag for tag, _ in page.found].count("script") == 3  # both of these, and the data
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3]} <= set(page.texts), (
        "as text it is there"
    )
    packed = re.findall(r'<script type="application/gzip">(.*?)</script>', text, re.S)
    assert len(packed) == 1 and re.fullmatch("[A-Za-z0-9+/=]+", packed[0])
    assert HOSTILE[0] in gzip.decompress(base64.b64decode(packed[0])).decode()


def test_figures_and_pictures_escape_names(hostile):
    _, data = hostile
    for name, picture in plots.thumbnails(data).items():
        element = Elements(picture)
        element.assert_harmless()
        assert [attributes["alt"] for _, attributes in element.found] == [name]
    for name in HOSTILE:
        element = Elements(plots.html((plots.Figure(figsize=(1, 1)), name)))
        element.assert_harmless()
        assert element.found[1][1]["alt"] == name and name in element.texts


def test_an_explorer_escapes_names(hostile):
    run, data = hostile
    shown = explorer.Explorer([run], data)
    for view in shown.bank.views:
        shown.shown = dataclasses.replace(shown.shown, view=view)
        for value in (shown.words.value, shown.table.value):
            Elements(value).assert_harmless()
    shown.shown = dataclasses.replace(shown.shown, view="confusion")
    assert "commonest mistake" in shown.words.value
    for row in range(4):
        points = type("Points", (), {"point_inds": [(row, row)]})
        shown._on_hover(shown.figures[0].data[0], points, None)
        element = Elements(shown.hovered.value)
        element.assert_harmless()
        assert HOSTILE.index(run["classes"][row]) >= 0 and run["classes"][row] in "".join(
            element.texts
        )
    for name in HOSTILE:
        shown.link.value = name
        refused = ("is not recorded", "more than two", "beside a setting")
        assert any(words in shown.words.value for words in refused)
        Elements(shown.words.value).assert_harmless()


def test_the_page_s_script_writes_no_names_as_markup():
    script = (ROOT / "lucir_edu/lab/explorer.js").read_text()
    assert re.findall(r"innerHTML = \[row, column\]\.map\(\(name\) => pictures\.get\(", script)
    assert (
        len(re.findall("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(", script))
        == 1
    )
    template = (ROOT / "lucir_edu/lab/report.html").read_text()
    safe = re.findall(r"{{ (\S+) \| safe }}", template)
    assert safe == ["part.accuracy", "figure", "plotly", "script"] and "autoescape" not in template


def test_make_lab_listens_on_this_machine_and_asks_for_a_token():
    """In a container too, where it runs as root."""
    made = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/ready", "lab"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (command,) = re.findall(r".*jupyter lab .*", made)
    assert "--ServerApp.ip=127.0.0.1" in command
    first = re.search(r"root_dir=(\w+) .*default_url=/lab/tree/(\w+\.ipynb)$", command)
    assert (ROOT / first[1] / first[2]).is_file(), "what the address opens"
    for way_out in ("token", "password", "0.0.0.0", "ip=*", "xsrf", "allow_remote", "allow_origin",
                    "unauthenticated"):  # fmt: skip
        assert way_out not in command.lower(), way_out
    makefile = (ROOT / "Makefile").read_text()
    assert "ip=" not in makefile.replace("--ServerApp.ip=127.0.0.1", "") and "token" not in makefile
