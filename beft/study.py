"""What a run is: its settings, what its neighbours share with it, and what came out."""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

import numpy as np

from .errors import BeftError, brief, unknown

METHODS = ("head", "b_q", "b_k", "b_v", "all_biases")
# A single term in another form than d free numbers; see `bank.forms`.
FORM_METHODS = tuple(f"b_{term}:{form}" for term in "qkv" for form in ("lora", "vera", "vera1d", "dora"))
# Baselines that train weights, a bank each; see `bank.baselines`. A prefix is for decoders, a prompt for encoders.
WEIGHT_METHODS = ("full", "mask", "lora", "adapter", "prefix", "prompt")
ALL_METHODS = METHODS + FORM_METHODS + WEIGHT_METHODS
# What phase one of debiasing trains (see `debias.upstream`): biases, which share a bank, and weights; "sparse", chosen
# entries of the weights, exists there alone.
BIAS_PATCHES = ("b_q", "b_v", "b_k", "all_biases")
PATCHES = (*BIAS_PATCHES, "lora", "adapter", "prompt", "prefix", "sparse", "full")


# Settings of a study that came after the first records.
LATER = ("schedule", "prompted", "sites", "evaluated", "template", "labels", "validation")
Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Method:
    """What the name of a method means.

    Attributes:
        name: "b_v[6:12]:lora".
        base: "b_v[6:12]", the method whose biases an adapter of it holds.
        term: "v", the one term that is tuned; "" for all biases, the head alone, and weights.
        form: "lora", how its bias is written; "" for d free numbers.
        layers: (6, ..., 11), the layers of the term that are tuned, from 0; () for all of them.
    """

    name: str
    base: str
    term: str
    form: str
    layers: tuple[int, ...] = ()

    @property
    def trains_weights(self) -> bool:
        """Whether it trains weights, in a bank of its own."""
        return self.base in WEIGHT_METHODS


def split_method(name: str) -> tuple[str, str, str]:
    """The parts of a method's name: "b_v[6:12]:lora" is ("b_v", "6:12", "lora"); parts that it lacks are ""."""
    parts = re.fullmatch(r"([^\[\]:]+)(?:\[([^\[\]]+)\])?(?::([^\[\]:]+))?", name)
    return (parts[1], parts[2] or "", parts[3] or "") if parts else (name, "", "")


def parse_method(name: str, valid: tuple[str, ...] = (*ALL_METHODS, *PATCHES)) -> Method:
    """The method of that name; a term may name its layers, from 0: "b_v[11]", "b_v[6:12]", "b_q[0,3:5]".

    The name comes back in one spelling, because records are keyed by it: "b_v[4,3]" is "b_v[3:5]".

    Raises BeftError: no such method, with the nearest names; layers that are none.
    """
    layered = re.fullmatch(r"(b_[qkv])\[([^\[\]]*)\]((?::\w+)?)", name) if isinstance(name, str) else None
    whole = layered[1] + layered[3] if layered else name
    if not isinstance(name, str) or whole not in valid:
        raise unknown("method", name, tuple(dict.fromkeys(valid)))
    base, colon, form = whole.partition(":")
    term = base[2:] if base in ("b_q", "b_k", "b_v") else ""
    if not layered:
        return Method(name, base, term, form)
    layers = _layers(name, layered[2])
    base = layers_of(base, layers)
    return Method(base + colon + form, base, term, form, layers)


def _layers(name: str, places: str) -> tuple[int, ...]:
    """The layers between the brackets of a method's name, in ascending order."""
    layers: set[int] = set()
    for part in places.split(","):
        found = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}))?", part.strip(), re.ASCII)
        if found is None:
            raise BeftError(
                f"method {brief(name)} names no layers: write them from 0 as b_v[11], b_v[6:12] (6 to 11) or b_v[0,3:5]"
            )
        first, stop = int(found[1]), int(found[2] or int(found[1]) + 1)
        if stop <= first:
            raise BeftError(
                f"method {brief(name)} has an empty range of layers, {part.strip()}: the second number is the first "
                "layer that is left out, as in b_v[6:12] for 6 to 11"
            )
        layers |= set(range(first, stop))
    return tuple(sorted(layers))


def _spelt(layers: tuple[int, ...]) -> str:
    """Layers as a method's name has them: (0, 3, 4) is "0,3:5"."""
    texts, start = [], 0
    for i, layer in enumerate(layers):
        if i + 1 == len(layers) or layers[i + 1] != layer + 1:
            texts.append(str(layer) if start == i else f"{layers[start]}:{layer + 1}")
            start = i + 1
    return ",".join(texts)


def layers_of(term: str, layers: Iterable[int]) -> str:
    """The method that tunes a term in these layers: ("b_v", [4, 3, 0]) is "b_v[0,3:5]"."""
    return f"{term}[{_spelt(tuple(sorted(set(layers))))}]"


