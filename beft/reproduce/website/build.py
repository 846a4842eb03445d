"""Making the site: what there is, page by page, into a folder of plain files."""

import json
import posixpath
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ... import paths
from ...errors import BeftError, unknown
from ...records.store import Store
from ...settings import profiles
from ..notebooks import Notebook, find
from . import gallery, record_pages
from .addresses import Addresses, relative
from .gallery import Entry
from .markdown import renderer
from .notebook_pages import notebook_page, read_executed
from .outline import Heading, Outline, Section, outline, width_of
from .record_pages import Row

PROFILE = "laptop"
"""The profile whose figures and records are committed, and whose outputs the notebooks are saved with."""
_HERE = Path(__file__).parent
_DOCUMENTS = ("CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")
_SITE_NAME = "beft"


@dataclass(frozen=True)
class Item:
    """A line of the navigation."""

    title: str
    address: str


@dataclass
class _Site:
    """The site as far as it is made: its folder, where everything is, and what the search will know."""

    folder: Path
    profile: str
    addresses: Addresses
    templates: jinja2.Environment
    navigation: dict[str, list[Item]] = field(default_factory=dict)
    index: list[tuple[str, str, str, str]] = field(default_factory=list)
    outlines: dict[str, tuple[str, Outline]] = field(default_factory=dict)

    def write(self, template: str, address: str, title: str, **values: Any) -> None:
        """Write one page from its template."""
        context = {
            "address": address,
            "root": "../" * address.count("/"),
            "site": _SITE_NAME,
            "title": title,
            "profile": self.profile,
            "navigation": self.navigation,
            "to": lambda target: relative(target, address),
        }
        text = self.templates.get_template(template).render(context | values)
        self.put(address, text.encode("utf-8"))

    def put(self, address: str, content: bytes) -> None:
        """Write one file."""
        path = self.folder / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remember(self, address: str, title: str, sections: Sequence[Section]) -> None:
        """Enter the sections of a page in the index of the search."""
        for section in sections:
            place = f"{address}#{section.anchor}" if section.anchor else address
            self.index.append((place, title, section.title, section.text))


def build(profile: str = PROFILE, folder: Path | None = None) -> Path:
    """Make the site of a profile, whole or not at all; return its folder.

    Args:
        profile: whose figures and records are shown.
        folder: where to, in place of what is there; build/site by default.

    Raises BeftError: no such profile; a notebook without its outputs; no index of figures, no records, or a file that
    is missing; a link that leads nowhere; a formula that cannot be converted; a package of the extra `site` that is
    not installed.
    """
    names = profiles.profile_names()
    if not isinstance(profile, str) or profile not in names:
        raise unknown("profile", profile, names)
    home = paths.home()
    folder = paths.check_folder(folder or home / "build" / "site", "folder of the site")
    work = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        _make(work, profile, paths.repository(), home / "figures" / profile)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
    except OSError as error:
        raise BeftError(f"cannot make the site, {error}: free the disk, or correct permissions") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _make(folder: Path, profile: str, repository: Path, figures: Path) -> None:
    store = Store(paths.results(profile))
    records = {record["key"]: record for record in store.all()}
    if not records:
        raise BeftError(f"there are no records of profile {profile}: run `make reproduce PROFILE={profile}`")
    timed = {record["key"]: record for record in Store(repository / "data" / "results" / "bench").all()}
    timed = {key: record for key, record in timed.items() if "bench" in record["settings"]}  # those of notebook 06
    folders = dict.fromkeys(records, profile) | dict.fromkeys(timed, "bench")
    records |= timed
    entries = gallery.read_index(figures, profile, records)
    notebooks = {path.stem: read_executed(path) for path in find(repository / "notebooks")}
    documents = _documents(repository)
    rows = [record_pages.row(record) for record in records.values()]

    pages = {"notebooks": "index.html", f"figures/{profile}": gallery.ADDRESS}
    pages |= {f"figures/{profile}/index.json": gallery.ADDRESS, f"data/results/{profile}": record_pages.ADDRESS}
    pages |= {f"notebooks/{name}.ipynb": f"notebooks/{name}.html" for name in notebooks} | documents
    names = {key: f"data/results/{folders[key]}/{store.name(record['settings'])}" for key, record in records.items()}
    pages |= {names[row.key]: row.address for row in rows}
    pages |= {f"figures/{profile}/{file}": entry.address for entry in entries for file in entry.files}
    images = {f"figures/{profile}/{entry.files[0]}": f"figures/{entry.files[0]}" for entry in entries}

    site = _Site(folder, profile, Addresses(repository, pages, images), _environment())
    site.navigation["Start"] = [Item("Overview", "index.html")]
    site.navigation["Notebooks"] = [
        Item(_title(notebook, name), pages[f"notebooks/{name}.ipynb"]) for name, notebook in notebooks.items()
    ]
    results = [Item("Figures and tables", gallery.ADDRESS), Item("All runs", record_pages.ADDRESS)]
    site.navigation["Results"] = results
    others = [(file, address) for file, address in documents.items() if file != "README.md"]
    site.navigation["Documents"] = [Item(_first_line(repository / file), address) for file, address in others]

    shutil.copytree(_HERE / "static", folder / "static")
    for file, address in documents.items():
        _document(site, repository / file, file, address)
    for name, notebook in notebooks.items():
        _notebook(site, repository / "notebooks" / f"{name}.ipynb", notebook, entries)
    _gallery(site, entries, figures, {row.key: row for row in rows})
    _records(site, rows, records, names, entries)
    for file in site.addresses.linked:  # grows while the pages of linked files link to others
        _linked(site, repository / file, file)
    _check_anchors(site)
    for path, address in site.addresses.images.items():
        if path not in images:
            site.put(address, (repository / path).read_bytes())
    text = json.dumps(site.index, ensure_ascii=False).replace("\u2028", " ").replace("\u2029", " ")
    site.put("static/search-index.js", f"window.searchIndex = {text};\n".encode())
    site.put(".nojekyll", b"")  # without it, GitHub Pages leaves out some names


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(_HERE / "templates")
    options: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return jinja2.Environment(loader=loader, autoescape=True, **options)


