"""What a run leaves on disk: results.json, arrays.npz, and a checkpoint per phase.

During a long phase there is one more file, ``midway.safetensors``, from which a run that was
stopped continues; it is removed when the phase is done.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from lucir_edu import hardware, metrics
from lucir_edu.config import METHODS, PRESETS, SWITCHES, Config, UsageError, method_of
from lucir_edu.config import preset as make_preset
from lucir_edu.datasets import Dataset
from lucir_edu.files import whole
from lucir_edu.stream import Stream
from lucir_edu.stream import make as make_stream
from lucir_edu.trainer import EpochEnd, Event, Measurement, Midway, PhaseEnd, State, train

RESULTS, ARRAYS, MIDWAY, LOCK = "results.json", "arrays.npz", "midway.safetensors", ".lock"
KEEP_EVERY = 60.0  # seconds, at least, between two states kept inside a phase
LOCK_PATIENCE = 3.0  # seconds that a run that was just stopped has to release its folder
BY_TWO_CLASSES = ("confusion_cnn", "confusion_nme", "embedding_angles")  # arrays (P, C, C)
BANK = Path(__file__).parents[1] / "data" / "bank"
CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"


MACHINE = ("code", "torch", "device", "precision")  # of an environment: one run has one of each
LATER = (  # settings that take effect from the first incremental phase on
    "exemplars_per_class", "memory_total", "joint", "less_forget", "margin_ranking", "imprint",
    "adaptive_lambda", "freeze_old_embeddings", "balanced_finetune", "frozen_network",
    "score_distillation", "distillation", "lambda_base", "lambda_rule", "top_k", "margin",
    "margin_weight", "margin_reduction", "temperature", "distillation_weight", "balanced_epochs",
    "balanced_lr", "workers",
)  # fmt: skip


class Run(dict):
    """A run's results: a mapping like ``results.json``, plus ``arrays`` and ``path``.

    The arrays, for P phases and C classes in class order: ``confusion_cnn`` and ``confusion_nme``
    (P, C, C), counts, with a row per true class; ``embedding_angles`` (P, C, C), the angles between
    class embeddings in whole degrees; ``weight_norms``, ``biases``, ``mean_logits`` and
    ``logit_sds`` (P, C); ``positions`` (P, C, images, 2), the features of a few test images of each
    class in a plane (see :class:`lucir_edu.trainer.Measurement`). Where a class was not yet seen,
    counts and degrees are 0, all others NaN.
    """

    def __init__(
        self, results: Mapping[str, Any], arrays: Mapping[str, np.ndarray], path: Path | None = None
    ) -> None:
        super().__init__(results)
        self.arrays, self.path = dict(arrays), path

    @property
    def complete(self) -> bool:
        """Whether all phases are there."""
        return len(self["phases"]) == len(self["bounds"]) - 1

    def accuracies(self, kind: str = "cnn") -> list[float | None]:
        """The accuracy after each phase; kind is "cnn" or "nme"."""
        return [phase[kind] for phase in self["phases"]]

    def accuracy_matrix(self, kind: str = "cnn") -> np.ndarray:
        """(P, P); row t, column j is the accuracy after phase t on the classes that came in phase
        j; NaN above the diagonal.

        Raises:
            KeyError: kind is "nme", and there was no memory.
        """
        bounds = self["bounds"][: len(self["phases"]) + 1]
        matrix = np.full((len(bounds) - 1,) * 2, np.nan)
        for t in range(len(matrix)):
            confusion = self.arrays[f"confusion_{kind}"][t]
            matrix[t, : t + 1] = metrics.group_accuracies(confusion, bounds[: t + 2])
        return matrix

    def old_new_confusion(self, phase: int) -> metrics.OldNewConfusion:
        """How the head classifies test images of old and new classes after a phase (from 0)."""
        num_old, seen = self["bounds"][phase : phase + 2]
        counts = self.arrays["confusion_cnn"][phase][:seen, :seen]
        truth, guess = np.indices(counts.shape).reshape(2, -1).repeat(counts.ravel(), axis=1)
        return metrics.old_new_confusion(guess, truth, num_old)


def perform(
    config: Config,
    dataset: Dataset,
    *,
    preset: str = "",
    out: str | Path | None = None,
    resume: bool = False,
    start: State | None = None,
    base: Run | None = None,
    device: str = "auto",
    watch: Callable[[Event], object] = lambda event: None,
) -> Run:
    """Train through all phases and gather the results.

    Args:
        preset: a name for the config. :func:`compare` assumes that runs of one preset are on one
            data set: give each of your own data sets a name of its own.
        start: a network to continue from, after the base phase, as returned by :func:`load_bases`.
        base: a run with the same base phase, as returned by :func:`same_base`; that phase is not
            learned again.
        out: a folder to write to after every phase, and from time to time inside one; None writes
            nothing.
        resume: continue the run in ``out``, if there is one. A complete run is returned as it is,
            even if it is :func:`stale`.
        device: auto, cpu, cuda or mps.
        watch: is called with every event.

    Raises:
        UsageError: ``out`` already holds a run, or a different or damaged one, not that to be
            resumed; it is a file, cannot be written to, or is in use; a class has no training or no
            test image; ``start`` is from a later phase; or for the reasons that
            :func:`lucir_edu.trainer.train` gives.
    """
    stream, target = make_stream(config, dataset), hardware.pick_device(device)
    stream.check()
    if start is not None and start.phase:
        raise UsageError(f"a run starts from a base phase, not from phase {start.phase}")
    about = {
        "preset": preset,
        "method": method_of(config),
        "environment": hardware.describe(target, hardware.pick_precision(config.precision, target)),
    }
    with contextlib.ExitStack() as stack:
        earlier, midway = None, None
        if out is not None:
            out = Path(out)
            if resume and (out / RESULTS).exists():
                earlier = _earlier(out, config, stream, resume, about["environment"])
                if earlier.complete:  # there is nothing to write, and the folder may be read-only
                    with contextlib.suppress(OSError):
                        for leftover in (MIDWAY, LOCK):  # of a run that was killed at its very end
                            (out / leftover).unlink(missing_ok=True)
                    return earlier
            stack.enter_context(_alone(out))
            earlier = _earlier(out, config, stream, resume, about["environment"])
            identity = _identity(config, stream, about["environment"])
            midway = load_midway(out, identity) if resume else None
        if earlier is not None:
            about["environment"] = _both(earlier["environment"], about["environment"])
            start = load_state(out, len(earlier["phases"]) - 1)
        elif base is not None:
            start = dataclasses.replace(load_state(base.path, 0), exemplars=None, plane=None)
        if midway is not None and midway.phase != (0 if start is None else start.phase + 1):
            midway = None  # its phase was finished after it was saved
        writes = out is not None and hardware.is_first()
        measurements, run, last_kept = [], earlier, time.monotonic()
        for event in train(config, dataset, device=device, start=start, midway=midway):
            if isinstance(event, PhaseEnd):
                measurement = event.measurement
                if base is not None and measurement.phase == 0:
                    learnt = {key: base["phases"][0][key] for key in ("losses", "seconds")}
                    measurement = dataclasses.replace(measurement, **learnt)
                measurements.append(measurement)
                run = assemble(measurements, config, stream, earlier, **about)
                run.path = out
                is_new = earlier is None or measurement.phase >= len(earlier["phases"])
                if writes and is_new:
                    with _told(out):
                        save_state(event, out)
                        save(run, out)
                        (out / MIDWAY).unlink(missing_ok=True)
            due = time.monotonic() - last_kept >= KEEP_EVERY
            if isinstance(event, EpochEnd) and event.midway and writes and due:
                with _told(out):
                    save_midway(event.midway(), identity, out)
                last_kept = time.monotonic()
            watch(event)
    return run


def shortage(error: Exception) -> str:
    """What the machine ran out of, in a line; "" for other errors."""
    if str(error).startswith("DataLoader worker"):  # as torch says it
        return (
            "a process that reads images was ended from outside (is there enough memory, and in a "
            "container enough /dev/shm?); use fewer of them, --set workers=0 uses none"
        )
    if isinstance(error, MemoryError) or re.search(
        "out of memory|not enough memory|can't allocate memory", str(error)
    ):
        return "there is not enough memory; set a smaller batch_size or width, or use --device cpu"
    return ""


def check_free(out: Path) -> None:
    """Refuse a folder that holds a run, whether begun or complete.

    Raises:
        UsageError: it holds one.
    """
    if any((out / name).exists() for name in (RESULTS, MIDWAY)):
        raise UsageError(
            f"{out} holds a run already; add --resume to go on with it, or choose another --out"
        )


def kept(out: Path) -> str:
    """What a run that was stopped has left in its folder, in words; "" for nothing."""
    phases = len(load(out)["phases"]) if (out / RESULTS).exists() else 0
    words = [f"{phases} finished phase{'s' * (phases != 1)}"] if phases else []
    with contextlib.suppress(OSError, SafetensorError, ValueError, KeyError):
        with safe_open(out / MIDWAY, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
        if about["phase"] == phases:
            words.append(f"{about['epoch']} epoch{'s' * (about['epoch'] != 1)} of phase {phases}")
    return " and ".join(words)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder, but not the processes that train this run together."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; choose another --out")
    lock = FileLock(out / LOCK, timeout=LOCK_PATIENCE)
    try:
        out.mkdir(parents=True, exist_ok=True)
        if hardware.is_first():
            lock.acquire()
            for name in (RESULTS, ARRAYS, MIDWAY, "phase_*.safetensors"):
                for forgotten in out.glob(f".{name}.*.tmp"):  # of a run that was killed in writing
                    forgotten.unlink()
    except Timeout:
        raise UsageError(
            f"another run is writing to {out}; wait until it has ended, or choose another --out"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot write to {out} ({error.strerror}); choose another --out"
        ) from None
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
            lock.release()


@contextlib.contextmanager
def _told(out: Path) -> Iterator[None]:
    """Report a disk that is full or was removed in one line: it is not the program's fault."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write to {out} ({error.strerror or error}); fix that and go on with "
            f"--resume: {kept(out) or 'nothing'} is kept"
        ) from None


