"""The training loop: against the equations written out, and what may and may not change in it."""

import copy
import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lucir_edu import hardware, loader, losses, memory, stream, trainer
from lucir_edu.config import Config, UsageError
from lucir_edu.model import CosineHead, IncrementalModel, LinearHead, Output, imprint
from lucir_edu.trainer import (
    EpochEnd,
    Learner,
    Pause,
    PhaseEnd,
    PhaseStart,
    State,
    StepEnd,
    train,
)

CPU = torch.device("cpu")
COMBINATIONS = list(itertools.product([False, True], repeat=3))


class Snapshot(NamedTuple):
    """What is left of a phase."""

    measurement: trainer.Measurement
    weights: dict[str, Tensor]
    exemplars: list[Tensor]
    plane: Tensor


def learn(config, dataset, start=None):
    """A whole run; a snapshot per phase."""
    return [
        Snapshot(e.measurement, copied(e.model), [i.clone() for i in e.memory.ranked], e.plane)
        for e in train(config, dataset, device="cpu", start=start)
        if isinstance(e, PhaseEnd)
    ]


def copied(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(weights, others):
    return weights.keys() == others.keys() and all(
        torch.equal(weights[name], others[name]) for name in weights
    )


def learner_after_base(config, dataset):
    learner = Learner(config, dataset, CPU)
    list(learner.learn(learner.stream.phases[0]))
    return learner


@pytest.fixture
def steps(monkeypatch):
    """Records (output, targets, teacher's output, terms) of every training step."""
    seen, objective = [], trainer.objective

    def spy(config, output, targets, old, num_old):
        terms = objective(config, output, targets, old, num_old)
        seen.append((output, targets, old, terms))
        return terms

    monkeypatch.setattr(trainer, "objective", spy)
    return seen


@pytest.fixture
def teachers(monkeypatch):
    """Records (teacher, its weights when it was made)."""
    made, original = [], IncrementalModel.teacher

    def spy(self):
        teacher = original(self)
        made.append((teacher, copied(teacher)))
        return teacher

    monkeypatch.setattr(IncrementalModel, "teacher", spy)
    return made


@pytest.fixture
def rates(monkeypatch):
    """Records the rate that the optimiser itself has at every step."""
    seen, step = [], hardware.SGD.step

    def spy(self, *arguments):
        (group,) = self.param_groups
        seen.append(group["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(hardware.SGD, "step", spy)
    return seen


# ---- The objective ----------------------------------------------------------------------------

# 3 old and 3 new classes; worked out in test_losses
SCORES = [[0.6, 0.1, 0, 0.5, 0.3, -0.2], [0.2, 0.9, 0.1, 0.1, 0, 0.3], [0, 0, 0, 0.8, 0.1, 0.2]]
TARGETS = torch.tensor([0, 1, 3])
ONLY = {"cosine": True, "less_forget": False, "margin_ranking": False}


def output_of(scores, eta=10.0, features=None):
    scores = torch.tensor(scores, dtype=torch.float64)
    features = torch.ones(len(scores), 2) if features is None else features
    return Output(features, scores, eta * scores)


def test_margin_ranking_uses_cosines_not_logits():
    config = Config(**{**ONLY, "margin_ranking": True})
    terms = trainer.objective(config, output_of(SCORES, eta=10), TARGETS, None, 3)
    assert terms["margin_ranking"].item() == pytest.approx(0.15)
    paper = Config(**{**ONLY, "margin_ranking": True, "margin_reduction": "paper"})
    terms = trainer.objective(paper, output_of(SCORES, eta=10), TARGETS, None, 3)
    assert terms["margin_ranking"].item() == pytest.approx(0.30)


def test_score_distillation_compares_cosines_whatever_the_teachers_eta():
    config = Config(**ONLY, score_distillation=True)
    student = output_of([[0.6, 0.1, 0.0, 0.9], [0.2, 0.9, 0.1, 0.9]], eta=10)
    teacher = output_of([[0.5, 0.1, 0.2], [0.2, 0.7, 0.1]], eta=4)
    terms = trainer.objective(config, student, torch.tensor([0, 3]), teacher, 3)
    assert terms["score_distillation"].item() == pytest.approx(0.045)


def test_distillation_compares_the_logits_of_old_classes():
    config = Config(**ONLY, distillation=True)
    student, teacher = output_of([[2.0, 0.0, 9.0]], eta=1), output_of([[0.0, 2.0]], eta=1)
    terms = trainer.objective(config, student, torch.tensor([2]), teacher, 2)
    assert terms["distillation"].item() == pytest.approx(0.462117, abs=5e-7)


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({}, 5 * math.sqrt(3 / 2)),
        ({"lambda_rule": "paper"}, 5 * math.sqrt(2 / 3)),
        ({"adaptive_lambda": False}, 5),
        ({"lambda_base": 2.0}, 2 * math.sqrt(3 / 2)),
    ],
)
def test_less_forget_has_the_weight_lambda_and_looks_at_all_images(changes, factor):
    config = Config(**{**ONLY, "less_forget": True, **changes})
    features = torch.tensor([[1.0, 0.0], [3.0, 4.0]])  # of an old and of a new class
    old = output_of([[0.0] * 3] * 2, features=torch.tensor([[0.0, 2.0], [6.0, 8.0]]))
    output = output_of([[0.0] * 5] * 2, features=features)
    terms = trainer.objective(config, output, torch.tensor([0, 4]), old, 3)
    assert terms["less_forget"].item() == pytest.approx(0.5 * factor)


def test_the_base_phase_has_cross_entropy_alone():
    config = Config(score_distillation=True, distillation=True)
    terms = trainer.objective(config, output_of(SCORES), TARGETS, None, 0)
    assert list(terms) == ["cross_entropy"]


def test_another_objective_is_minimised_in_its_place(make_config, dataset):
    config, asked = make_config(cosine=False, less_forget=False, margin_ranking=False), []

    def flat(config, output, targets, old, num_old):
        asked.append((num_old, old))
        return {"nothing": 0 * output.logits.sum()}

    config = dataclasses.replace(config, weight_decay=0.0)
    events = list(train(config, dataset, device="cpu", objective=flat))
    ends = [event for event in events if isinstance(event, PhaseEnd)]
    steps = [event for event in events if isinstance(event, StepEnd)]
    assert {num_old for num_old, _ in asked} == {0, 6, 9} and len(asked) == len(steps)
    assert all(list(step.losses) == ["nothing"] for step in steps)
    fresh = Learner(config, dataset, CPU).net.head.weight
    assert torch.equal(ends[0].model.head.weight[:6], fresh), "something else was minimised"


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (lambda loss: loss.mean(), "terms by name, as {'cross_entropy': …}, not Tensor"),
        (lambda loss: {}, "not an empty dict"),
        (lambda loss: {"mine": loss}, r"term mine must be a scalar tensor, not a tensor of shape "),
        (lambda loss: {1: loss.mean()}, "terms are named by text, not 1"),
        (lambda loss: {"mine": 1.0}, "term mine must be a scalar tensor, not float"),
    ],
)
def test_an_objective_that_returns_something_else_is_told(terms, says, make_config, dataset):
    def mine(config, output, targets, old, num_old):
        return terms(F.cross_entropy(output.logits, targets, reduction="none"))

    with pytest.raises(UsageError) as told:
        list(train(make_config(), dataset, device="cpu", objective=mine))
    assert says in str(told.value)


