"""What learners hand in: wrong solutions with a piece of what they must be told, and right ones.

The wrong ones are written as learners write them, or as published ports of LUCIR have them; the
right ones differently from the package.
"""
# ruff: noqa: B905  (learners write zip as it is)

import itertools
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lucir_edu import losses


class Submission(NamedTuple):
    """A learner's function.

    Args:
        says: a piece of the message; "" for a right one.
    """

    exercise: str
    function: Callable
    says: str = ""

    @property
    def id(self) -> str:
        return f"{self.exercise}-{self.function.__name__}"


WRONG: list[Submission] = []
RIGHT: list[Submission] = []


def wrong(exercise, says):
    def register(function):
        WRONG.append(Submission(exercise, function, says))
        return function

    return register


def right(exercise):
    def register(function):
        RIGHT.append(Submission(exercise, function))
        return function

    return register


# ---- norm_gap ---------------------------------------------------------------------------------


@wrong("norm_gap", "it is a fraction, not in percent")
def gap_as_fraction(weight, num_old):
    norms = weight.norm(dim=1)
    old, new = norms[:num_old].mean(), norms[num_old:].mean()
    return (new - old) / old


@wrong("norm_gap", "the lengths are summed over classes")
def gap_of_sums(weight, num_old):
    norms = weight.norm(dim=1)
    return 100 * (norms[num_old:].sum() / norms[:num_old].sum() - 1)


@wrong("norm_gap", "in percent of the new classes' length")
def gap_relative_to_new(weight, num_old):
    norms = weight.norm(dim=1)
    old, new = norms[:num_old].mean(), norms[num_old:].mean()
    return 100 * (new - old) / new


@wrong("norm_gap", "in percent of the mean length of all embeddings")
def gap_relative_to_all(weight, num_old):
    norms = weight.norm(dim=1)
    return 100 * (norms[num_old:].mean() - norms[:num_old].mean()) / norms.mean()


@wrong("norm_gap", "the length of the mean embedding")
def gap_of_mean_embeddings(weight, num_old):
    old, new = weight[:num_old].mean(dim=0).norm(), weight[num_old:].mean(dim=0).norm()
    return 100 * (new / old - 1)


@wrong("norm_gap", "returns nothing; is `return` missing?")
def gap_without_return(weight, num_old):
    norms = weight.norm(dim=1)
    print(100 * (norms[num_old:].mean() / norms[:num_old].mean() - 1))


@wrong("norm_gap", "gives the text '")
def gap_as_text(weight, num_old):
    norms = weight.norm(dim=1)
    gap = 100 * (norms[num_old:].mean() / norms[:num_old].mean() - 1)
    return f"{gap:.1f} %"


@wrong("norm_gap", "gives shape (3,); wanted: shape ()")
def gap_of_each_class(weight, num_old):
    norms = weight.norm(dim=1)
    return 100 * (norms[num_old:] / norms[:num_old].mean() - 1)


@right("norm_gap")
def gap_in_a_loop(weight, num_old):
    norms = [math.sqrt(sum(x * x for x in row)) for row in weight.tolist()]
    old, new = norms[:num_old], norms[num_old:]
    return 100 * (sum(new) / len(new) - sum(old) / len(old)) / (sum(old) / len(old))


@right("norm_gap")
def gap_in_numpy(weight, num_old):
    norms = np.linalg.norm(weight.numpy(), axis=1)
    return (norms[num_old:].mean() / norms[:num_old].mean() - 1) * 100


# ---- old_to_new -------------------------------------------------------------------------------


@wrong("old_to_new", "a share of all images")
def share_of_all(predictions, targets, num_old):
    return 100 * ((targets < num_old) & (predictions >= num_old)).float().mean()


@wrong("old_to_new", "could not infer output dtype")
def mean_of_booleans(predictions, targets, num_old):
    old = targets < num_old
    return 100 * (predictions[old] >= num_old).mean()


@wrong("old_to_new", "it is a fraction, not in percent")
def share_as_fraction(predictions, targets, num_old):
    return (predictions[targets < num_old] >= num_old).float().mean()


@wrong("old_to_new", "new images taken for an old class")
def share_of_new(predictions, targets, num_old):
    return 100 * (predictions[targets >= num_old] < num_old).float().mean().item()


@wrong("old_to_new", "old images taken for another old class count too")
def share_of_mistakes(predictions, targets, num_old):
    old = targets < num_old
    return 100 * (predictions[old] != targets[old]).float().mean()


@wrong("old_to_new", "not a number (NaN) in 2 of 2 places")
def fifty_old_classes(predictions, targets, num_old):
    new = targets >= 50
    return 100 * (predictions[new] >= 50).float().mean()


@wrong("old_to_new", "changes `predictions`")
def predictions_overwritten(predictions, targets, num_old):
    predictions -= num_old
    return 100 * (predictions[targets < num_old] >= 0).double().mean()


@right("old_to_new")
def share_counted(predictions, targets, num_old):
    old = [(p, t) for p, t in zip(predictions.tolist(), targets.tolist()) if t < num_old]
    return sum(p >= num_old for p, _ in old) / len(old) * 100


@right("old_to_new")
def share_in_numpy(predictions, targets, num_old):
    predictions, targets = np.asarray(predictions), np.asarray(targets)
    return np.mean(predictions[targets < num_old] >= num_old) * 100


# ---- forgetting -------------------------------------------------------------------------------


@wrong("forgetting", "the accuracy after the last phase counts among those before")
def best_of_all_phases(matrix):
    last = len(matrix) - 1
    return np.mean([matrix[j:, j].max() - matrix[last, j] for j in range(last)])


@wrong("forgetting", "the groups are summed")
def drops_summed(matrix):
    last = len(matrix) - 1
    return sum(matrix[j:last, j].max() - matrix[last, j] for j in range(last))


@wrong("forgetting", "the accuracy just after learning")
def since_learning(matrix):
    return np.mean((np.diag(matrix) - matrix[-1])[:-1])


@wrong("forgetting", "what stands above the diagonal is read")
def whole_columns(matrix):
    return (matrix[:-1].max(axis=0) - matrix[-1])[:-1].mean()


@wrong("forgetting", "✗ does not read what stands above the diagonal")
def whole_columns_but_for_nan(matrix):
    matrix = np.where(matrix == 0, np.nan, matrix)
    return np.mean(np.nanmax(matrix[:-1, :-1], axis=0) - matrix[-1, :-1])


@wrong("forgetting", "rows and columns are exchanged")
def rows_for_columns(matrix):
    last = len(matrix) - 1
    return np.mean([matrix[j, j:last].max() - matrix[j, last] for j in range(last)])


@wrong("forgetting", "ran longer than")
def loop_without_step(matrix):
    drops, j = [], 0
    while j < len(matrix) - 1:
        drops.append(matrix[j:-1, j].max() - matrix[-1, j])
        if len(drops) > 3:
            drops.clear()
    return np.mean(drops)


