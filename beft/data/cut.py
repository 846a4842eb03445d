"""The cut of one's own rows into training and validation rows: fixed, stratified, no text on both sides."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ..errors import BeftError
from . import files
from .datasets import label_array

VALIDATION_SHARE = 0.2
_SHOWN = 10  # classes in an error


def text_keys(texts: Sequence[Sequence[str]]) -> list[Hashable]:
    """For each row (N,) what rows whose texts differ in spaces alone have in common."""
    return [
        " ".join(row[0].split()) if len(row) == 1 else tuple(" ".join(text.split()) for text in row) for row in texts
    ]


def cut(codes: np.ndarray, keys: Sequence[Hashable], least: int) -> np.ndarray:
    """Which rows (N,) are held out: a fixed share of each class, or more for at least so many texts.

    Rows of one text, which have one key, are on one side; a text with several labels counts for the rarest of them.
    """
    first, unit_codes = units(codes, keys)
    places, sizes = np.unique(first, return_counts=True)
    size = dict(zip(places.tolist(), sizes.tolist(), strict=True))
    held_out = np.zeros(len(codes), dtype=bool)
    for code in np.unique(unit_codes):
        texts = np.random.RandomState(0).permutation(places[unit_codes == code]).tolist()
        room, chosen = round(VALIDATION_SHARE * sum(map(size.__getitem__, texts))), []
        for text in texts:
            if size[text] <= room:
                room -= size[text]
                chosen.append(text)
        held_out[chosen if len(chosen) >= least else [min(texts, key=size.__getitem__)]] = True
    return held_out[first]


def units(codes: np.ndarray, keys: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """For each row (N,) the first row of its text, and for each different text its code, in the order of first rows."""
    seen: dict[Hashable, int] = {}
    first = np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
    if len(seen) == len(first):
        return first, codes
    sizes = Counter(codes.tolist())
    rarest: dict[int, Any] = {}
    for place, code in zip(first.tolist(), codes.tolist(), strict=True):
        rarest[place] = min(rarest.get(place, code), code, key=lambda own: (sizes[own], own))
    return first, np.array([rarest[place] for place in np.unique(first)])


def classes(
    given: Sequence[str], keys: Sequence[Hashable], where: str, remedy: str = "add rows"
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Codes (N,), names of the classes, and which rows are held out (N,), of rows with names of classes.

    Raises BeftError for fewer than two classes, and, with the remedy, for one that cannot be on both sides of the cut.
    """
    names = files.class_names(given)
    if len(names) < 2:
        raise BeftError(f"all rows of {where} have the label {names[0]!r}: a task needs at least two classes")
    code = {name: i for i, name in enumerate(names)}
    codes = label_array([code[name] for name in given])
    _, unit_codes = units(codes, keys)
    own_texts = Counter(unit_codes.tolist())
    rare = [name for name in names if own_texts[code[name]] < 2]
    if rare:
        shown = ", ".join(map(repr, rare[:_SHOWN])) + (f" and {len(rare) - _SHOWN} more" if len(rare) > _SHOWN else "")
        counts = Counter(given)
        rows = "a single row" if all(counts[name] == 1 for name in rare) else "a single row or text of its own"
        each = " each" if len(rare) > 1 else ""
        raise BeftError(
            f"label {shown} of {where} has {rows}{each}, and a class needs two or more, one to learn, one to test: "
            f"{remedy}"
        )
    return codes, names, cut(codes, keys, least=1)
