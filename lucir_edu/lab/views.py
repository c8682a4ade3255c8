"""What the explorer shows of a run: a drawing per view, both in the kernel and on a page.

A drawing is plotly's traces and layout as plain dictionaries, and a description in words. One view
has the same number of traces for every run and phase, so that a figure can be changed in place.
Old is blue, new is orange; a line style, a marker or a hatch says the same.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from lucir_edu.lab.plots import BLACK, BLUE, GREEN, NEW, OLD, ORANGE, PINK, SKY
from lucir_edu.runs import Run

WIDTH = 840  # pixels; what a notebook has on a laptop's screen
COMPONENTS = {  # switch: short name, and in words
    "cosine": ("cos", "cosine normalization"),
    "less_forget": ("lf", "less-forget constraint"),
    "margin_ranking": ("mr", "margin ranking"),
}
LOSSES = {  # name of the term: colour, line
    "cross_entropy": (BLACK, "solid"),
    "less_forget": (BLUE, "dash"),
    "margin_ranking": (ORANGE, "dot"),
    "distillation": (PINK, "dashdot"),
    "score_distillation": (GREEN, "longdash"),
}


class Drawing(NamedTuple):
    """A view of a run."""

    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    words: str


def align(layouts: Sequence[dict[str, Any]]) -> None:
    """Give drawings of one view the same ranges, so that they can be compared."""
    for axis in ("xaxis", "yaxis", "xaxis2", "yaxis2"):
        if axis == "yaxis2" and len({layout["annotations"][-1]["text"] for layout in layouts}) > 1:
            continue  # a bias is not a mean logit
        ranges = [layout[axis]["range"] for layout in layouts if "range" in layout.get(axis, {})]
        for layout in layouts if ranges else ():
            layout[axis]["range"] = [min(low for low, _ in ranges), max(high for _, high in ranges)]


def draw(view: str, run: Run, phase: int, wide: bool = True) -> Drawing:
    """A view of a run after a phase.

    Args:
        view: one of :data:`VIEWS`.
        wide: whether there is room for two plots side by side.
    """
    return VIEWS[view].draw(run, phase, wide)


def accuracy(run: Run, phase: int, wide: bool) -> Drawing:
    """Test accuracy after each phase, of old, new and all classes."""
    phases = run["phases"]
    lines = (
        ("all, by the head", "cnn", BLACK, "dot", "diamond"),
        ("all, by NME", "nme", GREEN, "dashdot", "triangle-up"),
        ("old classes", "cnn_old", OLD, "solid", "circle"),
        ("new classes", "cnn_new", NEW, "dash", "square"),
    )
    traces = [
        _line(name, range(len(phases)), [p[key] for p in phases], colour, dash, symbol)
        for name, key, colour, dash, symbol in lines
    ]
    layout = _layout(wide, ("test accuracy (%)", "phase", ""))
    layout["yaxis"]["range"] = [0, 100]
    _mark(layout, phase, len(phases))
    now = phases[phase]
    words = f"After phase {phase}: {now['cnn']:.1f} % of all {now['classes_seen']} classes' images"
    words += f" are right{_also(', by NME', now['nme'])}{_also('; old classes', now['cnn_old'])}"
    words += f", new ones {now['cnn_new']:.1f} %."
    return Drawing(traces, layout, words)


def norms(run: Run, phase: int, wide: bool) -> Drawing:
    """The length of each class's embedding, and its bias or mean logit, old and new told apart."""
    num_old, seen = run["bounds"][phase : phase + 2]
    second = ("bias", "biases")
    if "biases" not in run.arrays:
        second = ("mean logit (this head has no biases)", "mean_logits")
    traces, words = [], []
    for number, (title, key) in enumerate((("length", "weight_norms"), second)):
        values = run.arrays[key][phase].astype(float).round(4)
        for kind, part in (("old", slice(num_old)), ("new", slice(num_old, seen))):
            traces.append(
                {
                    "type": "bar", "name": f"{kind} classes", "x": np.arange(seen)[part],
                    "y": values[part], "customdata": run["classes"][part],
                    "hovertemplate": "%{customdata}: %{y:.3f}", "showlegend": not number,
                    "marker": {"color": OLD if kind == "old" else NEW, "line": {"width": 0},
                               "pattern": {"shape": "" if kind == "old" else "/"}},
                    **_second(number),
                }
            )  # fmt: skip
        name = title.partition(" (")[0]
        if num_old:
            old, new = values[:num_old].mean(), values[num_old:seen].mean()
            words.append(f"{name}: old {old:.2f}, new {new:.2f} on average")
        else:
            words.append(f"{name}: {values[:seen].mean():.2f} on average")
    arrival = "class, in order of arrival"
    layout = _layout(
        wide, ("length of class embeddings", arrival, ""), (second[0], arrival, "")
    ) | {"bargap": 0, "barmode": "overlay"}
    for number in ("", "2"):
        layout[f"xaxis{number}"]["range"] = [-0.5, run["bounds"][-1] - 0.5]
    layout["yaxis"]["range"] = [0, 1.05 * float(np.nanmax(run.arrays["weight_norms"]))]
    low, high = np.nanmin(run.arrays[second[1]]), np.nanmax(run.arrays[second[1]])
    layout["yaxis2"]["range"] = [1.05 * min(0, float(low)), 1.05 * max(0, float(high))]
    return Drawing(traces, layout, f"After phase {phase}: {'; '.join(words)}.")


