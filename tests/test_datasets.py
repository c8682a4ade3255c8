"""Glyphs-100: what it is made of, and that it comes out of the cache as it went in."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from lucir_edu import datasets, loader, stream
from lucir_edu.config import UsageError, preset
from lucir_edu.datasets import glyphs


@pytest.fixture(scope="module")
def sheet():
    return glyphs.drawings()


@pytest.fixture(scope="module")
def data():
    return datasets.load(preset())


def test_one_hundred_different_characters_fifty_of_them_in_the_base_phase(data):
    assert len(set(glyphs.CLASSES)) == 100 == len(data.classes)
    assert [len(letters) for letters in glyphs.ALPHABETS.values()] == [50, 10, 10, 10, 10, 10]
    phases = stream.make(preset(), data).phases
    names = ["".join(data.classes[p.num_old : p.num_seen]) for p in phases]
    assert names == list(glyphs.ALPHABETS.values())


def test_every_face_has_every_character(sheet):
    """A font draws the same box for every character that it lacks."""
    assert sheet.shape[:2] == (100, 12)
    ink = sheet.sum(dim=(2, 3))
    assert (ink > 20).all()
    for face in range(12):
        assert len(torch.unique(sheet[:, face].flatten(1), dim=0)) == 100


def test_no_two_classes_are_the_same_drawing_in_any_face(sheet):
    """Overlap: ink in both over ink in either, of drawings put centre on centre."""
    worst = {}
    for face in range(12):
        ink = (sheet[:, face].flatten(1) > 0.5).float()
        both = ink @ ink.T
        either = ink.sum(1)[:, None] + ink.sum(1) - both
        overlap = both / either
        for one, other in itertools.combinations(range(100), 2):
            pair = glyphs.CLASSES[one] + glyphs.CLASSES[other]
            worst[pair] = max(worst.get(pair, 0), overlap[one, other].item())
    same = {pair: round(value, 2) for pair, value in worst.items() if value > 0.95}
    assert not same
    # The measure can tell: the Cyrillic letter that is drawn like a 3 was left out for it.
    assert "З" not in glyphs.CLASSES


def test_drawings_lie_within_the_canvas_with_room_for_shifts(sheet):
    assert sheet[:, :, :3].sum() == 0 == sheet[:, :, -3:].sum()
    assert sheet[:, :, :, :3].sum() == 0 == sheet[:, :, :, -3:].sum()


def test_sizes_and_balance(data):
    assert data.train.images.shape == (10_000, 1, 24, 24) and data.test.images.shape[0] == 5_000
    assert data.train.images.dtype == torch.uint8
    assert torch.bincount(data.train.labels).tolist() == [100] * 100
    assert torch.bincount(data.test.labels).tolist() == [50] * 100
    pixels = data.train.images.double() / 255
    assert data.mean[0] == pytest.approx(pixels.mean().item(), abs=1e-5)
    assert data.std[0] == pytest.approx(pixels.std().item(), abs=1e-5)


def test_no_image_is_blank_and_training_and_test_share_none(data):
    assert data.train.images.float().std(dim=(1, 2, 3)).min() > 10
    both = torch.cat([data.train.images, data.test.images]).flatten(1).numpy()
    assert len(np.unique(both, axis=0)) == 15_000


def test_views_differ_in_face_polarity_contrast_and_place():
    """Of a sheet on which half of the faces have a square in the middle and the others nothing."""
    sheet = torch.zeros(1, 12, glyphs.CANVAS, glyphs.CANVAS)
    sheet[:, :6, 20:44, 20:44] = 1
    views = glyphs.distort(sheet, torch.zeros(2000, dtype=int), torch.Generator().manual_seed(0))
    grey = views[:, 0].float() / 255
    middle = grey[:, 9:15, 9:15].mean(dim=(1, 2))
    edge = (grey[:, 0].mean(dim=1) + grey[:, -1].mean(dim=1)) / 2
    stands_out = (middle - edge)[(middle - edge).abs() > 0.15]
    assert len(stands_out) / 2000 == pytest.approx(0.5, abs=0.05), "every face comes up"
    assert (stands_out > 0).float().mean() == pytest.approx(0.5, abs=0.05), "both polarities"
    assert stands_out.abs().quantile(0.9) > 1.6 * stands_out.abs().quantile(0.1), "contrasts"
    ink = (grey - edge[:, None, None]).abs()[(middle - edge).abs() > 0.4] > 0.2
    columns = torch.arange(glyphs.SIZE).float()
    centre = (ink * columns).sum(dim=(1, 2)) / ink.sum(dim=(1, 2))
    assert centre.std() > 0.7, "places"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(data):
    again = glyphs.render()
    assert torch.equal(again["train_images"], data.train.images)
    assert torch.equal(again["test_images"], data.test.images)
    other = glyphs.render(seed=1)
    assert not torch.equal(other["train_images"], again["train_images"])


def test_cache_is_read_back_and_a_damaged_one_is_made_anew(tmp_path, monkeypatch):
    first = glyphs.load(tmp_path)
    (cache,) = tmp_path.rglob("*.safetensors")
    rendered = []
    monkeypatch.setattr(glyphs, "render", lambda: rendered.append(1) or original())
    original = lambda: {  # noqa: E731
        "train_images": first.train.images, "train_labels": first.train.labels,
        "test_images": first.test.images, "test_labels": first.test.labels,
    }  # fmt: skip
    assert glyphs.load(tmp_path).fingerprint == first.fingerprint
    assert not rendered, "rendered although it was cached"

    content = bytearray(cache.read_bytes())
    content[-1000] ^= 1
    cache.write_bytes(content)
    assert glyphs.load(tmp_path).fingerprint == first.fingerprint
    cache.write_bytes(content[:5000])
    assert glyphs.load(tmp_path).fingerprint == first.fingerprint
    assert len(rendered) == 2
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [cache]


def test_a_root_that_cannot_be_written_to_only_costs_the_rendering(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError("read-only")

    monkeypatch.setattr("lucir_edu.files.Path.touch", refuse)
    assert len(glyphs.load(tmp_path).train.labels) == 10_000
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_full_disk_only_costs_the_rendering(tmp_path):
    code = """if True:
        import pathlib, resource, sys
        from lucir_edu.datasets import glyphs
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # of a file
        print(len(glyphs.load(pathlib.Path(sys.argv[1])).train.labels))
    """
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("10000\n", "")
    assert not list(tmp_path.rglob("*"))


def test_subset_and_limit(data):
    small = datasets.load(preset(subset_classes=20, train_per_class=7, test_per_class=3))
    expected = np.sort(np.random.RandomState(1993).choice(100, 20, replace=False))
    assert small.classes == tuple(data.classes[c] for c in expected)
    assert torch.bincount(small.train.labels).tolist() == [7] * 20
    assert torch.bincount(small.test.labels).tolist() == [3] * 20
    for row in (0, 50, 139):
        label = expected[small.train.labels[row]]
        first = data.train.images[data.train.labels == label][row % 7]
        assert torch.equal(small.train.images[row], first)
    with pytest.raises(UsageError, match="has 100 classes"):
        datasets.load(preset(subset_classes=101))


def test_cifar_that_is_damaged_is_refused_before_it_is_opened(tmp_path):
    """The files are pickles; one with a payload must not run."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        # Unpickling this would create the file `opened`.
        payload = f"cos\nsystem\n(S'touch {tmp_path}/opened'\ntR.".encode()
        (folder / name).write_bytes(payload)
    with pytest.raises(UsageError, match="damaged"):
        datasets.load(preset("cifar100-b50-5"), tmp_path)
    assert not (tmp_path / "opened").exists()
    with pytest.raises(UsageError, match="missing"):
        datasets.load(preset("cifar100-b50-5"), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(4, 1, 8, 8), "not float32 of shape (4, 1, 8, 8)"),
        (torch.zeros(4, 8, 8, dtype=torch.uint8), "not uint8 of shape (4, 8, 8)"),
    ],
)
def test_images_of_another_kind_are_refused(images, says):
    with pytest.raises(UsageError) as told:
        datasets.TensorSplit(images, torch.arange(4))
    assert "images must be uint8, (n, channels, height, width)" in str(told.value)
    assert says in str(told.value)


