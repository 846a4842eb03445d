"""The website: every page is there, every link leads somewhere, nothing is fetched, and all text is text."""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from fake_records import run, transferred
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sample_records import record, settings
from site_pages import lost, read_site

from beft import paths
from beft.errors import BeftError
from beft.records.store import Store
from beft.reproduce.__main__ import main

pytest.importorskip("latex2mathml", reason="the extra `site` is not installed")

from beft.reproduce.website.addresses import Addresses
from beft.reproduce.website.build import build
from beft.reproduce.website.markdown import mathml
from beft.reproduce.website.outline import outline
from beft.reproduce.website.record_pages import row

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
README = """# A project

See [the notebook](notebooks/01_first.ipynb#what-b_v-does), [a table](figures/smoke/numbers.md),
[a figure](figures/smoke/curve.png), [all records](data/results/smoke/), [more](docs/more.md#second),
[code](code/small.py), [a folder](code/).

![The curve](figures/smoke/curve.png) ![badge](https://example.org/badge.svg)

The bias $b_v$ and $a < b$.<br> <!-- a comment --> EVIL

| a | b |
| --- | --- |
| $b_q$ | 2 |
"""


def png() -> bytes:
    """A white image of 3 x 2 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + b"\xff" * 3 for _ in range(2))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def save_notebook(path: Path, *cells: Any) -> None:
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    notebook = new_notebook(cells=list(cells), metadata={"beft": {"outputs_from_profile": "smoke"}})
    nbformat.write(notebook, path)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A repository with a notebook, a figure, a table, two records and documents, with text that must be escaped."""
    repository, home = tmp_path / "repository", tmp_path / "home"
    for folder in (repository / "notebooks", repository / "docs", repository / "code", home / "figures" / "smoke"):
        folder.mkdir(parents=True)
    (repository / "notebooks" / "profiles").symlink_to(paths.repository() / "notebooks" / "profiles")
    monkeypatch.setattr(paths, "repository", lambda: repository)
    monkeypatch.setenv("BEFT_HOME", str(home))
    monkeypatch.delenv("BEFT_RESULTS", raising=False)

    (repository / "README.md").write_text(README.replace("EVIL", EVIL))
    (repository / "docs" / "more.md").write_text("# More\n\n## Second\n\nBack to [the start](../README.md).\n")
    (repository / "code" / "small.py").write_text(f"text = '{EVIL}'\n")
    image = new_output("execute_result", data={"image/png": _base64(png()), "text/plain": "a figure"})
    html = new_output(
        "display_data", data={"text/html": f"<table><tr><td>7</td></tr></table>{EVIL}<style>a{{}}</style>"}
    )
    printed = new_output("stream", text=f"curve: The curve.\n{EVIL}\n")
    save_notebook(
        repository / "notebooks" / "01_first.ipynb",
        new_markdown_cell(f"# First\n\n## What $b_v$ does\n\n$$\\sum_j a_{{ij}}$$\n\n{EVIL}"),
        new_code_cell(f"x = '{EVIL}'", outputs=[printed, image]),
        new_code_cell("x", outputs=[html]),
        new_markdown_cell("[Back](../README.md)"),
    )
    store = Store(home / "data" / "results" / "smoke")
    store.write(record())
    store.write(record(settings=settings(model=EVIL, seed=1), outcome="diverged"))
    keys = [r["key"] for r in store.all()]
    figures = home / "figures" / "smoke"
    (figures / "curve.png").write_bytes(png())
    (figures / "curve.pdf").write_bytes(b"%PDF")
    (figures / "numbers.csv").write_text(f'name,value\n"{EVIL}",1\nb_v,2\n')
    (figures / "numbers.md").write_text("numbers")
    common = {"notebook": "01_first", "caption": f"A caption. {EVIL}", "command": "make reproduce"}
    index = [
        {"name": "curve", "kind": "figure", "files": ["curve.pdf", "curve.png"], "records": [], **common},
        {"name": "numbers", "kind": "table", "files": ["numbers.csv", "numbers.md"], "records": keys, **common},
    ]
    (figures / "index.json").write_text(json.dumps(index))
    return SimpleNamespace(repository=repository, home=home, figures=figures, keys=keys, site=home / "build" / "site")


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def test_every_page_is_made(source: SimpleNamespace) -> None:
    assert build("smoke") == source.site
    records = {f"records/{key}.html" for key in source.keys}
    linked = {"files/code/small.py.html", "files/code/index.html"}
    main_pages = {"index.html", "notebooks/01_first.html", "figures.html", "runs.html", "docs/more.html"}
    assert set(read_site(source.site)) == main_pages | records | linked
    assert (source.site / "notebooks" / "01_first.ipynb").is_file()
    assert not list(source.site.parent.glob("*.tmp"))


