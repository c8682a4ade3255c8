"""A progress bar for a run: ``perform(..., watch=Progress())``.

In a ``with`` statement, the bar is removed before an error message is printed.
"""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from lucir_edu.trainer import EpochEnd, Event, PhaseEnd, PhaseStart, StepEnd


class Progress:
    """One bar per phase; after each, a line of the table of results.

    Args:
        table: whether to print the table's lines, to standard output. Bars go to standard error;
            in notebooks, where that looks like an error, they go to standard output too.
        hidden: show no bar.
    """

    def __init__(self, table: bool = True, hidden: bool = False) -> None:
        self.table, self.hidden = table, hidden
        notebook = type(sys.stderr).__module__.startswith("ipykernel")
        self._file = sys.stdout if notebook else sys.stderr
        self._pace = 0.2 if notebook or self._file.isatty() else 30.0  # seconds; a log keeps it all
        self._bar: tqdm | None = None
        self._headed = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, PhaseStart):
            self.close()
            self._bar = tqdm(
                total=event.steps,
                disable=self.hidden,
                desc=f"phase {event.phase} of {event.phases - 1}",
                unit="step",
                leave=False,
                file=self._file,
                mininterval=self._pace,
                maxinterval=30.0,
                dynamic_ncols=True,
            )
        elif isinstance(event, StepEnd) and self._bar is not None:
            # More than one step if a run continues inside a phase; class-balance tuning starts at 1
            done = max(event.step, self._bar.n + 1)
            self._bar.total = max(self._bar.total, done)
            self._bar.update(done - self._bar.n)
        elif isinstance(event, PhaseEnd):
            self.close()
            if self.table:
                self._line(event)

    def runs(self, done: float, count: int) -> None:
        """Show how many of several runs are done, while other processes perform them."""
        if self._bar is None:
            self._bar = tqdm(
                total=count,
                initial=done,
                bar_format="{l_bar}{bar}| {n:.2f} of {total} runs [{elapsed}<{remaining}]",
                leave=False,
                file=self._file,
                mininterval=self._pace,
                dynamic_ncols=True,
            )
        self._bar.n = done
        if time.time() - self._bar.last_print_t >= self._pace:
            self._bar.refresh()  # also if nothing has changed, for the clock
            self._bar.last_print_t = time.time()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, event: PhaseEnd) -> None:
        m = event.measurement
        if not self._headed:
            self._headed = True
            print("phase  classes    CNN    NME  CNN old  CNN new  old taken for new  seconds")
        figures = (
            f"{m.phase:5d} {m.classes_seen:8d} {m.cnn:6.1f} {_figure(m.nme, 6)} "
            f"{_figure(m.cnn_old, 8)} {m.cnn_new:8.1f} {_figure(m.old_to_new, 18)} {m.seconds:8.1f}"
        )
        print(figures, flush=True)


class Share:
    """How much of a run is done, for those who cannot see its bar.

    Args:
        tell: is called with the share, from 0 to 1, after every epoch; all phases count alike.
    """

    def __init__(self, tell: Callable[[float], object]) -> None:
        self._tell = tell
        self._phase: PhaseStart | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, PhaseStart):
            self._phase = event
            self._tell(event.phase / event.phases)
        elif isinstance(event, EpochEnd) and event.midway:  # not in class-balance tuning
            self._tell((event.phase + event.epoch / self._phase.epochs) / self._phase.phases)


def _figure(value: float | None, width: int) -> str:
    return f"{'–' if value is None else f'{value:.1f}':>{width}}"
