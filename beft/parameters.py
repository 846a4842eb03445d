"""Which parameters each notebook has, and what each may be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from .errors import BeftError, unknown


@dataclass(frozen=True)
class Kind:
    """What a parameter may be.

    Attributes:
        says: the kind in words, for the error.
        convert: the value in its proper type; raises ValueError or TypeError for anything else.
    """

    says: str
    convert: Callable[[Any], Any]


def _whole(least: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(value)
        return value

    return convert


def _number(value: Any) -> float:
    # float("4e-4") on purpose: YAML 1.1 reads 4e-4, without a dot, as text
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(value)
    return float(value)


def _positive(value: Any) -> float:
    number = _number(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(value)
    return number


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 <= number < 1:
        raise ValueError(value)
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value


def _flag(value: Any) -> bool:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _regime(value: Any) -> str | int:
    try:
        return _whole(1)(value)
    except ValueError:
        text = _text(value)
        if not text.isidentifier():  # "-5" and "0.5" are neither a number of rows nor a regime's name
            raise
        return text


def _one_of(kind: str, valid: Callable[[], tuple[str, ...]]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in (names := valid()):
            raise unknown(kind, value, names)
        return str(value)

    return convert


def _list(item: Callable[[Any], Any], least: int = 1) -> Callable[[Any], list[Any]]:
    """A list of distinct items, `least` of them or more; a single item is a list of one; text is read as YAML."""

    def convert(value: Any) -> list[Any]:
        value = yaml.safe_load(value) if isinstance(value, str) else value
        value = list(value) if isinstance(value, (list, tuple)) else [value]
        items = [item(v) for v in value]
        if len(items) < least or any(items.count(i) > 1 for i in items):
            raise ValueError(value)
        return items

    return convert


def _cells(value: Any) -> list[dict[str, Any]]:
    """A list of cells, not empty: names to values, the values of model, task and regime lists."""
    value = yaml.safe_load(value) if isinstance(value, str) else value
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(value)
    cells = []
    for entry in value:
        if not isinstance(entry, dict):
            raise ValueError(entry)
        for name in entry:
            if name not in _CELL:
                raise unknown("setting of a cell", name, _CELL)
        cells.append({n: check(n, v, _CELL[n], "a cell") for n, v in entry.items()})
    return cells


def _method_rates(value: Any) -> dict[str, float]:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ValueError(value)
    known = _one_of("method", _methods)
    return {known(method): _positive(rate) for method, rate in value.items()}


def _or_paper(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The word `paper`, or what `convert` takes."""
    return lambda value: value if value == "paper" else convert(value)


def _methods() -> tuple[str, ...]:
    from .study import ALL_METHODS  # here: it imports NumPy

    return ALL_METHODS


def _patches() -> tuple[str, ...]:
    return ("b_q", "b_v", "b_k", "all_biases", "lora", "adapter", "prompt", "sparse", "full")


def _patch_rates(value: Any) -> dict[str, float]:
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise ValueError(value)
    known = _one_of("patch", _patches)
    return {known(name): _positive(rate) for name, rate in value.items()}


def _axes() -> tuple[str, ...]:
    return ("gender", "race", "religion", "origin")


def _strength(value: Any) -> float:
    number = _number(value)
    if not -1 <= number <= 1:
        raise ValueError(value)
    return number


def _dtypes() -> tuple[str, ...]:
    return ("float32", "bfloat16")


_NAME = Kind("a name or a path", _text)
_COUNT = Kind("a whole number of at least 1", _whole(1))
_RATE = Kind("a positive number", _positive)
_RATES = Kind("a list of distinct positive numbers, e.g. [0.001, 0.01]", _list(_positive))
_SEEDS = Kind("a list of distinct whole numbers of at least 0, e.g. [0, 1, 2]", _list(_whole(0)))
_METHODS = Kind("a list of distinct methods, e.g. [b_q, b_v]", _list(_one_of("method", _methods)))
_DTYPES = Kind(
    "a list of distinct precisions, e.g. [float32, bfloat16]", _list(_one_of("precision", _dtypes))
)
_DTYPE = Kind("float32 or bfloat16", _one_of("precision", _dtypes))
_VALIDATE = Kind("each or last", _one_of("validation rule", lambda: ("each", "last")))
_HELD_OUT = Kind("a share of at least 0 and less than 1", _share)
_FLAG = Kind("true or false", _flag)