def deciding(config: Config) -> dict[str, Any]:
    """The settings that decide the results; more processes (workers) read the same images."""
    return {key: value for key, value in config.to_dict().items() if key != "workers"}


def _identity(config: Config, stream: Stream, environment: Mapping[str, Any]) -> str:
    """What must be the same for a training to continue in the middle of a phase."""
    machine = {key: environment[key] for key in MACHINE}
    return json.dumps([deciding(config), stream.dataset.fingerprint, machine])


def _begun(out: Path) -> tuple[dict[str, Any], str] | None:
    """Settings and data of a run whose base phase is being learned; None if there is none."""
    try:
        with safe_open(out / MIDWAY, framework="pt") as file:
            settings, data, _ = json.loads(file.metadata()["identity"])
        return deciding(Config.from_dict({**settings, "workers": 0})), data
    except Exception:  # there is none, or a damaged one: each library raises its own
        return None


def _earlier(
    out: Path, config: Config, stream: Stream, resume: bool, environment: Mapping[str, Any]
) -> Run | None:
    """The run to continue, if any; raises an error if ``out`` must not be used."""
    if not resume:
        check_free(out)
    earlier = load(out) if (out / RESULTS).exists() else None
    if earlier is not None:
        had, data = deciding(Config.from_dict(earlier["config"])), earlier["data_fingerprint"]
    elif (begun := _begun(out)) is not None:
        had, data = begun
    else:
        return None
    wanted = deciding(config)
    changed = [key for key in wanted if had[key] != wanted[key]]
    if changed:
        was = ", ".join(f"{key}={had[key]}" for key in changed)
        raise UsageError(f"{out} holds a run with other settings ({was}); choose another --out")
    if data != stream.dataset.fingerprint:
        raise UsageError(f"{out} holds a run on other data; choose another --out")
    if earlier is None:
        return None
    was = earlier["environment"]
    other = [f"{key} {was.get(key)}" for key in MACHINE if was.get(key) != environment[key]]
    if other and not earlier.complete:  # because one run must not be of two kinds
        raise UsageError(
            f"{out} holds a run begun with {', '.join(other)}; go on with that, or choose "
            f"another --out"
        )
    return earlier


