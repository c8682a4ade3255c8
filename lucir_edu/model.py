"""The network: a backbone that computes features, and a head that grows with the classes.

Every backbone ends without its last ReLU, as in the paper, so that features are signed and
cosines can be negative.
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lucir_edu import hardware
from lucir_edu.config import Config, UsageError
from lucir_edu.losses import cosine_similarity_matrix
from lucir_edu.memory import class_means


class Output(NamedTuple):
    """The network's output for n images; C classes seen."""

    features: Tensor  # (n, d), the backbone's
    cosines: Tensor  # (n, C), of features and class embeddings, before the scale
    logits: Tensor  # (n, C), what goes into the softmax


# ---- Heads ------------------------------------------------------------------------------------


class Head(nn.Module):
    """A class embedding per class, in two blocks: the old classes' and the new ones'.

    Two blocks, so that the old one can be frozen. ``weight`` is both together, (C, d).
    """

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__()
        self.old_weight = nn.Parameter(torch.empty(0, feature_dim))
        self.new_weight = nn.Parameter(_uniform(num_classes, feature_dim))

    @property
    def weight(self) -> Tensor:
        return torch.cat([self.old_weight, self.new_weight])

    def grow(self, num_new: int, new_weight: Tensor | None = None) -> None:
        """What was new becomes old; ``num_new`` classes are added.

        Args:
            new_weight: (num_new, d) embeddings to start from, such as :func:`imprint`'s; None:
                random ones.
        """
        old = self.weight.detach()
        if new_weight is None:
            new_weight = _uniform(num_new, old.shape[1])
        self.old_weight = nn.Parameter(old.clone())
        self.new_weight = nn.Parameter(new_weight.detach().to(old).clone())

    def old_parameters(self) -> list[nn.Parameter]:
        """What :meth:`freeze_old` freezes."""
        return [self.old_weight]

    def freeze_old(self) -> None:
        """From now on the old classes' block is not learned."""
        for parameter in self.old_parameters():
            parameter.requires_grad_(False)


class LinearHead(Head):
    r"""The usual head: logits are :math:`\theta_i^T f(x) + b_i`."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.old_bias = nn.Parameter(torch.empty(0))
        self.new_bias = nn.Parameter(_uniform(num_classes, feature_dim)[:, 0].clone())

    @property
    def bias(self) -> Tensor:
        return torch.cat([self.old_bias, self.new_bias])

    def grow(self, num_new: int, new_weight: Tensor | None = None) -> None:
        super().grow(num_new, new_weight)
        old = self.bias.detach()
        self.old_bias = nn.Parameter(old.clone())
        new_bias = _uniform(num_new, self.weight.shape[1])[:, 0]
        self.new_bias = nn.Parameter(new_bias.to(old).clone())

    def old_parameters(self) -> list[nn.Parameter]:
        return [self.old_weight, self.old_bias]

    def forward(self, features: Tensor) -> Output:
        logits = features @ self.weight.T + self.bias
        return Output(features, cosine_similarity_matrix(features, self.weight), logits)


class CosineHead(Head):
    r"""Cosine normalization: logits are :math:`\eta\,\langle\bar\theta_i, \bar f(x)\rangle`
    (Eq. 4), with one learnable scale eta for all classes."""

    def __init__(self, feature_dim: int, num_classes: int) -> None:
        super().__init__(feature_dim, num_classes)
        self.eta = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Output:
        cosines = cosine_similarity_matrix(features, self.weight)
        return Output(features, cosines, self.eta * cosines)


def _uniform(num_classes: int, feature_dim: int) -> Tensor:
    """What torch's own linear layer starts from: uniform in +-1/sqrt(d)."""
    bound = feature_dim**-0.5
    return torch.empty(num_classes, feature_dim).uniform_(-bound, bound)


def imprint(features: Tensor, labels: Tensor, num_new: int, old_weight: Tensor) -> Tensor:
    """Start each new embedding from its class's mean feature (weight imprinting).

    Not in the paper, but in all runs of the authors' code. The mean of the unit features is made
    a unit vector and given the mean length of the old embeddings.

    Args:
        features: (n, d) of the new classes' training images, without augmentation.
        labels: (n,), 0..num_new-1.
        num_new: new classes; each must have an image.
        old_weight: (C_o, d).

    Returns:
        (num_new, d).

    Raises:
        ValueError: ``labels`` lacks a class, or has another one.

    >>> imprint(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), 1,
    ...         torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[2.1213, 2.1213]])
    """
    if labels.unique().tolist() != list(range(num_new)):
        raise ValueError(f"labels must have all of 0..{num_new - 1} and no other")
    return class_means(features, labels, num_new) * old_weight.norm(dim=1).mean()


