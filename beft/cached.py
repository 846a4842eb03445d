"""Folders that are made once and kept in a cache: whole or not at all, by one process at a time."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from .errors import BeftError

MADE = "made"
"""The folder in its scratch folder that `make` of `make_folder` makes."""


def make_folder(target: Path, make: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> None:
    """Let `make` fill a scratch folder beside `target`, and put what it leaves in MADE in the place of `target`.

    Two processes at once are fine: one makes it, the other finds it. What an interrupted `make` left is deleted, by the
    next call where the process was killed. Raises whatever `make` raises, and OSError.

    Args:
        is_whole: whether `target`, which is there, can stay as it is.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if target.is_dir() and is_whole(target):
            return
        for left in target.parent.glob(f".{target.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
            Path(scratch, MADE).mkdir(mode=0o755)
            make(Path(scratch))
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(Path(scratch, MADE), target)


def sha256_of(path: Path) -> str:
    """sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_room(needed: int, where: Path, what: str) -> None:
    """Raise BeftError where the disk of a folder, which is there, has not `needed` bytes left."""
    if shutil.disk_usage(where).free < needed:
        raise no_room(needed, where, what)


def no_room(needed: int, where: Path, what: str) -> BeftError:
    """The error for a full disk."""
    return BeftError(
        f"there is no room for {what} on the disk of {where}: free {megabytes(needed)} there, or choose another folder "
        "with BEFT_CACHE"
    )


def megabytes(count: int) -> str:
    """Bytes in words: "94 MB", at least one."""
    return f"{max(1, round(count / 1e6)):,} MB"
