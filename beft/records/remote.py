"""A folder of records behind a URL that fsspec knows: s3://, gs://, memory://, ..."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..paths import cache
from .folders import Folder, told

LAST = ".complete"  # written after the files: a folder that has it has them all


class RemoteFolder(Folder):
    """A folder behind a URL. Checkpoints stay on the machine that trains; records and adapters go to the URL."""

    def __init__(self, url: str, files: Any, root: str) -> None:
        self.url = re.sub(r"(?<![/:])/+$", "", url)  # but not the slashes of "memory://"
        super().__init__(cache() / "remote" / hashlib.sha256(self.url.encode()).hexdigest()[:12])
        self.shown, self.files, self.root = shown(self.url), files, root.rstrip("/")

    @property
    def location(self) -> str:
        return self.url

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the file system; the many errors of the packages behind it become OSError."""
        try:
            return getattr(self.files, method)(*args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"

    @told
    def names(self) -> list[str]:
        self._ask("invalidate_cache")  # other machines write too
        if not self._ask("exists", self.root):
            return []
        found = (path.rstrip("/").rsplit("/", 1)[-1] for path in self._ask("ls", self.root, detail=False))
        return sorted(name for name in found if name.endswith(".json") and not name.startswith("."))

    def full(self, name: str) -> str:
        return f"{self.shown}/{name}"

    @told
    def has(self, name: str) -> bool:
        self._ask("invalidate_cache")
        return bool(self._ask("exists", self._at(name)))

    def read(self, name: str) -> str:
        return bytes(self._ask("cat_file", self._at(name))).decode("utf-8")

    def write(self, name: str, text: str) -> None:
        from fsspec import AbstractFileSystem

        content = text.encode("utf-8")
        self._ask("makedirs", self.root, exist_ok=True)
        if type(self.files).mv is AbstractFileSystem.mv:
            # No rename of its own, which is so of object stores: they show an object when all of it has arrived, and
            # a move would be a copy and a deletion, with more that can fail in between.
            self._ask("pipe_file", self._at(name), content)
            return
        # A file system with a rename shows a file while it grows.
        temporary = self._at(f".{name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self._ask("pipe_file", temporary, content)
            self._ask("mv", temporary, self._at(name))
        except BaseException:
            with suppress(OSError):  # of what went wrong the first is told
                self._ask("rm_file", temporary)
            raise

    @told
    def keep(self, folder: Path, name: str) -> None:
        self._ask("makedirs", self._at(name), exist_ok=True)
        for path in sorted(folder.iterdir()):
            self._ask("put_file", str(path), self._at(f"{name}/{path.name}"))
        self._ask("pipe_file", self._at(f"{name}/{LAST}"), b"")
        super().keep(folder, name)

    @told
    def fetch(self, name: str) -> Path | None:
        here = super().fetch(name)
        if here is not None or not self.has(f"{name}/{LAST}"):
            return here
        partial = self.local / f"{name}.{uuid.uuid4().hex[:8]}.tmp"
        partial.mkdir(parents=True)
        try:
            for path in self._ask("ls", self._at(name), detail=False):
                file = path.rsplit("/", 1)[-1]
                if file != LAST:
                    self._ask("get_file", path, str(partial / file))
            super().keep(partial, name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return super().fetch(name)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Object stores have no locks: two sweeps may train the same bank, to the same records."""
        yield


def shown(url: str) -> str:
    """A URL without the password it may hold."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", url)
