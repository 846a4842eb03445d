"""The pages of a made site as a test reads them: their tags, and where their links and files lead."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


@dataclass
class Page(HTMLParser):
    """The tags of one page: (name, attributes), its ids, and the text of its scripts and styles."""

    address: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        self.ids |= {attributes["id"]} if "id" in attributes else set()

    def loaded(self) -> list[str]:
        """What a browser fetches for this page by itself."""
        return [attributes[LOADED[tag]] for tag, attributes in self.tags if LOADED.get(tag) in attributes]

    def links(self) -> list[str]:
        return [attributes["href"] for tag, attributes in self.tags if tag == "a" and "href" in attributes]


def read_site(folder: Path) -> dict[str, Page]:
    """Every page of a site by its address."""
    pages = {}
    for path in sorted(folder.rglob("*.html")):
        page = Page(path.relative_to(folder).as_posix())
        page.feed(path.read_text(encoding="utf-8"))
        pages[page.address] = page
    return pages


def lost(folder: Path, pages: dict[str, Page]) -> list[str]:
    """The links and files that lead nowhere, each as "page: link"."""
    found = []
    for page in pages.values():
        for link in [*page.links(), *page.loaded()]:
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = page.address
            if path:
                target = posixpath.normpath(posixpath.join(posixpath.dirname(page.address), unquote(path)))
            there = not path.startswith("/") and (folder / target).is_file()
            if not there or (anchor and anchor not in pages[target].ids):
                found.append(f"{page.address}: {link}")
    return found
