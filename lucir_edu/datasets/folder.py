"""Any folder of images, ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, read as it is needed."""

import hashlib
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder

from lucir_edu.config import UsageError
from lucir_edu.datasets.images import Dataset, FileSplit

# ImageNet's
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def load(root: Path) -> Dataset:
    """The images under ``root/train`` and ``root/val``; only their names are held.

    Raises:
        UsageError: a folder is missing or empty, or the two do not have the same classes.
    """
    parts = {}
    for name in ("train", "val"):
        try:
            parts[name] = ImageFolder(str(root / name))
        except (FileNotFoundError, NotADirectoryError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"{root / name} must hold a folder of images for every class ({reason})"
            ) from None
    train, val = parts["train"], parts["val"]
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise UsageError(f"train and val in {root} must have the same classes; check: {odd[:5]}")
    digest = hashlib.sha256()
    for part in (train, val):
        for path, _ in part.samples:
            digest.update(str(Path(path).relative_to(root)).encode())
    splits = [
        FileSplit([path for path, _ in part.samples], torch.tensor(part.targets))
        for part in (train, val)
    ]
    return Dataset(
        "folder", tuple(train.classes), *splits, MEAN, STD, "names:" + digest.hexdigest()[:16]
    )