def confusion(run: Run, phase: int, wide: bool) -> Drawing:
    """The confusion matrix, and where old and new classes' images go."""
    num_old, seen = run["bounds"][phase : phase + 2]
    counts = run.arrays["confusion_cnn"][phase][:seen, :seen]
    names = run["classes"][:seen]
    traces = [
        _matrix(names, np.rint(100 * counts / counts.sum(axis=1, keepdims=True)),
                "%{y} read as %{x}: %{z} %")
    ]  # fmt: skip
    sides = run.old_new_confusion(phase)
    bars = (
        ("right", BLUE, "", (sides.old_correct, sides.new_correct)),
        ("wrong, within old or new", SKY, "/", (sides.old_to_old, sides.new_to_new)),
        ("wrong, old for new or new for old", ORANGE, "x", (sides.old_to_new, sides.new_to_old)),
    )
    for name, colour, pattern, values in bars:
        values = [None if np.isnan(value) else round(value, 1) for value in values]
        traces.append(
            {
                "type": "bar", "name": name, "x": ["old classes", "new classes"], "y": values,
                "hovertemplate": f"{name}: %{{y}} %", "text": [_short(v) for v in values],
                "textposition": "inside", "insidetextanchor": "middle", "textangle": 0,
                "constraintext": "none",
                "textfont": {"color": "white" if colour == BLUE else "black", "size": 11},
                "marker": {"color": colour, "pattern": {"shape": pattern, "fgopacity": 0.35}},
                **_second(1),
            }
        )  # fmt: skip
    layout = _layout(
        wide, ("share of a class's images (%)", "read as", "class"), ("where images go (%)", "", "")
    ) | {"barmode": "stack"}  # fmt: skip
    _square(layout, 100, run["bounds"][1 : phase + 1])
    layout["yaxis2"]["range"] = [0, 100]
    words = f"After phase {phase}, of new classes' images {sides.new_correct:.0f} % are right"
    if num_old:
        words += f" and {sides.new_to_old:.0f} % taken for old ones; of old classes' "
        words += f"{sides.old_correct:.0f} % are right and {sides.old_to_new:.0f} % taken for new"
    off = counts - np.diag(np.diag(counts))
    row, column = np.unravel_index(off.argmax(), off.shape)
    mistake = f"{names[row]} read as {names[column]}" if off.any() else "none"
    return Drawing(traces, layout, f"{words}. The commonest mistake: {mistake}.")


