"""Drawings that explain; nothing in them was measured. (figure, description), as in ``plots``."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lucir_edu.lab.plots import BLACK, NEW, OF_WORDS, OLD, Described, bare, legend_beside

GREY = "#bbbbbb"
KINDS = {  # of arrows: colour, line style, marker
    "old": (OLD, "-", "s"), "new": (NEW, "--", "D"), "feature": (BLACK, "-", "o"),
    "before": (BLACK, ":", "o"),
}  # fmt: skip

Arrow = tuple[str, float, float, str]  # name, degrees, length, kind
Arc = tuple[float, float, str]  # from, to, in degrees; what it says


def protocol(groups: Sequence[str], exemplars: int) -> Described:
    """What is learned and tested in each phase: a row per group of classes, a column per phase."""
    count = len(groups)
    figure = Figure(figsize=(9, 0.4 * count + 0.8), layout="constrained")
    axes = figure.subplots()
    for phase in range(count):
        axes.add_patch(Rectangle((phase - 0.46, -0.5), 0.92, phase + 1, fill=False, linestyle="--"))
        axes.add_patch(Rectangle((phase - 0.38, phase - 0.32), 0.76, 0.64, facecolor=NEW,
                                 hatch="////", edgecolor="white"))  # fmt: skip
        if exemplars:
            axes.hlines(range(phase), phase - 0.38, phase + 0.38, color=OLD, linewidth=5)
    axes.plot([], [], "s", color=NEW, markersize=11, label="learned: all images")
    kept = f"{exemplars} exemplar{'s' * (exemplars > 1)}"
    if exemplars:
        axes.plot([], [], color=OLD, linewidth=5, label=f"learned: {kept} per class")
    axes.plot([], [], "--", color=BLACK, label="tested: all classes seen")
    axes.set(xlim=(-0.6, count - 0.4), ylim=(count - 0.4, -0.6))
    axes.set_xticks(range(count), [f"phase {phase}" for phase in range(count)])
    axes.set_yticks(range(count), groups)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    legend_beside(axes)
    old = f", together with {kept} of each old class" if exemplars else ""
    return figure, (
        f"In phase t the images of group t are learned{old}; all groups up to it are tested. "
        f"The groups: {', '.join(groups)}."
    )


def directions(panels: Mapping[str, tuple[Sequence[Arrow], Sequence[Arc]]]) -> Described:
    """Vectors in a plane, with a part of the unit circle; a panel for each title.

    Args:
        panels: arrows and arcs by title.
    """
    reach = max(length for arrows, _ in panels.values() for _, _, length, _ in arrows) + 0.4
    height = 3 * 1.5 / (reach + 0.35) + 0.35
    figure = Figure(figsize=(3 * len(panels), height), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    words = []
    for axes, (title, (arrows, arcs)) in zip(grid, panels.items(), strict=True):
        _arc(axes, 1, -5, 105, color=GREY, linewidth=0.8)
        for name, degrees, length, kind in arrows:
            colour, line, marker = KINDS[kind]
            tip = length * _direction(degrees)
            axes.plot(*np.stack([0 * tip, tip]).T, line, color=colour, marker=marker, markevery=[1])
            axes.annotate(name, tip, 12 * _direction(degrees), textcoords="offset points",
                          color=OF_WORDS.get(colour, colour), va="center",
                          ha="left" if degrees < 60 else "center")  # fmt: skip
        for start, end, text in arcs:
            radius = 0.72 if end - start < 25 else 0.5  # where there is room for its words
            _arc(axes, radius, start, end, color=BLACK, linewidth=1)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            axes.annotate(text, (radius + 0.11) * _direction((start + end) / 2), fontsize=9,
                          ha="center", va="center", bbox=box)  # fmt: skip
        axes.set(xlim=(-0.35, reach), ylim=(-0.15, 1.35), aspect="equal")
        axes.set_title(title, fontsize=10)
        bare(axes)
        named = [f"{name} at {degrees}°, length {length:g}" for name, degrees, length, _ in arrows]
        words.append(f"“{title}”: {', '.join(named)}")
    return figure, f"Vectors in a plane. {'; '.join(words)}."


def objective() -> Described:
    """Where each term of LUCIR's objective gets its numbers from."""
    boxes = {  # x, y, text, colour
        "image": (0.3, 1, "image: new,\nor an exemplar", BLACK),
        "student": (2.1, 1.8, "network\nthat learns", NEW),
        "teacher": (2.1, 0.2, "teacher: its copy from\nbefore the phase", OLD),
        "feature": (4.1, 1.8, "feature f(x)", NEW),
        "before": (4.1, 0.2, "feature f*(x)", OLD),
        "cosines": (6.1, 1.8, "cosines with θ;\nold θ are frozen", NEW),
        "logits": (8.1, 1.8, "logits:\nη × cosines", NEW),
        "less-forget": (4.1, 1, "λ × less-forget", BLACK),
        "margin ranking": (6.1, 1, "margin ranking\n(old images only)", BLACK),
        "cross-entropy": (8.1, 1, "cross-entropy", BLACK),
    }
    ways = [("image", "student"), ("image", "teacher"), ("student", "feature"),
            ("teacher", "before"), ("feature", "cosines"), ("cosines", "logits"),
            ("feature", "less-forget"), ("before", "less-forget"), ("cosines", "margin ranking"),
            ("logits", "cross-entropy")]  # fmt: skip
    figure = Figure(figsize=(9, 2.9), layout="constrained")
    axes = figure.subplots()
    drawn = {}
    for name, (x, y, text, colour) in boxes.items():
        term = y == 1 and x > 1
        drawn[name] = axes.text(
            x, y, text, color=OF_WORDS.get(colour, colour), fontsize=9, ha="center", va="center",
            bbox={
                "boxstyle": "round,pad=0.5" if term else "square,pad=0.5", "edgecolor": colour,
                "facecolor": "#eeeeee" if term else "white",
                "linestyle": "--" if colour == OLD else "-",
            },
        )  # fmt: skip
    for start, end in ways:
        axes.annotate(
            "", boxes[end][:2], boxes[start][:2],
            arrowprops={
                "arrowstyle": "-|>", "color": "#666666", "shrinkA": 1, "shrinkB": 1,
                "patchA": drawn[start].get_bbox_patch(), "patchB": drawn[end].get_bbox_patch(),
            },
        )  # fmt: skip
    axes.set(xlim=(-0.6, 8.9), ylim=(-0.25, 2.25))
    bare(axes)
    return figure, (
        "An image goes through the network that learns and through the teacher, its frozen copy "
        "from before the phase. Less-forget compares the two features. The learner's feature goes "
        "on to the cosines with the class embeddings, of which the old ones are frozen; margin "
        "ranking takes those of old images. Times η they are the logits, for cross-entropy."
    )


def _direction(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def _arc(axes: Axes, radius: float, start: float, end: float, **style: object) -> None:
    turn = np.radians(np.linspace(start, end, 60))
    axes.plot(radius * np.cos(turn), radius * np.sin(turn), **style)
