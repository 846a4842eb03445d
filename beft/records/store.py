"""One run, one checked JSON file: a folder of them on this machine or behind a URL.

A record is written to a temporary name in its own folder, flushed to disk and renamed, so a reader sees all of it
or nothing of it. Its file name is readable and ends in a hash of its settings, its key: a rerun finds what is already
there, and an interrupted sweep resumes. A checksum over the content detects a record that was edited or damaged.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BeftError
from .folders import Fault, open_folder, unchecked
from .provenance import provenance
from .schema import SCHEMA, checksum, fault_of, finite, jsonable, key


def _slug(value: object) -> str:
    """A file-name part: the last part of a path or hub name, letters, digits, dot and underscore only."""
    text = re.sub(r"\\(ud[89a-f][0-9a-f]{2})", r"_\1", str(value))  # half a character, see `jsonable`
    last = text.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._]+", "_", last).strip("._")[:40] or "unnamed"


def _is_ours(name: str) -> bool:
    """Whether a file is named like a record: its name ends in a key."""
    return re.search(r"-[0-9a-f]{12}\.json\Z", name) is not None


class DamagedRecord(BeftError):
    """A file with the name of a record that is not a sound one, and its `fault`; the run it is of is made again."""

    def __init__(self, where: str, fault: str) -> None:
        super().__init__(f"the record {where} cannot be used, {fault}: run the command that made it, to make it again")
        self.fault = fault


class Store:
    """A folder of records, with the adapters of their runs.

    Args:
        folder: where the records are, or will be, made at the first write; a text with "://" is an fsspec URL.

    A damaged record counts as missing: `find` and `all` say so and leave the file as it is; the next record of the
    same settings takes its place, and the file stays beside it as `*.damaged`. What is not named like a record is not
    touched.

    Attributes:
        place: the folder as `folders.Folder`.
        folder: a folder of this machine for checkpoints and adapters: the same one, or a cache of a URL's.
        location: folder or URL as another process can use it.
        lock: context manager by name, "train this one process at a time".
        check_writable: raises BeftError where records, adapters or checkpoints cannot be written.
        explained: a context in which an OSError ends in a BeftError that names the folder.
        written: keys of the records that this object has written.

    Raises BeftError: `folder` is neither a path nor a URL that can be used.
    """

    def __init__(self, folder: str | Path) -> None:
        self.place = place = open_folder(folder)
        self.folder, self.location = place.local, place.location
        self.lock, self.check_writable, self.explained = place.lock, place.check_writable, place.explained
        self.written: set[str] = set()
        self._damaged: set[str] = set()
        self._told: set[str] = set()

    def __repr__(self) -> str:
        last = self.location.rstrip("/").rsplit("/", 1)[-1].rsplit("@", 1)[-1]  # no password of a URL
        return f"Store({sum(map(_is_ours, self.place.names()))} records in {last!r})"

    def keep(self, folder: Path, name: str) -> None:
        """Put the finished adapter `folder` under `name`, moving it."""
        self.place.keep(folder, f"adapters/{name}")

    def fetch(self, name: str, fault: Fault = unchecked) -> Path | None:
        """The adapter of that name as a folder of this machine, or None.

        Args:
            fault: why a folder cannot be used, in words, or None; one that cannot counts as missing, with a remark.
        """
        return self.place.fetch(f"adapters/{name}", fault)

    def path(self, settings: Mapping[str, Any]) -> Path:
        """Where the record of these settings is, or would be, in a folder of this machine."""
        return self.folder / self.name(settings)

    def name(self, settings: Mapping[str, Any]) -> str:
        """The file name of a record: `<task>-<model>-<method>-seed<s>-rate<r>-<key>.json`.

        Other kinds than runs have their `kind` in the place of the method.
        """
        own, settings = key(settings), jsonable(settings)
        words = [_slug(settings[n]) for n in ("task", "model") if n in settings]
        words.append(_slug(settings.get("method") or settings.get("kind") or "record"))
        if settings.get("seed") is not None:
            words.append(f"seed{_slug(settings['seed'])}")
        if settings.get("rate") is not None:
            rate = settings["rate"]
            number = isinstance(rate, float) or (isinstance(rate, int) and abs(rate) < 2**53)
            words.append(f"rate{rate:g}" if number else f"rate{_slug(rate)}")
        return f"{'-'.join(words)}-{own}.json"

    def find(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of exactly these settings, or None: there is none, or it is damaged, which is printed.

        Raises BeftError for a record of a newer version, or a file that cannot be reached.
        """
        name = self.name(settings)
        if not self.place.has(name):
            return None
        try:
            record = self._sound(name)
        except FileNotFoundError:  # replaced at this moment
            return None
        except DamagedRecord as error:
            self._damaged.add(name)
            self._remark(name, f"the record {name} is damaged ({error.fault}) and counts as missing: it is made again")
            return None
        self._damaged.discard(name)
        return record

    def read(self, path: str | Path) -> dict[str, Any]:
        """One record, checked: fields and types, schema version, key against settings, checksum, file name.

        Raises BeftError: it cannot be read or is not sound; the message names the file and the remedy.
        """
        if not isinstance(path, str | Path) or not Path(path).name:
            raise BeftError(f"{path!r} is no record: give the path or the name of a file of this store")
        name = Path(path).name
        try:
            return self._sound(name)
        except FileNotFoundError as error:
            raise BeftError(f"there is no record {self.place.address(name)}: correct its name") from error

    def _sound(self, name: str) -> dict[str, Any]:
        """One record, checked. Raises FileNotFoundError, DamagedRecord, or BeftError as `read`."""
        where = self.place.address(name)
        try:
            record = json.loads(self.place.read(name), parse_constant=finite, parse_float=finite)
            fault = fault_of(record)
        except FileNotFoundError:
            raise
        except IsADirectoryError as error:
            raise DamagedRecord(where, "it is a folder") from error
        except OSError as error:
            raise BeftError(
                f"cannot read the record {where}: {error.strerror or error}; correct its permissions or the connection"
            ) from error
        except (ValueError, RecursionError) as error:  # JSON syntax, nesting, or text that is not UTF-8
            raise DamagedRecord(where, "it is not valid JSON") from error
        if isinstance(record, dict) and isinstance(record.get("schema"), int) and record["schema"] > SCHEMA:
            remedy = "it was written by a newer version, update beft or use another results folder"
            raise BeftError(f"the record {where} cannot be used, {fault}: {remedy}")
        if fault is None and not name.removesuffix(".json").endswith(record["key"]):
            fault = f"its file name does not end in its key {record['key']}"
        if fault is not None:
            raise DamagedRecord(where, fault)
        return record

    def all(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Every record in the folder (of one kind), sorted by file name. Unfinished temporary files are not read.

        Damaged records and files that are no records are left out, and named. Raises BeftError for a record of a
        newer version, or a file that cannot be reached.
        """
        records = []
        for name in self.place.names():
            if not _is_ours(name):
                self._remark(name, f"{name!r} in the results folder is no record, and is ignored")
                continue
            try:
                records.append(self._sound(name))
            except FileNotFoundError:  # replaced or deleted at this moment
                continue
            except DamagedRecord as error:
                again = "it is left out until the command that made it has made it again"
                self._remark(name, f"the record {name} is damaged ({error.fault}): {again}")
        return [r for r in records if kind is None or r["kind"] == kind]

    def _remark(self, name: str, text: str) -> None:
        """Print something about a file, once."""
        if name not in self._told:
            self._told.add(name)
            print(text, flush=True)

    def write(self, record: Mapping[str, Any]) -> Path:
        """Write a record under the name of its settings, whole or not at all; return its path.

        `schema`, `key` and `checksum` are filled in here, and `code`, `versions` and `device` (from `provenance()`)
        where the record has none. NaN and infinities become null; a damaged record of that name is set aside. Raises
        BeftError: a required field is missing or of the wrong type, or the file cannot be written.
        """
        if not isinstance(record, Mapping):
            raise BeftError(f"{record!r} is no record: give its fields as a dict")
        full = {**provenance(), **record}
        full["schema"], full["key"] = SCHEMA, key(full.get("settings", {}))
        full["checksum"] = checksum(full)
        full = jsonable(full)
        if (fault := fault_of(full)) is not None:
            raise BeftError(f"a record of kind {full.get('kind')!r} was not written: {fault}")
        name = self.name(full["settings"])
        try:
            if name in self._damaged:
                self.place.set_aside(name)
                self._damaged.discard(name)
            self.place.write(name, json.dumps(full, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise BeftError(
                f"cannot write the record {self.place.address(name)}: {error.strerror or error}; free the disk or "
                "correct the folder's permissions and run the same command again (finished runs are kept)"
            ) from error
        self.written.add(full["key"])
        return self.folder / name
