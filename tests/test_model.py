"""Heads, imprinting, backbones, and the network that is made of them."""

import copy
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lucir_edu import model
from lucir_edu.config import Config, UsageError
from lucir_edu.model import CosineHead, IncrementalModel, LinearHead

HEADS = [CosineHead, LinearHead]
SEEDS = range(4)


def grown(kind, dim=4, old=3, new=2):
    torch.manual_seed(0)
    head = kind(dim, old)
    head.grow(new)
    return head


def tiny(head=CosineHead, classes=3):
    """A network with batch normalisation in a few lines."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    return IncrementalModel(backbone, head(4 * 4, classes))


IMAGES = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


# ---- Cosine head ------------------------------------------------------------------------------


def test_logits_are_eta_times_the_cosines():
    head = CosineHead(2, 3)
    head.new_weight.data = torch.tensor([[1.0, 0.0], [0.0, 5.0], [-2.0, 0.0]])
    head.eta.data = torch.tensor(10.0)
    output = head(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
    expected = torch.tensor([[0.6, 0.8, -0.6], [0.0, -1.0, 0.0]])
    torch.testing.assert_close(output.cosines, expected)
    torch.testing.assert_close(output.logits, 10 * expected)
    assert output.features.tolist() == [[3, 4], [0, -2]]


@pytest.mark.parametrize(("classes", "most"), [(10, 0.4509), (50, 0.1310), (100, 0.0695)])
def test_without_a_scale_the_softmax_cannot_be_confident(classes, most):
    head = CosineHead(1, classes)  # the best case: cosine 1 with one class, -1 with all others
    head.new_weight.data = torch.tensor([[1.0]] + [[-1.0]] * (classes - 1))
    logits = head(torch.ones(1, 1)).logits
    assert logits.softmax(dim=1).max().item() == pytest.approx(most, abs=5e-5)


def test_eta_is_one_learnable_number_that_starts_at_one():
    head = CosineHead(4, 3)
    assert head.eta.shape == () and head.eta.item() == 1
    head(torch.randn(2, 4)).logits[:, 0].sum().backward()
    assert head.eta.requires_grad and head.eta.grad.abs() > 0


def test_a_cosine_head_has_no_bias():
    assert {name for name, _ in CosineHead(4, 3).named_parameters()} == {
        "old_weight", "new_weight", "eta",
    }  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_cosine_head_equals_a_slow_version(seed):
    torch.manual_seed(seed)
    head = CosineHead(5, 3)
    head.grow(2)
    head.eta.data.fill_(4.5)
    features = torch.randn(4, 5)
    logits = head.double()(features.double()).logits.tolist()
    for row, f in zip(logits, features.tolist(), strict=True):
        for value, w in zip(row, head.weight.tolist(), strict=True):
            dot = sum(a * b for a, b in zip(f, w, strict=True))
            assert value == pytest.approx(4.5 * dot / math.hypot(*f) / math.hypot(*w))


def test_gradient_of_the_cosine_head():
    head = grown(CosineHead).double()

    def logits(features, old, new, eta):
        values = {"old_weight": old, "new_weight": new, "eta": eta}
        return torch.func.functional_call(head, values, (features,)).logits

    features = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    parameters = (head.old_weight, head.new_weight, head.eta)
    assert torch.autograd.gradcheck(logits, (features, *parameters))


@pytest.mark.parametrize("kind", HEADS)
def test_a_zero_feature_gives_finite_logits(kind):
    output = kind(4, 3)(torch.zeros(1, 4))
    assert output.logits.isfinite().all() and output.cosines.tolist() == [[0, 0, 0]]


# ---- Linear head ------------------------------------------------------------------------------


def test_linear_head_equals_torch_and_shows_cosines():
    head, features = grown(LinearHead), torch.randn(6, 4)
    output = head(features)
    torch.testing.assert_close(output.logits, F.linear(features, head.weight, head.bias))
    expected = F.cosine_similarity(features[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(output.cosines, expected)


# ---- Growing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("new", [1, 3, 10])
def test_growing_keeps_old_classes_logits_but_for_a_last_bit(kind, new):
    """A matrix product may sum in another order when it has more columns."""
    net = tiny(kind, classes=6).eval()
    before = net(IMAGES)
    net.head.grow(new)
    after = net(IMAGES)
    assert after.logits.shape == (6, 6 + new)
    torch.testing.assert_close(after.logits[:, :6], before.logits, rtol=1e-6, atol=1e-6)
    assert torch.equal(after.features, before.features)
    torch.testing.assert_close(after.cosines[:, :6], before.cosines, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
def test_growing_makes_what_was_new_old(kind):
    torch.manual_seed(0)
    head = kind(4, 3)
    first = {k: v.clone() for k, v in head.state_dict().items()}
    head.grow(2)
    assert torch.equal(head.old_weight, first["new_weight"])
    assert head.new_weight.shape == (2, 4)
    middle = head.weight.detach().clone()
    head.grow(1)
    assert torch.equal(head.old_weight, middle)
    assert head.weight.shape == (6, 4)
    if kind is LinearHead:
        assert torch.equal(head.bias[:3], first["new_bias"]) and head.bias.shape == (6,)


def test_eta_survives_growing_as_the_same_tensor():
    head = CosineHead(4, 3)
    head.eta.data.fill_(7.25)
    eta = head.eta
    head.grow(2)
    assert head.eta is eta and head.eta.item() == 7.25


def test_one_eta_scales_old_and_new_classes():
    head = grown(CosineHead)
    before = head(IMAGES.view(6, 16)[:, :4])
    head.eta.data.mul_(2)
    torch.testing.assert_close(head(before.features).logits, 2 * before.logits)


@pytest.mark.parametrize("kind", HEADS)
def test_given_embeddings_are_copied(kind):
    head, weight = kind(4, 3), torch.randn(2, 4)
    head.grow(2, weight)
    assert torch.equal(head.new_weight, weight)
    weight.zero_()
    assert head.new_weight.any()


def test_random_embeddings_are_as_those_of_torchs_linear_layer():
    head = LinearHead(16, 400)
    head.grow(400)
    for values in (head.old_weight, head.new_weight, head.old_bias, head.new_bias):
        assert values.abs().max() <= 0.25  # 1 / sqrt(16)
        assert values.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("kind", HEADS)
def test_freezing_stops_the_old_block_alone(kind):
    head = grown(kind)
    head.freeze_old()
    frozen = {name for name, p in head.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in head.named_parameters() if name.startswith("old_")}
    head(torch.randn(2, 4)).logits.sum().backward()
    assert head.old_weight.grad is None and head.new_weight.grad is not None


# ---- Imprinting -------------------------------------------------------------------------------


def plain_imprint(features, labels, num_new, old_weight):
    length = sum(math.hypot(*row) for row in old_weight) / len(old_weight)
    rows = []
    for c in range(num_new):
        mine = [f for f, y in zip(features, labels, strict=True) if y == c]
        units = [[x / math.hypot(*f) for x in f] for f in mine]
        mean = [sum(column) / len(units) for column in zip(*units, strict=True)]
        rows.append([length * x / math.hypot(*mean) for x in mean])
    return rows


def test_imprinting_averages_unit_features_and_takes_the_old_length():
    features, old = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    new = model.imprint(features, torch.tensor([0, 0]), 1, old)
    # The mean of the raw features would give (2.6833, 1.3416)
    assert new.tolist()[0] == pytest.approx([2.1213, 2.1213], abs=5e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_imprinting_equals_the_slow_version(seed):
    torch.manual_seed(seed)
    features, old = torch.randn(12, 5).double(), torch.randn(4, 5).double()
    labels = torch.tensor([0, 1, 2])[torch.randperm(12) % 3]
    found = model.imprint(features, labels, 3, old)
    expected = plain_imprint(features.tolist(), labels.tolist(), 3, old.tolist())
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("labels", [[0, 0], [0, 2], [1, 1], [0, 3], [-1, 0], [-1, 1]])
def test_imprinting_needs_an_image_of_every_new_class_and_of_no_other(labels):
    with pytest.raises(ValueError, match=r"all of 0\.\.1 and no other|all of 0\.\.2"):
        model.imprint(torch.ones(2, 2), torch.tensor(labels), 2 + (2 in labels), torch.ones(1, 2))


# ---- Backbones --------------------------------------------------------------------------------


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_resnet32_and_resnet20_have_the_published_numbers_of_parameters():
    resnet32 = model.BACKBONES["resnet32"](16, 3)
    assert count(resnet32) == 466_256
    assert count(IncrementalModel(resnet32, CosineHead(64, 50))) == 469_457
    resnet20 = model.BACKBONES["resnet20"](16, 3)
    assert count(IncrementalModel(resnet20, CosineHead(64, 50))) == 275_025


@pytest.mark.parametrize(
    ("name", "side", "dim"),
    [("small", 8, 64), ("resnet20", 8, 64), ("resnet32", 32, 64), ("resnet18", 64, 512)],
)
def test_features_are_signed(name, side, dim):
    torch.manual_seed(0)
    backbone = model.BACKBONES[name](16, 3).eval()
    features = backbone(torch.randn(4, 3, side, side))
    assert features.shape == (4, dim) and backbone.feature_dim == dim
    assert 0.05 < (features < 0).float().mean() < 0.95


@pytest.mark.parametrize("name", model.BACKBONES)
def test_convolutions_start_with_the_spread_that_their_outputs_ask_for(name):
    """He's, by the fan-out: where a layer widens, the fan-in would give more."""
    torch.manual_seed(0)
    layers = [m for m in model.BACKBONES[name](16, 3).modules() if isinstance(m, nn.Conv2d)]
    assert any(layer.out_channels > layer.in_channels for layer in layers)
    for layer in layers:
        weight = layer.weight.detach()
        expected = math.sqrt(2 / (layer.out_channels * math.prod(layer.kernel_size)))
        chance = 5 / math.sqrt(2 * weight.numel())  # five standard errors
        assert weight.std().item() == pytest.approx(expected, rel=chance)


