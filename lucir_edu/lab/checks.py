"""The exercises of the notebooks: what a right function does, and the mistakes that are known.

``less_forget = checks.less_forget(less_forget)`` prints a report and returns the function to
continue with: the learner's own if it is right, else the package's, which stands in. How a function
is graded is in ``grading``.
"""

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lucir_edu import losses, memory, metrics, model, trainer
from lucir_edu.config import Config
from lucir_edu.lab import grading, sandbox
from lucir_edu.lab.grading import (
    CLASSES,
    IMAGES,
    LOSS,
    NUMBER,
    Behaviour,
    Case,
    Exercise,
    Observation,
    Wrong,
    call,
    matrix,
)
from lucir_edu.losses import cosine_similarity_matrix as cos
from lucir_edu.losses import unit
from lucir_edu.model import Output


def _draw(*shape: int, seed: int) -> Tensor:
    """Random rows that differ in length; the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(*shape, generator=generator, dtype=torch.float32)
    return numbers * torch.linspace(0.5, 2, shape[0], dtype=torch.float32)[:, None]


def _cases(names: str, *rows: tuple) -> list[Case]:
    return [dict(zip(names.split(), row, strict=False)) for row in rows]


def _as_it_is(value: Any) -> Any:
    return value


def _by_columns(vectors: Tensor) -> Tensor:
    return unit(vectors.T).T


def _steady(vectors: Tensor) -> Tensor:
    """Unit vectors whose lengths are treated as constants in the gradient."""
    return vectors / vectors.detach().norm(dim=1, keepdim=True)


# A mistake is a line or two:
# fmt: off

# ---- Notebook 01 ----


def _gap(lengths: Tensor, num_old: int) -> Tensor:
    return 100 * (lengths[num_old:].mean() / lengths[:num_old].mean() - 1)


def _norm_gap(weight: Tensor, num_old: int) -> float:
    return _gap(weight.norm(dim=1), num_old).item()


norm_gap = Exercise(
    "norm_gap",
    """(weight, num_old) -> a number

    By how many percent the embeddings of the new classes are longer, on average, than those of
    the old ones. ``weight`` is (C, d), an embedding per class, old classes first.
    """,
    stand_in=_norm_gap,
    form=NUMBER,
    cases=_cases("weight num_old", (_draw(7, 5, seed=1), 4), (_draw(5, 8, seed=2).flip(0), 2),
                 (_draw(6, 6, seed=3), 1)),
    mistakes={
        "it is a fraction, not in percent": lambda w, k: _norm_gap(w, k) / 100,
        "the new length is given in percent of the old one, not by how much it is longer":
            lambda w, k: _norm_gap(w, k) + 100,
        "it is in percent of the new classes' length, not of the old ones'":
            lambda w, k: 100 - 100 / (_norm_gap(w, k) / 100 + 1),
        "it is in percent of the mean length of all embeddings, not of the old ones'":
            lambda w, k: _norm_gap(w, k) * w[:k].norm(dim=1).mean() / w.norm(dim=1).mean(),
        "old and new classes are exchanged": lambda w, k: 100 / (_norm_gap(w, k) / 100 + 1) - 100,
        "the sign is reversed": lambda w, k: -_norm_gap(w, k),
        "it is the difference of the lengths, not in percent of the old classes' length":
            lambda w, k: w[k:].norm(dim=1).mean() - w[:k].norm(dim=1).mean(),
        "it is the length of the mean embedding, not the mean length":
            lambda w, k: 100 * (w[k:].mean(0).norm() / w[:k].mean(0).norm() - 1),
        "the lengths are summed over classes, not averaged":
            lambda w, k: 100 * (w[k:].norm(dim=1).sum() / w[:k].norm(dim=1).sum() - 1),
        "all embeddings of a group are treated as one long vector":
            lambda w, k: 100 * (w[k:].norm() / w[:k].norm() - 1),
        "the squares of the lengths are compared": lambda w, k: _gap((w * w).sum(1), k),
        "absolute values are summed to get a length": lambda w, k: _gap(w.abs().sum(1), k),
        "lengths are taken down the columns: an embedding is a row":
            lambda w, k: _gap(w.norm(dim=0), k),
        "the first new class is counted as old": lambda w, k: _norm_gap(w, k + 1),
    },
)


def _old_to_new(predictions: Tensor, targets: Tensor, num_old: int) -> float:
    return metrics.old_new_confusion(predictions, targets, num_old).old_to_new


def _share(which: Tensor, of: Tensor) -> Tensor:
    return 100 * which[of].double().mean()


def _labels(count: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (count,), generator=generator)


old_to_new = Exercise(
    "old_to_new",
    """(predictions, targets, num_old) -> a number

    The percentage of images of old classes that are taken for any new class. ``predictions`` and
    ``targets`` are (n,) class numbers; those below ``num_old`` are old.
    """,
    stand_in=_old_to_new,
    form=NUMBER,
    cases=_cases("predictions targets num_old", (_labels(40, 7, 1), _labels(40, 7, 2), 4),
                 (_labels(30, 5, 3), _labels(30, 5, 4), 2)),
    own=(metrics.old_new_confusion,),
    mistakes={
        "it is a fraction, not in percent": lambda p, t, k: _old_to_new(p, t, k) / 100,
        "it is a count, not in percent": lambda p, t, k: ((t < k) & (p >= k)).sum(),
        "it is a share of all images, not of the old classes' images":
            lambda p, t, k: 100 * ((t < k) & (p >= k)).double().mean(),
        "it is a share of the images taken for a new class, not of the old classes' images":
            lambda p, t, k: _share(t < k, p >= k),
        "it is a share of the old images that are misread, not of all old images":
            lambda p, t, k: _share(p >= k, (t < k) & (p != t)),
        "old images taken for another old class count too": lambda p, t, k: _share(p != t, t < k),
        "it is the share of old images taken for another old class":
            lambda p, t, k: _share((p < k) & (p != t), t < k),
        "it is the share of old images that are right": lambda p, t, k: _share(p == t, t < k),
        "it is the share of new images taken for an old class":
            lambda p, t, k: _share(p < k, t >= k),
        "it is the share of all images taken for a new class, old images or new":
            lambda p, t, k: 100 * (p >= k).double().mean(),
        "the first new class counts as old in the predictions":
            lambda p, t, k: _share(p > k, t < k),
        "the first new class counts as old in the targets": lambda p, t, k: _share(p >= k, t <= k),
    },
)


def _drops(matrix: np.ndarray, before: Callable) -> np.ndarray:
    """Accuracy before (of a group's accuracies up to the last phase but one) minus final."""
    end = len(matrix) - 1
    return np.array([before(matrix[j:end, j]) - matrix[end, j] for j in range(end)])


_MATRIX = np.array([[90.0, 0, 0, 0], [70, 80, 0, 0], [76, 72, 88, 0], [50, 75, 91, 95]])

forgetting = Exercise(
    "forgetting",
    """(matrix) -> a number

    ``matrix`` is a numpy array (T, T): row t, column j is the accuracy after phase t on the
    classes of phase j; what stands above the diagonal means nothing. The mean, over all groups
    of classes except the last, of the best accuracy before the last phase minus that after it.
    """,
    stand_in=metrics.forgetting,
    form=NUMBER,
    cases=_cases("matrix", (_MATRIX,), (np.array([[60.0, 0, 0], [66, 70, 0], [52, 40, 81]]),)),
    corners={"does not read what stands above the diagonal":
             _cases("matrix", *((np.where(np.tri(4) > 0, _MATRIX, no),) for no in (np.nan, 99)))},
    mistakes={
        "the last group of classes counts too": lambda m: np.append(_drops(m, max), 0).mean(),
        "the last group but one is left out too": lambda m: _drops(m, max)[:-1].mean(),
        "the accuracy after the last phase counts among those before, so that a gain is lost":
            lambda m: _drops(m, max).clip(min=0).mean(),
        "the accuracy just after learning is taken, not the best":
            lambda m: _drops(m, lambda a: a[0]).mean(),
        "the accuracy one phase before the last is taken, not the best":
            lambda m: _drops(m, lambda a: a[-1]).mean(),
        "the mean accuracy before is taken, not the best": lambda m: _drops(m, np.mean).mean(),
        "the sign is reversed": lambda m: -_drops(m, max).mean(),
        "the groups are summed, not averaged": lambda m: _drops(m, max).sum(),
        "only the base classes count": lambda m: _drops(m, max)[0],
        "rows and columns are exchanged": lambda m: metrics.forgetting(m.T),
        "what stands above the diagonal is read": lambda m: (m[:-1].max(0) - m[-1])[:-1].mean(),
        "what stands above the diagonal is read, and the last group of classes counts too":
            lambda m: (m.max(0) - m[-1]).mean(),
    },
)


def _herd(
    features: Tensor,
    count: int,
    ready: Callable = unit,
    aim: Callable = lambda features, left: features.mean(0),
    joined: Callable = lambda chosen, image: (chosen.sum(0) + image) / (len(chosen) + 1),
    first: tuple[int, ...] = (),
    again: bool = False,
) -> Tensor:
    """Greedy herding with something changed."""
    features, ranked = ready(features.double()), list(first)
    while len(ranked) < count:
        left = [i for i in range(len(features)) if again or i not in ranked]
        means = torch.stack([joined(features[ranked], features[i]) for i in left])
        ranked.append(left[int((aim(features, left) - means).norm(dim=1).argmin())])
    return torch.tensor(ranked)


def _by_distance(features: Tensor) -> Tensor:
    return (features - features.mean(0)).norm(dim=1).argsort()


def _images(n: int, d: int, seed: int) -> Tensor:
    """Features of a class, for which the authors' herding and the plain greedy one agree."""
    lengths = _draw(n, 1, seed=seed + 1).abs() + 0.3
    return (_draw(n, d, seed=seed) + torch.linspace(1, 0.3, d, dtype=torch.float32)) * lengths


herding = Exercise(
    "herding",
    """(features, count) -> indices, best first

    Choose ``count`` images of a class by their ``features`` (n, d), which are made unit vectors
    first: each time the image that brings the mean of those chosen closest to the class mean.
    No image is chosen twice.
    """,
    stand_in=memory.herding,
    form=IMAGES,
    cases=_cases("features count", (_images(10, 3, seed=376), 5), (_images(9, 2, seed=2571), 4)),
    corners={"chooses each image once when asked for all":
             _cases("features count", (_images(4, 3, seed=352), 4))},
    mistakes={
        "the features are not made unit vectors": partial(_herd, ready=_as_it_is),
        "the columns are made unit vectors: an image is a row": partial(_herd, ready=_by_columns),
        "the images nearest to the class mean are taken, whatever the mean of those chosen":
            lambda f, n: _by_distance(unit(f))[:n],
        "the images nearest to the class mean are taken, and features are not made unit vectors":
            lambda f, n: _by_distance(f)[:n],
        "the images farthest from the class mean are taken":
            lambda f, n: _by_distance(unit(f)).flip(0)[:n],
        "image 0 is taken first, whatever it is": partial(_herd, first=(0,)),
        "an image can be chosen again": partial(_herd, again=True),
        "the class mean is made a unit vector, which the mean of several images cannot reach":
            partial(_herd, aim=lambda f, left: unit(f.mean(0))),
        "the directions of the means are compared, not their distance":
            partial(_herd, aim=lambda f, left: unit(f.mean(0)),
                    joined=lambda chosen, image: unit(chosen.sum(0) + image)),
        "the mean of the images that are left is the aim, not that of all; "
        "or the sum of those chosen is divided by the number of all images": partial(
            _herd, aim=lambda f, left: f[left].mean(0), joined=lambda chosen, image: image),
        "the sum of those chosen is divided by `count`, not by how many they are":
            lambda f, n: _herd(f, n, joined=lambda chosen, image: (chosen.sum(0) + image) / n),
        "the sum of those chosen is compared with the class mean, not their mean":
            partial(_herd, joined=lambda chosen, image: chosen.sum(0) + image),
        "the mean of those chosen is added where their sum is wanted": partial(_herd, joined=lambda
            chosen, image: (chosen.sum(0) / max(1, len(chosen)) + image) / (len(chosen) + 1)),
        "the best come last": lambda f, n: memory.herding(f, n).flip(0),
        "all images are ranked, whatever `count`": lambda f, n: memory.herding(f, len(f)),
        "one image too few is chosen": lambda f, n: memory.herding(f, n - 1),
    },
)


# ---- Notebook 02 ----

cosine_similarity_matrix = Exercise(
    "cosine_similarity_matrix",
    """(features, weight) -> a tensor (n, C)

    The cosine of every feature, (n, d), with every class embedding, (C, d). A row of zeros, on
    either side, gives 0, and its gradient is a number.
    """,
    stand_in=losses.cosine_similarity_matrix,
    form=matrix("(n, C)"),
    cases=_cases("features weight", (_draw(6, 4, seed=20), _draw(5, 4, seed=21)),
                 (_draw(1, 3, seed=22), _draw(2, 3, seed=23))),
    corners={"gives 0 for a row of zeros": _cases(
        "features weight",
        (_draw(3, 4, seed=24) * torch.tensor([[1], [0], [1]]), _draw(2, 4, seed=25)),
        (_draw(3, 4, seed=24), _draw(2, 4, seed=25) * torch.tensor([[0], [1]])),
    )},
    corner_gradients={"its gradient is a number for rows of zeros": _cases(
        # Zeros on both sides: on one, the gradient is as large as what keeps from 0/0 is small.
        "features weight", (torch.zeros(3, 4), torch.zeros(2, 4)),
    )},
    learns=("features", "weight"),
    mistakes={
        "neither side is made of unit vectors": lambda f, w: f @ w.T,
        "the embeddings are not made unit vectors": lambda f, w: unit(f) @ w.T,
        "the features are not made unit vectors": lambda f, w: f @ unit(w).T,
        "the columns are made unit vectors: a vector is a row":
            lambda f, w: _by_columns(f) @ _by_columns(w).T,
        "the columns of the features are made unit vectors: a vector is a row":
            lambda f, w: _by_columns(f) @ unit(w).T,
        "the columns of the embeddings are made unit vectors: a vector is a row":
            lambda f, w: unit(f) @ _by_columns(w).T,
        "each side is divided by the length of its whole matrix, not of each row":
            lambda f, w: f @ w.T / f.norm() / w.norm(),
        "it is divided by the squares of the lengths":
            lambda f, w: unit(f) @ unit(w).T / f.norm(dim=1)[:, None] / w.norm(dim=1),
        "absolute values are summed to get a length":
            lambda f, w: F.normalize(f, p=1) @ F.normalize(w, p=1).T,
        "a row of zeros is divided by its length, 0": lambda f, w: (f / f.norm(dim=1)[:, None])
            @ (w / w.norm(dim=1)[:, None]).T,
        "rows and columns are exchanged": lambda f, w: cos(w, f),
        "it is 1 minus the cosine": lambda f, w: 1 - cos(f, w),
        "the cosine's sign is lost": lambda f, w: cos(f, w).abs(),
        "it is the angle, not its cosine": lambda f, w: cos(f, w).acos(),
        "it is the distance between the unit vectors": lambda f, w: torch.cdist(unit(f), unit(w)),
        "the lengths are treated as constants, without a gradient":
            lambda f, w: _steady(f) @ _steady(w).T,
    },
)


def _ceiling(own: float, other: float, others: int) -> float:
    return 1 / (1 + others * math.exp(other - own))


def _softmax_ceiling(num_classes: int, eta: float) -> float:
    return _ceiling(eta, -eta, num_classes - 1)


softmax_ceiling = Exercise(
    "softmax_ceiling",
    """(num_classes, eta) -> a number

    The highest probability that a softmax over ``eta`` times the cosines can give to one class of
    ``num_classes``.
    """,
    stand_in=_softmax_ceiling,
    form=NUMBER,
    cases=_cases("num_classes eta", (10, 1.0), (50, 1.0), (100, 1.0), (3, 1.0), (10, 0.5),
                 (100, 3.0)),
    tolerance=1e-5,
    mistakes={
        "the others have cosine 0: it can be lower": lambda n, s: _ceiling(s, 0, n - 1),
        "the class itself counts among the others too": lambda n, s: _ceiling(s, -s, n),
        "eta is left out": lambda n, s: _ceiling(1, -1, n - 1),
        "eta is applied to the class itself alone": lambda n, s: _ceiling(s, -1, n - 1),
        "the cosines are divided by eta": lambda n, s: _ceiling(1 / s, -1 / s, n - 1),
        "eta multiplies the probability": lambda n, s: s * _ceiling(1, -1, n - 1),
        "the others have the cosine of evenly spread classes: it can be lower":
            lambda n, s: _ceiling(s, -s / (n - 1), n - 1),
        "it is the lowest probability, not the highest": lambda n, s: _ceiling(-s, s, n - 1),
        "it is the probability of all others": lambda n, s: 1 - _ceiling(s, -s, n - 1),
        "it is in percent": lambda n, s: 100 * _ceiling(s, -s, n - 1),
        "it is the logarithm of the probability": lambda n, s: math.log(_ceiling(s, -s, n - 1)),
        "the class itself is missing from the sum in the denominator":
            lambda n, s: math.exp(2 * s) / (n - 1),
    },
)


class CosineHeadOfLogits(model.CosineHead):
    """The package's cosine head, giving the logits alone."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).logits


def _head(kind: type, classes: int = 3, features: int = 4) -> nn.Module:
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise Wrong("wanted: a class, and one that is an nn.Module")
    if kind.forward is nn.Module.forward:
        raise Wrong("it has no method `forward`; is the name spelt right?")
    return call(kind, {"feature_dim": features, "num_classes": classes})


def _parameters(head: nn.Module, classes: int = 3, features: int = 4) -> tuple[str, str]:
    """The names of its embeddings and of its scale."""
    found = {name: p for name, p in head.named_parameters() if p.numel()}
    wide = [name for name, p in found.items() if p.shape == (classes, features)]
    single = [name for name, p in found.items() if p.numel() == 1]
    has = ", ".join(f"`{name}` {tuple(p.shape)}" for name, p in found.items()) or "none"
    has = f"; with {features} features and {classes} classes its parameters are: {has}"
    if not wide:
        raise Wrong(f"no parameter holds an embedding per class, (C, d){has}")
    if not single:
        raise Wrong(f"no parameter is the scale, one number{has}")
    if len(found) > 2:
        raise Wrong(f"there is more than embeddings and scale{has}")
    for name, parameter in found.items():
        if not parameter.requires_grad:
            raise Wrong(f"`{name}` is not learned: it does not require a gradient")
    return wide[0], single[0]


def _has_parameters(kind: type) -> Observation:
    for classes, features in ((3, 4), (5, 2)):
        _parameters(_head(kind, classes, features), classes, features)
    return {}


def _first_scale(kind: type) -> Observation:
    head = _head(kind)
    return {"scale": head.get_parameter(_parameters(head)[1]).detach().double().reshape(())}


def _first_embeddings(kind: type) -> Observation:
    heads = [_head(kind) for _ in range(2)]
    one, other = (head.get_parameter(_parameters(head)[0]).detach() for head in heads)
    if (one == one[0]).all():
        raise Wrong("all classes start with the same embedding, so that they can hardly separate",
                    final=False)
    if torch.equal(one, other):
        raise Wrong("two heads start with the same embeddings; they should be random", final=False)
    return {}


def _as_function(kind: type) -> Callable:
    """A head's logits as a function of features, embeddings and scale."""
    if not isinstance(kind, type):
        return kind

    def function(features: Tensor, weight: Tensor, eta: Tensor) -> Any:
        head = kind(*reversed(weight.shape))
        embeddings, scale = _parameters(head, *weight.shape)
        values = {embeddings: weight, scale: eta.reshape(head.get_parameter(scale).shape)}
        return torch.func.functional_call(head, values, (features,))

    function.__wrapped__ = kind  # when it raises, the line is looked for in this class's code
    return function


_FEATURES, _WEIGHT, _ETA = _draw(5, 4, seed=30), _draw(3, 4, seed=31), torch.tensor(2.5)
_HEAD = "features weight eta"

CosineHead = Exercise(
    "CosineHead",
    """(feature_dim, num_classes): an nn.Module with forward(features) -> logits (n, C)

    The cosine of each feature with each class embedding, times one learnable scale eta, which
    starts at 1. The embeddings, (C, d), are learned too and start random; there is no bias.
    """,
    stand_in=CosineHeadOfLogits,
    form=matrix("(n, C)"),
    cases=_cases(_HEAD, (_FEATURES, _WEIGHT, _ETA),
                 (_draw(2, 3, seed=32), _draw(6, 3, seed=33), torch.tensor(0.7))),
    first=(
        Behaviour("its parameters are the embeddings (C, d) and one scale", _has_parameters,
                  hints=False),
        Behaviour("the scale starts at 1", _first_scale, hints=False),
        Behaviour("the embeddings start random", _first_embeddings, hints=False),
    ),
    corners={
        "longer features or embeddings change nothing":
            _cases(_HEAD, (7 * _FEATURES, _WEIGHT, _ETA), (_FEATURES, 7 * _WEIGHT, _ETA)),
        "twice the scale gives twice the logits": _cases(_HEAD, (_FEATURES, _WEIGHT, 2 * _ETA)),
    },
    learns=("features", "weight", "eta"),
    adapt=_as_function,
    own=(model.CosineHead,),
    mistakes={
        "neither features nor embeddings are made unit vectors": lambda f, w, s: s * f @ w.T,
        "the embeddings are not made unit vectors": lambda f, w, s: s * unit(f) @ w.T,
        "the features are not made unit vectors": lambda f, w, s: s * f @ unit(w).T,
        "the columns are made unit vectors: a vector is a row":
            lambda f, w, s: s * _by_columns(f) @ _by_columns(w).T,
        "the columns of the features are made unit vectors: a vector is a row":
            lambda f, w, s: s * _by_columns(f) @ unit(w).T,
        "the columns of the embeddings are made unit vectors: a vector is a row":
            lambda f, w, s: s * unit(f) @ _by_columns(w).T,
        "the scale is left out": lambda f, w, s: cos(f, w),
        "the scale is left out, and nothing is made a unit vector": lambda f, w, s: f @ w.T,
        "the cosines are divided by the scale": lambda f, w, s: cos(f, w) / s,
        "the scale is applied twice": lambda f, w, s: s * s * cos(f, w),
        "a softmax is taken: logits come before it": lambda f, w, s: (s * cos(f, w)).softmax(dim=1),
        "rows and columns are exchanged": lambda f, w, s: s * cos(w, f),
        "the lengths are treated as constants, without a gradient":
            lambda f, w, s: s * _steady(f) @ _steady(w).T,
        "the embeddings' lengths are treated as constants, without a gradient":
            lambda f, w, s: s * unit(f) @ _steady(w).T,
    },
)


def _imprinted(
    features: Tensor,
    labels: Tensor,
    num_new: int,
    old_weight: Tensor,
    ready: Callable = unit,
    mean: Callable = lambda features: features.mean(0),
    finish: Callable = unit,
    length: Callable = lambda weight: weight.norm(dim=1).mean(),
) -> Tensor:
    """Imprinting with something changed."""
    means = [mean(ready(features)[labels == c]) for c in range(num_new)]
    return finish(torch.stack(means)) * length(old_weight)


imprint = Exercise(
    "imprint",
    """(features, labels, num_new, old_weight) -> a tensor (num_new, d)

    First embeddings for new classes: the mean of each class's unit features, made a unit vector
    and given the mean length of the old embeddings. ``features`` is (n, d), ``labels`` (n,) in
    0..num_new-1, ``old_weight`` (C_o, d).
    """,
    stand_in=model.imprint,
    form=matrix("(num_new, d)"),
    cases=_cases(
        "features labels num_new old_weight",
        (_draw(9, 4, seed=40), torch.tensor([2, 0, 1, 1, 2, 0, 0, 2, 2]), 3, _draw(5, 4, seed=41)),
        (_draw(5, 3, seed=42), torch.tensor([1, 0, 0, 1, 1]), 2, 3 * _draw(2, 3, seed=43)),
    ),
    mistakes={
        "the features are not made unit vectors before their mean is taken":
            partial(_imprinted, ready=_as_it_is),
        "the mean is not made a unit vector": partial(_imprinted, finish=_as_it_is),
        "neither features nor means are made unit vectors":
            partial(_imprinted, ready=_as_it_is, finish=_as_it_is),
        "the result is not given the old embeddings' length":
            partial(_imprinted, length=lambda w: 1),
        "the result is not given the old embeddings' length, nor is the mean of unit vectors taken":
            partial(_imprinted, ready=_as_it_is, length=lambda w: 1),
        "the mean of unit vectors is neither made a unit vector nor given a length":
            partial(_imprinted, finish=_as_it_is, length=lambda w: 1),
        "it is nothing but the mean of the features":
            partial(_imprinted, ready=_as_it_is, finish=_as_it_is, length=lambda w: 1),
        "the length is that of the mean old embedding, not the mean of their lengths":
            partial(_imprinted, length=lambda w: w.mean(0).norm()),
        "the length is that of all old embeddings as one vector":
            partial(_imprinted, length=torch.norm),
        "the old embeddings' lengths are summed, not averaged":
            partial(_imprinted, length=lambda w: w.norm(dim=1).sum()),
        "the length is taken down the columns of the old embeddings":
            partial(_imprinted, length=lambda w: w.norm(dim=0).mean()),
        "the sum over a class is neither averaged nor made a unit vector":
            partial(_imprinted, mean=lambda f: f.sum(0), finish=_as_it_is),
        "only the first image of each class counts": partial(_imprinted, mean=lambda f: f[0]),
        "the old embeddings stand above the new ones":
            lambda f, y, n, w: torch.cat([w, model.imprint(f, y, n, w)]),
        "rows and columns are exchanged": lambda f, y, n, w: model.imprint(f, y, n, w).T,
    },
)


# ---- Notebook 03 ----


def _likeness(features: Tensor, old_features: Tensor) -> Tensor:
    return (unit(features) * unit(old_features)).sum(1)


less_forget = Exercise(
    "less_forget",
    """(features, old_features) -> a number that can be differentiated

    One minus the cosine of the features, (n, d), with those of the teacher, (n, d), averaged over
    images. No gradient flows into the teacher.
    """,
    stand_in=losses.less_forget,
    form=LOSS,
    cases=_cases("features old_features", (_draw(6, 4, seed=50), _draw(6, 4, seed=51)),
                 (_draw(1, 3, seed=52), 3 * _draw(1, 3, seed=53)),
                 (_draw(4, 4, seed=54), _draw(4, 4, seed=54) + _draw(4, 4, seed=55) / 5)),
    learns=("features",),
    frozen=("old_features",),
    mistakes={
        "nothing is made a unit vector": lambda f, o: (1 - (f * o).sum(1)).mean(),
        "the features are not made unit vectors": lambda f, o: (1 - (f * unit(o)).sum(1)).mean(),
        "the teacher's features are not made unit vectors":
            lambda f, o: (1 - (unit(f) * o).sum(1)).mean(),
        "the columns are made unit vectors: an image is a row":
            lambda f, o: (1 - (_by_columns(f) * _by_columns(o)).sum(1)).mean(),
        "the cosine is taken down the columns: an image is a row":
            lambda f, o: (1 - F.cosine_similarity(f, o, dim=0)).mean(),
        "the images are summed, not averaged": lambda f, o: (1 - _likeness(f, o)).sum(),
        "it is given for each image: their mean is missing": lambda f, o: 1 - _likeness(f, o),
        "the products of a row are averaged, not summed":
            lambda f, o: 1 - (unit(f) * unit(o)).mean(),
        "it is the mean cosine, which should grow, while a loss should fall":
            lambda f, o: _likeness(f, o).mean(),
        "it is minus the cosine, without the one": lambda f, o: -_likeness(f, o).mean(),
        "the sign is reversed": lambda f, o: _likeness(f, o).mean() - 1,
        "one minus the cosine is squared": lambda f, o: (1 - _likeness(f, o)).square().mean(),
        "it is the squared distance between the unit vectors, which is twice as much":
            lambda f, o: 2 * (1 - _likeness(f, o)).mean(),
        "it is the mean squared difference of the unit vectors' entries":
            lambda f, o: F.mse_loss(unit(f), unit(o)),
        "it is the mean squared difference of the features": lambda f, o: F.mse_loss(f, o),
        "it is the distance between the unit vectors":
            lambda f, o: (unit(f) - unit(o)).norm(dim=1).mean(),
        "every image is compared with all of the teacher's features, not with its own alone":
            lambda f, o: (1 - cos(f, o)).mean(),
        "the features' lengths are treated as constants, without a gradient":
            lambda f, o: (1 - (_steady(f) * unit(o)).sum(1)).mean(),
    },
)

adaptive_lambda = Exercise(
    "adaptive_lambda",
    """(base, num_old, num_new) -> a number

    The weight of the less-forget constraint, as in the authors' code: ``base`` times the square
    root of the number of old classes over that of new ones.
    """,
    stand_in=losses.adaptive_lambda,
    form=NUMBER,
    cases=_cases("base num_old num_new", (5.0, 50, 10), (5.0, 90, 10), (2.0, 50, 20), (3.0, 7, 13)),
    mistakes={
        "new classes are divided by old ones: the paper prints it like that, while the authors' "
        "code has it the other way round": lambda b, o, n: b * math.sqrt(n / o),
        "the root is missing": lambda b, o, n: b * o / n,
        "all classes are divided by the new ones, not the old ones alone":
            lambda b, o, n: b * math.sqrt((o + n) / n),
        "all classes are divided by the old ones": lambda b, o, n: b * math.sqrt((o + n) / o),
        "the root is taken of the base too": lambda b, o, n: math.sqrt(b * o / n),
        "the root is taken of the old classes alone": lambda b, o, n: b * math.sqrt(o) / n,
        "the root is taken of the new classes alone": lambda b, o, n: b * o / math.sqrt(n),
        "the base is left out": lambda b, o, n: math.sqrt(o / n),
        "it is the base, whatever the classes": lambda b, o, n: b,
        "the ratio is rounded to a whole number": lambda b, o, n: b * math.sqrt(o // n),
        "the new classes are left out": lambda b, o, n: b * math.sqrt(o),
    },
)

score_distillation = Exercise(
    "score_distillation",
    """(cosines_old, teacher_cosines) -> a number that can be differentiated

    The sum over the old classes of the squared difference between the cosines and the teacher's,
    both (n, C_o), averaged over images. No gradient flows into the teacher.
    """,
    stand_in=losses.score_distillation,
    form=LOSS,
    cases=_cases("cosines_old teacher_cosines",
                 (_draw(5, 3, seed=60).tanh(), _draw(5, 3, seed=61).tanh()),
                 (_draw(1, 4, seed=62).tanh(), _draw(1, 4, seed=63).tanh()),
                 (_draw(2, 6, seed=64).tanh(), _draw(2, 6, seed=65).tanh())),
    learns=("cosines_old",),
    frozen=("teacher_cosines",),
    mistakes={
        "the classes are averaged, not summed": lambda c, t: F.mse_loss(c, t),
        "the images are summed, not averaged": lambda c, t: (c - t).square().sum(),
        "classes are averaged and images summed": lambda c, t: (c - t).square().mean(1).sum(),
        "it is given for each image: their mean is missing": lambda c, t: (c - t).square().sum(1),
        "it is the distance, as the paper prints it, where the authors' code has its square":
            lambda c, t: (c - t).norm(dim=1).mean(),
        "the differences are made positive, not squared": lambda c, t: (c - t).abs().sum(1).mean(),
        "the differences are made positive, not squared, and averaged over the classes":
            lambda c, t: (c - t).abs().mean(),
        "the differences are not squared": lambda c, t: (c - t).sum(1).mean(),
        "the differences are summed before they are squared":
            lambda c, t: (c - t).sum(1).square().mean(),
        "the sign is reversed": lambda c, t: -(c - t).square().sum(1).mean(),
        "a root is taken of the whole": lambda c, t: (c - t).square().sum(1).mean().sqrt(),
        "it is the divergence of probabilities, the usual distillation":
            lambda c, t: F.kl_div(c.log_softmax(1), t.softmax(1), reduction="batchmean"),
    },
)


# ---- Notebook 04 ----


def _hardest(cosines: Tensor, num_old: int, top_k: int) -> Tensor:
    return cosines[:, num_old:].topk(top_k, dim=1).values


hardest_negatives = Exercise(
    "hardest_negatives",
    """(cosines, num_old, top_k) -> a tensor (n, top_k)

    For each image the ``top_k`` highest of its ``cosines``, (n, C), with the new classes, highest
    first. The first ``num_old`` classes are old.
    """,
    stand_in=_hardest,
    form=matrix("(n, top_k)"),
    cases=_cases("cosines num_old top_k", (_draw(6, 7, seed=70).tanh(), 3, 2),
                 (_draw(5, 5, seed=71).tanh(), 2, 3), (_draw(2, 6, seed=72).tanh(), 4, 1)),
    learns=("cosines",),
    mistakes={
        "they are taken among all classes": lambda c, o, k: c.topk(k, dim=1).values,
        "they are taken among the old classes": lambda c, o, k: _hardest(c[:, :o], 0, min(k, o)),
        "the lowest cosines are taken": lambda c, o, k: -_hardest(-c, o, k),
        "the lowest come first": lambda c, o, k: _hardest(c, o, k).flip(1),
        "they are in the order of the classes, not highest first":
            lambda c, o, k: c[:, o:].gather(1, c[:, o:].topk(k).indices.sort(dim=1).values),
        "the first new classes are taken, not the most similar": lambda c, o, k: c[:, o : o + k],
        "it is their place among the new classes, not their cosine":
            lambda c, o, k: c[:, o:].topk(k, dim=1).indices,
        "it is their class number, not their cosine":
            lambda c, o, k: c[:, o:].topk(k, dim=1).indices + o,
        "their place among the new classes is looked up among all classes":
            lambda c, o, k: c.gather(1, c[:, o:].topk(k, dim=1).indices),
        "the highest are taken down the batch, not along the classes":
            lambda c, o, k: c[:, o:].topk(min(k, len(c)), dim=0).values,
        "the last old class counts as new": lambda c, o, k: _hardest(c, o - 1, k),
        "the first new class is left out":
            lambda c, o, k: _hardest(c, o + 1, min(k, c.shape[1] - o - 1)),
        "only the highest is taken": lambda c, o, k: _hardest(c, o, 1),
        "always two are taken": lambda c, o, k: _hardest(c, o, 2),
        "all new classes are taken": lambda c, o, k: _hardest(c, o, c.shape[1] - o),
        "their mean is taken": lambda c, o, k: _hardest(c, o, k).mean(1),
        "rows and columns are exchanged": lambda c, o, k: _hardest(c, o, k).T,
    },
)


def _all_but_own(cosines: Tensor, targets: Tensor) -> Tensor:
    return cosines.masked_fill(F.one_hot(targets, cosines.shape[1]).bool(), -torch.inf)


def _ranking(
    own: Callable = lambda c, y, o: c.gather(1, y[:, None]),
    others: Callable = lambda c, y, o, k: _hardest(c, o, k),
    hinge: Callable = lambda gaps: gaps.clamp(min=0),
    gap: Callable = lambda own, other, m: m - own + other,
    over_k: Callable = lambda hinges: hinges.mean(1),
    images: Callable = lambda y, o: y < o,
    over_images: Callable = lambda losses, chosen: losses[chosen].sum() / chosen.sum().clamp(min=1),
    **fixed: float,
) -> Callable:
    """Margin ranking with something changed."""

    def loss(
        cosines: Tensor, targets: Tensor, num_old: int, top_k: int = 2, margin: float = 0.5
    ) -> Tensor:
        negatives = others(cosines, targets, num_old, fixed.get("top_k", top_k))
        gaps = gap(own(cosines, targets, num_old), negatives, fixed.get("margin", margin))
        return over_images(over_k(hinge(gaps)), images(targets, num_old))

    return loss


_NO_OLD_IMAGE = _cases("cosines targets num_old",
                       (_draw(4, 6, seed=83).tanh(), torch.tensor([3, 5, 4, 4]), 3))

margin_ranking = Exercise(
    "margin_ranking",
    """(cosines, targets, num_old, top_k=2, margin=0.5) -> a number that can be differentiated

    For each image of an old class and each of its ``top_k`` hardest negatives, the new classes
    most like it: by how much the cosine with its own class falls short of the negative's plus
    ``margin``. The mean over the negatives and over the images of old classes; 0 if there are none.
    ``cosines`` is (n, C), old classes first, ``targets`` (n,).
    """,
    stand_in=losses.margin_ranking,
    form=LOSS,
    cases=_cases(
        "cosines targets num_old top_k margin",
        (_draw(8, 7, seed=130).tanh(), torch.tensor([0, 3, 5, 2, 1, 4, 0, 6]), 4),
        (_draw(5, 6, seed=91).tanh(), torch.tensor([1, 5, 0, 2, 0]), 2, 3, 0.2),
        (_draw(4, 5, seed=82).tanh(), torch.tensor([2, 0, 1, 3]), 3, 1, 0.8),
    ),
    corners={"gives 0 for a batch without an old image": _NO_OLD_IMAGE},
    corner_gradients={"its gradient is 0 for a batch without an old image": _NO_OLD_IMAGE},
    learns=("cosines",),
    mistakes={
        "the sum is taken over the K negatives, as the paper prints it; it should be their mean, "
        "as in the authors' code": _ranking(over_k=lambda h: h.sum(1)),
        "images of new classes count too": _ranking(images=lambda y, o: y >= 0),
        "images of new classes count, not those of old ones": _ranking(images=lambda y, o: y >= o),
        "the first new class counts as old": _ranking(images=lambda y, o: y <= o),
        "it is divided by the number of all images, not of the old ones":
            _ranking(over_images=lambda losses, chosen: losses[chosen].sum() / len(chosen)),
        "the images are summed, not averaged":
            _ranking(over_images=lambda losses, chosen: losses[chosen].sum()),
        "the sum is taken over images and negatives": _ranking(
            over_k=lambda h: h.sum(1), over_images=lambda losses, chosen: losses[chosen].sum()),
        "a mean is taken over no image":
            _ranking(over_images=lambda losses, chosen: losses[chosen].mean()),
        "it is given for each image: their mean is missing":
            _ranking(over_images=lambda losses, chosen: losses[chosen]),
        "the negatives are taken among all other classes, not the new ones alone":
            _ranking(others=lambda c, y, o, k: _hardest(_all_but_own(c, y), 0, k)),
        "the negatives are taken among all classes, the image's own among them":
            _ranking(others=lambda c, y, o, k: _hardest(c, 0, k)),
        "the negatives are taken among the old classes":
            _ranking(others=lambda c, y, o, k: _hardest(c[:, :o], 0, min(k, o))),
        "all new classes are negatives, not the hardest alone":
            _ranking(others=lambda c, y, o, k: c[:, o:]),
        "the new classes least like the image are its negatives":
            _ranking(others=lambda c, y, o, k: -_hardest(-c, o, k)),
        "only the hardest negative counts": _ranking(top_k=1),
        "`top_k` is always 2": _ranking(top_k=2),
        "`margin` is always 0.5": _ranking(margin=0.5),
        "the margin is left out": _ranking(margin=0.0),
        "the margin's sign is reversed": _ranking(gap=lambda own, other, m: other - own - m),
        "own class and negatives are exchanged, so that it pushes the wrong way":
            _ranking(gap=lambda own, other, m: m + own - other),
        "what is negative is not cut off pair by pair: a pair that keeps the margin costs nothing":
            _ranking(hinge=_as_it_is),
        "the mean over the negatives is cut off at 0, not each of them":
            _ranking(hinge=_as_it_is, over_k=lambda h: h.mean(1).clamp(min=0)),
        "it is squared": _ranking(hinge=lambda gaps: gaps.clamp(min=0).square()),
        "the cosines are scaled by 10, as logits are":
            lambda c, *rest: losses.margin_ranking(10 * c, *rest),
        "the highest cosine with an old class is taken for the image's own":
            _ranking(own=lambda c, y, o: c[:, :o].amax(1, keepdim=True)),
        "the sign is reversed": lambda *given: -losses.margin_ranking(*given),
        "the negatives are detached":
            _ranking(others=lambda c, y, o, k: _hardest(c, o, k).detach()),
    },
)


def _degrees(cosines: Tensor) -> Tensor:
    return cosines.clamp(-1, 1).acos().rad2deg()


def _angles(weight: Tensor) -> Tensor:
    return _degrees(cos(weight, weight)).fill_diagonal_(0)


_ROUND = torch.tensor([[1.0, 1, 1, 1], [0, 2, 0, 0], [-1, 1, 1, -1], [1, -1, -1, -1],
                       [-3, 0, 0, 0], [1, 1, -1, 1]])  # unit vectors without rounding
_CROWD = torch.cat([_draw(24, 6, seed=90), -3 * _draw(24, 6, seed=90), _draw(24, 6, seed=90) / 7])

angles = Exercise(
    "angles",
    """(weight) -> a tensor (C, C)

    The angles in degrees, 0 to 180, between all pairs of class embeddings; ``weight`` is (C, d).
    """,
    stand_in=_angles,
    form=matrix("(C, C)", arrays=True),
    cases=_cases("weight", (_ROUND,), (3 * _ROUND[[3, 1, 4, 2]],)),
    corners={"is a number also where directions are the same or opposite":
             _cases("weight", (_CROWD,))},
    tolerance=0.1,
    mistakes={
        "angles are in radians": lambda w: _angles(w).deg2rad(),
        "it is the cosine, not the angle": lambda w: cos(w, w),
        "it is one minus the cosine": lambda w: 1 - cos(w, w),
        "the embeddings are not made unit vectors": lambda w: _degrees(w @ w.T),
        "the embeddings are not made unit vectors, and products above 1 have no angle":
            lambda w: (w @ w.T).acos().rad2deg(),
        "the columns are made unit vectors: an embedding is a row":
            lambda w: _degrees(_by_columns(w) @ _by_columns(w).T),
        "angles are taken between columns: an embedding is a row": lambda w: _angles(w.T),
        "the cosine's sign is lost: no angle is obtuse": lambda w: _degrees(cos(w, w).abs()),
        "negative cosines are cut off": lambda w: _degrees(cos(w, w).clamp(min=0)),
        "it is 180 degrees minus the angle": lambda w: 180 - _angles(w),
        "it is half the angle": lambda w: _angles(w) / 2,
        "the conversion to degrees leaves out the number pi": lambda w: 180 * _angles(w).deg2rad(),
        "it is the distance between the unit vectors": lambda w: torch.cdist(unit(w), unit(w)),
        "only pairs above the diagonal are filled in": lambda w: _angles(w).triu(),
        "a cosine that rounding brings a little above 1 or below −1 has no angle":
            lambda w: (unit(w) @ unit(w).T).acos().rad2deg(),
        "a cosine that rounding brings a little below −1 has no angle":
            lambda w: (unit(w) @ unit(w).T).clamp(max=1).acos().rad2deg(),
        "what is not a number is made 0, also where directions are opposite":
            lambda w: (unit(w) @ unit(w).T).acos().rad2deg().nan_to_num(),
        "the diagonal is NaN": lambda w: _angles(w).fill_diagonal_(torch.nan),
    },
)


# ---- Notebook 05 ----


def _lucir_loss(
    output: Output, targets: Tensor, old_output: Output | None, num_old: int,
    lambda_base: float = 5.0, top_k: int = 2, margin: float = 0.5,
) -> Tensor:
    config = Config(lambda_base=lambda_base, top_k=top_k, margin=margin)
    return sum(trainer.objective(config, output, targets, old_output, num_old).values())


@dataclass(frozen=True)
class _Parts:
    """The arguments and the terms of the whole loss."""

    output: Output
    targets: Tensor
    old: Output
    num_old: int
    base: float = 5.0
    top_k: int = 2
    margin: float = 0.5

    def entropy(self, scores: Tensor | None = None) -> Tensor:
        scores = self.output.logits if scores is None else scores
        return F.cross_entropy(scores, self.targets)

    def weight(self, **changes: float) -> float:
        new = self.output.logits.shape[1] - self.num_old
        usual = {"base": self.base, "num_old": self.num_old, "num_new": new}
        return losses.adaptive_lambda(**{**usual, **changes})

    def forget(self) -> Tensor:
        return losses.less_forget(self.output.features, self.old.features)

    def rank(self, scores: Tensor | None = None, **changes: float) -> Tensor:
        scores = self.output.cosines if scores is None else scores
        usual = {"top_k": self.top_k, "margin": self.margin}
        return losses.margin_ranking(scores, self.targets, self.num_old, **{**usual, **changes})

    def total(self, **terms: Any) -> Tensor:
        names = ("entropy", "weight", "forget", "rank")
        values = [terms[n] if n in terms else getattr(self, n)() for n in names]
        return values[0] + values[1] * values[2] + values[3]


def _with(combine: Callable[[_Parts], Tensor]) -> Callable:
    """The whole loss, its terms put together in another way; in the base phase as it should be."""
    return lambda output, targets, old, num_old, *rest: (
        combine(_Parts(output, targets, old, num_old, *rest)) if num_old
        else F.cross_entropy(output.logits, targets))


def _output(features: Tensor, weight: Tensor) -> Output:
    return Output(features, cos(features, weight), 4 * cos(features, weight))


def _step(old: int, new: int, targets: list[int], *rest: float, seed: int) -> tuple:
    """Arguments as they come in training: the network has moved away from its teacher."""
    weight, before = _draw(old + new, 6, seed=seed), _draw(len(targets), 6, seed=seed + 1)
    now = before + _draw(len(targets), 6, seed=seed + 2).flip(0) / 2
    return _output(now, weight), torch.tensor(targets), _output(before, weight[:old]), old, *rest


_LUCIR = "output targets old_output num_old lambda_base top_k margin"
_BASE_PHASE = _cases(_LUCIR, (*_step(6, 0, [0, 5, 3, 3, 1], seed=103)[:2], None, 0))

lucir_loss = Exercise(
    "lucir_loss",
    """(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5)
    -> a number that can be differentiated

    The sum of cross-entropy, the less-forget constraint times its adaptive lambda, and margin
    ranking. ``output`` and the teacher's ``old_output`` have ``.features``, ``.cosines`` and
    ``.logits``. In the base phase ``num_old`` is 0 and ``old_output`` is None; the loss is then
    cross-entropy alone.
    """,
    stand_in=_lucir_loss,
    form=LOSS,
    cases=_cases(_LUCIR, _step(4, 3, [0, 6, 3, 5, 4, 1, 0], seed=100),
                 _step(3, 4, [1, 4, 0, 2, 3], 2.0, 3, 0.2, seed=110),  # without the last classes
                 _step(5, 2, [6, 5, 5], seed=120)),
    corners={"is cross-entropy alone in the base phase": _BASE_PHASE},
    corner_gradients={"gradient in the base phase": _BASE_PHASE},
    learns=("output",),
    frozen=("old_output",),
    own=(trainer.objective,),
    mistakes={
        "lambda is fixed, not adapted to the classes": _with(lambda s: s.total(weight=s.base)),
        "lambda follows the rule that the paper prints, not the authors' code":
            _with(lambda s: s.total(weight=s.weight(rule="paper"))),
        "lambda is left out": _with(lambda s: s.total(weight=1)),
        "lambda takes all classes for the new ones":
            _with(lambda s: s.total(weight=s.weight(num_new=s.output.logits.shape[1]))),
        "the new classes are counted from the batch, in which some can be missing": _with(
            lambda s: s.total(weight=s.weight(num_new=int(s.targets.max()) + 1 - s.num_old))),
        "`lambda_base` is always 5": _with(lambda s: s.total(weight=s.weight(base=5))),
        "lambda weighs margin ranking too": _with(lambda s: s.total(rank=s.weight() * s.rank())),
        "margin ranking is left out": _with(lambda s: s.total(rank=0)),
        "less-forget is left out": _with(lambda s: s.total(forget=0)),
        "cross-entropy is left out": _with(lambda s: s.total(entropy=0)),
        "it is cross-entropy alone, also after the base phase": _with(lambda s: s.entropy()),
        "the mean of the terms is taken, not their sum": _with(lambda s: s.total() / 3),
        "margin ranking is given the logits; it needs the cosines":
            _with(lambda s: s.total(rank=s.rank(s.output.logits))),
        "cross-entropy is given the cosines; it needs the logits":
            _with(lambda s: s.total(entropy=s.entropy(s.output.cosines))),
        "cross-entropy is given probabilities; it needs the logits":
            _with(lambda s: s.total(entropy=s.entropy(s.output.logits.softmax(1)))),
        "less-forget is given the old classes' logits; it needs the features":
            _with(lambda s: s.total(
                forget=losses.less_forget(s.output.logits[:, :s.num_old], s.old.logits))),
        "margin ranking is summed over the K negatives, as the paper prints it":
            _with(lambda s: s.total(rank=s.rank(reduction="paper"))),
        "`margin` is not passed on": _with(lambda s: s.total(rank=s.rank(margin=0.5))),
        "`top_k` is not passed on": _with(lambda s: s.total(rank=s.rank(top_k=2))),
        "neither `top_k` nor `margin` is passed on":
            _with(lambda s: s.total(rank=s.rank(top_k=2, margin=0.5))),
    },
)


def _means(exemplars: Tensor, labels: Tensor, mean: Callable = Tensor.mean) -> Tensor:
    return torch.stack([mean(exemplars[labels == c], 0) for c in range(int(labels.max()) + 1)])


def _most_similar(features: Tensor, means: Tensor) -> Tensor:
    return cos(features, means).argmax(1)


def _closest(features: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(features, means).argmin(1)


def _nearest_mean(features: Tensor, exemplar_features: Tensor, exemplar_labels: Tensor) -> Tensor:
    classes = int(exemplar_labels.max()) + 1
    means = memory.class_means(exemplar_features, exemplar_labels, classes)
    return memory.nearest_mean(features, means)


def _exemplars(n: int, d: int, labels: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images and exemplars; some classes have a few similar ones, others many different ones."""
    centres, spread = _draw(max(labels) + 1, d, seed=seed), torch.linspace(0.3, 2, len(labels))
    around = spread[:, None] * _draw(len(labels), d, seed=seed + 1).flip(0)
    return _draw(n, d, seed=seed + 2), centres[torch.tensor(labels)] + around, torch.tensor(labels)


nearest_mean = Exercise(
    "nearest_mean",
    """(features, exemplar_features, exemplar_labels) -> a class for each image, (n,)

    The class whose mean has the highest cosine with the image's feature. A class's mean is that
    of the unit features of its exemplars, made a unit vector again. ``features`` is (n, d),
    ``exemplar_features`` (m, d), ``exemplar_labels`` (m,) in 0..C-1, with no class missing.
    """,
    stand_in=_nearest_mean,
    form=CLASSES,
    cases=_cases("features exemplar_features exemplar_labels",
                 _exemplars(60, 3, [2, 0, 1, 3, 0, 1, 2, 2, 1, 3, 2, 2], seed=130),
                 _exemplars(40, 4, [1, 0, 0, 2, 1, 1, 2], seed=140)),
    own=(memory.nearest_mean,),
    mistakes={
        "the exemplars are not made unit vectors before their mean is taken":
            lambda f, e, y: _most_similar(f, _means(e, y)),
        "the means are not made unit vectors, and the highest product is taken":
            lambda f, e, y: (f @ _means(unit(e), y).T).argmax(1),
        "the means are not made unit vectors, and the nearest is taken":
            lambda f, e, y: _closest(unit(f), _means(unit(e), y)),
        "neither features nor means are made unit vectors, and the nearest is taken":
            lambda f, e, y: _closest(f, _means(unit(e), y)),
        "nothing is made a unit vector, and the nearest is taken":
            lambda f, e, y: _closest(f, _means(e, y)),
        "nothing is made a unit vector, and the highest product is taken":
            lambda f, e, y: (f @ _means(e, y).T).argmax(1),
        "a class's exemplars are summed, and the highest product is taken":
            lambda f, e, y: (f @ _means(unit(e), y, Tensor.sum).T).argmax(1),
        "the class of the most similar exemplar is taken, without means":
            lambda f, e, y: y[_most_similar(f, e)],
        "the class of the nearest exemplar is taken, without means or unit vectors":
            lambda f, e, y: y[_closest(f, e)],
        "it is the index of the most similar exemplar, not a class":
            lambda f, e, y: _most_similar(f, e),
        "the least similar class is taken": lambda f, e, y: cos(f, _means(unit(e), y)).argmin(1),
        "only the first exemplar of each class counts":
            lambda f, e, y: _most_similar(f, _means(e, y, lambda part, _: part[0])),
        "classes are numbered as they come up among the exemplars": lambda f, e, y: torch.tensor(
            [list(dict.fromkeys(y.tolist())).index(c) for c in _nearest_mean(f, e, y)]),
        "classes are counted from 1": lambda f, e, y: _nearest_mean(f, e, y) + 1,
        "the highest is taken down the images, not along the classes":
            lambda f, e, y: cos(f, _means(unit(e), y)).argmax(0),
    },
)


def _effects(table: dict, switch: int) -> np.ndarray:
    """The switch's effects in the four settings of the others: all off first, all on last."""
    rest = itertools.product([False, True], repeat=2)
    return np.array([
        table[(*others[:switch], True, *others[switch:])]
        - table[(*others[:switch], False, *others[switch:])]
        for others in rest
    ])


def _main_effect(table: dict, switch: int) -> float:
    return float(_effects(table, switch).mean())


def _side(table: dict, switch: int, state: bool) -> list[float]:
    return [accuracy for key, accuracy in table.items() if key[switch] is state]


_TABLES = [
    dict(zip(itertools.product([False, True], repeat=3), accuracies, strict=True))
    for accuracies in ([40.5, 42.0, 47.3, 46.1, 52.9, 59.4, 58.2, 63.8],
                       [55.0, 50.5, 62.3, 66.0, 51.2, 49.9, 70.1, 58.7])
]

main_effect = Exercise(
    "main_effect",
    """(table, switch) -> a number

    What a switch brings: the mean accuracy of the four combinations with it on minus that of the
    four with it off. ``table`` is a dict from three booleans (cosine, less_forget,
    margin_ranking) to accuracy; ``switch`` is 0, 1 or 2.
    """,
    stand_in=_main_effect,
    form=NUMBER,
    cases=_cases("table switch", *itertools.product(_TABLES, range(3))),
    mistakes={
        "it is looked at only where the other switches are off": lambda t, s: _effects(t, s)[0],
        "it is looked at only where the other switches are on": lambda t, s: _effects(t, s)[-1],
        "it is looked at only where the others are all off or all on":
            lambda t, s: _effects(t, s)[[0, -1]].mean(),
        "the four differences are summed, not averaged": lambda t, s: _effects(t, s).sum(),
        "it is divided by all eight combinations": lambda t, s: _effects(t, s).sum() / 8,
        "on and off are exchanged": lambda t, s: -_main_effect(t, s),
        "the sign is lost": lambda t, s: abs(_main_effect(t, s)),
        "nothing is subtracted": lambda t, s: np.mean(_side(t, s, True)),
        "all on is compared with all off": lambda t, s: t[(True,) * 3] - t[(False,) * 3],
        "it is in percent of the accuracy with it off":
            lambda t, s: 100 * _main_effect(t, s) / np.mean(_side(t, s, False)),
        "the first switch is always taken": lambda t, s: _main_effect(t, 0),
        "the switch after it is taken": lambda t, s: _main_effect(t, (s + 1) % 3),
        "the switches are counted from the last": lambda t, s: _main_effect(t, 2 - s),
    },
)

NOTEBOOKS = {
    "01_the_imbalance_problem": (herding, norm_gap, old_to_new, forgetting),
    "02_cosine_normalization": (cosine_similarity_matrix, softmax_ceiling, CosineHead, imprint),
    "03_less_forget_constraint": (score_distillation, less_forget, adaptive_lambda),
    "04_margin_ranking": (hardest_negatives, margin_ranking, angles),
    "05_the_full_objective": (lucir_loss, main_effect, nearest_mean),
}
EXERCISES = {exercise.name: exercise for group in NOTEBOOKS.values() for exercise in group}

GRADER = (grading, sandbox, sys.modules[__name__], Exercise)  # what judges a learner's code
sandbox.SHARED += GRADER
