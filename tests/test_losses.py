"""Each loss against numbers worked out by hand and against a slow version in plain Python."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lucir_edu import losses

SEEDS = range(5)
# 3 old and 3 new classes
SCORES = [[0.6, 0.1, 0, 0.5, 0.3, -0.2], [0.2, 0.9, 0.1, 0.1, 0, 0.3], [0, 0, 0, 0.8, 0.1, 0.2]]
TARGETS = [0, 1, 3]


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


# ---- Slow, plain versions ---------------------------------------------------------------------


def plain_cosine(a, b):
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def plain_less_forget(features, old_features):
    pairs = list(zip(features, old_features, strict=True))
    return sum(1 - plain_cosine(a, b) for a, b in pairs) / len(pairs)


def plain_margin_ranking(scores, targets, num_old, top_k, margin, over_k):
    """``over_k`` is what becomes of the K hinges of an image: their sum or their mean."""
    total, count = 0.0, 0
    for row, target in zip(scores, targets, strict=True):
        if target < num_old:
            hardest = sorted(row[num_old:])[::-1][:top_k]
            hinges = [max(margin - row[target] + score, 0.0) for score in hardest]
            total += sum(hinges) if over_k == "sum" else sum(hinges) / top_k
            count += 1
    return total / count if count else 0.0


def plain_score_distillation(scores, teacher_scores):
    rows = zip(scores, teacher_scores, strict=True)
    total = sum(sum((a - b) ** 2 for a, b in zip(*row, strict=True)) for row in rows)
    return total / len(scores)


def plain_softmax(row, temperature):
    powers = [math.exp(z / temperature) for z in row]
    return [p / sum(powers) for p in powers]


def plain_distillation(logits, teacher_logits, temperature, weight):
    total = 0.0
    for row, teacher_row in zip(logits, teacher_logits, strict=True):
        student = plain_softmax(row, temperature)
        teacher = plain_softmax(teacher_row, temperature)
        total += sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))
    return weight * temperature**2 * total / len(logits)


# ---- Cosines ----------------------------------------------------------------------------------

X = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
W = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])


def test_cosines_of_the_worked_example():
    expected = torch.tensor([[0.6, 0.8, -0.6], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(losses.cosine_similarity_matrix(X, W), expected)


@pytest.mark.parametrize(
    ("eta", "expected"), [(1, (0.725289, 0.861995)), (10, (0.126929, 0.69317))]
)
def test_cross_entropy_of_scaled_cosines(eta, expected):
    logits = eta * losses.cosine_similarity_matrix(X.double(), W.double())
    each = F.cross_entropy(logits, torch.tensor([1, 0]), reduction="none")
    assert each.tolist() == pytest.approx(expected, abs=5e-7)


def test_cosines_do_not_depend_on_lengths():
    scaled = losses.cosine_similarity_matrix(
        X * torch.tensor([[7.0], [0.01]]), W * torch.tensor([[0.1], [30.0], [2.0]])
    )
    torch.testing.assert_close(scaled, losses.cosine_similarity_matrix(X, W))


@pytest.mark.parametrize("seed", SEEDS)
def test_cosines_equal_the_slow_version(seed):
    features, weight = random(5, 4, seed=seed), random(3, 4, seed=seed + 100)
    found = losses.cosine_similarity_matrix(features, weight).tolist()
    for row, f in zip(found, features.tolist(), strict=True):
        assert row == pytest.approx([plain_cosine(f, w) for w in weight.tolist()])


def test_zero_rows_give_zero_cosines_and_finite_gradients():
    features, weight = random(3, 4), random(2, 4, seed=1)
    features[1], weight[0] = 0, 0
    features.requires_grad_(), weight.requires_grad_()
    cosines = losses.cosine_similarity_matrix(features, weight)
    assert not cosines[1].any() and not cosines[:, 0].any()
    assert cosines[0, 1] != 0
    cosines.sum().backward()
    assert features.grad.isfinite().all() and weight.grad.isfinite().all()


def test_gradient_of_the_cosines():
    inputs = random(3, 4).requires_grad_(), random(2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(losses.cosine_similarity_matrix, inputs)


def test_unit_makes_rows_of_length_one():
    torch.testing.assert_close(
        losses.unit(random(4, 3)).norm(dim=1), torch.ones(4, dtype=torch.float64)
    )


# ---- Less-forget ------------------------------------------------------------------------------


def test_less_forget_of_the_worked_example():
    features, old = torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    assert losses.less_forget(features, old).item() == pytest.approx(0.5)
    each = [losses.less_forget(features[i : i + 1], old[i : i + 1]).item() for i in (0, 1)]
    assert each == pytest.approx([1, 0], abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_less_forget_equals_the_slow_version(seed):
    features, old = random(6, 5, seed=seed), random(6, 5, seed=seed + 100)
    expected = plain_less_forget(features.tolist(), old.tolist())
    assert losses.less_forget(features, old).item() == pytest.approx(expected)
    torch_has = F.cosine_embedding_loss(features, old, torch.ones(6))
    assert losses.less_forget(features, old).item() == pytest.approx(torch_has.item())


def test_less_forget_does_not_depend_on_lengths():
    features, old = random(4, 3), random(4, 3, seed=1)
    scaled = losses.less_forget(features * 9, old / 7)
    assert scaled.item() == pytest.approx(losses.less_forget(features, old).item())


def test_less_forget_lies_between_0_and_2():
    features = random(4, 3)
    assert losses.less_forget(features, 5 * features).item() == pytest.approx(0, abs=1e-12)
    assert losses.less_forget(features, -5 * features).item() == pytest.approx(2)


def test_less_forget_sends_no_gradient_to_the_teacher():
    features, old = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    losses.less_forget(features, old).backward()
    assert old.grad is None
    assert features.grad.abs().sum() > 0


def test_gradient_of_less_forget():
    old = random(3, 4, seed=1)
    assert torch.autograd.gradcheck(
        lambda features: losses.less_forget(features, old), random(3, 4).requires_grad_()
    )


def test_gradient_of_less_forget_derived_by_hand():
    # d(1 - u.t)/df = -(t - (u.t) u) / |f|, with u and t the unit vectors
    features = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    losses.less_forget(features, torch.tensor([[2.0, 0.0]])).backward()
    assert features.grad[0].tolist() == pytest.approx([-(1 - 0.36) / 5, 0.6 * 0.8 / 5])


def test_less_forget_of_a_zero_feature_is_one_with_a_finite_gradient():
    features = torch.zeros(1, 3, requires_grad=True)
    loss = losses.less_forget(features, torch.ones(1, 3))
    loss.backward()
    assert loss.item() == 1
    assert features.grad.isfinite().all()


# ---- Adaptive lambda --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_old", "num_new", "code", "paper"),
    [
        (50, 10, 11.1803, 2.2361),
        (90, 10, 15, 1.6667),
        (50, 5, 15.8114, 1.5811),
        (95, 5, 21.7945, 1.1471),
        (50, 2, 25, 1),
        (50, 50, 5, 5),
    ],
)
def test_lambda_is_old_over_new_in_the_code_and_new_over_old_in_the_paper(
    num_old, num_new, code, paper
):
    assert losses.adaptive_lambda(5, num_old, num_new) == pytest.approx(code, abs=5e-5)
    assert losses.adaptive_lambda(5, num_old, num_new, "code") == pytest.approx(code, abs=5e-5)
    assert losses.adaptive_lambda(5, num_old, num_new, "paper") == pytest.approx(paper, abs=5e-5)


@pytest.mark.parametrize(("num_old", "num_new"), [(0, 10), (10, 0), (-1, 5)])
def test_lambda_needs_old_and_new_classes(num_old, num_new):
    with pytest.raises(ValueError, match="old and new"):
        losses.adaptive_lambda(5, num_old, num_new)


def test_lambda_knows_two_rules():
    with pytest.raises(ValueError, match=r"rule.*'both'"):
        losses.adaptive_lambda(5, 50, 10, rule="both")


# ---- Margin ranking ---------------------------------------------------------------------------


def worked(scores=SCORES, **changes):
    arguments = {"num_old": 3, "top_k": 2, "margin": 0.5, **changes}
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return losses.margin_ranking(scores, torch.tensor(TARGETS), **arguments).item()


def test_margin_ranking_is_a_mean_over_k_in_the_code_and_a_sum_in_the_paper():
    assert worked() == pytest.approx(0.15)
    assert worked(reduction="code") == pytest.approx(0.15)
    assert worked(reduction="paper") == pytest.approx(0.30)


def test_margin_ranking_of_logits_would_be_zero():
    assert worked(10 * torch.tensor(SCORES)) == 0


def test_margin_ranking_has_new_classes_alone_for_negatives():
    scores = [list(row) for row in SCORES]
    scores[0][1] = 0.55  # an old class that looks like image 0
    assert worked(scores) == pytest.approx(0.15)  # over all other classes it would be 0.2125


def test_margin_ranking_looks_at_old_images_alone():
    scores = [list(row) for row in SCORES]
    scores[2] = [0.9, 0.9, 0.9, -1, 0.9, 0.9]  # an image of a new class, all wrong
    assert worked(scores) == pytest.approx(0.15)


def test_margin_ranking_without_an_old_image_is_zero_with_a_finite_gradient():
    cosines = random(4, 6).clamp(-1, 1).requires_grad_()
    loss = losses.margin_ranking(cosines, torch.tensor([3, 4, 5, 3]), num_old=3)
    loss.backward()
    assert loss.item() == 0
    assert cosines.grad.isfinite().all() and not cosines.grad.any()


@pytest.mark.parametrize("top_k", [0, 4])
def test_margin_ranking_needs_as_many_new_classes_as_hard_negatives(top_k):
    with pytest.raises(ValueError, match=f"top_k must be from 1 to the 3 new classes, not {top_k}"):
        worked(top_k=top_k)


def test_margin_ranking_knows_two_reductions():
    with pytest.raises(ValueError, match=r"reduction.*'mean'"):
        worked(reduction="mean")


@given(
    seed=st.integers(0, 10**6),
    num_old=st.integers(1, 4),
    num_new=st.integers(1, 4),
    images=st.integers(1, 6),
    margin=st.sampled_from([0.0, 0.2, 0.5, 1.5]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_margin_ranking_equals_the_slow_version(seed, num_old, num_new, images, margin, data):
    generator = torch.Generator().manual_seed(seed)
    cosines = 2 * torch.rand(images, num_old + num_new, generator=generator).double() - 1
    targets = torch.randint(num_old + num_new, (images,), generator=generator)
    top_k = data.draw(st.integers(1, num_new))
    for reduction, over_k in (("code", "mean"), ("paper", "sum")):
        found = losses.margin_ranking(cosines, targets, num_old, top_k, margin, reduction).item()
        expected = plain_margin_ranking(
            cosines.tolist(), targets.tolist(), num_old, top_k, margin, over_k
        )
        assert found == pytest.approx(expected, abs=1e-12)


def test_gradient_of_margin_ranking():
    cosines = torch.tensor(SCORES, dtype=torch.float64, requires_grad=True)
    for reduction in ("code", "paper"):
        assert torch.autograd.gradcheck(
            lambda c, r=reduction: losses.margin_ranking(c, torch.tensor(TARGETS), 3, reduction=r),
            cosines,
        )


def test_gradient_of_margin_ranking_derived_by_hand():
    # Two old images; the first violates the margin with classes 3 and 4, the second not at all.
    cosines = torch.tensor(SCORES, requires_grad=True)
    losses.margin_ranking(cosines, torch.tensor(TARGETS), 3, reduction="paper").backward()
    assert cosines.grad.tolist() == [[-1, 0, 0, 0.5, 0.5, 0], [0] * 6, [0] * 6]


# ---- Score distillation -----------------------------------------------------------------------


def test_score_distillation_of_the_worked_example():
    scores, teacher = [[0.6, 0.1, 0.0], [0.2, 0.9, 0.1]], [[0.5, 0.1, 0.2], [0.2, 0.7, 0.1]]
    loss = losses.score_distillation(torch.tensor(scores), torch.tensor(teacher))
    assert loss.item() == pytest.approx(0.045)


@pytest.mark.parametrize("seed", SEEDS)
def test_score_distillation_equals_the_slow_version(seed):
    scores, teacher = random(5, 3, seed=seed), random(5, 3, seed=seed + 100)
    expected = plain_score_distillation(scores.tolist(), teacher.tolist())
    assert losses.score_distillation(scores, teacher).item() == pytest.approx(expected)


def test_gradient_of_score_distillation_derived_by_hand_and_none_for_the_teacher():
    scores, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    losses.score_distillation(scores, teacher).backward()
    assert teacher.grad is None
    torch.testing.assert_close(scores.grad, 2 * (scores - teacher).detach() / 4)


# ---- Distillation -----------------------------------------------------------------------------


def test_distillation_of_the_worked_example_is_tanh_of_a_half():
    logits, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    loss = losses.distillation(logits, teacher, temperature=2, weight=0.25).item()
    assert loss == pytest.approx(0.462117, abs=5e-7)
    assert loss == pytest.approx(math.tanh(0.5))
    # The authors' form: the mean over images and classes, times the old classes
    divergence = F.kl_div((logits / 2).log_softmax(1), (teacher / 2).softmax(1), reduction="none")
    assert loss == pytest.approx((divergence.mean() * 2**2 * 0.25 * 2).item())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("temperature", "weight"), [(2.0, 0.25), (1.0, 1.0), (3.5, 0.7)])
def test_distillation_equals_the_slow_version(seed, temperature, weight):
    logits, teacher = random(5, 3, seed=seed), random(5, 3, seed=seed + 100)
    expected = plain_distillation(logits.tolist(), teacher.tolist(), temperature, weight)
    found = losses.distillation(logits, teacher, temperature, weight).item()
    assert found == pytest.approx(expected)


def test_gradient_of_distillation_derived_by_hand_and_none_for_the_teacher():
    logits, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    losses.distillation(logits, teacher, temperature=3.0, weight=0.5).backward()
    assert teacher.grad is None
    difference = (logits / 3).softmax(1) - (teacher / 3).softmax(1)
    torch.testing.assert_close(logits.grad, (0.5 * 3 * difference / 4).detach())


def test_distillation_of_huge_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = losses.distillation(logits, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


# ---- Form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_scalars_of_the_type_that_came_in(dtype):
    a, b = random(4, 5).to(dtype), random(4, 5, seed=1).to(dtype)
    for loss in (
        losses.less_forget(a, b),
        losses.margin_ranking(a, torch.tensor([0, 1, 2, 3]), num_old=3),
        losses.score_distillation(a, b),
        losses.distillation(a, b),
    ):
        assert loss.shape == () and loss.dtype == dtype