@pytest.mark.parametrize("planes", [(8, 8), (8, 16), (4, 8)])
def test_a_block_is_torchvision_s(planes):
    """In double precision, which other kernels compute; and narrow ones corrupted memory once."""
    from torchvision.models.resnet import BasicBlock

    torch.manual_seed(0)
    stride = planes[1] // planes[0]
    block = model.Block(*planes, stride).to(memory_format=torch.channels_last)
    theirs = BasicBlock(*planes, stride, copy.deepcopy(block.downsample)).double()
    if block.downsample is not None:
        theirs.downsample[0].stride = (stride, stride)
    theirs.load_state_dict(block.state_dict())
    results = []
    for network, kind in ((block, torch.float32), (theirs, torch.float64)):
        torch.manual_seed(1)
        x = torch.randn(16, planes[0], 8, 8).to(kind, memory_format=torch.channels_last)
        out = network(x.requires_grad_())
        (out**2).sum().backward()
        gradients = [parameter.grad for _, parameter in sorted(network.named_parameters())]
        results.append([out, x.grad, *gradients])
    for ours, truth in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("planes", [4, 7, 8, 12, 15])
def test_a_narrow_block_stays_in_its_memory(planes):
    """In another process, because the library that writes outside of it takes the process down."""
    code = f"""if True:
        import torch
        from lucir_edu.model import Block
        torch.set_num_threads(2)
        block = Block({planes}, {2 * planes}, 2).to(memory_format=torch.channels_last)
        for _ in range(6):
            x = torch.randn(7, {planes}, 224, 224).to(memory_format=torch.channels_last)
            block(x.requires_grad_()).sum().backward()
            junk = [torch.randn(3 + i) for i in range(50)]
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", ["small", "resnet20", "resnet32"])
def test_only_the_last_block_lacks_its_relu(name):
    torch.manual_seed(0)
    x, negative = torch.randn(4, 1, 8, 8), []
    for module in list(model.BACKBONES[name](4, 1))[:-2]:
        x = module(x)
        negative.append((x < 0).any().item())
    # Convolution, normalisation, ReLU, all blocks but the last, the last
    assert negative == [True] * 2 + [False] * (len(negative) - 3) + [True]


def test_the_small_resnet_halves_the_image_twice():
    backbone = model.BACKBONES["small"](4, 1)
    shapes = []
    x = torch.randn(1, 1, 24, 24)
    for module in backbone:
        x = module(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[3:6] == [(4, 24, 24), (8, 12, 12), (16, 6, 6)]


def test_a_last_linear_layer_sets_the_size_of_the_features(make_config):
    net = model.build(make_config(feature_dim=3), num_classes=6, in_channels=1, seed=0)
    images = torch.randn(4, 1, 24, 24)
    output = net(images)
    assert output.features.shape == (4, 3) and net.head.weight.shape == (6, 3)
    inner, linear = net.backbone
    assert torch.allclose(output.features, inner(images) @ linear.weight.T + linear.bias)


# ---- The whole --------------------------------------------------------------------------------


def test_a_network_comes_from_its_seed_and_leaves_torchs_generator_alone(make_config):
    config = make_config()
    state = torch.get_rng_state()
    first, again = (model.build(config, 6, 3, seed=5).state_dict() for _ in range(2))
    other = model.build(config, 6, 3, seed=6).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.new_weight"], other["head.new_weight"])
    assert not torch.equal(first["backbone.0.weight"], other["backbone.0.weight"])


@pytest.mark.parametrize(("cosine", "kind"), [(True, CosineHead), (False, LinearHead)])
def test_the_cosine_switch_chooses_the_head(make_config, cosine, kind):
    net = model.build(make_config(cosine=cosine), 6, 1, seed=0)
    assert type(net.head) is kind and net.num_classes == 6
    net.head.grow(3)
    assert net.num_classes == 9
    assert net(torch.zeros(2, 1, 8, 8)).logits.shape == (2, 9)


def test_the_head_computes_in_full_precision_under_autocast():
    net = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(IMAGES)
    assert {t.dtype for t in output} == {torch.float32}
    expected = F.cosine_similarity(output.features[:, None], net.head.weight[None], dim=2)
    torch.testing.assert_close(output.cosines, expected)


# ---- Teacher ----------------------------------------------------------------------------------


def test_the_teacher_is_a_copy_that_stays_when_the_network_learns():
    net = tiny().eval()
    teacher, before = net.teacher(), net(IMAGES).logits
    assert torch.equal(teacher(IMAGES).logits, before)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.add_(1)
    assert torch.equal(teacher(IMAGES).logits, before)
    assert not torch.equal(net(IMAGES).logits, before)


def test_the_teacher_learns_nothing():
    assert not any(p.requires_grad for p in tiny().teacher().parameters())
    assert all(p.requires_grad for p in tiny().parameters())


def test_the_teacher_stays_in_evaluation_mode_inside_a_module_that_trains():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.student = tiny()
            self.teacher = self.student.teacher()

    parent = Parent().train()
    assert parent.student.training and parent.student.backbone[1].training
    assert not any(module.training for module in parent.teacher.modules())
    before = {k: v.clone() for k, v in parent.teacher.state_dict().items()}
    parent.student(IMAGES), parent.teacher(IMAGES)
    assert all(torch.equal(v, before[k]) for k, v in parent.teacher.state_dict().items())
    assert parent.student.backbone[1].num_batches_tracked == 1


def test_the_large_network_takes_colour_images_alone():
    with pytest.raises(UsageError, match="resnet18 is for colour images"):
        model.build(Config(backbone="resnet18"), 5, 1, seed=0)