@pytest.mark.parametrize("when", ["always", "while the head alone is tuned"])
def test_an_objective_without_anything_to_learn_is_told(when, make_config, dataset):
    def mine(config, output, targets, old, num_old):
        return {"mine": output.features.square().mean() if when != "always" else torch.ones(())}

    with pytest.raises(UsageError, match=r"no term of the objective \(mine\) depends on what"):
        for event in train(
            make_config(balanced_finetune=True), dataset, device="cpu", objective=mine
        ):
            last = event
    assert when == "always" or (last.phase, last.epoch) == (1, 2)


def test_an_objective_s_terms_are_brought_to_the_device(make_config, dataset):
    """A constant such as torch.tensor(0.0) is made on the CPU wherever the network is."""
    moved = []

    class Elsewhere(Tensor):
        def to(self, device):
            moved.append(device)
            return super().to(device)

    def mine(config, output, targets, old, num_old):
        elsewhere = torch.zeros(()).as_subclass(Elsewhere)
        return {"mine": F.cross_entropy(output.logits, targets), "constant": elsewhere}

    steps = [e for e in train(make_config(), dataset, device="cpu", objective=mine)
             if isinstance(e, StepEnd)]  # fmt: skip
    assert moved == [CPU] * len(steps)


def test_every_phase_has_random_numbers_of_its_own(make_config, dataset, monkeypatch):
    """Phases of equal size take their batches in another order, and tuning in another still; the
    rows of new classes are other ones too."""
    orders, rows = [], []
    augmented, grow = loader.TensorLoader.augmented, LinearHead.grow

    def spy(self, indices, batch_size, generator):
        orders.append(torch.randperm(100, generator=generator.clone_state()))
        return augmented(self, indices, batch_size, generator)

    def grown(self, count, weight=None):
        grow(self, count, weight)
        rows.append(self.new_weight.detach().clone())

    monkeypatch.setattr(loader.TensorLoader, "augmented", spy)
    monkeypatch.setattr(LinearHead, "grow", grown)
    off = {"cosine": False, "less_forget": False, "margin_ranking": False}
    config = make_config(epochs=1, balanced_finetune=True, balanced_epochs=1, **off)
    list(train(config, dataset, device="cpu"))
    assert len(orders) == 5 and len(rows) == 2  # three phases, two of them tuned as well
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(orders, 2))
    assert not torch.equal(*rows)


def after_phase(number, config, dataset):
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, PhaseEnd) and event.measurement.phase == number:
            exemplars = [indices.clone() for indices in event.memory.ranked]
            return State(number, copied(event.model), exemplars, event.plane.clone())


SHORT = {"memory_total": 12, "epochs": 1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"phase": -1}, "a start after phase -1; the phases are 0 to 2"),
        ({"phase": 3}, "a start after phase 3; the phases are 0 to 2"),
        ({"exemplars": lambda e: e[:2]}, "exemplars of other images"),
        ({"exemplars": lambda e: e[::-1]}, "exemplars of other images"),
        ({"exemplars": lambda e: [e[0] + 10**6, *e[1:]]}, "exemplars of other images"),
        ({"plane": lambda plane: plane[:, :-1]}, "a plane that does not fit the features"),
    ],
)
def test_a_start_that_does_not_fit_is_told(wrong, says, make_config, dataset):
    config = make_config(**SHORT)
    state = after_phase(0, config, dataset)
    ((name, change),) = wrong.items()
    value = change(getattr(state, name)) if callable(change) else change
    with pytest.raises(UsageError, match=says):
        list(
            train(config, dataset, device="cpu", start=dataclasses.replace(state, **{name: value}))
        )


def test_a_start_with_more_exemplars_than_there_is_room_for(make_config, dataset):
    state = after_phase(0, make_config(epochs=1, exemplars_per_class=5), dataset)
    assert sum(map(len, state.exemplars)) == 30
    for event in train(make_config(**SHORT), dataset, device="cpu", start=state):
        if isinstance(event, PhaseStart):
            break
    assert event.phase == 1 and event.images_old == 12


@pytest.mark.parametrize("wrong", [{"phase": 1}, {"epoch": 3}])
def test_a_midway_that_does_not_fit_is_told(wrong, make_config, dataset):
    for event in train(make_config(), dataset, device="cpu"):
        if isinstance(event, EpochEnd):
            break
    midway = dataclasses.replace(event.midway(), **wrong)
    with pytest.raises(UsageError, match="here phase 0 is next, and has 2 epochs"):
        list(train(make_config(), dataset, device="cpu", midway=midway))


def test_a_phase_of_one_image_is_told(make_dataset, make_config):
    one = make_dataset(train=1)
    config = make_config(base_classes=11, increment=1, top_k=1, exemplars_per_class=0)
    with pytest.raises(UsageError, match="phase 1 has a single training image"):
        list(train(config, one, device="cpu"))


@pytest.mark.parametrize("when", ["step", "epoch"])
def test_an_objective_whose_terms_come_and_go_is_told(when, make_config, dataset):
    count = 0

    def mine(config, output, targets, old, num_old):
        nonlocal count
        count += 1
        now = count == 2 if when == "step" else count > 3  # three steps an epoch
        terms = {"mine": F.cross_entropy(output.logits, targets)}
        return {**terms, "rare": terms["mine"]} if now else terms

    with pytest.raises(UsageError) as told:
        list(train(make_config(), dataset, device="cpu", objective=mine))
    assert "same terms at every step of a phase, not mine, rare after mine" in str(told.value)
    assert count == (2 if when == "step" else 4)


