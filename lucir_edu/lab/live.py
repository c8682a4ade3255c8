"""Training in a notebook that stays responsive: trainer events feed a panel, until it is stopped.

The training runs as a task on the kernel's own event loop, a step at a time; between two steps the
kernel answers clicks and runs cells. No thread touches the model.
"""

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import torch
from IPython import get_ipython
from torch import Tensor

from lucir_edu import hardware, loader, stream
from lucir_edu.config import Config
from lucir_edu.datasets import Dataset
from lucir_edu.lab import DEVICE
from lucir_edu.model import IncrementalModel
from lucir_edu.trainer import Event, evaluate


class Live:
    """Hands events to a listener, one at a time; starting again stops a running training.

    Create it in a notebook's cell: it uses the event loop that runs there. When the cell is run
    again, the training of the one before stops, whose buttons are gone.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # widgets may call from another thread
        self._stop: threading.Event | None = None
        if cell := _cell():
            if before := _of_cells.get(cell):
                before.stop()
            _of_cells[cell] = self

    @property
    def running(self) -> bool:
        return self._stop is not None

    def start(
        self,
        events: Iterator[Event],
        listen: Callable[[Event], None],
        finish: Callable[[str], None],
    ) -> None:
        """Start a training.

        Args:
            events: as returned by :func:`lucir_edu.trainer.train`.
            listen: is called with every event.
            finish: is called at the end, with "done", "stopped" or what went wrong; not if another
                training was started in the meantime.
        """
        stop = threading.Event()
        with self._lock:
            before, self._stop = self._stop, stop
        if before is not None:
            before.set()
        asyncio.run_coroutine_threadsafe(self._run(events, listen, finish, stop), self._loop)

    def stop(self) -> None:
        """Stop after the current step; does nothing when nothing runs."""
        with self._lock:
            if self._stop is not None:
                self._stop.set()

    async def _run(
        self,
        events: Iterator[Event],
        listen: Callable[[Event], None],
        finish: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        how = "done"
        try:
            while not stop.is_set():
                await asyncio.sleep(0)
                event = next(events, None)
                if event is None or stop.is_set():
                    break
                listen(event)
            how = "stopped" if stop.is_set() else "done"
        except KeyboardInterrupt:  # the kernel was interrupted: for a task that means Stop
            how = "stopped"
        except Exception as error:  # shown in the panel: a task has no cell to show it under
            how = f"{type(error).__name__}: {error}"
        finally:
            close = getattr(events, "close", None)
            if close is not None:
                close()
            with self._lock:
                latest = self._stop is stop
                if latest:
                    self._stop = None
            if latest:
                finish(how)


_of_cells: weakref.WeakValueDictionary[str, Live] = weakref.WeakValueDictionary()


def _cell() -> str | None:
    """The notebook's cell that runs, as JupyterLab names it."""
    request = getattr(get_ipython(), "parent_header", None) or {}
    return request.get("metadata", {}).get("cellId")


class Throttle:
    """True at most ``per_second`` times a second."""

    def __init__(self, per_second: float = 5) -> None:
        self.interval, self._next = 1 / per_second, 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self.interval
        return True


class Probe:
    """A quick look at a model in training: accuracy on a few test images of each class."""

    def __init__(self, config: Config, dataset: Dataset, per_class: int = 10) -> None:
        self.per_class, device = per_class, hardware.pick_device(DEVICE)
        self.precision = hardware.pick_precision(config.precision, device)
        ordered = stream.make(config, dataset).dataset
        labels = ordered.test.labels
        rows = [torch.nonzero(labels == c)[:per_class, 0] for c in range(len(ordered.classes))]
        images = loader.make(ordered.test, ordered, config, device)
        ((self.images, self.labels),) = images.plain(torch.cat(rows), batch_size=len(labels))

    def __call__(self, model: IncrementalModel, num_old: int) -> tuple[float, float, float]:
        """Accuracy in percent on old, new and all classes seen; NaN without old classes."""
        seen = self.labels < model.num_classes
        predicted = evaluate(model, self.images[seen], self.precision).logits.argmax(dim=1)
        right, labels = predicted == self.labels[seen], self.labels[seen]
        return _share(right[labels < num_old]), _share(right[labels >= num_old]), _share(right)


def _share(right: Tensor) -> float:
    return 100 * right.float().mean().item()
