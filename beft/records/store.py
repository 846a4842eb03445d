"""One run, one JSON file: write, find and read records, in a folder of this machine or behind a URL.

A record is written to a temporary name in its own folder, flushed to disk and renamed, so a reader sees all of it
or nothing of it. Its file name is readable and ends in a hash of its settings: a rerun finds what is already
there, and an interrupted sweep resumes. A checksum over the content detects a record that was edited or damaged.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BeftError
from .folders import Folder
from .provenance import provenance
from .remote import RemoteFolder, redacted
from .schema import SCHEMA, checksum, jsonable, key, parse_json, problem


def open_folder(where: str | Path) -> Folder:
    """A `Folder`, or a `RemoteFolder` of a text with "://". Raises BeftError for a URL that cannot be used."""
    if not isinstance(where, str) or "://" not in where:
        return Folder(where)
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    try:
        files, root = fsspec.core.url_to_fs(where)
    except Exception as error:  # of the URL, of a missing package, or of a server, as each package calls it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BeftError(
            f"the results folder {redacted(where)!r} cannot be used, {reason}: install the package of that protocol or "
            "give another URL or folder"
        ) from error
    # file:// is a folder of this machine like any other, with its locks and renames.
    return Folder(root) if type(files) is LocalFileSystem else RemoteFolder(where, files, root)


def _slug(value: object) -> str:
    """A file-name part: the last part of a path or hub name, letters, digits, dot and underscore only."""
    last = str(value).rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "_", last).strip("._")[:40] or "unnamed"


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
        where = self.place.address(name)
        remedy = "delete this file and run the same command again"
        try:
            record = parse_json(self.place.read(name))
            fault = problem(record)
        except OSError as error:
            raise BeftError(f"cannot read the record {where}: {error.strerror or error}") from error
        except ValueError as error:  # JSON syntax, or text that is not UTF-8
            raise BeftError(f"the record {where} is not valid JSON: {remedy}") from error
        if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
            remedy = "it was written by a newer version, update beft or use another results folder"
        if fault is None and not name.removesuffix(".json").endswith(record["key"]):
            fault = f"its file name does not end in its key {record['key']}"
        if fault is not None:
            raise BeftError(f"the record {where} cannot be used, {fault}: {remedy}")
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
        full = jsonable(full)
        full["checksum"] = checksum(full)
        fault = problem(full)
        if fault is not None:
            raise BeftError(f"a record of kind {full.get('kind')!r} was not written: {fault}")
        name = self.name(full["settings"])
        text = json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.place.write(name, text)
        except OSError as error:
            reason = error.strerror or str(error)
            raise BeftError(
                f"cannot write the record {self.place.address(name)}: {reason}; free the disk or correct the folder's "
                "permissions and run the same command again (finished runs are kept)"
            ) from error
        return self.path(full["settings"])
