"""Whether a notebook has to run again: not where all that it is made from, and all that it made, is as it was.

Asked of a profile that reads nothing but what this machine and checked packages hold (`offline`), without parameters.
The stamp of a run lies beside the executed notebook. A notebook on the records of benchmarks always runs.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import paths
from ..records.folders import write_whole
from ..records.provenance import versions
from ..settings.profiles import read_profile
from .notebooks import read


def made_from(source: Path, profile: str) -> str:
    """SHA-256 (hex) of what a notebook is made from.

    Over its cells; the profile, with size and time of the files that it names; the package and the models of the
    repository; where data sets are looked for (BEFT_DATA, not what is in there); the versions and the processors.
    """
    parts: list[Any] = [[cell.cell_type, cell.source] for cell in read(source).cells]
    parts += [read_profile(profile), versions(), os.environ.get("BEFT_DATA")]
    parts += [[str(file), *_state(file)] for file in _named(read_profile(profile))]
    parts.append(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    whole = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    kinds = {"beft": ("*.py", "*.json"), "data/models": ("*.json", "*.safetensors")}
    for file in sorted(p for place, own in kinds.items() for kind in own for p in (paths.ROOT / place).rglob(kind)):
        whole.update(file.relative_to(paths.ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return whole.hexdigest()


def _named(value: Any) -> Iterator[Path]:
    """The files that texts in a profile name, and those in the folders that they name, such as rows of one's own."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _named(part)
    elif isinstance(value, str):
        with suppress(OSError, RuntimeError, ValueError):  # too long for a name, no such user
            path = Path(value).expanduser()
            yield from filter(Path.is_file, sorted(path.rglob("*")) if path.is_dir() else [path])


def _state(file: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns


def write_stamp(source: Path, profile: str, figures: Path, runs: int, origin: str) -> None:
    """Write what a finished notebook made, and `origin`, its `made_from` before it ran.

    Args:
        figures: the folder of its figures and tables.
        runs: the number of runs behind it.
    """
    made = _entries(figures, source.stem)
    files = [figures / file for entry in made for file in entry.get("files", [])]
    files.append(paths.home() / "build" / profile / source.name)
    stamp = {
        "made_from": origin,
        "files": {file.relative_to(paths.home()).as_posix(): _hash(file) for file in files},
        "records": sorted({key for entry in made for key in entry.get("records", [])}),
        "runs": runs,
    }
    write_whole(_stamp(source, profile), json.dumps(stamp, indent=1) + "\n")


def runs_of_unchanged(source: Path, profile: str) -> int | None:
    """The number of runs behind a notebook that need not run again; None where it has to."""
    place = paths.results(profile)
    if not isinstance(place, Path):  # behind a URL, where others may change it
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        stamp = json.loads(_stamp(source, profile).read_text(encoding="utf-8"))
        there = {p.stem.rpartition("-")[2] for p in place.glob("*.json")}
        if stamp["made_from"] == made_from(source, profile) and there.issuperset(stamp["records"]):
            if all(_hash(paths.home() / file) == known for file, known in stamp["files"].items()):
                return int(stamp["runs"])
    return None


def _stamp(source: Path, profile: str) -> Path:
    return paths.home() / "build" / profile / f"{source.stem}.stamp.json"


def _entries(figures: Path, notebook: str) -> Iterable[dict[str, Any]]:
    """The entries of a notebook in the index of figures and tables."""
    index = figures / "index.json"
    every = json.loads(index.read_text(encoding="utf-8")) if index.exists() else []
    return [entry for entry in every if entry["notebook"] == notebook]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
