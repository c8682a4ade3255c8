"""Any folder of images, ``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg``, read as needed.

Every image that a run will use is read once before the run starts, because a damaged one could stop
it after hours. What was readable is remembered, and only what is new is read the next time.
"""

import hashlib
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from lucir_edu import hardware
from lucir_edu.config import Config, UsageError
from lucir_edu.datasets import pictures
from lucir_edu.datasets.images import Dataset, FileSplit, limit
from lucir_edu.files import whole

# ImageNet's
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# torchvision's, and GIF; other files are not taken for images
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")

TRIAL = 32  # images that a process tries at a time
READABLE = "readable.npy"  # what was found readable: 8 bytes for a file's name, size and time


def load(root: Path) -> Dataset:
    """The images under ``root/train`` and ``root/val``. Only their names are held in memory; names
    and sizes make the fingerprint.

    Hidden files and folders, and files whose ending is not one of :data:`ENDINGS`, are left out.

    Raises:
        UsageError: a folder is missing or empty, or the two do not have the same classes.
    """
    train, val = (_classes(root / part) for part in ("train", "val"))
    if train != val:
        alone = [
            f"only in {part}: {_some(sorted(set(one) - set(other)))}"
            for part, one, other in (("train", train, val), ("val", val, train))
            if set(one) - set(other)
        ]
        raise UsageError(
            f"train and val in {_name(root)} must have the same classes; {', '.join(alone)}"
        )
    digest = hashlib.sha256()
    splits = [_split(root, part, train, digest) for part in ("train", "val")]
    # A name that is not valid text would prevent results from being written
    classes = tuple(os.fsencode(name).decode(errors="replace") for name in train)
    return Dataset("folder", classes, *splits, MEAN, STD, "files:" + digest.hexdigest()[:16])


def choose(dataset: Dataset, config: Config, root: Path, cache: Path) -> Dataset:
    """The images that a config selects, all of them readable.

    Args:
        root: the folder that the data set was loaded from.
        cache: the folder in which to remember what was readable.

    Raises:
        UsageError: there are damaged ones, and ``config.damaged`` is "refuse".
    """
    left_out: list[str] = []
    while True:  # as many of each class as asked for, if others can replace damaged ones
        taken = limit(dataset, config.train_per_class, config.test_per_class)
        splits = (taken.train, taken.test)
        found = damaged(np.concatenate([s.paths for s in splits]), config.workers, cache)
        if not found:
            break
        if config.damaged == "refuse":
            count = sum(len(split.labels) for split in splits)
            path, reason = next(iter(found.items()))
            raise UsageError(
                f"{len(found)} of {count} images cannot be read: {pictures.shown(path)} ({reason})"
                f"{', …' * (len(found) > 1)}; repair them, or leave them out with "
                f"--set damaged=skip (lucir-edu data --dataset folder --data-root {_name(root)} "
                f"lists all)"
            )
        left_out += found
        dataset = _without(dataset, found)
    if not left_out:
        return taken
    left_out.sort()
    if hardware.is_first():
        told = f"left out because they cannot be read: {_some(left_out)}"
        print(told, file=sys.stderr, flush=True)
    names = "\0".join(Path(path).relative_to(root).as_posix() for path in left_out)
    digest = hashlib.sha256(os.fsencode(f"{taken.fingerprint}\0{names}"))
    return replace(taken, fingerprint="files:" + digest.hexdigest()[:16])


