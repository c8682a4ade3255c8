"""One function per figure: results in, (figure, description) out.

Figures are matplotlib's, made without pyplot, so that they may be drawn from any thread. Old is
blue, new is orange, in colours that colour-blind readers can tell apart, and a marker, a hatch or
a line style says the same. The description says in words what the picture shows.
"""

import base64
import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import count

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lucir_edu.datasets import Dataset, TensorSplit, glyphs
from lucir_edu.runs import Run
from lucir_edu.stream import Stream

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, PINK, SKY, YELLOW, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000",
)  # fmt: skip
OLD, NEW = BLUE, ORANGE
OF_WORDS = {ORANGE: "#B34700"}  # in orange words are hard to read: 3.9 : 1 on white
LINES = [  # of curves that are compared: colour, line style, marker
    (BLUE, "-", "o"), (ORANGE, "--", "s"), (GREEN, "-.", "^"), (PINK, ":", "D"),
    (BLACK, "-", "x"), (SKY, "--", "v"), (YELLOW, "-.", "P"),
]  # fmt: skip

Described = tuple[Figure, str]


def show(described: Described) -> None:
    """Display a figure in a notebook, with its description below it, and as its alternative text
    where a viewer uses that (JupyterLab does not)."""
    from IPython import display

    figure, description = described
    width = int(figure.get_figwidth() * 96)
    display.display(display.Image(png(figure), format="png", alt=description, width=width))
    # JupyterLab breaks longer lines within words and numbers; 12 % and 3 ± 1 stay whole
    whole = re.sub(r" (?=[%±])|(?<=±) ", "\u00a0", description)
    print(textwrap.fill(whole, 90))


def png(figure: Figure, dpi: int = 144) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def html(described: Described) -> str:
    """The figure as an HTML element that needs no other file."""
    figure, description = described
    data = base64.b64encode(png(figure)).decode()
    return (
        f'<figure><img alt="{escape(description)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(description)}</figcaption></figure>"
    )


# ---- The data ---------------------------------------------------------------------------------


def samples(dataset: Dataset) -> Described:
    """A random training image of every class; each alphabet is a block of rows."""
    generator = np.random.default_rng(0)
    labels, images = dataset.train.labels.numpy(), dataset.train.images.numpy()
    alphabets = list(glyphs.ALPHABETS.items())
    columns = 25
    rows = [
        (name if start == 0 else "", characters[start : start + columns])
        for name, characters in alphabets
        for start in range(0, len(characters), columns)
    ]
    figure = Figure(figsize=(9, 0.42 * len(rows) + 0.1), layout="constrained")
    grid = figure.subplots(len(rows), 1)
    side = images.shape[-1]
    for axes, (name, characters) in zip(grid, rows, strict=True):
        strip = np.full((side, columns * (side + 2)), 255, dtype=np.uint8)
        for column, character in enumerate(characters):
            of_class = np.flatnonzero(labels == dataset.classes.index(character))
            left = column * (side + 2)
            strip[:, left : left + side] = images[generator.choice(of_class), 0]
        axes.imshow(strip, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        bare(axes)
    names = "; ".join(f"{name} ({len(characters)})" for name, characters in alphabets)
    return figure, f"One random image of each of the 100 classes, by alphabet: {names}."


def thumbnails(dataset: Dataset) -> dict[str, str]:
    """An <img> of one test image of every class, by the class's name; none of images on disk."""
    found = {}
    if not isinstance(dataset.test, TensorSplit):
        return found
    for label, name in enumerate(dataset.classes):
        row = int((dataset.test.labels == label).nonzero()[0])
        pixels = dataset.test.images[row].permute(1, 2, 0).numpy().squeeze()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="png")
        found[name] = (
            f'<img alt="{escape(name)}" height="48" style="image-rendering:pixelated" '
            f'src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
        )
    return found