def _documents(repository: Path) -> dict[str, str]:
    """The files of Markdown with a page in the navigation, and the addresses of their pages.

    Raises BeftError: there is no README.md.
    """
    if not (repository / "README.md").is_file():
        raise BeftError(f"there is no README.md in {repository}: restore it with `git checkout README.md`")
    docs = sorted(path.relative_to(repository).as_posix() for path in (repository / "docs").glob("*.md"))
    others = [file for file in _DOCUMENTS if (repository / file).is_file()]
    return {"README.md": "index.html"} | {file: f"{file.removesuffix('.md')}.html" for file in [*docs, *others]}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BeftError(f"{path} is not UTF-8 text: save it as UTF-8") from error


def _first_line(path: Path) -> str:
    """The first heading of a file of Markdown without its marks, or its name."""
    lines = [line for line in _read(path).splitlines() if line.startswith("#")]
    return lines[0].strip("# ").replace("$", "").replace("`", "") if lines else path.stem


def _title(notebook: Notebook, name: str) -> str:
    """The first heading of a notebook as plain text, or its name."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    lines = [line for line in text.splitlines() if line.startswith("#")]
    return lines[0].strip("# ").replace("$", "").replace("`", "") if lines else name


def _document(site: _Site, path: Path, file: str, address: str) -> None:
    made = outline(renderer(site.addresses, file, address)(_read(path)))
    title = made.title or file
    site.write("document.html.j2", address, title, body=made.html, headings=_contents(made.headings))
    site.remember(address, title, made.sections)
    site.outlines[address] = (file, made)


def _notebook(site: _Site, path: Path, notebook: Notebook, entries: Sequence[Entry]) -> None:
    own = [entry for entry in entries if entry.notebook == path.stem]
    captions = {entry.name: entry.caption for entry in own if entry.kind == "figure"}
    page = notebook_page(notebook, path.stem, site.addresses, captions)
    made, address = outline(page.html), f"notebooks/{path.stem}.html"
    title = made.title or path.stem
    site.write(
        "notebook.html.j2",
        address,
        title,
        body=made.html,
        headings=_contents(made.headings),
        file=f"notebooks/{path.name}",
        outputs_of=page.profile,
        shown=own,
    )
    site.put(f"notebooks/{path.name}", path.read_bytes())
    for name, content in page.images.items():
        site.put(f"notebooks/{path.stem}_files/{name}", content)
    site.remember(address, title, made.sections)
    site.outlines[address] = (f"notebooks/{path.name}", made)


def _gallery(site: _Site, entries: Sequence[Entry], figures: Path, rows: Mapping[str, Row]) -> None:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.notebook, []).append(entry)
        for file in entry.files:
            site.put(f"figures/{file}", (figures / file).read_bytes())
        table = " ".join(" ".join(row) for row in entry.rows)
        section = Section(entry.anchor, f"{entry.kind} {entry.name}", [entry.caption, table])
        site.remember(gallery.ADDRESS, "Figures and tables", [section])
    titles = {posixpath.basename(item.address)[:-5]: item for item in site.navigation["Notebooks"]}
    headings = []
    for name in groups:
        text = titles[name].title if name in titles else name
        headings.append(Heading(2, f"notebook-{name}", Markup.escape(text), text))
    values = {"groups": groups, "notebooks": titles, "rows": rows, "headings": headings, "width_of": width_of}
    site.write("gallery.html.j2", gallery.ADDRESS, "Figures and tables", **values)


def _records(
    site: _Site, rows: Sequence[Row], records: Mapping[str, Any], names: Mapping[str, str], entries: Sequence[Entry]
) -> None:
    site.write("runs.html.j2", record_pages.ADDRESS, "All runs", rows=rows, headings=[])
    site.remember(record_pages.ADDRESS, "All runs", [Section(words=["every record of the profile, sortable"])])
    behind: dict[str, list[Entry]] = {}
    for entry in entries:
        for key in entry.records:
            behind.setdefault(key, []).append(entry)
    for row in rows:
        record = records[row.key]
        site.write(
            "record.html.j2",
            row.address,
            f"Record {row.key}",
            row=row,
            file=names[row.key],
            facts=record_pages.facts(record),
            epochs=record_pages.epochs(record),
            behind=behind.get(row.key, []),
            json=record_pages.as_json(record),
            headings=[],
        )
        words = [row.key, row.kind, row.title, row.outcome, row.device]
        site.remember(row.address, f"Record {row.key}", [Section("", row.title, words)])


def _linked(site: _Site, path: Path, file: str) -> None:
    """The page of a file or folder that another page links to."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import TextLexer, get_lexer_for_filename
    from pygments.util import ClassNotFound

    address = site.addresses.pages[file]
    if path.is_dir():
        inner = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "__")))
        # Files have pages; a folder in a folder is named only, or one link would take in the whole repository.
        known = [(e.name, site.addresses.link(e.name, f"{file}/x", address) if e.is_file() else None) for e in inner]
        site.write("folder.html.j2", address, file, entries=known, headings=[])
        site.remember(address, file, [Section(words=[entry.name for entry in inner])])
    elif path.suffix == ".md" and path.parent.name != "templates":  # a template's links are those of what is made of it
        _document(site, path, file, address)
    else:
        text = _read(path)
        try:
            lexer = get_lexer_for_filename(path.name)
        except ClassNotFound:
            lexer = TextLexer()
        code = Markup(highlight(text, lexer, HtmlFormatter()))  # noqa: S704 - Pygments escapes
        site.write("source.html.j2", address, file, code=code, headings=[])
        site.remember(address, file, [Section(words=[text])])


def _contents(headings: Sequence[Heading]) -> list[Heading]:
    """The headings that a table of contents lists: those below the title, two levels of them."""
    return [heading for heading in headings if heading.level in (2, 3)]


def _check_anchors(site: _Site) -> None:
    """Raises BeftError for a link between documents and notebooks to a heading that is not there."""
    for address, (file, made) in site.outlines.items():
        for link in made.links:
            path, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(address), path)) if path else address
            if anchor and target in site.outlines and anchor not in site.outlines[target][1].anchors:
                there = site.outlines[target][0]
                raise BeftError(f"{file} links to the heading #{anchor} of {there}, which has none like it: correct it")
