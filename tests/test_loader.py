"""Batches against a slow version that handles one image at a time."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from lucir_edu import datasets, hardware, loader
from lucir_edu.config import UsageError
from lucir_edu.datasets import Dataset, FileSplit, pictures

CPU = torch.device("cpu")


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def normalised(image, dataset):
    """One image of bytes (channels, height, width), channel by channel."""
    channels = [
        (channel.double() / 255 - mean) / std
        for channel, mean, std in zip(image, dataset.mean, dataset.std, strict=True)
    ]
    return torch.stack(channels).float()


# ---- Tensors ----------------------------------------------------------------------------------


@pytest.fixture(params=[1, 3])
def toy(request, make_dataset) -> Dataset:
    return make_dataset(classes=4, channels=request.param, size=6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_crop_and_flip_equal_a_slow_version_with_the_same_draws(toy, make_config, flip, padding):
    config = make_config(crop_padding=padding, flip=flip)
    indices = torch.tensor([3, 0, 7, 8, 20, 31, 15])
    batches = list(loader.TensorLoader(toy.train, toy, config, CPU).augmented(indices, 3, draw(5)))
    assert [len(labels) for _, labels in batches] == [3, 4]  # not 1 alone
    images = torch.cat([images for images, _ in batches])
    labels = torch.cat([labels for _, labels in batches])

    generator = draw(5)
    order = indices[torch.randperm(7, generator=generator)]
    tops = torch.randint(2 * padding + 1, (7,), generator=generator)
    lefts = torch.randint(2 * padding + 1, (7,), generator=generator)
    flips = torch.rand(7, generator=generator) < 0.5
    assert torch.equal(labels, toy.train.labels[order])
    for found, index, top, left, mirrored in zip(images, order, tops, lefts, flips, strict=True):
        image = toy.train.images[index]
        padded = torch.zeros(image.shape[0], 6 + 2 * padding, 6 + 2 * padding, dtype=torch.uint8)
        padded[:, padding : padding + 6, padding : padding + 6] = image
        expected = normalised(padded[:, top : top + 6, left : left + 6], toy)
        if flip and mirrored:
            expected = expected.flip(2)
        torch.testing.assert_close(found, expected)


def test_an_epoch_has_every_image_once_in_an_order_of_its_own(dataset, make_config):
    source = loader.TensorLoader(dataset.train, dataset, make_config(crop_padding=0), CPU)
    generator, indices = draw(), torch.arange(10, 50)
    plain = torch.cat([images for images, _ in source.plain(indices)])
    orders = []
    for _ in range(2):
        images = torch.cat([images for images, _ in source.augmented(indices, 16, generator)])
        equal = (images[:, None] == plain[None]).flatten(2).all(dim=2)  # (40, 40)
        assert (equal.sum(dim=0) == 1).all() and (equal.sum(dim=1) == 1).all()
        orders.append(equal.int().argmax(dim=1).tolist())
    assert orders[0] != orders[1]


def test_plain_images_are_the_normalised_images_in_the_order_given(toy, make_config):
    source = loader.TensorLoader(toy.test, toy, make_config(crop_padding=2, flip=True), CPU)
    indices = torch.tensor([5, 2, 2, 11])
    batches = list(source.plain(indices, batch_size=3))
    assert [len(labels) for _, labels in batches] == [3, 1]
    images = torch.cat([images for images, _ in batches])
    expected = torch.stack([normalised(toy.test.images[i], toy) for i in indices])
    torch.testing.assert_close(images, expected)
    assert torch.equal(torch.cat([labels for _, labels in batches]), toy.test.labels[indices])


def test_plain_images_come_in_batches_of_the_device_s_size(toy, make_config):
    source = loader.TensorLoader(toy.test, toy, make_config(), CPU)
    size = hardware.judging_batch(CPU)
    sizes = [len(labels) for _, labels in source.plain(torch.zeros(size + 1, dtype=torch.long))]
    assert sizes == [size, 1]


def test_mirrored_images_swap_left_and_right_not_the_colours(toy, make_config):
    source = loader.TensorLoader(toy.test, toy, make_config(), CPU)
    indices = torch.arange(6)
    ((plain, _),) = source.plain(indices)
    ((mirrored, _),) = source.plain(indices, flip=True)
    assert torch.equal(mirrored, plain.flip(3))
    assert not torch.equal(mirrored, plain)


def test_batches_are_channels_last(dataset, config):
    source = loader.TensorLoader(dataset.train, dataset, config, CPU)
    for batches in (source.augmented(torch.arange(8), 4, draw()), source.plain(torch.arange(8))):
        for images, _ in batches:
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert images.dtype == torch.float32


# ---- Files ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, make_config):
    """Two classes of small image files: colour, grey, RGBA and palette."""
    rng = np.random.default_rng(0)
    modes = {"RGB": 3, "L": 1, "RGBA": 4, "P": 1}
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / part / label
            folder.mkdir(parents=True)
            for mode, channels in modes.items():
                pixels = rng.integers(256, size=(20, 30, channels), dtype=np.uint8).squeeze()
                kind = "L" if mode == "P" else mode
                Image.fromarray(pixels, kind).convert(mode).save(folder / f"{mode}.png")
    return datasets.load(make_config(dataset="folder", base_classes=None), tmp_path)


def file_loader(dataset, config):
    found = loader.make(dataset.train, dataset, config, CPU)
    assert isinstance(found, loader.FileLoader)
    return found


def test_files_give_the_same_batches_with_any_number_of_workers(files, make_config):
    indices = torch.tensor([6, 1, 0, 3, 7, 2])
    collected = []
    for workers in (0, 2):
        source = file_loader(files, make_config(flip=True, workers=workers))
        batches = [*source.augmented(indices, 4, draw(1)), *source.plain(indices, 4)]
        collected.append(batches)
        assert [images.shape for images, _ in batches] == 2 * [(4, 3, 224, 224), (2, 3, 224, 224)]
    for (images, labels), (others, other_labels) in zip(*collected, strict=True):
        assert torch.equal(images, others) and torch.equal(labels, other_labels)
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("images", "forks", "workers"), [(5, False, 0), (6, False, 2), (5, True, 2)]
)
def test_few_files_are_read_without_workers_where_these_start_slowly(
    files, make_config, monkeypatch, images, forks, workers
):
    asked = []

    class Loader(torch.utils.data.DataLoader):
        def __init__(self, *arguments, num_workers, **options):
            asked.append(num_workers)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(torch.utils.data, "DataLoader", Loader)
    monkeypatch.setattr(hardware, "forks", lambda: forks)
    monkeypatch.setattr(loader, "FEW", 5)
    made = loader.make(files.train, files, make_config(workers=2), CPU)
    list(made.plain(torch.arange(images), batch_size=2))
    assert asked == [workers]


def test_augmented_files_are_drawn_anew_from_the_generator(files, make_config):
    source = file_loader(files, make_config(workers=0))

    def first(generator):
        return next(iter(source.augmented(torch.arange(8), 8, generator)))[0]

    generator = draw(1)
    one, two = first(generator), first(generator)
    assert torch.equal(one, first(draw(1)))
    assert not torch.equal(one, two)


@pytest.fixture
def slopes(tmp_path, dataset, make_config, monkeypatch):
    """Draws 300 views of a file, and gives how steeply red rises to the right and green downwards.

    In the whole file each rises by 1 over a side, so that a view's slopes are its share of the
    sides.
    """
    monkeypatch.setattr(pictures, "SIZE", 32)
    rise = 2 * np.arange(128, dtype=np.uint8)
    pixels = np.stack([*np.meshgrid(rise, rise), np.zeros((128, 128), np.uint8)], axis=2)
    Image.fromarray(pixels).save(tmp_path / "rise.png")
    split = FileSplit(np.array([os.fsencode(tmp_path / "rise.png")]), torch.tensor([0]))

    def views(flip):
        source = loader.make(split, dataset, make_config(flip=flip, workers=0), CPU)
        ((images, _),) = source.augmented(torch.zeros(300, dtype=torch.long), 300, draw())
        red, green = images[:, 0] * dataset.std[0], images[:, 1] * dataset.std[1]
        right = red[:, :, 30] - red[:, :, 1]  # outermost pixels may lie at the image's edge
        down = green[:, 30] - green[:, 1]
        return right.mean(dim=1) * 32 / 29, down.mean(dim=1) * 32 / 29

    return views


@pytest.mark.parametrize(("flip", "share"), [(True, 0.5), (False, 0.0)])
def test_half_of_the_augmented_files_are_mirrored_if_any(slopes, flip, share):
    right, down = slopes(flip)
    assert (right < 0).float().mean().item() == pytest.approx(share, abs=0.1 * flip)
    assert (down > 0).all(), "upside down"


def test_augmented_files_show_from_a_twelfth_of_the_image_to_all_of_it(slopes):
    """As is usual: areas from 0.08 to 1, evenly, with sides from 3:4 to 4:3."""
    right, down = slopes(flip=False)
    areas, shapes = right * down, right / down
    assert 0.07 < areas.min() < 0.12 and 0.9 < areas.max() < 1.01
    assert (areas < 0.5).float().mean().item() == pytest.approx(0.46, abs=0.1)
    assert 0.72 < shapes.min() < 0.78 and 1.28 < shapes.max() < 1.39


def test_reading_leaves_the_global_random_numbers_alone(files, make_config):
    for workers in (0, 1):
        source = file_loader(files, make_config(workers=workers))
        state = torch.get_rng_state()
        list(source.augmented(torch.arange(8), 4, draw(1)))
        assert torch.equal(torch.get_rng_state(), state)


def test_plain_files_are_the_middle_of_the_resized_image(files, make_config):
    ((images, labels),) = file_loader(files, make_config(workers=0)).plain(torch.arange(8))
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert labels.equal(files.train.labels)
    for image, path in zip(images, files.train.paths, strict=True):
        with Image.open(path) as file:
            white = Image.new("RGB", file.size, "white")
            white.paste(file, mask=file.getchannel("A") if file.mode == "RGBA" else None)
        resized = white.resize((384, 256), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)[16:240, 80:304]).permute(2, 0, 1)
        four_greys = 4 / 255 / min(files.std)  # resized in one step, not in two
        torch.testing.assert_close(image, normalised(pixels, files), atol=four_greys, rtol=0)


def test_mirrored_files_swap_left_and_right(files, make_config):
    source = file_loader(files, make_config(workers=0))
    ((plain, _),) = source.plain(torch.arange(4))
    ((mirrored, _),) = source.plain(torch.arange(4), flip=True)
    assert torch.equal(mirrored, plain.flip(3))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named(files, make_config, workers):
    broken = os.fsdecode(files.train.paths[2])
    with open(broken, "rb") as file:
        half = file.read()[:300]
    with open(broken, "wb") as file:
        file.write(half)
    source = file_loader(files, make_config(workers=workers))
    with pytest.raises(UsageError, match="not a readable image") as raised:
        list(source.plain(torch.arange(8), 4))
    assert str(broken) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_is_named(files, make_config):
    split = FileSplit(np.array([b"nowhere.png"]), torch.tensor([0]))
    source = loader.make(split, files, make_config(workers=0), CPU)
    with pytest.raises(UsageError, match=r"nowhere\.png is not a readable image"):
        list(source.plain(torch.tensor([0])))


def test_the_loader_fits_the_split(files, dataset, config):
    assert isinstance(loader.make(dataset.train, dataset, config, CPU), loader.TensorLoader)
    assert isinstance(loader.make(files.test, files, config, CPU), loader.FileLoader)


def test_a_process_among_several_loads_its_share_and_has_all_labels(
    toy, files, make_config, monkeypatch
):
    """The last batch has one image: too few to share."""
    for dataset, size in ((toy, 6), (files, 224)):
        source = loader.make(dataset.train, dataset, make_config(workers=0, flip=True), CPU)

        def batches(source=source):
            return [*source.augmented(torch.arange(7), 3, draw(1)),
                    *source.plain(torch.arange(7), 3)]  # fmt: skip

        whole, shares = batches(), []
        for rank in (0, 1):
            monkeypatch.setattr(hardware, "ranks", lambda: 2)
            monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
            shares.append(batches())
            monkeypatch.undo()
        for (images, labels), (one, first), (two, second) in zip(whole, *shares, strict=True):
            assert labels.equal(first) and labels.equal(second)
            if len(labels) == 1:
                assert one.equal(images) and two.equal(images)
            else:
                assert len(one) == 2 and torch.cat([one, two]).equal(images)
            assert images.shape[2:] == (size, size)