def pairs(dataset: Dataset, which: Sequence[str], per_letter: int = 8) -> Described:
    """Training images of letters that look alike, a pair side by side in each row.

    Args:
        which: pairs of class names of one character, such as "RЯ".
    """
    figure = Figure(figsize=(9, 0.55 * len(which) + 0.1), layout="constrained")
    grid = figure.subplots(len(which), 2, squeeze=False)
    for row, pair in zip(grid, which, strict=True):
        for axes, letter in zip(row, pair, strict=True):
            rows = np.flatnonzero(dataset.train.labels == dataset.classes.index(letter))
            images = dataset.train.images[rows[:per_letter], 0].numpy()
            axes.imshow(np.hstack(images), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_ylabel(letter, rotation=0, ha="right", va="center", fontsize=14)
            bare(axes)
    named = ", ".join(f"{old} and {new}" for old, new in which)
    return figure, f"Training images of letters that look alike, old left, new right: {named}."


def images_per_class(stream: Stream, phase: int, exemplars: int) -> Described:
    """How many training images each class has in a phase."""
    now = stream.phases[phase]
    labels = stream.dataset.train.labels[now.train].numpy()
    counts = np.bincount(labels, minlength=now.num_seen)
    counts[: now.num_old] = exemplars
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    _bars(axes, counts, now.num_old)
    axes.set(xlabel="class, in the order of arrival", ylabel="training images")
    _legend(axes)
    ratio = counts[now.num_old] / max(1, exemplars)
    return figure, (
        f"Phase {phase}: each of the {now.num_old} old classes has {exemplars} training images, "
        f"each of the {now.num_new} new ones {counts[now.num_old]}: {ratio:.0f} times as many."
    )


# ---- Results ----------------------------------------------------------------------------------


def accuracy(runs: Mapping[str, Run]) -> Described:
    """Accuracy over the classes seen so far, after each phase; a curve per run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    words = []
    for (name, run), (colour, line, marker) in zip(runs.items(), _styles(), strict=False):
        seen = [phase["classes_seen"] for phase in run["phases"]]
        values = run.accuracies()
        axes.plot(seen, values, line, color=colour, marker=marker, label=name)
        words.append(f"{name} from {values[0]:.0f} to {values[-1]:.0f} %")
    axes.set(xlabel="classes seen", ylabel="accuracy (CNN) on all of them (%)", ylim=(0, 100))
    axes.set_xticks(sorted({p["classes_seen"] for run in runs.values() for p in run["phases"]}))
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure, f"Accuracy over the classes seen (CNN): {'; '.join(words)}."


def by_group(run: Run, names: Sequence[str]) -> Described:
    """Accuracy on each group of classes (column) after each phase (row)."""
    matrix = run.accuracy_matrix()
    phases = len(matrix)
    figure = Figure(figsize=(7, 0.5 * phases + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = colormaps["cividis"].with_extremes(bad="white")
    axes.imshow(np.ma.masked_invalid(matrix), cmap=colours, vmin=0, vmax=100, aspect="auto")
    for row in range(phases):
        for column in range(row + 1):
            value = matrix[row, column]
            ink = "white" if value < 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=ink)
    axes.set_xticks(range(phases), [n.replace(" ", "\n", 1) for n in names[:phases]], fontsize=9)
    axes.set_yticks(range(phases), [f"after phase {t}" for t in range(phases)], fontsize=9)
    axes.tick_params(length=0)
    axes.set_title("accuracy on each alphabet (%)", fontsize=10)
    first = ", ".join(f"{value:.0f}" for value in matrix[:, 0])
    newest = ", ".join(f"{value:.0f}" for value in np.diag(matrix))
    return figure, (
        f"Accuracy by alphabet and phase. {names[0]}, after each phase: {first} %. "
        f"Each alphabet just after it was learned: {newest} %."
    )


def head(run: Run, phase: int = -1) -> Described:
    """Norm, bias, and mean and spread of the logit of every class, old and new told apart."""
    phase = range(len(run["phases"]))[phase]
    num_old = run["bounds"][phase]
    parts = [
        (title, key)
        for title, key in (
            ("length of the class embedding", "weight_norms"),
            ("bias", "biases"),
            ("mean of the logit over test images", "mean_logits"),
            ("spread (standard deviation) of the logit over test images", "logit_sds"),
        )
        if key in run.arrays
    ]
    figure = Figure(figsize=(9, 1.8 * len(parts)), layout="constrained")
    grid = np.atleast_1d(figure.subplots(len(parts), 1, sharex=True))
    words = []
    for axes, (title, key) in zip(grid, parts, strict=True):
        values = run.arrays[key][phase]
        values = values[~np.isnan(values)]
        _bars(axes, values, num_old)
        if num_old:
            old, new = values[:num_old].mean(), values[num_old:].mean()
            axes.hlines(old, -0.5, num_old - 0.5, color=BLACK, linestyle="--", linewidth=1)
            axes.hlines(new, num_old - 0.5, len(values) - 0.5, color=BLACK, linewidth=1)
            words.append(f"{title}: old {old:.2f}, new {new:.2f} on average")
        else:
            words.append(f"{title}: {values.mean():.2f} on average")
        axes.set_title(title, fontsize=10, loc="left")
    grid[-1].set_xlabel("class, in the order of arrival")
    _legend(grid[0])
    return figure, f"After phase {phase}: {'; '.join(words)}."


def confusion(run: Run, phase: int = -1) -> Described:
    """The confusion matrix, and next to it where old and new images go."""
    phase = range(len(run["phases"]))[phase]
    bounds = run["bounds"][: phase + 2]
    num_old, seen = bounds[-2], bounds[-1]
    counts = run.arrays["confusion_cnn"][phase][:seen, :seen]
    share = 100 * counts / counts.sum(axis=1, keepdims=True)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    image = left.imshow(share, cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    for edge in bounds[1:-1]:
        left.axhline(edge - 0.5, color="white", linewidth=0.6)
        left.axvline(edge - 0.5, color="white", linewidth=0.6)
    left.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=left, label="share of the true class's images (%)", shrink=0.85)

    sides = run.old_new_confusion(phase)
    bars = [
        ("right", BLUE, "", (sides.old_correct, sides.new_correct)),
        ("wrong, within old or within new", SKY, "//", (sides.old_to_old, sides.new_to_new)),
        ("wrong, old for new or new for old", ORANGE, "xx", (sides.old_to_new, sides.new_to_old)),
    ]
    bottom = np.zeros(2)
    for name, colour, hatch, values in bars:
        values = np.nan_to_num(values)
        right.bar(["old classes", "new classes"], values, 0.6, bottom=bottom, color=colour,
                  hatch=hatch, edgecolor="white", label=name)  # fmt: skip
        for x, (base, value) in enumerate(zip(bottom, values, strict=True)):
            if value >= 6:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                right.text(
                    x, base + value / 2, f"{value:.0f} %", ha="center", va="center", bbox=box
                )
        bottom += values
    right.set(ylim=(0, 100), ylabel="share of test images (%)")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    words = f"of new classes' images {sides.new_correct:.0f} % are right"
    if num_old:
        words = (
            f"of old classes' images {sides.old_correct:.0f} % are right, {sides.old_to_new:.0f} % "
            f"taken for a new class; {words}, {sides.new_to_old:.0f} % taken for an old one"
        )
    return figure, f"After phase {phase}: {words}."


def features(runs: Mapping[str, Run]) -> Described:
    """Directions of features at the end, in the plane of the base phase, and how far they moved."""
    figure = Figure(figsize=(4.5 * len(runs), 4.2), layout="constrained")
    grid = figure.subplots(1, len(runs), squeeze=False, sharex=True, sharey=True)[0]
    words = []
    for axes, (name, run) in zip(grid, runs.items(), strict=True):
        number = len(run["phases"]) - 1
        base, num_old, seen = run["bounds"][1], run["bounds"][number], run["bounds"][number + 1]
        positions = run.arrays["positions"].astype(float)
        before, now = positions[0, :base].reshape(-1, 2), positions[number]
        after = now[:base].reshape(-1, 2)
        ways = axes.plot(
            *np.stack([before, after]).T.swapaxes(1, 2), color="#bbbbbb", linewidth=0.7
        )
        ways[0].set_label("from where\nit was at first")
        for side, colour, marker in ((slice(num_old), OLD, "o"), (slice(num_old, seen), NEW, "D")):
            kind = "old" if marker == "o" else "new"
            axes.plot(*now[side].reshape(-1, 2).T, marker, color=colour, markersize=3.5,
                      label=f"{kind} classes")  # fmt: skip
        axes.set(title=name, aspect="equal", xlabel="along the direction of most spread")
        axes.grid(alpha=0.3)
        moved = np.nanmean(np.linalg.norm(after - before, axis=1))
        words.append(f"{name}: images of the base classes have moved by {moved:.2f} on average")
    grid[0].set_ylabel("along that of second most")
    legend_beside(grid[-1])
    description = f"Features (of length 1) after phase {number}, in a plane. {'; '.join(words)}."
    return figure, description


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    marks: bool = False,
    log: bool = False,
) -> Described:
    """Several curves over one axis.

    Args:
        lines: for each name the x and the y values.
        marks: whether to mark the points.
        log: a logarithmic x axis.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    words = []
    for (name, (x, y)), (colour, line, marker) in zip(lines.items(), _styles(), strict=False):
        axes.plot(x, y, line, color=colour, marker=marker if marks else None, label=name)
        words.append(f"{name}: from {y[0]:.3g} at {x[0]:.3g} to {y[-1]:.3g} at {x[-1]:.3g}")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if log:
        axes.set_xscale("log")
    if marks:
        axes.set_xticks(sorted({value for x, _ in lines.values() for value in x}))
        axes.xaxis.set_major_formatter("{x:.3g}")
        axes.minorticks_off()
    axes.grid(alpha=0.3)
    legend_beside(axes)
    return figure, f"{ylabel[0].upper()}{ylabel[1:]} by {xlabel}. {'; '.join(words)}."


def bars(values: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str = "") -> Described:
    """A bar with its standard deviation for each name.

    Args:
        values: mean and standard deviation.
    """
    figure = Figure(figsize=(8, 0.36 * len(values) + 1), layout="constrained")
    axes = figure.subplots()
    names, means = list(values), [mean for mean, _ in values.values()]
    axes.barh(names, means, color=SKY, edgecolor=BLUE, height=0.7)
    axes.errorbar(means, names, xerr=[sd for _, sd in values.values()], fmt="none", ecolor=BLACK,
                  capsize=3, linewidth=1)  # fmt: skip
    for name, (mean, sd) in values.items():
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over a line drawn there
        axes.annotate(f"{mean:.1f}", (mean + sd, name), xytext=(5, 0), va="center", fontsize=9,
                      textcoords="offset points", bbox=box)  # fmt: skip
    axes.invert_yaxis()
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.12 * max(m + s for m, s in values.values())))
    axes.spines[["top", "right"]].set_visible(False)
    words = "; ".join(f"{name}: {mean:.1f} ± {sd:.1f}" for name, (mean, sd) in values.items())
    return figure, f"{xlabel[0].upper()}{xlabel[1:]}. {words}."