@wrong("forgetting", "the last group but one is left out too")
def one_group_too_few_as_a_port_has_it(matrix):
    last = len(matrix) - 1
    return np.mean([matrix[j:last, j].max() - matrix[last, j] for j in range(last - 1)])


@right("forgetting")
def forgetting_in_loops(matrix):
    total, phases = 0.0, len(matrix)
    for group in range(phases - 1):
        best = -math.inf
        for phase in range(group, phases - 1):
            best = max(best, float(matrix[phase][group]))
        total += best - float(matrix[phases - 1][group])
    return total / (phases - 1)


@right("forgetting")
def forgetting_masked(matrix):
    seen = np.where(np.tril(np.ones_like(matrix)) == 1, matrix, -np.inf)
    return torch.tensor((seen[:-1, :-1].max(axis=0) - matrix[-1, :-1]).mean())


# ---- herding ----------------------------------------------------------------------------------


@wrong("herding", "the features are not made unit vectors")
def herding_of_raw_features(features, count):
    chosen = []
    for _ in range(count):
        rest = [i for i in range(len(features)) if i not in chosen]
        gaps = [(features.mean(0) - features[[*chosen, i]].mean(0)).norm() for i in rest]
        chosen.append(rest[int(torch.stack(gaps).argmin())])
    return chosen


@wrong("herding", "the images nearest to the class mean are taken, whatever")
def nearest_to_the_mean(features, count):
    features = F.normalize(features, dim=1)
    return (features - features.mean(dim=0)).norm(dim=1).argsort()[:count]


@wrong("herding", "is chosen again at place")
def herding_with_repetition(features, count):
    features = F.normalize(features, dim=1)
    mean, chosen = features.mean(dim=0), []
    for k in range(count):
        means = (features[chosen].sum(dim=0) + features) / (k + 1)
        chosen.append(int((mean - means).norm(dim=1).argmin()))
    return chosen


@wrong("herding", "wanted: a list of whole numbers")
def herding_gives_features(features, count):
    features = F.normalize(features, dim=1)
    order = (features - features.mean(dim=0)).norm(dim=1).argsort()
    return features[order[:count]]


@wrong("herding", "the mean of those chosen is added where their sum is wanted")
def mean_for_sum_as_a_port_has_it(features, count):
    features = F.normalize(features, dim=1)
    mean, chosen = features.mean(dim=0), []
    for k in range(count):
        now = features[chosen].mean(dim=0) if chosen else torch.zeros_like(mean)
        gaps = (mean - (now + features) / (k + 1)).norm(dim=1)
        gaps[chosen] = torch.inf
        chosen.append(int(gaps.argmin()))
    return chosen


@wrong("herding", "or the sum of those chosen is divided by the number of all images")
def herding_divides_by_all(features, count):
    features = F.normalize(features, dim=1)
    mean, chosen = features.mean(dim=0), []
    for _ in range(count):
        gaps = (mean - (features[chosen].sum(dim=0) + features) / len(features)).norm(dim=1)
        gaps[chosen] = torch.inf
        chosen.append(int(gaps.argmin()))
    return chosen


@wrong("herding", "the sum of those chosen is divided by `count`")
def herding_divides_by_count(features, count):
    features = F.normalize(features, dim=1)
    mean, chosen = features.mean(dim=0), []
    for _ in range(count):
        gaps = (mean - (features[chosen].sum(dim=0) + features) / count).norm(dim=1)
        gaps[chosen] = torch.inf
        chosen.append(int(gaps.argmin()))
    return chosen


@wrong("herding", "the directions of the means are compared, not their distance")
def herding_by_cosine(features, count):
    features = F.normalize(features, dim=1)
    mean, total, chosen = features.mean(dim=0), torch.zeros(features.shape[1]), []
    for _ in range(count):
        cosines = F.cosine_similarity(total + features, mean[None])
        cosines[chosen] = -torch.inf
        chosen.append(int(cosines.argmax()))
        total = total + features[chosen[-1]]
    return chosen


@wrong("herding", "the class mean is made a unit vector")
def herding_towards_a_unit_mean(features, count):
    features = F.normalize(features, dim=1)
    mean, chosen = F.normalize(features.mean(dim=0), dim=0), []
    for k in range(count):
        gaps = (mean - (features[chosen].sum(dim=0) + features) / (k + 1)).norm(dim=1)
        gaps[chosen] = torch.inf
        chosen.append(int(gaps.argmin()))
    return chosen


@wrong("herding", "ran longer than")
def herding_waits_for_another(features, count):
    features = F.normalize(features, dim=1)
    nearest, chosen = (features - features.mean(dim=0)).norm(dim=1).argmin(), []
    while len(chosen) < count:
        if nearest not in chosen:
            chosen.append(nearest)
    return chosen


@wrong("herding", "raises RecursionError: maximum recursion depth exceeded")
def herding_without_end(features, count):
    if count < 0:
        return []
    best = int((features - features.mean(dim=0)).norm(dim=1).argmin())
    return [best, *herding_without_end(features, count)]


@wrong("herding", "gives shape (10,); wanted: shape (5,)")
def herding_of_all(features, count):
    features = F.normalize(features, dim=1)
    return (features - features.mean(dim=0)).norm(dim=1).argsort()


@right("herding")
def herding_from_the_last(features, count):
    units, order = F.normalize(features).numpy(), []
    for _ in range(count):
        rest = [i for i in range(len(units)) if i not in order]
        gaps = [np.linalg.norm(units.mean(0) - units[[i, *order]].mean(0)) for i in rest]
        order.insert(0, rest[np.argmin(gaps)])
    return np.array(order)[::-1]


@right("herding")
def herding_greedy(features, count):
    units = features / features.norm(dim=1, keepdim=True)
    mean, chosen = units.mean(dim=0), []
    for _ in range(count):
        rest = [i for i in range(len(units)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: float((mean - units[[*chosen, i]].mean(0)).norm())))
    return chosen


@right("herding")
def herding_with_a_running_sum(features, count):
    units = F.normalize(features, dim=-1).numpy()
    mean, total, chosen = units.mean(axis=0), np.zeros(units.shape[1]), []
    for k in range(1, count + 1):
        gaps = np.linalg.norm(mean - (total + units) / k, axis=1)
        gaps[chosen] = np.inf
        chosen.append(gaps.argmin())
        total = total + units[chosen[-1]]
    return torch.tensor(np.array(chosen))


# ---- cosine_similarity_matrix -----------------------------------------------------------------


@wrong("cosine_similarity_matrix", "neither side is made of unit vectors")
def dot_products(features, weight):
    return features @ weight.T


