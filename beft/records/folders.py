"""Where records are: a folder of this machine, or one behind a URL that fsspec knows (s3://, gs://, memory://, ...).

Writes are atomic, a bank is locked while it is trained, and errors name the folder.
"""

import errno
import functools
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from safetensors import SafetensorError

from ..errors import BeftError, reason_of
from ..paths import cache

COMPLETE = ".complete"  # written after the other files of a folder behind a URL
WAITS = 2.0  # seconds of waiting for another sweep before a message says so

P = ParamSpec("P")
T = TypeVar("T")
Fault = Callable[[Path], str | None]
"""Why a folder of tensors cannot be used, in words, or None."""


def unchecked(folder: Path) -> None:
    """No fault is looked for."""


def _is_sound(folder: Path, name: str, fault: Fault) -> bool:
    """Whether a folder has no fault; one that has is named."""
    found = fault(folder)
    if found is not None:
        print(f"{name} in the results folder is damaged ({found}): it is made again", flush=True)
    return found is None


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Let an OSError, or a tensor file that cannot be written, end in a BeftError that names `what`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or reason_of(error)
        raise BeftError(
            f"{what} cannot be used, {reason}: correct its address or permissions, or free its disk, and run the same "
            "command again (finished runs are kept)"
        ) from error


def explain_os_errors(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Let a method of a folder raise a BeftError that names the folder in the place of an OSError."""

    @functools.wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.explained():
            return method(self, *args, **kwargs)

    return call


class Folder:
    """A folder of this machine, perhaps on a file system that other machines share.

    Attributes:
        local: the folder of checkpoints, and of adapters before they are kept; here the folder itself.
        label: the location as messages name it, without a password.
        location: what another process gives to `Store` for the same folder.

    Raises BeftError: in every method but `read` and `write`, the folder cannot be reached or written.
    """

    def __init__(self, path: str | Path) -> None:
        self.local = Path(path)
        self.label = str(path)
        try:
            self.location = str(self.local.expanduser().resolve())
        except (OSError, RuntimeError, ValueError) as error:  # no such user, links in a circle, a byte of zero
            raise BeftError(f"the results folder {str(path)!r} cannot be used, {reason_of(error)}: give another") from (
                error
            )

    def explained(self) -> AbstractContextManager[None]:
        """A context in which an OSError ends in a BeftError that names this folder."""
        return explained(f"the results folder {self.label}")

    @explain_os_errors
    def names(self) -> list[str]:
        """Names of the files *.json, sorted, but for hidden ones."""
        try:
            names = os.listdir(self.local)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if name.endswith(".json") and not name.startswith("."))

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

    def set_aside(self, name: str) -> None:
        """Rename what cannot be read as a record, so that a new one can be written. Raises OSError."""
        os.replace(self.local / name, self.local / _aside(name))

    @explain_os_errors
    def check_writable(self) -> None:
        """Nothing where records, checkpoints and adapters can be written, else a BeftError: before the training."""
        for folder in (self.local / "locks", self.local / "checkpoints", self.local / "adapters", self.local):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"0" * 4096)  # a block: an empty file needs none

    @explain_os_errors
    def keep(self, folder: Path, name: str) -> None:
        """Move a finished folder to `name`, in the place of one that is there already."""
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        old = _temporary(target)
        for attempt in range(10):
            try:
                os.replace(folder, target)  # a folder only takes the place of an empty one or of none
                break
            except OSError as error:
                if attempt == 9 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES, errno.ENOTDIR):
                    raise
            with suppress(FileNotFoundError):  # where there are no locks, another process may replace it at this moment
                os.replace(target, old)
            shutil.rmtree(old, ignore_errors=True)
            with suppress(OSError):  # a file in the place of a folder
                old.unlink()

    @explain_os_errors
    def fetch(self, name: str, fault: Fault = unchecked) -> Path | None:
        """The folder `name` on this machine, or None: there is none, or it has a `fault`, which is printed."""
        path = self.local / name
        return path if path.is_dir() and _is_sound(path, name, fault) else None

    @explain_os_errors
    def lock(self, name: str) -> AbstractContextManager[Any]:
        """One process at a time; the others wait, with a message. The lock of a process that dies is released.

        It is held from this call to the end of the `with`. On a file system without locks no process waits: both
        train, and write the same records.
        """
        from filelock import FileLock, Timeout

        self.check_writable()
        lock = FileLock(self.local / "locks" / f"{name}.lock")
        try:
            try:
                return lock.acquire(timeout=WAITS)
            except Timeout:
                print(f"another sweep is training bank {name}: waiting for it", flush=True)
                return lock.acquire()
        except (NotImplementedError, OSError):
            return nullcontext()


def write_whole(path: Path, text: str) -> None:
    """Write `text` to `path` so that `path` never holds a part of it: temporary name, flush to disk, rename.

    Half a character, which UTF-8 has not, becomes its escape.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """A name in the same folder, because a rename is atomic in one file system; not *.json, so no reader sees it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def _aside(name: str) -> str:
    """Where a damaged record goes; not *.json, so no reader sees it."""
    return f"{name}.{uuid.uuid4().hex[:8]}.damaged"


class RemoteFolder(Folder):
    """A folder behind a URL. Records and adapters go to the URL; checkpoints stay on the machine that trains.

    `url` is as the user gave it, `files` its fsspec file system, and `root` its path there.
    """

    def __init__(self, url: str, files: Any, root: str) -> None:
        location = re.sub(r"(?<![/:])/+$", "", url)  # but not the slashes of "memory://"
        super().__init__(cache() / "remote" / hashlib.sha256(location.encode()).hexdigest()[:12])
        self.location, self.label, self.files, self.root = location, redacted(location), files, root.rstrip("/")

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system; the errors of the package behind it become OSError."""
        try:
            return getattr(self.files, method)(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error

    @explain_os_errors
    def names(self) -> list[str]:
        self._call("invalidate_cache")  # other machines write too
        if not self._call("exists", self.root):
            return []
        names = (path.rstrip("/").rsplit("/", 1)[-1] for path in self._call("ls", self.root, detail=False))
        return sorted(name for name in names if name.endswith(".json") and not name.startswith("."))

    def address(self, name: str) -> str:
        return f"{self.label}/{name}"

    @explain_os_errors
    def has(self, name: str) -> bool:
        self._call("invalidate_cache")
        return bool(self._call("exists", f"{self.root}/{name}"))

    def read(self, name: str) -> str:
        return bytes(self._call("cat_file", f"{self.root}/{name}")).decode("utf-8")

    def write(self, name: str, text: str) -> None:
        from fsspec import AbstractFileSystem

        content, target = text.encode("utf-8"), f"{self.root}/{name}"
        self._call("makedirs", self.root, exist_ok=True)
        if type(self.files).mv is AbstractFileSystem.mv:
            # Object stores have no rename: an object appears when all of it has arrived, and a move would be a copy
            # and a deletion.
            self._call("pipe_file", target, content)
            return
        # On a file system with a rename, a file is visible while it grows.
        temporary = f"{self.root}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
        try:
            self._call("pipe_file", temporary, content)
            self._call("mv", temporary, target)
        except BaseException:
            with suppress(OSError):  # the first error is the one to raise
                self._call("rm_file", temporary)
            raise

    def set_aside(self, name: str) -> None:
        self._call("mv", f"{self.root}/{name}", f"{self.root}/{_aside(name)}", recursive=True)

    @explain_os_errors
    def check_writable(self) -> None:
        super().check_writable()
        probe = f"{self.root}/.writable"
        self._call("makedirs", self.root, exist_ok=True)
        self._call("pipe_file", probe, b"0")
        with suppress(OSError):  # a store that nothing may be deleted from
            self._call("rm_file", probe)

    @explain_os_errors
    def keep(self, folder: Path, name: str) -> None:
        target = f"{self.root}/{name}"
        self._call("makedirs", target, exist_ok=True)
        for path in sorted(folder.iterdir()):
            self._call("put_file", str(path), f"{target}/{path.name}")
        self._call("pipe_file", f"{target}/{COMPLETE}", b"")
        super().keep(folder, name)

    @explain_os_errors
    def fetch(self, name: str, fault: Fault = unchecked) -> Path | None:
        here = super().fetch(name, fault)
        if here is not None or not self.has(f"{name}/{COMPLETE}"):
            return here
        partial = self.local / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        partial.mkdir(parents=True)
        try:
            for path in self._call("ls", f"{self.root}/{name}", detail=False):
                file = path.rsplit("/", 1)[-1]
                if file != COMPLETE:
                    self._call("get_file", path, str(partial / file))
            if not _is_sound(partial, name, fault):
                return None
            super().keep(partial, name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return super().fetch(name)

    def lock(self, name: str) -> AbstractContextManager[Any]:
        """No lock, as object stores have none: two sweeps may train the same bank, and write the same records."""
        self.check_writable()
        return nullcontext()


def redacted(url: str) -> str:
    """A URL without the password it may hold."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)


def open_folder(where: str | Path) -> Folder:
    """A `Folder`, or a `RemoteFolder` of a text with "://".

    Raises BeftError for what is neither a path nor a URL, and for one that cannot be used.
    """
    if not isinstance(where, str | os.PathLike) or not isinstance(os.fspath(where), str) or not str(where).strip():
        raise BeftError(f"{where!r} is no results folder: give the path of a folder, or a URL")
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