def test_weights_changed_at_the_end_of_the_last_epoch_are_those_that_are_judged(
    make_config, dataset
):
    config = make_config(cosine=False, less_forget=False, margin_ranking=False)
    judged = []
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, EpochEnd) and event.phase and event.epoch == config.epochs:
            with torch.no_grad():
                rows = event.model.head.new_weight
                rows *= 5 / rows.norm(dim=1, keepdim=True)
        if isinstance(event, PhaseEnd) and event.measurement.phase:
            judged.append(event.measurement)
    assert [measurement.weight_norm_new for measurement in judged] == pytest.approx([5, 5])


def test_a_frozen_network_only_imprints_new_classes(make_config, dataset):
    off = {"less_forget": False, "margin_ranking": False}
    events = train(make_config(frozen_network=True, **off), dataset, device="cpu")
    plan = stream.make(make_config(), dataset)
    images, weights, old_rows, ends = plan.dataset.train, None, None, []
    for event in events:
        if isinstance(event, PhaseStart) and event.phase:
            assert (event.epochs, event.steps) == (0, 0)
        assert not (isinstance(event, StepEnd | EpochEnd) and event.phase)
        if isinstance(event, PhaseEnd):
            ends.append(event)
            state = {name: tensor.clone() for name, tensor in event.model.state_dict().items()}
            rows = event.model.head.weight.detach().clone()
            if weights is not None:
                phase = plan.phases[event.measurement.phase]
                assert all(
                    torch.equal(tensor, state[name])
                    for name, tensor in weights.items()
                    if name.startswith("backbone")
                )
                assert torch.equal(rows[: phase.num_old], old_rows)
                for label in range(phase.num_old, phase.num_seen):  # Qi et al.'s imprinting
                    x = images.images[images.labels == label].float() / 255
                    shape = (1, -1, 1, 1)
                    mean, std = (torch.tensor(v).view(shape) for v in (dataset.mean, dataset.std))
                    with torch.no_grad():
                        features = trainer.evaluate(event.model, (x - mean) / std).features
                    direction = sum(feature / feature.norm() for feature in features)
                    expected = direction / direction.norm() * old_rows.norm(dim=1).mean()
                    assert torch.allclose(rows[label], expected, atol=1e-5)
            weights, old_rows = state, rows
    assert len(ends) == 3 and ends[-1].measurement.losses == {}
    assert ends[-1].measurement.eta == ends[0].measurement.eta


# ---- A training step against the equations ----------------------------------------------------


class Double(nn.Module):
    def forward(self, x):
        return x.double().flatten(1)


def plain_loss(config, p, teacher, images, targets, num_old):
    """Eq. 9 written out, image by image, in float64. ``p`` and ``teacher`` are named tensors."""

    def forward(q, x):
        features = [q["backbone.1.weight"] @ row + q["backbone.1.bias"] for row in x]
        rows = [*q["head.old_weight"], *q["head.new_weight"]]
        cosines = [[f.dot(w) / (f.dot(f).sqrt() * w.dot(w).sqrt()) for w in rows] for f in features]
        if config.cosine:
            logits = [[q["head.eta"] * c for c in row] for row in cosines]
        else:
            biases = [*q["head.old_bias"], *q["head.new_bias"]]
            logits = [[f.dot(w) + b for w, b in zip(rows, biases, strict=True)] for f in features]
        return features, cosines, logits

    def softmax(row, temperature=1.0):
        powers = [(z / temperature).exp() for z in row]
        return [power / sum(powers) for power in powers]

    n, num_new = len(images), len(p["head.new_weight"])
    features, cosines, logits = forward(p, images)
    old_features, old_cosines, old_logits = forward(teacher, images)
    loss = sum(-softmax(logits[i])[targets[i]].log() for i in range(n)) / n  # Eq. 3
    if config.less_forget:  # Eq. 6 and 7
        weight = config.lambda_base
        if config.adaptive_lambda:
            code = config.lambda_rule == "code"
            weight *= math.sqrt(num_old / num_new if code else num_new / num_old)
        for f, g in zip(features, old_features, strict=True):
            loss = loss + weight * (1 - f.dot(g) / (f.dot(f) * g.dot(g)).sqrt()) / n
    if config.margin_ranking:  # Eq. 8
        old_images = [i for i in range(n) if targets[i] < num_old]
        for i in old_images:
            hardest = sorted(cosines[i][num_old:], key=Tensor.item, reverse=True)[: config.top_k]
            for negative in hardest:
                hinge = config.margin - cosines[i][targets[i]] + negative
                share = config.top_k if config.margin_reduction == "code" else 1
                if hinge > 0:
                    loss = loss + config.margin_weight * hinge / share / len(old_images)
    if config.score_distillation:  # Eq. 5, squared
        for i, j in itertools.product(range(n), range(num_old)):
            loss = loss + (cosines[i][j] - old_cosines[i][j]) ** 2 / n
    if config.distillation:
        t = config.temperature
        for i in range(n):
            new, old = softmax(logits[i][:num_old], t), softmax(old_logits[i], t)
            divergence = sum(a * (a / b).log() for a, b in zip(old, new, strict=True))
            loss = loss + config.distillation_weight * t**2 * divergence / n
    return loss


