"""README and docs/: every number comes from a saved table, and the committed pages are what their templates give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from beft import paths
from beft.errors import BeftError
from beft.reproduce import pages

TABLE = 'model,b_v,"own, %"\nsmall,"77.4 [74.4, 80.5]",not run\nlarge,"89.3 [87.4, 91.1]",90.1\n'
# What is not a result: versions, sizes of files, minutes and the like, each a fact of its own kind.
ALLOWED = re.compile(
    r"arXiv:\d+\.\d+|arxiv\.org/abs/\d+\.\d+|torch==[\d.]+|torch \d\.\d+|python3?\.\d+|Python 3\.\d+"
    r"|\d+(\.\d+)? (MB|GB)|rate=\S+|1e-\d|95%|0\.05"
)
RESULT = re.compile(r"(?<![\w.`/])[+-−]?\d+\.\d+(?![\w.])|\d+%")


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of templates in a repository with one table, `laptop/t`."""
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    monkeypatch.setattr(paths, "home", lambda: tmp_path)
    (tmp_path / "figures/laptop").mkdir(parents=True)
    (tmp_path / "figures/laptop/t.csv").write_text(TABLE, encoding="utf-8")
    (tmp_path / "figures/laptop/t.md").write_text("| model |\n\nWhat it shows.\n", encoding="utf-8")
    (tmp_path / pages.TEMPLATES).mkdir(parents=True)
    return tmp_path / pages.TEMPLATES


@pytest.mark.parametrize(
    "template, text",
    [
        ('{{ value("laptop/t", "b_v", model="large") }}', "89.3 [87.4, 91.1]"),
        ('{{ value("laptop/t", "b_v", model="large") | mean }}', "89.3"),
        ('{{ paper("bert-base-cased", "sst2", "b_v") }}', "85.8"),
        (
            '{{ table("laptop/t", ["model", "b_v"], model="small") }}',
            "| model | b_v |\n| --- | --- |\n| small | 77.4 [74.4, 80.5] |\n\nWhat it shows.",
        ),
    ],
)
def test_a_template_has_numbers_from_tables_and_the_paper(templates: Path, template: str, text: str) -> None:
    (templates / "README.md").write_text(f"Ours: {template}.\n", encoding="utf-8")
    (page,) = pages.rendered().values()
    assert page == pages.NOTE.format("docs/templates/README.md") + f"Ours: {text}.\n"


@pytest.mark.parametrize("ending", ["", ".git", "/"])
def test_buttons_open_a_notebook_of_the_repository_whose_address_is_given(templates: Path, ending: str) -> None:
    cited = paths.repository() / "CITATION.cff"
    cited.write_text(f"title: beft\nrepository-code: https://github.com/some-one/beft.py{ending}\n", encoding="utf-8")
    text = pages.buttons("00_quickstart")
    assert "mybinder.org/v2/gh/some-one/beft.py/main?labpath=notebooks%2F00_quickstart.ipynb)" in text
    assert "colab.research.google.com/github/some-one/beft.py/blob/main/notebooks/00_quickstart.ipynb)" in text


def test_without_an_address_there_are_no_buttons(templates: Path) -> None:
    cited = paths.repository() / "CITATION.cff"
    for text in ("title: beft\n", "repository-code: https://example.org/beft\n", ""):
        cited.write_text(text, encoding="utf-8")
        assert pages.buttons("00_quickstart") == ""
    cited.write_text("title: [", encoding="utf-8")
    with pytest.raises(BeftError, match="CITATION.cff cannot be read"):
        pages.buttons("00_quickstart")


@pytest.mark.parametrize(
    "template, says",
    [
        ('{{ value("laptop/u", "b_v") }}', "u.csv is not in .*: run the notebooks of profile laptop first"),
        ('{{ value("laptop/t", "b_v") }}', "has 2 rows with {}: name one"),
        ('{{ value("laptop/t", "b_q", model="large") }}', "unknown column of laptop/t 'b_q'"),
        ('{{ value("laptop/t", "b_v", model="huge") }}', "unknown model in laptop/t 'huge'"),
        ('{{ table("laptop/t", ["b_q"]) }}', "unknown column of laptop/t 'b_q'"),
        ('{{ value("laptop/t", "own, %", model="small") | mean }}', "'not run' does not begin with a number"),
        ('{{ paper("bert-base-cased", "sst2", "lora") }}', "the paper prints no lora"),
        ('{{ bench("steps") }}', "run `make bench-steps` first"),
        ("{{ b_v }}", "'b_v' is undefined"),
        ("\n{{ value(", "line 2"),
    ],
)
def test_what_a_table_does_not_have_is_one_sentence(templates: Path, template: str, says: str) -> None:
    (templates / "results.md").write_text(template, encoding="utf-8")
    with pytest.raises(BeftError, match=f"^docs/templates/results.md.*{says}"):
        pages.write_pages()


def test_minutes_are_those_of_the_cells_to_the_next_whole_one(templates: Path) -> None:
    (templates.parent.parent / "notebooks").mkdir()
    seconds = {"embedded": {"a": {"": 5.0, "x": 50.0}, "b": {"y": 70.0}}}
    (templates.parent.parent / "notebooks/seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    (templates / "README.md").write_text('{{ minutes("embedded", "a") }} {{ minutes("embedded") }}', encoding="utf-8")
    (page,) = pages.rendered().values()
    assert page.endswith("1 3")
    for template, says in (
        ('{{ minutes("laptop") }}', "unknown timed notebook of laptop"),
        ('{{ minutes("embedded", "c") }}', "unknown timed notebook of embedded 'c'"),
    ):
        (templates / "README.md").write_text(template, encoding="utf-8")
        with pytest.raises(BeftError, match=says):
            pages.rendered()


def test_only_pages_that_change_are_written(templates: Path) -> None:
    for name in ("README.md", "results.md"):
        (templates / name).write_text('{{ value("laptop/t", "b_v", model="large") }}\n', encoding="utf-8")
    repository = paths.repository()
    assert pages.write_pages() == [repository / "README.md", repository / "docs/results.md"]
    assert pages.write_pages() == []


def test_the_committed_pages_are_what_their_templates_and_the_committed_tables_give() -> None:
    for page, text in pages.rendered().items():
        assert page.read_text(encoding="utf-8") == text, f"run `make pages`: {page.name} is not what its template gives"


def test_no_template_holds_a_result_that_was_typed() -> None:
    for template in sorted((paths.repository() / pages.TEMPLATES).glob("*.md")):
        text = re.sub(
            r"```.*?```|\{\{.*?\}\}|`[^`\n]*`|\]\([^)]*\)|\$[^$\n]*\$", " ", template.read_text(), flags=re.DOTALL
        )
        found = [line for line in ALLOWED.sub(" ", text).splitlines() if RESULT.search(line)]
        assert not found, f"{template.name}: take these from a table: {found}"


def test_readme_is_short_and_comes_to_ones_own_data_early() -> None:
    lines = (paths.repository() / pages.README).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert any("beft.tune(" in line for line in lines[:60])
