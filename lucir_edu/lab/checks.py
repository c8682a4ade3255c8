"""Grades a learner's own function and says in words what is wrong with it.

``less_forget = checks.less_forget(less_forget)`` prints a report and returns the function to go on
with: the learner's own when it is right, else the package's, which stands in.

A function is judged by what is observed of it on a few examples: its results, the gradients that
flow through it, what becomes of its arguments. It is right when the same is observed of the
package's function. When not, the exercise's known mistakes are observed too, and one that looks
the same says what is wrong. The learner's code runs in a thread of its own, where it can be
stopped and its prints are counted.
"""

import contextlib
import copy
import ctypes
import inspect
import itertools
import linecache
import math
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TextIO

import numpy as np
import torch
import torch.nn.functional as F
from IPython import get_ipython
from torch import Tensor, nn

from lucir_edu import losses, memory, metrics, model, trainer
from lucir_edu.config import Config
from lucir_edu.losses import cosine_similarity_matrix as cos
from lucir_edu.losses import unit
from lucir_edu.model import Output

TIME_LIMIT = 5.0  # seconds for a behaviour
STOPPING = 0.5  # seconds of asking a thread to end, and as many of putting it to sleep
FLOOD = 10_000  # characters that may be printed during a behaviour
SHOWN_LINES, SHOWN_CHARACTERS = 10, 1000  # of what was printed in all

Observation = dict[str, Tensor]  # what was seen, by what it was seen of
Case = dict[str, Any]  # example arguments by name, in the order of the signature


class Wrong(Exception):
    """What is wrong, in words.

    Args:
        final: nothing is to be learnt from testing further.
    """

    def __init__(self, words: str, final: bool = True) -> None:
        super().__init__(words)
        self.words, self.final = words, final


# ---- Running a learner's function -------------------------------------------------------------


class Prints:
    """What a learner's function prints: the beginning, and how many characters there were."""

    def __init__(self) -> None:
        self.kept, self.count, self.recent = "", 0, 0  # recent: during this behaviour

    def add(self, text: str) -> None:
        self.kept += text[: SHOWN_CHARACTERS - len(self.kept)]
        self.count += len(text)
        self.recent += len(text)
        if self.recent > FLOOD:
            raise _Flood

    def shown(self) -> list[str]:
        """Lines for the report."""
        if not self.count:
            return []
        lines = self.kept.splitlines(keepends=True)[:SHOWN_LINES]
        rest = self.count - sum(map(len, lines))
        end = [f"    … and {rest:,} characters more"] if rest else []
        return ["  it printed:", *(f"    {line.rstrip()}" for line in lines), *end]


class _Flood(BaseException):
    """Ends a function that prints without end; no Exception, so that few catch it."""


class _Sleep(BaseException):
    """For a function that catches all it is stopped with: to make one of these never ends."""

    asleep = threading.Event()

    def __init__(self) -> None:
        self.asleep.set()
        while True:
            time.sleep(3600)


_here = threading.local()  # .prints: where this thread's prints go; None: through


class _Ear:
    """A stream that keeps the prints of learners' threads; those of others pass through."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        prints = getattr(_here, "prints", None)
        if prints is None:
            return self._stream.write(text)
        prints.add(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _nothing_changes() -> Iterator[None]:
    """Random states and torch's settings are put back; meanwhile prints are listened to, and
    ``exit()`` does not end the kernel."""
    states = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    out, err, shell = _Ear(sys.stdout), _Ear(sys.stderr), get_ipython()
    with (
        torch.random.fork_rng(gpus),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            if shell is not None:
                shell.ask_exit = sys.exit
            torch.set_default_dtype(torch.float32)
            torch.default_generator.manual_seed(0)  # the same report every time
            random.seed(0), np.random.seed(0)
            yield
        finally:
            if shell is not None:
                del shell.ask_exit  # its class's is back
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


def _apart(work: Callable[[], Any], prints: Prints | None = None) -> Any:
    """Do it in a thread of its own, in which torch's modes are those of a fresh start.

    Args:
        prints: of a learner's function, whose time is limited; None: the function is ours.
    """
    outcome: list[tuple[Any, BaseException | None]] = []

    def body() -> None:
        _here.prints = prints
        try:
            outcome.append((work(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=body, daemon=True)
    end = math.inf if prints is None else time.monotonic() + TIME_LIMIT
    thread.start()
    try:
        while thread.is_alive() and time.monotonic() < end:
            thread.join(0.05)  # in short pieces, so that the kernel can be interrupted
        late = thread.is_alive()
    finally:
        stopped = _stop(thread)
    if prints is not None and prints.recent > FLOOD:
        raise Wrong(f"prints more than {FLOOD:,} characters; is there a print in a loop?")
    if late:
        rest = "" if stopped else " It cannot be stopped: restart the kernel to be rid of it."
        raise Wrong(f"ran longer than {TIME_LIMIT:g} s; is there a loop that never ends?{rest}")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def _stop(thread: threading.Thread) -> bool:
    """End a thread, or else put it to sleep; False when neither is possible."""

    def throw(error: type[BaseException]) -> None:
        ident = ctypes.c_ulong(thread.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(error))
        thread.join(0.001)

    began = time.monotonic()
    while thread.is_alive() and time.monotonic() < began + STOPPING:
        throw(SystemExit)  # again and again, for code that catches it
    _Sleep.asleep.clear()
    while thread.is_alive() and time.monotonic() < began + 2 * STOPPING:
        if _Sleep.asleep.is_set():
            return True
        throw(_Sleep)
    return not thread.is_alive()


def _call(function: Callable, case: Case) -> Any:
    """Call it with example arguments; what it raises is put in words."""
    try:
        return function(*case.values())
    except Wrong:
        raise
    except BaseException as error:
        if type(error) is NotImplementedError and not error.args:  # the stub's
            raise
        raise Wrong(_raised(error, inspect.unwrap(function), case)) from None


def _raised(error: BaseException, function: Callable, case: Case) -> str:
    text = " ".join("".join(traceback.format_exception_only(error)).split())[:300]
    parts = vars(function).values() if isinstance(function, type) else [function]
    codes = [getattr(inspect.unwrap(part), "__code__", None) for part in parts if callable(part)]
    files = {code.co_filename for code in codes if code}
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    where = ""
    for code, line in [own for own in frames if own[0].co_filename in files][-1:]:
        source = linecache.getline(code.co_filename, line).strip()
        where = f"\n      in line {line - code.co_firstlineno + 1} of {code.co_name}: {source}"
    given = ", ".join(f"{name}: {_what(value)}" for name, value in case.items())
    return f"raises {text}{where}\n      when called with {given}"


# ---- What a function should give --------------------------------------------------------------


def _what(value: Any) -> str:
    """Something given, in words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a numpy array of shape {value.shape}"
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    if value is None or isinstance(value, int | float):
        return f"{value}"
    if type(value) in (tuple, list):
        kind = " tensors" if any(isinstance(part, Tensor) for part in value) else ""
        return f"a {type(value).__name__} of {len(value)}{kind}"
    return f"an object of type {type(value).__name__}"


def _off(seen: Observation, expected: Observation) -> str:
    shapes = [(tuple(v.shape), tuple(expected[k].shape)) for k, v in seen.items()]
    for given, wanted in shapes:
        if given != wanted:
            return f"gives shape {given}; wanted is shape {wanted}"
    values, wanted = (torch.cat([v.flatten() for v in o.values()]) for o in (seen, expected))
    bad = int((~values.isfinite()).sum())
    if bad:
        kind = "not a number (NaN)" if values.isnan().any() else "infinite"
        return kind if len(values) == 1 else f"{kind} in {bad} of {len(values)} places"
    return f"off by up to {(values - wanted).abs().max():.3g}"


def _off_images(seen: Observation, expected: Observation) -> str:
    for label, value in seen.items():
        chosen, wanted = value.tolist(), expected[label].tolist()
        for place, image in enumerate(chosen if len(chosen) == len(wanted) else [], 1):
            if image in chosen[: place - 1]:
                return f"image {image:.0f} is chosen again at place {place}"
            if image != wanted[place - 1]:
                return f"at place {place} image {image:.0f} is chosen, but another comes first"
    return _off(seen, expected)


def _off_classes(seen: Observation, expected: Observation) -> str:
    if any(value.shape != expected[label].shape for label, value in seen.items()):
        return _off(seen, expected)
    others = sum(int((value != expected[label]).sum()) for label, value in seen.items())
    return f"{others} of {sum(map(len, seen.values()))} images are given another class"


def _off_gradient(seen: Observation, expected: Observation) -> str:
    for label, value in seen.items():
        if expected[label].any() and not value.any():
            name = label.split()[0]
            return f"none reaches `{name}`; is something detached, or turned into plain numbers?"
    return _off(seen, expected)


def _flows(seen: Observation, expected: Observation) -> str:
    return f"a gradient flows into {_names(seen, expected)}, which would change the teacher"


def _changes(seen: Observation, expected: Observation) -> str:
    return f"changes {_names(seen, expected)}: the caller's own is not the same afterwards"


def _names(seen: Observation, expected: Observation) -> str:
    """Of what differs."""
    differ = [k for k, value in seen.items() if not same({k: value}, {k: expected[k]})]
    return " and ".join(dict.fromkeys(f"`{label.split()[0]}`" for label in differ))