CASES = [
    dict(zip(("cosine", "less_forget", "margin_ranking"), on, strict=True)) for on in COMBINATIONS
]
CASES += [
    {**ONLY, "score_distillation": True},
    {**ONLY, "distillation": True},
    {**ONLY, "cosine": False, "distillation": True, "temperature": 3.0},
    {"lambda_rule": "paper"},
    {"margin_reduction": "paper"},
    {"adaptive_lambda": False, "lambda_base": 2.0},
    {"freeze_old_embeddings": False},
    {"less_forget": False, "freeze_old_embeddings": True},
    {"margin": 0.2, "margin_weight": 3.0, "top_k": 3},
    {**ONLY, "distillation": True, "distillation_weight": 2.0},
    {"momentum": 0.5},
    {"cosine": False, "less_forget": False, "score_distillation": True},
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "+".join(f"{k}={v}" for k, v in case.items())
)
def test_training_steps_equal_the_equations_written_out(make_config, dataset, monkeypatch, case):
    config = make_config(
        **case, base_classes=3, increment=3, epochs=1, batch_size=8, crop_padding=0,
        schedule="steps", milestones=(), warmup=0.0, lr=0.05, weight_decay=0.01,
        train_per_class=None,
    )  # fmt: skip
    torch.manual_seed(0)
    learner = Learner(config, dataset, CPU)
    head = (CosineHead if config.cosine else LinearHead)(5, 3)
    backbone = nn.Sequential(Double(), nn.Linear(192, 5))
    learner.net = net = IncrementalModel(backbone, head).double()
    if config.cosine:
        head.eta.data.fill_(3.0)
    teacher = net.teacher()
    for parameter in teacher.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    phase = learner.stream.phases[1]
    learner.grow(phase)
    start, labels = copied(net), learner.train_images.labels
    old, new = (labels < 3).nonzero()[:9, 0], phase.train[:15]

    batches, objective = [], trainer.objective
    backbone[1].register_forward_pre_hook(lambda module, x: batches.append([x[0]]))

    def spy(config, output, targets, *rest):
        batches[-1].append(targets.tolist())
        return objective(config, output, targets, *rest)

    monkeypatch.setattr(trainer, "objective", spy)
    list(learner.fit(phase, torch.cat([new, old]), teacher))
    assert len(batches) == 3
    assert all(any(y < 3 for y in targets) for _, targets in batches)

    p = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    learnt = [name for name in p if not (config.freezes_old and name.startswith("head.old"))]
    speed = {name: torch.zeros_like(p[name]) for name in learnt}
    for images, targets in batches:
        loss = plain_loss(config, p, copied(teacher), images, targets, 3)
        gradients = torch.autograd.grad(loss, [p[name] for name in learnt])
        with torch.no_grad():
            for name, gradient in zip(learnt, gradients, strict=True):
                speed[name] = config.momentum * speed[name] + gradient + 0.01 * p[name]
                p[name] -= 0.05 * speed[name]
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, p[name].detach(), rtol=1e-9, atol=1e-11, msg=name)
        if name in learnt:
            assert (tensor - start[name]).abs().max() > 1e-6


# ---- Switches ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cosine", "less_forget", "margin_ranking"), COMBINATIONS)
def test_every_combination_runs_and_has_exactly_its_terms(
    make_config, dataset, cosine, less_forget, margin_ranking
):
    config = make_config(
        cosine=cosine, less_forget=less_forget, margin_ranking=margin_ranking, epochs=1
    )
    expected = {"cross_entropy"}
    expected |= {"less_forget"} if less_forget else set()
    expected |= {"margin_ranking"} if margin_ranking else set()
    events = list(train(config, dataset, device="cpu"))
    for event in events:
        if isinstance(event, StepEnd | EpochEnd):
            assert set(event.losses) == (expected if event.phase else {"cross_entropy"})
            assert all(math.isfinite(value) for value in event.losses.values())
    head = events[-1].model.head
    assert type(head) is (CosineHead if cosine else LinearHead)
    assert events[-1].model.num_classes == 12


@pytest.mark.parametrize("switch", ["score_distillation", "distillation"])
def test_distilling_switches_bring_their_terms(make_config, dataset, switch):
    config = make_config(**ONLY, **{switch: True}, epochs=1)
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, EpochEnd) and event.phase:
            assert set(event.losses) == {"cross_entropy", switch}


def test_weights_of_zero_reproduce_the_cosine_run_exactly(make_config, dataset):
    cosine = make_config(less_forget=False, margin_ranking=False)
    zeros = make_config(lambda_base=0.0, margin_weight=0.0, freeze_old_embeddings=False)
    assert zeros.less_forget and zeros.margin_ranking
    for a, b in zip(learn(cosine, dataset), learn(zeros, dataset), strict=True):
        assert same(a.weights, b.weights)
        assert all(map(torch.equal, a.exemplars, b.exemplars))
        assert a.measurement.cnn == b.measurement.cnn


def test_margin_ranking_works_without_less_forget(make_config, dataset, teachers):
    alone = make_config(less_forget=False)
    off = make_config(less_forget=False, margin_ranking=False)
    a, b = learn(alone, dataset), learn(off, dataset)
    assert same(a[0].weights, b[0].weights)
    assert not same(a[1].weights, b[1].weights)
    assert not teachers  # it needs none


# ---- What learns and what does not ------------------------------------------------------------


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_later_phase_leaves_frozen_old_embeddings_as_they_are(
    make_config, dataset, cosine, frozen
):
    config = make_config(cosine=cosine, freeze_old_embeddings=frozen)
    learner = learner_after_base(config, dataset)
    events = learner.learn(learner.stream.phases[1])
    next(events)  # the head has grown
    before = copied(learner.net)
    list(events)
    after = learner.net.state_dict()
    old = {"head.old_weight"} | (set() if cosine else {"head.old_bias"})
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == set(after) - (old if frozen else set())


def test_embeddings_learnt_in_one_phase_are_frozen_in_the_next(config, dataset):
    base, middle, end = (s.weights for s in learn(config, dataset))
    assert torch.equal(middle["head.old_weight"], base["head.new_weight"])
    assert torch.equal(end["head.old_weight"][:6], base["head.new_weight"])
    assert torch.equal(end["head.old_weight"][6:], middle["head.new_weight"])


def test_the_teacher_is_the_previous_network_and_never_changes(config, dataset, teachers, steps):
    before = [s.weights for s in learn(config, dataset)]
    assert len(teachers) == 2
    for (teacher, weights), previous in zip(teachers, before, strict=False):
        assert same(weights, previous)
        assert same(copied(teacher), weights)  # statistics of batch normalisation included
        assert not any(module.training for module in teacher.modules())


def test_the_teacher_sees_the_same_images_in_evaluation_mode(config, dataset, teachers, steps):
    learner = learner_after_base(config, dataset)
    images = []
    learner.net.backbone.register_forward_pre_hook(
        lambda module, x: images.append(x[0]) if module.training else None
    )
    del steps[:]
    list(learner.learn(learner.stream.phases[1]))
    (teacher, _) = teachers[0]
    assert len(images) == len(steps) == 6
    for x, (output, targets, old, _) in zip(images, steps, strict=True):
        with torch.no_grad():
            expected = teacher(x)
        assert torch.equal(old.features, expected.features)
        assert old.logits.shape == (len(targets), 6)
        assert not old.features.requires_grad and output.features.requires_grad


