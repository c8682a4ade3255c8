"""The paper's losses: one pure function per equation, each a differentiable scalar tensor.

Shapes: n images, d features, C classes seen, C_o old classes. ``features`` is (n, d),
``cosines`` is (n, C): the scores before the scale eta. Where the paper and the authors' code
differ, an argument chooses, and its default is what the authors' code does.

Tensors that are compared must have the same shape; that is not checked. The mean over no images is
NaN, except for margin ranking, which is 0 without an old image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """Rows divided by their Euclidean norm, the bar of the paper; a zero row stays zero.

    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1)


def cosine_similarity_matrix(features: Tensor, weight: Tensor) -> Tensor:
    r"""Cosine of every feature with every class embedding,
    :math:`\langle\bar\theta_i, \bar f(x)\rangle` of Eq. 4.

    Args:
        features: (n, d).
        weight: (C, d), a class embedding per row.

    Returns:
        (n, C), in [-1, 1] up to rounding; a zero row on either side gives 0.

    >>> cosine_similarity_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return unit(features) @ unit(weight).T


def less_forget(features: Tensor, old_features: Tensor) -> Tensor:
    r"""Less-forget constraint, :math:`L^G_{dis} = 1 - \langle\bar f^*(x), \bar f(x)\rangle`
    (Eq. 6), the mean over all images of the batch, old and new.

    Args:
        features: (n, d), of the model that learns.
        old_features: (n, d), of the teacher; no gradient flows into it.

    Returns:
        A scalar in [0, 2], up to rounding.

    >>> less_forget(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [6.0, 8.0]]))
    tensor(0.5000)
    """
    return (1 - (unit(features) * unit(old_features.detach())).sum(dim=1)).mean()


def adaptive_lambda(base: float, num_old: int, num_new: int, rule: str = "code") -> float:
    r"""Weight of the less-forget constraint, Eq. 7.

    The paper prints :math:`\lambda = \lambda_{base}\sqrt{|C_n|/|C_o|}`; the authors' code
    computes :math:`\lambda_{base}\sqrt{|C_o|/|C_n|}`, which grows as classes accumulate.

    Args:
        base: lambda_base.
        num_old, num_new: classes before this phase, and new in it; at least 1 each.
        rule: "code" or "paper".

    Raises:
        ValueError: there are no old or no new classes, or there is no such rule.

    >>> round(adaptive_lambda(5, 50, 10), 4), round(adaptive_lambda(5, 50, 10, rule="paper"), 4)
    (11.1803, 2.2361)
    """
    if num_old < 1 or num_new < 1:
        raise ValueError(f"lambda needs old and new classes, not {num_old} and {num_new}")
    ratios = {"code": num_old / num_new, "paper": num_new / num_old}
    return base * math.sqrt(_choose(ratios, rule=rule))


def margin_ranking(
    cosines: Tensor,
    targets: Tensor,
    num_old: int,
    top_k: int = 2,
    margin: float = 0.5,
    reduction: str = "code",
) -> Tensor:
    r"""Margin ranking loss for inter-class separation,
    :math:`L_{mr} = \sum_{k=1}^{K}\max(m - \langle\bar\theta(x), \bar f(x)\rangle
    + \langle\bar\theta^k, \bar f(x)\rangle, 0)` (Eq. 8),
    the mean over the images of *old* classes; the hard negatives :math:`\bar\theta^k` are the
    K *new* classes most like the image. Scores are cosines, before the scale eta.

    Args:
        cosines: (n, C), old classes first.
        targets: (n,), labels in 0..C-1.
        num_old: old classes; the loss is 0 when no target is below it.
        top_k: K; at most the number of new classes.
        margin: m.
        reduction: "paper" sums over K, "code" takes the mean over K.

    Returns:
        A scalar, 0 or more.

    Raises:
        ValueError: ``top_k`` is not from 1 to the new classes, or there is no such reduction.

    >>> cosines = torch.tensor([[0.6, 0.1, 0.0, 0.5, 0.3, -0.2], [0.2, 0.9, 0.1, 0.1, 0.0, 0.3]])
    >>> margin_ranking(cosines, torch.tensor([0, 1]), num_old=3)
    tensor(0.1500)
    """
    num_new = cosines.shape[1] - num_old
    if not 1 <= top_k <= num_new:
        raise ValueError(f"top_k must be from 1 to the {num_new} new classes, not {top_k}")
    truth = cosines.gather(1, targets[:, None])  # (n, 1)
    hardest = cosines[:, num_old:].topk(top_k, dim=1).values  # (n, K)
    hinges = (margin - truth + hardest).clamp(min=0)  # (n, K)
    variants = {"code": hinges.mean(dim=1), "paper": hinges.sum(dim=1)}
    per_image = _choose(variants, reduction=reduction)  # (n,)
    # A mask instead of a selection: no wait for the device, and no old image gives 0, not NaN.
    is_old = (targets < num_old).to(cosines.dtype)
    return (per_image * is_old).sum() / is_old.sum().clamp(min=1)


def score_distillation(cosines_old: Tensor, teacher_cosines: Tensor) -> Tensor:
    r"""Distillation of the scores before the softmax, :math:`L^C_{dis} = \sum_{i=1}^{|C_o|}
    \|\langle\bar\theta_i, \bar f(x)\rangle - \langle\bar\theta^*_i, \bar f^*(x)\rangle\|` (Eq. 5),
    with the square of the authors' code: the mean over images of the sum of squares.

    Args:
        cosines_old: (n, C_o), of the old classes.
        teacher_cosines: (n, C_o); no gradient flows into it.

    >>> score_distillation(torch.tensor([[0.6, 0.1]]), torch.tensor([[0.5, 0.1]]))
    tensor(0.0100)
    """
    return (cosines_old - teacher_cosines.detach()).square().sum(dim=1).mean()


def distillation(
    logits_old: Tensor, teacher_logits: Tensor, temperature: float = 2.0, weight: float = 0.25
) -> Tensor:
    r"""Distillation of the softened probabilities,
    :math:`\beta T^2\,\mathrm{KL}(p^*_T \| p_T)`, the mean over images: that of the authors' iCaRL
    baseline (iCaRL itself distils sigmoids).

    Args:
        logits_old: (n, C_o), of the old classes.
        teacher_logits: (n, C_o); no gradient flows into it.
        temperature: T.
        weight: beta.
    """
    student = F.log_softmax(logits_old / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return weight * temperature**2 * divergence


def _choose(variants: dict, **argument: str):  # noqa: ANN202
    ((name, choice),) = argument.items()
    if choice not in variants:
        raise ValueError(f'{name} must be "code" or "paper", not {choice!r}')
    return variants[choice]