def _both(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a run that was begun in one environment and continues in another."""
    both = {}
    for key, value in now.items():
        before = was.get(key)
        same = before == value or str(before).endswith(f", then {value}")
        both[key] = before if same else f"{before}, then {value}"
    return both


def assemble(
    measurements: list[Measurement],
    config: Config,
    stream: Stream,
    earlier: Run | None = None,
    **about: Any,
) -> Run:
    """A run from the measurements of its phases.

    Args:
        earlier: a run that these measurements continue; it keeps what it has.
        about: further entries of the results. The functions that compare, save and load runs need
            ``preset``, ``method`` (as returned by :func:`method_of`) and ``environment``.
    """
    phases = list(earlier["phases"]) if earlier else []
    total = stream.bounds[-1]
    arrays: dict[str, list[np.ndarray]] = {}
    for t in range(len(phases)):
        for name, values in earlier.arrays.items():
            arrays.setdefault(name, []).append(values[t])
    for measurement in measurements:
        if measurement.phase < len(phases):
            continue
        values = dataclasses.asdict(measurement)
        for name, array in values.pop("arrays").items():
            arrays.setdefault(name, []).append(_pad(name, array, total))
        phases.append(values)
    run = Run(
        {
            **about,
            "seed": config.seed,
            "config": config.to_dict(),
            "bounds": stream.bounds,
            "class_order": stream.order,
            "classes": list(stream.dataset.classes),
            "data_fingerprint": stream.dataset.fingerprint,
            "phases": phases,
        },
        {name: np.stack(values) for name, values in arrays.items()},
    )
    run.update(_summaries(run))
    return run


def _summaries(run: Run) -> dict[str, dict[str, float | None]]:
    found = {
        key: {kind: _or_none(of, run.accuracies(kind)) for kind in ("cnn", "nme")}
        for key, of in (
            ("average_incremental_accuracy", metrics.average_incremental_accuracy),
            ("last_accuracy", metrics.last),
        )
    }
    found["forgetting"] = {
        kind: metrics.forgetting(run.accuracy_matrix(kind))
        if f"confusion_{kind}" in run.arrays
        else None
        for kind in ("cnn", "nme")
    }
    return found


# ---- Disk -------------------------------------------------------------------------------------


def save(run: Run, folder: str | Path) -> None:
    """Write results.json and arrays.npz, each whole or not at all."""
    folder = Path(folder)
    with whole(folder / ARRAYS) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{name: _halved(name, a) for name, a in run.arrays.items()})
    written = [
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
        for key, value in run.items()
    ]
    with whole(folder / RESULTS) as temporary:
        temporary.write_text("{" + ",\n ".join(written) + "}\n", encoding="utf-8")


def save_state(event: PhaseEnd, folder: Path) -> None:
    """Write ``phase_NN.safetensors``: the network and the exemplars after a phase."""
    tensors = {f"model.{k}": v.contiguous().cpu() for k, v in event.model.state_dict().items()}
    for label, indices in enumerate(event.memory.ranked):
        tensors[f"exemplars.{label:05d}"] = indices
    tensors["plane"] = event.plane.contiguous().cpu()
    with whole(folder / _state_name(event.measurement.phase)) as temporary:
        temporary.write_bytes(as_bytes(tensors))  # (save_file makes temporary files of its own)


def save_midway(midway: Midway, identity: str, folder: Path) -> None:
    """Write ``midway.safetensors``: where the training of a phase stands."""
    about = dataclasses.asdict(dataclasses.replace(midway, tensors={}))
    tensors = {name: tensor.contiguous().cpu() for name, tensor in midway.tensors.items()}
    with whole(folder / MIDWAY) as temporary:
        metadata = {"about": json.dumps(about), "identity": identity}
        temporary.write_bytes(as_bytes(tensors, metadata))


def load_midway(folder: Path, identity: str) -> Midway | None:
    """What :func:`save_midway` wrote; None if there is nothing from this same training."""
    try:
        with safe_open(folder / MIDWAY, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                return None
            tensors = {name: _read(file, name) for name in file.keys()}  # noqa: SIM118
        return Midway(**{**json.loads(metadata["about"]), "tensors": tensors})
    except Exception:  # there is none, or a damaged one: each library raises its own
        return None


def load(folder: str | Path) -> Run:
    """The results of a run.

    Raises:
        UsageError: there are none, or they are damaged.
    """
    folder = Path(folder)
    if not (folder / RESULTS).is_file():
        raise UsageError(f"{folder} holds no run ({RESULTS} is missing); {HOLDS_RUNS}")
    try:
        text = (folder / RESULTS).read_text(encoding="utf-8")
        results = json.loads(text, parse_float=_number, parse_int=_number, parse_constant=_number)
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > MOST_BYTES:
                raise ValueError(f"{ARRAYS} is too large")
            arrays = {name: _doubled(name, file[name]) for name in file.files}
        run = Run(results, arrays, folder)
        count = len(run["phases"])
        if all(len(values) == count + 1 for values in arrays.values()):
            # killed in save, between the two files
            run.arrays = {name: values[:count] for name, values in arrays.items()}
        _check(run)
    except PermissionError as error:
        raise UsageError(f"{error.filename} cannot be read ({error.strerror})") from None
    except Exception as error:  # JSON, zip, zlib and numpy each raise their own
        reason = " ".join(str(error).split())[:120]
        raise UsageError(
            f"{folder} holds a damaged or foreign run ({reason}); remove it and run again"
        ) from None
    return run


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a run with all its phases that can be read."""
    with contextlib.suppress(UsageError):  # whoever performs the run reports it
        return (folder / RESULTS).exists() and load(folder).complete
    return False


HOLDS_RUNS = "name a folder that `lucir-edu run` has written"
MOST_BYTES = 2**31  # of arrays; 1000 classes in 11 phases take a tenth of it
MOST_IMAGES = 1e8  # classified in all phases together


def _number(text: str) -> int | float:
    """A number in JSON; the standard has no NaN, and nothing here is beyond 10**18."""
    number = int(text) if text.lstrip("-").isdigit() and len(text) < 19 else float(text)
    if not abs(number) < 1e18:
        raise ValueError(f"{text[:20]} is not a number that a run can have")
    return number


def _check(run: Run) -> None:
    """Raise an exception (of any kind) unless the files are as :func:`save` writes them."""
    config, bounds, phases = Config.from_dict(run["config"]), run["bounds"], run["phases"]
    count, classes = len(phases), bounds[-1]
    summaries = ("average_incremental_accuracy", "last_accuracy", "forgetting")
    for right, what in (
        (_all(int, bounds) and bounds == sorted(set(bounds)), "bounds"),
        (bounds[0] == 0 < count < len(bounds), "phases"),
        (_all(int, run["class_order"]), "class_order"),
        (sorted(run["class_order"]) == list(range(len(run["classes"]))), "class_order"),
        (len(run["classes"]) == classes and _all(str, run["classes"]), "classes"),
        (run["seed"] == config.seed, "seed"),
        (run["method"] == method_of(config), "method"),
        (_all(str, (run["preset"], run["data_fingerprint"])), "names"),
        (_all(str | int | None, run["environment"].values()), "environment"),
        (all(_all(FIGURE, (run[s]["cnn"], run[s]["nme"])) for s in summaries), "summaries"),
        ({"confusion_cnn", "weight_norms"} <= run.arrays.keys(), ARRAYS),
    ):
        if not right:
            raise ValueError(f"impossible {what}")
    for number, phase in enumerate(phases):
        if (phase["phase"], phase["classes_seen"]) != (number, bounds[number + 1]):
            raise ValueError("its phases do not follow each other")
        figures = {key: value for key, value in phase.items() if key != "losses"}
        always = (phase["cnn"], phase["cnn_new"], phase["weight_norm_new"])
        if not (phase.keys() >= MEASURED and _all(FIGURE, figures.values()) and None not in always):
            raise ValueError("its figures are not those of a phase")
        if not all(_all(FIGURE, values) for values in phase["losses"].values()):
            raise ValueError("its losses are not numbers")
        shares = (phase[key] for key in ("cnn", "nme", "cnn_old", "cnn_new", "old_to_new"))
        if not all(0 <= share <= 100 for share in shares if share is not None):
            raise ValueError("its figures are not percentages")
    for name, array in run.arrays.items():
        two, places = name in BY_TWO_CLASSES, name == "positions"
        shape = (count, classes, *([classes] * two), *array.shape[2:3] * places, *[2] * places)
        if array.shape != shape or array.dtype.kind not in ("iu" if two else "f"):
            raise ValueError(f"{name} does not fit the phases and classes")
        if name == "embedding_angles":
            right = array.min() >= 0 and array.max() <= 180
        elif name == "weight_norms":
            right = all(
                (row[:seen] > 0).all() for row, seen in zip(array, bounds[1:], strict=False)
            )
        elif places:
            right = array.shape[2] > 0
        else:
            right = not two or (array.min() >= 0 and array.sum(dtype=float) <= MOST_IMAGES)
        if not right:
            raise ValueError(f"{name} has impossible numbers")
    for summary, kinds in _summaries(run).items():
        for kind, value in kinds.items():
            told = run[summary][kind]
            unknown = summary == "forgetting" and f"confusion_{kind}" not in run.arrays
            if not unknown and told != value and not abs((told or 0) - (value or 0)) < 1e-6:
                raise ValueError(f"{summary} is not that of its phases")


FIGURE = int | float | None
MEASURED = {field.name for field in dataclasses.fields(Measurement)} - {"arrays"}


def _all(kind: Any, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) and not isinstance(value, bool) for value in values)


