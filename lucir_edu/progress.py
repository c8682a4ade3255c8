"""A progress bar for a run: ``perform(..., watch=Progress())``.

In a ``with`` statement, the bar is removed before an error message is printed.
"""

import sys

from tqdm import tqdm

from lucir_edu.trainer import Event, PhaseEnd, PhaseStart, StepEnd


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
                mininterval=0.2,
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


def _figure(value: float | None, width: int) -> str:
    return f"{'–' if value is None else f'{value:.1f}':>{width}}"
