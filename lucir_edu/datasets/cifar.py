"""CIFAR-100, through torchvision, which checks every file's hash before it opens it."""

import contextlib
import tarfile
from pathlib import Path

import torch
from torchvision.datasets import CIFAR100
from torchvision.datasets.utils import check_integrity, download_and_extract_archive

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
    except (OSError, RuntimeError):
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
    """Download CIFAR-100 to ``root``, unless it is already there.

    Raises:
        UsageError: it could not be fetched; a download that failed leaves nothing behind.
    """
    if _is_whole(root):
        return
    archive = root / CIFAR100.filename
    had_root, had_archive = root.exists(), archive.exists()
    try:  # not through CIFAR100 itself, which fetches nothing when `meta` alone is damaged
        download_and_extract_archive(CIFAR100.url, str(root), md5=CIFAR100.tgz_md5)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        with contextlib.suppress(OSError):
            if not had_archive:
                archive.unlink(missing_ok=True)
            if not had_root:
                root.rmdir()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if had_archive and archive.exists() and not check_integrity(archive, CIFAR100.tgz_md5):
            reason = f"{archive.name} there is cut off or altered; {reason}"
        raise UsageError(
            f"CIFAR-100 could not be fetched to {root} ({reason}); "
            f"check the network, or put {archive.name} there yourself and try again"
        ) from None


def _is_whole(root: Path) -> bool:
    """Whether all files are there, with their hashes."""
    meta = (CIFAR100.meta["filename"], CIFAR100.meta["md5"])
    files = (*CIFAR100.train_list, *CIFAR100.test_list, meta)
    return all(check_integrity(root / CIFAR100.base_folder / name, md5) for name, md5 in files)