def angles(run: Run, phase: int, wide: bool) -> Drawing:
    """Angles between class embeddings: all of them; and old pairs compared with old and new."""
    num_old, seen = run["bounds"][phase : phase + 2]
    names = run["classes"][:seen]
    degrees = run.arrays["embedding_angles"][phase][:seen, :seen]
    traces = [_matrix(names, degrees, "%{y} and %{x}: %{z}°")]
    within = num_old or seen  # in the base phase all classes are of one kind
    alike = "two old classes" if num_old else "two classes"
    pairs = {
        alike: degrees[:within, :within][np.triu_indices(within, 1)],
        "an old and a new one": degrees[:num_old, num_old:seen].ravel(),
    }
    edges = np.arange(0, 185, 5)
    styles = ((OLD, "solid", "circle"), (NEW, "dash", "square"))
    for (name, values), style in zip(pairs.items(), styles, strict=True):
        share = (100 * np.histogram(values, edges)[0] / max(1, len(values))).round(2)
        there = slice(None if len(values) else 0)  # in the base phase there is no old class
        trace = _line(name, edges[:-1][there] + 2.5, share[there], *style)
        traces.append(trace | {"hovertemplate": "%{x}°: %{y:.1f} % of the pairs", **_second(1)})
    layout = _layout(
        wide, ("angle (degrees)", "", "class"), ("share of the pairs (%)", "angle (degrees)", "")
    )
    _square(layout, 180, run["bounds"][1 : phase + 1])
    layout["xaxis2"]["range"] = [0, 180]
    highest = max(max(trace["y"], default=0) for trace in traces[1:])
    layout["yaxis2"]["range"] = [0, 1.05 * highest or 100]
    words = f"After phase {phase}: there are no {alike} yet"
    if len(pairs[alike]):
        words = f"After phase {phase}: {alike} are {pairs[alike].mean():.0f}° apart on average"
    if num_old:
        between = degrees[:num_old, num_old:seen]
        row, column = np.unravel_index(between.argmin(), between.shape)
        words += f", an old and a new one {between.mean():.0f}°. The nearest old and"
        words += f" new class: {names[row]} and {names[num_old + column]}, {between.min()}°."
    else:
        words += "."
    return Drawing(traces, layout, words)


def features(run: Run, phase: int, wide: bool) -> Drawing:
    """Where features of test images are, and how far those of the base classes have moved."""
    num_old, seen = run["bounds"][phase : phase + 2]
    base = run["bounds"][1]
    positions = run.arrays["positions"].astype(float).round(3)
    now, before = positions[phase], positions[0]
    moved = np.stack([before[:base], now[:base], np.full_like(now[:base], np.nan)], axis=2)
    paths = moved.reshape(-1, 2)
    traces = [
        {
            "type": "scatter", "mode": "lines", "name": "moved since the base phase",
            "x": paths[:, 0], "y": paths[:, 1], "hoverinfo": "skip",
            "line": {"color": "#bbbbbb", "width": 1},
        }
    ]  # fmt: skip
    for kind, part, colour, symbol in (
        ("old", slice(num_old), OLD, "circle"),
        ("new", slice(num_old, seen), NEW, "diamond"),
    ):
        points = now[part].reshape(-1, 2)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": f"{kind} classes",
                "x": points[:, 0], "y": points[:, 1], "hovertemplate": "%{customdata}",
                "customdata": np.repeat(run["classes"][part], now.shape[1]).tolist(),
                "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.8},
            }
        )  # fmt: skip
    layout = _layout(
        wide,
        (
            "directions of features, in the plane of the base phase",
            "along the direction of most spread",
            "along that of second most",
        ),
    )
    low, high = np.nanmin(positions, axis=(0, 1, 2)), np.nanmax(positions, axis=(0, 1, 2))
    for axis, a, b in zip(("xaxis", "yaxis"), low, high, strict=True):
        layout[axis] |= {"range": [float(a) - 0.05, float(b) + 0.05], "zeroline": False}
    layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
    layout["xaxis"]["constrain"] = "domain"
    layout["height"] = 480
    distance = np.nanmean(np.linalg.norm(now[:base] - before[:base], axis=-1))
    return Drawing(traces, layout, (
        f"After phase {phase}: {np.isfinite(now[:, :, 0]).sum()} test images. Those of the base "
        f"classes have moved by {distance:.2f} on average since the base phase, "
        f"where the plane is {high[0] - low[0]:.2f} wide."
    ))  # fmt: skip


