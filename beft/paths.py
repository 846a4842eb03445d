"""Where things are: the package, its repository, what a run writes, and the user's cache."""

import os
import shutil
from pathlib import Path

import platformdirs

from .errors import BeftError, reason_of

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the package `beft`: of a clone, its root."""
_POSIX = hasattr(os, "pathconf")


def repository() -> Path:
    """The folder that holds `notebooks/profiles`: around this package, or the working folder or one above it.

    Raises BeftError: there is none, as when the package was installed without its repository.
    """
    try:
        here = [Path.cwd()]
    except OSError:  # the working folder was deleted
        here = []
    for folder in (ROOT, *here, *(parent for path in here for parent in path.parents)):
        if (folder / "notebooks" / "profiles").is_dir():
            return folder
    where = here[0] if here else "the working folder, which is gone"
    raise BeftError(
        f"notebooks/profiles was not found around the package or above {where}: run from inside a clone of the "
        "repository, or install it with `pip install -e .`"
    )


def home() -> Path:
    """The folder under which build/, data/results/ and figures/ are written: $BEFT_HOME, or the repository.

    Raises BeftError: BEFT_HOME names no folder, or is not set, and there is no repository.
    """
    return _chosen("BEFT_HOME") or repository()


def results(profile: str) -> str | Path:
    """Where the records of a profile are: below $BEFT_RESULTS, a folder or an fsspec URL, or below data/results.

    Raises BeftError: as `home`; BEFT_RESULTS names no folder; `profile` is no name.
    """
    if not isinstance(profile, str) or not profile.strip() or {"/", "\\", "\0"} & set(profile):
        raise BeftError(f"profile {profile!r} is no name: give one like 'laptop'")
    place = os.environ.get("BEFT_RESULTS", "").rstrip("/")
    if "://" in place:
        return f"{place}/{profile}"
    return (_chosen("BEFT_RESULTS") or home() / "data" / "results") / profile


def cache() -> Path:
    """The folder of files that can be fetched again: $BEFT_CACHE, $BEFT_HOME, or the user's cache folder.

    Raises BeftError: BEFT_CACHE or BEFT_HOME names no folder.
    """
    return _chosen("BEFT_CACHE") or _chosen("BEFT_HOME") or user_cache()


def caches() -> list[Path]:
    """The folders in which what was once fetched or made is looked for, that of `cache` first.

    Another BEFT_HOME does not hide what is in the user's cache; BEFT_CACHE does. Raises BeftError: as `cache`.
    """
    others = [] if os.environ.get("BEFT_CACHE") else [user_cache()]
    return list(dict.fromkeys([cache(), *others]))


def user_cache() -> Path:
    """The user's cache folder on this platform."""
    return platformdirs.user_cache_path("beft", appauthor=False, opinion=False)


def _chosen(variable: str) -> Path | None:
    """The folder that an environment variable names, absolute, or None where it is not set."""
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        path = Path(value).expanduser().resolve()
        fault = _fault(path)
    except (OSError, RuntimeError, ValueError) as error:  # no such user, links in a circle
        fault = reason_of(error)
    if fault is not None:
        raise BeftError(f"{variable} is {value!r}, {fault}: name a folder, or unset it")
    return path


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def check_folder(folder: object, what: str) -> Path:
    """`folder` as a path, where it is or can become a folder in which files can be written; nothing is made.

    What only the first write shows (a quota, a file system that does not tell rights) is let through.

    Args:
        what: the folder in words for the error, e.g. "adapter folder".

    Raises BeftError: no path; a file, or below one; a name that is too long; no right to write; a full disk.
    """
    if not isinstance(folder, str | os.PathLike) or not isinstance(os.fspath(folder), str) or not str(folder).strip():
        raise BeftError(f"{what} {folder!r} is no path: give the path of a folder")
    try:
        path = Path(folder).absolute()
        fault = _fault(path) or _unwritable(path)
    except (OSError, RuntimeError, ValueError) as error:
        fault = (error.strerror if isinstance(error, OSError) else None) or reason_of(error)
    if fault is not None:
        raise BeftError(f"{what} {str(folder)!r} cannot be used, {fault}: give another, or correct this one")
    return Path(folder)


def _fault(path: Path) -> str | None:
    """Why an absolute path cannot be a folder, or None. Raises OSError or ValueError."""
    there = _nearest(path)
    if not there.is_dir():
        return f"{there} is not a folder"
    if "\0" in str(path):
        return "there is a byte of zero in it"
    name, whole = (os.pathconf(there, limit) for limit in ("PC_NAME_MAX", "PC_PATH_MAX")) if _POSIX else (255, 32767)
    if any(len(os.fsencode(part)) > name for part in path.parts) or len(os.fsencode(path)) >= whole:
        return "its name is too long"
    return None


def _unwritable(path: Path) -> str | None:
    """Why no file can be written in a folder, there or still to be made, or None. Raises OSError."""
    there = _nearest(path)
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} cannot be written (read-only, or without permission)"
    disk = shutil.disk_usage(there)
    return "no space is left on its disk" if disk.total and not disk.free else None