def load_state(folder: str | Path, phase: int) -> State:
    """The state after a phase, to go on from.

    Raises:
        UsageError: it is missing or damaged.
    """
    return read_state(Path(folder) / _state_name(phase), phase)


def read_state(path: Path, phase: int) -> State:
    """The state in a file of :func:`save_state`; if it has no exemplars, they are chosen again.

    Raises:
        UsageError: the file is damaged, or not of this kind.
    """
    weights: dict[str, Tensor] = {}
    exemplars: list[Tensor] = []
    plane = None
    try:
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                kind, _, rest = name.partition(".")
                if kind == "model":
                    weights[rest] = _read(file, name)
                elif kind == "exemplars":
                    exemplars.append(_read(file, name))
                elif kind == "plane":
                    plane = _read(file, name)
        if any(indices.dtype != torch.long or indices.ndim != 1 for indices in exemplars):
            raise ValueError("exemplars are not indices")
        if plane is not None:
            dimension = weights["head.new_weight"].shape[-1]
            if plane.shape != (3, dimension) or not plane.is_floating_point():
                raise ValueError("the plane does not fit the features")
    except Exception as error:  # safetensors, torch and the disk each raise their own
        raise _damaged(path, error) from None
    return State(phase, weights, exemplars or None, plane, source=str(path))


