"""CIFAR-100, through torchvision, which checks every file's hash before it opens it."""

from pathlib import Path

import torch
from torchvision.datasets import CIFAR100

from lucir_edu.config import UsageError
from lucir_edu.datasets.images import Dataset, TensorSplit

# The authors' values (their standard deviation is smaller than that of the pixels: 0.2675 …).
MEAN = (0.5071, 0.4866, 0.4409)
STD = (0.2009, 0.1984, 0.2023)


def load(root: Path) -> Dataset:
    """CIFAR-100 from ``root/cifar-100-python``.

    Raises:
        UsageError: it is missing or damaged.
    """
    try:
        parts = {train: CIFAR100(str(root), train=train) for train in (True, False)}
    except RuntimeError:
        state = "damaged" if (root / CIFAR100.base_folder).exists() else "missing"
        raise UsageError(
            f"CIFAR-100 is {state} in {root}; fetch it with: "
            f"lucir-edu data --dataset cifar100 --data-root {root}"
        ) from None
    splits = {
        train: TensorSplit(
            torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),  # (n, 3, 32, 32)
            torch.tensor(part.targets),
        )
        for train, part in parts.items()
    }
    return Dataset(
        "cifar100", tuple(parts[True].classes), splits[True], splits[False], MEAN, STD,
        fingerprint="md5:" + CIFAR100.tgz_md5,
    )  # fmt: skip


def fetch(root: Path) -> None:
    """Download CIFAR-100 to ``root``, unless it is there.

    Raises:
        UsageError: it could not be fetched.
    """
    try:
        CIFAR100(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"CIFAR-100 could not be fetched to {root} ({reason}); "
            f"check the network, or put cifar-100-python.tar.gz there yourself and try again"
        ) from None
