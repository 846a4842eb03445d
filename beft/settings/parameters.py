"""Which parameters each notebook has, and what each may be."""

from __future__ import annotations

from typing import Any

import yaml

from ..errors import unknown
from .validators import (
    Kind,
    check,
    flag,
    list_of,
    number,
    one_of,
    or_paper,
    positive,
    rates_by,
    share,
    text,
    whole,
)


def _regime(value: Any) -> str | int:
    try:
        return whole(1)(value)
    except ValueError:
        name = text(value)
        if not name.isidentifier():  # "-5" and "0.5" are neither a number of rows nor a regime's name
            raise
        return name


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


def _methods() -> tuple[str, ...]:
    from ..study import ALL_METHODS

    return ALL_METHODS


def _patches() -> tuple[str, ...]:
    from ..study import PATCHES

    return PATCHES


def _strength(value: Any) -> float:
    got = number(value)
    if not -1 <= got <= 1:
        raise ValueError(value)
    return got


def _dtypes() -> tuple[str, ...]:
    return ("float32", "bfloat16")


_NAME = Kind("a name or a path", text)
_COUNT = Kind("a whole number of at least 1", whole(1))
_RATE = Kind("a positive number", positive)
_RATES = Kind("a list of distinct positive numbers, e.g. [0.001, 0.01]", list_of(positive))
_SEEDS = Kind("a list of distinct whole numbers of at least 0, e.g. [0, 1, 2]", list_of(whole(0)))
_METHODS = Kind("a list of distinct methods, e.g. [b_q, b_v]", list_of(one_of("method", _methods)))
_DTYPES = Kind(
    "a list of distinct precisions, e.g. [float32, bfloat16]", list_of(one_of("precision", _dtypes))
)
_DTYPE = Kind("float32 or bfloat16", one_of("precision", _dtypes))
_VALIDATE = Kind("each or last", one_of("validation rule", lambda: ("each", "last")))
_HELD_OUT = Kind("a share of at least 0 and less than 1", share)
_FLAG = Kind("true or false", flag)

_CELL = {
    "model": Kind("a name or a list of names", list_of(text)),
    "task": Kind("a name or a list of names", list_of(text)),
    "regime": Kind("a regime, a number of rows, or a list of them", list_of(_regime)),
    "seeds": _SEEDS,
    "rate": Kind("a positive number or `paper`", or_paper(positive)),
    "epochs": Kind("a whole number of at least 1 or `paper`", or_paper(whole(1))),
}
_CELLS = Kind("a list of cells, e.g. [{task: rte, regime: [low, high], epochs: 6}]", _cells)
_METHOD_RATES = Kind("rates by method, e.g. {full: 1e-5, mask: 1e-3}", rates_by("method", _methods))

_PATCHES = Kind("a list of distinct patches, e.g. [b_v, lora]", list_of(one_of("patch", _patches)))
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
        "seed": Kind("a whole number of at least 0", whole(0)),
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
        "explained": Kind("a list of names of small models", list_of(text)),
        "shapes": Kind("a list of names of shapes, see beft/shapes.json", list_of(text)),
        "measured": Kind("a list, perhaps empty, of names of shapes", list_of(text, 0)),
    },
    "05_debiasing": {
        "seeds": _SEEDS,
        "axis": Kind("the name of an axis of the word list", text),
        "word_list": Kind("a path of a word list as beft/word_lists.json, or none for that one", text),
        "names": _FLAG,
        "corpus": _NAME,
        "corpus_rows": _COUNT,
        "patches": _PATCHES,
        "patch_rate": _RATE,
        "patch_rates": Kind("rates by patch, e.g. {lora: 1e-3}", rates_by("patch", _patches)),
        "patch_epochs": _COUNT,
        "tried_rates": Kind(
            "lists of rates by patch, perhaps none, e.g. {lora: [1e-3, 1e-2]}",
            rates_by("patch", _patches, list_of(positive)),
        ),
        "tried_seeds": _SEEDS,
        "second_axis": Kind("the name of an axis, or none", text),
        "second_patches": _PATCHES,
        "pairs": _COUNT,
        "triples": _COUNT,
        "strength": _STRENGTH,
        "origin_strength": _STRENGTH,
        "strengths": Kind("a list of distinct numbers from -1 to 1", list_of(_strength)),
        "link_rows": _COUNT,
        "link_epochs": _COUNT,
        "link_rate": _RATE,
        "rate": _RATE,
        "epochs": _COUNT,
        "test_rows": _COUNT,
        "transfer": Kind("microworld_posts, a path of posts, or none", text),
        "nli": Kind("mnli, a path of sentence pairs, or none", text),
    },
}
"""Parameters of each notebook besides those that all have."""
