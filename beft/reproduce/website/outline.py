"""The headings of a page: their anchors, its table of contents, and its sections for the search."""

import re
from dataclasses import dataclass, field

from bs4 import BeautifulSoup
from bs4.element import NavigableString, Tag
from markupsafe import Markup

_HEADING = re.compile(r"h[1-6]")


@dataclass(frozen=True)
class Heading:
    """A heading: its level from 1, its anchor, and what it says, as HTML and as text."""

    level: int
    anchor: str
    html: Markup
    text: str


@dataclass
class Section:
    """The text between one heading and the next; before the first heading the title is empty."""

    anchor: str = ""
    title: str = ""
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its words, with single spaces."""
        return " ".join(" ".join(self.words).split())


@dataclass(frozen=True)
class Outline:
    """A page's HTML with an anchor at every heading, and what was found in it."""

    html: Markup
    headings: list[Heading]
    sections: list[Section]
    links: list[str]
    anchors: set[str]

    @property
    def title(self) -> str:
        """The text of its first heading, or nothing."""
        return self.headings[0].text if self.headings else ""


def outline(html: str) -> Outline:
    """A page's HTML with anchors, made as GitHub makes them, and with tables in frames that scroll sideways."""
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "table", "tabindex": "0"}))
        for cell in table.find_all("td"):
            cell["class"] = width_of(cell.get_text())
    headings: list[Heading] = []
    taken: set[str] = {str(tag["id"]) for tag in soup.find_all(id=True)}
    for tag in soup.find_all(_HEADING):
        text = " ".join(_text(tag).split())
        anchor = _free(_slug(text), taken)
        taken.add(anchor)
        tag["id"] = anchor
        inner = BeautifulSoup(tag.decode_contents(), "html.parser")
        for link in inner.find_all("a"):  # a link in a table of contents leads to the heading, nowhere else
            link.unwrap()
        headings.append(Heading(int(tag.name[1]), anchor, Markup(str(inner)), text))  # noqa: S704 - of the page
    links = [str(link["href"]) for link in soup.find_all("a", href=True)]
    return Outline(Markup(str(soup)), headings, _sections(soup), links, taken)  # noqa: S704 - of the page


def width_of(text: str) -> str:
    """The class of a table's cell: "short" is never broken into lines, "long" is never narrow."""
    return "short" if len(text) <= 24 else "long" if len(text) > 60 else ""


def _slug(text: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") or "section"


def _free(anchor: str, taken: set[str]) -> str:
    """An anchor that is not taken: with -1, -2, ... behind it where it is."""
    count, tried = 0, anchor
    while tried in taken:
        count += 1
        tried = f"{anchor}-{count}"
    return tried


def _text(tag: Tag) -> str:
    """The text of a tag, in which a formula is its TeX."""
    return "".join(_pieces(tag))


def _pieces(tag: Tag) -> list[str]:
    if tag.name == "math":
        return [str(tag.get("alttext", ""))]
    texts = []
    for child in tag.children:
        if isinstance(child, Tag):
            texts += _pieces(child)
        elif type(child) is NavigableString:  # neither a comment nor a declaration
            texts.append(str(child))
    return texts


def _sections(soup: BeautifulSoup) -> list[Section]:
    sections = [Section()]
    _collect(soup, sections)
    return [section for section in sections if section.title or section.text]


def _collect(tag: Tag, sections: list[Section]) -> None:
    """Add the text of a tag to the last of the sections, and begin one at each heading."""
    if _HEADING.fullmatch(tag.name):
        sections.append(Section(str(tag["id"]), " ".join(_text(tag).split())))
        return
    if tag.name == "math":
        sections[-1].words.append(_text(tag))
        return
    for child in tag.children:
        if isinstance(child, Tag):
            _collect(child, sections)
        elif type(child) is NavigableString:
            sections[-1].words.append(str(child))
