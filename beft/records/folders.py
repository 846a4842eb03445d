"""Where records are kept: a folder of this machine, or (`remote`) any URL that fsspec knows."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ..errors import BeftError

WAITS = 2.0  # seconds after which it is said that another sweep is waited for

P = ParamSpec("P")
T = TypeVar("T")


def told(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """An OSError of a method of a folder as one sentence that names the folder."""

    @functools.wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            raise BeftError(
                f"the results folder {self.shown} cannot be used, {error.strerror or error}: correct its address or "
                "permissions, or free its disk, and run the same command again (finished runs are kept)"
            ) from error

    return call


class Folder:
    """A folder of this machine, or of one that all machines see.

    Attributes:
        location: what another process gives to `open_folder` to get the same folder.
        local: where checkpoints are, and adapters on their way; here the folder itself.
        shown: the location as messages show it.

    Raises:
        BeftError: in every method but `read` and `write`, the folder cannot be reached or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.local = Path(path)
        self.shown = str(path)

    @property
    def location(self) -> str:
        return str(self.local.expanduser().resolve())

    @told
    def names(self) -> list[str]:
        """Names of the records, sorted."""
        return sorted(path.name for path in self.local.glob("*.json"))

    def full(self, name: str) -> str:
        """Where a record is, as messages show it."""
        return str(self.local / name)

    @told
    def has(self, name: str) -> bool:
        return (self.local / name).exists()

    def read(self, name: str) -> str:
        """Raises OSError, UnicodeDecodeError."""
        return (self.local / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """All of it or nothing. Raises OSError."""
        write_whole(self.local / name, text)

    @told
    def keep(self, folder: Path, name: str) -> None:
        """Move a finished folder to `name`; one that is there already is replaced."""
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        for attempt in range(10):
            try:
                os.replace(folder, target)  # a folder only takes the place of an empty one or of none
                break
            except OSError as error:
                if attempt == 9 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                    raise
            try:
                os.replace(target, old)
            except FileNotFoundError:
                pass  # another process, where there are no locks, is replacing it at the same moment
            shutil.rmtree(old, ignore_errors=True)

    @told
    def fetch(self, name: str) -> Path | None:
        """The folder `name` on this machine, or None."""
        return path if (path := self.local / name).is_dir() else None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the others wait, and say so after a while. A process that dies lets go.

        On a file system without locks nobody waits: both train, to the same records.
        """
        lock = self._locked(name)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    @told
    def _locked(self, name: str) -> Any:
        """A lock that is held, or None where there are no locks."""
        from filelock import FileLock, Timeout

        path = self.local / "locks" / f"{name}.lock"
        # What cannot be written fails here, before the training.
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            try:
                lock.acquire(timeout=WAITS)
            except Timeout:
                print(f"another sweep is training bank {name}: waiting for it", flush=True)
                lock.acquire()
        except (NotImplementedError, OSError):
            return None
        return lock


def open_folder(where: str | Path) -> Folder:
    """A `Folder`, or a `RemoteFolder` of a text with "://". Raises BeftError for a URL that cannot be used."""
    if not isinstance(where, str) or "://" not in where:
        return Folder(where)
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    from .remote import RemoteFolder, shown

    try:
        files, root = fsspec.core.url_to_fs(where)
    except Exception as error:  # of the URL, of a missing package, or of a server, as each package calls it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BeftError(
            f"the results folder {shown(where)!r} cannot be used, {reason}: install the package of that protocol or "
            "give another URL or folder"
        ) from error
    # file:// is a folder of this machine like any other, with its locks and renames.
    return Folder(root) if type(files) is LocalFileSystem else RemoteFolder(where, files, root)


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that `path` never holds a part of it: temporary name, flush to disk, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system; not *.json, so no reader sees it.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