def _read(file: safe_open, name: str) -> Tensor:
    """A copy of a tensor of an open file. Without the copy the file stays mapped, and Windows does
    not let it be replaced."""
    return file.get_tensor(name).clone()


def _damaged(path: Path, reason: object) -> UsageError:
    reason = " ".join(str(reason).split())[:120]
    return UsageError(f"{path} is missing or damaged ({reason}); restore it, or start anew")


def load_bases(preset: str) -> dict[str, State]:
    """Networks that have learned a preset's base phase with seed 0: "linear" and "cosine" heads.

    Their exemplars are chosen again when a training starts from them.

    Raises:
        UsageError: the project has none for the preset.
    """
    return {
        head: dataclasses.replace(
            read_state(CHECKPOINTS / f"{preset}-{head}.safetensors", phase=0), exemplars=None
        )
        for head in ("linear", "cosine")
    }


def load_bank(folder: str = "") -> Iterator[Run]:
    """The precomputed runs that come with the project, ordered by name.

    Args:
        folder: only those in this folder of ``data/bank``: ``"glyphs-b50-5"``, ``"cifar100"`` …

    Raises:
        UsageError: there is none.
    """
    return find([BANK / folder])


def base_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config that decide what its base phase learns."""
    cut = () if settings["base_classes"] is None else ("increment",)  # else it decides the base
    return {key: value for key, value in settings.items() if key not in (*LATER, *cut)}


def bases_first(jobs: Sequence[tuple[str, Config]]) -> list[tuple[str, Config]]:
    """A sweep's jobs (name, settings): first those whose base phase none before them has, which the
    others may reuse."""
    seen: list[dict[str, Any]] = []
    first, later = [], []
    for job in jobs:
        base = base_settings(job[1].to_dict())
        (later if base in seen else first).append(job)
        seen.append(base)
    return first + later


def same_base(config: Config, dataset: Dataset, device: str, among: Iterable[Run]) -> Run | None:
    """A run that has learned the base phase that a config would learn, on the same kind of machine
    and with the same code; the first one whose network can be read."""
    target = hardware.pick_device(device)
    here = hardware.describe(target, hardware.pick_precision(config.precision, target))

    def base(settings: Mapping[str, Any], environment: Mapping[str, Any], data: str) -> tuple:
        return base_settings(settings), {**environment, "commit": None}, data

    wanted = base(config.to_dict(), here, dataset.fingerprint)
    for run in among:
        found = base(run["config"], run["environment"], run["data_fingerprint"])
        if found == wanted:
            with contextlib.suppress(UsageError):  # its network is gone or damaged
                load_state(run.path, 0)
                return run
    return None


def stale(run: Run) -> bool:
    """Whether a run was made by another version of the code: recompute it before trusting it."""
    return run["environment"].get("code") != hardware.code()


def find(folders: Iterable[str | Path]) -> Iterator[Run]:
    """All runs in and below some folders, in order of their names.

    Raises:
        UsageError: a folder is missing, or has no run in it.
    """
    for folder in folders:
        found = sorted(Path(folder).rglob(RESULTS))
        if not found:
            raise UsageError(f"{folder} holds no run ({RESULTS} is missing); {HOLDS_RUNS}")
        for results in found:
            yield load(results.parent)


# ---- Comparing --------------------------------------------------------------------------------


def label(run: Run, order: bool = True) -> str:
    """What tells a run from others of its preset: the method, and settings that are not the usual
    ones, separated by spaces.

    Args:
        order: whether the class order counts as such a setting.
    """
    config, preset, method = Config.from_dict(run["config"]), run["preset"], run["method"]
    usual = Config()
    if preset in PRESETS:  # (what switches decide is in the method's name)
        usual = make_preset(preset, method=method if method in METHODS else "lucir")
    settings = [key for key in COMPARED if getattr(config, key) != getattr(usual, key)]
    if not order and "order_seed" in settings:
        settings.remove("order_seed")
    values = [getattr(config, key) for key in settings]
    written = [";".join(map(str, v)) if isinstance(v, tuple) else v for v in values]
    return " ".join([method, *map("{}={}".format, settings, written)])


def in_common(labels: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The settings that all of several labels name, and each label without them."""
    words = {label: label.split() for label in labels}
    first = next(iter(words.values()), [])
    common = [w for w in first[1:] if len(words) > 1 and all(w in of for of in words.values())]
    return common, {
        label: " ".join(word for word in of if word not in common) for label, of in words.items()
    }