def _number(value: Any) -> Tensor | None:
    numbers = Tensor | np.ndarray | np.generic | int | float
    return torch.as_tensor(value).double() if isinstance(value, numbers) else None


def _tensor(value: Any) -> Tensor | None:
    return value.double() if isinstance(value, Tensor) else None


def _integers(value: Any) -> Tensor | None:
    if isinstance(value, list | tuple):
        value = [part.item() if isinstance(part, Tensor | np.generic) else part for part in value]
    if isinstance(value, list | np.ndarray):
        value = torch.as_tensor(value)
    whole = isinstance(value, Tensor) and not value.is_floating_point()
    return value.double() if whole else None


@dataclass(frozen=True)
class Form:
    """What kind of thing a function gives.

    Args:
        title: of the behaviour of giving it.
        wanted: in words, for someone who gave something else.
        convert: a result as a tensor of float64; None when it is something else.
        off: how results differ from the right ones, in words.
    """

    title: str
    wanted: str
    convert: Callable[[Any], Tensor | None]
    off: Callable[[Observation, Observation], str] = _off

    def read(self, value: Any) -> Tensor:
        if value is None:
            raise Wrong("returns nothing; is `return` missing?")
        found = self.convert(value)
        if found is None:
            raise Wrong(f"gives {_what(value)}; wanted is {self.wanted}")
        return found


NUMBER = Form("gives one number", "one number", _number)
LOSS = Form("gives one number", "a tensor of one number, so that gradients can flow", _tensor)
IMAGES = Form("gives `count` indices", "a list of whole numbers", _integers, _off_images)
CLASSES = Form("gives a class for each image", "whole numbers", _integers, _off_classes)


def _matrix(shape: str) -> Form:
    return Form(f"gives a tensor of shape {shape}", "one tensor", _tensor)


# ---- Observing and comparing ------------------------------------------------------------------


def _mapped(label: str, value: Any, change: Callable[[str, Tensor], Tensor]) -> Any:
    """A copy of an argument, with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(label, value)
    if isinstance(value, Output):
        parts = value._asdict().items()
        return Output(*(_mapped(f"{label}.{name}", part, change) for name, part in parts))
    return copy.deepcopy(value)


def _watched(case: Case, names: tuple[str, ...] = ()) -> tuple[Case, Observation]:
    """A copy of example arguments, and those tensors in it whose gradient is wanted."""
    leaves: Observation = {}

    def change(label: str, tensor: Tensor) -> Tensor:
        if label.split(".")[0] not in names:
            return tensor.clone()
        leaves[label] = tensor.clone().requires_grad_()
        return leaves[label] * 1  # as in a network: what is passed on is not a leaf

    return {name: _mapped(name, value, change) for name, value in case.items()}, leaves


def _contents(label: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The numbers that an argument holds."""
    if isinstance(value, Output):
        for name, part in value._asdict().items():
            yield from _contents(f"{label}.{name}", part)
    elif isinstance(value, dict):
        yield label, torch.tensor(list(value.values())).double()
    elif isinstance(value, Tensor | np.ndarray):
        yield label, torch.as_tensor(value).detach().double()


def same(seen: Observation, expected: Observation, tolerance: float = 1e-4) -> bool:
    """Whether two observations are equal but for rounding; NaN equals NaN."""
    return seen.keys() == expected.keys() and all(
        value.shape == expected[label].shape
        and torch.allclose(value, expected[label], rtol=1e-3, atol=tolerance, equal_nan=True)
        for label, value in seen.items()
    )


@dataclass(frozen=True)
class Behaviour:
    """Something that a right function does.

    Args:
        title: what, in words.
        observe: what is seen of a function in this respect.
        explain: in words, how what was seen differs from what should be.
        shapes: compare only shapes; when they differ, test no further.
        hints: whether known mistakes can say more.
    """

    title: str
    observe: Callable[[Callable], Observation]
    explain: Callable[[Observation, Observation], str] = _off
    shapes: bool = False
    hints: bool = True


@dataclass(frozen=True)
class Exercise:
    """A function that a learner writes. Call it with the function; ``__doc__`` says which.

    Args:
        name, doc: of the function wanted.
        stand_in: the package's own.
        form: what it gives.
        cases: example arguments.
        mistakes: words that end "This is what comes out when …" -> the wrong function.
        corners: further behaviours: title -> example arguments.
        learns, frozen: arguments that a gradient must, and must not, reach.
        corner_gradients: the same as corners, for the gradient.
        tolerance: how far off a result may be.
        first: behaviours that are tested before all others.
        adapt: makes of a submitted class the function that is called with the arguments.
    """

    name: str
    doc: str
    stand_in: Callable
    form: Form
    cases: list[Case]
    mistakes: dict[str, Callable]
    corners: dict[str, list[Case]] = field(default_factory=dict)
    learns: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    corner_gradients: dict[str, list[Case]] = field(default_factory=dict)
    tolerance: float = 1e-4
    first: tuple[Behaviour, ...] = ()
    adapt: Callable[[type], Callable] = lambda submission: submission

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", f"{self.name}{self.doc}")

    def __call__(self, submission: Callable) -> Callable:
        """Grade a function and print the report.

        Returns:
            The function itself if it is right, else the package's.
        """
        lines, right = self.report(submission)
        print("\n".join(lines))
        return submission if right else self.stand_in

    def report(self, submission: Callable) -> tuple[list[str], bool]:
        """The lines to print, and whether all is right."""
        stands_in = "the package's own stands in"
        if submission is self.stand_in:
            again = "run the cell with your own first, then this one"
            return [f"{self.name}: this is the package's own, which stands in; {again}"], False
        if not callable(submission):
            return [f"{self.name}: needs a function, not {_what(submission)}; {stands_in}"], False
        prints = Prints()
        with _nothing_changes():
            found = self.examine(submission, prints)
        if found is None:
            return [f"{self.name}: not written yet; {stands_in}"], False
        right = not any(found.values())
        verdict = "right" if right else f"not yet right; {stands_in}"
        marks = [f"  ✗ {key}: {words}" if words else f"  ✓ {key}" for key, words in found.items()]
        return [f"{self.name}: {verdict}", *marks, *prints.shown()], right

    def examine(self, submission: Callable, prints: Prints) -> dict[str, str] | None:
        """What is wrong by behaviour, "" for nothing; None when it is not written yet."""
        found: dict[str, str] = {}
        history: list[tuple[Behaviour, Observation]] = []
        recognised: list[str] = []
        for behaviour in self.behaviours():
            prints.recent = 0
            title, final = behaviour.title, behaviour.shapes
            try:
                seen = _apart(partial(behaviour.observe, submission), prints)
                found[title] = self._difference([*history, (behaviour, seen)], recognised)
                if behaviour.hints:
                    history.append((behaviour, seen))
            except NotImplementedError:
                if "value" not in found:
                    return None
                found[title], final = "a part of it is not written yet", True
            except Wrong as wrong:
                found[title], final = wrong.words, wrong.final
            except Exception as error:
                found[title], final = f"gives what cannot be read ({type(error).__name__})", True
            if found[title] and final:
                break
        return found

    def _difference(
        self, history: list[tuple[Behaviour, Observation]], recognised: list[str]
    ) -> str:
        """What is wrong with what was seen last; "" for nothing."""
        behaviour, seen = history[-1]
        expected = _apart(partial(behaviour.observe, self.stand_in))
        if behaviour.shapes:
            if [v.shape for v in seen.values()] == [v.shape for v in expected.values()]:
                return ""
        elif same(seen, expected, self.tolerance):
            return ""
        words = behaviour.explain(seen, expected)
        if not behaviour.hints:
            return words
        if any(self._looks_the_same(mistake, history[-1:]) for mistake in recognised):
            return f"{words}, for the same reason"
        for mistake in self.mistakes:
            if self._looks_the_same(mistake, history):
                recognised.append(mistake)
                return f"{words}. This is what comes out when {mistake}."
        return words

    def _looks_the_same(self, mistake: str, history: list[tuple[Behaviour, Observation]]) -> bool:
        """Whether a mistake shows all that was seen; what was seen last is looked at first."""
        for behaviour, seen in reversed(history):
            try:
                like = _apart(partial(behaviour.observe, self.mistakes[mistake]))
            except Exception:
                return False
            if not same(seen, like, self.tolerance):
                return False
        return True

    def behaviours(self) -> list[Behaviour]:
        """All that a right function does, in the order of the report."""
        off, results = self.form.off, partial(partial, self._results)
        gradients = partial(partial, self._gradients)
        behaviours = [
            *self.first,
            Behaviour(self.form.title, results(self.cases), off, shapes=True),
            Behaviour("value", results(self.cases), off),
        ]
        if self.learns:
            observe = gradients(self.learns, self.cases)
            behaviours.append(Behaviour("gradient", observe, _off_gradient))
        if self.frozen:
            observe = gradients(self.frozen, self.cases)
            behaviours.append(
                Behaviour("no gradient into the teacher", observe, _flows, hints=False)
            )
        for title, cases in self.corners.items():
            behaviours.append(Behaviour(title, results(cases), off))
        for title, cases in self.corner_gradients.items():
            behaviours.append(Behaviour(title, gradients(self.learns, cases), _off_gradient))
        title = "leaves its arguments as they are"
        return [*behaviours, Behaviour(title, self._arguments, _changes, hints=False)]

    def _results(self, cases: list[Case], submission: Callable) -> Observation:
        function = self.adapt(submission)
        results = [self.form.read(_call(function, _watched(case)[0])) for case in cases]
        return {f"example {n}": result.detach() for n, result in enumerate(results, 1)}

    def _arguments(self, submission: Callable) -> Observation:
        function, held = self.adapt(submission), {}
        for number, case in enumerate(self.cases, 1):
            arguments, _ = _watched(case)
            _call(function, arguments)
            for name, value in arguments.items():
                held |= {f"{label} {number}": part for label, part in _contents(name, value)}
        return held

    def _gradients(
        self, names: tuple[str, ...], cases: list[Case], submission: Callable
    ) -> Observation:
        function, found = self.adapt(submission), {}
        for number, case in enumerate(cases, 1):
            arguments, leaves = _watched(case, names)
            result = self.form.read(_call(function, arguments))
            grads = [None] * len(leaves)
            if result.requires_grad:
                weights = torch.linspace(1, 2, result.numel(), dtype=torch.float64)
                total = (result.flatten() * weights).sum()
                try:
                    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
                except RuntimeError as error:
                    text = str(error).split(". ")[0][:200]
                    raise Wrong(f"cannot be computed: {text}", final=False) from None
            for (label, leaf), grad in zip(leaves.items(), grads, strict=True):
                found[f"{label} {number}"] = (leaf * 0 if grad is None else grad).detach().double()
        return found


