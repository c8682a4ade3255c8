"""Folders of image files: what people have in them, what is learnt from it, and what is refused."""

import io
import json
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchvision.transforms import v2

from lucir_edu import cli, datasets, hardware, runs
from lucir_edu.config import UsageError, preset
from lucir_edu.datasets import FileSplit, folder, images, pictures

CPU = torch.device("cpu")
SMALL = ["backbone=small", "width=16", "epochs=1", "base_classes=2", "increment=2", "workers=0",
         "exemplars_per_class=1", "batch_size=4", "precision=float32"]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where it is remembered what was readable."""
    found = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets, "default_root", lambda: found)
    return found


@pytest.fixture
def tiny(monkeypatch):
    """Images are read at 32 pixels a side; workers inherit it, for they are forked."""
    monkeypatch.setattr(pictures, "SIZE", 32)
    monkeypatch.setattr(pictures, "RESIZED", 36)


@pytest.fixture
def make_root(tmp_path):
    """Builds a folder of images, each of its class's colour."""

    def make(classes="abcd", train=3, val=2, root="images") -> Path:
        for part, count in (("train", train), ("val", val)):
            for number, name in enumerate(classes):
                (tmp_path / root / part / name).mkdir(parents=True)
                for i in range(count):
                    image = Image.new("RGB", (12 + i, 9), (60 * number, 250 - 60 * number, 20 * i))
                    image.save(tmp_path / root / part / name / f"{i}.jpg")
        return tmp_path / root

    return make


def run(root, out, *settings):
    changes = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    return cli.main(["run", "folder", "--data-root", str(root), "--out", str(out), *changes])


def names(split):
    return [os.path.basename(os.fsdecode(path)) for path in split.paths]


