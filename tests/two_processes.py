"""What test_together.py has torchrun start twice: the same training in two processes and in one."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from lucir_edu import hardware
from lucir_edu.config import Config
from lucir_edu.datasets import Dataset, TensorSplit
from lucir_edu.stream import make as make_stream
from lucir_edu.trainer import Learner, PhaseEnd, objective, train

CPU = torch.device("cpu")
CONFIG = Config(
    base_classes=6, increment=3, exemplars_per_class=4, width=8, epochs=6, batch_size=15, lr=0.03,
    crop_padding=1, precision="float32",
)  # fmt: skip


def dataset() -> Dataset:
    """12 classes: a random drawing each, and noisy copies of it; 15 and 20 per class."""
    generator = torch.Generator().manual_seed(0)
    drawings = torch.randint(256, (12, 1, 8, 8), generator=generator)

    def split(count: int) -> TensorSplit:
        labels = torch.arange(12).repeat(count)
        noise = torch.randint(-60, 61, (len(labels), 1, 8, 8), generator=generator)
        return TensorSplit((drawings[labels] + noise).clamp(0, 255).byte(), labels)

    return Dataset(
        "toy", tuple("abcdefghijkl"), split(15), split(20), (0.5,), (0.3,), fingerprint="toy"
    )


def gradients(size: int) -> dict[str, torch.Tensor]:
    """Of the whole objective in the first incremental phase, batch norm at rest."""
    learner = Learner(CONFIG, dataset(), CPU)
    teacher = learner.net.teacher()
    learner.grow(make_stream(CONFIG, dataset()).phases[1])
    net = learner.net.eval()
    forward = hardware.parallel(net)
    indices = torch.arange(5, 5 + size)
    draws = torch.Generator().manual_seed(1)
    for images, targets in learner.train_images.augmented(indices, size, draws):
        keep = targets % 9  # old classes 0-5 and new ones 6-8
        output, old = forward(images, len(targets)), teacher(images, len(targets))
        assert len(output.logits) == len(old.logits) == size
        sum(objective(CONFIG, output, keep, old, 6).values()).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def learn(seed: int) -> tuple[list[float], list[list[int]], bytes]:
    """Accuracy after each phase, the exemplars, and the last network's weights."""
    config = Config.from_dict({**CONFIG.to_dict(), "seed": seed})
    ends = [
        event for event in train(config, dataset(), device="cpu") if isinstance(event, PhaseEnd)
    ]
    exemplars = [indices.tolist() for indices in ends[-1].memory.ranked]
    weights = b"".join(t.numpy().tobytes() for t in ends[-1].model.state_dict().values())
    return [end.measurement.cnn for end in ends], exemplars, weights


def main(out: Path) -> None:
    torch.set_num_threads(1)
    sizes, seeds = (15, 4, 1), range(3)
    with hardware.together():
        assert hardware.ranks() == 2
        with hardware.first_before_others():
            waited = hardware.is_first() or out.with_suffix(".first").exists()
            time.sleep(1)
            out.with_suffix(".first" if hardware.is_first() else ".other").touch()
        waited = waited and out.with_suffix(".other").exists()
        there = {size: gradients(size) for size in sizes}
        learnt = [learn(seed) for seed in seeds]
        everyone = [None, None]
        distributed.all_gather_object(everyone, learnt)
        all_waited = [None, None]
        distributed.all_gather_object(all_waited, waited)
        first = hardware.is_first()
    if not first:
        return
    assert hardware.ranks() == 1
    furthest = 0.0
    for size in sizes:
        alone = gradients(size)
        assert alone.keys() == there[size].keys()
        for name, gradient in alone.items():
            error = (there[size][name] - gradient).norm() / (gradient.norm() + 1e-12)
            furthest = max(furthest, error.item())
    result = {
        "gradient_error": furthest,
        "all_waited": all(all_waited),
        "ranks_agree": everyone[0] == everyone[1],
        "together": [np.mean(accuracies) for accuracies, _, _ in learnt],
        "alone": [np.mean(learn(seed)[0]) for seed in seeds],
        "exemplars": [len(indices) for indices in learnt[0][1]],
    }
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
