"""One run, one JSON file: write, find and read records; where every number comes from.

A record is written to a temporary name in its own folder, flushed to disk and renamed, so a reader sees all of it
or nothing of it. Its file name is readable and ends in a hash of its settings: a rerun finds what is already
there, and an interrupted sweep resumes. A checksum over the content tells a record that was edited or damaged.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BeftError
from .folders import open_folder
from .provenance import provenance

__all__ = ["SCHEMA", "Store", "checksum", "key", "provenance"]

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
    "ranking": {"scores": dict, "by_epoch": list, "key_bias_null": dict},
}
EPOCH_FIELDS: dict[str, type | tuple[type, ...]] = {
    "epoch": int,
    "train_loss": _nullable_number,
    "tuning": _nullable_number,
    "validation": _nullable_number,
}


def _plain(value: Any) -> Any:
    """`value` in JSON's own types: tuples become lists, paths text, NumPy and torch scalars numbers, NaN null."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors
        return _plain(value.tolist())
    raise BeftError(
        f"a record cannot hold {value!r} ({type(value).__name__}): give numbers, text, lists or dicts"
    )


def _canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: the same text for equal content, whatever the order of the keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def key(settings: Mapping[str, Any]) -> str:
    """The first 12 hex digits of the SHA-256 of the settings' canonical JSON: the identity of a run."""
    return hashlib.sha256(_canonical(_plain(settings)).encode()).hexdigest()[:12]


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over a record's canonical JSON, its own `checksum` field left out."""
    rest = {k: v for k, v in record.items() if k != "checksum"}
    return hashlib.sha256(_canonical(_plain(rest)).encode()).hexdigest()


def _slug(value: object) -> str:
    """A file-name part: the last part of a path or hub name, letters, digits, dot and underscore only."""
    last = str(value).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "_", last).strip("._")[:40] or "unnamed"


def _check(
    fields: Mapping[str, type | tuple[type, ...]], content: Mapping[str, Any], where: str
) -> str | None:
    """What is wrong with `content` in words, or None."""
    for name, kinds in fields.items():
        if name not in content:
            return f"{where}{name} is missing"
        value = content[name]
        # bool is a kind of int in Python, but never a number here
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"{where}{name} has the wrong type ({type(value).__name__})"
    return None


def _problem(record: Any) -> str | None:
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


class Store:
    """A folder of records, with the adapters of their runs.

    Args:
        folder: where the records are, or will be, made at the first write; a text with "://" is an fsspec URL.

    Attributes:
        folder: a folder of this machine for checkpoints and adapters: the same one, or a cache of a URL's.
        lock: context manager by name, "train this one process at a time"; see `folders.Folder`.
        keep, fetch: put a finished folder of files under a name, and find it again.
        location: folder or URL as another process can use it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.place = open_folder(folder)
        self.folder, self.location = self.place.local, self.place.location
        self.lock = self.place.lock

    def __repr__(self) -> str:
        return f"Store({len(self.place.names())} records in {self.location.rstrip('/').rsplit('/', 1)[-1]!r})"

    def keep(self, folder: Path, name: str) -> None:
        """Put the finished adapter `folder` under `name`, moving it."""
        self.place.keep(folder, f"adapters/{name}")

    def fetch(self, name: str) -> Path | None:
        """The adapter of that name as a folder of this machine, or None."""
        return self.place.fetch(f"adapters/{name}")

    def path(self, settings: Mapping[str, Any]) -> Path:
        """Where the record of these settings is, or would be, in a folder of this machine."""
        return self.folder / self.name(settings)

    def name(self, settings: Mapping[str, Any]) -> str:
        """The file name of a record: `<task>-<model>-<method>-seed<s>-rate<r>-<key>.json`.

        Other kinds than runs have their `kind` in the place of the method.
        """
        parts = [_slug(settings[n]) for n in ("task", "model") if n in settings]
        parts.append(_slug(settings.get("method") or settings.get("kind") or "record"))
        if settings.get("seed") is not None:
            parts.append(f"seed{settings['seed']}")
        if settings.get("rate") is not None:
            parts.append(f"rate{settings['rate']:g}")
        return f"{'-'.join(parts)}-{key(settings)}.json"

    def find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of exactly these settings, or None if there is none.

        Raises:
            BeftError: there is a file for these settings, but it is not a sound record.
        """
        name = self.name(settings)
        return self.read(name) if self.place.has(name) else None

    def read(self, path: str | Path) -> dict[str, Any]:
        """One record, checked: fields and types, schema version, key against settings, checksum, file name.

        Raises:
            BeftError: it cannot be read or is not sound; the message names the file and the remedy.
        """
        name = Path(path).name
        path = self.place.full(name)
        remedy = "delete this file and run the same command again"
        try:
            record = json.loads(self.place.read(name))
        except OSError as error:
            raise BeftError(f"cannot read the record {path}: {error.strerror or error}") from error
        except ValueError as error:  # JSON syntax or not UTF-8
            raise BeftError(f"the record {path} is not valid JSON: {remedy}") from error
        if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
            remedy = "it was written by a newer version, update beft or use another results folder"
        fault = _problem(record)
        if fault is None and not name.removesuffix(".json").endswith(record["key"]):
            fault = f"its file name does not end in its key {record['key']}"
        if fault is not None:
            raise BeftError(f"the record {path} cannot be used, {fault}: {remedy}")
        assert isinstance(record, dict)
        return record

    def all(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Every record in the folder (of one kind), sorted by file name. Unfinished temporary files are not read.

        Raises:
            BeftError: one of the files is not a sound record.
        """
        records = [self.read(name) for name in self.place.names()]
        return [r for r in records if kind is None or r["kind"] == kind]

    def write(self, record: Mapping[str, Any]) -> Path:
        """Write a record under the name of its settings, whole or not at all; return its path.

        `schema`, `key` and `checksum` are filled in here, and `code`, `versions` and `device` (from
        `provenance()`) where the record has none. NaN and infinities become null.

        Raises:
            BeftError: a required field is missing or of the wrong type, or the file cannot be written.
        """
        full = {**provenance(), **record}
        full["schema"], full["key"], full["checksum"] = SCHEMA, key(full.get("settings", {})), ""
        full = _plain(full)
        full["checksum"] = checksum(full)
        fault = _problem(full)
        if fault is not None:
            raise BeftError(f"a record of kind {full.get('kind')!r} was not written: {fault}")
        name = self.name(full["settings"])
        text = json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.place.write(name, text)
        except OSError as error:
            path = self.place.full(name)
            reason = error.strerror or str(error)
            raise BeftError(
                f"cannot write the record {path}: {reason}; free the disk or correct the folder's permissions and "
                "run the same command again (finished runs are kept)"
            ) from error
        return self.path(full["settings"])
