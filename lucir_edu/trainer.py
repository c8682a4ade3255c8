"""The training loop. ``for event in train(config, dataset):`` is the whole of it.

Plots, panels, files and tests only consume events; every event is a place to stop.
"""

import copy
import functools
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lucir_edu import hardware, loader, losses, memory, metrics, model, stream
from lucir_edu.config import Config, UsageError
from lucir_edu.datasets import Dataset
from lucir_edu.memory import Memory
from lucir_edu.model import IncrementalModel, Output
from lucir_edu.stream import Phase


class TrainingWarning(UserWarning):
    """Training continues, but its result is probably not what was wanted."""


# ---- Events -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhaseStart:
    """A phase begins: its number, classes, and how much there is to do."""

    phase: int
    phases: int
    num_old: int
    num_new: int
    images_new: int  # training images of new classes
    images_old: int  # exemplars
    epochs: int
    steps: int


@dataclass(frozen=True)
class StepEnd:
    """One step of the optimiser is done. The losses stay on the device until someone asks."""

    phase: int
    epoch: int
    step: int  # within the phase, from 1; from 1 again in the class-balance finetune
    losses: dict[str, Tensor]  # each term of the objective, with its weight


@dataclass(frozen=True)
class EpochEnd:
    """One pass over the phase's images is done."""

    phase: int
    epoch: int
    losses: dict[str, float]  # mean over the epoch's steps
    train_accuracy: float  # percent, of augmented images as they were learned
    learning_rate: float  # of the epoch's first step
    model: IncrementalModel
    midway: Callable[[], "Midway"] | None  # where to continue from; None in class-balance tuning


@dataclass(frozen=True)
class PhaseEnd:
    """A phase is learned and evaluated."""

    measurement: "Measurement"
    model: IncrementalModel
    memory: Memory
    plane: Tensor  # see Measurement.arrays


@dataclass(frozen=True)
class Pause:
    """A place to stop between two batches of an evaluation; there is nothing to report."""

    phase: int


Event = PhaseStart | StepEnd | EpochEnd | Pause | PhaseEnd


@dataclass(frozen=True)
class Measurement:
    """How the network does after a phase; percentages, over test images of all classes seen.

    None: there is nothing to measure (no old class in the base phase, no memory for NME).
    """

    phase: int
    classes_seen: int
    cnn: float
    nme: float | None
    cnn_old: float | None
    cnn_new: float
    old_to_new: float | None  # share of old classes' images predicted as new
    weight_norm_old: float | None  # mean length of old class embeddings
    weight_norm_new: float
    eta: float | None  # the cosine head's scale
    exemplars: int  # images in memory, after the phase
    seconds: float  # by the clock, including what a consumer of the events did meanwhile
    losses: dict[str, list[float]]  # each term's mean over every epoch
    # Arrays; C classes: confusion_cnn and confusion_nme (C, C), counts; embedding_angles (C, C),
    # whole degrees between class embeddings; weight_norms, biases, mean_logits and logit_sds (C,),
    # the last two over all test images; positions (C, SAMPLE, 2), the directions of features of
    # each class's first test images, in the plane in which those of the first phase that was
    # evaluated spread most
    arrays: dict[str, np.ndarray] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class State:
    """Where to start from: a network that has learned all phases up to this one."""

    phase: int
    weights: dict[str, Tensor]  # of IncrementalModel.state_dict; copies, if of an event's model
    exemplars: list[Tensor] | None = None  # indices per class, best first; None: choose them now
    plane: Tensor | None = None  # (3, d), where positions are measured; None: choose it now
    source: str = "the state"  # its name in the message when it does not fit


@dataclass(frozen=True)
class Midway:
    """Where to continue in a phase: the end of one of its epochs, before class-balance tuning."""

    phase: int
    epoch: int
    seconds: float  # that the phase has taken so far
    losses: dict[str, list[float]]  # as in Measurement
    tensors: dict[str, Tensor]  # model.… from state_dict; momentum.NN; generator of the batches