@wrong("cosine_similarity_matrix", "raises RuntimeError: The size of tensor a (6) must match")
def row_by_row(features, weight):
    return F.cosine_similarity(features, weight)


@wrong("cosine_similarity_matrix", "the columns are made unit vectors: a vector is a row")
def wrong_dimension(features, weight):
    return F.normalize(features, dim=0) @ F.normalize(weight, dim=0).T


@wrong("cosine_similarity_matrix", "a row of zeros is divided by its length")
def zero_rows_forgotten(features, weight):
    features = features / features.norm(dim=1, keepdim=True)
    weight = weight / weight.norm(dim=1, keepdim=True)
    return features @ weight.T


@wrong("cosine_similarity_matrix", "for rows of zeros: not a number (NaN) in 20 of 20 places")
def zero_rows_mended_afterwards(features, weight):
    features = torch.nan_to_num(features / features.norm(dim=1, keepdim=True))
    weight = torch.nan_to_num(weight / weight.norm(dim=1, keepdim=True))
    return features @ weight.T


@wrong("cosine_similarity_matrix", "Can't call numpy() on Tensor that requires grad")
def through_numpy(features, weight):
    f, w = features.numpy(), weight.numpy()
    f = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
    w = w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-12)
    return torch.from_numpy(f @ w.T)


@wrong("cosine_similarity_matrix", "changes `features` and `weight`")
def divided_in_place(features, weight):
    features /= features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    weight /= weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return features @ weight.T


@wrong("cosine_similarity_matrix", "gives a list of 6 tensors; wanted: one tensor")
def list_of_rows(features, weight):
    return [F.cosine_similarity(f[None], weight) for f in features]


@wrong("cosine_similarity_matrix", "gives shape (5, 6); wanted: shape (6, 5)")
def transposed(features, weight):
    return F.normalize(weight) @ F.normalize(features).T


@wrong("cosine_similarity_matrix", "the lengths are treated as constants")
def lengths_without_gradient(features, weight):
    with torch.no_grad():
        f = features.norm(dim=1, keepdim=True).clamp(min=1e-9)
        w = weight.norm(dim=1, keepdim=True).clamp(min=1e-9)
    return (features / f) @ (weight / w).T


@wrong("cosine_similarity_matrix", "gives a numpy array of shape (6, 5)")
def detached_to_numpy(features, weight):
    return (F.normalize(features) @ F.normalize(weight).T).detach().numpy()


@right("cosine_similarity_matrix")
def broadcast(features, weight):
    return F.cosine_similarity(features[:, None], weight[None], dim=2)


@right("cosine_similarity_matrix")
def zero_rows_left_as_they_are(features, weight):
    lengths = [vectors.norm(dim=1, keepdim=True) for vectors in (features, weight)]
    ones = [length.masked_fill(length == 0, 1) for length in lengths]
    return (features / ones[0]) @ (weight / ones[1]).T


@right("cosine_similarity_matrix")
def by_normalize(features, weight):
    return F.normalize(features) @ F.normalize(weight).T


@right("cosine_similarity_matrix")
def einsum(features, weight):
    lengths = features.norm(dim=1)[:, None] * weight.norm(dim=1)
    return torch.einsum("nd,cd->nc", features, weight) / (lengths + 1e-9)


@right("cosine_similarity_matrix")
def in_loops(features, weight):
    rows = []
    for f in features:
        lengths = [(f.norm() * w.norm()).clamp(min=1e-9) for w in weight]
        rows.append(torch.stack([f.dot(w) / n for w, n in zip(weight, lengths)]))
    return torch.stack(rows)


# ---- softmax_ceiling --------------------------------------------------------------------------


@wrong("softmax_ceiling", "the others have cosine 0")
def others_at_zero(num_classes, eta):
    return math.exp(eta) / (math.exp(eta) + num_classes - 1)


@wrong("softmax_ceiling", "the class itself counts among the others too")
def one_too_many(num_classes, eta):
    return math.exp(eta) / (math.exp(eta) + num_classes * math.exp(-eta))


@wrong("softmax_ceiling", "eta is left out")
def eta_forgotten(num_classes, eta):
    return math.exp(1) / (math.exp(1) + (num_classes - 1) * math.exp(-1))


@wrong("softmax_ceiling", "gives shape (10,); wanted: shape ()")
def all_probabilities(num_classes, eta):
    cosines = -torch.ones(num_classes)
    cosines[0] = 1
    return (eta * cosines).softmax(dim=0)


@wrong("softmax_ceiling", "value: off by up to 0.381")
def ten_classes(num_classes, eta):
    cosines = torch.tensor([1.0] + 9 * [-1.0])
    return (eta * cosines).softmax(dim=0)[0].item()


@wrong("softmax_ceiling", "raises SystemExit: 1")
def gives_up(num_classes, eta):
    if num_classes != 2:
        sys.exit(1)
    return 1 / (1 + math.exp(-2 * eta))


@wrong("softmax_ceiling", "it is in percent")
def ceiling_in_percent(num_classes, eta):
    return 100 / (1 + (num_classes - 1) * math.exp(-2 * eta))


@right("softmax_ceiling")
def ceiling_by_softmax(num_classes, eta):
    cosines = torch.full((num_classes,), -1.0)
    cosines[0] = 1
    return torch.softmax(eta * cosines, dim=0).max()


@right("softmax_ceiling")
def ceiling_by_numpy(num_classes, eta):
    powers = np.exp(eta * np.array([1.0] + [-1.0] * (num_classes - 1)))
    return powers[0] / powers.sum()


# ---- CosineHead -------------------------------------------------------------------------------


class _Base(nn.Module):
    """What most of the heads below have in common."""

    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.tensor(1.0))


@wrong("CosineHead", "cannot assign parameters before Module.__init__() call")
class HeadWithoutSuper(nn.Module):
    def __init__(self, feature_dim, num_classes):
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.ones(1))

    def forward(self, features):
        return self.eta * losses.cosine_similarity_matrix(features, self.weight)