def png(width, height, *chunks):
    """A PNG of 1-bit pixels that claims a size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


# ---- Reading ----------------------------------------------------------------------------------


def colours(tmp_path, image, name="x.png", **options):
    """The corners of what is read of an image: left top, right top, left bottom, right bottom."""
    image.save(tmp_path / name, **options)
    read = pictures.read(str(tmp_path / name), pictures.middle)
    assert (read.mode, read.size) == ("RGB", (224, 224))
    return [read.getpixel(place) for place in ((0, 0), (223, 0), (0, 223), (223, 223))]


def near(found, expected, atol=3):
    np.testing.assert_allclose(found, expected, atol=atol)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_become_eight(tmp_path, ending):
    image = Image.fromarray(np.full((9, 9), 100 * 257, np.uint16))
    near(colours(tmp_path, image, f"x.{ending}"), 4 * [(100, 100, 100)], 0)


def test_grey_palette_and_cmyk_keep_their_colours(tmp_path):
    near(colours(tmp_path, Image.new("L", (9, 9), 77)), 4 * [(77, 77, 77)], 0)
    teal = Image.new("RGB", (9, 9), (0, 120, 130))
    near(colours(tmp_path, teal.convert("P", palette=Image.Palette.ADAPTIVE)), 4 * [(0, 120, 130)])
    near(colours(tmp_path, teal.convert("CMYK"), "x.jpg", quality=95), 4 * [(0, 120, 130)], 6)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_is_white(tmp_path, mode):
    black = Image.new("LA" if mode == "LA" else "RGBA", (8, 8))  # clear
    ImageDraw.Draw(black).rectangle((4, 0, 7, 7), fill=(0, 255) if mode == "LA" else "#000000ff")
    options = {}
    if mode in "PLRGB" and mode != "RGBA":
        black = Image.new(mode, (8, 8), 1 if mode in "PL" else (1, 1, 1))
        if mode == "P":
            black.putpalette([0, 0, 0, 9, 9, 9])
        ImageDraw.Draw(black).rectangle((4, 0, 7, 7), fill=0)
        options = {"transparency": 1 if mode in "PL" else (1, 1, 1)}
    white, ink = (255, 255, 255), (0, 0, 0)
    near(colours(tmp_path, black, **options), [white, ink, white, ink], 0)


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.tif"])
@pytest.mark.parametrize(("turn", "first"), [(1, "red"), (3, "blue"), (6, "lime"), (8, "white")])
def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path, name, turn, first):
    image = Image.new("RGB", (64, 64), "red")  # red, white; lime, blue
    for colour, place in (("white", (32, 0)), ("lime", (0, 32)), ("blue", (32, 32))):
        image.paste(colour, (*place, place[0] + 32, place[1] + 32))
    exif = Image.Exif()
    exif[0x112] = turn
    options = {"lossless": True} if name == "x.webp" else {}
    found = colours(tmp_path, image, name, exif=exif, **options)
    near(found[0], Image.new("RGB", (1, 1), first).getpixel((0, 0)), 4)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff"])
def test_damaged_exif_data_do_no_harm(tmp_path, exif, recwarn):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "x.jpg", exif=exif)
    recwarn.clear()
    read = pictures.read(str(tmp_path / "x.jpg"), pictures.middle)
    near(read.getpixel((9, 9)), (254, 0, 0))
    assert not recwarn.list


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
def test_the_first_frame_of_an_animation_is_taken(tmp_path, name):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "lime")]
    found = colours(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    near(found, 4 * [(255, 0, 0)], 8)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (300, 256), (256, 300), (500, 375), (333, 501)])
def test_the_middle_is_that_of_torchvision(tmp_path, size):
    pixels = np.random.default_rng(0).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = np.asarray(pictures.read(str(tmp_path / "x.png"), pictures.middle)).astype(int)
    usual = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(Image.fromarray(pixels))
    np.testing.assert_allclose(found, np.asarray(usual), atol=1)


def test_a_very_long_image_is_not_blown_up(tmp_path, monkeypatch):
    """As a whole, with its shorter side made 256, it would have 330 million pixels."""
    Image.new("RGB", (1, 5000), "teal").save(tmp_path / "x.png")
    made, resize = [], Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *a, **k: made.append(size) or resize(self, size, *a, **k),
    )
    read = pictures.read(str(tmp_path / "x.png"), pictures.middle)
    assert read.getpixel((5, 5)) == (0, 128, 128)
    assert made and max(width * height for width, height in made) == 224 * 224


def test_a_large_photograph_is_decoded_at_half_its_size_and_looks_the_same(tmp_path):
    rng = np.random.default_rng(0)
    soft = Image.fromarray(rng.integers(256, size=(30, 40, 3), dtype=np.uint8))
    soft.resize((2000, 1500), Image.Resampling.BICUBIC).save(tmp_path / "x.jpg")
    seen = []

    def part(image):
        seen.append(image)
        return 250, 100, 1650, 1400

    found = np.asarray(pictures.read(str(tmp_path / "x.jpg"), part)).astype(int)
    assert seen[0].size == (1000, 750)
    with Image.open(tmp_path / "x.jpg") as image:
        whole = image.resize((224, 224), Image.Resampling.BILINEAR, box=(250, 100, 1650, 1400))
    assert abs(found - np.asarray(whole)).mean() < 1
    pictures.read(str(tmp_path / "x.jpg"), lambda image: seen.append(image) or (0, 0, 440, 440))
    assert seen[1].size == (2000, 1500), "a small part needs all of its pixels"


# ---- A folder as people have it ---------------------------------------------------------------


def jpeg():
    file = io.BytesIO()
    Image.effect_noise((40, 30), 90).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def odd_root(make_root):
    """Four classes; among their images, in train/a and val/b, what cannot be read."""
    root = make_root(root="my images")
    good, bad = root / "train" / "b", root / "train" / "a"
    Image.new("L", (9, 9), 7).save(good / "grey.png")
    Image.fromarray(np.full((9, 9), 999, np.uint16)).save(good / "grey16.png")
    Image.new("P", (9, 9), 7).save(good / "palette.PNG")
    Image.new("CMYK", (9, 9), 7).save(good / "cmyk.JPEG")
    Image.new("RGBA", (9, 9), "#ff000080").save(good / "clear.png")
    Image.new("LA", (9, 9), 7).save(good / "clear grey.png")
    Image.new("RGB", (1, 1), 7).save(good / "dot.JPG", "jpeg")
    Image.new("RGB", (1, 5000), 7).save(good / "line.png")
    Image.new("RGB", (9, 9), 7).save(
        good / "gif.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), 9)]
    )
    Image.new("RGB", (9, 9), 7).save(good / "né\n w.jpg")
    Image.new("RGB", (9, 9), 7).save(os.fsencode(good) + b"/\xff.jpg", "jpeg")
    (good / "linked.jpg").symlink_to(good / "0.jpg")
    (good / "folder.jpg").mkdir()
    Image.new("RGB", (9, 9), 7).save(good / "folder.jpg" / "inside.jpg")
    for name in (".DS_Store", "._0.jpg", "Thumbs.db", "notes.txt", ".hidden/x.jpg"):  # no images
        (good / name).parent.mkdir(exist_ok=True)
        (good / name).write_bytes(b"\0\5\x16\7")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "README.txt").touch()

    (bad / "short.jpg").write_bytes(jpeg()[:600])
    file = io.BytesIO()
    Image.effect_noise((40, 30), 90).save(file, "png")
    (bad / "short.png").write_bytes(file.getvalue()[:500])
    (bad / "empty.jpg").touch()
    (bad / "text.jpg").write_text("not a picture")
    (bad / "page.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (bad / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(bad / "pipe.jpg")
    (bad / "bomb.png").write_bytes(png(60_000, 60_000))
    (root / "val" / "b" / "new\nline.png").write_bytes(png(50, 50)[:50])
    return root


def test_a_link_to_a_folder_above_itself_adds_nothing(make_root):
    root = make_root()
    before = folder.load(root)
    (root / "train" / "a" / "loop").symlink_to(root / "train" / "a")
    assert names(folder.load(root).train) == names(before.train)
    for name in ("shared", "again"):  # a folder elsewhere counts, once
        (root / "train" / "c" / name).symlink_to(root / "val" / "c")
    assert len(folder.load(root).train.labels) == len(before.train.labels) + 2


GOOD = ["0.jpg", "1.jpg", "2.jpg", "clear grey.png", "clear.png", "cmyk.JPEG", "dot.JPG",
        "gif.gif", "grey.png", "grey16.png", "line.png", "linked.jpg", "né\n w.jpg", "palette.PNG",
        "\udcff.jpg", "inside.jpg"]  # fmt: skip
BAD = {
    "bomb.png": "exceeds limit", "empty.jpg": "not an image", "gone.jpg": "no such file",
    "page.jpg": "not an image", "pipe.jpg": "not a file", "short.jpg": "truncated",
    "short.png": "truncated", "text.jpg": "not an image", "new\nline.png": "",
}  # fmt: skip


def remove_damaged(root):
    for name in BAD:
        for part in ("train/a", "val/b"):
            (root / part / name).unlink(missing_ok=True)


def test_odd_images_are_listed_and_hidden_files_are_not(odd_root):
    dataset = folder.load(odd_root)
    of_b = dataset.train.take(torch.nonzero(dataset.train.labels == 1)[:, 0])
    assert names(of_b) == GOOD
    assert dataset.classes == tuple("abcd")
    assert torch.bincount(dataset.train.labels).tolist() == [3 + len(BAD) - 1, len(GOOD), 3, 3]
    assert torch.bincount(dataset.test.labels).tolist() == [2, 3, 2, 2]


def test_a_folder_is_normalised_by_imagenets_numbers(make_root):
    dataset = folder.load(make_root())
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert dataset.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_found_with_the_reason(odd_root, cache, workers, monkeypatch):
    monkeypatch.setattr(folder, "TRIAL", 1)  # enough of them for several processes
    dataset = folder.load(odd_root)
    paths = np.concatenate([dataset.train.paths, dataset.test.paths])
    found = folder.damaged(paths, workers, cache)
    assert [Path(path).name for path in found] == list(BAD), "in the order given"
    for reason, expected in zip(found.values(), BAD.values(), strict=True):
        assert expected in reason.lower() and "\n" not in reason


def test_a_file_that_may_not_be_opened_is_damaged(make_root, cache, monkeypatch):
    dataset, opened = folder.load(make_root()), Image.open

    def refuse(path, *arguments):
        if path.endswith("b/1.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return opened(path, *arguments)

    monkeypatch.setattr(pictures.Image, "open", refuse)
    (found,) = folder.damaged(dataset.train.paths, 0, cache).items()
    assert found == (str(dataset.train.paths[4], "utf-8"), "Permission denied")


@pytest.mark.parametrize("wrong", ["base_classes=3", "increment=3", "top_k=3", "memory_total=3"])
def test_settings_that_do_not_fit_are_refused_before_images_are_read(
    make_root, tmp_path, monkeypatch, capsys, wrong
):
    read = []
    monkeypatch.setattr(folder, "choose", lambda *arguments: read.append(arguments))
    assert run(make_root("abcd"), tmp_path / "run", wrong) == 2
    assert not read and wrong.partition("=")[2] in capsys.readouterr().err


def test_a_taken_folder_is_refused_before_images_are_read(make_root, tmp_path, tiny, monkeypatch):
    root, read = make_root("abcd"), []
    assert run(root, tmp_path / "run") == 0
    monkeypatch.setattr(folder, "load", read.append)
    assert run(root, tmp_path / "run") == 2
    assert not read


@pytest.mark.parametrize("count", [2, 4, 7])
def test_few_classes_can_be_learnt_without_a_setting(make_root, tmp_path, tiny, count):
    root = make_root("abcdefg"[:count])
    few = ["backbone=small", "epochs=1", "batch_size=4", "workers=0"]
    changes = [word for setting in few for word in ("--set", setting)]
    arguments = ["run", "folder", "--data-root", str(root), "--out", str(tmp_path / "run")]
    assert cli.main([*arguments, *changes]) == 0
    assert runs.load(tmp_path / "run")["phases"][-1]["classes_seen"] == count


def test_data_lists_what_is_damaged(odd_root, capsys):
    command = ["data", "--dataset", "folder", "--data-root", str(odd_root)]
    assert cli.main(command) == 2
    printed = capsys.readouterr()
    assert printed.out.count("\n") == len(BAD)
    assert f"{odd_root}/train/a/text.jpg: not an image\n" in printed.out
    assert "9 of 42 images cannot be read" in printed.err and printed.err.count("\n") == 1
    remove_damaged(odd_root)
    assert cli.main(command) == 0
    assert "folder: 4 classes, 25 training and 8 test images" in capsys.readouterr().out


def test_data_shows_the_first_damaged_files_on_a_terminal(make_root, capsys, monkeypatch):
    root = make_root(train=9)
    for path in (root / "train").rglob("*.jpg"):
        path.touch()
        path.write_text("no")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert cli.main(["data", "--dataset", "folder", "--data-root", str(root)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21 and "16 more" in lines[20]


def test_a_run_refuses_damaged_files_before_it_begins_or_leaves_them_out(
    odd_root, tmp_path, capsys, tiny
):
    assert run(odd_root, tmp_path / "refused") == 2
    printed = capsys.readouterr()
    assert "9 of 42 images cannot be read" in printed.err and "bomb.png" in printed.err
    assert "damaged=skip" in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "refused").exists()

    assert run(odd_root, tmp_path / "skipped", "damaged=skip") == 0
    assert "left out" in capsys.readouterr().err
    result = runs.load(tmp_path / "skipped")
    assert result.arrays["confusion_cnn"][-1].sum(axis=1).tolist() == [2, 2, 2, 2]
    assert len(result["phases"]) == 2 and result["phases"][-1]["exemplars"] == 4

    remove_damaged(odd_root)  # as if they had never been there, but for the fingerprint
    assert run(odd_root, tmp_path / "clean") == 0
    clean = runs.load(tmp_path / "clean")
    assert clean.accuracies() == result.accuracies()
    assert clean["phases"][0]["losses"] == result["phases"][0]["losses"]
    assert clean["data_fingerprint"] != result["data_fingerprint"]
    assert run(odd_root, tmp_path / "skipped", "damaged=skip") == 2, "resumed on other data"


@pytest.mark.parametrize("first", [True, False])
def test_of_processes_that_train_together_the_first_tells_what_is_left_out(
    first, odd_root, cache, capsys, monkeypatch
):
    monkeypatch.setattr(hardware, "is_first", lambda: first)
    datasets.load(preset("folder", damaged="skip", workers=0), odd_root)
    assert ("left out" in capsys.readouterr().err) == first


def test_skipped_files_are_replaced_by_others_of_their_class(make_root, cache):
    root = make_root(train=5)
    (root / "train" / "b" / "0.jpg").write_text("no")
    (root / "train" / "b" / "2.jpg").write_text("no")
    (root / "train" / "c" / "4.jpg").write_text("never looked at")
    config = preset("folder", damaged="skip", train_per_class=3, workers=0)
    dataset = datasets.load(config, root)
    assert names(dataset.train) == [
        f"{i}.jpg" for i in (0, 1, 2, 1, 3, 4, 0, 1, 2, 0, 1, 2)
    ]  # fmt: skip
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    everything = folder.load(root)
    assert dataset.fingerprint not in (everything.fingerprint, "")
    again = datasets.load(config, root)
    assert again.fingerprint == dataset.fingerprint

    moved = root.rename(root.with_name("elsewhere"))
    assert datasets.load(config, moved).fingerprint == dataset.fingerprint
    (moved / "val" / "a" / "0.jpg").write_bytes((moved / "val" / "a" / "0.jpg").read_bytes() + b"!")
    assert datasets.load(config, moved).fingerprint != dataset.fingerprint, "another content"
    for i in range(5):
        (moved / "train" / "b" / f"{i}.jpg").write_text("no")
    with pytest.raises(UsageError, match="no image in train of b can be read"):
        datasets.load(config, moved)


def test_the_fingerprint_is_of_names_and_classes_not_of_sizes_alone(make_root):
    root = make_root(classes="ab")
    for name in ("a/2.jpg", "b/0.jpg", "b/1.jpg"):  # then the last of a can be the first of b
        (root / "train" / name).unlink()

    def sizes():
        return [os.path.getsize(path) for path in folder.load(root).train.paths]

    before, found = sizes(), [folder.load(root).fingerprint]
    for old, new in (("a/1.jpg", "b/1.jpg"), ("b/2.jpg", "b/3.jpg")):
        (root / "train" / old).rename(root / "train" / new)
        assert sizes() == before
        found.append(folder.load(root).fingerprint)
    assert len(set(found)) == 3


def test_what_was_readable_is_read_again_only_when_it_has_changed(make_root, cache, monkeypatch):
    root, read, original = make_root(), [], pictures.read
    monkeypatch.setattr(
        pictures, "read", lambda path, box: read.append(path) or original(path, box)
    )
    config = preset("folder", workers=0)
    datasets.load(config, root)
    assert len(read) == 20
    datasets.load(config, root)
    assert len(read) == 20, "none is read twice"
    (root / "val" / "c" / "1.jpg").write_text("spoilt since")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"1 of 20 .*val/c/1\.jpg"):
            datasets.load(config, root)
    assert read[20:] == 2 * [str(root / "val" / "c" / "1.jpg")]
    (cache / folder.READABLE).write_text("damaged")
    Image.new("RGB", (5, 5)).save(root / "val" / "c" / "1.jpg")
    datasets.load(config, root)
    assert len(read) == 42, "a damaged memory only costs the reading"


def test_a_stopped_reading_keeps_what_it_has(make_root, cache, monkeypatch):
    dataset, read = folder.load(make_root(train=20)), pictures.read

    def stop(path, box):
        if path.endswith("d/19.jpg"):
            raise KeyboardInterrupt
        return read(path, box)

    monkeypatch.setattr(pictures, "read", stop)
    with pytest.raises(KeyboardInterrupt):
        folder.damaged(dataset.train.paths, 0, cache)
    assert len(np.load(cache / folder.READABLE)) == 64


def test_a_cache_that_cannot_be_written_to_only_costs_the_reading(make_root, tmp_path):
    (tmp_path / "file").touch()
    assert folder.damaged(folder.load(make_root()).train.paths, 0, tmp_path / "file" / "x") == {}


def test_a_file_spoilt_during_a_run_is_named_and_the_run_goes_on_when_it_is_mended(
    make_root, tmp_path, capsys, monkeypatch, tiny
):
    root = make_root()
    assert run(root, tmp_path / "whole") == 0
    spoilt = root / "val" / "d" / "0.jpg"
    content = spoilt.read_bytes()

    def damaged(*_):
        spoilt.write_bytes(content[:100])  # just after it was read
        return {}

    monkeypatch.setattr(folder, "damaged", damaged)
    command = [word for setting in SMALL for word in ("--set", setting)]
    command = ["run", "folder", "--data-root", str(root), "--out", str(tmp_path / "r"), *command]
    capsys.readouterr()
    whole = runs.load(tmp_path / "whole")
    last = whole["class_order"].index(3)
    assert last >= 2, "the class comes in the second phase"
    assert cli.main(command) == 2
    assert f"{spoilt} is not a readable image" in capsys.readouterr().err
    assert len(runs.load(tmp_path / "r")["phases"]) == 1
    spoilt.write_bytes(content)
    monkeypatch.setattr(folder, "damaged", lambda *_: {})
    assert cli.main([*command, "--resume"]) == 0
    assert runs.load(tmp_path / "r").accuracies() == whole.accuracies()


def test_results_are_the_same_for_any_number_of_workers(make_root, tmp_path):
    root = make_root()
    results = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        assert run(root, out, f"workers={workers}", "flip=true") == 0
        found = json.loads((out / "results.json").read_text())
        assert found["config"].pop("workers") == workers
        for phase in found["phases"]:
            phase.pop("seconds")
        results.append(found)
    assert results[0] == results[1]


def test_resnet18_learns_from_a_folder(make_root, tmp_path):
    assert run(make_root(train=2, val=1), tmp_path / "out", "backbone=resnet18") == 0
    result = runs.load(tmp_path / "out")
    assert [phase["classes_seen"] for phase in result["phases"]] == [2, 4]
    assert result["phases"][-1]["exemplars"] == 4


# ---- Mistakes ---------------------------------------------------------------------------------


def damage(root, what):
    train, val = root / "train", root / "val"
    empty = {"empty class": train / "b", "no known endings": val / "c"}
    if what in empty:
        for path in empty[what].iterdir():
            path.unlink()
    if what == "no known endings":
        (val / "c" / "photo.heic").touch()
    elif what == "strays":
        (train / "a" / "0.jpg").rename(train / "0.jpg")
    elif what == "a file":
        val.rename(root / "v")
        val.touch()
    elif what.startswith("no "):
        (root / what[3:]).rename(root / "elsewhere")
    elif what == "flat":
        train.rename(root / "t")
        train.mkdir()
    elif what in ("train alone", "val alone"):
        (root / what.split()[0] / "new\nclass").mkdir()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no train", "train must hold a folder of images for every class (No such file"),
        ("no val", "val must hold a folder of images for every class (No such file"),
        ("a file", "val must hold a folder of images for every class (Not a directory"),
        ("flat", "two at least; it has none"),
        ("strays", "move what lies next to them: 0.jpg"),
        ("empty class", "train has no images of b; known are .jpg, "),
        ("no known endings", "val has no images of c; known are .jpg, "),
        ("train alone", "must have the same classes; only in train: 'new\\nclass'"),
        ("val alone", "must have the same classes; only in val: 'new\\nclass'"),
    ],
)
def test_a_folder_of_another_form_is_refused(make_root, tmp_path, capsys, what, says):
    root = make_root(root="my images")
    damage(root, what)
    for command in (
        ["run", "folder", "--out", str(tmp_path / "out")],
        ["data", "--dataset", "folder"],
    ):
        assert cli.main([*command, "--data-root", str(root)]) == 2
        printed = capsys.readouterr()
        assert says in printed.err and str(root) in printed.err
        assert printed.err.count("\n") == 1 and printed.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["my images"], "nothing is left behind"


def test_one_class_alone_is_refused(make_root):
    with pytest.raises(UsageError, match=r"two at least; it has a$"):
        folder.load(make_root(classes="a"))


@pytest.mark.parametrize("below", ["train", "train/b"])
def test_a_folder_that_may_not_be_opened_is_named(make_root, monkeypatch, below):
    root, scandir = make_root(), os.scandir

    def refuse(path):
        if os.fspath(path) == str(root / below):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=rf"{below} .*\(Permission denied\)"):
        folder.load(root)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("subset_classes=5", "subset_classes=5, but folder has 4 classes"),
        ("base_classes=5", "4 classes do not make a base phase of 5"),
        ("damaged=ignore", "choose one of: refuse, skip"),
    ],
)
def test_more_than_there_is_is_refused(make_root, tmp_path, capsys, setting, says):
    assert run(make_root(), tmp_path / "out", setting) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_class_whose_name_is_no_text_can_be_written_down(make_root):
    root = make_root()
    for part in (b"train", b"val"):
        os.rename(
            os.fsencode(root / "x").replace(b"x", part + b"/a"),
            os.fsencode(root) + b"/" + part + b"/\xe9",
        )
    assert "\ufffd".encode() in "".join(folder.load(root).classes).encode()


# ---- Many images ------------------------------------------------------------------------------


def test_a_split_of_files_holds_no_pixels_and_no_strings():
    """A million names of 49 bytes, and as many labels, are 57 MB."""
    paths = np.array([b"/data/train/n01440764/n01440764_%012d.JPEG" % i for i in range(1000)])
    split = FileSplit(paths, torch.arange(1000) % 10)
    dataset = images.Dataset("x", tuple("abcdefghij"), split, split, (0,) * 3, (1,) * 3, "")
    part = images.subset(dataset, 5).train
    assert (split.paths.itemsize, split.labels.itemsize) == (49, 8)
    assert part.paths.nbytes == 500 * 49 and part.paths.dtype.kind == "S"
    assert [int(path[-17:-5]) % 10 for path in part.paths[:10]] == sorted(
        np.random.RandomState(1993).choice(10, 5, replace=False)
    ) * 2
