"""The playground: recorded runs to explore, and below them the same switches to train for real."""

import functools

import ipywidgets as widgets

from lucir_edu import runs
from lucir_edu.config import preset
from lucir_edu.datasets import load
from lucir_edu.lab.explorer import Explorer
from lucir_edu.lab.panels import TrainingPanel

PRESET = "glyphs-b50-5"


class Playground(widgets.VBox):
    """Everything on Glyphs-100 in one panel: an :class:`Explorer`, and a :class:`TrainingPanel`
    that follows the switches of its A.

    Args:
        state: what to show, such as "cos+lf-mr/seed3/phase4/norms"; the panel displays its own.

    Raises:
        UsageError: the string names something unknown.
    """

    def __init__(self, state: str = "") -> None:
        config = preset(PRESET)
        dataset = load(config)
        self.explorer = Explorer(_recorded(), dataset, state)
        self.live = TrainingPanel(config, dataset, runs.load_bases(PRESET))
        for box in self.explorer.a.switches.values():
            box.observe(self._follow, "value")
        self._follow()
        titles = (widgets.HTML(f"<b>{t}</b>") for t in ("Recorded runs", "Train it live"))
        super().__init__([next(titles), self.explorer, next(titles), self.live])

    def _follow(self, _: object = None) -> None:
        if not self.live.running:
            for name, box in self.explorer.a.switches.items():
                self.live.switches[name].value = box.value


@functools.cache
def _recorded() -> list[runs.Run]:
    """Loaded once: a widget is never given back, and a cell may be run again and again."""
    return list(runs.load_bank(PRESET))


playground = Playground  # the name for notebooks
