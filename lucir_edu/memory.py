"""The memory: which old training images are kept, and the classifier that is made from them."""

import torch
from torch import Tensor

from lucir_edu.losses import cosine_similarity_matrix, unit

HERDING_STEPS = 1000  # the authors' limit on the greedy search


def herding(features: Tensor, count: int) -> Tensor:
    r"""Choose images whose mean feature comes close to the class mean (iCaRL's herding).

    The authors' form: :math:`w \leftarrow w + \mu - \bar f(x_{i})` with
    :math:`i = \arg\max_j \langle w, \bar f(x_j)\rangle`; an image that comes up again moves w but
    is ranked once. Fewer images are always a prefix of more.

    Args:
        features: (n, d) of one class; they are made unit vectors here.
        count: how many to choose, at most n.

    Returns:
        (count,) indices, best first.

    Raises:
        ValueError: ``count`` is more than n, or negative.

    >>> herding(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), 3).tolist()
    [1, 2, 0]
    """
    if not 0 <= count <= len(features):
        raise ValueError(f"cannot choose {count} of {len(features)} images")
    features = unit(features.cpu().double())  # (Apple's GPUs have no double precision)
    mean = features.mean(dim=0)
    direction, ranked = mean.clone(), []
    for _ in range(HERDING_STEPS):
        if len(ranked) == count:
            break
        best = int((features @ direction).argmax())
        if best not in ranked:
            ranked.append(best)
        direction = direction + mean - features[best]
    if len(ranked) < count:  # the search went in circles: complete it by similarity to the mean
        rest = (features @ mean).argsort(descending=True).tolist()
        ranked += [i for i in rest if i not in ranked][: count - len(ranked)]
    return torch.tensor(ranked, dtype=torch.long)


class Memory:
    """Exemplars: for every old class, indices of training images, best first.

    Args:
        per_class: how many to keep of each class.
        total: a fixed total instead, shared evenly by the classes seen.
        everything: keep all (joint training).
    """

    def __init__(
        self, per_class: int = 20, total: int | None = None, everything: bool = False
    ) -> None:
        self.per_class, self.total, self.everything = per_class, total, everything
        self.ranked: list[Tensor] = []  # a tensor of indices per class

    def quota(self, num_classes: int) -> int | None:
        """Exemplars per class when this many classes are kept; None: all."""
        if self.everything:
            return None
        return self.per_class if self.total is None else self.total // num_classes

    def add(self, indices: Tensor, features: Tensor | None, num_classes: int) -> None:
        """Rank one more class.

        Args:
            indices: (n,) of the class's training images.
            features: (n, d), in the same order; may be None if all are kept, or none.
            num_classes: how many classes will share the memory.
        """
        quota = self.quota(num_classes)
        if quota:
            self.ranked.append(indices[herding(features, min(quota, len(indices)))])
        else:
            self.ranked.append(indices[:quota])

    def trim(self) -> None:
        """Make room: keep each class's best, as many as its share allows."""
        quota = self.quota(max(1, len(self.ranked)))
        self.ranked = [indices[:quota] for indices in self.ranked]

    @property
    def indices(self) -> Tensor:
        """The indices of all exemplars, class by class."""
        return torch.cat(self.ranked) if self.ranked else torch.empty(0, dtype=torch.long)


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The mean of each class's unit features, made a unit vector: the prototypes of NME.

    Args:
        features: (n, d).
        labels: (n,) in 0..num_classes-1.

    Returns:
        (num_classes, d); a class without images has a zero row.
    """
    sums = features.new_zeros(num_classes, features.shape[1])
    return unit(sums.index_add_(0, labels, unit(features)))


def nearest_mean(features: Tensor, means: Tensor) -> Tensor:
    """NME prediction: the class whose mean is nearest to the feature, (n,).

    For unit means the nearest in Euclidean distance is the one with the highest cosine. A class
    without a mean (a zero row) is never predicted if another class has one.
    """
    cosines = cosine_similarity_matrix(features, means)
    return cosines.masked_fill(~means.any(dim=1), -torch.inf).argmax(dim=1)
