"""One run, one checked JSON file: a folder of them on this machine or behind a URL.

A record is written to a temporary name in its own folder, flushed to disk and renamed, so a reader sees all of it
or nothing of it. Its file name is readable and ends in a hash of its settings, its key: a rerun finds what is already
there, and an interrupted sweep resumes. A checksum over the content detects a record that was edited or damaged.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import BeftError
from .folders import open_folder
from .provenance import provenance
from .schema import SCHEMA, checksum, fault_of, finite, jsonable, key

RUN_LOG = "BEFT_RUN_LOG"
"""Environment variable: the file to which every sweep appends one line {"done": n, "reused": n, "failed": n}."""


def _slug(value: object) -> str:
    """A file-name part: the last part of a path or hub name, letters, digits, dot and underscore only."""
    last = str(value).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "_", last).strip("._")[:40] or "unnamed"


class Store:
    """A folder of records, with the adapters of their runs.

    Args:
        folder: where the records are, or will be, made at the first write; a text with "://" is an fsspec URL.

    Attributes:
        place: the folder as `folders.Folder`.
        folder: a folder of this machine for checkpoints and adapters: the same one, or a cache of a URL's.
        location: folder or URL as another process can use it.
        lock: context manager by name, "train this one process at a time".
    """

    def __init__(self, folder: str | Path) -> None:
        self.place = open_folder(folder)
        self.folder, self.location = self.place.local, self.place.location
        self.lock = self.place.lock

    def __repr__(self) -> str:
        last = self.location.rstrip("/").rsplit("/", 1)[-1].rsplit("@", 1)[-1]  # no password of a URL
        return f"Store({len(self.place.names())} records in {last!r})"

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
        words = [_slug(settings[n]) for n in ("task", "model") if n in settings]
        words.append(_slug(settings.get("method") or settings.get("kind") or "record"))
        if settings.get("seed") is not None:
            words.append(f"seed{settings['seed']}")
        if settings.get("rate") is not None:
            words.append(f"rate{settings['rate']:g}")
        return f"{'-'.join(words)}-{key(settings)}.json"

    def find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of exactly these settings, or None. Raises BeftError for a file of theirs that is not sound."""
        name = self.name(settings)
        return self.read(name) if self.place.has(name) else None

    def read(self, path: str | Path) -> dict[str, Any]:
        """One record, checked: fields and types, schema version, key against settings, checksum, file name.

        Raises BeftError: it cannot be read or is not sound; the message names the file and the remedy.
        """
        name = Path(path).name
        where = self.place.address(name)
        remedy = "delete this file and run the same command again"
        try:
            record = json.loads(self.place.read(name), parse_constant=finite, parse_float=finite)
            fault = fault_of(record)
        except OSError as error:
            raise BeftError(f"cannot read the record {where}: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:  # JSON syntax, nesting, or text that is not UTF-8
            raise BeftError(f"the record {where} is not valid JSON: {remedy}") from error
        if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
            remedy = "it was written by a newer version, update beft or use another results folder"
        if fault is None and not name.removesuffix(".json").endswith(record["key"]):
            fault = f"its file name does not end in its key {record['key']}"
        if fault is not None:
            raise BeftError(f"the record {where} cannot be used, {fault}: {remedy}")
        return record

    def all(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Every record in the folder (of one kind), sorted by file name. Unfinished temporary files are not read.

        Raises BeftError for a file that is not a sound record.
        """
        records = [self.read(name) for name in self.place.names()]
        return [r for r in records if kind is None or r["kind"] == kind]

    def write(self, record: Mapping[str, Any]) -> Path:
        """Write a record under the name of its settings, whole or not at all; return its path.

        `schema`, `key` and `checksum` are filled in here, and `code`, `versions` and `device` (from `provenance()`)
        where the record has none. NaN and infinities become null. Raises BeftError: a required field is missing or of
        the wrong type, or the file cannot be written.
        """
        full = {**provenance(), **record}
        full["schema"], full["key"], full["checksum"] = SCHEMA, key(full.get("settings", {})), ""
        full = jsonable(full)
        full["checksum"] = checksum(full)
        if (fault := fault_of(full)) is not None:
            raise BeftError(f"a record of kind {full.get('kind')!r} was not written: {fault}")
        name = self.name(full["settings"])
        try:
            self.place.write(name, json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise BeftError(
                f"cannot write the record {self.place.address(name)}: {error.strerror or error}; free the disk or "
                "correct the folder's permissions and run the same command again (finished runs are kept)"
            ) from error
        return self.folder / name


def log_runs(*, done: int, reused: int, failed: int) -> None:
    """Append the numbers of one sweep to the file that $BEFT_RUN_LOG names; nothing where it is not set."""
    if path := os.environ.get(RUN_LOG):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"done": done, "reused": reused, "failed": failed}) + "\n")


def count_runs(path: Path) -> dict[str, int]:
    """{"done": n, "reused": n, "failed": n} over all sweeps of a log; zeros where there is no such file."""
    counts = {"done": 0, "reused": 0, "failed": 0}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        with suppress(ValueError):  # a process killed while writing leaves half a line
            for name, number in json.loads(line).items():
                counts[name] += int(number)
    return counts
