"""The figures and tables of a profile as its index lists them: files, captions, commands and records."""

import csv
import json
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BeftError, reason_of

_FIELDS = {"name": str, "kind": str, "notebook": str, "caption": str, "command": str, "files": list, "records": list}
ADDRESS = "figures.html"


@dataclass(frozen=True)
class Entry:
    """A figure or table of the index.

    Attributes:
        kind: "figure" or "table".
        files: the names of its files, the one that is shown first.
        records: the keys of the records behind it.
        size: width and height of a figure in pixels.
        rows: the rows of a table, its header first.
    """

    name: str
    kind: str
    notebook: str
    caption: str
    command: str
    files: list[str]
    records: list[str]
    size: tuple[int, int] = (0, 0)
    rows: tuple[tuple[str, ...], ...] = ()

    @property
    def anchor(self) -> str:
        """Its place on the page of all figures and tables."""
        return f"{self.kind}-{self.name}"

    @property
    def address(self) -> str:
        """That place as an address of the site."""
        return f"{ADDRESS}#{self.anchor}"


def read_index(folder: Path, profile: str, keys: Collection[str]) -> list[Entry]:
    """The entries of `index.json` in a folder of figures, in its order.

    Args:
        folder: figures/<profile>.
        profile: named in the remedies.
        keys: of the records that are there.

    Raises BeftError: there is no index, or it is damaged; a file or a record that it names is missing.
    """
    path, again = folder / "index.json", f"run `make reproduce PROFILE={profile}`, or restore figures/ with git"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BeftError(f"cannot read the index of figures {path}, {error.strerror or error}: {again}") from error
    except ValueError as error:
        raise BeftError(f"the index of figures {path} is not valid JSON: {again}") from error
    if not isinstance(content, list) or not all(_is_entry(entry) for entry in content):
        raise BeftError(f"the index of figures {path} is no list of figures and tables with all their fields: {again}")
    entries = []
    for fields in content:
        lost = [key for key in fields["records"] if key not in keys]
        if lost:
            raise BeftError(f"the record {lost[0]} behind the {fields['kind']} {fields['name']} is missing: {again}")
        try:
            entries.append(_entry(fields, folder))
        except (OSError, ValueError, struct.error) as error:
            what = f"the {fields['kind']} {fields['name']} of {path} cannot be shown"
            raise BeftError(f"{what}, {reason_of(error)}: {again}") from error
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in _FIELDS.items()):
        return False
    names = [*entry["files"], *entry["records"]]
    plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    return plain and entry["kind"] in ("figure", "table")


def _entry(fields: dict[str, Any], folder: Path) -> Entry:
    """An entry with its content. Raises OSError or ValueError where a file is missing or is not what it is called."""
    shown = ".png" if fields["kind"] == "figure" else ".csv"
    files = sorted(fields["files"], key=lambda name: not name.endswith(shown))
    if not files or not files[0].endswith(shown):
        raise ValueError(f"it has no {shown} file")
    for name in files:
        if not (folder / name).is_file():
            raise ValueError(f"the file {name} is missing")
    entry = Entry(**{name: fields[name] for name in _FIELDS} | {"files": files})
    if entry.kind == "figure":
        return Entry(**vars(entry) | {"size": _png_size(folder / files[0])})
    with open(folder / files[0], encoding="utf-8", newline="") as file:
        rows = tuple(tuple(row) for row in csv.reader(file))
    if not rows:
        raise ValueError(f"the file {files[0]} is empty")
    return Entry(**vars(entry) | {"rows": rows})


def _png_size(path: Path) -> tuple[int, int]:
    """Width and height, which a PNG file has behind its signature."""
    with open(path, "rb") as file:
        start = file.read(24)
    if start[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError(f"the file {path.name} is no PNG image")
    width, height = struct.unpack(">II", start[16:24])
    return width, height