def plain(value: Any) -> Any:
    """A setting without NumPy: its numbers as Python's, its arrays as lists; anything else as it is.

    A number is the one that it prints as: `np.float32(1e-3)` is 0.001, and its record that of 0.001.
    """
    if isinstance(value, np.generic):
        kinds: tuple[tuple[type, Callable[[Any], Any]], ...]
        kinds = ((np.floating, lambda x: float(str(x))), (np.integer, int), (np.bool_, bool), (np.str_, str))
        return next((convert(value) for kind, convert in kinds if isinstance(value, kind)), value)
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value] if value.ndim else plain(value[()])
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return {plain(k): plain(v) for k, v in value.items()} if type(value) is dict else value


def _settings(cls: type[Settings]) -> type[Settings]:
    """A dataclass of settings: NumPy's numbers become plain ones, and an unknown name is a BeftError."""
    make, names = cls.__init__, [f.name for f in fields(cls)]  # type: ignore[arg-type]
    others = [] if cls.__name__ == "Run" else [f"{f.name} (of a Run)" for f in fields(Run)]

    @functools.wraps(make)
    def init(self: Any, *values: Any, **named: Any) -> None:
        for name in named:
            if name not in names:
                raise unknown(f"setting of a {cls.__name__.lower()}", name, [*names, *others])
        make(self, *map(plain, values), **{name: plain(value) for name, value in named.items()})

    cls.__init__ = init  # type: ignore[assignment]
    return cls


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_seed(seed: Any) -> None:
    """Raise BeftError for what no generator takes as a seed."""
    if not (_whole(plain(seed), 0) and seed < 2**31):
        raise BeftError(f"seed {brief(seed)} is not a whole number between 0 and 2147483647")


def options_by_label(labels: Any) -> dict[str, str]:
    """The options of a prompt by the labels of a file, which may be whole numbers. Raises BeftError for others."""
    if not isinstance(labels, Mapping) or not labels:
        raise BeftError(f"labels {brief(labels)} are no options by label: write them as {{'pos': 'good'}}")
    for label, words in labels.items():
        if not isinstance(words, str) or isinstance(label, bool) or not isinstance(label, str | int):
            raise BeftError(
                f"labels has {brief(words)} for {brief(label)}, and both must be text: put them into quotes (YAML "
                "reads yes and no as true and false)"
            )
    return {str(label): words for label, words in labels.items()}


@_settings
@dataclass(frozen=True)
class Run:
    """What tells the runs of one bank apart. `seed` draws the training rows, their order, the head and dropout.

    Raises BeftError: an unknown name, or a value that it cannot have.
    """

    method: str
    seed: int
    rate: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", parse_method(self.method).name)
        if not (_real(self.rate) and 0 < self.rate <= sys.float_info.max):
            raise BeftError(f"rate {brief(self.rate)} is not a positive number: give a learning rate like 1e-3")
        check_seed(self.seed)


