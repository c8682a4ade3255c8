"""What the notebooks do repeatedly: train a few phases, look at a network, show source."""

import inspect
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lucir_edu import hardware, loader, model, stream, trainer
from lucir_edu.config import Config
from lucir_edu.datasets import Dataset
from lucir_edu.lab import DEVICE
from lucir_edu.model import IncrementalModel, Output
from lucir_edu.progress import Progress
from lucir_edu.trainer import Objective, PhaseEnd, State


def learn(
    config: Config,
    dataset: Dataset,
    start: State | None = None,
    until: int | None = None,
    objective: Objective | None = None,
) -> PhaseEnd:
    """Train with a progress bar, and return how the last phase ended.

    Args:
        start: a network to continue from, as returned by :func:`lucir_edu.runs.load_bases`.
        until: the last phase; None: all of them.
        objective: what to minimise instead of :func:`lucir_edu.trainer.objective`.
    """
    with Progress(table=False) as progress:
        events = trainer.train(config, dataset, device=DEVICE, start=start, objective=objective)
        for event in events:
            progress(event)
            if isinstance(event, PhaseEnd):
                end = event
                if end.measurement.phase == until:
                    break
    return end


def look(
    network: IncrementalModel,
    config: Config,
    dataset: Dataset,
    which: range | Tensor,
    split: str = "test",
) -> tuple[Output, Tensor]:
    """A network's output for some images, without augmentation.

    Args:
        which: classes, numbered in class order; or indices of images.
        split: "test" or "train".

    Returns:
        Output of n images, and their (n,) labels.
    """
    ordered = stream.make(config, dataset).dataset
    images, device = getattr(ordered, split), network.head.new_weight.device
    if isinstance(which, range):
        labels = images.labels
        which = torch.nonzero((labels >= which.start) & (labels < which.stop))[:, 0]
    precision = hardware.pick_precision(config.precision, device)
    return trainer.predict(network, loader.make(images, ordered, config, device), which, precision)


def drift(features: Tensor, before: Tensor) -> float:
    """The mean of 1 minus the cosine of the features (n, d) of some images and those before."""
    return 1 - F.cosine_similarity(features, before).mean().item()


def restore(state: State, config: Config, dataset: Dataset) -> IncrementalModel:
    """The network of a state after the base phase."""
    plan = stream.make(config, dataset)
    network = model.build(config, plan.bounds[1], len(dataset.mean), seed=0)
    network.load_state_dict(state.weights)
    return network.to(DEVICE)


def source(function: Callable) -> None:
    """Print a function of the package as it stands in its file."""
    print(inspect.getsource(function).rstrip())
