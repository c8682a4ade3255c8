"""The explorer: recorded runs at the flick of a switch, one setting or two side by side."""

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

import ipywidgets as widgets
import plotly.graph_objects as go

from lucir_edu.config import UsageError, nearest
from lucir_edu.datasets import Dataset
from lucir_edu.lab import views
from lucir_edu.lab.keyboard import Keyboard, told, without_bar
from lucir_edu.lab.plots import thumbnails
from lucir_edu.runs import Run, by_setting, in_common

OTHERWISE = {  # recorded settings besides the eight combinations, in words
    "finetune": "no exemplars (finetune)",
    "icarl": "distillation (icarl)",
    "joint": "all images kept (joint)",
    "frozen": "base network frozen, new classes imprinted (frozen)",
    "cosine+no_imprint": "cosine, new embeddings start random",
    "cosine+score_distillation": "cosine + score distillation",
    "lucir lambda_rule=paper": "all three, λ by the paper's rule",
    "lucir exemplars_per_class=1": "all three, 1 exemplar per class",
    "replay exemplars_per_class=1": "replay, 1 exemplar per class",
    "lucir exemplars_per_class=20": "all three, 20 exemplars per class",
    "replay exemplars_per_class=20": "replay, 20 exemplars per class",
    "cosine+lf+mr+unfrozen": "all three, old embeddings not frozen",
    "linear+lf+unfrozen": "less-forget alone, old embeddings not frozen",
    "cosine+lf+mr+balanced_finetune": "all three + class-balance fine-tuning",
    "linear+balanced_finetune": "replay + class-balance fine-tuning",
}


@dataclass(frozen=True)
class Shown:
    """What an explorer shows. Its string can be handed out: ``parse(str(shown)) == shown``.

    >>> parse("cos+lf-mr/seed3/phase4/norms")
    Shown(a='cos+lf-mr', b=None, seed=3, phase=4, view='norms')
    >>> str(parse("norms/-cos~icarl/phase1"))
    '-cos-lf-mr~icarl/seed0/phase1/norms'
    """

    a: str = "cos+lf+mr"  # a combination of the components, or the label of a run
    b: str | None = None  # a second setting to compare with
    seed: int = 0
    phase: int = 5
    view: str = "accuracy"

    def __str__(self) -> str:
        settings = [self.a] if self.b is None else [self.a, self.b]
        written = "~".join(setting.replace(" ", ",") for setting in settings)
        return f"{written}/seed{self.seed}/phase{self.phase}/{self.view}"


def parse(text: str, start: Shown | None = None) -> Shown:
    """What a string such as "cos+lf-mr/seed3/phase4/norms" names.

    Parts may come in any order; ``A~B`` compares two settings; a component that is not named is
    off.

    Args:
        start: where parts that are missing are taken from; None: from ``Shown()``.

    Raises:
        UsageError: a setting has no name, or more is named than can be shown.
    """
    named: dict[str, str | int | None] = {}
    for part in filter(None, text.strip(" \t\n\"'#").split("/")):
        if found := re.fullmatch(r"(seed|phase)(\d{1,9})", part):
            new = {found[1]: int(found[2])}
        elif part in views.VIEWS:
            new = {"view": part}
        else:
            names = [_setting(name, text) for name in part.split("~")]
            if len(names) > 2:
                raise UsageError(f"{part!r} names more than two settings; write A~B")
            new = {"a": names[0], "b": names[1] if len(names) == 2 else None}
        if "a" in named and "a" in new:
            hint = nearest(part, [*views.VIEWS, "seed0", "phase0"])
            raise UsageError(
                f"{text!r} names {part!r} beside a setting{hint}; to compare, write A~B"
            )
        if named.keys() & new:
            raise UsageError(f"{text!r} names several {min(new)}s")
        named |= new
    return replace(start or Shown(), **named)


def combination(cosine: bool, less_forget: bool, margin_ranking: bool) -> str:
    """The components' part of the string.

    >>> combination(True, True, False)
    'cos+lf-mr'
    """
    switches = (cosine, less_forget, margin_ranking)
    parts = ("+-"[not on] + short for on, short in zip(switches, SHORTS, strict=True))
    return "".join(parts).removeprefix("+")