def by_setting(runs: Iterable[Run]) -> dict[tuple[str, str, int], Run]:
    """Runs by preset, :func:`label` and seed.

    Raises:
        UsageError: two runs have all three in common.
    """
    found: dict[tuple[str, str, int], Run] = {}
    for run in runs:
        key = run["preset"], label(run), run["seed"]
        if key in found:
            raise UsageError(
                f"{found[key].path or 'a run'} and {run.path or 'another'} have the same preset, "
                f"settings and seed (the precision does not count); name folders in which each "
                f"occurs once"
            )
        found[key] = run
    return found


class MixtureWarning(UserWarning):
    """Runs that were not computed alike are compared with one another."""


def compare(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds and class orders, a row for each preset and setting.

    Returns:
        Rows with ``preset``, ``label``, ``seeds`` and, for every name in :data:`MEASURES`, a pair
        (mean, sd), or None where a run has no such figure. The sd is that of a sample, 0 for one.

    Warns:
        MixtureWarning: runs of a row were computed with different precisions, devices, numbers of
            threads or torch.

    Raises:
        UsageError: two runs have the same setting, class order and seed; runs of a row have
            different classes; or a run is not complete.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for (preset, _, _), run in by_setting(runs).items():
        if not run.complete:
            raise UsageError(
                f"{run.path or 'a run'} is not complete; go on with it, or leave it out"
            )
        groups.setdefault((preset, label(run, order=False)), []).append(run)
    rows = []
    for (preset, name), members in groups.items():
        if len({tuple(sorted(run["classes"])) for run in members}) > 1:
            raise UsageError(
                f"runs of {preset or 'no preset'}, {name}, have different classes; give each data "
                f"set a preset of its own"
            )
        for part in ("precision", "device", "threads", "torch"):
            found = sorted({str(run["environment"].get(part)) for run in members})
            if len(found) > 1:
                warnings.warn(
                    f"runs of {preset or 'no preset'}, {name}, differ in {part} "
                    f"({', '.join(found)}); that alone can move an accuracy by points",
                    MixtureWarning,
                    stacklevel=2,
                )
        row = {"preset": preset, "label": name, "seeds": sorted(run["seed"] for run in members)}
        for measure, of in MEASURES.items():
            values = [of(run) for run in members]
            row[measure] = None
            if None not in values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                row[measure] = (float(np.mean(values)), spread)
        rows.append(row)
    return rows


def firsts(runs: Iterable[Run]) -> dict[str, Run]:
    """The run with the lowest seed of each setting, by its :func:`label`."""
    found: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        found.setdefault(label(run), run)
    return found


def norm_gap(run: Run) -> float | None:
    """How much longer the newest classes' embeddings are than the base classes', in percent."""
    bounds, norms = run["bounds"], run.arrays["weight_norms"][-1]
    count = len(run["phases"])
    if count < 2:
        return None
    newest, base = norms[bounds[count - 1] : bounds[count]], norms[: bounds[1]]
    return 100 * float(newest.mean() / base.mean() - 1)


MEASURES: dict[str, Callable[[Run], float | None]] = {
    "average (CNN)": lambda run: run["average_incremental_accuracy"]["cnn"],
    "average (NME)": lambda run: run["average_incremental_accuracy"]["nme"],
    "last (CNN)": lambda run: run["last_accuracy"]["cnn"],
    "last (NME)": lambda run: run["last_accuracy"]["nme"],
    "forgetting (CNN)": lambda run: run["forgetting"]["cnn"],
    "old taken for new": lambda run: run["phases"][-1]["old_to_new"],
    "norm gap": norm_gap,
}
# Settings by which runs of one preset are told apart, besides the method and the seed
COMPARED = [
    field.name
    for field in dataclasses.fields(Config)
    if field.name not in ("seed", "precision", "workers") and field.name not in SWITCHES
]


def _state_name(phase: int) -> str:
    return f"phase_{phase:02d}.safetensors"


def _halved(name: str, array: np.ndarray) -> np.ndarray:
    """Angles are symmetric: the upper triangle is enough, and takes half the disk space."""
    return np.triu(array) if name == "embedding_angles" else array


def _doubled(name: str, array: np.ndarray) -> np.ndarray:
    """The inverse of :func:`_halved`; whole matrices stay whole."""
    if name != "embedding_angles":
        return array
    return np.maximum(array, array.transpose(0, 2, 1))


def _pad(name: str, array: np.ndarray, total: int) -> np.ndarray:
    """Pad to the size when all classes are seen: zeros for counts and degrees, else NaN."""
    kinds = {"i": (0, np.int32), "u": (0, np.uint8), "f": (np.nan, np.float32)}
    fill, dtype = kinds[array.dtype.kind]
    if array.dtype == np.float16:
        dtype = np.float16
    missing = total - len(array)
    widths = [(0, missing)] + [(0, missing if name in BY_TWO_CLASSES else 0)] * (array.ndim - 1)
    return np.pad(array.astype(dtype), widths, constant_values=fill)


def _or_none(of: Any, values: list[float | None]) -> float | None:
    if any(value is None or math.isnan(value) for value in values):
        return None
    return of(values)