# ---- Backbones --------------------------------------------------------------------------------


class Block(nn.Module):
    """The basic residual block: two 3x3 convolutions and a shortcut.

    Args:
        last: whether it is the network's last block, which does not end with a ReLU.
    """

    def __init__(self, in_planes: int, planes: int, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.last = last
        # A 1x1 convolution with a stride and fewer input channels than a vector has numbers (8 with
        # AVX2, 16 with AVX-512) writes outside its memory (oneDNN 3.13), so with few channels every
        # other pixel is taken beforehand
        self.skip = stride if in_planes < 16 else 1
        self.downsample = None
        if stride != 1 or in_planes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_planes, planes, 1, stride // self.skip, bias=False),
                nn.BatchNorm2d(planes),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x[:, :, :: self.skip, :: self.skip])
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + shortcut
        return out if self.last else self.relu(out)


def small_resnet(blocks: int, width: int, in_channels: int) -> nn.Sequential:
    """The ResNet for small images: three stages of basic blocks, widths w, 2w, 4w.

    Five blocks per stage and w = 16 make the paper's ResNet-32, three make ResNet-20.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]
    planes = width
    for stage in range(3):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            last = (stage, block) == (2, blocks - 1)
            layers.append(Block(planes, width * 2**stage, stride, last))
            planes = width * 2**stage
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.feature_dim = planes
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _large_resnet18(width: int, in_channels: int) -> nn.Module:
    if in_channels != 3:
        raise UsageError("backbone=resnet18 is for colour images; choose small or resnet32")
    from torchvision.models import resnet18  # here: it takes seconds, and Glyphs does not need it

    network = resnet18()
    network.layer4[-1] = Block(512, 512, last=True)
    _initialise(network.layer4[-1])
    network.fc = nn.Identity()
    network.feature_dim = 512
    return network


BACKBONES = {
    "small": lambda width, channels: small_resnet(1, width, channels),
    "resnet20": lambda width, channels: small_resnet(3, width, channels),
    "resnet32": lambda width, channels: small_resnet(5, width, channels),
    "resnet18": _large_resnet18,
}


# ---- The whole --------------------------------------------------------------------------------


class IncrementalModel(nn.Module):
    """Backbone and head."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.frozen = False

    def forward(self, images: Tensor, total: int | None = None) -> Output:
        """The output for a batch.

        Args:
            total: how many images the whole batch has, if ``images`` is this process's share of
                it; None: ``images`` is the whole batch.
        """
        features = self.backbone(images)
        with torch.autocast(features.device.type, enabled=False):  # the head needs full precision
            features = features.to(self.head.new_weight.dtype)
            if total is not None:
                features = hardware.gather(features, total)
            return self.head(features)

    @property
    def num_classes(self) -> int:
        return len(self.head.old_weight) + len(self.head.new_weight)

    def teacher(self) -> "IncrementalModel":
        """A frozen copy. It stays in evaluation mode, even inside a module in training mode."""
        copied = copy.deepcopy(self).requires_grad_(False)
        copied.frozen = True
        return copied.eval()

    def train(self, mode: bool = True) -> "IncrementalModel":
        return super().train(mode and not self.frozen)


def build(config: Config, num_classes: int, in_channels: int, seed: int) -> IncrementalModel:
    """A new network for a config, with weights from a seed.

    Args:
        num_classes: of the base phase.
        in_channels: 1 for grey images, 3 for colour.

    Raises:
        UsageError: the backbone is one for colour images, and these are grey.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # (the GPUs' generators would not be put back)
        backbone = BACKBONES[config.backbone](config.width, in_channels)
        feature_dim = backbone.feature_dim
        if config.feature_dim is not None:
            backbone = nn.Sequential(backbone, nn.Linear(feature_dim, config.feature_dim))
            feature_dim = config.feature_dim
        head = (CosineHead if config.cosine else LinearHead)(feature_dim, num_classes)
    return IncrementalModel(backbone, head)