def damaged(paths: np.ndarray, workers: int, cache: Path) -> dict[str, str]:
    """The images that cannot be read, and why; in the order given.

    Args:
        paths: (n,) of bytes.
        workers: how many processes may read.
        cache: the folder in which to remember what was readable.
    """
    stamps = np.array([_stamp(path) for path in paths], dtype=np.uint64)
    unknown = np.flatnonzero(~np.isin(stamps, _remembered(cache)) | (stamps == 0))
    batches = [unknown[i : i + TRIAL] for i in range(0, len(unknown), TRIAL)]
    loader = torch.utils.data.DataLoader(
        _Trial(paths),
        batch_sampler=batches,
        num_workers=min(workers, len(batches) // 4),
        generator=torch.Generator(),  # not the one that others draw from
        collate_fn=list,
    )
    found, readable = {}, []
    try:
        with tqdm(total=len(unknown), desc="reading", unit="image", delay=1, leave=False) as bar:
            for rows, reasons in zip(batches, loader, strict=True):
                for row, reason in zip(rows, reasons, strict=True):
                    if reason:
                        found[os.fsdecode(paths[row])] = reason
                    else:
                        readable.append(stamps[row])
                bar.update(len(rows))
    finally:  # also when stopped
        if readable:
            _remember(np.array(readable), cache)
    return found


class _Trial(torch.utils.data.Dataset):
    """Reads an image as training does; returns the reason if that fails, else ""."""

    def __init__(self, paths: np.ndarray) -> None:
        self.paths = paths

    def __getitem__(self, row: int) -> str:
        path = os.fsdecode(self.paths[row])
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait forever
                return "not a file"
            pictures.read(path, pictures.middle)
        except Exception as error:  # Pillow raises many kinds
            return pictures.why(error)
        return ""


def _classes(folder: Path) -> list[str]:
    """The names of the folders in a folder."""
    wanted = f"{_name(folder)} must hold a folder of images for every class"
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise UsageError(f"{wanted} ({error.strerror})") from None
    strays = {entry.name for entry in entries if _is_image(entry.name)} - set(classes)
    if strays:
        raise UsageError(f"{wanted}; move what lies next to them: {_some(sorted(strays))}")
    if len(classes) < 2:
        raise UsageError(f"{wanted}, two at least; it has {_some(classes) or 'none'}")
    return classes


def _split(root: Path, part: str, classes: Iterable[str], digest: "hashlib._Hash") -> FileSplit:
    """The images of every class, in order of names; their names and sizes go into the digest."""

    def fail(error: OSError) -> None:
        raise UsageError(f"{_name(error.filename)} cannot be opened ({error.strerror})")

    paths, counts, empty = [], [], []
    for name in classes:
        top = root / part / name
        names, visited = [], set()
        for folder, below, files in os.walk(top, followlinks=True, onerror=fail):
            real = os.path.realpath(folder)
            if real in visited:  # by a link, perhaps to a folder above itself
                below.clear()
                continue
            visited.add(real)
            below[:] = sorted(b for b in below if not b.startswith("."))
            names += [os.path.join(folder, file) for file in sorted(files) if _is_image(file)]
        if not names:
            empty.append(name)
            continue
        for path in names:  # below the root, and the same on every system
            below_root = f"{part}/{name}{path[len(str(top)) :]}".replace(os.sep, "/")
            digest.update(os.fsencode(f"{below_root}\0{_size(path)}\0"))
        paths.append(np.array([os.fsencode(path) for path in names]))
        counts.append(len(names))
    if empty:
        raise UsageError(
            f"{_name(root / part)} has no images of {_some(empty)}; known are {', '.join(ENDINGS)}"
        )
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return FileSplit(np.concatenate(paths), labels)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:  # a broken link; it is reported when it is read
        return -1


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _name(path: Path | str) -> str:
    return pictures.shown(str(path))


def _some(names: list[str]) -> str:
    """The first few of some names, and how many there are."""
    listed = ", ".join(map(pictures.shown, names[:3]))
    return listed + f", … ({len(names)})" * (len(names) > 3)


def _without(dataset: Dataset, found: Iterable[str]) -> Dataset:
    """A data set without some of its files."""
    names = np.array([os.fsencode(path) for path in found])

    def rest(split: FileSplit, part: str) -> FileSplit:
        kept = split.take(torch.from_numpy(np.flatnonzero(~np.isin(split.paths, names))))
        counts = torch.bincount(kept.labels, minlength=len(dataset.classes)).tolist()
        gone = [name for name, count in zip(dataset.classes, counts, strict=True) if not count]
        if gone:
            raise UsageError(f"no image in {part} of {_some(gone)} can be read")
        return kept

    return replace(dataset, train=rest(dataset.train, "train"), test=rest(dataset.test, "val"))


# ---- What was readable ------------------------------------------------------------------------


def _stamp(path: bytes) -> int:
    """8 bytes of a hash of a file's name, size and time of change; 0: it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return 0
    text = b"%s\0%d\0%d" % (os.path.abspath(path), found.st_size, found.st_mtime_ns)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _remembered(cache: Path) -> np.ndarray:
    try:
        return np.load(cache / READABLE, allow_pickle=False).astype(np.uint64)
    except (OSError, ValueError, EOFError):  # there is none, or it is damaged: read again
        return np.array([], dtype=np.uint64)


def _remember(stamps: np.ndarray, cache: Path) -> None:
    """A folder that cannot be written to only means that images are read again."""
    try:
        with whole(cache / READABLE) as temporary, open(temporary, "wb") as file:
            np.save(file, np.union1d(_remembered(cache), stamps))
    except OSError:
        pass
