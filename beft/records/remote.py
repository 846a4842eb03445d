"""A folder of records behind a URL that fsspec knows: s3://, gs://, memory://, ..."""

import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..paths import cache
from .folders import Folder, explain_os_errors

COMPLETE = ".complete"  # written after the other files of a folder


class RemoteFolder(Folder):
    """A folder behind a URL. Records and adapters go to the URL; checkpoints stay on the machine that trains.

    Args:
        url: as the user gave it.
        files: its fsspec file system.
        root: its path in that file system.
    """

    def __init__(self, url: str, files: Any, root: str) -> None:
        self.url = re.sub(r"(?<![/:])/+$", "", url)  # but not the slashes of "memory://"
        super().__init__(cache() / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:12])
        self.label, self.files, self.root = redacted(self.url), files, root.rstrip("/")

    @property
    def location(self) -> str:
        return self.url

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the file system; the errors of the package behind it become OSError."""
        try:
            return getattr(self.files, method)(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

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
        return bool(self._call("exists", self._at(name)))

    def read(self, name: str) -> str:
        return bytes(self._call("cat_file", self._at(name))).decode("utf-8")

    def write(self, name: str, text: str) -> None:
        from fsspec import AbstractFileSystem

        content = text.encode("utf-8")
        self._call("makedirs", self.root, exist_ok=True)
        if type(self.files).mv is AbstractFileSystem.mv:
            # Object stores have no rename: an object appears when all of it has arrived, and a move would be a copy
            # and a deletion.
            self._call("pipe_file", self._at(name), content)
            return
        # On a file system with a rename, a file is visible while it grows.
        temporary = self._at(f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._call("pipe_file", temporary, content)
            self._call("mv", temporary, self._at(name))
        except BaseException:
            with suppress(OSError):  # the first error is the one to raise
                self._call("rm_file", temporary)
            raise

    @explain_os_errors
    def keep(self, folder: Path, name: str) -> None:
        self._call("makedirs", self._at(name), exist_ok=True)
        for path in sorted(folder.iterdir()):
            self._call("put_file", str(path), self._at(f"{name}/{path.name}"))
        self._call("pipe_file", self._at(f"{name}/{COMPLETE}"), b"")
        super().keep(folder, name)

    @explain_os_errors
    def fetch(self, name: str) -> Path | None:
        here = super().fetch(name)
        if here is not None or not self.has(f"{name}/{COMPLETE}"):
            return here
        partial = self.local / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        partial.mkdir(parents=True)
        try:
            for path in self._call("ls", self._at(name), detail=False):
                file = path.rsplit("/", 1)[-1]
                if file != COMPLETE:
                    self._call("get_file", path, str(partial / file))
            super().keep(partial, name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return super().fetch(name)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """No lock, as object stores have none: two sweeps may train the same bank, and write the same records."""
        yield


def redacted(url: str) -> str:
    """A URL without the password it may hold."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)