def margins(cosines: Tensor, labels: Tensor, num_old: int, top_k: int, margin: float) -> Described:
    """How far old images are from their hard negatives, and where the margin ranking loss acts.

    Args:
        cosines: (n, C); rows of new classes are left out.
        labels: (n,).
    """
    old = labels < num_old
    truth = cosines[old].gather(1, labels[old][:, None])
    gaps = (truth - cosines[old][:, num_old:].topk(top_k, dim=1).values).flatten().cpu().numpy()
    active = gaps < margin
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(-0.6, 1.6, 45)
    seen = gaps.clip(bins[0], bins[-1])  # those beyond are in the outermost bars
    axes.hist(seen[active], bins, color=NEW, hatch="///", edgecolor="white", linewidth=0.4,
              label="the loss pulls")  # fmt: skip
    axes.hist(seen[~active], bins, color=OLD, edgecolor="white", linewidth=0.4,
              label="far enough")  # fmt: skip
    axes.axvline(margin, color=BLACK, linestyle="--", linewidth=1.2)
    axes.annotate(f"m = {margin:g}", (margin, axes.get_ylim()[1]), ha="left", va="top",
                  xytext=(4, -2), textcoords="offset points")  # fmt: skip
    axes.set(xlabel="cosine with its own class, minus that with a hard negative", ylabel="pairs")
    legend_beside(axes)
    axes.spines[["top", "right"]].set_visible(False)
    near, wrong = (100 * pairs.sum() / max(1, len(gaps)) for pairs in (active, gaps < 0))
    return figure, (
        f"{old.sum()} exemplars of old classes, {top_k} hard "
        f"negative{'s' * (top_k != 1)} each, margin {margin:g}: "
        f"{near:.0f} % of the {len(gaps)} pairs are nearer than the margin; "
        f"{wrong:.0f} % are on the wrong side."
    )


