"""Every setting of an experiment, with the paper's symbol next to it; presets and methods."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass


class UsageError(ValueError):
    """A user's mistake, reported in one line that says what to do."""

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        return line if len(line) <= 600 else f"{line[:300]} … {line[-300:]}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows under a notebook's cell, instead of a page of traceback."""
        return [f"UsageError: {self}"]


@dataclass(frozen=True)
class Config:
    """One experiment. Equation numbers are those of the paper."""

    # The stream of classes
    dataset: str = "glyphs"  # glyphs | cifar100 | folder
    subset_classes: int | None = None  # this many classes, drawn with seed 1993; None: all
    train_per_class: int | None = None  # at most this many training images per class; None: all
    test_per_class: int | None = None  # the same for test images
    damaged: str = "refuse"  # image files that cannot be read: refuse | skip (dataset=folder)
    base_classes: int | None = 50  # classes of the base phase; None: what the increments leave
    increment: int | None = 10  # new classes per later phase; None: a tenth of all
    order_seed: int | None = None  # class order; None: the data set's own; 1993: that of the field

    # Memory
    exemplars_per_class: int = 3  # R_per
    memory_total: int | None = None  # a fixed total, shared by all classes seen, instead
    joint: bool = False  # keep every training image: the upper bound

    # Network
    backbone: str = "small"  # small | resnet20 | resnet32 | resnet18
    width: int = 16  # channels of the first stage (small, resnet20, resnet32)
    feature_dim: int | None = None  # a last linear layer to this many; None: the backbone's own

    # Switches: each independent of every other
    cosine: bool = True  # cosine normalization, Eq. 4
    less_forget: bool = True  # L_dis^G, Eq. 6
    margin_ranking: bool = True  # L_mr, Eq. 8
    imprint: bool | None = None  # new embeddings from the mean features; None: same as cosine
    adaptive_lambda: bool = True  # lambda grows with the classes, Eq. 7
    freeze_old_embeddings: bool | None = None  # None: same as less_forget
    balanced_finetune: bool = False  # a last, class-balanced tuning of the head ("CBF")
    frozen_network: bool = False  # train nothing after the base phase
    score_distillation: bool = False  # L_dis^C, Eq. 5
    distillation: bool = False  # softened softmax, as in the authors' iCaRL baseline

    # Loss terms
    lambda_base: float = 5.0  # lambda_base, Eq. 7
    lambda_rule: str = "code"  # code: sqrt(|C_o|/|C_n|) | paper: sqrt(|C_n|/|C_o|)
    top_k: int = 2  # K, hard negatives, Eq. 8
    margin: float = 0.5  # m, Eq. 8
    margin_weight: float = 1.0  # weight of L_mr, Eq. 9
    margin_reduction: str = "code"  # code: mean over K | paper: sum over K
    temperature: float = 2.0  # T of distillation
    distillation_weight: float = 0.25  # beta of distillation

    # Optimisation
    epochs: int = 9  # of every phase
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "linear"  # linear: to zero | steps: times 0.1 at each milestone
    warmup: float = 0.15  # share of the steps over which the rate rises from zero
    milestones: tuple[float, ...] = (0.5, 0.75)  # shares of the epochs (schedule=steps)
    balanced_epochs: int = 20  # of balanced_finetune
    balanced_lr: float = 0.01  # of balanced_finetune; times 0.1 half-way

    # Augmentation of training images
    crop_padding: int = 2  # random crop after this much padding, in pixels (glyphs, cifar100)
    flip: bool = False  # random left-right flip; NME then averages both views

    seed: int = 0  # weights, batches, augmentation
    precision: str = "auto"  # auto | float32 | bfloat16
    workers: int = 2  # processes that read image files (dataset=folder)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value).__module__ == "numpy" and value.ndim == 0:  # one of np.arange(5)
                value = value.item()
            _check_type(field.name, value)
            if float in _alternatives(field.name) and value is not None:
                value = float(value)  # 1 and 1.0 are one setting
            object.__setattr__(self, field.name, value)
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise UsageError(
                    f"{name}={_short(value)} is not known{nearest(value, choices)}; "
                    f"choose one of: {', '.join(choices)}"
                )
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} must be from {low} to {high}, not {_short(value)}")
        keeps = self.joint or self.exemplars_per_class or self.memory_total
        if self.balanced_finetune and not keeps:
            raise UsageError(
                "balanced_finetune tunes the head on exemplars, and none are kept; set "
                "exemplars_per_class"
            )
        if any(not 0 < share <= 1 for share in self.milestones):
            raise UsageError(
                f"milestones are shares of the epochs, in (0, 1], not {_short(self.milestones)}"
            )
        if self.margin_ranking and self.increment is not None and self.top_k > self.increment:
            raise UsageError(
                f"top_k={self.top_k} hard negatives need at least as many new classes per phase, "
                f"but increment={self.increment}; lower top_k"
            )

    @property
    def imprints(self) -> bool:
        """``imprint``, resolved."""
        return self.cosine if self.imprint is None else self.imprint

    @property
    def freezes_old(self) -> bool:
        """``freeze_old_embeddings``, resolved."""
        return (
            self.less_forget if self.freeze_old_embeddings is None else self.freeze_old_embeddings
        )

    @property
    def needs_teacher(self) -> bool:
        return self.less_forget or self.score_distillation or self.distillation

    def phase_sizes(self, classes: int) -> list[int]:
        """How many classes each phase brings, for this many classes in all.

        ``increment=None`` means a tenth of all, but at least two; ``base_classes=None`` means what
        five increments leave, or fewer of them, so that at least two classes are left.

        Raises:
            UsageError: the settings do not fit this number of classes.

        >>> Config().phase_sizes(100), Config(base_classes=None, increment=None).phase_sizes(8)
        ([50, 10, 10, 10, 10, 10], [2, 2, 2, 2])
        """
        base, increment = self.base_classes, self.increment
        if increment is None:
            increment = max(2, classes // 10)
        if base is None:
            base = classes - min(5, max(0, classes - 2) // increment) * increment
        rest = classes - base
        if rest < 0 or rest % increment:
            raise UsageError(
                f"{classes} classes do not make a base phase of {base} and phases of {increment}; "
                f"choose base_classes and increment so that the rest divides evenly"
            )
        if self.margin_ranking and rest and self.top_k > increment:
            raise UsageError(
                f"top_k={self.top_k} is more than the {increment} new classes of a phase; "
                f"lower top_k, or set base_classes and increment"
            )
        if self.memory_total is not None and self.memory_total < classes and not self.joint:
            raise UsageError(
                f"memory_total={self.memory_total} has no room for an exemplar of each of the "
                f"{classes} classes; choose at least that many"
            )
        return [base] + [increment] * (rest // increment)

    def to_dict(self) -> dict[str, typing.Any]:
        """Every setting as JSON would hold it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, typing.Any]) -> "Config":
        """The inverse of :meth:`to_dict`."""
        known = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name in known:
            _check_name(name)
        return cls(**known)


DEVICES = ("auto", "cpu", "cuda", "mps")
CHOICES = {
    "dataset": ("glyphs", "cifar100", "folder"),
    "damaged": ("refuse", "skip"),
    "backbone": ("small", "resnet20", "resnet32", "resnet18"),
    "lambda_rule": ("code", "paper"),
    "margin_reduction": ("code", "paper"),
    "schedule": ("linear", "steps"),
    "precision": ("auto", "float32", "bfloat16"),
}
RANGES = {
    "subset_classes": (2, 10**6),
    "train_per_class": (1, 10**7),
    "test_per_class": (1, 10**7),
    "base_classes": (1, 10**6),
    "increment": (1, 10**6),
    "order_seed": (0, 2**32 - 1),
    "exemplars_per_class": (0, 10**7),
    "memory_total": (1, 10**9),
    "width": (1, 1024),
    "feature_dim": (1, 10**5),
    "lambda_base": (0, 1e6),
    "top_k": (1, 10**6),
    "margin": (0, 2),
    "margin_weight": (0, 1e6),
    "temperature": (1e-3, 1e3),
    "distillation_weight": (0, 1e6),
    "epochs": (1, 10**5),
    "batch_size": (2, 10**6),
    "lr": (0, 1e3),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1e3),
    "warmup": (0, 1),
    "balanced_epochs": (1, 10**5),
    "balanced_lr": (0, 1e3),
    "crop_padding": (0, 64),
    "seed": (0, 2**32 - 1),
    "workers": (0, 256),
}

# Named sets of switches. LUCIR is the default of Config; the others turn parts of it off.
SWITCHES_OFF = {"cosine": False, "less_forget": False, "margin_ranking": False}
METHODS: dict[str, dict[str, typing.Any]] = {
    "finetune": {**SWITCHES_OFF, "exemplars_per_class": 0, "memory_total": None},
    "replay": SWITCHES_OFF,
    "icarl": {**SWITCHES_OFF, "distillation": True},
    "cosine": {**SWITCHES_OFF, "cosine": True},
    "cosine+lf": {**SWITCHES_OFF, "cosine": True, "less_forget": True},
    "lucir": {"cosine": True, "less_forget": True, "margin_ranking": True},
    "frozen": {**SWITCHES_OFF, "cosine": True, "frozen_network": True},
    "joint": {**SWITCHES_OFF, "cosine": True, "imprint": False, "joint": True},
}

_CIFAR = {
    "dataset": "cifar100",
    "order_seed": 1993,
    "exemplars_per_class": 20,
    "backbone": "resnet32",
    "epochs": 160,
    "batch_size": 128,
    "weight_decay": 5e-4,
    "schedule": "steps",
    "warmup": 0.0,
    "crop_padding": 4,
    "flip": True,
}
_IMAGENET = {
    "dataset": "folder",
    "order_seed": 1993,
    "exemplars_per_class": 20,
    "backbone": "resnet18",
    "lambda_base": 10.0,
    "epochs": 90,
    "batch_size": 128,
    "weight_decay": 1e-4,
    "schedule": "steps",
    "warmup": 0.0,
    "milestones": (1 / 3, 2 / 3),
    "crop_padding": 0,
    "flip": True,
}
PRESETS: dict[str, dict[str, typing.Any]] = {
    "glyphs-b50-5": {},
    **{
        f"cifar100-b50-{phases}": {**_CIFAR, "base_classes": 50, "increment": 50 // phases}
        for phases in (1, 2, 5, 10, 25)
    },
    "cifar100-2tasks": {**_CIFAR, "base_classes": 50, "increment": 50, "memory_total": 2000},
    "cifar100-5tasks": {**_CIFAR, "base_classes": 20, "increment": 20, "memory_total": 2000},
    **{
        f"imagenet-subset-b50-{phases}": {
            **_IMAGENET,
            "subset_classes": 100,
            "base_classes": 50,
            "increment": 50 // phases,
        }
        for phases in (5, 10)
    },
    **{
        f"imagenet-b500-{phases}": {
            **_IMAGENET,
            "base_classes": 500,
            "increment": 500 // phases,
        }
        for phases in (5, 10)
    },
    "folder": {**_IMAGENET, "base_classes": None, "increment": None, "order_seed": None},
}


def _switches(label: str) -> str:
    """How to set what tables call "cosine+mr", which is no method's name; "" for other words."""
    head, *parts = label.split("+")
    named = {"lf": "less_forget=true", "mr": "margin_ranking=true"}
    if head not in ("linear", "cosine") or not set(parts) <= set(named):
        return ""
    method = {"linear": "replay", "cosine": "cosine"}[head]
    return f" (set {', '.join([f'method={method}', *(named[part] for part in parts)])})"


def preset(name: str = "glyphs-b50-5", *, method: str = "lucir", **changes: typing.Any) -> Config:
    """The config of a preset with a method's switches and single changes on top.

    Raises:
        UsageError: there is no such preset, method or setting, or a value does not fit.

    >>> preset("cifar100-b50-10", method="icarl", epochs=70).distillation
    True
    """
    if name not in PRESETS:
        raise UsageError(
            f"no preset {name!r}{nearest(name, PRESETS)}; the presets are: {', '.join(PRESETS)}"
        )
    if method not in METHODS:
        raise UsageError(
            f"no method {method!r}{_switches(method) or nearest(method, METHODS)}; "
            f"the methods are: {', '.join(METHODS)}"
        )
    for key in changes:
        _check_name(key)
    if "exemplars_per_class" in changes:  # it replaces a preset's total
        changes = {"memory_total": None, **changes}
    return Config(**{**PRESETS[name], **METHODS[method], **changes})


SWITCHES = (
    "cosine",
    "less_forget",
    "margin_ranking",
    "joint",
    "score_distillation",
    "distillation",
    "balanced_finetune",
    "frozen_network",
    "adaptive_lambda",
    "imprint",
    "freeze_old_embeddings",
)


def method_of(config: Config) -> str:
    """The method whose switches a config has, or else the switches that are on.

    >>> method_of(Config()), method_of(Config(cosine=False))
    ('lucir', 'linear+lf+mr')
    """

    def behaviour(c: Config) -> tuple:
        has_memory = c.joint or c.exemplars_per_class > 0 or c.memory_total is not None
        lambda_moves = c.adaptive_lambda and c.less_forget
        others = (getattr(c, name) for name in SWITCHES[:8])
        return (*others, lambda_moves, c.imprints, c.freezes_old, has_memory)

    for name, switches in METHODS.items():
        if behaviour(config) == behaviour(Config(**switches)):
            return name
    parts = ["cosine" if config.cosine else "linear"]
    parts += ["lf"] * config.less_forget + ["mr"] * config.margin_ranking
    parts += [name for name in SWITCHES[3:8] if getattr(config, name)]
    if config.less_forget and not config.adaptive_lambda:
        parts.append("fixed_lambda")
    if config.imprints != config.cosine:
        parts.append("imprint" if config.imprints else "no_imprint")
    if config.freezes_old != config.less_forget:
        parts.append("frozen" if config.freezes_old else "unfrozen")
    return "+".join(parts)


def parse(pairs: typing.Iterable[str]) -> dict[str, typing.Any]:
    """``["lr=0.05", "cosine=false"]`` as keyword arguments of :func:`preset`.

    Raises:
        UsageError: a pair has no "=", names an unknown setting, or has a value of another kind.
    """
    values: dict[str, typing.Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals:
            raise UsageError(f"--set {pair!r} lacks a value; write --set {name or 'KEY'}=VALUE")
        if name == "method":
            method = text.strip()  # overrides the switches that came before it
            overridden = METHODS.get(method, {})
            values = {k: v for k, v in values.items() if k not in overridden}
            values["method"] = method
            continue
        _check_name(name)
        values[name] = _from_text(name, text.strip())
    return values


_TYPES = typing.get_type_hints(Config)


def _alternatives(name: str) -> tuple[type, ...]:
    hint = _TYPES[name]
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _from_text(name: str, text: str) -> typing.Any:
    allowed = _alternatives(name)
    lowered = text.lower()
    try:
        if type(None) in allowed and lowered in ("none", "null"):
            return None
        if bool in allowed:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                lowered
            ]
        if int in allowed:
            return int(text)
        if float in allowed:
            return float(text)
        if str in allowed:
            return text
        return tuple(float(part) for part in text.split(","))
    except (KeyError, ValueError):
        raise UsageError(f"{name}={_short(text)} is not {_wanted(name)}") from None


def _check_type(name: str, value: typing.Any) -> None:
    allowed = _alternatives(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if float in allowed and is_number and _is_finite(value):
        return
    if typing.get_origin(allowed[0]) is tuple:
        if isinstance(value, tuple) and all(isinstance(v, int | float) for v in value):
            return
    elif type(value) in allowed and float not in allowed:
        return
    raise UsageError(f"{name}={_short(value)} is not {_wanted(name)}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


def _short(value: typing.Any) -> str:
    """A value as Python writes it, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write a number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _wanted(name: str) -> str:
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "a word",
        type(None): "none",
    }
    return " or ".join(
        words.get(kind, "numbers with commas between") for kind in _alternatives(name)
    )


def _check_name(name: str) -> None:
    if name not in _TYPES:
        raise UsageError(
            f"no setting {name!r}{nearest(name, _TYPES)}; `lucir-edu run --help` lists them"
        )


def nearest(name: typing.Any, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name).lower(), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
