"""Data sets: Glyphs-100 (rendered, no download), CIFAR-100, any folder of images."""

from pathlib import Path

from lucir_edu.config import Config, UsageError
from lucir_edu.datasets.images import Dataset, FileSplit, Split, TensorSplit, limit, subset

__all__ = ["Dataset", "FileSplit", "Split", "TensorSplit", "default_root", "load"]


def default_root() -> Path:
    """The project's ``data`` folder in a checkout, else a cache folder of the user's."""
    checkout = Path(__file__).parents[2] / "data"
    return checkout if (checkout / "README.md").exists() else Path.home() / ".cache" / "lucir_edu"


def load(config: Config, root: str | Path | None = None) -> Dataset:
    """The data set that a config asks for, its classes in the data set's own order.

    Args:
        root: where files are kept; None means :func:`default_root`.

    Raises:
        UsageError: the data is not there, or damaged; the message says what to do.
    """
    root = default_root() if root is None else Path(root).expanduser()
    if root.exists() and not root.is_dir():
        raise UsageError(f"the data root {root} is a file; name a folder")
    if config.dataset == "glyphs":
        from lucir_edu.datasets import glyphs

        dataset = glyphs.load(root)
    elif config.dataset == "cifar100":
        from lucir_edu.datasets import cifar

        dataset = cifar.load(root)
    else:
        from lucir_edu.datasets import folder

        dataset = folder.load(root)
    if config.subset_classes is not None:
        dataset = subset(dataset, config.subset_classes)
    if config.dataset == "folder":
        return folder.choose(dataset, config, root, default_root())
    return limit(dataset, config.train_per_class, config.test_per_class)
