"""What a record is: its fields, its key, its checksum, and whether it is sound."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from ..errors import BeftError

SCHEMA = 1
"""Version of the record format. A record of another version is refused, never guessed at."""

_number = (int, float)
_nullable_number = (int, float, type(None))
# Required fields of every record and their types; then those that one kind has in addition.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "kind": str,
    "key": str,
    "checksum": str,
    "settings": dict,
    "model": dict,
    "data": dict,
    "code": dict,
    "versions": dict,
    "device": dict,
    "seconds": _number,
    "outcome": str,
}
_KIND_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "run": {"parameters": dict, "epochs": list, "final": dict, "best": dict, "bank": dict},
    "memory": {"expected_bytes": int, "peak_bytes": int},
    "untuned": {"validation": _number, "demonstrations": int},
    "patch": {"parameters": dict, "epochs": list, "measures": dict, "patch": dict},
    "debias": {"epochs": list, "measures": dict, "patch": dict},
    "ranking": {"scores": dict, "by_epoch": list, "key_bias_null": dict},
}
EPOCH_FIELDS: dict[str, type | tuple[type, ...]] = {
    "epoch": int,
    "train_loss": _nullable_number,
    "tuning": _nullable_number,
    "validation": _nullable_number,
}


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: tuples become lists, paths text, NumPy and torch scalars numbers, NaN null."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors
        return jsonable(value.tolist())
    raise BeftError(f"a record cannot hold {value!r} ({type(value).__name__}): give numbers, text, lists or dicts")


def _canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for equal content, whatever the order of the keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key(settings: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the SHA-256 of the settings' canonical JSON: the identity of a run."""
    return hashlib.sha256(_canonical(jsonable(settings)).encode()).hexdigest()[:12]


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a record's canonical JSON, its own `checksum` field left out."""
    rest = {k: v for k, v in record.items() if k != "checksum"}
    return hashlib.sha256(_canonical(jsonable(rest)).encode()).hexdigest()


def _check(fields: Mapping[str, type | tuple[type, ...]], content: Mapping[str, Any], where: str) -> str | None:
    """What is wrong with `content` in words, or None."""
    for name, types in fields.items():
        if name not in content:
            return f"{where}{name} is missing"
        value = content[name]
        # In Python a bool is an int; here it is never a number.
        if not isinstance(value, types) or isinstance(value, bool):
            return f"{where}{name} has the wrong type ({type(value).__name__})"
    return None


def problem(record: Any) -> str | None:
    """Why `record` is not a sound record, in words, or None."""
    if not isinstance(record, dict):
        return "it is not a JSON object"
    if record.get("schema") != SCHEMA:
        return f"its schema is {record.get('schema')!r}, this version reads {SCHEMA}"
    fault = _check(_FIELDS, record, "") or _check(_KIND_FIELDS.get(record["kind"], {}), record, "")
    if fault is None and record["kind"] == "run":
        for i, epoch in enumerate(record["epochs"]):
            if not isinstance(epoch, dict):
                return f"epochs[{i}] is not an object"
            fault = fault or _check(EPOCH_FIELDS, epoch, f"epochs[{i}].")
    if fault is None and record["key"] != key(record["settings"]):
        fault = "its key does not belong to its settings"
    if fault is None and record["checksum"] != checksum(record):
        fault = "its checksum does not match: it was edited or damaged"
    return fault


def parse_json(text: str) -> Any:
    """JSON as `Store` writes it: without the NaN and infinities that Python's reader takes for numbers.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # the checksum counts it as the null that it is written as
        raise ValueError(f"{text} is not a number of JSON")
    return value