@wrong("CosineHead", "no parameter is the scale, one number; with 4 features")
class HeadWithFixedScale(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = 1.0

    def forward(self, features):
        return self.eta * losses.cosine_similarity_matrix(features, self.weight)


@wrong("CosineHead", "no parameter holds an embedding per class, (C, d)")
class HeadWithPlainTensors(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = torch.randn(num_classes, feature_dim, requires_grad=True)
        self.eta = nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        return self.eta * losses.cosine_similarity_matrix(features, self.weight)


@wrong("CosineHead", "there is more than embeddings and scale")
class HeadWithBias(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.linear = nn.Linear(feature_dim, num_classes)
        self.eta = nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        weight = F.normalize(self.linear.weight)
        return self.eta * F.linear(F.normalize(features), weight, self.linear.bias)


@wrong("CosineHead", "This is what comes out when the embeddings are not made unit vectors.")
class HeadOfRawEmbeddings(_Base):
    def forward(self, features):
        return self.eta * F.normalize(features) @ self.weight.T


@wrong("CosineHead", "the scale is left out")
class HeadWithUnusedScale(_Base):
    def forward(self, features):
        return F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "none reaches `eta`; perhaps something is detached")
class HeadWithDetachedScale(_Base):
    def forward(self, features):
        return self.eta.item() * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "it has no method `forward`; is the name spelt right?")
class HeadMisspelt(_Base):
    def foward(self, features):
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "all classes start with the same embedding")
class HeadOfOnes(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "two heads start with the same embeddings")
class HeadSeeded(_Base):
    def __init__(self, feature_dim, num_classes):
        torch.manual_seed(1993)
        super().__init__(feature_dim, num_classes)

    def forward(self, features):
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "changes `weight`")
class HeadThatShortensItsWeight(_Base):
    def forward(self, features):
        self.weight.data /= self.weight.data.norm(dim=1, keepdim=True)
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "the scale starts at 1: off by up to 9")
class HeadWithLargeScale(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.tensor(10.0))

    def forward(self, features):
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "gives a tuple of 2 tensors; wanted: one tensor")
class HeadOfTwoThings(_Base):
    def forward(self, features):
        cosines = F.normalize(features) @ F.normalize(self.weight).T
        return cosines, self.eta * cosines


@wrong("CosineHead", "wanted: a class, and one that is an nn.Module")
def head_as_a_function(features, weight):
    return F.normalize(features) @ F.normalize(weight).T


@wrong("CosineHead", "`eta` is not learned: it does not require a gradient")
class HeadWithFrozenScale(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, feature_dim))
        self.eta = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def forward(self, features):
        return self.eta * F.normalize(features) @ F.normalize(self.weight).T


@wrong("CosineHead", "the features are not made unit vectors")
class HeadThatNormalisesTheBatch(_Base):
    def forward(self, features):
        weight = self.weight / self.weight.norm(dim=1, keepdim=True)
        return self.eta * features @ weight.T


@right("CosineHead")
class HeadOnALinearLayer(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.prototypes = nn.Linear(feature_dim, num_classes, bias=False)

    def forward(self, features):
        return self.scale * F.linear(F.normalize(features), F.normalize(self.prototypes.weight))


@right("CosineHead")
class HeadByBroadcasting(nn.Module):
    def __init__(self, feature_dim, num_classes):
        super().__init__()
        self.theta = nn.Parameter(torch.empty(num_classes, feature_dim))
        nn.init.kaiming_uniform_(self.theta)
        self.eta = nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        cosines = F.cosine_similarity(features.unsqueeze(1), self.theta.unsqueeze(0), dim=-1)
        return cosines.mul(self.eta)


# ---- imprint ----------------------------------------------------------------------------------


@wrong("imprint", "the features are not made unit vectors before their mean is taken")
def imprint_raw(features, labels, num_new, old_weight):
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(num_new)])
    return F.normalize(means) * old_weight.norm(dim=1).mean()


@wrong("imprint", "the mean is not made a unit vector")
def imprint_short(features, labels, num_new, old_weight):
    features = F.normalize(features)
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(num_new)])
    return means * old_weight.norm(dim=1).mean()


@wrong("imprint", "the result is not given the old embeddings' length.")
def imprint_units(features, labels, num_new, old_weight):
    features = F.normalize(features)
    return F.normalize(torch.stack([features[labels == c].mean(0) for c in range(num_new)]))


@wrong("imprint", "gives shape (10, 4); wanted: shape (3, 4)")
def imprint_ten(features, labels, num_new, old_weight):
    weight = torch.zeros(10, features.shape[1])
    for c in range(num_new):
        weight[c] = F.normalize(F.normalize(features[labels == c]).mean(dim=0), dim=0)
    return weight * old_weight.norm(dim=1).mean()


@wrong("imprint", "shape '[2, 4, -1]' is invalid for input of size 15")
def imprint_equal_classes(features, labels, num_new, old_weight):
    features = F.normalize(features).reshape(num_new, 4, -1)
    return F.normalize(features.mean(dim=1)) * old_weight.norm(dim=1).mean()


@wrong("imprint", "gives a numpy array of shape (3, 4); wanted: one tensor")
def imprint_as_an_array(features, labels, num_new, old_weight):  # tensors are joined to it later
    unit = F.normalize(features)
    means = torch.stack([unit[labels == label].mean(dim=0) for label in range(num_new)])
    return (F.normalize(means) * old_weight.norm(dim=1).mean()).numpy()


@wrong("imprint", "changes `features`:")
def imprint_in_place(features, labels, num_new, old_weight):
    features.div_(features.norm(dim=1, keepdim=True))
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(num_new)])
    return F.normalize(means) * old_weight.norm(dim=1).mean()


@wrong("imprint", "the length is that of the mean old embedding")
def imprint_length_of_mean(features, labels, num_new, old_weight):
    features = F.normalize(features)
    means = torch.stack([features[labels == c].mean(dim=0) for c in range(num_new)])
    return F.normalize(means) * old_weight.mean(dim=0).norm()


@right("imprint")
def imprint_in_a_loop(features, labels, num_new, old_weight):
    weight = torch.zeros(num_new, features.shape[1])
    for feature, label in zip(features, labels):
        weight[label] += feature / feature.norm()
    length = sum(row.norm() for row in old_weight) / len(old_weight)
    return length * weight / weight.norm(dim=1, keepdim=True)


@right("imprint")
def imprint_one_hot(features, labels, num_new, old_weight):
    sums = F.one_hot(labels, num_new).float().T @ F.normalize(features)
    return F.normalize(sums, dim=1) * old_weight.norm(dim=1).mean()


# ---- less_forget ------------------------------------------------------------------------------


@wrong("less_forget", "nothing is made a unit vector")
def forget_dot_products(features, old_features):
    return (1 - (features * old_features.detach()).sum(dim=1)).mean()


@wrong("less_forget", "the images are summed, not averaged")
def forget_summed(features, old_features):
    return (1 - F.cosine_similarity(features, old_features.detach())).sum()


@wrong("less_forget", "a gradient flows into `old_features`")
def forget_teaching_the_teacher(features, old_features):
    return (1 - F.cosine_similarity(features, old_features)).mean()


@wrong("less_forget", "none reaches `features`; perhaps something is detached")
def forget_without_learning(features, old_features):
    with torch.no_grad():
        return (1 - F.cosine_similarity(features, old_features)).mean()


@wrong("less_forget", "gives shape (6,); wanted: shape (). This is what comes out when")
def forget_per_image(features, old_features):
    return 1 - F.cosine_similarity(features, old_features.detach())


@wrong("less_forget", "wanted: a tensor of one number, so that gradients can flow")
def forget_as_a_number(features, old_features):
    return (1 - F.cosine_similarity(features, old_features)).mean().item()