@pytest.mark.parametrize("cosine", [True, False])
def test_logits_never_have_future_classes(make_config, dataset, steps, cosine):
    config = make_config(cosine=cosine)
    per_phase = [6, 6, 8]  # steps
    learn(config, dataset)
    seen = [n for n, count in zip((6, 9, 12), per_phase, strict=True) for _ in range(count)]
    assert len(steps) == len(seen)
    for (output, targets, _, _), n in zip(steps, seen, strict=True):
        assert output.logits.shape == output.cosines.shape == (len(targets), n)
        assert targets.max() < n


@pytest.mark.parametrize("cosine", [True, False])
def test_old_classes_logits_are_the_same_before_and_after_growing(make_config, dataset, cosine):
    learner = learner_after_base(make_config(cosine=cosine), dataset)
    phase = learner.stream.phases[0]
    before, _ = trainer.predict(learner.net, learner.test_images, phase.test)
    learner.grow(learner.stream.phases[1])
    after, _ = trainer.predict(learner.net, learner.test_images, phase.test)
    # To a last bit: a matrix product may sum in another order when it has more columns.
    torch.testing.assert_close(after.logits[:, :6], before.logits, rtol=1e-6, atol=1e-6)
    assert torch.equal(after.features, before.features)


def test_new_embeddings_are_imprinted_from_plain_images_by_the_network_in_evaluation(
    make_config, dataset
):
    learner = learner_after_base(make_config(crop_padding=2, flip=True), dataset)
    phase, data, net = learner.stream.phases[1], learner.stream.dataset, copy.deepcopy(learner.net)
    pixels = data.train.images[phase.train] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
    with torch.no_grad():
        features = net.eval()((pixels - mean) / std).features
    labels = data.train.labels[phase.train] - 6
    expected = imprint(features, labels, 3, net.head.weight)
    before = copied(learner.net)
    learner.grow(phase)
    torch.testing.assert_close(learner.net.head.new_weight.detach(), expected)
    after = learner.net.state_dict()
    assert same(*({k: v for k, v in w.items() if "backbone" in k} for w in (before, after)))


def test_without_imprint_new_embeddings_are_random(make_config, dataset):
    lengths = []
    for switch in (True, False):
        learner = learner_after_base(make_config(imprint=switch), dataset)
        old = learner.net.head.weight.norm(dim=1).mean().item()
        learner.grow(learner.stream.phases[1])
        lengths.append([x / old for x in learner.net.head.new_weight.norm(dim=1).tolist()])
    assert lengths[0] == pytest.approx([1, 1, 1])
    assert lengths[1] != pytest.approx([1, 1, 1], abs=0.01)


def test_balanced_finetune_tunes_the_head_alone_on_exemplars(make_config, dataset, steps, rates):
    config = make_config(balanced_finetune=True, balanced_epochs=4)
    learner = Learner(config, dataset, CPU)
    base = list(learner.learn(learner.stream.phases[0]))
    assert [e.epoch for e in base if isinstance(e, EpochEnd)] == [1, 2]  # none in the base phase
    events = learner.learn(learner.stream.phases[1])
    epochs = []
    while len(epochs) < 2:
        event = next(events)
        epochs += [event] if isinstance(event, EpochEnd) else []
    before = copied(learner.net)
    del steps[:], rates[:]
    learner.net.zero_grad()
    epochs = [event for event in events if isinstance(event, EpochEnd)]
    after = learner.net.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"head.old_weight", "head.new_weight"}
    assert all(p.grad is None for p in learner.net.backbone.parameters()), "needless work"
    assert [e.learning_rate for e in epochs] == pytest.approx([0.01, 0.01, 0.001, 0.001])
    assert rates == pytest.approx(4 * [0.01] + 4 * [0.001])  # two steps an epoch
    targets = torch.cat([targets for _, targets, _, _ in steps])
    assert targets.bincount().tolist() == [4 * 3] * 9


def test_a_look_inside_balanced_finetune_changes_nothing(make_config, dataset):
    config = make_config(balanced_finetune=True, balanced_epochs=2)
    (_, undisturbed, *_) = learn(config, dataset)
    learner = learner_after_base(config, dataset)
    images, _ = next(learner.test_images.plain(learner.stream.phases[0].test))
    for event in learner.learn(learner.stream.phases[1]):
        if isinstance(event, StepEnd):
            trainer.evaluate(learner.net, images)
    assert same(copied(learner.net), undisturbed.weights)


def test_balanced_finetune_leaves_frozen_what_was(make_config, dataset):
    learner = learner_after_base(make_config(balanced_finetune=True), dataset)
    learner.net.backbone.requires_grad_(False)
    before = copied(learner.net.backbone)
    for phase in learner.stream.phases[1:]:
        list(learner.learn(phase))
    weights = {name for name, _ in learner.net.backbone.named_parameters()}
    after = learner.net.backbone.state_dict()
    assert weights and all(torch.equal(after[name], before[name]) for name in weights)
    assert not any(p.requires_grad for p in learner.net.backbone.parameters())


def test_a_network_that_is_frozen_as_a_whole_is_told(make_config, dataset):
    learner = learner_after_base(make_config(), dataset)
    events = learner.learn(learner.stream.phases[1])
    next(events)
    learner.net.requires_grad_(False)
    with pytest.raises(UsageError, match="every parameter of the network is frozen"):
        list(events)


def test_a_failed_forward_pass_leaves_the_network_in_its_mode(make_config, dataset):
    net = learner_after_base(make_config(), dataset).net.train()
    with pytest.raises(RuntimeError):
        trainer.evaluate(net, torch.zeros(2, 1, 8, 8))
    assert all(module.training for module in net.modules())


def test_who_stops_inside_balanced_finetune_has_a_network_that_can_learn(make_config, dataset):
    learner = learner_after_base(make_config(balanced_finetune=True), dataset)
    events = learner.learn(learner.stream.phases[1])
    while not (isinstance(event := next(events), EpochEnd) and event.midway is None):
        pass
    assert not any(p.requires_grad for p in learner.net.backbone.parameters())
    events.close()
    assert all(p.requires_grad for p in learner.net.backbone.parameters())


