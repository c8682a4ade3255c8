"""The playground: recorded runs to explore, and below them the same switches to train for real."""

from collections.abc import Iterable, Mapping

import ipywidgets as widgets

from lucir_edu import runs
from lucir_edu.config import Config, preset
from lucir_edu.datasets import Dataset, load
from lucir_edu.lab.explorer import Explorer
from lucir_edu.lab.panels import TrainingPanel
from lucir_edu.trainer import State


class Playground(widgets.VBox):
    """An :class:`Explorer`, and a :class:`TrainingPanel` that follows the switches of its A.

    Args:
        bank, dataset, state: as of :class:`Explorer`.
        config, bases: as of :class:`TrainingPanel`.
    """

    def __init__(
        self,
        bank: Iterable[runs.Run],
        dataset: Dataset,
        config: Config,
        bases: Mapping[str, State] | None = None,
        state: str = "",
    ) -> None:
        self.explorer = Explorer(bank, dataset, state)
        self.live = TrainingPanel(config, dataset, bases)
        for name, box in self.explorer.a.switches.items():
            self._follow(name)
            box.observe(lambda _, name=name: self._follow(name), "value")
        super().__init__(
            [
                widgets.HTML("<b>Recorded runs</b>"),
                self.explorer,
                widgets.HTML("<b>Train it live</b>"),
                self.live,
            ]
        )

    def _follow(self, name: str) -> None:
        if not self.live.running:
            self.live.switches[name].value = self.explorer.a.switches[name].value


def playground(state: str = "") -> Playground:
    """Everything on Glyphs-100 in one panel.

    Args:
        state: what to show, such as "cos+lf-mr/seed3/phase4/norms"; a panel shows its own.

    Raises:
        UsageError: the string names what is not known.
    """
    config = preset("glyphs-b50-5")
    return Playground(
        runs.load_bank("glyphs-b50-5"), load(config), config, runs.load_bases("glyphs-b50-5"), state
    )
