"""Data sets: Glyphs-100 (rendered, no download), CIFAR-100, any folder of images."""

from pathlib import Path

import torch

from lucir_edu.config import Config, UsageError
from lucir_edu.datasets.images import Dataset, FileSplit, Split, TensorSplit, limit, subset

__all__ = ["Dataset", "FileSplit", "Split", "TensorSplit", "default_root", "folder_of", "load",
           "outline"]  # fmt: skip

KNOWN = {"glyphs": (100, 1), "cifar100": (100, 3)}  # classes and channels, before it is loaded


def default_root() -> Path:
    """The project's ``data`` folder in a checkout, else a cache folder of the user."""
    checkout = Path(__file__).parents[2] / "data"
    return checkout if (checkout / "README.md").exists() else Path.home() / ".cache" / "lucir_edu"


def folder_of(root: str | Path | None = None) -> Path:
    """Where data sets are kept; None means :func:`default_root`.

    Raises:
        UsageError: it is not a folder.
    """
    try:
        root = default_root() if root is None else Path(root).expanduser()
        if root.exists() and not root.is_dir():
            raise UsageError(f"the data root {root} is a file; name a folder")
    except (OSError, RuntimeError) as error:  # too long a name; a user that is not known
        reason = getattr(error, "strerror", error)
        raise UsageError(f"the data root {root} cannot be used ({reason}); name a folder") from None
    return root


def outline(config: Config) -> Dataset | None:
    """The data set that a config asks for, without its images, if its classes are known before it
    is loaded: this shows early whether the config fits.

    Raises:
        UsageError: the data set has too few classes.
    """
    if config.dataset not in KNOWN:
        return None
    classes, channels = KNOWN[config.dataset]
    nothing = TensorSplit(
        torch.empty(0, channels, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.long)
    )
    names, ones = tuple(map(str, range(classes))), (1.0,) * channels
    return _classes(Dataset(config.dataset, names, nothing, nothing, ones, ones, ""), config)


def load(config: Config, root: str | Path | None = None) -> Dataset:
    """The data set that a config asks for, its classes in the data set's own order.

    Args:
        root: where files are kept; None means :func:`default_root`.

    Raises:
        UsageError: the data is missing or damaged; the message says what to do.
    """
    root = folder_of(root)
    outline(config)
    if config.dataset == "glyphs":
        from lucir_edu.datasets import glyphs

        dataset = glyphs.load(root)
    elif config.dataset == "cifar100":
        from lucir_edu.datasets import cifar

        dataset = cifar.load(root)
    else:
        from lucir_edu.datasets import folder

        dataset = folder.load(root)
    dataset = _classes(dataset, config)
    if isinstance(dataset.train, FileSplit):
        config.phase_sizes(len(dataset.classes))  # raises, if it must, before all images are read
        return folder.choose(dataset, config, root, default_root())
    return limit(dataset, config.train_per_class, config.test_per_class)


def _classes(dataset: Dataset, config: Config) -> Dataset:
    """The classes that a config selects."""
    return dataset if config.subset_classes is None else subset(dataset, config.subset_classes)