def test_what_is_no_tensor_is_refused():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"images must be a torch tensor, not numpy\.ndarray"):
        datasets.TensorSplit(images.numpy(), torch.arange(4))
    split = datasets.TensorSplit(images, [0, 1, 2, 3])
    with pytest.raises(UsageError, match=r"labels must be a torch tensor, not builtins\.list"):
        datasets.Dataset("own", tuple("abcd"), split, split, (0.5,), (0.2,), "own")


def own(classes=tuple("abcd"), mean=(0.5,), std=(0.2,), fingerprint="own", channels=1):
    images = torch.zeros(4, channels, 8, 8, dtype=torch.uint8)
    split = datasets.TensorSplit(images, torch.arange(4))
    return datasets.Dataset("own", classes, split, split, mean, std, fingerprint)


@pytest.mark.parametrize(
    "wrong",
    [{"mean": 0.5}, {"mean": (0.5,) * 3}, {"std": (0.2,) * 3}, {"channels": 3}],
)
def test_mean_and_std_are_of_the_images_channels(wrong):
    with pytest.raises(UsageError, match=f"must be {wrong.get('channels', 1)} numbers each"):
        own(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"mean": (128.0,)}, {"mean": (float("nan"),)}, {"std": (0.0,)}, {"std": (64.0,)}]
)
def test_mean_and_std_are_of_pixels_from_0_to_1(wrong):
    with pytest.raises(UsageError, match=r"pixels from 0 to 1.*divide by 255"):
        own(**wrong)