def losses(run: Run, phase: int, wide: bool) -> Drawing:
    """The terms of the objective over time, a point per epoch.

    Class-balance fine-tuning follows a phase's epochs, on other images: it is left out.
    """
    traces, words, epochs = [], [], run["config"]["epochs"]
    for term, (colour, dash) in LOSSES.items():
        x: list[float] = []
        y: list[float | None] = []
        for number, one in enumerate(run["phases"]):
            means = one["losses"].get(term, [])[:epochs]
            x += [number - 1 + (epoch + 1) / len(means) for epoch in range(len(means))] + [number]
            y += [*means, None]
        name = term.replace("_", " ")
        present = any(value is not None for value in y)
        traces.append(_line(name, np.round(x, 3), y, colour, dash, "circle") | {"visible": present})
        means = run["phases"][phase]["losses"].get(term, [])[:epochs]
        means = [mean for mean in means if mean is not None]
        if means:
            words.append(f"{name} from {means[0]:.2f} to {means[-1]:.2f}")
    layout = _layout(
        wide, ("loss terms, with their weights", "phase, at its end (a point per epoch)", "")
    )
    _mark(layout, phase, len(run["phases"]))
    layout["xaxis"] |= {"range": [-1.05, len(run["phases"]) - 0.9], "tickmode": "array",
                        "tickvals": list(range(len(run["phases"])))}  # fmt: skip
    highest = max((value for trace in traces for value in trace["y"] if value), default=1)
    layout["yaxis"]["range"] = [0, 1.05 * highest]
    said = "; ".join(words) or "it was not trained here"
    if run["config"]["balanced_finetune"]:
        said += " (before the class-balance fine-tuning)"
    return Drawing(traces, layout, f"In phase {phase}, first and last epoch's mean: {said}.")


class View(NamedTuple):
    """A view's title, how it is drawn, and whether its first plot is of pairs of classes."""

    title: str
    draw: Any
    pairs: bool = False


VIEWS = {
    "accuracy": View("accuracy", accuracy),
    "norms": View("lengths and biases", norms),
    "confusion": View("confusion", confusion, pairs=True),
    "angles": View("angles between embeddings", angles, pairs=True),
    "features": View("features", features),
    "losses": View("loss terms", losses),
}


def figures(run: Run, phase: int) -> dict[str, float | None]:
    """The figures that two runs are compared by, with their names."""
    now = run["phases"][phase]
    ratio = None
    if now["weight_norm_old"]:
        ratio = 100 * (now["weight_norm_new"] / now["weight_norm_old"] - 1)
    return {
        "accuracy on all classes seen, head (%)": now["cnn"],
        "the same, NME (%)": now["nme"],
        "old classes (%)": now["cnn_old"],
        "new classes (%)": now["cnn_new"],
        "old taken for new (%)": now["old_to_new"],
        "new embeddings longer than old by (%)": ratio,
        "whole run: average incremental accuracy (%)": run["average_incremental_accuracy"]["cnn"],
        "whole run: forgetting (points)": run["forgetting"]["cnn"],
    }


def known(run: Run) -> list[str]:
    """The views that a run has the data for."""
    missing = {
        "norms": not {"biases", "mean_logits"} & run.arrays.keys(),
        "angles": "embedding_angles" not in run.arrays,
        "features": "positions" not in run.arrays,
        "losses": not any(phase.get("losses") for phase in run["phases"]),
    }
    return [name for name in VIEWS if not missing.get(name)]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells as an HTML table; the first row has the headings."""
    cell, lines = "style='text-align:left;padding:1px 14px 1px 0'", []
    for row in rows:
        tag = "td" if lines else "th"
        lines.append("".join(f"<{tag} {cell}>{escape(text)}</{tag}>" for text in row))
    return f"<table style='line-height:1.4'>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


# ---- Parts ------------------------------------------------------------------------------------

ROOM = {  # of two plots: side by side where there is width, else one above the other
    True: ({"x": [0, 0.45], "y": [0, 1]}, {"x": [0.55, 1], "y": [0, 1]}),
    False: ({"x": [0, 1], "y": [0.6, 1]}, {"x": [0, 1], "y": [0, 0.4]}),
}


def _line(
    name: str, x: Sequence, y: Sequence, colour: str, dash: str, symbol: str
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": list(x), "y": list(y),
        "line": {"color": colour, "dash": dash}, "marker": {"symbol": symbol, "size": 6},
    }  # fmt: skip


def _matrix(names: Sequence[str], values: np.ndarray, hover: str) -> dict[str, Any]:
    return {
        "type": "heatmap", "x": list(names), "y": list(names), "z": values.astype(np.uint8),
        "coloraxis": "coloraxis", "hovertemplate": f"{hover}<extra></extra>",
    }  # fmt: skip


def cell(trace: Mapping[str, Any], row: str, column: str) -> str:
    """What a matrix's hover text says of two classes."""
    value = trace["z"][list(trace["y"]).index(row)][list(trace["x"]).index(column)]
    words = trace["hovertemplate"].removesuffix("<extra></extra>")
    parts = {"z": value, "y": row, "x": column}
    return re.sub(r"%\{([xyz])\}", lambda match: str(parts[match[1]]), words)