def test_an_image_left_over_is_learnt_where_features_are_single_pixels(make_config, make_dataset):
    """Batch norm has nothing to learn from one image of one pixel."""
    dataset, config = make_dataset(size=4), make_config(batch_size=47, epochs=1)
    events = list(train(config, dataset, device="cpu"))  # 48 images in the base phase
    starts = [event for event in events if isinstance(event, PhaseStart)]
    assert starts[0].images_new == 48 and starts[0].steps == 1
    assert sum(isinstance(event, StepEnd) for event in events) == sum(e.steps for e in starts)


def test_gpus_random_numbers_are_left_alone(make_config, dataset, monkeypatch):
    """Only the CPU's are put back."""
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    learn(make_config(), dataset)
    assert not seeds
    torch.manual_seed(5)
    assert seeds == [5], "it would have been seen"


def test_balanced_finetune_leaves_the_next_phase_frozen_as_ever(make_config, dataset):
    config = make_config(balanced_finetune=True, balanced_epochs=1)
    learner = learner_after_base(config, dataset)
    list(learner.learn(learner.stream.phases[1]))
    events = learner.learn(learner.stream.phases[2])
    next(events)
    assert not learner.net.head.old_weight.requires_grad


# ---- Learning rate ----------------------------------------------------------------------------


def test_the_rate_drops_entering_epochs_80_and_120_of_160():
    config = Config(schedule="steps", warmup=0.0, epochs=160)
    steps_per_epoch = 3
    factors = [trainer.learning_rate(config, s, steps_per_epoch) for s in range(480)]
    assert factors[::3] == [1.0] * 80 + [0.1] * 40 + [0.01] * 40
    assert factors[::3] == factors[1::3] == factors[2::3]


def test_the_rate_drops_entering_epochs_30_and_60_of_90():
    config = Config(schedule="steps", warmup=0.0, epochs=90, milestones=(1 / 3, 2 / 3))
    assert [trainer.learning_rate(config, s, 1) for s in range(90)] == (
        [1.0] * 30 + [0.1] * 30 + [0.01] * 30
    )


def test_a_single_epoch_has_the_full_rate():
    for milestones in ((0.5, 0.75), (1 / 3, 2 / 3)):
        config = Config(schedule="steps", warmup=0.0, epochs=1, milestones=milestones)
        assert [trainer.learning_rate(config, s, 2) for s in range(2)] == [1.0, 1.0]


@pytest.mark.parametrize("warmup", [0.0, 0.15, 0.5])
def test_the_linear_rate_rises_and_then_falls_to_zero(warmup):
    config = Config(schedule="linear", warmup=warmup, epochs=10)
    factors = np.array([trainer.learning_rate(config, s, 20) for s in range(200)])
    top = int(factors.argmax())
    assert top == pytest.approx(200 * warmup, abs=1)
    assert (np.diff(factors[: top + 1]) > 0).all() and (np.diff(factors[top:]) < 0).all()
    assert factors.max() == pytest.approx(1, abs=0.02)
    assert 0 < factors[-1] < 0.02 and factors[0] <= (1 if not warmup else 0.04)


# Factors on lr where an epoch has three steps, as in the first two phases, and where it has four
DROPS = [n * [1, 1] + n * [0.1] + n * [0.01] for n in (3, 4)]
SLOPES = [
    [1 / 4, 2 / 4, 3 / 4, 3 / 3, 2 / 3, 1 / 3],
    [1 / 5, 2 / 5, 3 / 5, 4 / 5, 4 / 4, 3 / 4, 2 / 4, 1 / 4],
]


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({"schedule": "steps", "warmup": 0.0, "epochs": 4}, DROPS),
        ({"schedule": "linear", "warmup": 0.5, "epochs": 2}, SLOPES),
    ],
)
def test_the_optimiser_follows_the_schedule_in_every_phase(
    make_config, dataset, rates, changes, factors
):
    events = train(make_config(**changes, lr=0.05), dataset, device="cpu")
    told = [e.learning_rate for e in events if isinstance(e, EpochEnd)]
    three, four = factors
    assert rates == pytest.approx([0.05 * factor for factor in three + three + four])
    firsts = three[::3] + three[::3] + four[::4]
    assert told == pytest.approx([0.05 * factor for factor in firsts])


# ---- Events -----------------------------------------------------------------------------------


def test_events_come_in_order_with_the_right_counts(config, dataset):
    events = list(train(config, dataset, device="cpu"))
    at = iter(events)
    for phase, (num_old, num_new, old_images, per_epoch) in enumerate(
        [(0, 6, 0, 3), (6, 3, 18, 3), (9, 3, 27, 4)]
    ):
        start = next(at)
        assert start == PhaseStart(
            phase, 3, num_old, num_new, 8 * num_new, old_images, 2, 2 * per_epoch
        )
        step, means = 0, {}
        for epoch in (1, 2):
            sums = {}
            for _ in range(per_epoch):
                event, step = next(at), step + 1
                assert isinstance(event, StepEnd)
                assert (event.phase, event.epoch, event.step) == (phase, epoch, step)
                assert not any(loss.requires_grad for loss in event.losses.values())
                sums = {k: sums.get(k, 0) + v.item() for k, v in event.losses.items()}
            event = next(at)
            assert isinstance(event, EpochEnd) and (event.phase, event.epoch) == (phase, epoch)
            assert event.losses == pytest.approx({k: v / per_epoch for k, v in sums.items()})
            for name, mean in event.losses.items():
                means.setdefault(name, []).append(pytest.approx(mean, abs=1e-5))
        event = next(at)
        assert event == Pause(phase)  # the test images fit into one batch
        event = next(at)
        assert isinstance(event, PhaseEnd)
        assert event.measurement.phase == phase
        assert event.measurement.classes_seen == num_old + num_new
        assert event.measurement.exemplars == 3 * (num_old + num_new)
        assert event.measurement.seconds > 0 and event.measurement.losses == means
    assert list(at) == []


def test_training_accuracy_is_that_of_the_images_as_they_were_learnt(config, dataset, steps):
    right = total = epochs = 0
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, StepEnd):
            output, targets, _, _ = steps[-1]
            right += (output.logits.argmax(dim=1) == targets).sum().item()
            total += len(targets)
        elif isinstance(event, EpochEnd):
            assert event.train_accuracy == pytest.approx(100 * right / total)
            right, total, epochs = 0, 0, epochs + 1
    assert epochs == 6


