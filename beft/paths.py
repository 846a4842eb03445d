"""Where things are: the package, its repository, what a run writes, and the user's cache."""

import os
from pathlib import Path

import platformdirs

from .errors import BeftError

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the package `beft`: of a clone, its root."""


def repository() -> Path:
    """The folder that holds `notebooks/profiles`: around this package, or the working folder or one above it.

    Raises BeftError: there is none, as when the package was installed without its repository.
    """
    here = Path.cwd()
    for folder in (ROOT, here, *here.parents):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder
    raise BeftError(
        f"notebooks/profiles was not found around the package or above {here}: run from inside a clone of the "
        "repository, or install it with `pip install -e .`"
    )


def home() -> Path:
    """The folder under which build/, data/results/ and figures/ are written: $BEFT_HOME, or the repository.

    Raises BeftError: BEFT_HOME is not set, and there is no repository.
    """
    return _chosen_home() or repository()


def results(profile: str) -> str | Path:
    """Where the records of a profile are: below $BEFT_RESULTS, a folder or an fsspec URL, or below data/results.

    Raises BeftError: as `home`, where BEFT_RESULTS is not set.
    """
    place = os.environ.get("BEFT_RESULTS", "").rstrip("/")
    if "://" in place:
        return f"{place}/{profile}"
    return (Path(place).expanduser() if place else home() / "data" / "results") / profile


def cache() -> Path:
    """The folder of files that can be fetched again: $BEFT_HOME, or the user's cache folder on this platform."""
    return _chosen_home() or platformdirs.user_cache_path("beft", appauthor=False, opinion=False)


def writable(folder: str | Path) -> Path:
    """A folder that is there or can be made. Raises BeftError: a file is in its place, or it cannot be written."""
    path = Path(folder).expanduser()
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise BeftError(f"cannot write the folder {path}, {nearest} is a file: give another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise BeftError(f"cannot write the folder {path}, {nearest} cannot be written: give another folder")
    return path


def _chosen_home() -> Path | None:
    """$BEFT_HOME as an absolute path, or None where it is not set."""
    value = os.environ.get("BEFT_HOME")
    return Path(value).expanduser().resolve() if value else None