@pytest.mark.parametrize(
    "paths", [["a.png", "b.png"], np.array([["a.png", "b.png"]]), np.array([1, 2])]
)
def test_file_names_are_an_array_of_text(paths):
    with pytest.raises(UsageError, match="paths must be a numpy array of file names"):
        datasets.FileSplit(paths, torch.tensor([0, 1]))


@pytest.mark.parametrize("wrong", [{"classes": (0, 1, 2, 3)}, {"fingerprint": None}])
def test_names_are_text(wrong):
    with pytest.raises(UsageError, match="must be text"):
        own(**wrong)


def test_mean_and_std_can_be_arrays_in_double_precision(make_config):
    double = np.array([0.5]), np.array([0.25])
    config = make_config(base_classes=2, increment=2, top_k=1)
    loaders = [
        loader.make(data.train, data, config, torch.device("cpu"))
        for data in (own(mean=(0.5,), std=(0.25,)), own(mean=double[0], std=double[1]))
    ]
    one, other = (next(iter(given.plain(torch.arange(4))))[0] for given in loaders)
    assert one.dtype == other.dtype == torch.float32 and torch.equal(one, other)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([1, 2, 3, 4], "labels of 4 classes are 0 to 3, not 1 to 4"),
        ([-1, 0, 1, 2], "not -1 to 2"),
        ([0, 1, 2], "one for each of the 4 images, not int64 of shape (3,)"),
        ([0.0, 1.0, 2.0, 3.0], "labels must be int64"),
    ],
)
def test_labels_that_are_not_of_the_classes_are_refused(labels, says):
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    right = datasets.TensorSplit(images, torch.arange(4))
    wrong = datasets.TensorSplit(images, torch.tensor(labels))
    for train, test in ((right, wrong), (wrong, right)):
        with pytest.raises(UsageError) as told:
            datasets.Dataset("own", tuple("abcd"), train, test, (0.5,), (0.2,), "own")
        assert says in str(told.value)
