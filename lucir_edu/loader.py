"""Batches of images, ready for the network: normalised, on the device, channels last.

Where several processes train together, each gets its share of a batch's images, and all labels.
Tensors are augmented a batch at a time on the device; image files are read by worker processes.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lucir_edu import hardware
from lucir_edu.config import Config, UsageError
from lucir_edu.datasets import Dataset, FileSplit, Split, TensorSplit

FILE_SIZE = 224  # pixels of an image file's side, after cropping

Batch = tuple[Tensor, Tensor]  # images (n or this process's share, channels, height, width); (n,)


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
        self.mean = 255 * torch.tensor(dataset.mean, device=device)
        self.std = 255 * torch.tensor(dataset.std, device=device)

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
        for start in range(0, n, batch_size):
            rows = slice(start, start + batch_size)
            mine = (hardware.share(draws[rows]) for draws in (order, tops, lefts, flips))
            yield self._crop(*mine), self.labels[order[rows]]

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
        images = (pixels.float() - self.mean) / self.std
        return images.permute(0, 3, 1, 2)


class FileLoader:
    """Batches from a :class:`FileSplit`, read by workers and never held as a whole."""

    def __init__(
        self, split: FileSplit, dataset: Dataset, config: Config, device: torch.device
    ) -> None:
        self.split, self.device, self.workers = split, device, config.workers
        self.labels = split.labels
        from torchvision.transforms import v2  # here, for it takes seconds to import

        end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        end.append(v2.Normalize(dataset.mean, dataset.std))
        flip = [v2.RandomHorizontalFlip()] if config.flip else []
        plain = [v2.Resize(FILE_SIZE * 8 // 7), v2.CenterCrop(FILE_SIZE)]
        self._augment = v2.Compose([v2.RandomResizedCrop(FILE_SIZE), *flip, *end])
        self._plain = v2.Compose([*plain, *end])
        self._mirrored = v2.Compose([*plain, v2.RandomHorizontalFlip(p=1), *end])

    def augmented(
        self, indices: Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[Batch]:
        """One epoch: shuffled, each image cropped (and flipped) at random."""
        order = indices[torch.randperm(len(indices), generator=generator)]
        seeds = torch.randint(2**31, (len(order),), generator=generator)
        return self._batches(order, seeds, self._augment, batch_size)

    def plain(self, indices: Tensor, batch_size: int = 128, flip: bool = False) -> Iterator[Batch]:
        """The middle of each image, in the order given, or all mirrored."""
        transform = self._mirrored if flip else self._plain
        return self._batches(indices, torch.zeros_like(indices), transform, batch_size)

    def _batches(
        self, indices: Tensor, seeds: Tensor, transform: Callable, batch_size: int
    ) -> Iterator[Batch]:
        loader = torch.utils.data.DataLoader(
            _Files(self.split, transform),
            sampler=list(zip(indices.tolist(), seeds.tolist(), strict=True)),
            batch_size=batch_size,
            num_workers=min(self.workers, -(-len(indices) // batch_size)),
            collate_fn=_collate,
            pin_memory=self.device.type == "cuda",
        )
        for images, labels, damage in loader:
            if damage:
                raise UsageError(f"{damage}; mend or remove the file")
            images = images.to(self.device, non_blocking=True)
            yield (
                images.contiguous(memory_format=torch.channels_last),
                labels.to(self.device, non_blocking=True),
            )


class _Files(torch.utils.data.Dataset):
    """Opens one image; a seed per image makes the result the same for any number of workers."""

    def __init__(self, split: FileSplit, transform: Callable) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split.paths)

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor | str, Tensor]:
        index, seed = item
        path = self.split.paths[index]
        try:
            with Image.open(path) as image:
                colour = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"{path} is not a readable image ({type(error).__name__})", torch.tensor(-1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(colour), self.split.labels[index]


def _collate(items: list) -> tuple[Tensor, Tensor, str]:
    damage = next((image for image, _ in items if isinstance(image, str)), "")
    images = [image for image, _ in items if not isinstance(image, str)]
    return (
        torch.stack(images) if images else torch.empty(0),
        torch.stack([label for _, label in items]),
        damage,
    )


Loader = TensorLoader | FileLoader


def make(split: Split, dataset: Dataset, config: Config, device: torch.device) -> Loader:
    """The loader for a split of a data set."""
    kind = TensorLoader if isinstance(split, TensorSplit) else FileLoader
    return kind(split, dataset, config, device)