def test_links_and_images_lead_somewhere_and_nothing_is_fetched_from_elsewhere(source: SimpleNamespace) -> None:
    pages = read_site(build("smoke"))
    assert lost(source.site, pages) == []
    for page in pages.values():
        assert not [url for url in page.loaded() if re.match(r"[a-z]+:|//", url)]
        assert "style" not in {tag for tag, _ in page.tags}
    for file in (source.site / "static").iterdir():
        assert not re.search(r"(https?:)?//[\w.]+/", file.read_text().replace("http://www.w3.org/2000/svg", "")), file


def test_text_of_every_source_is_shown_as_text(source: SimpleNamespace) -> None:
    pages = read_site(build("smoke"))
    for page in pages.values():
        scripts = [attributes for tag, attributes in page.tags if tag == "script"]
        assert len(scripts) == 2 and all("static/" in script["src"] for script in scripts)
        assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    for address in ("index.html", "notebooks/01_first.html", "figures.html", "runs.html"):
        assert "&lt;script&gt;alert(1)" in (source.site / address).read_text()


def test_a_notebook_has_its_code_outputs_contents_and_formulas(source: SimpleNamespace) -> None:
    text = (build("smoke") / "notebooks" / "01_first.html").read_text()
    assert 'alttext="b_v"' in text and 'display="block"' in text and "$" not in re.sub(r"<math.*?</math>", "", text)
    assert '<a href="#what-b_v-does">' in text and "<td" in text and "a comment" not in text
    image = re.search(r'<img alt="(.*?)" src="(.*?)"', text)
    assert image and image[1].startswith("A caption.") and (source.site / "notebooks" / image[2]).is_file()


def test_the_gallery_names_caption_command_files_and_records(source: SimpleNamespace) -> None:
    text = (build("smoke") / "figures.html").read_text()
    assert 'src="figures/curve.png"' in text and 'width="3" height="2"' in text and "make reproduce" in text
    assert all(f'href="records/{key}.html"' in text for key in source.keys) and 'href="figures/numbers.csv"' in text


def test_the_table_of_runs_has_a_row_for_each_record(source: SimpleNamespace) -> None:
    text = (build("smoke") / "runs.html").read_text()
    assert text.count("<tr><td>") == 2 and ">75.0<" in text and "diverged" in text and "cpu: chip" in text
    own = (source.site / "records" / f"{source.keys[0]}.html").read_text()
    assert "&#34;checksum&#34;" in own and "table numbers" in own and f"{source.keys[0]}.json" in own


def test_the_search_knows_every_page_and_its_places_are_there(source: SimpleNamespace) -> None:
    pages = read_site(build("smoke"))
    script = (source.site / "static" / "search-index.js").read_text()
    index = json.loads(script.removeprefix("window.searchIndex = ").rstrip(";\n"))
    assert {address.partition("#")[0] for address, *_ in index} == set(pages)
    for address, *_ in index:
        path, _, anchor = address.partition("#")
        assert not anchor or anchor in pages[path].ids
    assert [title for _, _, title, text in index if "Back to" in text] == ["Second"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s.figures / "index.json").unlink(), r"index of figures .*index.json, No such file.*: run `make"),
        (lambda s: (s.figures / "index.json").write_text("{"), r"index.json is not valid JSON: run `make"),
        (lambda s: (s.figures / "index.json").write_text('[{"name": "../x"}]'), r"is no list of figures and tables"),
        (lambda s: (s.figures / "curve.png").unlink(), r"figure curve .* the file curve.png is missing: run `make"),
        (lambda s: (s.figures / "curve.png").write_text("no image"), r"curve.png is no PNG image: run `make"),
        (lambda s: (s.figures / "numbers.csv").write_text(""), r"numbers.csv is empty: run `make"),
        (lambda s: _record_file(s).unlink(), r"the record \w{12} behind the table numbers is missing: run `make"),
        (lambda s: [path.unlink() for path in _results(s).glob("*.json")], r"no records of profile smoke: run `make"),
        (lambda s: _without_outputs(s), r"01_first.ipynb is not saved with its outputs, .*`make publish"),
        (lambda s: (s.repository / "README.md").unlink(), r"no README.md in .*: restore it"),
        (lambda s: _add(s, "[x](nowhere.md)"), r"docs/more.md links to 'nowhere.md', which is no file"),
        (lambda s: _add(s, "[x](../../outside.md)"), r"docs/more.md links to '../../outside.md', which is no file"),
        (lambda s: _add(s, "![x](nothing.png)"), r"docs/more.md shows the image 'nothing.png', which is no file"),
        (lambda s: _add(s, "[x](../README.md#nothing)"), r"docs/more.md links to the heading #nothing of README.md"),
        (lambda s: _add(s, "$\\unheard x$"), r"cannot read the formula '.*unheard x' of docs/more.md"),
        (lambda s: (s.repository / "docs" / "more.md").write_bytes(b"\xff"), r"more.md is not UTF-8 text: save it"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(
    source: SimpleNamespace, spoil: Callable[[SimpleNamespace], object], message: str
) -> None:
    spoil(source)
    with pytest.raises(BeftError, match=message) as caught:
        build("smoke")
    assert "\n" not in str(caught.value)
    assert not source.site.exists() and not list(source.home.rglob("*.tmp"))


def _results(source: SimpleNamespace) -> Path:
    return source.home / "data" / "results" / "smoke"


def _record_file(source: SimpleNamespace) -> Path:
    return next(_results(source).glob(f"*{source.keys[0]}.json"))


def _without_outputs(source: SimpleNamespace) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), source.repository / "notebooks" / "01_first.ipynb")