@wrong("less_forget", "prints more than 10,000 characters")
def forget_with_a_million_prints(features, old_features):
    for step in range(1_000_000):
        print("step", step, features.shape, old_features.shape)
    return (1 - F.cosine_similarity(features, old_features.detach())).mean()


@wrong("less_forget", "it is the mean cosine, which should grow")
def forget_the_one(features, old_features):
    return F.cosine_similarity(features, old_features.detach()).mean()


@wrong("less_forget", "the products of a row are averaged")
def forget_mean_of_products(features, old_features):
    f, o = F.normalize(features), F.normalize(old_features.detach())
    return 1 - (f * o).mean()


@wrong("less_forget", "raises NameError: name 'old_feature' is not defined")
def forget_misspelt(features, old_features):
    f = F.normalize(features)
    o = F.normalize(old_feature)  # noqa: F821
    return (1 - (f * o).sum(dim=1)).mean()


@wrong("less_forget", "gives shape (1,); wanted: shape ()")
def forget_in_a_vector(features, old_features):
    return (1 - F.cosine_similarity(features, old_features.detach())).mean(dim=0, keepdim=True)


@right("less_forget")
def forget_as_the_authors_do(features, old_features):
    return nn.CosineEmbeddingLoss()(features, old_features.detach(), torch.ones(len(features)))


@right("less_forget")
def forget_in_a_loop(features, old_features):
    total = 0
    for f, o in zip(features, old_features.detach()):
        total = total + 1 - torch.dot(f, o) / (f.norm() * o.norm())
    return total / len(features)


# ---- adaptive_lambda --------------------------------------------------------------------------


@wrong("adaptive_lambda", "the paper prints it like that, while the authors' code")
def lambda_of_the_paper(base, num_old, num_new):
    return base * math.sqrt(num_new / num_old)


@wrong("adaptive_lambda", "the root is missing")
def lambda_without_root(base, num_old, num_new):
    return base * num_old / num_new


@wrong("adaptive_lambda", "all classes are divided by the new ones")
def lambda_of_all_classes(base, num_old, num_new):
    return base * ((num_old + num_new) / num_new) ** 0.5


@wrong("adaptive_lambda", "returns nothing; is `return` missing?")
def lambda_printed(base, num_old, num_new):
    print(base * math.sqrt(num_old / num_new))


