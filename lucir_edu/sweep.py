"""Many runs: a grid of settings, several seeds each, one folder per run."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lucir_edu import config as configs
from lucir_edu import datasets, runs
from lucir_edu.config import Config, UsageError
from lucir_edu.trainer import Event


def grid(specs: Sequence[str]) -> list[dict[str, Any]]:
    """All combinations of the settings named.

    Args:
        specs: each either switches, ``"cosine,less_forget"`` (on and off), or one setting with
            its values, ``"method=replay,lucir"`` or ``"margin=0.2,0.5"``.

    >>> grid(["method=replay,lucir"])
    [{'method': 'replay'}, {'method': 'lucir'}]
    >>> len(grid(["cosine,less_forget", "top_k=1,2"]))
    8
    """
    axes: list[list[tuple[str, Any]]] = []
    for spec in specs:
        name, equals, values = spec.partition("=")
        names = [name.strip()] if equals else [part.strip() for part in spec.split(",")]
        choices = values.split(",") if equals else ["false", "true"]
        for key in names:
            axes.append([(key, configs.parse([f"{key}={choice}"])[key]) for choice in choices])
    axes.sort(key=lambda axis: axis[0][0] != "method")  # single switches come on top of a method
    return [dict(combination) for combination in itertools.product(*axes)]


def sweep(
    preset: str,
    settings: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    device: str = "auto",
    announce: Callable[[int, int, str], object] = lambda number, count, name: None,
    watch: Callable[[Event], object] = lambda event: None,
) -> Iterator[runs.Run]:
    """Perform every setting with every seed; what is complete in ``out`` is not done again.

    Args:
        settings: as of :func:`grid`, arguments of :func:`lucir_edu.config.preset`.
        announce: is called before each run with its number (from 1), the count, and its name.
        watch: is called with every event.

    Yields:
        A run when it is complete, in order.
    """
    jobs: dict[str, Config] = {}
    for setting, seed in itertools.product(settings, seeds):
        name = ",".join(f"{key}={value}" for key, value in setting.items()) or "default"
        jobs[f"{name}/seed{seed}"] = configs.preset(preset, **{**setting, "seed": seed})
    if not jobs:
        raise UsageError("a sweep needs at least one seed; set --seeds")
    for number, (name, config) in enumerate(jobs.items(), 1):
        announce(number, len(jobs), name)
        yield runs.perform(
            config,
            datasets.load(config, data_root),
            preset=preset,
            out=Path(out) / name,
            resume=True,
            device=device,
            watch=watch,
        )