SAMPLE = 3  # test images of each class whose positions are kept
LOOK_EVERY = 100  # steps, at most, until a loss that is not a number is noticed

# ---- Training ---------------------------------------------------------------------------------

# (config, output, targets, teacher's output or None, old classes) -> the loss terms by name
Objective = Callable[[Config, Output, Tensor, Output | None, int], dict[str, Tensor]]


def train(
    config: Config,
    dataset: Dataset,
    *,
    device: str = "auto",
    start: State | None = None,
    midway: Midway | None = None,
    objective: Objective | None = None,
) -> Iterator[Event]:
    """Learn a data set phase by phase.

    Args:
        dataset: as returned by :func:`lucir_edu.datasets.load`, and used whole:
            ``subset_classes``, ``train_per_class`` and ``test_per_class`` are applied there.
        device: auto, cpu, cuda or mps.
        start: continue from here; the first :class:`PhaseEnd` is then that of this phase.
        midway: continue inside the phase after ``start``'s, or inside the base phase without it.
        objective: what to minimise instead of :func:`objective`, with the same arguments; the
            teacher's output is None in the base phase, and where no setting needs a teacher.

    Raises:
        UsageError: the data or the device does not fit the config; a class has no image; ``start``
            or ``midway`` does not fit; ``objective`` does not return scalars by name, with the same
            names at every step of a phase, one of which depends on what is learned; a loss or an
            output is not a number; every parameter is frozen; or an image cannot be read.

    Yields:
        :class:`PhaseStart`, then for every epoch a :class:`StepEnd` per step and an
        :class:`EpochEnd`, then some :class:`Pause`, then :class:`PhaseEnd`. The model and the
        memory in an event are those in training: read or copy them, and call ``midway``, before
        the next event, and leave the model in the mode it was in.
        If weights are changed in place at a phase's last :class:`EpochEnd`, the changed weights are
        evaluated.
    """
    learner = Learner(config, dataset, hardware.pick_device(device), objective)
    first = 0
    if start is not None:
        yield from learner.resume(start)
        first = start.phase + 1
    if midway is not None and (midway.phase != first or midway.epoch > config.epochs):
        raise UsageError(
            f"midway is epoch {midway.epoch} of phase {midway.phase}; here phase {first} is next, "
            f"and has {config.epochs} epochs"
        )
    for phase in learner.stream.phases[first:]:
        yield from learner.learn(phase, midway)
        midway = None