# ---- The exercises ----------------------------------------------------------------------------


def _draw(*shape: int, seed: int) -> Tensor:
    """Random rows that differ in length; the same everywhere."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(*shape, generator=generator, dtype=torch.float32)
    return numbers * torch.linspace(0.5, 2, shape[0], dtype=torch.float32)[:, None]


def _cases(names: str, *rows: tuple) -> list[Case]:
    return [dict(zip(names.split(), row, strict=False)) for row in rows]


def _as_it_is(value: Any) -> Any:
    return value


def _by_columns(vectors: Tensor) -> Tensor:
    return unit(vectors.T).T


def _steady(vectors: Tensor) -> Tensor:
    """Unit vectors whose lengths count as constants in the gradient."""
    return vectors / vectors.detach().norm(dim=1, keepdim=True)


# A mistake is a line or two:
# fmt: off

# ---- Notebook 01 ----


def _gap(lengths: Tensor, num_old: int) -> Tensor:
    return 100 * (lengths[num_old:].mean() / lengths[:num_old].mean() - 1)


def _norm_gap(weight: Tensor, num_old: int) -> float:
    return _gap(weight.norm(dim=1), num_old).item()


norm_gap = Exercise(
    "norm_gap",
    """(weight, num_old) -> a number

    By how many percent the embeddings of the new classes are longer, in the mean, than those of
    the old ones. ``weight`` is (C, d), an embedding per class, old classes first.
    """,
    stand_in=_norm_gap,
    form=NUMBER,
    cases=_cases("weight num_old", (_draw(7, 5, seed=1), 4), (_draw(5, 8, seed=2).flip(0), 2),
                 (_draw(6, 6, seed=3), 1)),
    mistakes={
        "it is a fraction, not in percent": lambda w, k: _norm_gap(w, k) / 100,
        "the new length is given in percent of the old one, not by how much it is more":
            lambda w, k: _norm_gap(w, k) + 100,
        "it is in percent of the new classes' length, not of the old ones'":
            lambda w, k: 100 - 100 / (_norm_gap(w, k) / 100 + 1),
        "old and new classes are exchanged": lambda w, k: 100 / (_norm_gap(w, k) / 100 + 1) - 100,
        "the sign is turned": lambda w, k: -_norm_gap(w, k),
        "it is the difference of the lengths, not in percent of the old classes' length":
            lambda w, k: w[k:].norm(dim=1).mean() - w[:k].norm(dim=1).mean(),
        "it is the length of the mean embedding, not the mean length":
            lambda w, k: 100 * (w[k:].mean(0).norm() / w[:k].mean(0).norm() - 1),
        "the lengths are summed over classes, not averaged":
            lambda w, k: 100 * (w[k:].norm(dim=1).sum() / w[:k].norm(dim=1).sum() - 1),
        "all embeddings of a group are taken for one long vector":
            lambda w, k: 100 * (w[k:].norm() / w[:k].norm() - 1),
        "the squares of the lengths are compared": lambda w, k: _gap((w * w).sum(1), k),
        "absolute values are summed for a length": lambda w, k: _gap(w.abs().sum(1), k),
        "lengths are taken down the columns: an embedding is a row":
            lambda w, k: _gap(w.norm(dim=0), k),
        "the first new class is counted as old": lambda w, k: _norm_gap(w, k + 1),
    },
)


def _old_to_new(predictions: Tensor, targets: Tensor, num_old: int) -> float:
    return metrics.old_new_confusion(predictions, targets, num_old).old_to_new


def _share(which: Tensor, of: Tensor) -> Tensor:
    return 100 * which[of].double().mean()


def _labels(count: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(classes, (count,), generator=generator)


old_to_new = Exercise(
    "old_to_new",
    """(predictions, targets, num_old) -> a number

    The percentage of images of old classes that are taken for any new class. ``predictions`` and
    ``targets`` are (n,) class numbers; those below ``num_old`` are old.
    """,
    stand_in=_old_to_new,
    form=NUMBER,
    cases=_cases("predictions targets num_old", (_labels(40, 7, 1), _labels(40, 7, 2), 4),
                 (_labels(30, 5, 3), _labels(30, 5, 4), 2)),
    mistakes={
        "it is a fraction, not in percent": lambda p, t, k: _old_to_new(p, t, k) / 100,
        "it is a count, not in percent": lambda p, t, k: ((t < k) & (p >= k)).sum(),
        "it is a share of all images, not of the old classes' images":
            lambda p, t, k: 100 * ((t < k) & (p >= k)).double().mean(),
        "it is a share of the images taken for a new class, not of the old classes' images":
            lambda p, t, k: _share(t < k, p >= k),
        "it is a share of the old images that are mistaken, not of all old images":
            lambda p, t, k: _share(p >= k, (t < k) & (p != t)),
        "old images taken for another old class count too": lambda p, t, k: _share(p != t, t < k),
        "it is the share of old images taken for another old class":
            lambda p, t, k: _share((p < k) & (p != t), t < k),
        "it is the share of old images that are right": lambda p, t, k: _share(p == t, t < k),
        "it is the share of new images taken for an old class":
            lambda p, t, k: _share(p < k, t >= k),
        "it is the share of all images taken for a new class, old images or new":
            lambda p, t, k: 100 * (p >= k).double().mean(),
        "the first new class counts as old in the predictions":
            lambda p, t, k: _share(p > k, t < k),
        "the first new class counts as old in the targets": lambda p, t, k: _share(p >= k, t <= k),
    },
)


def _drops(matrix: np.ndarray, before: Callable) -> np.ndarray:
    """Accuracy before (of a group's accuracies up to the last phase but one) minus final."""
    end = len(matrix) - 1
    return np.array([before(matrix[j:end, j]) - matrix[end, j] for j in range(end)])


_MATRIX = np.array([[90.0, 0, 0, 0], [70, 80, 0, 0], [76, 72, 88, 0], [50, 75, 91, 95]])

forgetting = Exercise(
    "forgetting",
    """(matrix) -> a number

    ``matrix`` is a numpy array (T, T): row t, column j is the accuracy after phase t on the
    classes of phase j; what stands above the diagonal means nothing. The mean, over all groups
    of classes but the last, of the best accuracy before the last phase minus that after it.
    """,
    stand_in=metrics.forgetting,
    form=NUMBER,
    cases=_cases("matrix", (_MATRIX,), (np.array([[60.0, 0, 0], [66, 70, 0], [52, 40, 81]]),)),
    corners={"does not read what stands above the diagonal":
             _cases("matrix", (np.where(np.tri(4) > 0, _MATRIX, np.nan),))},
    mistakes={
        "the last group of classes counts too": lambda m: np.append(_drops(m, max), 0).mean(),
        "the last group but one is left out too": lambda m: _drops(m, max)[:-1].mean(),
        "the accuracy after the last phase counts among those before, so that a gain is lost":
            lambda m: _drops(m, max).clip(min=0).mean(),
        "the accuracy just after learning is taken, not the best":
            lambda m: _drops(m, lambda a: a[0]).mean(),
        "the accuracy one phase before the last is taken, not the best":
            lambda m: _drops(m, lambda a: a[-1]).mean(),
        "the mean accuracy before is taken, not the best": lambda m: _drops(m, np.mean).mean(),
        "the sign is turned": lambda m: -_drops(m, max).mean(),
        "the groups are summed, not averaged": lambda m: _drops(m, max).sum(),
        "only the base classes count": lambda m: _drops(m, max)[0],
        "rows and columns are exchanged": lambda m: metrics.forgetting(m.T),
        "what stands above the diagonal is read": lambda m: (m[:-1].max(0) - m[-1])[:-1].mean(),
        "what stands above the diagonal is read, and the last group of classes counts too":
            lambda m: (m.max(0) - m[-1]).mean(),
    },
)


def _herd(
    features: Tensor,
    count: int,
    ready: Callable = unit,
    aim: Callable = lambda features, left: features.mean(0),
    joined: Callable = lambda chosen, image: (chosen.sum(0) + image) / (len(chosen) + 1),
    first: tuple[int, ...] = (),
    again: bool = False,
) -> Tensor:
    """Greedy herding with something changed."""
    features, ranked = ready(features.double()), list(first)
    while len(ranked) < count:
        left = [i for i in range(len(features)) if again or i not in ranked]
        means = torch.stack([joined(features[ranked], features[i]) for i in left])
        ranked.append(left[int((aim(features, left) - means).norm(dim=1).argmin())])
    return torch.tensor(ranked)


def _by_distance(features: Tensor) -> Tensor:
    return (features - features.mean(0)).norm(dim=1).argsort()


def _images(n: int, d: int, seed: int) -> Tensor:
    """Features of a class, for which the authors' herding and the plain greedy one agree."""
    lengths = _draw(n, 1, seed=seed + 1).abs() + 0.3
    return (_draw(n, d, seed=seed) + torch.linspace(1, 0.3, d, dtype=torch.float32)) * lengths


herding = Exercise(
    "herding",
    """(features, count) -> indices, best first

    Choose ``count`` images of a class by their ``features`` (n, d), which are made unit vectors
    first: each time the image that brings the mean of those chosen closest to the class mean.
    No image is chosen twice.
    """,
    stand_in=memory.herding,
    form=IMAGES,
    cases=_cases("features count", (_images(10, 3, seed=376), 5), (_images(9, 2, seed=282), 4)),
    corners={"chooses each image once when asked for all":
             _cases("features count", (_images(4, 3, seed=352), 4))},
    mistakes={
        "the features are not made unit vectors": partial(_herd, ready=_as_it_is),
        "the columns are made unit vectors: an image is a row": partial(_herd, ready=_by_columns),
        "the images nearest to the class mean are taken, whatever the mean of those chosen":
            lambda f, n: _by_distance(unit(f))[:n],
        "the images nearest to the class mean are taken, and features are not made unit vectors":
            lambda f, n: _by_distance(f)[:n],
        "the images farthest from the class mean are taken":
            lambda f, n: _by_distance(unit(f)).flip(0)[:n],
        "image 0 is taken first, whatever it is": partial(_herd, first=(0,)),
        "an image can be chosen again": partial(_herd, again=True),
        "the class mean is made a unit vector, which the mean of several images cannot reach":
            partial(_herd, aim=lambda f, left: unit(f.mean(0))),
        "the mean of the images that are left is the aim, not that of all": partial(
            _herd, aim=lambda f, left: f[left].mean(0), joined=lambda chosen, image: image),
        "the sum of those chosen is compared with the class mean, not their mean":
            partial(_herd, joined=lambda chosen, image: chosen.sum(0) + image),
        "the mean of those chosen is added where their sum is wanted": partial(_herd, joined=lambda
            chosen, image: (chosen.sum(0) / max(1, len(chosen)) + image) / (len(chosen) + 1)),
        "the best come last": lambda f, n: memory.herding(f, n).flip(0),
        "all images are ranked, whatever `count`": lambda f, n: memory.herding(f, len(f)),
        "one image too few is chosen": lambda f, n: memory.herding(f, n - 1),
    },
)


# ---- Notebook 02 ----

cosine_similarity_matrix = Exercise(
    "cosine_similarity_matrix",
    """(features, weight) -> a tensor (n, C)

    The cosine of every feature, (n, d), with every class embedding, (C, d). A row of zeros, on
    either side, gives 0.
    """,
    stand_in=losses.cosine_similarity_matrix,
    form=_matrix("(n, C)"),
    cases=_cases("features weight", (_draw(6, 4, seed=20), _draw(5, 4, seed=21)),
                 (_draw(1, 3, seed=22), _draw(2, 3, seed=23))),
    corners={"gives 0 for a row of zeros": _cases(
        "features weight",
        (_draw(3, 4, seed=24) * torch.tensor([[1], [0], [1]]), _draw(2, 4, seed=25)),
        (_draw(3, 4, seed=24), _draw(2, 4, seed=25) * torch.tensor([[0], [1]])),
    )},
    learns=("features", "weight"),
    mistakes={
        "neither side is made of unit vectors": lambda f, w: f @ w.T,
        "the embeddings are not made unit vectors": lambda f, w: unit(f) @ w.T,
        "the features are not made unit vectors": lambda f, w: f @ unit(w).T,
        "the columns are made unit vectors: a vector is a row":
            lambda f, w: _by_columns(f) @ _by_columns(w).T,
        "the columns of the features are made unit vectors: a vector is a row":
            lambda f, w: _by_columns(f) @ unit(w).T,
        "the columns of the embeddings are made unit vectors: a vector is a row":
            lambda f, w: unit(f) @ _by_columns(w).T,
        "each side is divided by the length of its whole matrix, not of each row":
            lambda f, w: f @ w.T / f.norm() / w.norm(),
        "it is divided by the squares of the lengths":
            lambda f, w: unit(f) @ unit(w).T / f.norm(dim=1)[:, None] / w.norm(dim=1),
        "absolute values are summed for a length":
            lambda f, w: F.normalize(f, p=1) @ F.normalize(w, p=1).T,
        "a length of 0 is divided by": lambda f, w: (f / f.norm(dim=1)[:, None])
            @ (w / w.norm(dim=1)[:, None]).T,
        "rows and columns are exchanged": lambda f, w: cos(w, f),
        "it is 1 minus the cosine": lambda f, w: 1 - cos(f, w),
        "the cosine's sign is lost": lambda f, w: cos(f, w).abs(),
        "it is the angle, not its cosine": lambda f, w: cos(f, w).acos(),
        "it is the distance of the unit vectors": lambda f, w: torch.cdist(unit(f), unit(w)),
        "the lengths count as constants, out of the gradient's sight":
            lambda f, w: _steady(f) @ _steady(w).T,
    },
)


def _ceiling(own: float, other: float, others: int) -> float:
    return 1 / (1 + others * math.exp(other - own))


def _softmax_ceiling(num_classes: int, eta: float) -> float:
    return _ceiling(eta, -eta, num_classes - 1)


softmax_ceiling = Exercise(
    "softmax_ceiling",
    """(num_classes, eta) -> a number

    The highest probability that a softmax over ``eta`` times the cosines can give to one class of
    ``num_classes``.
    """,
    stand_in=_softmax_ceiling,
    form=NUMBER,
    cases=_cases("num_classes eta", (10, 1.0), (50, 1.0), (100, 1.0), (3, 1.0), (10, 0.5),
                 (100, 3.0)),
    tolerance=1e-5,
    mistakes={
        "the others have cosine 0: it can be lower": lambda n, s: _ceiling(s, 0, n - 1),
        "the class itself counts among the others too": lambda n, s: _ceiling(s, -s, n),
        "eta is left out": lambda n, s: _ceiling(1, -1, n - 1),
        "eta counts for the class itself alone": lambda n, s: _ceiling(s, -1, n - 1),
        "eta divides": lambda n, s: _ceiling(1 / s, -1 / s, n - 1),
        "eta multiplies the probability": lambda n, s: s * _ceiling(1, -1, n - 1),
        "the others have the cosine of evenly spread classes: it can be lower":
            lambda n, s: _ceiling(s, -s / (n - 1), n - 1),
        "it is the lowest probability, not the highest": lambda n, s: _ceiling(-s, s, n - 1),
        "it is the probability of all others": lambda n, s: 1 - _ceiling(s, -s, n - 1),
        "it is in percent": lambda n, s: 100 * _ceiling(s, -s, n - 1),
        "it is the logarithm of the probability": lambda n, s: math.log(_ceiling(s, -s, n - 1)),
        "the class itself is missing in the sum that is divided by":
            lambda n, s: math.exp(2 * s) / (n - 1),
    },
)


class CosineHeadOfLogits(model.CosineHead):
    """The package's cosine head, giving the logits alone."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).logits


def _head(kind: type, classes: int = 3, features: int = 4) -> nn.Module:
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise Wrong("wanted is a class, and one that is an nn.Module")
    if kind.forward is nn.Module.forward:
        raise Wrong("it has no method `forward`; is the name spelt right?")
    return _call(kind, {"feature_dim": features, "num_classes": classes})


def _parameters(head: nn.Module, classes: int = 3, features: int = 4) -> tuple[str, str]:
    """The names of its embeddings and of its scale."""
    found = {name: p for name, p in head.named_parameters() if p.numel()}
    wide = [name for name, p in found.items() if p.shape == (classes, features)]
    single = [name for name, p in found.items() if p.numel() == 1]
    has = ", ".join(f"`{name}` {tuple(p.shape)}" for name, p in found.items()) or "none"
    has = f"; with {features} features and {classes} classes its parameters are: {has}"
    if not wide:
        raise Wrong(f"no parameter holds an embedding per class, (C, d){has}")
    if not single:
        raise Wrong(f"no parameter is the scale, one number{has}")
    if len(found) > 2:
        raise Wrong(f"there is more than embeddings and scale{has}")
    for name, parameter in found.items():
        if not parameter.requires_grad:
            raise Wrong(f"`{name}` is not learnt: it asks for no gradient")
    return wide[0], single[0]


def _has_parameters(kind: type) -> Observation:
    for classes, features in ((3, 4), (5, 2)):
        _parameters(_head(kind, classes, features), classes, features)
    return {}


def _first_scale(kind: type) -> Observation:
    head = _head(kind)
    return {"scale": head.get_parameter(_parameters(head)[1]).detach().double().reshape(())}


def _first_embeddings(kind: type) -> Observation:
    heads = [_head(kind) for _ in range(2)]
    one, other = (head.get_parameter(_parameters(head)[0]).detach() for head in heads)
    if (one == one[0]).all():
        raise Wrong("all classes start alike, so that they can hardly part", final=False)
    if torch.equal(one, other):
        raise Wrong("two heads start alike; they should be random", final=False)
    return {}


def _as_function(kind: type) -> Callable:
    """A head's logits as a function of features, embeddings and scale."""
    if not isinstance(kind, type):
        return kind

    def function(features: Tensor, weight: Tensor, eta: Tensor) -> Any:
        head = kind(*reversed(weight.shape))
        embeddings, scale = _parameters(head, *weight.shape)
        values = {embeddings: weight, scale: eta.reshape(head.get_parameter(scale).shape)}
        return torch.func.functional_call(head, values, (features,))

    function.__wrapped__ = kind  # in whose code a line is looked for when it raises
    return function


_FEATURES, _WEIGHT, _ETA = _draw(5, 4, seed=30), _draw(3, 4, seed=31), torch.tensor(2.5)
_HEAD = "features weight eta"

CosineHead = Exercise(
    "CosineHead",
    """(feature_dim, num_classes): an nn.Module with forward(features) -> logits (n, C)

    The cosine of each feature with each class embedding, times one learnable scale eta, which
    starts at 1. The embeddings, (C, d), are learnt too and start random; there is no bias.
    """,
    stand_in=CosineHeadOfLogits,
    form=_matrix("(n, C)"),
    cases=_cases(_HEAD, (_FEATURES, _WEIGHT, _ETA),
                 (_draw(2, 3, seed=32), _draw(6, 3, seed=33), torch.tensor(0.7))),
    first=(
        Behaviour("its parameters are the embeddings (C, d) and one scale", _has_parameters,
                  hints=False),
        Behaviour("the scale starts at 1", _first_scale, hints=False),
        Behaviour("the embeddings start random", _first_embeddings, hints=False),
    ),
    corners={
        "longer features or embeddings change nothing":
            _cases(_HEAD, (7 * _FEATURES, _WEIGHT, _ETA), (_FEATURES, 7 * _WEIGHT, _ETA)),
        "twice the scale gives twice the logits": _cases(_HEAD, (_FEATURES, _WEIGHT, 2 * _ETA)),
    },
    learns=("features", "weight", "eta"),
    adapt=_as_function,
    mistakes={
        "neither features nor embeddings are made unit vectors": lambda f, w, s: s * f @ w.T,
        "the embeddings are not made unit vectors": lambda f, w, s: s * unit(f) @ w.T,
        "the features are not made unit vectors": lambda f, w, s: s * f @ unit(w).T,
        "the columns are made unit vectors: a vector is a row":
            lambda f, w, s: s * _by_columns(f) @ _by_columns(w).T,
        "the columns of the features are made unit vectors: a vector is a row":
            lambda f, w, s: s * _by_columns(f) @ unit(w).T,
        "the columns of the embeddings are made unit vectors: a vector is a row":
            lambda f, w, s: s * unit(f) @ _by_columns(w).T,
        "the scale is left out": lambda f, w, s: cos(f, w),
        "the scale is left out, and nothing is made a unit vector": lambda f, w, s: f @ w.T,
        "the scale divides": lambda f, w, s: cos(f, w) / s,
        "the scale counts twice": lambda f, w, s: s * s * cos(f, w),
        "a softmax is taken: logits come before it": lambda f, w, s: (s * cos(f, w)).softmax(dim=1),
        "rows and columns are exchanged": lambda f, w, s: s * cos(w, f),
        "the lengths count as constants, out of the gradient's sight":
            lambda f, w, s: s * _steady(f) @ _steady(w).T,
        "the embeddings' lengths count as constants, out of the gradient's sight":
            lambda f, w, s: s * unit(f) @ _steady(w).T,
    },
)


def _imprinted(
    features: Tensor,
    labels: Tensor,
    num_new: int,
    old_weight: Tensor,
    ready: Callable = unit,
    mean: Callable = lambda features: features.mean(0),
    finish: Callable = unit,
    length: Callable = lambda weight: weight.norm(dim=1).mean(),
) -> Tensor:
    """Imprinting with something changed."""
    means = [mean(ready(features)[labels == c]) for c in range(num_new)]
    return finish(torch.stack(means)) * length(old_weight)


imprint = Exercise(
    "imprint",
    """(features, labels, num_new, old_weight) -> a tensor (num_new, d)

    First embeddings for new classes: the mean of each class's unit features, made a unit vector
    and given the mean length of the old embeddings. ``features`` is (n, d), ``labels`` (n,) in
    0..num_new-1, ``old_weight`` (C_o, d).
    """,
    stand_in=model.imprint,
    form=_matrix("(num_new, d)"),
    cases=_cases(
        "features labels num_new old_weight",
        (_draw(9, 4, seed=40), torch.tensor([2, 0, 1, 1, 2, 0, 0, 2, 2]), 3, _draw(5, 4, seed=41)),
        (_draw(5, 3, seed=42), torch.tensor([1, 0, 0, 1, 1]), 2, 3 * _draw(2, 3, seed=43)),
    ),
    mistakes={
        "the features are not made unit vectors before their mean is taken":
            partial(_imprinted, ready=_as_it_is),
        "the mean is not made a unit vector": partial(_imprinted, finish=_as_it_is),
        "neither features nor means are made unit vectors":
            partial(_imprinted, ready=_as_it_is, finish=_as_it_is),
        "the result is not given the old embeddings' length":
            partial(_imprinted, length=lambda w: 1),
        "the result is not given the old embeddings' length, nor is the mean of unit vectors taken":
            partial(_imprinted, ready=_as_it_is, length=lambda w: 1),
        "the mean of unit vectors is neither made a unit vector nor given a length":
            partial(_imprinted, finish=_as_it_is, length=lambda w: 1),
        "it is nothing but the mean of the features":
            partial(_imprinted, ready=_as_it_is, finish=_as_it_is, length=lambda w: 1),
        "the length is that of the mean old embedding, not the mean of their lengths":
            partial(_imprinted, length=lambda w: w.mean(0).norm()),
        "the length is that of all old embeddings as one vector":
            partial(_imprinted, length=torch.norm),
        "the old embeddings' lengths are summed, not averaged":
            partial(_imprinted, length=lambda w: w.norm(dim=1).sum()),
        "the length is taken down the columns of the old embeddings":
            partial(_imprinted, length=lambda w: w.norm(dim=0).mean()),
        "the sum over a class is neither averaged nor made a unit vector":
            partial(_imprinted, mean=lambda f: f.sum(0), finish=_as_it_is),
        "only the first image of each class counts": partial(_imprinted, mean=lambda f: f[0]),
        "the old embeddings stand above the new ones":
            lambda f, y, n, w: torch.cat([w, model.imprint(f, y, n, w)]),
        "rows and columns are exchanged": lambda f, y, n, w: model.imprint(f, y, n, w).T,
    },
)


# ---- Notebook 03 ----


def _likeness(features: Tensor, old_features: Tensor) -> Tensor:
    return (unit(features) * unit(old_features)).sum(1)


less_forget = Exercise(
    "less_forget",
    """(features, old_features) -> a number that can be differentiated

    One minus the cosine of the features, (n, d), with those of the teacher, (n, d), the mean over
    images. No gradient flows into the teacher.
    """,
    stand_in=losses.less_forget,
    form=LOSS,
    cases=_cases("features old_features", (_draw(6, 4, seed=50), _draw(6, 4, seed=51)),
                 (_draw(1, 3, seed=52), 3 * _draw(1, 3, seed=53)),
                 (_draw(4, 4, seed=54), _draw(4, 4, seed=54) + _draw(4, 4, seed=55) / 5)),
    learns=("features",),
    frozen=("old_features",),
    mistakes={
        "nothing is made a unit vector": lambda f, o: (1 - (f * o).sum(1)).mean(),
        "the features are not made unit vectors": lambda f, o: (1 - (f * unit(o)).sum(1)).mean(),
        "the teacher's are not made unit vectors": lambda f, o: (1 - (unit(f) * o).sum(1)).mean(),
        "the columns are made unit vectors: an image is a row":
            lambda f, o: (1 - (_by_columns(f) * _by_columns(o)).sum(1)).mean(),
        "the cosine is taken down the columns: an image is a row":
            lambda f, o: (1 - F.cosine_similarity(f, o, dim=0)).mean(),
        "the images are summed, not averaged": lambda f, o: (1 - _likeness(f, o)).sum(),
        "it is given for each image: their mean is missing": lambda f, o: 1 - _likeness(f, o),
        "the products of a row are averaged, not summed":
            lambda f, o: 1 - (unit(f) * unit(o)).mean(),
        "it is the mean cosine, which is to grow while a loss is to fall":
            lambda f, o: _likeness(f, o).mean(),
        "it is minus the cosine, without the one": lambda f, o: -_likeness(f, o).mean(),
        "the sign is turned": lambda f, o: _likeness(f, o).mean() - 1,
        "one minus the cosine is squared": lambda f, o: (1 - _likeness(f, o)).square().mean(),
        "it is the squared distance of the unit vectors, which is twice as much":
            lambda f, o: 2 * (1 - _likeness(f, o)).mean(),
        "it is the mean squared difference of the unit vectors' numbers":
            lambda f, o: F.mse_loss(unit(f), unit(o)),
        "it is the mean squared difference of the features": lambda f, o: F.mse_loss(f, o),
        "it is the distance of the unit vectors":
            lambda f, o: (unit(f) - unit(o)).norm(dim=1).mean(),
        "every image is compared with all of the teacher's, not with its own alone":
            lambda f, o: (1 - cos(f, o)).mean(),
        "the features' lengths count as constants, out of the gradient's sight":
            lambda f, o: (1 - (_steady(f) * unit(o)).sum(1)).mean(),
    },
)

adaptive_lambda = Exercise(
    "adaptive_lambda",
    """(base, num_old, num_new) -> a number

    The weight of the less-forget constraint, as in the authors' code: ``base`` times the square
    root of the number of old classes over that of new ones.
    """,
    stand_in=losses.adaptive_lambda,
    form=NUMBER,
    cases=_cases("base num_old num_new", (5.0, 50, 10), (5.0, 90, 10), (2.0, 50, 20), (3.0, 7, 13)),
    mistakes={
        "new classes are divided by old ones: so the paper prints it, while the authors' code has "
        "it the other way round": lambda b, o, n: b * math.sqrt(n / o),
        "the root is missing": lambda b, o, n: b * o / n,
        "all classes are divided by the new ones, not the old ones alone":
            lambda b, o, n: b * math.sqrt((o + n) / n),
        "all classes are divided by the old ones": lambda b, o, n: b * math.sqrt((o + n) / o),
        "the root is taken of the base too": lambda b, o, n: math.sqrt(b * o / n),
        "the root is taken of the old classes alone": lambda b, o, n: b * math.sqrt(o) / n,
        "the root is taken of the new classes alone": lambda b, o, n: b * o / math.sqrt(n),
        "the base is left out": lambda b, o, n: math.sqrt(o / n),
        "it is the base, whatever the classes": lambda b, o, n: b,
        "the ratio is rounded to a whole number": lambda b, o, n: b * math.sqrt(o // n),
        "the new classes are left out": lambda b, o, n: b * math.sqrt(o),
    },
)

score_distillation = Exercise(
    "score_distillation",
    """(cosines_old, teacher_cosines) -> a number that can be differentiated

    The sum over the old classes of the squared difference between the cosines and the teacher's,
    both (n, C_o), the mean over images. No gradient flows into the teacher.
    """,
    stand_in=losses.score_distillation,
    form=LOSS,
    cases=_cases("cosines_old teacher_cosines",
                 (_draw(5, 3, seed=60).tanh(), _draw(5, 3, seed=61).tanh()),
                 (_draw(1, 4, seed=62).tanh(), _draw(1, 4, seed=63).tanh()),
                 (_draw(2, 6, seed=64).tanh(), _draw(2, 6, seed=65).tanh())),
    learns=("cosines_old",),
    frozen=("teacher_cosines",),
    mistakes={
        "the classes are averaged, not summed": lambda c, t: F.mse_loss(c, t),
        "the images are summed, not averaged": lambda c, t: (c - t).square().sum(),
        "classes are averaged and images summed": lambda c, t: (c - t).square().mean(1).sum(),
        "it is given for each image: their mean is missing": lambda c, t: (c - t).square().sum(1),
        "it is the distance, as the paper prints it, where the authors' code has its square":
            lambda c, t: (c - t).norm(dim=1).mean(),
        "the differences are made positive, not squared": lambda c, t: (c - t).abs().sum(1).mean(),
        "the differences are made positive, not squared, and averaged over the classes":
            lambda c, t: (c - t).abs().mean(),
        "the differences are not squared": lambda c, t: (c - t).sum(1).mean(),
        "the differences are summed before they are squared":
            lambda c, t: (c - t).sum(1).square().mean(),
        "the sign is turned": lambda c, t: -(c - t).square().sum(1).mean(),
        "a root is taken of the whole": lambda c, t: (c - t).square().sum(1).mean().sqrt(),
        "it is the divergence of probabilities, the usual distillation":
            lambda c, t: F.kl_div(c.log_softmax(1), t.softmax(1), reduction="batchmean"),
    },
)


# ---- Notebook 04 ----


def _hardest(cosines: Tensor, num_old: int, top_k: int) -> Tensor:
    return cosines[:, num_old:].topk(top_k, dim=1).values


hardest_negatives = Exercise(
    "hardest_negatives",
    """(cosines, num_old, top_k) -> a tensor (n, top_k)

    For each image the ``top_k`` highest of its ``cosines``, (n, C), with the new classes, highest
    first. The first ``num_old`` classes are old.
    """,
    stand_in=_hardest,
    form=_matrix("(n, top_k)"),
    cases=_cases("cosines num_old top_k", (_draw(6, 7, seed=70).tanh(), 3, 2),
                 (_draw(5, 5, seed=71).tanh(), 2, 3), (_draw(2, 6, seed=72).tanh(), 4, 1)),
    learns=("cosines",),
    mistakes={
        "they are taken among all classes": lambda c, o, k: c.topk(k, dim=1).values,
        "they are taken among the old classes": lambda c, o, k: _hardest(c[:, :o], 0, min(k, o)),
        "the lowest cosines are taken": lambda c, o, k: -_hardest(-c, o, k),
        "the lowest come first": lambda c, o, k: _hardest(c, o, k).flip(1),
        "they stand in the order of the classes, not highest first":
            lambda c, o, k: c[:, o:].gather(1, c[:, o:].topk(k).indices.sort(dim=1).values),
        "the first new classes are taken, not the most alike": lambda c, o, k: c[:, o : o + k],
        "it is their place among the new classes, not their cosine":
            lambda c, o, k: c[:, o:].topk(k, dim=1).indices,
        "it is their class number, not their cosine":
            lambda c, o, k: c[:, o:].topk(k, dim=1).indices + o,
        "their place among the new classes is looked up among all classes":
            lambda c, o, k: c.gather(1, c[:, o:].topk(k, dim=1).indices),
        "the highest are taken down the batch, not along the classes":
            lambda c, o, k: c[:, o:].topk(min(k, len(c)), dim=0).values,
        "the last old class counts as new": lambda c, o, k: _hardest(c, o - 1, k),
        "the first new class is left out":
            lambda c, o, k: _hardest(c, o + 1, min(k, c.shape[1] - o - 1)),
        "only the highest is taken": lambda c, o, k: _hardest(c, o, 1),
        "always two are taken": lambda c, o, k: _hardest(c, o, 2),
        "all new classes are taken": lambda c, o, k: _hardest(c, o, c.shape[1] - o),
        "their mean is taken": lambda c, o, k: _hardest(c, o, k).mean(1),
        "rows and columns are exchanged": lambda c, o, k: _hardest(c, o, k).T,
    },
)


def _all_but_own(cosines: Tensor, targets: Tensor) -> Tensor:
    return cosines.masked_fill(F.one_hot(targets, cosines.shape[1]).bool(), -torch.inf)


def _ranking(
    own: Callable = lambda c, y, o: c.gather(1, y[:, None]),
    others: Callable = lambda c, y, o, k: _hardest(c, o, k),
    hinge: Callable = lambda gaps: gaps.clamp(min=0),
    gap: Callable = lambda own, other, m: m - own + other,
    over_k: Callable = lambda hinges: hinges.mean(1),
    images: Callable = lambda y, o: y < o,
    over_images: Callable = lambda losses, chosen: losses[chosen].sum() / chosen.sum().clamp(min=1),
    **fixed: float,
) -> Callable:
    """Margin ranking with something changed."""

    def loss(
        cosines: Tensor, targets: Tensor, num_old: int, top_k: int = 2, margin: float = 0.5
    ) -> Tensor:
        negatives = others(cosines, targets, num_old, fixed.get("top_k", top_k))
        gaps = gap(own(cosines, targets, num_old), negatives, fixed.get("margin", margin))
        return over_images(over_k(hinge(gaps)), images(targets, num_old))

    return loss


_NO_OLD_IMAGE = _cases("cosines targets num_old",
                       (_draw(4, 6, seed=83).tanh(), torch.tensor([3, 5, 4, 4]), 3))

margin_ranking = Exercise(
    "margin_ranking",
    """(cosines, targets, num_old, top_k=2, margin=0.5) -> a number that can be differentiated

    For each image of an old class and each of its ``top_k`` hardest negatives, the new classes
    most like it: by how much its own cosine falls short of the negative's plus ``margin``. The
    mean over the negatives and over the images of old classes; 0 when there is none.
    ``cosines`` is (n, C), old classes first, ``targets`` (n,).
    """,
    stand_in=losses.margin_ranking,
    form=LOSS,
    cases=_cases(
        "cosines targets num_old top_k margin",
        (_draw(8, 7, seed=130).tanh(), torch.tensor([0, 3, 5, 2, 1, 4, 0, 6]), 4),
        (_draw(5, 6, seed=91).tanh(), torch.tensor([1, 5, 0, 2, 0]), 2, 3, 0.2),
        (_draw(4, 5, seed=82).tanh(), torch.tensor([2, 0, 1, 3]), 3, 1, 0.8),
    ),
    corners={"gives 0 for a batch without an old image": _NO_OLD_IMAGE},
    corner_gradients={"its gradient is 0 for a batch without an old image": _NO_OLD_IMAGE},
    learns=("cosines",),
    mistakes={
        "the sum is taken over the K negatives, as the paper prints it; wanted is their mean, as "
        "in the authors' code": _ranking(over_k=lambda h: h.sum(1)),
        "images of new classes count too": _ranking(images=lambda y, o: y >= 0),
        "images of new classes count, not those of old ones": _ranking(images=lambda y, o: y >= o),
        "the first new class counts as old": _ranking(images=lambda y, o: y <= o),
        "it is divided by the number of all images, not of the old ones":
            _ranking(over_images=lambda losses, chosen: losses[chosen].sum() / len(chosen)),
        "the images are summed, not averaged":
            _ranking(over_images=lambda losses, chosen: losses[chosen].sum()),
        "the sum is taken over images and negatives": _ranking(
            over_k=lambda h: h.sum(1), over_images=lambda losses, chosen: losses[chosen].sum()),
        "a mean is taken over no image":
            _ranking(over_images=lambda losses, chosen: losses[chosen].mean()),
        "it is given for each image: their mean is missing":
            _ranking(over_images=lambda losses, chosen: losses[chosen]),
        "the negatives are taken among all other classes, not the new ones alone":
            _ranking(others=lambda c, y, o, k: _hardest(_all_but_own(c, y), 0, k)),
        "the negatives are taken among all classes, the image's own among them":
            _ranking(others=lambda c, y, o, k: _hardest(c, 0, k)),
        "the negatives are taken among the old classes":
            _ranking(others=lambda c, y, o, k: _hardest(c[:, :o], 0, min(k, o))),
        "all new classes are negatives, not the hardest alone":
            _ranking(others=lambda c, y, o, k: c[:, o:]),
        "the new classes least like the image are its negatives":
            _ranking(others=lambda c, y, o, k: -_hardest(-c, o, k)),
        "only the hardest negative counts": _ranking(top_k=1),
        "`top_k` is always 2": _ranking(top_k=2),
        "`margin` is always 0.5": _ranking(margin=0.5),
        "the margin is left out": _ranking(margin=0.0),
        "the margin's sign is turned": _ranking(gap=lambda own, other, m: other - own - m),
        "own class and negatives are exchanged, so that it pushes the wrong way":
            _ranking(gap=lambda own, other, m: m + own - other),
        "what is negative is not cut off: a pair that keeps the margin costs nothing":
            _ranking(hinge=_as_it_is),
        "the mean over the negatives is cut off at 0, not each of them":
            _ranking(hinge=_as_it_is, over_k=lambda h: h.mean(1).clamp(min=0)),
        "it is squared": _ranking(hinge=lambda gaps: gaps.clamp(min=0).square()),
        "the cosines are scaled by 10, as logits are":
            lambda c, *rest: losses.margin_ranking(10 * c, *rest),
        "the highest cosine with an old class is taken for the image's own":
            _ranking(own=lambda c, y, o: c[:, :o].amax(1, keepdim=True)),
        "the sign is turned": lambda *given: -losses.margin_ranking(*given),
        "the negatives are detached":
            _ranking(others=lambda c, y, o, k: _hardest(c, o, k).detach()),
    },
)


def _degrees(cosines: Tensor) -> Tensor:
    return cosines.clamp(-1, 1).acos().rad2deg()


def _angles(weight: Tensor) -> Tensor:
    return _degrees(cos(weight, weight)).fill_diagonal_(0)


_ROUND = torch.tensor([[1.0, 1, 1, 1], [0, 2, 0, 0], [-1, 1, 1, -1], [1, -1, -1, -1],
                       [-3, 0, 0, 0], [1, 1, -1, 1]])  # unit vectors without rounding
_CROWD = torch.cat([_draw(24, 6, seed=90), -3 * _draw(24, 6, seed=90), _draw(24, 6, seed=90) / 7])

angles = Exercise(
    "angles",
    """(weight) -> a tensor (C, C)

    The angles in degrees, 0 to 180, between all pairs of class embeddings; ``weight`` is (C, d).
    """,
    stand_in=_angles,
    form=_matrix("(C, C)"),
    cases=_cases("weight", (_ROUND,), (3 * _ROUND[[3, 1, 4, 2]],)),
    corners={"is a number also where directions are the same or opposite":
             _cases("weight", (_CROWD,))},
    tolerance=0.1,
    mistakes={
        "angles are in radians": lambda w: _angles(w).deg2rad(),
        "it is the cosine, not the angle": lambda w: cos(w, w),
        "it is one minus the cosine": lambda w: 1 - cos(w, w),
        "the embeddings are not made unit vectors": lambda w: _degrees(w @ w.T),
        "the embeddings are not made unit vectors, and products above 1 have no angle":
            lambda w: (w @ w.T).acos().rad2deg(),
        "the columns are made unit vectors: an embedding is a row":
            lambda w: _degrees(_by_columns(w) @ _by_columns(w).T),
        "angles are taken between columns: an embedding is a row": lambda w: _angles(w.T),
        "the cosine's sign is lost: no angle is obtuse": lambda w: _degrees(cos(w, w).abs()),
        "negative cosines are cut off": lambda w: _degrees(cos(w, w).clamp(min=0)),
        "it is 180 degrees minus the angle": lambda w: 180 - _angles(w),
        "it is half the angle": lambda w: _angles(w) / 2,
        "degrees are made without the number pi": lambda w: 180 * _angles(w).deg2rad(),
        "it is the distance of the unit vectors": lambda w: torch.cdist(unit(w), unit(w)),
        "only pairs above the diagonal are filled in": lambda w: _angles(w).triu(),
        "a cosine that rounding brings a little above 1 or below −1 has no angle":
            lambda w: (unit(w) @ unit(w).T).acos().rad2deg(),
        "a cosine that rounding brings a little below −1 has no angle":
            lambda w: (unit(w) @ unit(w).T).clamp(max=1).acos().rad2deg(),
        "what is not a number is made 0, also where directions are opposite":
            lambda w: (unit(w) @ unit(w).T).acos().rad2deg().nan_to_num(),
        "the diagonal is NaN": lambda w: _angles(w).fill_diagonal_(torch.nan),
    },
)


# ---- Notebook 05 ----


def _lucir_loss(
    output: Output, targets: Tensor, old_output: Output | None, num_old: int,
    lambda_base: float = 5.0, top_k: int = 2, margin: float = 0.5,
) -> Tensor:
    config = Config(lambda_base=lambda_base, top_k=top_k, margin=margin)
    return sum(trainer.objective(config, output, targets, old_output, num_old).values())


@dataclass(frozen=True)
class _Parts:
    """The arguments and the terms of the whole loss."""

    output: Output
    targets: Tensor
    old: Output
    num_old: int
    base: float = 5.0
    top_k: int = 2
    margin: float = 0.5

    def entropy(self, scores: Tensor | None = None) -> Tensor:
        scores = self.output.logits if scores is None else scores
        return F.cross_entropy(scores, self.targets)

    def weight(self, **changes: float) -> float:
        new = self.output.logits.shape[1] - self.num_old
        usual = {"base": self.base, "num_old": self.num_old, "num_new": new}
        return losses.adaptive_lambda(**{**usual, **changes})

    def forget(self) -> Tensor:
        return losses.less_forget(self.output.features, self.old.features)

    def rank(self, scores: Tensor | None = None, **changes: float) -> Tensor:
        scores = self.output.cosines if scores is None else scores
        usual = {"top_k": self.top_k, "margin": self.margin}
        return losses.margin_ranking(scores, self.targets, self.num_old, **{**usual, **changes})

    def total(self, **terms: Any) -> Tensor:
        names = ("entropy", "weight", "forget", "rank")
        values = [terms[n] if n in terms else getattr(self, n)() for n in names]
        return values[0] + values[1] * values[2] + values[3]


def _with(combine: Callable[[_Parts], Tensor]) -> Callable:
    """The whole loss, its terms put together in another way; in the base phase as it should be."""
    return lambda output, targets, old, num_old, *rest: (
        combine(_Parts(output, targets, old, num_old, *rest)) if num_old
        else F.cross_entropy(output.logits, targets))


def _output(features: Tensor, weight: Tensor) -> Output:
    return Output(features, cos(features, weight), 4 * cos(features, weight))


def _step(old: int, new: int, targets: list[int], *rest: float, seed: int) -> tuple:
    """Arguments as they come in training: the network has moved away from its teacher."""
    weight, before = _draw(old + new, 6, seed=seed), _draw(len(targets), 6, seed=seed + 1)
    now = before + _draw(len(targets), 6, seed=seed + 2).flip(0) / 2
    return _output(now, weight), torch.tensor(targets), _output(before, weight[:old]), old, *rest


_LUCIR = "output targets old_output num_old lambda_base top_k margin"
_BASE_PHASE = _cases(_LUCIR, (*_step(6, 0, [0, 5, 3, 3, 1], seed=103)[:2], None, 0))

lucir_loss = Exercise(
    "lucir_loss",
    """(output, targets, old_output, num_old, lambda_base=5.0, top_k=2, margin=0.5)
    -> a number that can be differentiated

    The sum of cross-entropy, the less-forget constraint times its adaptive lambda, and margin
    ranking. ``output`` and the teacher's ``old_output`` have ``.features``, ``.cosines`` and
    ``.logits``. In the base phase ``num_old`` is 0, ``old_output`` None, and cross-entropy is all.
    """,
    stand_in=_lucir_loss,
    form=LOSS,
    cases=_cases(_LUCIR, _step(4, 3, [0, 6, 3, 2, 4, 1, 0], seed=100),
                 _step(3, 4, [1, 5, 0, 2, 6], 2.0, 3, 0.2, seed=110),
                 _step(5, 2, [6, 5, 5], seed=120)),
    corners={"is cross-entropy alone in the base phase": _BASE_PHASE},
    corner_gradients={"gradient in the base phase": _BASE_PHASE},
    learns=("output",),
    frozen=("old_output",),
    mistakes={
        "lambda is fixed, not adapted to the classes": _with(lambda s: s.total(weight=s.base)),
        "lambda follows the rule that the paper prints, not the authors' code":
            _with(lambda s: s.total(weight=s.weight(rule="paper"))),
        "lambda is left out": _with(lambda s: s.total(weight=1)),
        "lambda has all classes for the new ones":
            _with(lambda s: s.total(weight=s.weight(num_new=s.output.logits.shape[1]))),
        "`lambda_base` is always 5": _with(lambda s: s.total(weight=s.weight(base=5))),
        "lambda weighs margin ranking too": _with(lambda s: s.total(rank=s.weight() * s.rank())),
        "margin ranking is left out": _with(lambda s: s.total(rank=0)),
        "less-forget is left out": _with(lambda s: s.total(forget=0)),
        "cross-entropy is left out": _with(lambda s: s.total(entropy=0)),
        "it is cross-entropy alone, also after the base phase": _with(lambda s: s.entropy()),
        "the mean of the terms is taken, not their sum": _with(lambda s: s.total() / 3),
        "margin ranking is given the logits; it wants the cosines":
            _with(lambda s: s.total(rank=s.rank(s.output.logits))),
        "cross-entropy is given the cosines; it wants the logits":
            _with(lambda s: s.total(entropy=s.entropy(s.output.cosines))),
        "cross-entropy is given probabilities; it wants the logits":
            _with(lambda s: s.total(entropy=s.entropy(s.output.logits.softmax(1)))),
        "less-forget is given the old classes' logits; it wants the features":
            _with(lambda s: s.total(
                forget=losses.less_forget(s.output.logits[:, :s.num_old], s.old.logits))),
        "margin ranking is summed over the K negatives, as the paper prints it":
            _with(lambda s: s.total(rank=s.rank(reduction="paper"))),
        "`margin` is not passed on": _with(lambda s: s.total(rank=s.rank(margin=0.5))),
        "`top_k` is not passed on": _with(lambda s: s.total(rank=s.rank(top_k=2))),
        "neither `top_k` nor `margin` is passed on":
            _with(lambda s: s.total(rank=s.rank(top_k=2, margin=0.5))),
    },
)


def _means(exemplars: Tensor, labels: Tensor, mean: Callable = Tensor.mean) -> Tensor:
    return torch.stack([mean(exemplars[labels == c], 0) for c in range(int(labels.max()) + 1)])


def _likest(features: Tensor, means: Tensor) -> Tensor:
    return cos(features, means).argmax(1)


def _closest(features: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(features, means).argmin(1)


def _nearest_mean(features: Tensor, exemplar_features: Tensor, exemplar_labels: Tensor) -> Tensor:
    classes = int(exemplar_labels.max()) + 1
    means = memory.class_means(exemplar_features, exemplar_labels, classes)
    return memory.nearest_mean(features, means)


def _exemplars(n: int, d: int, labels: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images and exemplars, in some classes few that are alike, in others many that are not."""
    centres, spread = _draw(max(labels) + 1, d, seed=seed), torch.linspace(0.3, 2, len(labels))
    around = spread[:, None] * _draw(len(labels), d, seed=seed + 1).flip(0)
    return _draw(n, d, seed=seed + 2), centres[torch.tensor(labels)] + around, torch.tensor(labels)


nearest_mean = Exercise(
    "nearest_mean",
    """(features, exemplar_features, exemplar_labels) -> a class for each image, (n,)

    The class whose mean has the highest cosine with the image's feature. A class's mean is that
    of the unit features of its exemplars, made a unit vector again. ``features`` is (n, d),
    ``exemplar_features`` (m, d), ``exemplar_labels`` (m,) in 0..C-1, all of them there.
    """,
    stand_in=_nearest_mean,
    form=CLASSES,
    cases=_cases("features exemplar_features exemplar_labels",
                 _exemplars(60, 3, [2, 0, 1, 3, 0, 1, 2, 2, 1, 3, 2, 2], seed=130),
                 _exemplars(40, 4, [1, 0, 0, 2, 1, 1, 2], seed=140)),
    mistakes={
        "the exemplars are not made unit vectors before their mean is taken":
            lambda f, e, y: _likest(f, _means(e, y)),
        "the means are not made unit vectors, and the highest product is taken":
            lambda f, e, y: (f @ _means(unit(e), y).T).argmax(1),
        "the means are not made unit vectors, and the nearest is taken":
            lambda f, e, y: _closest(unit(f), _means(unit(e), y)),
        "neither features nor means are made unit vectors, and the nearest is taken":
            lambda f, e, y: _closest(f, _means(unit(e), y)),
        "nothing is made a unit vector, and the nearest is taken":
            lambda f, e, y: _closest(f, _means(e, y)),
        "nothing is made a unit vector, and the highest product is taken":
            lambda f, e, y: (f @ _means(e, y).T).argmax(1),
        "a class's exemplars are summed, and the highest product is taken":
            lambda f, e, y: (f @ _means(unit(e), y, Tensor.sum).T).argmax(1),
        "the class of the likest exemplar is taken, without means":
            lambda f, e, y: y[_likest(f, e)],
        "the class of the nearest exemplar is taken, without means or unit vectors":
            lambda f, e, y: y[_closest(f, e)],
        "it is the number of the likest exemplar, not a class": lambda f, e, y: _likest(f, e),
        "the class least alike is taken": lambda f, e, y: cos(f, _means(unit(e), y)).argmin(1),
        "only the first exemplar of each class counts":
            lambda f, e, y: _likest(f, _means(e, y, lambda part, _: part[0])),
        "classes are numbered as they come up among the exemplars": lambda f, e, y: torch.tensor(
            [list(dict.fromkeys(y.tolist())).index(c) for c in _nearest_mean(f, e, y)]),
        "classes are counted from 1": lambda f, e, y: _nearest_mean(f, e, y) + 1,
        "the highest is taken down the images, not along the classes":
            lambda f, e, y: cos(f, _means(unit(e), y)).argmax(0),
    },
)


def _effects(table: dict, switch: int) -> np.ndarray:
    """Of the switch, in the four settings of the others: all off first, all on last."""
    rest = itertools.product([False, True], repeat=2)
    return np.array([
        table[(*others[:switch], True, *others[switch:])]
        - table[(*others[:switch], False, *others[switch:])]
        for others in rest
    ])


def _main_effect(table: dict, switch: int) -> float:
    return float(_effects(table, switch).mean())


def _side(table: dict, switch: int, state: bool) -> list[float]:
    return [accuracy for key, accuracy in table.items() if key[switch] is state]


_TABLES = [
    dict(zip(itertools.product([False, True], repeat=3), accuracies, strict=True))
    for accuracies in ([40.5, 42.0, 47.3, 46.1, 52.9, 59.4, 58.2, 63.8],
                       [55.0, 50.5, 62.3, 66.0, 51.2, 49.9, 70.1, 58.7])
]

main_effect = Exercise(
    "main_effect",
    """(table, switch) -> a number

    What a switch brings: the mean accuracy of the four combinations with it on minus that of the
    four with it off. ``table`` is a dict from three booleans (cosine, less_forget,
    margin_ranking) to accuracy; ``switch`` is 0, 1 or 2.
    """,
    stand_in=_main_effect,
    form=NUMBER,
    cases=_cases("table switch", *itertools.product(_TABLES, range(3))),
    mistakes={
        "it is looked at only where the other switches are off": lambda t, s: _effects(t, s)[0],
        "it is looked at only where the other switches are on": lambda t, s: _effects(t, s)[-1],
        "it is looked at only where the others are all off or all on":
            lambda t, s: _effects(t, s)[[0, -1]].mean(),
        "the four differences are summed, not averaged": lambda t, s: _effects(t, s).sum(),
        "it is divided by all eight combinations": lambda t, s: _effects(t, s).sum() / 8,
        "on and off are exchanged": lambda t, s: -_main_effect(t, s),
        "the sign is lost": lambda t, s: abs(_main_effect(t, s)),
        "nothing is subtracted": lambda t, s: np.mean(_side(t, s, True)),
        "all on is compared with all off": lambda t, s: t[(True,) * 3] - t[(False,) * 3],
        "it is in percent of the accuracy with it off":
            lambda t, s: 100 * _main_effect(t, s) / np.mean(_side(t, s, False)),
        "the first switch is always taken": lambda t, s: _main_effect(t, 0),
        "the switch after it is taken": lambda t, s: _main_effect(t, (s + 1) % 3),
        "the switches are counted from the last": lambda t, s: _main_effect(t, 2 - s),
    },
)

EXERCISES = {
    exercise.name: exercise
    for exercise in (
        norm_gap, old_to_new, forgetting, herding,
        cosine_similarity_matrix, softmax_ceiling, CosineHead, imprint,
        less_forget, adaptive_lambda, score_distillation,
        hardest_negatives, margin_ranking, angles,
        lucir_loss, nearest_mean, main_effect,
    )
}