_CELL = {
    "model": Kind("a name or a list of names", _list(_text)),
    "task": Kind("a name or a list of names", _list(_text)),
    "regime": Kind("a regime, a number of rows, or a list of them", _list(_regime)),
    "seeds": _SEEDS,
    "rate": Kind("a positive number or `paper`", _or_paper(_positive)),
    "epochs": Kind("a whole number of at least 1 or `paper`", _or_paper(_whole(1))),
}
_CELLS = Kind("a list of cells, e.g. [{task: rte, regime: [low, high], epochs: 6}]", _cells)
_METHOD_RATES = Kind("rates by method, e.g. {full: 1e-5, mask: 1e-3}", _method_rates)

_PATCHES = Kind("a list of distinct patches, e.g. [b_v, lora]", _list(_one_of("patch", _patches)))
_STRENGTH = Kind("a number from -1 to 1", _strength)

COMMON: dict[str, Kind] = {
    "model": _NAME,
    "task": _NAME,
    "regime": Kind(
        "the name of a regime (low, medium, high, all) or a number of rows of at least 1", _regime
    ),
    "batch_size": _COUNT,
    "max_length": _COUNT,
    "offline": _FLAG,
}
"""Parameters that every notebook has."""

NOTEBOOKS: dict[str, dict[str, Kind]] = {
    "01_expressiveness": {
        "seed": Kind("a whole number of at least 0", _whole(0)),
        "sentences": _COUNT,
    },
    "02_ranking": {
        "seeds": _SEEDS,
        "rate": _RATE,
        "epochs": _COUNT,
        "held_out": _HELD_OUT,
        "dtype": _DTYPE,
        "dtypes": _DTYPES,
        "cells": _CELLS,
    },
    "03_fine_tuning": {
        "methods": _METHODS,
        "seeds": _SEEDS,
        "rate": _RATE,
        "rates": _RATES,
        "rate_methods": _METHODS,
        "rate_seeds": _SEEDS,
        "form_methods": _METHODS,
        "form_seeds": _SEEDS,
        "epochs": _COUNT,
        "rate_epochs": _COUNT,
        "tuning": _HELD_OUT,
        "held_out": _HELD_OUT,
        "validate": _VALIDATE,
        "dtype": _DTYPE,
        "cells": _CELLS,
        "cell_methods": _METHODS,
        "size_cells": _CELLS,
        "size_methods": _METHODS,
        "baseline_cells": _CELLS,
        "baseline_methods": _METHODS,
        "method_rates": _METHOD_RATES,
    },
    "04_bias_free_injection": {
        "methods": _METHODS,
        "seeds": _SEEDS,
        "rate": _RATE,
        "method_rates": _METHOD_RATES,
        "epochs": _COUNT,
        "held_out": _HELD_OUT,
        "dtype": _DTYPE,
        "cells": _CELLS,
        "demonstrations": _COUNT,
        "explained": Kind("a list of names of small models", _list(_text)),
        "shapes": Kind("a list of names of shapes, see beft/shapes.json", _list(_text)),
        "measured": Kind("a list, perhaps empty, of names of shapes", _list(_text, 0)),
    },
    "05_debiasing": {
        "seeds": _SEEDS,
        "axis": Kind("gender, race, religion or origin", _one_of("axis", _axes)),
        "corpus": _NAME,
        "corpus_rows": _COUNT,
        "patches": _PATCHES,
        "patch_rate": _RATE,
        "patch_rates": Kind("rates by patch, e.g. {lora: 1e-3}", _patch_rates),
        "patch_epochs": _COUNT,
        "second_axis": Kind("an axis, or none", _one_of("axis", lambda: (*_axes(), "none"))),
        "second_patches": _PATCHES,
        "pairs": _COUNT,
        "triples": _COUNT,
        "strength": _STRENGTH,
        "origin_strength": _STRENGTH,
        "strengths": Kind("a list of distinct numbers from -1 to 1", _list(_strength)),
        "rate": _RATE,
        "epochs": _COUNT,
        "test_rows": _COUNT,
        "transfer": Kind("microworld_posts, a path of posts, or none", _text),
        "nli": Kind("mnli, a path of sentence pairs, or none", _text),
    },
}
"""Parameters of each notebook besides those that all have."""


def check(name: str, value: Any, kind: Kind, source: str) -> Any:
    """`value` in the proper type of parameter `name`.

    Args:
        name: the parameter, for the error.
        value: what was given; numbers and lists may be text.
        kind: what it may be.
        source: where it was given, for the error.

    Raises:
        BeftError: it is not of that kind.
    """
    try:
        return kind.convert(value)
    except BeftError as error:  # an unknown name, already with its nearest ones
        raise BeftError(f"{name} in {source}: {error}") from error
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise BeftError(f"{name} in {source} must be {kind.says}, not {value!r}") from error