def test_training_may_stop_at_any_event(config, dataset):
    events = train(config, dataset, device="cpu")
    assert [type(next(events)) for _ in range(3)] == [PhaseStart, StepEnd, StepEnd]
    events.close()
    assert next(events, None) is None


def test_a_phase_learns_new_images_and_exemplars_once_an_epoch(config, dataset, steps):
    learn(config, dataset)
    counts = [
        torch.cat([targets for _, targets, _, _ in steps[a:b]]).bincount().tolist()
        for a, b in ((0, 3), (3, 6), (6, 9), (12, 16))
    ]
    assert counts == [[8] * 6, [8] * 6, [3] * 6 + [8] * 3, [3] * 9 + [8] * 3]


# ---- Judging ----------------------------------------------------------------------------------


def normalised(dataset, images):
    mean, std = (torch.tensor(v)[:, None, None] for v in (dataset.mean, dataset.std))
    return (images / 255 - mean) / std


@torch.no_grad()
def features_and_predictions(net, images):
    net = copy.deepcopy(net).eval()
    features = net.backbone(images)
    return features, net.head(features).logits.argmax(dim=1)


@pytest.mark.parametrize("cosine", [True, False])
def test_a_phase_is_judged_on_the_pooled_test_images_of_all_classes_seen(
    make_config, dataset, cosine
):
    config, phases = make_config(cosine=cosine), 0
    for event in train(config, dataset, device="cpu"):
        if not isinstance(event, PhaseEnd):
            continue
        m, seen = event.measurement, event.measurement.classes_seen
        num_old = 0 if m.phase == 0 else seen - 3
        data = trainer.stream.make(config, dataset).dataset
        kept = data.test.labels < seen
        targets = data.test.labels[kept]
        images = normalised(data, data.test.images[kept])
        _, found = features_and_predictions(event.model, images)
        right = (found == targets).double()
        assert len(targets) == 5 * seen
        assert m.cnn == pytest.approx(100 * right.mean().item())
        assert m.cnn_new == pytest.approx(100 * right[targets >= num_old].mean().item())
        assert m.arrays["confusion_cnn"].sum(axis=1).tolist() == [5] * seen
        assert 100 * m.arrays["confusion_cnn"].trace() / len(targets) == pytest.approx(m.cnn)
        norms = event.model.head.weight.norm(dim=1).detach()
        assert m.arrays["weight_norms"] == pytest.approx(norms.numpy())
        assert m.weight_norm_new == pytest.approx(norms[num_old:].mean().item())
        embeddings = event.model.head.weight.detach().double().numpy()
        a, b = embeddings[0], embeddings[-1]
        angle = math.degrees(math.acos(a @ b / math.sqrt((a @ a) * (b @ b))))
        assert m.arrays["embedding_angles"].shape == (seen, seen)
        assert abs(int(m.arrays["embedding_angles"][0, -1]) - angle) <= 0.51
        assert not m.arrays["embedding_angles"].diagonal().any()
        event.model.eval()
        logits = event.model(images).logits.detach().double().numpy()
        assert m.arrays["mean_logits"] == pytest.approx(logits.mean(axis=0), abs=1e-5)
        assert m.arrays["logit_sds"] == pytest.approx(logits.std(axis=0), abs=1e-5)
        assert m.eta == (event.model.head.eta.item() if cosine else None)
        assert ("biases" in m.arrays) == (not cosine)
        if num_old:
            to_new = (found >= num_old).double()[targets < num_old]
            assert m.cnn_old == pytest.approx(100 * right[targets < num_old].mean().item())
            assert m.old_to_new == pytest.approx(100 * to_new.mean().item())
            assert m.weight_norm_old == pytest.approx(norms[:num_old].mean().item())
        else:
            assert (m.cnn_old, m.old_to_new, m.weight_norm_old) == (None, None, None)
        phases += 1
    assert phases == 3


def test_the_pooled_accuracy_is_not_the_mean_of_the_groups_accuracies(config, dataset):
    last = learn(config, dataset)[-1].measurement
    confusion = last.arrays["confusion_cnn"]
    groups = trainer.metrics.group_accuracies(confusion, [0, 6, 9, 12])
    assert last.cnn == pytest.approx(np.average(groups, weights=[6, 3, 3]))
    assert abs(last.cnn - groups.mean()) > 1


def test_positions_are_directions_of_features_on_the_plane_of_the_first_phase(config, dataset):
    data = trainer.stream.make(config, dataset).dataset
    centre = axes = None
    for event in train(config, dataset, device="cpu"):
        if not isinstance(event, PhaseEnd):
            continue
        seen = event.measurement.classes_seen
        rows = torch.cat([torch.nonzero(data.test.labels == c)[:3, 0] for c in range(seen)])
        images = normalised(data, data.test.images[rows])
        directions, _ = features_and_predictions(event.model, images)
        directions = (directions / directions.norm(dim=1, keepdim=True)).double().numpy()
        if centre is None:
            centre = directions.mean(axis=0)
            _, axes = np.linalg.eigh(np.cov((directions - centre).T))
            axes = axes[:, [-1, -2]]
        found = event.measurement.arrays["positions"].astype(float)
        assert found.shape == (seen, 3, 2)
        expected = ((directions - centre) @ axes).reshape(seen, 3, 2)
        signs = np.sign((found * expected).sum(axis=(0, 1)))  # an axis has two ends
        np.testing.assert_allclose(found, signs * expected, atol=2e-3)
        if event.measurement.phase == 0:
            ends = signs
        assert (signs == ends).all(), "the plane is turned over"


def test_an_axis_of_the_plane_points_where_its_largest_number_does():
    vectors = torch.tensor([[3.0, 1.0, 5.0], [-3.0, 1.0, 5.0], [0.0, 2.0, 5.0], [0.0, 0.0, 5.0]])
    assert trainer.principal_plane(vectors).tolist() == [[0, 1, 5], [1, 0, 0], [0, 1, 0]]
    assert trainer.principal_plane(vectors[:1]).isfinite().all(), "one vector has no directions"


def test_a_class_with_few_test_images_has_fewer_positions(make_config, make_dataset):
    snapshots = learn(make_config(epochs=1), make_dataset(test=2))
    found = snapshots[-1].measurement.arrays["positions"]
    assert np.isfinite(found[:, :2]).all() and np.isnan(found[:, 2]).all()


