"""A folder of this machine that holds records: atomic writes, locks, and errors that name it."""

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

WAITS = 2.0  # seconds of waiting for another sweep before a message says so

P = ParamSpec("P")
T = TypeVar("T")


def explain_os_errors(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Let a method of a folder raise a BeftError that names the folder in the place of an OSError."""

    @functools.wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except OSError as error:
            raise BeftError(
                f"the results folder {self.label} cannot be used, {error.strerror or error}: correct its address or "
                "permissions, or free its disk, and run the same command again (finished runs are kept)"
            ) from error

    return call


class Folder:
    """A folder of this machine, perhaps on a file system that other machines share.

    Attributes:
        location: what another process gives to `Store` for the same folder.
        local: the folder of checkpoints, and of adapters before they are kept; here the folder itself.
        label: the location as messages name it, without a password.

    Raises:
        BeftError: in every method but `read` and `write`, the folder cannot be reached or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.local = Path(path)
        self.label = str(path)

    @property
    def location(self) -> str:
        return str(self.local.expanduser().resolve())

    @explain_os_errors
    def names(self) -> list[str]:
        """Names of the records, sorted."""
        return sorted(path.name for path in self.local.glob("*.json"))

    def address(self, name: str) -> str:
        """The path or URL of a record, as messages name it."""
        return str(self.local / name)

    @explain_os_errors
    def has(self, name: str) -> bool:
        """Whether there is a record of that name."""
        return (self.local / name).exists()

    def read(self, name: str) -> str:
        """The text of a record. Raises OSError or UnicodeDecodeError."""
        return (self.local / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """Write a record, whole or not at all. Raises OSError."""
        write_whole(self.local / name, text)

    @explain_os_errors
    def keep(self, folder: Path, name: str) -> None:
        """Move a finished folder to `name`, in the place of one that is there already."""
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

    @explain_os_errors
    def fetch(self, name: str) -> Path | None:
        """The folder `name` on this machine, or None."""
        return path if (path := self.local / name).is_dir() else None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the others wait, with a message. The lock of a process that dies is released.

        On a file system without locks no process waits: both train, and write the same records.
        """
        lock = self._locked(name)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    @explain_os_errors
    def _locked(self, name: str) -> Any:
        """A lock that this process holds, or None where there are no locks."""
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
