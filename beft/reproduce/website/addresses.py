"""Where each file of the repository is on the site, and which further files its pages link to."""

import os
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from ...errors import BeftError

IMAGES = frozenset({".png", ".svg", ".jpg", ".jpeg", ".gif", ".webp"})
_ELSEWHERE = re.compile(r"(https?|mailto):", re.IGNORECASE)


class Addresses:
    """The address of each file: "notebooks/a.ipynb" is at "notebooks/a.html".

    A file that a page links to and that has no address yet gets one below files/, and is listed to be made.

    Args:
        repository: the folder that links are relative to.
        pages: path in the repository -> address of its page, for links.
        images: path in the repository -> address, for images that are shown.

    Attributes:
        pages, images: the same, grown by what was linked to.
        linked: paths of the repository that were linked to and have no page of their own, in the order met.
    """

    def __init__(self, repository: Path, pages: Mapping[str, str], images: Mapping[str, str]) -> None:
        self.repository = repository
        self.pages, self.images = dict(pages), dict(images)
        self.linked: list[str] = []

    def link(self, url: str, source: str, page: str) -> str:
        """The address of a link, relative to the page.

        Args:
            url: as it is written, e.g. "../README.md#speed".
            source: the file in which it is written, relative to the repository.
            page: the address of the page on which it will stand.

        Raises BeftError: it leads to no file of the repository.
        """
        if _ELSEWHERE.match(url) or url.startswith("#"):
            return url
        path, fragment = self._path(url, source)
        if path == "." or path not in self.pages:
            self._add(path, url, source)
        address = self.pages[path]
        return relative(address, page) + (f"#{fragment}" if fragment and "#" not in address else "")

    def image(self, url: str, source: str, page: str) -> str | None:
        """The address of an image, relative to the page; None for one of another host, which is not shown offline.

        Raises BeftError: there is no such image in the repository.
        """
        if _ELSEWHERE.match(url):
            return None
        path, _ = self._path(url, source)
        if path not in self.images:
            if Path(path).suffix.lower() not in IMAGES or not (self.repository / path).is_file():
                raise _lost("shows the image", url, source)
            self.images[path] = f"files/{path}"
        return relative(self.images[path], page)

    def _path(self, url: str, source: str) -> tuple[str, str]:
        """The path in the repository that a link leads to, and the fragment behind it."""
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or parts.path.startswith("/"):
            raise _lost("links to", url, source)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(parts.path)))
        if path.startswith(".."):
            raise _lost("links to", url, source)
        return path, parts.fragment

    def _add(self, path: str, url: str, source: str) -> None:
        place = self.repository / path
        if place.is_dir():
            self.pages[path] = posixpath.normpath(f"files/{path}/index.html")
        elif place.is_file():
            self.pages[path] = f"files/{path}.html"
        else:
            raise _lost("links to", url, source)
        self.linked.append(path)


def _lost(verb: str, url: str, source: str) -> BeftError:
    return BeftError(f"{source} {verb} {url!r}, which is no file of the repository: correct it, or add the file")


def relative(address: str, page: str) -> str:
    """An address of the site as a link from a page of it, with what a URL cannot hold escaped."""
    path, mark, fragment = address.partition("#")
    return quote(os.path.relpath(path, posixpath.dirname(page) or ".").replace(os.sep, "/")) + mark + fragment