def _add(source: SimpleNamespace, text: str) -> None:
    with open(source.repository / "docs" / "more.md", "a") as file:
        file.write(f"\n{text}\n")


def test_a_site_that_cannot_be_made_leaves_the_former_one(source: SimpleNamespace) -> None:
    build("smoke")
    _add(source, "[x](nowhere.md)")
    with pytest.raises(BeftError, match="nowhere"):
        build("smoke")
    assert (source.site / "index.html").is_file()


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(BeftError, match="unknown profile 'lapto': did you mean laptop"):
        build("lapto")


def test_without_latex2mathml_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    with pytest.raises(BeftError, match="needs latex2mathml: install it"):
        mathml("x", "inline", "README.md")


def test_the_command_line_makes_it(source: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "--profile", "smoke"]) == 0
    assert capsys.readouterr().out == f"site: {source.site / 'index.html'}\n"
    assert main(["site", "--profile", "smoke", "--only", "01_first"]) == 2
    assert "site takes no -p" in capsys.readouterr().err


@pytest.mark.parametrize("tex", ["a < b & c", r"\text{<b>}", r"\unheard{x}", r"\frac{1", r"x \\ \unheard"])
def test_a_formula_is_escaped_or_refused(tex: str) -> None:
    try:
        made = mathml(tex, "inline", "README.md")
    except BeftError as error:
        assert "README.md" in str(error)
    else:
        assert "<b>" not in made and "\\" not in re.sub('alttext=".*?"', "", made)


@pytest.mark.parametrize("tex", [r"\Big\|x\Big\|_2", r"\begin{aligned} a &= b \\ c &\le d \end{aligned}", "b_v > 0"])
def test_what_latex2mathml_leaves_is_mended(tex: str) -> None:
    made = re.sub('alttext=".*?"', "", mathml(tex, "block", "README.md"))
    assert made.startswith("<math") and "\\" not in made and "&amp;" not in made


def test_equal_headings_have_anchors_of_their_own_and_formulas_their_tex() -> None:
    made = outline('<h2>A b, c!</h2><h2>A b c</h2><h3>Is <math alttext="b_v"><mi>b</mi></math> it?</h3><p>yes</p>')
    assert [heading.anchor for heading in made.headings] == ["a-b-c", "a-b-c-1", "is-b_v-it"]
    assert made.sections[-1].title == "Is b_v it?" and made.sections[-1].text == "yes"


def test_an_address_is_relative_to_its_page_and_keeps_what_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").touch()
    addresses = Addresses(tmp_path, {"README.md": "index.html"}, {})
    assert addresses.link("../README.md#x", "docs/a.md", "docs/a.html") == "../index.html#x"
    assert addresses.link("../a%20b.txt", "docs/a.md", "docs/a.html") == "../files/a%20b.txt.html"
    assert addresses.link("https://example.org/x", "README.md", "index.html") == "https://example.org/x"
    assert addresses.image("https://example.org/x.png", "README.md", "index.html") is None
    assert addresses.linked == ["a b.txt"]
    for bad in ("javascript:alert(1)", "/etc/passwd", "//host/x", "file:///etc/passwd", "../../x"):
        with pytest.raises(BeftError, match="which is no file of the repository"):
            addresses.link(bad, "docs/a.md", "docs/a.html")


def test_the_score_of_a_row_is_that_of_its_kind() -> None:
    about = {"device": {"kind": "cuda", "name": "card"}}
    assert row(run(final=0.8) | about).score == 0.8 and row(run() | about).device == "cuda: card"
    assert row(transferred(source=0.7, films=0.6) | about).score == 0.7
    untuned = {**run(), **about, "kind": "untuned", "validation": 0.5}
    ranking = {**run(), **about, "kind": "ranking", "scores": {}}
    assert row(untuned).score == 0.5 and row(ranking).score is None and row(ranking).metric is None