class Learner:
    """A network, its memory and its data, on their way through the phases."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        device: torch.device,
        objective: Objective | None = None,
    ) -> None:
        self.config, self.device, self.objective = config, device, objective
        self.precision = hardware.pick_precision(config.precision, device)
        self.stream = stream.make(config, dataset)
        self.stream.check()
        ordered = self.stream.dataset
        self.train_images = loader.make(ordered.train, ordered, config, device)
        self.test_images = loader.make(ordered.test, ordered, config, device)
        self.memory = Memory(config.exemplars_per_class, config.memory_total, config.joint)
        base = self.stream.phases[0].num_new
        channels = len(ordered.mean)
        net = model.build(config, base, channels, _seed(config, 0))
        self.net = hardware.spread(net.to(device, memory_format=hardware.layout(device)))
        self.plane: Tensor | None = None
        self.losses: dict[str, list[float]] = {}  # of the current phase
        self.began = time.perf_counter()  # the current phase

    def learn(self, phase: Phase, midway: Midway | None = None) -> Iterator[Event]:
        """One phase, or what is left of it: grow, learn, choose exemplars, evaluate."""
        config, self.began, self.losses = self.config, time.perf_counter(), {}
        teacher = None
        if phase.num_old:
            if config.needs_teacher:
                teacher = self.net.teacher()
            self.grow(phase, imprinted=None if midway is None else False)
        epochs = 0 if phase.num_old and config.frozen_network else config.epochs
        indices = torch.cat([phase.train, self.memory.indices])
        if epochs and len(indices) == 1:  # batch norm has no variance to divide by
            raise UsageError(f"phase {phase.number} has a single training image; it needs two")
        steps = epochs * len(loader.cut(len(indices), config.batch_size))
        yield PhaseStart(
            phase.number, len(self.stream.phases), phase.num_old, phase.num_new,
            len(phase.train), len(self.memory.indices), epochs, steps,
        )  # fmt: skip
        if epochs:
            yield from self.fit(phase, indices, teacher, midway)
        self.choose_exemplars(phase)
        if config.balanced_finetune and phase.num_old and len(self.memory.indices):
            learnt = [(parameter, parameter.requires_grad) for parameter in self.net.parameters()]
            try:
                yield from self.fit(phase, self.memory.indices, teacher, balanced=True)
            finally:  # also when it is stopped there
                for parameter, before in learnt:
                    parameter.requires_grad_(before)
        measurement = yield from self.measure(phase)
        yield PhaseEnd(measurement, self.net, self.memory, self.plane)

    def fit(
        self,
        phase: Phase,
        indices: Tensor,
        teacher: IncrementalModel | None,
        midway: Midway | None = None,
        balanced: bool = False,
    ) -> Iterator[Event]:
        """Minimise the objective on some training images.

        Args:
            midway: continue from there.
            balanced: tune the head alone, all of it, at a low rate (class-balance finetune).
        """
        config, net = self.config, self.net
        generator = torch.Generator().manual_seed(_seed(config, phase.number, balanced))
        epochs = config.balanced_epochs if balanced else config.epochs
        if balanced:
            net.requires_grad_(False)
            for name, parameter in net.head.named_parameters():
                parameter.requires_grad_(name != "eta")
        parameters = [p for p in net.parameters() if p.requires_grad]
        if not parameters:
            raise UsageError("nothing is left to learn: every parameter of the network is frozen")
        forward = hardware.parallel(net)
        optimizer = hardware.SGD(
            parameters,
            lr=config.balanced_lr if balanced else config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=self.device.type in ("cpu", "cuda"),
        )
        steps_per_epoch = len(loader.cut(len(indices), config.batch_size))

        def rate(step: int) -> float:
            if balanced:
                return config.balanced_lr * 0.1 ** (2 * (step // steps_per_epoch) >= epochs)
            return config.lr * learning_rate(config, step, steps_per_epoch)

        done = 0
        if midway is not None:
            self.take_over(midway, optimizer, generator)
            done = midway.epoch
        step = done * steps_per_epoch
        for epoch in range(done + 1, epochs + 1):
            net.train()
            if balanced:
                net.backbone.eval()
            sums: dict[str, Tensor] = {}
            correct, recent = torch.zeros((), device=self.device), []
            first_rate = rate(step)
            for images, targets in self.train_images.augmented(
                indices, config.batch_size, generator
            ):
                with hardware.autocast(self.device, self.precision):
                    output = forward(images, len(targets))
                    with torch.no_grad():
                        old = None if teacher is None else teacher(images, len(targets))
                terms = (self.objective or objective)(config, output, targets, old, phase.num_old)
                _check_terms(terms, sums or self.losses)
                terms = {name: term.to(self.device) for name, term in terms.items()}
                optimizer.param_groups[0]["lr"] = rate(step)
                optimizer.zero_grad()
                torch.stack(list(terms.values())).sum().backward()
                optimizer.step()
                step += 1
                terms = {name: term.detach() for name, term in terms.items()}
                recent.append(terms)
                if len(recent) == LOOK_EVERY:
                    self.look(recent, phase, step, balanced)
                sums = {name: sums.get(name, 0) + term for name, term in terms.items()}
                correct += (output.logits.detach().argmax(dim=1) == targets).sum()
                yield StepEnd(phase.number, epoch, step, terms)
            self.look(recent, phase, step, balanced)
            means = {name: total.item() / steps_per_epoch for name, total in sums.items()}
            for name, mean in means.items():
                self.losses.setdefault(name, []).append(round(mean, 5))
            share = 100 * correct.item() / len(indices)
            here = functools.partial(self.where, phase, epoch, optimizer, generator)
            yield EpochEnd(
                phase.number, epoch, means, share, first_rate, net, None if balanced else here
            )
        hardware.agree(net)

    def where(
        self,
        phase: Phase,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> Midway:
        """The state of training at the end of an epoch; it stays the same as training continues."""
        tensors = {f"model.{name}": t.clone() for name, t in self.net.state_dict().items()}
        (group,) = optimizer.param_groups
        for number, parameter in enumerate(group["params"]):
            buffer = optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{number:03d}"] = buffer.clone()
        tensors["generator"] = generator.get_state()
        return Midway(
            phase.number, epoch, time.perf_counter() - self.began, copy.deepcopy(self.losses),
            tensors,
        )  # fmt: skip

    def take_over(
        self, midway: Midway, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> None:
        """The inverse of :meth:`where`."""
        weights = {
            name.removeprefix("model."): tensor
            for name, tensor in midway.tensors.items()
            if name.startswith("model.")
        }
        self.load(weights, "the state inside the phase")
        (group,) = optimizer.param_groups
        for number, parameter in enumerate(group["params"]):
            buffer = midway.tensors.get(f"momentum.{number:03d}")
            if buffer is not None:
                # in the parameter's layout, because the fused step reads both in memory order
                like = torch.empty_like(parameter, requires_grad=False).copy_(buffer)
                optimizer.state[parameter]["momentum_buffer"] = like
        generator.set_state(midway.tensors["generator"])
        self.losses = copy.deepcopy(midway.losses)
        self.began -= midway.seconds

    def look(
        self, recent: list[dict[str, Tensor]], phase: Phase, step: int, balanced: bool
    ) -> None:
        """Make sure that all losses of the last steps are numbers, and forget them.

        Only now and then, because each look waits for the device.
        """
        if not recent:
            return
        names = list(recent[0])
        fine = torch.stack([torch.stack(list(terms.values())) for terms in recent]).isfinite()
        if not fine.all():
            which, term = (~fine).nonzero()[0].tolist()  # the first step, and its first term
            where = f"phase {phase.number}"
            remedy = f"lr={self.config.lr} or raise warmup={self.config.warmup}"
            if balanced:
                where = f"class-balance tuning of {where}"
                remedy = f"balanced_lr={self.config.balanced_lr}"
            raise UsageError(
                f"the loss is no longer a number: {names[term].replace('_', ' ')} in {where}, step "
                f"{step - len(recent) + 1 + which}; most likely the steps are too large: lower "
                f"{remedy} (phases before this one are kept)"
            )
        recent.clear()

    def grow(self, phase: Phase, imprinted: bool | None = None) -> None:
        """Make room in the head for the phase's new classes."""
        new_weight = None
        if self.config.imprints if imprinted is None else imprinted:
            features, labels = self.embed(phase.train)
            new_weight = model.imprint(
                features, labels - phase.num_old, phase.num_new, self.net.head.weight.detach()
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_seed(self.config, phase.number))
            self.net.head.grow(phase.num_new, new_weight)
        if self.config.freezes_old:
            self.net.head.freeze_old()

    def choose_exemplars(self, phase: Phase) -> None:
        """Keep some of the new classes' images, and fewer of the old ones' if space is short."""
        labels, features = self.stream.dataset.train.labels[phase.train], None
        if self.memory.quota(phase.num_seen):  # else there is nothing to choose
            features, _ = self.embed(phase.train)
        for label in range(phase.num_old, phase.num_seen):
            chosen = labels == label
            of_class = None if features is None else features[chosen]
            self.memory.add(phase.train[chosen], of_class, phase.num_seen)
        self.memory.trim()

    def resume(self, start: State) -> Iterator[Event]:
        """Take over a network that has learned all phases up to ``start.phase``."""
        self.began = time.perf_counter()
        phases, labels = self.stream.phases, self.stream.dataset.train.labels
        if not 0 <= start.phase < len(phases):
            raise UsageError(
                f"a start after phase {start.phase}; the phases are 0 to {len(phases) - 1}"
            )
        phases = phases[: start.phase + 1]
        for phase in phases[1:]:
            self.grow(phase, imprinted=False)
        self.load(start.weights, start.source)
        if start.exemplars is not None:
            if len(start.exemplars) != phases[-1].num_seen or not all(
                ((indices >= 0) & (indices < len(labels))).all() and (labels[indices] == c).all()
                for c, indices in enumerate(start.exemplars)
            ):
                raise UsageError(
                    f"{start.source} has exemplars of other images than the data set's; start anew"
                )
            self.memory.ranked = list(start.exemplars)
            self.memory.trim()
        else:
            for phase in phases:
                self.choose_exemplars(phase)
                yield Pause(phase.number)
        if start.plane is not None:
            if start.plane.shape != (3, self.net.head.new_weight.shape[1]):
                raise UsageError(f"{start.source} has a plane that does not fit the features")
            self.plane = start.plane.to(self.device)
        measurement = yield from self.measure(phases[-1])
        yield PhaseEnd(measurement, self.net, self.memory, self.plane)

    def load(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Give the network its weights.

        Raises:
            UsageError: they are another network's; ``source`` says where they came from.
        """
        try:
            self.net.load_state_dict(weights)
        except RuntimeError:
            raise UsageError(
                f"{source} is from another network than the settings ask for; "
                f"start anew, or with the settings it was made with"
            ) from None

    # ---- Looking at the network -----------------------------------------------------------------

    def embed(self, indices: Tensor, flip: bool = False) -> tuple[Tensor, Tensor]:
        """Features (n, d) and labels (n,) of training images, without augmentation."""
        features, every = [], []  # but no logits: with a thousand classes they are the larger part
        for images, labels in self.train_images.plain(indices, flip=flip):
            features.append(evaluate(self.net, images, self.precision, len(labels)).features)
            every.append(labels)
        return torch.cat(features), torch.cat(every)

    def prototypes(self, num_classes: int) -> Tensor | None:
        """The exemplars' mean features, for NME; both views of an image where training flips."""
        indices = self.memory.indices
        if not len(indices):
            return None
        views = [self.embed(indices, flip) for flip in (False, True)[: 1 + self.config.flip]]
        features, labels = (torch.cat(parts) for parts in zip(*views, strict=True))
        return memory.class_means(features, labels, num_classes)

    def measure(self, phase: Phase) -> Generator[Pause, None, Measurement]:
        """Evaluate the network on the test images of all classes seen."""
        seen, num_old, head = phase.num_seen, phase.num_old, self.net.head
        batches = []
        for images, labels in self.test_images.plain(phase.test):
            batches.append((evaluate(self.net, images, self.precision, len(labels)), labels))
            yield Pause(phase.number)
        output, targets = joined(batches)
        positions = self.positions(output.features, targets, seen)
        targets = targets.cpu().numpy()
        cnn = output.logits.argmax(dim=1).cpu().numpy()
        if seen > 1 and len(cnn) > 1 and (cnn == cnn[0]).all():
            warnings.warn(
                f"after phase {phase.number} the head predicts one class, "
                f"{self.stream.dataset.classes[cnn[0]]!r}, for all {len(cnn)} test images; most "
                f"likely lr={self.config.lr} is too high, or there are too few steps",
                TrainingWarning,
                stacklevel=2,
            )
        means = self.prototypes(seen)
        nme = None
        if means is not None:
            nme = memory.nearest_mean(output.features, means).cpu().numpy()
        weight = head.weight.detach()
        norms = weight.norm(dim=1).cpu().numpy()
        if not (output.logits.isfinite().all() and np.isfinite(norms).all()):
            raise UsageError(
                f"the training diverged in phase {phase.number}: the network's outputs are "
                f"not numbers; lower lr={self.config.lr} (phases before this one are kept)"
            )
        cosines = losses.cosine_similarity_matrix(weight, weight).clamp(-1, 1)
        sides = metrics.old_new_confusion(cnn, targets, num_old)
        arrays = {
            "confusion_cnn": metrics.confusion_matrix(cnn, targets, seen),
            "embedding_angles": cosines.acos().rad2deg().round().byte().cpu().numpy(),
            "weight_norms": norms,
            "mean_logits": output.logits.mean(dim=0).cpu().numpy(),
            "logit_sds": output.logits.std(dim=0, correction=0).cpu().numpy(),
            "positions": positions.half().cpu().numpy(),
        }
        if nme is not None:
            arrays["confusion_nme"] = metrics.confusion_matrix(nme, targets, seen)
        if isinstance(head, model.LinearHead):
            arrays["biases"] = head.bias.detach().cpu().numpy()
        return Measurement(
            phase=phase.number,
            classes_seen=seen,
            cnn=metrics.accuracy(cnn, targets),
            nme=None if nme is None else metrics.accuracy(nme, targets),
            cnn_old=sides.old_correct if num_old else None,
            cnn_new=sides.new_correct,
            old_to_new=sides.old_to_new if num_old else None,
            weight_norm_old=float(norms[:num_old].mean()) if num_old else None,
            weight_norm_new=float(norms[num_old:].mean()),
            eta=head.eta.item() if isinstance(head, model.CosineHead) else None,
            exemplars=len(self.memory.indices),
            seconds=time.perf_counter() - self.began,
            losses=self.losses,
            arrays=arrays,
        )

    def positions(self, features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
        """Where the first images of each class are, (num_classes, SAMPLE, 2); NaN: no such image.

        The plane is chosen once, so that a point moves in it only if its feature has.
        """
        sample = features.new_full((num_classes, SAMPLE, features.shape[1]), torch.nan)
        for label in range(num_classes):
            rows = losses.unit(features[labels == label][:SAMPLE])
            sample[label, : len(rows)] = rows
        if self.plane is None:
            rows = sample.flatten(0, 1)
            self.plane = principal_plane(rows[~rows.isnan().any(dim=1)])
        centre, axes = self.plane[0], self.plane[1:]
        return (sample - centre) @ axes.T


def objective(
    config: Config, output: Output, targets: Tensor, old: Output | None, num_old: int
) -> dict[str, Tensor]:
    """The terms of the integrated objective (Eq. 9), by name, each with its weight; their sum is
    what is minimised.

    Args:
        output: of the network in training, C classes.
        targets: (n,).
        old: output of the teacher, for the ``num_old`` old classes; None when no term needs it.
        num_old: 0 in the base phase, where only cross-entropy counts.
    """
    num_new = output.logits.shape[1] - num_old
    terms = {"cross_entropy": F.cross_entropy(output.logits, targets)}
    if not num_old:
        return terms
    if config.less_forget:
        weight = config.lambda_base
        if config.adaptive_lambda:
            weight = losses.adaptive_lambda(weight, num_old, num_new, config.lambda_rule)
        terms["less_forget"] = weight * losses.less_forget(output.features, old.features)
    if config.margin_ranking:
        terms["margin_ranking"] = config.margin_weight * losses.margin_ranking(
            output.cosines, targets, num_old, config.top_k, config.margin, config.margin_reduction
        )
    if config.score_distillation:
        terms["score_distillation"] = losses.score_distillation(
            output.cosines[:, :num_old], old.cosines
        )
    if config.distillation:
        terms["distillation"] = losses.distillation(
            output.logits[:, :num_old], old.logits, config.temperature, config.distillation_weight
        )
    return terms


def _check_terms(terms: object, before: Mapping[str, object]) -> None:
    """Check an objective's terms: it may be a learner's own. ``before``: those of earlier steps."""
    if not isinstance(terms, dict) or not terms:
        what = "an empty dict" if isinstance(terms, dict) else type(terms).__name__
        raise UsageError(
            f"an objective returns its terms by name, as {{'cross_entropy': …}}, not {what}"
        )
    for name, term in terms.items():
        if not isinstance(name, str):
            raise UsageError(f"the objective's terms are named by text, not {name!r}")
        if not isinstance(term, Tensor) or term.ndim:
            what = type(term).__name__
            if isinstance(term, Tensor):
                what = f"a tensor of shape {tuple(term.shape)}: take the mean over the batch"
            raise UsageError(f"the objective's term {name} must be a scalar tensor, not {what}")
    if not any(term.requires_grad for term in terms.values()):
        raise UsageError(
            f"no term of the objective ({', '.join(terms)}) depends on what is learned here; is "
            "one detached, or does each work on what is frozen?"
        )
    if before and terms.keys() != before.keys():
        raise UsageError(
            f"an objective returns the same terms at every step of a phase, not {', '.join(terms)} "
            f"after {', '.join(before)}; give one that does not count as a tensor of 0"
        )


@torch.no_grad()
def evaluate(
    net: IncrementalModel, images: Tensor, precision: str = "float32", total: int | None = None
) -> Output:
    """A network's output for a batch, in evaluation mode; ``total`` as for its ``forward``.

    Args:
        images: as a loader of :mod:`lucir_edu.loader` makes them: pixels in [0, 1], minus the data
            set's mean, divided by its std.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with hardware.autocast(images.device, precision):
            return net(images, total)
    finally:
        for module, training in modes:  # they differ in class-balance tuning
            module.training = training


def predict(
    net: IncrementalModel, images: loader.Loader, indices: Tensor, precision: str = "float32"
) -> tuple[Output, Tensor]:
    """A network's output for some images, in evaluation mode, and their labels.

    Column i of the logits is the class that came as the i-th. Labels are numbered like this in a
    loader of the data set that :func:`lucir_edu.stream.make` returns, not of the one given to it.
    """
    batches = images.plain(indices)
    return joined([(evaluate(net, x, precision, len(y)), y) for x, y in batches])


def joined(batches: Sequence[tuple[Output, Tensor]]) -> tuple[Output, Tensor]:
    """Outputs and labels of several batches, as those of one."""
    outputs = Output(*(torch.cat(parts) for parts in zip(*(o for o, _ in batches), strict=True)))
    return outputs, torch.cat([labels for _, labels in batches])


def principal_plane(vectors: Tensor) -> Tensor:
    """(3, d): the mean of some vectors (n, d), and the two directions in which they vary most."""
    centre = vectors.mean(dim=0)
    # (on the CPU, because Apple's GPUs have no double precision)
    _, _, axes = torch.linalg.svd((vectors - centre).cpu().double(), full_matrices=False)
    axes = F.pad(axes, (0, 0, 0, 2))[:2]  # fewer than two directions: zeros
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return torch.cat([centre[None], (axes * largest.sign()).to(vectors)])


def learning_rate(config: Config, step: int, steps_per_epoch: int) -> float:
    """The factor on ``config.lr`` at a step (from 0) of a phase.

    >>> [learning_rate(Config(schedule="steps", warmup=0.0, epochs=4), s, 1) for s in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """
    total = config.epochs * steps_per_epoch
    rising = config.warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    if config.schedule == "steps":
        epoch = step // steps_per_epoch
        drops = sum(epoch >= max(1, round(share * config.epochs)) for share in config.milestones)
        return round(0.1**drops, 12)
    return max(0.0, (total - step) / (total - rising + 1e-9))


def _seed(config: Config, phase: int, balanced: bool = False) -> int:
    """Each phase draws from its own stream of random numbers, so that it can be run again."""
    return int(np.random.SeedSequence([config.seed, phase, balanced]).generate_state(1)[0])
