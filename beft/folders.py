"""Where records are kept: a folder of this machine, or any URL that fsspec knows (s3://, gs://, memory://, ...)."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BeftError

WAITS = 2.0  # seconds after which it is said that another sweep is waited for


class Folder:
    """A folder of this machine, or of one that all machines see.

    Attributes:
        location: what another process gives to `open_folder` to get the same folder.
        local: where checkpoints are, and adapters on their way; here the folder itself.
    """

    def __init__(self, path: str | Path) -> None:
        self.local = Path(path)

    @property
    def location(self) -> str:
        return str(self.local.expanduser().resolve())

    def names(self) -> list[str]:
        """Names of the records, sorted."""
        return sorted(path.name for path in self.local.glob("*.json"))

    def full(self, name: str) -> str | Path:
        """Where a record is, for `Store.path` and for errors."""
        return self.local / name

    def has(self, name: str) -> bool:
        return (self.local / name).exists()

    def read(self, name: str) -> str:
        """Raises OSError, UnicodeDecodeError."""
        return (self.local / name).read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        """All of it or nothing. Raises OSError."""
        write_whole(self.local / name, text)

    def keep(self, folder: Path, name: str) -> None:
        """Move a finished folder to `name`; one that is there already is replaced."""
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        if target.exists():
            os.replace(target, old)
        os.replace(folder, target)
        shutil.rmtree(old, ignore_errors=True)

    def fetch(self, name: str) -> Path | None:
        """The folder `name` on this machine, or None."""
        return path if (path := self.local / name).is_dir() else None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One process at a time; the others wait, and say so after a while. A process that dies lets go."""
        from filelock import FileLock, Timeout

        path = self.local / "locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=WAITS)
        except Timeout:
            print(f"another sweep is training bank {name}: waiting for it", flush=True)
            lock.acquire()
        except (NotImplementedError, OSError):  # a file system without locks: both train, to the same records
            yield
            return
        try:
            yield
        finally:
            lock.release()


class RemoteFolder(Folder):
    """A folder behind a URL. Checkpoints stay on the machine that trains; records and adapters go to the URL."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self.files, self.root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BeftError(
                f"the results folder {url!r} cannot be used, {error}: install the package of that protocol or give "
                "another URL or folder"
            ) from error
        self.url = url.rstrip("/")
        cache = Path(os.environ.get("BEFT_HOME") or Path.home() / ".cache" / "beft").expanduser()
        super().__init__(cache / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:12])

    @property
    def location(self) -> str:
        return self.url

    def _at(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def names(self) -> list[str]:
        self.files.invalidate_cache()  # other machines write too
        if not self.files.exists(self.root):
            return []
        found = (path.rstrip("/").rsplit("/", 1)[-1] for path in self.files.ls(self.root, detail=False))
        return sorted(name for name in found if name.endswith(".json") and not name.startswith("."))

    def full(self, name: str) -> str | Path:
        return f"{self.url}/{name}"

    def has(self, name: str) -> bool:
        self.files.invalidate_cache()
        return bool(self.files.exists(self._at(name)))

    def read(self, name: str) -> str:
        return bytes(self.files.cat_file(self._at(name))).decode("utf-8")

    def write(self, name: str, text: str) -> None:
        # A temporary name and a move: where objects appear whole anyway that is one copy more, elsewhere it is needed.
        temporary = self._at(f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        self.files.makedirs(self.root, exist_ok=True)
        try:
            self.files.pipe_file(temporary, text.encode("utf-8"))
            self.files.mv(temporary, self._at(name))
        finally:
            if self.files.exists(temporary):
                self.files.rm_file(temporary)

    def keep(self, folder: Path, name: str) -> None:
        super().keep(folder, name)
        self.files.makedirs(self._at(name), exist_ok=True)
        for path in (self.local / name).iterdir():
            self.files.put_file(str(path), self._at(f"{name}/{path.name}"))

    def fetch(self, name: str) -> Path | None:
        here = super().fetch(name)
        if here is None and self.files.exists(self._at(name)):
            partial = self.local / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
            partial.mkdir(parents=True)
            for path in self.files.ls(self._at(name), detail=False):
                self.files.get_file(path, str(partial / path.rsplit("/", 1)[-1]))
            super().keep(partial, name)
            here = super().fetch(name)
        return here

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Object stores have no locks: two sweeps may train the same bank, to the same records."""
        yield


def open_folder(where: str | Path) -> Folder:
    """A `Folder`, or a `RemoteFolder` of a text with "://". Raises BeftError for a URL that cannot be used."""
    return RemoteFolder(where) if isinstance(where, str) and "://" in where else Folder(where)


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