def _setting(name: str, text: str) -> str:
    """A setting as the bank names it: combinations with all their signs, labels with spaces."""
    if not name:
        raise UsageError(f"{text!r} lacks a setting beside the ~")
    if not is_combination(name):
        return name.replace(",", " ")
    signs = {short: sign for sign, short in re.findall(r"([+-]?)(\w+)", name)}
    if len(signs) < len(re.findall(r"\w+", name)):
        raise UsageError(f"{name!r} names a component twice")
    return combination(*(signs.get(short, "-") != "-" for short in SHORTS))


class Bank:
    """Recorded runs of one preset, by their settings.

    Args:
        runs: of one preset, as returned by :func:`lucir_edu.runs.load_bank`.

    Attributes:
        views: those that every run has the data for.

    Raises:
        UsageError: there is no run, or there are several presets.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs: dict[tuple[str, int], Run] = {}
        runs = list(runs)
        presets = sorted({run["preset"] for run in runs})
        if len(presets) > 1:
            raise UsageError(
                f"runs of several presets ({', '.join(presets)}) cannot be explored together; give "
                "those of one, such as load_bank('glyphs-b50-5')"
            )
        found = by_setting(runs)
        _, names = in_common(label for _, label, _ in found)
        for (_, label, seed), run in found.items():
            name = names[label]
            if name in EIGHT:
                name = combination(*(run["config"][switch] for switch in views.COMPONENTS))
            self._runs[name, seed] = run
        if not self._runs:
            raise UsageError("there is no recorded run to explore")
        self.views = [
            name for name in views.VIEWS if all(name in views.known(r) for r in self._runs.values())
        ]

    @property
    def settings(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._runs))

    @property
    def others(self) -> list[tuple[str, str]]:
        """The settings besides the eight combinations, each after its words."""
        return [(OTHERWISE.get(n, n), n) for n in self.settings if not is_combination(n)]

    @property
    def first(self) -> Shown:
        """What to show when nothing is asked for: all components, or what there is."""
        return self.nearest(Shown() if Shown.a in self.settings else Shown(a=self.settings[0]))

    def seeds(self, *settings: str) -> list[int]:
        """Seeds that all these settings have been recorded with."""
        each = [{seed for name, seed in self._runs if name == setting} for setting in settings]
        return sorted(set.intersection(*each))

    def phases(self, *settings: str) -> int:
        """How many phases all runs of these settings have."""
        return min(len(run["phases"]) for (name, _), run in self._runs.items() if name in settings)

    def __getitem__(self, key: tuple[str, int]) -> Run:
        return self._runs[key]

    def nearest(self, shown: Shown) -> Shown:
        """The same, or what is recorded nearest to it.

        Raises:
            UsageError: a setting or a view is not there.
        """
        settings, places = self.settings, [*self.views, "seed0", "phase0"]
        for name in filter(None, (shown.a, shown.b)):
            if name not in settings:
                written = name.replace(" ", ",")
                hint = nearest(written, [*(n.replace(" ", ",") for n in settings), *places])
                raise UsageError(
                    f"{written!r} is not recorded{hint}; write for example "
                    f"cos+lf-mr/seed3/phase4/norms, with one of: {', '.join(self.views)}"
                )
        if shown.view not in self.views:
            raise UsageError(f"no recorded data for {shown.view}; choose {', '.join(self.views)}")
        b = shown.b
        seeds = self.seeds(shown.a) if b is None else self.seeds(shown.a, b)
        if not seeds:
            b, seeds = None, self.seeds(shown.a)
        seed = min(seeds, key=lambda one: abs(one - shown.seed))
        phases = self.phases(*filter(None, (shown.a, b)))
        return replace(shown, b=b, seed=seed, phase=min(shown.phase, phases - 1))


SHORTS = [short for short, _ in views.COMPONENTS.values()]
# What label() calls the eight combinations
EIGHT = ("replay", "linear+mr", "linear+lf", "linear+lf+mr",
         "cosine", "cosine+mr", "cosine+lf", "lucir")  # fmt: skip
COMBINATION = "[+-]?({0})([+-]({0}))*".format("|".join(SHORTS))


def is_combination(setting: str) -> bool:
    return re.fullmatch(COMBINATION, setting) is not None


class Setting(widgets.VBox):
    """Three switches, and folded below them the other settings that are recorded."""

    def __init__(self, name: str, others: Sequence[tuple[str, str]]) -> None:
        self.name, self.listen = name, lambda: None
        self._moving = False
        self.switches = {
            switch: widgets.Checkbox(
                description=words,
                indent=False,
                layout={"width": "auto"},
                tooltip=f"{name}: {words}",
            )
            for switch, (_, words) in views.COMPONENTS.items()
        }
        self.other = widgets.Dropdown(
            options=[("one of the eight combinations", ""), *others],
            description=f"{name} is",
            layout={"width": "auto"},
        )
        # Unfolds it. The titles of an accordion cannot be reached by keyboard.
        self.other.layout.display = "none"
        self.more = widgets.Checkbox(
            description="more settings", indent=False, layout={"width": "auto"}
        )
        self.more.observe(self._on_more, "value")
        for control in (*self.switches.values(), self.other):
            control.observe(self._on_change, "value")
        row = widgets.HBox(
            [widgets.HTML(f"<b>{name}</b>"), *self.switches.values()]
            + ([self.more] if others else []),
            layout={"flex_flow": "row wrap", "grid_gap": "2px 14px"},
        )
        super().__init__([row, self.other])

    @property
    def value(self) -> str:
        return self.other.value or combination(*(box.value for box in self.switches.values()))

    @value.setter
    def value(self, setting: str) -> None:
        self._moving = True
        try:
            self.other.value = "" if is_combination(setting) else setting
            if not is_combination(setting):
                self.more.value = True  # otherwise nothing would say why the switches are grey
            else:
                on = re.findall(r"(?:^|\+)(\w+)", setting)
                for box, short in zip(self.switches.values(), SHORTS, strict=True):
                    box.value = short in on
        finally:
            self._moving = False
        self._grey()

    def _grey(self) -> None:
        for box in self.switches.values():
            box.disabled = self.other.value != ""

    def _on_more(self, change: dict) -> None:
        if not change["new"]:  # when folded, none of them is chosen
            self.other.value = ""
        self.other.layout.display = None if change["new"] else "none"

    def _on_change(self, _: object) -> None:
        if not self._moving:
            self._grey()
            self.listen()


class Explorer(widgets.VBox):
    """Switch components, phase, seed and view; compare two settings; all from recorded runs.

    Args:
        bank: recorded runs of one preset, as returned by :func:`lucir_edu.runs.load_bank`.
        dataset: what they were trained on, to show the classes of a point.
        state: what to show first, as for :func:`parse`.

    Attributes:
        shown: what is shown now; assign a :class:`Shown`, or a string that names what shall change.
    """

    def __init__(self, bank: Iterable[Run], dataset: Dataset, state: str = "") -> None:
        self.bank = Bank(bank)
        self._pictures = thumbnails(dataset)
        # Kernels may run callbacks on several threads: one change at a time.
        self._lock, self._moving = threading.RLock(), False
        # A column for A and one for B; in each a figure per view, made when it is first asked for.
        # The others are hidden, not removed: put back, they would no longer follow.
        self._figures: dict[tuple[str, str], go.FigureWidget] = {}
        self._columns = {side: widgets.VBox(layout={"flex": "0 0 auto"}) for side in "AB"}

        self.a, self.b = (Setting(name, self.bank.others) for name in "AB")
        self.compare = widgets.Checkbox(description="compare with a second setting", indent=False)
        self.view = widgets.Dropdown(
            options=[(views.VIEWS[name].title, name) for name in self.bank.views],
            description="view",
        )
        self.phase = widgets.IntSlider(min=0, description="phase", continuous_update=True)
        self.seed = widgets.Dropdown(description="seed", layout={"width": "150px"})
        self.words = told()
        self.table = widgets.HTML()
        # A matrix's cell can be pointed at, or chosen by its row and column
        self.cell = [widgets.Dropdown(description=name) for name in ("row", "column")]
        self.hovered = told()
        self.link = widgets.Text(
            description="this view", continuous_update=False, layout={"width": "520px"}
        )
        for setting in (self.a, self.b):
            setting.listen = self._on_change
        for control in (self.compare, self.view, self.phase, self.seed):
            control.observe(self._on_change, "value")
        self.link.observe(self._on_link, "value")
        for menu in self.cell:
            menu.observe(self._on_cell, "value")
        row = widgets.Layout(flex_flow="row wrap", align_items="center", grid_gap="2px 14px")
        super().__init__(
            [
                self.a,
                self.compare,
                self.b,
                widgets.HBox([self.view, self.phase, self.seed], layout=row),
                widgets.HBox([*self._columns.values()], layout={"flex_flow": "row wrap"}),
                widgets.HBox([*self.cell, self.hovered], layout=row),
                self.words,
                self.table,
                self.link,
                Keyboard(),
            ]
        )
        self._shown = self.bank.first
        self.shown = state

    @property
    def shown(self) -> Shown:
        return self._shown

    @shown.setter
    def shown(self, state: Shown | str) -> None:
        with self._lock:
            wanted = parse(state, self._shown) if isinstance(state, str) else state
            self._shown = self.bank.nearest(wanted)
            self._set_controls()
            self._draw()
            asked = isinstance(state, str) or self._shown.b != wanted.b
            if asked and str(self._shown) != str(wanted):
                self.words.value += f"<p>{wanted} is not recorded; shown: {self._shown}</p>"

    # ---- What happens ----

    def _on_change(self, _: object = None) -> None:
        with self._lock:
            if self._moving:
                return
            b = self.b.value if self.compare.value else None
            seed = 0 if self.seed.value is None else self.seed.value
            self._show(Shown(self.a.value, b, seed, self.phase.value, self.view.value))

    def _on_link(self, change: dict) -> None:
        with self._lock:
            if not self._moving:
                self._show(change["new"])

    def _show(self, state: Shown | str) -> None:
        """Show it, or say why not: a callback has no cell to raise an error under."""
        try:
            self.shown = state
        except UsageError as error:
            self.words.value = f"<b>{escape(str(error))}</b>"
            self.b.layout.display = None if self.compare.value else "none"  # to choose another B

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Controls that are moved here do not answer."""
        self._moving = True
        try:
            yield
        finally:
            self._moving = False

    def _set_controls(self) -> None:
        shown = self._shown
        with self._quietly():
            self.a.value = shown.a
            self.compare.value = shown.b is not None
            if shown.b is not None:
                self.b.value = shown.b
            self.b.layout.display = None if shown.b else "none"
            settings = [name for name in (shown.a, shown.b) if name]
            self.seed.options = self.bank.seeds(*settings)
            self.phase.max = self.bank.phases(*settings) - 1
            self.seed.value, self.phase.value = shown.seed, shown.phase
            self.view.value, self.link.value = shown.view, str(shown)

    # ---- Drawing ----

    def _draw(self) -> None:
        shown = self._shown
        sides = {"A": shown.a} | ({"B": shown.b} if shown.b else {})
        runs = [self.bank[setting, shown.seed] for setting in sides.values()]
        drawings = [views.draw(shown.view, run, shown.phase, wide=len(runs) == 1) for run in runs]
        views.align([drawing.layout for drawing in drawings])
        for side, drawing in zip(sides, drawings, strict=True):
            drawing.layout["width"] = views.WIDTH // len(drawings)
            if len(sides) == 2:
                title = drawing.layout["annotations"][0]
                title["text"] = f"<b>{side}</b>: {title['text']}"
            self._draw_figure(side, shown.view, drawing)
        for (side, view), box in self._boxes():
            box.layout.display = None if side in sides and view == shown.view else "none"
        matrices = [d.traces[0]["x"] for d in drawings] if views.VIEWS[shown.view].pairs else []
        self._offer_cells(
            [name for name in (matrices or [[]])[0] if all(name in m for m in matrices)]
        )
        names = [f"<b>{side}</b>: " if len(sides) == 2 else "" for side in sides]
        self.words.value = "".join(
            f"<p style='line-height:1.4'>{name}{escape(drawing.words)}</p>"
            for name, drawing in zip(names, drawings, strict=True)
        )
        self.table.value = _table([views.figures(run, shown.phase) for run in runs])

    @property
    def figures(self) -> list[go.FigureWidget]:
        """Those that are visible, A's first."""
        return [box.children[0] for _, box in self._boxes() if box.layout.display != "none"]

    def _boxes(self) -> list[tuple[tuple[str, str], widgets.Box]]:
        """The box of each figure, by its side and view, A's first."""
        keys = [key for side in self._columns for key in self._figures if key[0] == side]
        boxes = [box for column in self._columns.values() for box in column.children]
        return list(zip(keys, boxes, strict=True))

    def _draw_figure(self, side: str, view: str, drawing: views.Drawing) -> None:
        figure = self._figures.get((side, view))
        if figure is None:
            layout = {"template": "plotly_white", **drawing.layout}
            figure = without_bar(go.FigureWidget(drawing.traces, layout))
            if views.VIEWS[view].pairs:
                figure.data[0].on_hover(self._on_hover)
            self._figures[side, view] = figure
            self._columns[side].children += (widgets.Box([figure]),)
            return
        with figure.batch_update():
            for trace, new in zip(figure.data, drawing.traces, strict=True):
                trace.update(new)
            for name, value in drawing.layout.items():  # update() would keep what is gone
                figure.layout[name] = value

    def _offer_cells(self, names: Sequence[str]) -> None:
        """Menus of the rows and columns of all matrices; none where there is no matrix."""
        with self._quietly():
            for menu in self.cell:
                chosen, options = menu.value, ("–", *names)
                if menu.options != options:
                    menu.options, menu.value = options, chosen if chosen in options else "–"
                menu.layout.display = None if names else "none"
        self.hovered.layout.display = None if names else "none"
        self._show_cell()

    def _on_hover(self, trace: go.Heatmap, points: object, _: object) -> None:
        if points.point_inds:
            row, column = points.point_inds[0]
            chosen = trace.y[row], trace.x[column]
            with self._lock:
                if not set(chosen) <= set(self.cell[0].options):
                    return  # the other matrix lacks one of them
                with self._quietly():
                    self.cell[0].value, self.cell[1].value = chosen
                self._show_cell()

    def _on_cell(self, _: object) -> None:
        with self._lock:
            if not self._moving:
                self._show_cell()

    def _show_cell(self) -> None:
        """Both classes of the cell that is chosen, and what it says."""
        row, column = (menu.value for menu in self.cell)
        if "–" in (row, column) or not views.VIEWS[self._shown.view].pairs:
            self.hovered.value = ""
            return
        said = [views.cell(figure.data[0], row, column) for figure in self.figures]
        if len(said) == 2:
            said = [f"{side}: {words}" for side, words in zip("AB", said, strict=True)]
        pictures = (self._pictures.get(name, "") for name in (row, column))
        self.hovered.value = " ".join([*pictures, escape("; ".join(said))])


def _table(columns: Sequence[Mapping[str, float | None]]) -> str:
    """Figures of A, and where there are two, of B and the difference."""
    heads = ["", "A", "B", "B − A"] if len(columns) == 2 else ["", ""]
    rows = []
    for name, value in columns[0].items():
        values = [value, *(column[name] for column in columns[1:])]
        cells = ["–" if one is None else f"{one:.1f}" for one in values]
        if len(values) == 2:
            cells.append("–" if None in values else f"{values[1] - values[0]:+.1f}")
        rows.append([name, *cells])
    return views.table([heads, *rows])
