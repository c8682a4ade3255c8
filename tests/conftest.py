"""A tiny data set and a tiny experiment, on which a whole run takes a fraction of a second."""

import os
from collections.abc import Callable

import pytest
import torch

from lucir_edu.config import Config
from lucir_edu.datasets import Dataset, TensorSplit

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where the same seed gives the same bytes is the CPU
torch.set_num_threads(1)  # on images this small, threads only wait for each other


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """Builds a data set: a random drawing per class, and noisy copies of it."""

    def make(
        classes: int = 12, train: int = 8, test: int = 5, channels: int = 3, size: int = 8
    ) -> Dataset:
        generator = torch.Generator().manual_seed(classes)
        drawings = torch.randint(256, (classes, channels, size, size), generator=generator)

        def split(count: int) -> TensorSplit:
            labels = torch.arange(classes).repeat(count)
            noise = torch.randint(-70, 71, (len(labels), *drawings.shape[1:]), generator=generator)
            return TensorSplit((drawings[labels] + noise).clamp(0, 255).byte(), labels)

        return Dataset(
            name="toy",
            classes=tuple(f"class {chr(65 + c)}" for c in range(classes)),
            train=split(train),
            test=split(test),
            mean=(0.5, 0.4, 0.6)[:channels],
            std=(0.25, 0.2, 0.3)[:channels],
            fingerprint="toy",
        )

    return make


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    """12 classes of 8x8 colour images, 8 for training and 5 for testing."""
    return make_dataset()


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """Builds the config of a base phase of 6 classes and two phases of 3."""

    def make(**changes: object) -> Config:
        tiny = {
            "base_classes": 6,
            "increment": 3,
            "exemplars_per_class": 3,
            "order_seed": 1993,
            "width": 4,
            "epochs": 2,
            "batch_size": 16,
            "crop_padding": 1,
            "precision": "float32",
        }
        return Config(**{**tiny, **changes})

    return make


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    return make_config()