@pytest.mark.parametrize("flip", [False, True])
def test_nme_takes_the_nearest_mean_of_the_exemplars_and_of_their_mirror_images(
    make_config, dataset, flip
):
    config = make_config(flip=flip)
    data = trainer.stream.make(config, dataset).dataset
    for event in train(config, dataset, device="cpu"):
        if not isinstance(event, PhaseEnd):
            continue
        seen = event.measurement.classes_seen
        means = []
        for indices in event.memory.ranked:
            images = normalised(data, data.train.images[indices])
            views = [images, images.flip(3)] if flip else [images]
            units = [losses.unit(features_and_predictions(event.model, x)[0]) for x in views]
            means.append(losses.unit(torch.cat(units).mean(dim=0)))
        kept = data.test.labels < seen
        images = normalised(data, data.test.images[kept])
        features, _ = features_and_predictions(event.model, images)
        found = (features[:, None] - torch.stack(means)).norm(dim=2).argmin(dim=1)
        right = (found == data.test.labels[kept]).double()
        assert event.measurement.nme == pytest.approx(100 * right.mean().item())
        assert event.measurement.arrays["confusion_nme"].sum() == 5 * seen


def test_judging_leaves_the_network_as_it_was(config, dataset):
    learner = learner_after_base(config, dataset)
    for mode in (True, False):
        learner.net.train(mode)
        before = copied(learner.net)
        for _ in learner.measure(learner.stream.phases[0]):
            assert learner.net.training is mode
        assert learner.net.training is mode and same(copied(learner.net), before)


# ---- Memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kept"), [({"joint": True}, 8), ({"exemplars_per_class": 0}, 0)]
)
def test_where_there_is_nothing_to_choose_no_image_is_looked_at(
    make_config, dataset, monkeypatch, changes, kept
):
    learner = Learner(make_config(**changes), dataset, CPU)
    monkeypatch.setattr(learner, "embed", None)
    learner.choose_exemplars(learner.stream.phases[0])
    assert [len(indices) for indices in learner.memory.ranked] == [kept] * 6


def test_exemplars_are_the_herd_of_plain_images_seen_by_the_finished_network(config, dataset):
    data = trainer.stream.make(config, dataset).dataset
    known = 0
    for event in train(config, dataset, device="cpu"):
        if isinstance(event, PhaseEnd):
            for label in range(known, event.measurement.classes_seen):
                indices = (data.train.labels == label).nonzero()[:, 0]
                images = normalised(data, data.train.images[indices])
                features, _ = features_and_predictions(event.model, images)
                expected = indices[memory.herding(features, 3)]
                assert torch.equal(event.memory.ranked[label], expected)
            known = event.measurement.classes_seen
    assert known == 12


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"exemplars_per_class": 3}, [3, 3, 3]),
        ({"memory_total": 40}, [6, 4, 3]),
        ({"exemplars_per_class": 20}, [8, 8, 8]),
        ({"joint": True}, [8, 8, 8]),
        ({"exemplars_per_class": 0}, [0, 0, 0]),
    ],
)
def test_the_memory_has_its_share_of_each_class_and_no_duplicates(
    make_config, dataset, changes, each
):
    config = make_config(**changes, epochs=1)
    labels = trainer.stream.make(config, dataset).dataset.train.labels
    previous = []
    for snapshot, classes, share in zip(learn(config, dataset), (6, 9, 12), each, strict=True):
        found = torch.cat([torch.empty(0, dtype=torch.long), *snapshot.exemplars])
        assert len(found.unique()) == len(found) == snapshot.measurement.exemplars
        assert labels[found].bincount(minlength=classes).tolist() == [share] * classes
        for label, indices in enumerate(snapshot.exemplars):
            assert (labels[indices] == label).all()
        for before, now in zip(previous, snapshot.exemplars, strict=False):
            assert torch.equal(now, before[: len(now)])  # a prefix of what it was
        assert (snapshot.measurement.nme is None) == (share == 0)
        previous = snapshot.exemplars


# ---- Again ------------------------------------------------------------------------------------

VARIANTS = [
    {},
    {"cosine": False, "distillation": True},
    {"memory_total": 30, "flip": True, "balanced_finetune": True, "balanced_epochs": 1},
    {"exemplars_per_class": 0, "less_forget": False},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("phase", [0, 1])
def test_going_on_from_a_state_gives_the_same_bits(make_config, dataset, changes, phase):
    config = make_config(**changes)
    whole = learn(config, dataset)
    state = State(phase, whole[phase].weights, whole[phase].exemplars, whole[phase].plane)
    again = learn(config, dataset, start=state)
    for a, b in zip(whole[phase:], again, strict=True):
        assert same(a.weights, b.weights)
        assert all(map(torch.equal, a.exemplars, b.exemplars))
        assert (a.measurement.cnn, a.measurement.nme) == (b.measurement.cnn, b.measurement.nme)
        for name, values in a.measurement.arrays.items():
            np.testing.assert_array_equal(values, b.measurement.arrays[name])


def test_a_state_without_exemplars_has_them_chosen_anew(config, dataset):
    base = learn(config, dataset)[0]
    events = list(train(config, dataset, device="cpu", start=State(0, base.weights)))
    assert events[:2] == [Pause(0), Pause(0)]  # exemplars chosen, test images judged
    assert isinstance(events[2], PhaseEnd) and isinstance(events[3], PhaseStart)
    again = learn(config, dataset, start=State(0, base.weights))
    assert all(map(torch.equal, base.exemplars, again[0].exemplars))
    assert again[0].measurement.nme == base.measurement.nme


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(make_config, dataset):
    torch.manual_seed(1)
    one = learn(make_config(seed=3), dataset)[-1]
    torch.manual_seed(2)  # torch's own generator plays no part
    two, other = (learn(make_config(seed=seed), dataset)[-1] for seed in (3, 4))
    assert same(one.weights, two.weights)
    assert not any(
        torch.equal(one.weights[name], other.weights[name])
        for name in ("head.old_weight", "head.new_weight", "backbone.0.weight")
    )


def test_a_run_learns(make_config, dataset):
    config = make_config(epochs=12, exemplars_per_class=8)
    last = learn(config, dataset)[-1].measurement
    assert last.cnn > 50 and last.nme > 50  # one in twelve by chance