@_settings
@dataclass(frozen=True)
class Study:
    """What the runs of one bank share (PROTOCOL, encoders: batch 16, length 128, clip 1, eps 1e-6, constant rate).

    Attributes:
        regime: a named size of the task ("low"), a number of rows, or "all".
        tuning: share of those rows held out of training, for choosing among rates.
        validate: score the validation split after "each" epoch or after the "last" one only.
        dtype: "float32", or "bfloat16" for autocast.
        prompted: the task as text that a causal language model goes on with, see `prompts`; else a head classifies.
        schedule: of the rate, "constant" or "linear": falling to zero over all steps (PROTOCOL, decoders).
        sites: where query, key and value are in a classifier whose architecture `anatomy.describe` does not know, as of
            its argument: {"v": "layers.{layer}.attn.v_proj"}.
        evaluated: most validation rows that are scored, the same ones for every seed; None for the protocol's: all, and
            of a prompted task 1,000.
        template: the prompt of a prompted task of one's own, "{text}\\nSentiment: {label}"; see `data.load_prompts`.
        labels: the option of each label of that task, {"pos": "good"}; None for the labels as they are.
        validation: the file of the validation rows of a task of one's own; None for a fixed fifth of its rows.

    Raises BeftError: an unknown name, or a value that it cannot have.
    """

    model: str = "all-MiniLM-L6-v2"
    task: str = "sst2"
    regime: str | int = "low"
    epochs: int = 16
    batch_size: int = 16
    max_length: int = 128
    dtype: str = "float32"
    tuning: float = 0.0
    validate: str = "each"
    clip: float = 1.0
    eps: float = 1e-6
    offline: bool = False
    schedule: str = "constant"
    prompted: bool = False
    sites: Mapping[str, str] | None = None
    evaluated: int | None = None
    template: str | None = None
    labels: Mapping[str, str] | None = None
    validation: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "task"):
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))
            elif not (isinstance(value, str) and value.strip() and "\0" not in value):
                raise BeftError(f"{name} {brief(value)} is no name and no path: give one as text")
        for name, valid in (
            ("dtype", ("float32", "bfloat16")),
            ("validate", ("each", "last")),
            ("schedule", ("constant", "linear")),
        ):
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in valid:
                raise unknown(name, getattr(self, name), valid)
        for name in ("epochs", "batch_size", "max_length"):
            if not _whole(getattr(self, name), 1):
                raise BeftError(f"{name} {brief(getattr(self, name))} is not a whole number of at least 1")
        for name in ("clip", "eps"):
            value = getattr(self, name)
            if not (_real(value) and 0 < value <= sys.float_info.max):
                raise BeftError(f"{name} {brief(value)} is not a positive number")
        self._check_rows()
        for name in ("offline", "prompted"):
            if not isinstance(getattr(self, name), bool):
                raise BeftError(f"{name} {brief(getattr(self, name))} is neither True nor False")
        if self.evaluated is not None and not _whole(self.evaluated, 1):
            raise BeftError(f"evaluated {brief(self.evaluated)} is not a whole number of rows of at least 1")
        self._check_own()

    def _check_rows(self) -> None:
        """Raise BeftError for a regime or a tuning share that no task can have."""
        named = isinstance(self.regime, str) and self.regime.strip()
        if not (named or _whole(self.regime, 1)):
            raise BeftError(
                f"regime {brief(self.regime)} is neither a regime's name nor a number of rows of at least 1"
            )
        if not (_real(self.tuning) and 0 <= self.tuning <= 0.5):
            raise BeftError(f"tuning share {brief(self.tuning)} is out of range: give a number from 0 to 0.5")

        if self.sites is not None:
            given = self.sites if isinstance(self.sites, Mapping) else {}
            if not given or not all(isinstance(x, str) for x in (*given, *given.values())):
                raise BeftError(
                    f"sites {brief(self.sites)} name no projections: give some by q, k or v, such as "
                    '{"v": "layers.{layer}.attn.v_proj"}'
                )
            if self.prompted:
                raise BeftError("sites are for classifiers: of a prompted task give a model of a known architecture")

    def _check_own(self) -> None:
        """Raise BeftError for a prompt or a validation file that no task of one's own can have."""
        if isinstance(self.validation, os.PathLike):
            object.__setattr__(self, "validation", os.fspath(self.validation))
        if not (self.validation is None or isinstance(self.validation, str) and self.validation.strip()):
            raise BeftError(f"validation {brief(self.validation)} is no path: give that of a file of validation rows")
        if self.template is not None and not isinstance(self.template, str):
            raise BeftError(
                f"template {brief(self.template)} is no text: write one as '{{text}}\\nSentiment: {{label}}'"
            )
        if self.template is not None and not self.prompted:
            raise BeftError("a template is for a language model that goes on with it: give prompted=True too")
        if self.labels is not None and self.template is None:
            raise BeftError("labels are the options of a template, and there is none: give template= or leave them out")
        if self.labels is not None:
            object.__setattr__(self, "labels", options_by_label(self.labels))

    def identity(self) -> dict[str, Any]:
        """The settings that decide a result; where the data may come from is not one of them.

        The defaults of `LATER` are left out, as in records that are older than these settings.
        """
        left_out = {"offline", "tuning"} | {name for name in LATER if getattr(self, name) == getattr(Study, name)}
        return {name: value for name, value in asdict(self).items() if name not in left_out}


@dataclass
class Result:
    """One run: what was trained on how many rows, a row of numbers per epoch, and how it ended."""

    run: Run
    rows: dict[str, int]
    parameters: dict[str, int]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    outcome: str = "ok"
    seconds: float = 0.0
    bank: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> dict[str, Any]:
        """Scores after the last epoch; `metrics` where the task has several or is scored on further splits."""
        last = self.epochs[-1]
        return {k: last[k] for k in ("epoch", "validation", "tuning", "metrics") if k in last}

    @property
    def best(self) -> dict[str, Any]:
        """Scores of the epoch that is best on the tuning split; without one, on validation (then optimistic)."""
        by = "tuning" if self.rows["tuning"] else "validation"
        scored = [e for e in self.epochs if e[by] is not None]
        best = max(scored, key=lambda e: e[by]) if scored else self.epochs[-1]
        return {k: best[k] for k in ("epoch", "validation", "tuning")} | {"chosen_on": by}

    def raise_if_lost(self) -> None:
        """Raise BeftError unless the run ended well."""
        if self.outcome != "ok":
            raise BeftError(f"the {self.run.method} run {self.outcome}: give a smaller rate")
