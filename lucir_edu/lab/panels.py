"""Panels: the parts of LUCIR to switch on and off, trained while the learner watches."""

import dataclasses
from collections.abc import Callable, Mapping
from html import escape

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from lucir_edu import hardware, runs, stream, trainer
from lucir_edu.config import Config, UsageError, method_of
from lucir_edu.datasets import Dataset
from lucir_edu.lab import DEVICE, plots, sphere, views
from lucir_edu.lab.keyboard import Keyboard, told, without_bar
from lucir_edu.lab.live import Live, Probe, Throttle
from lucir_edu.lab.plots import BLACK, NEW, OLD
from lucir_edu.lab.views import COMPONENTS, LOSSES, WIDTH
from lucir_edu.model import IncrementalModel
from lucir_edu.trainer import (
    EpochEnd,
    Event,
    Measurement,
    PhaseEnd,
    PhaseStart,
    State,
    StepEnd,
)

ACCURACIES = {  # colour, line, marker
    "old classes": (OLD, "solid", "circle"),
    "new classes": (NEW, "dash", "square"),
    "all seen": (BLACK, "dot", "diamond"),
}


class TrainingPanel(widgets.VBox):
    """Switch components on and off, train for real, and watch the curves and the weight norms.

    Args:
        config: what the switches are applied to; they start from its own.
        dataset: as returned by :func:`lucir_edu.datasets.load`.
        bases: networks that have learned the base phase, "linear" and "cosine", so that training
            starts at phase 1; a missing one is learned first.

    Attributes:
        runs: what has been trained here, a :class:`lucir_edu.runs.Run` per setting.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        bases: Mapping[str, State] | None = None,
    ) -> None:
        self.config, self.dataset = config, dataset
        self.stream = stream.make(config, dataset)
        self.bases = dict(bases or {})
        self.runs: dict[str, runs.Run] = {}
        self._curves: dict[str, _Curves] = {}
        self._earlier: tuple[runs.Run, _Curves] | None = None  # of the setting that is trained anew
        self._live, self._probe, self._redraw = Live(), Probe(config, dataset), Throttle(5)
        self._shown = _Curves()

        self.switches = {
            name: widgets.Checkbox(value=getattr(config, name), description=words, indent=False)
            for name, (_, words) in COMPONENTS.items()
        }
        self.exemplars = widgets.IntSlider(
            value=config.exemplars_per_class,
            min=0,
            max=max(20, config.exemplars_per_class),
            description="exemplars per class",
            style={"description_width": "initial"},
            continuous_update=False,
            layout={"width": "380px"},
        )
        self.train_button = widgets.Button(
            description="Train", icon="play", button_style="primary", tooltip="Train this setting"
        )
        self.stop_button = widgets.Button(
            description="Stop", icon="stop", disabled=True, tooltip="Stop the training"
        )
        self.progress = widgets.IntProgress(min=0, max=1, layout={"width": "220px"})
        self.status = told()
        self.figure = self._make_figure()
        self.table = widgets.HTML()
        for control in (*self.switches.values(), self.exemplars):
            control.observe(self._on_change, "value")
        self.train_button.on_click(lambda _: self.train())
        self.stop_button.on_click(lambda _: self.stop())
        for box in self.switches.values():
            box.layout.width = "auto"
        row = widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 16px")
        super().__init__(
            [
                widgets.HBox([*self.switches.values(), self.exemplars], layout=row),
                widgets.HBox([self.train_button, self.stop_button, self.progress], layout=row),
                self.status,  # in a line of its own, or the figure would jump when it grows
                self.figure,
                widgets.HTML(
                    f"<small>Test accuracy during a phase: on {self._probe.per_class} "
                    "images of each class; at its end: on all.</small>"
                ),
                self.table,
                Keyboard(),
            ]
        )
        self._on_change()

    # ---- What the learner does ----

    def setting(self) -> Config:
        """The config with the switches as they stand."""
        values = {name: box.value for name, box in self.switches.items()}
        kept = {"exemplars_per_class": self.exemplars.value, "memory_total": None}
        return dataclasses.replace(self.config, **values, **kept)

    def train(self) -> None:
        """Train the setting shown; a training that runs is stopped first."""
        self._keep_the_longer()
        config = self.setting()
        base = self.bases.get("cosine" if config.cosine else "linear")
        events = trainer.train(config, self.dataset, device=DEVICE, start=base)
        self._shown = _Curves()
        self._config, self._measurements = config, []
        self._name = self._name_of(config)
        device = hardware.pick_device(DEVICE)
        environment = hardware.describe(device, hardware.pick_precision(config.precision, device))
        self._about = {"preset": "", "method": method_of(config), "environment": environment}
        self._earlier = None
        if self._name in self.runs:
            self._earlier = self.runs.pop(self._name), self._curves.pop(self._name)
        self._draw_table()
        self._set_running(True)
        self._live.start(events, self._on_event, self._on_finish)

    def stop(self) -> None:
        """Stop the training; the phases that are done are kept, or those of an earlier training of
        the same setting if they are more."""
        self._live.stop()

    @property
    def running(self) -> bool:
        return self._live.running

    # ---- What happens ----

    def _on_event(self, event: Event) -> None:
        shown = self._shown
        if isinstance(event, PhaseStart):
            shown.phase, shown.num_old, shown.steps = event.phase, event.num_old, event.steps
            shown.is_learned = False
            self.progress.max, self.progress.value = event.steps, 0
            self.status.value = (
                f"phase {event.phase} of {event.phases - 1}: {event.num_new} new classes with "
                f"{event.images_new} images, {event.num_old} old ones with {event.images_old}"
            )
        elif isinstance(event, StepEnd | EpochEnd) and shown.is_learned:
            self.status.value = f"phase {event.phase}: class-balance fine-tuning"
        elif isinstance(event, StepEnd):
            shown.losses = event.losses
            if self._redraw():
                self.progress.value = event.step
                shown.add_losses(event.step)
                self._draw_curves()
        elif isinstance(event, EpochEnd):
            found = self._probe(event.model, shown.num_old)
            shown.add_accuracies(event.epoch / self._config.epochs, found)
            shown.norms = _norms(event.model)
            shown.is_learned = event.epoch == self._config.epochs
            self.progress.value = self.progress.max * event.epoch // self._config.epochs
            self._draw_curves()
        elif isinstance(event, PhaseEnd):
            self._measurements.append(event.measurement)
            self._show_embeddings(event.measurement)
            shown.end_phase(event.measurement)
            self.runs[self._name], self._curves[self._name] = self._assemble(), shown
            self._draw_curves()
            self._draw_table()

    def _show_embeddings(self, measurement: Measurement) -> None:
        self._shown.norms = measurement.arrays["weight_norms"]
        # After the base phase all are old, as before the training
        num_old = self.stream.phases[measurement.phase].num_old
        self._shown.num_old = num_old or len(self._shown.norms)

    def _on_finish(self, how: str) -> None:
        self._set_running(False)
        if self._keep_the_longer():
            self._shown = self._curves[self._name]
            self._draw_curves()
            self._draw_table()
        elif self._name in self.runs:
            self._show_embeddings(self._measurements[-1])  # not those of a half-learned phase
            self._draw_curves()
        done = max(0, len(self._measurements) - 1)
        if how == "done":
            self.status.value = f"done: {self._name}"
        elif how == "stopped":
            self.status.value = f"stopped after {done} new phase{'s' * (done != 1)}: {self._name}"
        else:
            self.status.value = f"<b>stopped by an error</b>: {escape(how)}"

    def _keep_the_longer(self) -> bool:
        """Put back what a setting had before it was trained anew, if that has more phases."""
        earlier, self._earlier = self._earlier, None
        new = self.runs.get(self._name) if earlier else None
        if earlier is None or (new and len(new["phases"]) >= len(earlier[0]["phases"])):
            return False
        self.runs[self._name], self._curves[self._name] = earlier
        return True

    def _on_change(self, _: object = None) -> None:
        """Show what is known of the setting: its training, or the base phase before it."""
        if self._live.running:
            return
        try:
            config = self.setting()
        except UsageError as error:  # a callback has no cell to raise it under
            self.status.value = f"<b>{escape(str(error))}</b>"
            return
        name = self._name_of(config)
        if name in self.runs:
            self._shown = self._curves[name]
            self.status.value = f"trained before: {name}"
        else:
            self._shown = _Curves()
            base = self.bases.get("cosine" if config.cosine else "linear")
            if base is not None:
                self._shown.norms = np.linalg.norm(base.weights["head.new_weight"].numpy(), axis=1)
                self._shown.num_old = len(self._shown.norms)  # as they will be in phase 1
            self.status.value = f"not trained yet: {name}"
        self._draw_curves()

    def _set_running(self, running: bool) -> None:
        for control in (*self.switches.values(), self.exemplars, self.train_button):
            control.disabled = running
        self.stop_button.disabled = not running
        if running:
            self.status.value = "looking at the base phase …"
            self.progress.value = 0

    def _assemble(self) -> runs.Run:
        return runs.assemble(self._measurements, self._config, self.stream, **self._about)

    def _name_of(self, config: Config) -> str:
        count = config.exemplars_per_class
        return f"{method_of(config)}, {count} exemplar{'s' * (count != 1)}"

    # ---- Drawing ----

    def _make_figure(self) -> go.FigureWidget:
        figure = go.FigureWidget(
            make_subplots(
                1,
                3,
                subplot_titles=("loss terms", "test accuracy (%)", "length of class embeddings"),
                horizontal_spacing=0.07,
            )
        )
        for name, (colour, dash) in LOSSES.items():
            figure.add_scatter(
                row=1, col=1, name=name.replace("_", " "), mode="lines", visible=False,
                line={"color": colour, "dash": dash}, legend="legend",
            )  # fmt: skip
        for name, (colour, dash, marker) in ACCURACIES.items():
            figure.add_scatter(
                row=1, col=2, name=name, mode="lines+markers", legend="legend2",
                line={"color": colour, "dash": dash}, marker={"symbol": marker, "size": 5},
            )  # fmt: skip
        for name, colour, pattern in (("old", OLD, ""), ("new", NEW, "/")):
            figure.add_bar(
                row=1, col=3, name=f"{name} classes", legend="legend3",
                marker={"color": colour, "pattern": {"shape": pattern}, "line": {"width": 0}},
                hovertemplate="class %{customdata}: %{y:.2f}",
            )  # fmt: skip
        first, last = -1 if len(self.bases) < 2 else 0, len(self.stream.phases) - 1
        for column in (1, 2):
            figure.update_xaxes(
                title_text="phase", range=[first - 0.05, last + 0.1], dtick=1,
                row=1, col=column,
            )  # fmt: skip
        figure.update_xaxes(title_text="class, in order of arrival", row=1, col=3)
        figure.update_yaxes(range=[0, 100], row=1, col=2)
        figure.update_yaxes(rangemode="tozero", row=1, col=1)
        legend = {"y": -0.25, "yanchor": "top", "font": {"size": 11}}
        figure.update_layout(
            template="plotly_white",
            height=390,
            width=WIDTH,
            showlegend=True,
            margin={"l": 40, "r": 10, "t": 40, "b": 120},
            bargap=0,
            barmode="overlay",
            hovermode="closest",
            legend={**legend, "x": 0},
            legend2={**legend, "x": 0.357},
            legend3={**legend, "x": 0.713},
        )
        return without_bar(figure)

    def _draw_curves(self) -> None:
        shown, traces = self._shown, list(self.figure.data)
        with self.figure.batch_update():
            for trace, name in zip(traces, LOSSES, strict=False):
                points = shown.history.get(name, [])
                trace.visible = bool(points)
                trace.x, trace.y = _xy(points)
            for trace, name in zip(traces[len(LOSSES) :], ACCURACIES, strict=False):
                trace.x, trace.y = _xy(shown.accuracies[name])
            old, new = traces[-2:]
            classes = np.arange(len(shown.norms))
            for trace, part in ((old, slice(shown.num_old)), (new, slice(shown.num_old, None))):
                trace.x, trace.y = classes[part], shown.norms[part]
                trace.customdata = self.stream.dataset.classes[: len(classes)][part]

    def _draw_table(self) -> None:
        rows = [("trained here", "phases", "average", "last", "old taken for new",
                 "newest embeddings longer by")]  # fmt: skip
        for name, run in self.runs.items():
            gap, final = runs.norm_gap(run), run["phases"][-1]["old_to_new"]
            rows.append((
                name,
                f"{len(run['phases']) - 1} of {len(self.stream.phases) - 1}",
                f"{run['average_incremental_accuracy']['cnn']:.1f} %",
                f"{run['last_accuracy']['cnn']:.1f} %",
                "–" if final is None else f"{final:.1f} %",
                "–" if gap is None else f"{gap:.0f} %",
            ))  # fmt: skip
        self.table.value = views.table(rows) if self.runs else ""


class MarginPanel(widgets.VBox):
    """Move the margin and the number of negatives, and see on which exemplars the loss acts.

    Args:
        cosines: (n, C), of exemplars.
        labels: (n,).
        num_old: old classes.
        loss: the margin ranking loss, of (cosines, labels, num_old, top_k, margin).
    """

    def __init__(
        self, cosines: Tensor, labels: Tensor, num_old: int, loss: Callable[..., Tensor]
    ) -> None:
        self.cosines, self.labels, self.num_old, self.loss = cosines, labels, num_old, loss
        style = {"style": {"description_width": "initial"}}
        self.margin = widgets.FloatSlider(
            value=0.5, min=0, max=1, step=0.05, description="margin m", **style
        )
        self.top_k = widgets.IntSlider(
            value=2, min=1, max=cosines.shape[1] - num_old, description="negatives K", **style
        )
        self.image = widgets.Image(format="png", layout={"max_width": "768px"})
        self.words = told()
        for slider in (self.margin, self.top_k):
            slider.observe(self._draw, "value")
        self._draw()
        sliders = widgets.HBox([self.margin, self.top_k])
        super().__init__([sliders, self.image, self.words, Keyboard()])

    def _draw(self, _: object = None) -> None:
        margin, top_k = self.margin.value, self.top_k.value
        figure, words = plots.margins(self.cosines, self.labels, self.num_old, top_k, margin)
        loss = self.loss(self.cosines, self.labels, self.num_old, top_k, margin).item()
        self.image.value = plots.png(figure, dpi=96)
        self.words.value = f"{escape(words)} Loss: {loss:.4f}."


class SpherePanel(widgets.VBox):
    """Go from phase to phase of networks with three features, and turn their spheres.

    Args:
        views: as returned by :func:`lucir_edu.lab.sphere.record`, by the network's name.
    """

    def __init__(self, views: sphere.Views) -> None:
        self.views = views
        last = max(len(snapshots) for snapshots in views.values()) - 1
        self.phase = widgets.IntSlider(value=last, max=last, description="phase")
        self.turn = widgets.IntSlider(value=sphere.TURN, max=355, step=5, description="turn (°)")
        self.height = widgets.IntSlider(
            value=sphere.ELEVATION, min=-90, max=90, step=5, description="height (°)"
        )
        self.figure = without_bar(go.FigureWidget(sphere.figure(views)))
        self.words = told()
        self.phase.observe(self._show, "value")
        for slider in (self.turn, self.height):
            slider.observe(self._look, "value")
        self._show()
        self._look()
        sliders = widgets.HBox([self.phase, self.turn, self.height])
        super().__init__([sliders, self.figure, self.words, Keyboard()])

    def _show(self, _: object = None) -> None:
        phase = self.phase.value
        with self.figure.batch_update():
            for trace in self.figure.data:
                trace.visible = trace.meta in (None, phase)
        words = []
        for name, snapshots in self.views.items():
            shot = snapshots[phase]
            old, new = (" ".join(shot.classes[c] for c in shot.side(s)[0]) for s in ("old", "new"))
            words.append(
                f"{name}: {shot.measurement.cnn:.0f} % of the test images right. "
                f"Old classes {old or 'none'}; new classes {new}."
            )
        self.words.value = "<br>".join(escape(line) for line in words)

    def _look(self, _: object = None) -> None:
        turn, height = np.deg2rad([self.turn.value, self.height.value])
        level = 1.35 * np.cos(height)
        eye = {"x": level * np.cos(turn), "y": level * np.sin(turn), "z": 1.35 * np.sin(height)}
        self.figure.update_scenes(camera={"eye": eye})


class _Curves:
    """What the figure shows of one training."""

    def __init__(self) -> None:
        self.phase, self.num_old, self.steps = 0, 0, 1
        self.is_learned = False  # the phase, up to its class-balance fine-tuning
        self.losses: dict = {}
        self.history: dict[str, list[tuple[float, float]]] = {}
        self.accuracies: dict[str, list[tuple[float, float]]] = {name: [] for name in ACCURACIES}
        self.norms = np.empty(0)

    def add_losses(self, step: int) -> None:
        x = self.phase - 1 + step / self.steps
        for name, value in self.losses.items():
            self.history.setdefault(name, []).append((x, value.item()))

    def add_accuracies(self, share: float, values: tuple[float | None, ...]) -> None:
        x = self.phase - 1 + share
        for points, value in zip(self.accuracies.values(), values, strict=True):
            points.append((x, np.nan if value is None else value))

    def end_phase(self, measured: Measurement) -> None:
        """What was measured on all test images replaces the last quick look."""
        self.phase = measured.phase
        for points in self.accuracies.values():
            points[:] = [(x, y) for x, y in points if x < self.phase]
        self.add_accuracies(1.0, (measured.cnn_old, measured.cnn_new, measured.cnn))


def _norms(model: IncrementalModel) -> np.ndarray:
    return model.head.weight.detach().norm(dim=1).cpu().numpy()


def _xy(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [None if np.isnan(y) else y for _, y in points]
