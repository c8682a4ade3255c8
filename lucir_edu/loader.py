"""Batches of images, ready for the network: normalised, on the device, in its memory layout.

Where several processes train together, each gets its share of a batch's images, and all labels.
Tensors are augmented a batch at a time on the device; image files are read by worker processes.
"""

import os
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lucir_edu import hardware
from lucir_edu.config import Config, UsageError
from lucir_edu.datasets import Dataset, FileSplit, Split, TensorSplit, pictures

Batch = tuple[Tensor, Tensor]  # images (n or this process's share, channels, height, width); (n,)


def cut(images: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches. A single image that is left over joins the last batch:
    from one image alone batch norm may have nothing to learn.

    >>> cut(10, 4), cut(9, 4)
    ([4, 4, 2], [4, 5])
    """
    sizes = [batch_size] * (images // batch_size)
    rest = images % batch_size
    if rest == 1 and sizes:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class TensorLoader:
    """Batches from a :class:`TensorSplit`."""

    def __init__(
        self, split: TensorSplit, dataset: Dataset, config: Config, device: torch.device
    ) -> None:
        self.device, self.flip = device, config.flip
        self.padding = config.crop_padding
        pad = [self.padding] * 4
        self.padded = F.pad(split.images, pad).permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = split.labels.to(device)
        self.height, self.width = split.images.shape[2:]
        self.mean = 255 * torch.tensor(dataset.mean, dtype=torch.float32, device=device)
        self.std = 255 * torch.tensor(dataset.std, dtype=torch.float32, device=device)

    def augmented(
        self, indices: Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """One epoch: shuffled, each image cropped (and flipped) at random."""
        order = indices[torch.randperm(len(indices), generator=generator)]
        n, reach = len(order), 2 * self.padding + 1
        tops = torch.randint(reach, (n,), generator=generator).to(self.device)
        lefts = torch.randint(reach, (n,), generator=generator).to(self.device)
        flips = torch.rand(n, generator=generator).to(self.device) < (0.5 if self.flip else 0)
        order = order.to(self.device)
        batches = (draws.split(cut(n, batch_size)) for draws in (order, tops, lefts, flips))
        for rows, *draws in zip(*batches, strict=True):
            yield self._crop(*map(hardware.share, (rows, *draws))), self.labels[rows]

    def plain(
        self, indices: Tensor, batch_size: int | None = None, flip: bool = False
    ) -> Iterator[Batch]:
        """The images as they are, in the order given, or all mirrored."""
        indices = indices.to(self.device)
        for whole in indices.split(batch_size or hardware.judging_batch(self.device)):
            rows = hardware.share(whole)
            middle = torch.full_like(rows, self.padding)
            images = self._crop(rows, middle, middle, torch.full_like(rows, flip, dtype=torch.bool))
            yield images, self.labels[whole]

    def _crop(self, rows: Tensor, tops: Tensor, lefts: Tensor, flips: Tensor) -> Tensor:
        down = torch.arange(self.height, device=self.device)
        right = torch.arange(self.width, device=self.device)
        right = torch.where(flips[:, None], self.width - 1 - right, right)  # (n, width)
        y, x = tops[:, None] + down, lefts[:, None] + right
        pixels = self.padded[rows[:, None, None], y[:, :, None], x[:, None, :]]  # (n, h, w, c)
        return _laid((pixels.float() - self.mean) / self.std)


class FileLoader:
    """Batches from a :class:`FileSplit`, read by workers and never held in memory as a whole."""

    def __init__(
        self, split: FileSplit, dataset: Dataset, config: Config, device: torch.device
    ) -> None:
        self.device, self.workers = device, config.workers
        self.labels = split.labels.to(device)
        self.mean = 255 * torch.tensor(dataset.mean, dtype=torch.float32, device=device)
        self.std = 255 * torch.tensor(dataset.std, dtype=torch.float32, device=device)
        self._files = _Files(split, config.flip)

    def augmented(
        self, indices: Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """One epoch: shuffled, each image cropped (and flipped) at random."""
        order = indices[torch.randperm(len(indices), generator=generator)]
        seeds = torch.randint(2**31, (len(order),), generator=generator)
        return self._batches(order, seeds, cut(len(order), batch_size))

    def plain(self, indices: Tensor, batch_size: int = 128, flip: bool = False) -> Iterator[Batch]:
        """The middle of each image, in the order given, or all mirrored."""
        views = torch.full_like(indices, _MIRRORED if flip else _PLAIN)
        return self._batches(indices, views, batch_size)

    def _batches(self, indices: Tensor, views: Tensor, sizes: int | list[int]) -> Iterator[Batch]:
        items = torch.stack([indices, views], dim=1).split(sizes)  # (n, 2) each
        workers = self.workers if hardware.forks() or len(indices) > FEW else 0
        loader = torch.utils.data.DataLoader(
            self._files,
            batch_sampler=[hardware.share(item).numpy() for item in items],
            num_workers=min(workers, len(items)),
            generator=torch.Generator(),  # not the one that others draw from
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
        )
        every = self.labels[indices.to(self.device)].split(sizes)  # at once: copies make GPUs wait
        for labels, pixels in zip(every, loader, strict=True):
            if isinstance(pixels, str):
                raise UsageError(f"{pixels}; repair the file, and go on with --resume")
            # (Apple's GPUs would read memory that is already freed: pytorch issue 189690)
            pixels = pixels.to(self.device, non_blocking=self.device.type == "cuda")
            yield _laid((pixels.float() - self.mean) / self.std), labels


def _laid(images: Tensor) -> Tensor:
    """(n, height, width, channels) as (n, channels, height, width), in the device's layout."""
    layout = hardware.layout(images.device)
    return images.permute(0, 3, 1, 2).contiguous(memory_format=layout)


FEW = 1500  # images that can be read while workers start, where they are not forked
_PLAIN, _MIRRORED = -1, -2  # views of an image; others are seeds


class _Files(torch.utils.data.Dataset):
    """Opens one image; a seed per image makes the result the same for any number of workers."""

    def __init__(self, split: FileSplit, flip: bool) -> None:
        from torchvision.transforms import RandomResizedCrop  # here, because it takes seconds

        self.paths, self.flip = split.paths, flip
        self.crop = RandomResizedCrop(pictures.SIZE)

    def __getitem__(self, item: np.ndarray) -> np.ndarray | str:
        """Bytes (height, width, 3), or what is wrong with the file."""
        index, view = item.tolist()
        path = os.fsdecode(self.paths[index])
        try:
            if view in (_PLAIN, _MIRRORED):
                image, mirrored = pictures.read(path, pictures.middle), view == _MIRRORED
            else:
                with torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(view)
                    mirrored = self.flip and torch.rand(()).item() < 0.5
                    image = pictures.read(path, self._part)
        except Exception as error:  # Pillow raises many kinds
            return f"{pictures.shown(path)} is not a readable image ({pictures.why(error)})"
        pixels = np.asarray(image)
        return pixels[:, ::-1] if mirrored else pixels

    def _part(self, image: Image.Image) -> pictures.Box:
        crop = self.crop
        top, left, height, width = crop.get_params(image, crop.scale, crop.ratio)
        return left, top, left + width, top + height


def _collate(images: list[np.ndarray | str]) -> Tensor | str:
    damage = next((image for image in images if isinstance(image, str)), None)
    return torch.from_numpy(np.stack(images)) if damage is None else damage


Loader = TensorLoader | FileLoader


def make(split: Split, dataset: Dataset, config: Config, device: torch.device) -> Loader:
    """The loader for a split of a data set."""
    kind = TensorLoader if isinstance(split, TensorSplit) else FileLoader
    return kind(split, dataset, config, device)