def _second(number: int) -> dict[str, str]:
    return {"xaxis": "x2", "yaxis": "y2"} if number else {}


def _layout(wide: bool, *plots: tuple[str, str, str]) -> dict[str, Any]:
    """For one plot or two, each with a title and the names of its axes."""
    beside = wide or len(plots) == 1
    layout: dict[str, Any] = {
        "height": 360 if beside else 560,
        "margin": {"l": 45, "r": 10, "t": 30, "b": 88 if beside else 118},
        "showlegend": True,  # also of a single curve
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom",
                   "font": {"size": 11}},
        "hovermode": "closest",
        "annotations": [],
    }  # fmt: skip
    for number, (title, x, y) in enumerate(plots):
        domains = ROOM[wide][number] if len(plots) == 2 else {"x": [0, 1], "y": [0, 1]}
        tail = "2" if number else ""
        for axis, name, other in (("x", x, "y"), ("y", y, "x")):
            layout[f"{axis}axis{tail}"] = {
                "domain": domains[axis], "anchor": f"{other}{tail}",
                "title": {"text": name, "standoff": 4, "font": {"size": 12}},
            }  # fmt: skip
        layout["annotations"].append(
            {
                "text": title, "showarrow": False, "xref": "paper", "yref": "paper",
                "x": sum(domains["x"]) / 2, "xanchor": "center",
                "y": domains["y"][1], "yanchor": "bottom", "font": {"size": 13},
            }
        )  # fmt: skip
    return layout


def _mark(layout: dict[str, Any], phase: int, phases: int) -> None:
    """A line at the phase that is shown."""
    layout["shapes"] = [
        {"type": "line", "x0": phase, "x1": phase, "yref": "paper", "y0": 0, "y1": 1,
         "line": {"color": "#999999", "width": 1, "dash": "dot"}}
    ]  # fmt: skip
    layout["xaxis"] |= {"range": [-0.15, phases - 0.85], "dtick": 1}


def _square(layout: dict[str, Any], highest: float, edges: Sequence[int]) -> None:
    """For a matrix of classes: the first at the top left, lines where phases begin, a scale."""
    (_, right), (low, high) = layout["xaxis"]["domain"], layout["yaxis"]["domain"]
    layout["coloraxis"] = {
        "cmin": 0, "cmax": highest, "colorscale": "Cividis",
        "colorbar": {"thickness": 8, "tickfont": {"size": 9}, "outlinewidth": 0,
                     "x": right, "y": (low + high) / 2, "len": high - low},
    }  # fmt: skip
    layout["xaxis"] |= {"type": "category", "nticks": 25, "tickfont": {"size": 9}, "tickangle": 0}
    layout["yaxis"] |= {"type": "category", "nticks": round(20 * (high - low)),
                        "tickfont": {"size": 9}, "autorange": "reversed"}  # fmt: skip
    line = {"type": "line", "line": {"color": "white", "width": 0.7}}
    layout["shapes"] = [
        shape
        for edge in edges
        for shape in (
            {**line, "x0": edge - 0.5, "x1": edge - 0.5, "yref": "y domain", "y0": 0, "y1": 1},
            {**line, "y0": edge - 0.5, "y1": edge - 0.5, "xref": "x domain", "x0": 0, "x1": 1},
        )
    ]


def _also(name: str, value: float | None) -> str:
    return "" if value is None else f"{name} {value:.1f} %"


def _short(value: float | None) -> str:
    """The text in a bar; none where the bar is too low for it."""
    return "" if value is None or value < 6 else f"{value:.1f}"
