"""What a parameter of a notebook may be: converters that refuse everything else, and the error that says so."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import BeftError, unknown


@dataclass(frozen=True)
class Kind:
    """What a parameter may be.

    Attributes:
        says: the kind in words, for the error.
        convert: the value in its proper type; raises ValueError or TypeError for anything else.
    """

    says: str
    convert: Callable[[Any], Any]


def whole(least: int) -> Callable[[Any], int]:
    """A whole number of at least `least`."""

    def convert(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(value)
        return value

    return convert


def number(value: Any) -> float:
    """A number, perhaps as text."""
    # float("4e-4") on purpose: YAML 1.1 reads 4e-4, without a dot, as text
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(value)
    return float(value)


def positive(value: Any) -> float:
    """A finite number above 0."""
    got = number(value)
    if not (math.isfinite(got) and got > 0):
        raise ValueError(value)
    return got


def share(value: Any) -> float:
    """A number of at least 0 and less than 1."""
    got = number(value)
    if not 0 <= got < 1:
        raise ValueError(value)
    return got


def text(value: Any) -> str:
    """Text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(value)
    return value


def flag(value: Any) -> bool:
    """True or false, perhaps as YAML."""
    value = yaml.safe_load(value) if isinstance(value, str) else value
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def one_of(kind: str, valid: Callable[[], tuple[str, ...]]) -> Callable[[Any], str]:
    """One of the names `valid` gives when asked; an unknown one is named with the nearest."""

    def convert(value: Any) -> str:
        if value not in (names := valid()):
            raise unknown(kind, value, names)
        return str(value)

    return convert


def list_of(item: Callable[[Any], Any], least: int = 1) -> Callable[[Any], list[Any]]:
    """A list of distinct items, `least` of them or more; a single item is a list of one; text is read as YAML."""

    def convert(value: Any) -> list[Any]:
        value = yaml.safe_load(value) if isinstance(value, str) else value
        value = list(value) if isinstance(value, (list, tuple)) else [value]
        items = [item(v) for v in value]
        if len(items) < least or any(items.count(i) > 1 for i in items):
            raise ValueError(value)
        return items

    return convert


def rates_by(
    kind: str, valid: Callable[[], tuple[str, ...]], rate: Callable[[Any], Any] = positive
) -> Callable[[Any], dict[str, Any]]:
    """A positive number, or what `rate` takes, for each of some names; text is read as YAML."""
    known = one_of(kind, valid)

    def convert(value: Any) -> dict[str, Any]:
        value = yaml.safe_load(value) if isinstance(value, str) else value
        if not isinstance(value, dict):
            raise ValueError(value)
        return {known(name): rate(given) for name, given in value.items()}

    return convert


def or_paper(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The word `paper`, or what `convert` takes."""
    return lambda value: value if value == "paper" else convert(value)


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