# ---- Parts ------------------------------------------------------------------------------------


def _styles() -> Iterator[tuple[str, str, str]]:
    """Colours, line styles and markers; when the colours repeat, the other two change."""
    dashes, markers = ("-", "--", "-.", ":"), "osx^vDP"
    for number in count():
        turn, place = divmod(number, len(LINES))
        colour, line, marker = LINES[place]
        yield (
            colour,
            dashes[(dashes.index(line) + turn) % len(dashes)],
            markers[(markers.index(marker) + turn) % len(markers)],
        )


def _bars(axes: Axes, values: np.ndarray, num_old: int) -> None:
    x = np.arange(len(values))
    if num_old:
        axes.bar(x[:num_old], values[:num_old], 1, color=OLD, edgecolor="white", linewidth=0.4,
                 label="old classes")  # fmt: skip
    axes.bar(x[num_old:], values[num_old:], 1, color=NEW, edgecolor="white", linewidth=0.4,
             hatch="////", label="new classes" if num_old else "classes")  # fmt: skip
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    if (values < 0).any():
        axes.axhline(0, color=BLACK, linewidth=0.8)


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9)


def legend_beside(axes: Axes) -> None:
    """To the right, in a figure high enough for it: a label may be a whole configuration."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [textwrap.fill(label, 40, break_on_hyphens=False) for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels)
    axes.figure.set_figheight(max(axes.figure.get_figheight(), 0.25 * lines))
    axes.legend(handles, labels, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
