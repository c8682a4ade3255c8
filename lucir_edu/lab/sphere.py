"""A network with three features: its class embeddings and features on the unit sphere.

A :class:`Snapshot` per phase; :func:`picture` draws them with matplotlib, :func:`figure` with
plotly, for :class:`lucir_edu.lab.panels.SpherePanel` to turn. Old classes are blue circles on
solid lines, new ones orange diamonds on dashed lines.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from plotly.subplots import make_subplots
from torch import nn

from lucir_edu import hardware
from lucir_edu.config import Config
from lucir_edu.datasets import Dataset
from lucir_edu.lab import DEVICE, lessons
from lucir_edu.lab.plots import NEW, OF_WORDS, OLD, Described
from lucir_edu.losses import unit
from lucir_edu.trainer import Learner, Measurement, PhaseEnd

STYLES = {  # colour, plotly's marker and line, matplotlib's line
    "old": (OLD, "circle", "solid", "-"),
    "new": (NEW, "diamond", "dash", "--"),
}
ELEVATION, TURN = 20, 35  # degrees, from where a picture is seen
Views = Mapping[str, Sequence["Snapshot"]]  # name of the network -> a snapshot per phase


@dataclass(frozen=True)
class Snapshot:
    """A network with 3-d features after a phase; C classes seen, n test images."""

    classes: Sequence[str]  # C names
    num_old: int
    embeddings: np.ndarray  # (C, 3), of length one
    features: np.ndarray  # (n, 3), of length one
    labels: np.ndarray  # (n,)
    measurement: Measurement

    def side(self, name: str) -> tuple[range, np.ndarray]:
        """The "old" or "new" classes, and which features are theirs."""
        if name == "old":
            return range(self.num_old), self.labels < self.num_old
        return range(self.num_old, len(self.classes)), self.labels >= self.num_old


def record(
    config: Config, dataset: Dataset, backbone: nn.Module, per_class: int = 15
) -> list[Snapshot]:
    """Train, and look at some test images of each class after every phase.

    Args:
        config: with ``feature_dim=3``.
        backbone: already trained; a linear layer takes its features to three.
    """
    learner = Learner(config, dataset, hardware.pick_device(DEVICE))
    learner.net.backbone[0].load_state_dict(backbone.state_dict())
    snapshots = []
    for event in itertools.chain.from_iterable(map(learner.learn, learner.stream.phases)):
        if not isinstance(event, PhaseEnd):
            continue
        done = event.measurement
        output, labels = lessons.look(event.model, config, dataset, range(done.classes_seen))
        rows = np.concatenate(
            [np.flatnonzero(labels.cpu() == c)[:per_class] for c in range(done.classes_seen)]
        )
        snapshots.append(
            Snapshot(
                classes=learner.stream.dataset.classes[: done.classes_seen],
                num_old=snapshots[-1].measurement.classes_seen if snapshots else 0,
                embeddings=unit(event.model.head.weight.detach()).cpu().numpy(),
                features=unit(output.features).cpu().numpy()[rows],
                labels=labels.cpu().numpy()[rows],
                measurement=done,
            )
        )
    return snapshots


def picture(views: Views) -> Described:
    """A row of spheres for each network, a column per phase."""
    columns = max(len(snapshots) for snapshots in views.values())
    figure = Figure(figsize=(9, 3.2 * len(views)), layout="constrained")
    words = []
    for row, (name, snapshots) in enumerate(views.items()):
        for column, shot in enumerate(snapshots):
            axes = figure.add_subplot(len(views), columns, row * columns + column + 1,
                                      projection="3d", computed_zorder=False)  # fmt: skip
            _draw(axes, shot)
            axes.set_title(
                f"{name}, phase {column}: {shot.measurement.cnn:.0f} % right", fontsize=9
            )
        accuracies = ", ".join(f"{shot.measurement.cnn:.0f}" for shot in snapshots)
        words.append(f"{name}: {accuracies} % right after each phase")
    return figure, (
        f"Class embeddings (lines that end in a large letter) and test features (small letters, "
        f"pale on the far side) on the unit sphere, old classes blue with solid lines, new "
        f"ones orange with dashed ones. {'; '.join(words)}."
    )


def _draw(axes: object, shot: Snapshot) -> None:
    halo = withStroke(linewidth=2.5, foreground="white")
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    ball = (np.cos(u) * np.sin(v), np.sin(u) * np.sin(v), np.cos(v))
    axes.plot_wireframe(*ball, color="#bbbbbb", linewidth=0.3)
    elevation, turn = np.deg2rad((ELEVATION, TURN))
    eye = np.array([np.cos(elevation) * np.cos(turn), np.cos(elevation) * np.sin(turn),
                    np.sin(elevation)])  # fmt: skip
    for name, (colour, _, _, line) in STYLES.items():
        classes, _ = shot.side(name)
        for c in classes:
            points = shot.features[shot.labels == c]
            near = points @ eye > 0
            for side, alpha in ((near, 0.9), (~near, 0.3)):
                axes.scatter(*points[side].T, color=colour, marker=f"${shot.classes[c]}$", s=30,
                             alpha=alpha, linewidths=0, depthshade=False)  # fmt: skip
            end = shot.embeddings[c]
            axes.plot(*np.stack([np.zeros(3), end]).T, line, color=colour, linewidth=1.5)
            axes.text(*(1.2 * end), shot.classes[c], color=OF_WORDS.get(colour, colour),
                      ha="center", va="center", fontsize=11, weight="bold",
                      path_effects=[halo])  # fmt: skip
    axes.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1))
    axes.set_box_aspect((1, 1, 1), zoom=1.3)
    axes.view_init(elev=ELEVATION, azim=TURN)
    axes.set_axis_off()


def figure(views: Views) -> go.Figure:
    """The same, to be turned by hand: networks side by side, the last phase's traces visible.

    A trace's ``meta`` is the phase that it belongs to; None: it is shown in all.
    """
    drawn = make_subplots(
        1, len(views), specs=[[{"type": "scene"}] * len(views)], subplot_titles=list(views),
        horizontal_spacing=0.02,
    )  # fmt: skip
    for column, snapshots in enumerate(views.values(), 1):
        drawn.add_trace(_ball(), row=1, col=column)
        for phase, shot in enumerate(snapshots):
            for trace in _traces(shot, legend=column == 1):
                trace.update(meta=phase, visible=phase == len(snapshots) - 1)
                drawn.add_trace(trace, row=1, col=column)
    axis = {"visible": False, "range": [-1.15, 1.15]}
    drawn.update_scenes(xaxis=axis, yaxis=axis, zaxis=axis, aspectmode="cube")
    drawn.update_layout(
        template="plotly_white", height=480, margin={"l": 0, "r": 0, "t": 40, "b": 60},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "y": -0.01, "yanchor": "top",
                "itemsizing": "constant"},
    )  # fmt: skip
    return drawn


def _ball() -> go.Scatter3d:
    """Meridians and parallels, as one line with gaps."""
    turn, gap = np.append(np.linspace(0, 2 * np.pi, 49), np.nan), np.pi / 6
    lines = []
    for k in range(6):
        lines.append((np.cos(k * gap) * np.cos(turn), np.sin(k * gap) * np.cos(turn), np.sin(turn)))
        height = np.sin((k - 2.5) * gap / 1.2)
        around = np.sqrt(1 - height**2)
        level = np.where(np.isnan(turn), np.nan, height)
        lines.append((around * np.cos(turn), around * np.sin(turn), level))
    x, y, z = np.concatenate(lines, axis=1)
    return go.Scatter3d(x=x, y=y, z=z, mode="lines", showlegend=False, hoverinfo="skip",
                        line={"color": "#dddddd", "width": 1})  # fmt: skip


def _traces(shot: Snapshot, legend: bool) -> list[go.Scatter3d]:
    traces = []
    for name, (colour, symbol, dash, _) in STYLES.items():
        classes, chosen = shot.side(name)
        points = shot.features[chosen]
        traces.append(go.Scatter3d(
            x=points[:, 0], y=points[:, 1], z=points[:, 2], mode="markers",
            name=f"features of {name} classes", legendgroup=f"dots {name}", showlegend=legend,
            marker={"color": colour, "symbol": symbol, "size": 2.5, "opacity": 0.6},
            text=[shot.classes[c] for c in shot.labels[chosen]], hovertemplate="%{text}",
        ))  # fmt: skip
        ends = np.stack([shot.embeddings[c] for c in classes]) if len(classes) else np.empty((0, 3))
        rays = np.full((len(ends), 3, 3), np.nan)
        rays[:, 0], rays[:, 1] = 0, ends  # a gap after each
        names = [(None, shot.classes[c], None) for c in classes]
        rays = rays.reshape(-1, 3)
        traces.append(go.Scatter3d(
            x=rays[:, 0], y=rays[:, 1], z=rays[:, 2], mode="lines+text",
            name=f"embeddings of {name} classes", legendgroup=f"rays {name}", showlegend=legend,
            line={"color": colour, "dash": dash, "width": 5}, hoverinfo="skip",
            text=[text for three in names for text in three],
            textfont={"color": colour, "size": 16},
        ))  # fmt: skip
    return traces