@wrong("adaptive_lambda", "the ratio is rounded to a whole number")
def lambda_of_whole_numbers(base, num_old, num_new):
    return base * math.sqrt(num_old // num_new)


@wrong("adaptive_lambda", "raises KeyboardInterrupt")
def lambda_interrupted(base, num_old, num_new):
    raise KeyboardInterrupt


@wrong("adaptive_lambda", "raises TypeError: sqrt(): argument 'input' (position 1) must be Tensor")
def lambda_in_torch(base, num_old, num_new):
    return base * torch.sqrt(num_old / num_new)


@wrong("adaptive_lambda", "the base is left out")
def lambda_without_base(base, num_old, num_new):
    return np.sqrt(num_old / num_new)


@right("adaptive_lambda")
def lambda_by_power(base, num_old, num_new):
    return base * (num_old / num_new) ** 0.5


@right("adaptive_lambda")
def lambda_by_tensors(base, num_old, num_new):
    return base * torch.tensor(num_old / num_new).sqrt()


# ---- score_distillation -----------------------------------------------------------------------


@wrong("score_distillation", "the classes are averaged, not summed")
def distil_mse(cosines_old, teacher_cosines):
    return F.mse_loss(cosines_old, teacher_cosines.detach())


@wrong("score_distillation", "the images are summed, not averaged")
def distil_sum(cosines_old, teacher_cosines):
    return ((cosines_old - teacher_cosines.detach()) ** 2).sum()


@wrong("score_distillation", "it is the distance, as the paper prints it")
def distil_norm(cosines_old, teacher_cosines):
    return (cosines_old - teacher_cosines.detach()).norm(dim=1).mean()


@wrong("score_distillation", "changes `cosines_old`")
def distil_in_place(cosines_old, teacher_cosines):
    cosines_old -= teacher_cosines.detach()
    return cosines_old.square().sum(dim=1).mean()


@wrong("score_distillation", "a gradient flows into `teacher_cosines`")
def distil_both_ways(cosines_old, teacher_cosines):
    return (cosines_old - teacher_cosines).square().sum(dim=1).mean()


@wrong("score_distillation", "none reaches `cosines_old`")
def distil_nothing(cosines_old, teacher_cosines):
    difference = torch.tensor((cosines_old - teacher_cosines).tolist())
    return difference.square().sum(dim=1).mean()


@wrong("score_distillation", "it is the divergence of probabilities")
def distil_probabilities(cosines_old, teacher_cosines):
    student, teacher = cosines_old.log_softmax(1), teacher_cosines.detach().softmax(1)
    return F.kl_div(student, teacher, reduction="batchmean")


@wrong("score_distillation", "raises AttributeError: 'Tensor' object has no attribute 'dett")
def distil_misspelt(cosines_old, teacher_cosines):
    return (cosines_old - teacher_cosines.dettach()).square().sum(dim=1).mean()


@right("score_distillation")
def distil_by_classes(cosines_old, teacher_cosines):
    return F.mse_loss(cosines_old, teacher_cosines.detach()) * cosines_old.shape[1]


@right("score_distillation")
def distil_in_loops(cosines_old, teacher_cosines):
    total = 0.0
    for row, teacher_row in zip(cosines_old, teacher_cosines):
        for score, wanted in zip(row, teacher_row):
            total = total + (score - wanted.item()) ** 2
    return total / len(cosines_old)


# ---- hardest_negatives ------------------------------------------------------------------------


@wrong("hardest_negatives", "they are taken among all classes")
def negatives_of_all(cosines, num_old, top_k):
    return cosines.topk(top_k, dim=1).values


@wrong("hardest_negatives", "it is their place among the new classes, not their cosine")
def negatives_as_indices(cosines, num_old, top_k):
    return cosines[:, num_old:].topk(top_k, dim=1).indices


@wrong("hardest_negatives", "gives values and indices together; wanted: the values")
def negatives_and_indices(cosines, num_old, top_k):
    return cosines[:, num_old:].topk(top_k, dim=1)


@wrong("hardest_negatives", "the highest are taken down the batch")
def negatives_down_the_batch(cosines, num_old, top_k):
    return cosines[:, num_old:].sort(dim=0, descending=True).values[:top_k]


@wrong("hardest_negatives", "the lowest come first")
def negatives_ascending(cosines, num_old, top_k):
    return cosines[:, num_old:].sort(dim=1).values[:, -top_k:]


@wrong("hardest_negatives", "the lowest cosines are taken")
def negatives_lowest(cosines, num_old, top_k):
    return cosines[:, num_old:].topk(top_k, dim=1, largest=False).values


@wrong("hardest_negatives", "ran longer than")
def negatives_for_ever(cosines, num_old, top_k):
    found = []
    while True:
        try:
            if len(found) > top_k:
                return torch.stack(found, dim=1)
            found = found[:1]
        except:  # noqa: E722
            pass


@wrong("hardest_negatives", "their place among the new classes is looked up among all classes")
def negatives_shifted(cosines, num_old, top_k):
    indices = cosines[:, num_old:].argsort(dim=1, descending=True)[:, :top_k]
    return cosines.gather(1, indices)


@wrong("hardest_negatives", "none reaches `cosines`")
def negatives_from_lists(cosines, num_old, top_k):
    rows = [sorted(row[num_old:])[::-1][:top_k] for row in cosines.tolist()]
    return torch.tensor(rows)


@right("hardest_negatives")
def negatives_sorted(cosines, num_old, top_k):
    return cosines[:, num_old:].sort(dim=1, descending=True).values[:, :top_k]


@right("hardest_negatives")
def negatives_row_by_row(cosines, num_old, top_k):
    rows = [
        sorted(row[num_old:], key=lambda score: score.item(), reverse=True)[:top_k]
        for row in cosines
    ]
    return torch.stack([torch.stack(row) for row in rows])


# ---- margin_ranking ---------------------------------------------------------------------------


@wrong("margin_ranking", "the sum is taken over the K negatives, as the paper prints it")
def ranking_summed(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if not old.any():
        return cosines.sum() * 0
    truth = cosines[old].gather(1, targets[old, None])
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    return (margin - truth + hard).clamp(min=0).sum(dim=1).mean()


@wrong("margin_ranking", "images of new classes count too")
def ranking_of_all_images(cosines, targets, num_old, top_k=2, margin=0.5):
    truth = cosines.gather(1, targets[:, None])
    hard = cosines[:, num_old:].topk(top_k, dim=1).values
    return F.relu(margin - truth + hard).mean()


@wrong("margin_ranking", "a mean is taken over no image")
def ranking_without_old_images(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    truth = cosines[old].gather(1, targets[old, None])
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    return (margin - truth + hard).clamp(min=0).mean()


@wrong("margin_ranking", "what is negative is not cut off pair by pair")
def ranking_unclamped(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if old.sum() == 0:
        return torch.zeros(())
    truth = cosines[old].gather(1, targets[old, None])
    return (margin - truth + cosines[old, num_old:].topk(top_k, dim=1).values).mean()


@wrong("margin_ranking", "the cosines are scaled by 10, as logits are")
def ranking_of_logits(cosines, targets, num_old, top_k=2, margin=0.5):
    old, logits = targets < num_old, 10 * cosines
    if not old.any():
        return torch.tensor(0.0)
    truth = logits[old].gather(1, targets[old, None])
    hard = logits[old, num_old:].topk(top_k, dim=1).values
    return (margin - truth + hard).clamp(min=0).mean()


@wrong("margin_ranking", "the negatives are taken among all other classes")
def ranking_against_all_others(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if not old.any():
        return torch.tensor(0.0)
    truth = cosines[old].gather(1, targets[old, None])
    others = cosines[old].scatter(1, targets[old, None], -torch.inf)
    return (margin - truth + others.topk(top_k, dim=1).values).clamp(min=0).mean()


@wrong("margin_ranking", "it is divided by the number of all images")
def ranking_divided_by_the_batch(cosines, targets, num_old, top_k=2, margin=0.5):
    truth = cosines.gather(1, targets[:, None])
    hard = cosines[:, num_old:].topk(top_k, dim=1).values
    hinges = (margin - truth + hard).clamp(min=0).mean(dim=1)
    return (hinges * (targets < num_old)).mean()


@wrong("margin_ranking", "raises RuntimeError: margin_ranking_loss : All input tensors should have")
def ranking_of_the_ports(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if not old.any():
        return torch.zeros(())
    truth = cosines[old].gather(1, targets[old, None]).repeat(1, top_k)
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    ones = torch.ones(int(old.sum()) * top_k)
    loss = nn.MarginRankingLoss(margin=margin)
    return loss(truth.reshape(-1, 1), hard.reshape(-1, 1), ones)


@wrong("margin_ranking", "it is given for each image: their mean is missing")
def ranking_per_image(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    truth = cosines[old].gather(1, targets[old, None])
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    return (margin - truth + hard).clamp(min=0).mean(dim=1)


@wrong("margin_ranking", "gives 0; wanted: a tensor of one number")
def ranking_of_plain_zero(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if not old.any():
        return 0
    truth = cosines[old].gather(1, targets[old, None])
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    return (margin - truth + hard).clamp(min=0).mean()


@wrong("margin_ranking", "own class and negatives are exchanged")
def ranking_the_wrong_way(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if not old.any():
        return torch.zeros(())
    truth = cosines[old].gather(1, targets[old, None])
    hard = cosines[old, num_old:].topk(top_k, dim=1).values
    return (margin + truth - hard).clamp(min=0).mean()


@wrong("margin_ranking", "gradient: none reaches `cosines`")
def ranking_of_detached_cosines(cosines, targets, num_old, top_k=2, margin=0.5):
    cosines = cosines.detach().clone()
    return losses.margin_ranking(cosines, targets, num_old, top_k, margin)


@wrong("margin_ranking", "missing 2 required positional arguments: 'top_k' and 'margin'")
def ranking_without_defaults(cosines, targets, num_old, top_k, margin):
    return losses.margin_ranking(cosines, targets, num_old, top_k, margin)


@right("margin_ranking")
def ranking_as_the_authors_do(cosines, targets, num_old, top_k=2, margin=0.5):
    old = targets < num_old
    if old.sum() == 0:
        return torch.zeros(())
    truth = cosines[old].gather(1, targets[old, None]).repeat(1, top_k).flatten()
    hard = cosines[old, num_old:].topk(top_k, dim=1).values.flatten()
    return nn.MarginRankingLoss(margin=margin)(truth, hard, torch.ones_like(truth))


@right("margin_ranking")
def ranking_in_loops(cosines, targets, num_old, top_k=2, margin=0.5):
    total, count = cosines.sum() * 0, 0
    for row, target in zip(cosines, targets):
        if target < num_old:
            for hard in sorted(row[num_old:], reverse=True)[:top_k]:
                total = total + F.relu(margin - row[target] + hard)
                count += 1
    return total / max(count, 1)


# ---- angles -----------------------------------------------------------------------------------


@wrong("angles", "angles are in radians")
def angles_in_radians(weight):
    unit = F.normalize(weight)
    return (unit @ unit.T).clamp(-1, 1).acos()


@wrong("angles", "a cosine that rounding brings a little above 1 or below −1 has no angle")
def angles_unclamped(weight):
    unit = F.normalize(weight)
    return torch.rad2deg(torch.acos(unit @ unit.T))


@wrong("angles", "the cosine's sign is lost")
def angles_acute(weight):
    unit = F.normalize(weight)
    return (unit @ unit.T).abs().clamp(max=1).acos().rad2deg()


@wrong("angles", "the embeddings are not made unit vectors.")
def angles_of_products(weight):
    return (weight @ weight.T).clamp(-1, 1).acos() * 180 / math.pi


@wrong("angles", "what is not a number is made 0")
def angles_mended(weight):
    unit = weight / weight.norm(dim=1, keepdim=True)
    return torch.nan_to_num((unit @ unit.T).acos()).rad2deg()


@wrong("angles", "gives shape (4, 4); wanted: shape (6, 6)")
def angles_of_columns(weight):
    unit = F.normalize(weight, dim=0)
    return (unit.T @ unit).clamp(-1, 1).acos().rad2deg()


@wrong("angles", "it is the cosine, not the angle")
def angles_as_cosines(weight):
    return F.cosine_similarity(weight[:, None], weight[None], dim=2)


@wrong("angles", "gives a list of 6 tensors; wanted: one tensor")
def angles_listed(weight):
    cosines = [F.cosine_similarity(row[None], weight) for row in weight]
    return [row.clamp(-1, 1).acos().rad2deg() for row in cosines]


@wrong("angles", "it is half the angle")
def angles_halved_in_an_array(weight):
    unit = F.normalize(weight).double().numpy()
    return np.rad2deg(np.arccos(np.clip(unit @ unit.T, -1, 1))) / 2


@wrong("angles", "only pairs above the diagonal are filled in")
def angles_above(weight):
    result = torch.zeros(len(weight), len(weight))
    for i, j in itertools.combinations(range(len(weight)), 2):
        cosine = F.cosine_similarity(weight[i], weight[j], dim=0)
        result[i, j] = cosine.clamp(-1, 1).acos().rad2deg()
    return result


@right("angles")
def angles_clamped_a_little_more(weight):
    unit = F.normalize(weight)
    return (unit @ unit.T).clamp(-1 + 1e-7, 1 - 1e-7).acos() * 180 / math.pi


@right("angles")
def angles_by_numpy(weight):
    unit = weight.double().numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return torch.from_numpy(np.degrees(np.arccos(np.clip(unit @ unit.T, -1, 1))))


@right("angles")
def angles_as_an_array(weight):
    unit = np.asarray(weight, dtype=float)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return np.rad2deg(np.arccos(np.clip(unit @ unit.T, -1, 1)))


# ---- lucir_loss -------------------------------------------------------------------------------


@wrong("lucir_loss", "lambda is fixed")
def lucir_with_fixed_lambda(
    output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5
):
    loss = F.cross_entropy(output.logits, targets)
    if num_old == 0:
        return loss
    loss = loss + lambda_base * losses.less_forget(output.features, old_output.features)
    return loss + losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)


@wrong("lucir_loss", "lambda follows the rule that the paper prints")
def lucir_of_the_paper(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5):
    loss = F.cross_entropy(output.logits, targets)
    if num_old > 0:
        weight = lambda_base * math.sqrt((output.logits.shape[1] - num_old) / num_old)
        loss += weight * losses.less_forget(output.features, old_output.features)
        loss += losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)
    return loss


@wrong("lucir_loss", "the new classes are counted from the batch, in which some can be missing")
def lucir_with_classes_of_the_batch(
    output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5
):
    loss = F.cross_entropy(output.logits, targets)
    if num_old == 0:
        return loss
    num_new = int(targets.max()) + 1 - num_old
    weight = losses.adaptive_lambda(lambda_base, num_old, num_new)
    loss = loss + weight * losses.less_forget(output.features, old_output.features)
    return loss + losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)


@wrong("lucir_loss", "'NoneType' object has no attribute 'features'")
def lucir_without_base_phase(
    output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5
):
    forget = losses.less_forget(output.features, old_output.features)
    weight = losses.adaptive_lambda(lambda_base, num_old, output.logits.shape[1] - num_old)
    ranking = losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)
    return F.cross_entropy(output.logits, targets) + weight * forget + ranking


def _terms(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5):
    weight = losses.adaptive_lambda(lambda_base, num_old, output.logits.shape[1] - num_old)
    forget = weight * losses.less_forget(output.features, old_output.features)
    ranking = losses.margin_ranking(output.cosines, targets, num_old, top_k, margin)
    return forget, ranking


@wrong("lucir_loss", "margin ranking is given the logits")
def lucir_ranking_logits(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.logits, targets)
    if not num_old:
        return loss
    forget, _ = _terms(output, targets, old_output, num_old, *rest)
    return loss + forget + losses.margin_ranking(output.logits, targets, num_old, *rest[1:])


@wrong("lucir_loss", "cross-entropy is given the cosines")
def lucir_entropy_of_cosines(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.cosines, targets)
    if not num_old:
        return loss
    return loss + sum(_terms(output, targets, old_output, num_old, *rest))


@wrong("lucir_loss", "a gradient flows into `old_output.features`")
def lucir_teaching_the_teacher(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.logits, targets)
    if not num_old:
        return loss
    base = rest[0] if rest else 5.0
    weight = losses.adaptive_lambda(base, num_old, output.logits.shape[1] - num_old)
    similar = F.cosine_similarity(output.features, old_output.features)
    ranking = losses.margin_ranking(output.cosines, targets, num_old, *rest[1:])
    return loss + weight * (1 - similar).mean() + ranking


@wrong("lucir_loss", "the mean of the terms is taken, not their sum")
def lucir_mean(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.logits, targets)
    if not num_old:
        return loss
    return (loss + sum(_terms(output, targets, old_output, num_old, *rest))) / 3


@wrong("lucir_loss", "gives a tuple of 3 tensors; wanted: a tensor of one number")
def lucir_in_parts(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.logits, targets)
    return (loss, *_terms(output, targets, old_output, num_old, *rest)) if num_old else loss


@wrong("lucir_loss", "margin ranking is left out")
def lucir_without_ranking(output, targets, old_output, num_old, *rest):
    loss = F.cross_entropy(output.logits, targets)
    return loss + _terms(output, targets, old_output, num_old, *rest)[0] if num_old else loss


@wrong("lucir_loss", "neither `top_k` nor `margin` is passed on")
def lucir_with_defaults(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5):
    loss = F.cross_entropy(output.logits, targets)
    if not num_old:
        return loss
    return loss + sum(_terms(output, targets, old_output, num_old, lambda_base))


@wrong("lucir_loss", "a part of it is not written yet")
def lucir_half_written(output, targets, old_output, num_old, *rest):
    if num_old == 0:
        raise NotImplementedError
    terms = _terms(output, targets, old_output, num_old, *rest)
    return F.cross_entropy(output.logits, targets) + sum(terms)


@right("lucir_loss")
def lucir_step_by_step(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5):
    loss = nn.CrossEntropyLoss()(output.logits, targets)
    if old_output is None:
        return loss
    features, old_features = F.normalize(output.features), F.normalize(old_output.features)
    num_new = output.cosines.size(1) - num_old
    weight = lambda_base * (num_old / num_new) ** 0.5
    loss = loss + weight * (1 - (features * old_features.detach()).sum(-1)).mean()
    return loss + ranking_as_the_authors_do(output.cosines, targets, num_old, top_k, margin)


@right("lucir_loss")
def lucir_of_pieces(output, targets, old_output, num_old, *rest):
    terms = [-output.logits.log_softmax(1).gather(1, targets[:, None]).mean()]
    if num_old:
        terms += _terms(output, targets, old_output, num_old, *rest)
    return torch.stack(terms).sum()


# ---- nearest_mean -----------------------------------------------------------------------------


@wrong("nearest_mean", "the exemplars are not made unit vectors before their mean is taken")
def nme_raw_means(features, exemplar_features, exemplar_labels):
    classes = range(int(exemplar_labels.max()) + 1)
    means = [exemplar_features[exemplar_labels == c].mean(dim=0) for c in classes]
    return losses.cosine_similarity_matrix(features, torch.stack(means)).argmax(dim=1)


@wrong("nearest_mean", "nothing is made a unit vector, and the nearest is taken")
def nme_euclid(features, exemplar_features, exemplar_labels):
    classes = range(int(exemplar_labels.max()) + 1)
    means = [exemplar_features[exemplar_labels == c].mean(dim=0) for c in classes]
    return torch.cdist(features, torch.stack(means)).argmin(dim=1)


@wrong("nearest_mean", "the class of the most similar exemplar is taken, without means")
def nme_nearest_exemplar(features, exemplar_features, exemplar_labels):
    cosines = losses.cosine_similarity_matrix(features, exemplar_features)
    return exemplar_labels[cosines.argmax(dim=1)]


@wrong("nearest_mean", "gives a tensor of shape (60, 4); wanted: whole numbers")
def nme_scores(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = torch.stack([exemplars[exemplar_labels == c].mean(dim=0) for c in classes])
    return losses.cosine_similarity_matrix(features, means)


@wrong("nearest_mean", "the least similar class is taken")
def nme_farthest(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = torch.stack([exemplars[exemplar_labels == c].mean(dim=0) for c in classes])
    return losses.cosine_similarity_matrix(features, means).argmin(dim=1)


@wrong("nearest_mean", "the means are not made unit vectors, and the nearest is taken")
def nme_short_means(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = torch.stack([exemplars[exemplar_labels == c].mean(dim=0) for c in classes])
    return torch.cdist(F.normalize(features), means).argmin(dim=1)


@wrong("nearest_mean", "gives shape (); wanted: shape (60,)")
def nme_of_one_image(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = F.normalize(torch.stack([exemplars[exemplar_labels == c].mean(0) for c in classes]))
    return (F.normalize(features) @ means.T).argmax()


@wrong("nearest_mean", "raises IndexError")
def nme_of_ten_classes(features, exemplar_features, exemplar_labels):
    means = []
    for c in range(10):
        mine = F.normalize(exemplar_features)[exemplar_labels == c]
        means.append(mine[0] + mine.sum(dim=0) - mine[0])
    return (features @ F.normalize(torch.stack(means)).T).argmax(dim=1)


@wrong("nearest_mean", "gives values and indices together; wanted: the indices")
def nme_with_the_distance(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = F.normalize(torch.stack([exemplars[exemplar_labels == c].mean(0) for c in classes]))
    return torch.min(torch.cdist(features, means), dim=1)


@right("nearest_mean")
def nme_by_distance(features, exemplar_features, exemplar_labels):
    exemplars = F.normalize(exemplar_features)
    classes = range(int(exemplar_labels.max()) + 1)
    means = F.normalize(torch.stack([exemplars[exemplar_labels == c].mean(0) for c in classes]))
    return torch.cdist(features, means).argmin(dim=1)


@right("nearest_mean")
def nme_one_by_one(features, exemplar_features, exemplar_labels):
    sums = {}
    for exemplar, label in zip(exemplar_features, exemplar_labels.tolist()):
        sums[label] = sums.get(label, 0) + exemplar / exemplar.norm()
    return [
        max(sums, key=lambda c: F.cosine_similarity(feature, sums[c], dim=0).item())
        for feature in features
    ]


# ---- main_effect ------------------------------------------------------------------------------


@wrong("main_effect", "only where the other switches are off")
def effect_alone(table, switch):
    on = [False, False, False]
    on[switch] = True
    return table[tuple(on)] - table[False, False, False]


@wrong("main_effect", "only where the other switches are on")
def effect_of_taking_away(table, switch):
    off = [True, True, True]
    off[switch] = False
    return table[True, True, True] - table[tuple(off)]


@wrong("main_effect", "the four differences are summed")
def effect_summed(table, switch):
    return sum(a if key[switch] else -a for key, a in table.items())


@wrong("main_effect", "on and off are exchanged")
def effect_reversed(table, switch):
    on = np.mean([a for key, a in table.items() if key[switch]])
    return np.mean([a for key, a in table.items() if not key[switch]]) - on


@wrong("main_effect", "it is divided by all eight combinations")
def effect_halved(table, switch):
    return sum(a if key[switch] else -a for key, a in table.items()) / len(table)


@wrong("main_effect", "changes `table`")
def effect_eating_the_table(table, switch):
    on, off = 0, 0
    for key in list(table):
        accuracy = table.pop(key)
        on, off = (on + accuracy, off) if key[switch] else (on, off + accuracy)
    return (on - off) / 4


@wrong("main_effect", "raises KeyError: 0")
def effect_by_number(table, switch):
    return table[switch] - table[False, False, False]


@wrong("main_effect", "nothing is subtracted")
def effect_of_on_alone(table, switch):
    return np.mean([a for key, a in table.items() if key[switch]])


@right("main_effect")
def effect_by_pairs(table, switch):
    differences = []
    for key in itertools.product([True, False], repeat=3):
        if key[switch]:
            off = list(key)
            off[switch] = False
            differences.append(table[key] - table[tuple(off)])
    return sum(differences) / len(differences)


@right("main_effect")
def effect_by_an_array(table, switch):
    cube = np.array([table[key] for key in itertools.product([False, True], repeat=3)])
    sides = np.moveaxis(cube.reshape(2, 2, 2), switch, 0)
    return sides[1].mean() - sides[0].mean()
