"""The format of a record: its fields, its key and its checksum."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ..errors import BeftError, reason_of

SCHEMA = 1
"""Version of the record format. A record of another version is refused, never guessed at."""

_NUMBER = (int, float)
# Required fields of every record and their types; then those that one kind has in addition.
_FIELDS: dict[str, Any] = {
    "schema": int,
    **dict.fromkeys(("kind", "key", "checksum"), str),
    **dict.fromkeys(("settings", "model", "data", "code", "versions", "device"), dict),
    "seconds": _NUMBER,
    "outcome": str,
}
_KIND_FIELDS: dict[str, dict[str, Any]] = {
    "run": {"parameters": dict, "epochs": list, "final": dict, "best": dict, "bank": dict},
    "memory": {"expected_bytes": int, "peak_bytes": int},
    "untuned": {"validation": _NUMBER, "demonstrations": int},
    "patch": {"parameters": dict, "epochs": list, "measures": dict, "patch": dict},
    "debias": {"epochs": list, "measures": dict, "patch": dict},
    "ranking": {"scores": dict, "by_epoch": list, "key_bias_null": dict},
    "transfer": {"parameters": dict, "source": dict, "targets": dict},
}
EPOCH_FIELDS: dict[str, Any] = {
    "epoch": int,
    **dict.fromkeys(("train_loss", "tuning", "validation"), (*_NUMBER, type(None))),
}


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: tuples become lists, paths text, NumPy and torch scalars numbers, NaN null.

    Half a character (a lone surrogate, as in the name of a file that is not UTF-8) becomes its escape `\\udcff`, in
    text that can be written. Raises BeftError for what has no such form.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {jsonable(str(k)): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, os.PathLike):
        return jsonable(os.fspath(value))
    if hasattr(value, "tolist") and not isinstance(value, type):  # NumPy scalars and arrays, torch tensors
        return jsonable(value.tolist())
    raise BeftError(f"a record cannot hold {value!r} ({type(value).__name__}): give numbers, text, lists or dicts")


def _hash(value: Any) -> str:
    """SHA-256 (hex) of JSON with sorted keys and no spaces: the same for equal content, whatever the keys' order."""
    try:
        text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (RecursionError, ValueError) as error:  # what holds itself; a number of thousands of digits
        if isinstance(error, BeftError):
            raise
        raise BeftError(f"a record cannot hold this, {reason_of(error)}: give numbers, text, lists or dicts") from error
    return hashlib.sha256(text.encode()).hexdigest()


def key(settings: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the SHA-256 of the settings' canonical JSON: the identity of a run.

    Raises BeftError: no mapping, or a value that JSON cannot hold.
    """
    if not isinstance(settings, Mapping):
        raise BeftError(f"settings {settings!r} are no dict: give the names and values that identify a run")
    return _hash(settings)[:12]


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a record's canonical JSON, its own `checksum` field left out."""
    return _hash({k: v for k, v in record.items() if k != "checksum"})


def _misfit(fields: Mapping[str, Any], content: Mapping[str, Any], where: str = "") -> str | None:
    """The first of `fields` that `content` lacks or has in another type, in words, or None."""
    for name, types in fields.items():
        if name not in content:
            return f"{where}{name} is missing"
        # In Python a bool is an int; here it is never a number.
        if not isinstance(content[name], types) or isinstance(content[name], bool):
            return f"{where}{name} has the wrong type ({type(content[name]).__name__})"
    return None


def fault_of(record: Any) -> str | None:
    """Why `record` is not a sound record, in words, or None."""
    if not isinstance(record, dict):
        return "it is not a JSON object"
    if record.get("schema") != SCHEMA:
        return f"its schema is {record.get('schema')!r}, this version reads {SCHEMA}"
    fault = _misfit(_FIELDS, record) or _misfit(_KIND_FIELDS.get(record["kind"], {}), record)
    if fault is None and record["kind"] == "run":
        for i, epoch in enumerate(record["epochs"]):
            if not isinstance(epoch, dict):
                return f"epochs[{i}] is not an object"
            fault = fault or _misfit(EPOCH_FIELDS, epoch, f"epochs[{i}].")
    if fault is None and record["key"] != key(record["settings"]):
        fault = "its key does not belong to its settings"
    if fault is None and record["checksum"] != checksum(record):
        fault = "its checksum does not match: it was edited or damaged"
    return fault


def finite(text: str) -> float:
    """A number of JSON, without the NaN and infinities that Python's reader takes for numbers."""
    value = float(text)
    if not math.isfinite(value):  # the checksum counts it as the null that it is written as
        raise ValueError(f"{text} is not a number of JSON")
    return value
