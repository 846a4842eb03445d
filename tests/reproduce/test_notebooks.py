"""The notebooks: whole and short in the repository, and every one of them executed under the smoke profile."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from papermill.exceptions import PapermillExecutionError
from small_notebooks import Make

from beft import paths
from beft.data.microworld.tasks import similarity
from beft.errors import BeftError
from beft.records.store import Store
from beft.reproduce import run
from beft.reproduce.notebooks import incomplete, parameter_names, read
from beft.reproduce.progress import timed
from beft.settings.parameters import NOTEBOOKS

FOLDER = paths.repository() / "notebooks"
SOURCES = sorted(path for path in FOLDER.glob("*.ipynb") if not path.name.startswith("."))
NAMES = [path.stem for path in SOURCES]
LINES = 25


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Every notebook executed once under `smoke`: (folder of outputs, results by notebook)."""
    home = tmp_path_factory.mktemp("smoke")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEFT_HOME", str(home))
        results = run.reproduce("smoke", progress=False)
    return home, {result.notebook: result for result in results}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_under_smoke_from_the_first_cell_to_the_last(smoke, name):
    home, results = smoke
    result = results[name]
    assert result.failure is None
    assert result.runs["failed"] == 0
    executed = read(home / "build" / "smoke" / f"{name}.ipynb")
    code = [c for c in executed.cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebooks_figures_and_tables_are_in_the_index_and_on_disk(smoke, name):
    home, results = smoke
    folder = home / "figures" / "smoke"
    mine = [e for e in json.loads((folder / "index.json").read_text()) if e["notebook"] == name]
    assert results[name].figures == sum(e["kind"] == "figure" for e in mine) >= 1
    assert results[name].tables == sum(e["kind"] == "table" for e in mine)
    for entry in mine:
        assert entry["caption"].strip() and entry["files"], entry
        for file in entry["files"]:
            assert (folder / file).stat().st_size > 0


def test_the_notebooks_wrote_under_the_given_home_and_their_records_are_sound(smoke):
    home, results = smoke
    records = Store(home / "data" / "results" / "smoke").all()
    done = sum(r.runs["done"] for r in results.values())
    assert sum(r["kind"] in ("run", "transfer", "patch", "debias") for r in records) >= done > 0
    assert {r["kind"] for r in records} == {"run", "transfer", "ranking", "untuned", "patch", "debias"}
    assert str(home) not in json.dumps(records)


def test_notebooks_run_on_a_users_file_of_pairs_with_values(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    rows = [{"text_a": a, "text_b": b, "label": score + 0.5} for (a, b), score in similarity(0, 60, 0)[0]]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    names = ["02_ranking", "03_fine_tuning"]  # in one folder: the other finds the records that both need
    results = run.reproduce("smoke", only=names, parameters={"task": str(path)}, progress=False)
    assert [result.notebook for result in results] == names[::-1], "the one with the main figure comes first"
    assert results[0].runs["done"] > 0 and results[1].runs["reused"] > 0
    for result in results:
        assert result.failure is None and result.runs["failed"] == 0
        assert result.figures > 0 and result.tables > 0
    (folder,) = (tmp_path / "figures").iterdir()
    assert folder.name.startswith("smoke+task-pairs.jsonl")


def test_the_notebook_of_language_models_runs_on_a_users_file_with_a_prompt(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    lines = [
        f"tale {i},the soup was {'good' if i % 2 else 'bad'} and {i},{'yes' if i % 2 else 'no'}" for i in range(48)
    ]
    for name, part in (("reviews.csv", lines[:40]), ("held_out.csv", lines[40:])):
        (tmp_path / name).write_text("title,text,label\n" + "\n".join(part) + "\n", encoding="utf-8")
    given = {"task": str(tmp_path / "reviews.csv"), "validation": str(tmp_path / "held_out.csv"), "seeds": [0]}
    given |= {
        "template": r"{title}: {text}\nAll in all, {label}",
        "labels": '{"yes": good, "no": bad}',
        "methods": ["b_v"],
    }
    (result,) = run.reproduce("smoke", only=["04_bias_free_injection"], parameters=given, progress=False)
    assert result.failure is None and result.runs == {"done": 1, "reused": 0, "failed": 0}
    records = Store(tmp_path / "data" / "results" / "smoke").all()
    assert {r["kind"] for r in records} == {"run", "untuned"}
    assert {r["data"]["template"] for r in records} == {"{title}: {text}\nAll in all, {label}"}
    assert {r["data"]["source"].rpartition(": ")[2] for r in records} == {"held_out.csv"}


def test_the_quickstart_runs_on_a_users_file_of_pairs_with_values(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    rows = [{"text_a": a, "text_b": b, "label": score + 0.5} for (a, b), score in similarity(0, 60, 0)[0]]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (result,) = run.reproduce("smoke", only=["00_quickstart"], parameters={"file": str(path)}, progress=False)
    assert result.failure is None and result.figures == 1
    (folder,) = (tmp_path / "figures").iterdir()
    (entry,) = json.loads((folder / "index.json").read_text())
    assert "pairs.jsonl, 48 rows" in entry["caption"] and "(Substitute: a tiny random model.)" in entry["caption"]
    made = tmp_path / "build" / "smoke" / "quickstart"
    assert not (made / "mine.csv").exists()
    assert (made / "predictions.csv").read_text().startswith("text_a,text_b,label\n")


def test_the_quickstart_on_a_file_that_is_not_there_ends_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    given = {"file": "my reviews.csv"}
    (result,) = run.reproduce("smoke", only=["00_quickstart"], parameters=given, progress=False)
    assert result.failure == "there is no file 'my reviews.csv': check the path"
    assert not (tmp_path / "figures").exists()


def test_what_the_quickstart_shows_is_ours_to_show(smoke):
    """Sentences of the file that it writes stay in the file."""
    home, _ = smoke
    rows = (home / "build" / "smoke" / "quickstart" / "mine.csv").read_text(encoding="utf-8").splitlines()[1:]
    cells = read(home / "build" / "smoke" / "00_quickstart.ipynb").cells
    shown = json.dumps([c.get("outputs", []) for c in cells])
    assert len(rows) == 60 and not [row for row in rows if row.rpartition(",")[0].strip('"') in shown]


def test_bare_papermill_with_a_misspelt_parameter_fails_with_the_nearest_name(tmp_path, monkeypatch):
    """papermill itself only warns, and would run everything with the value unread."""
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    source, target = FOLDER / "03_fine_tuning.ipynb", tmp_path / "out.ipynb"
    with (
        run._kernel(offline=True),
        pytest.raises(PapermillExecutionError) as error,
    ):
        papermill.execute_notebook(
            source, target, {"profile": "smoke", "sead": 3}, kernel_name="python3", progress_bar=False
        )
    assert error.value.ename.endswith("BeftError")
    assert "unknown parameter of 03_fine_tuning 'sead': did you mean seeds" in error.value.evalue
    assert not (tmp_path / "data").exists()


def test_every_notebook_of_the_default_profile_was_timed():
    assert sorted(timed()["embedded"]) == NAMES


def test_there_is_a_notebook_for_every_section_of_parameters():
    assert NAMES == sorted(NOTEBOOKS)


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebooks_parameters_are_those_that_settings_read(source):
    assert set(parameter_names(source)) == {"profile", *NOTEBOOKS[source.stem]}


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_cells_are_short_enough_to_read(source):
    long = {
        f"cell {i} ({cell.source.splitlines()[0]})": len(cell.source.splitlines())
        for i, cell in enumerate(read(source).cells)
        if cell.cell_type == "code"
        and len(cell.source.splitlines()) > LINES
        and "parameters" not in cell.metadata.get("tags", [])  # a list of names
    }
    assert not long


@pytest.mark.parametrize("source", SOURCES, ids=NAMES)
def test_a_notebook_is_committed_whole_or_without_outputs(source):
    notebook = read(source)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    if any(c.outputs or c.execution_count is not None for c in code):
        assert incomplete(notebook) is None


def test_no_row_of_a_real_data_set_stands_in_a_committed_output_or_record(real_data):
    """Sentences of SST-2 long enough not to be met by chance."""
    rows = set()
    for split in ("train", "validation"):
        lines = (real_data / "glue" / "sst2" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        rows |= {s for s in (json.loads(line)["sentence"].strip() for line in lines) if len(s.split()) >= 6}
    assert len(rows) > 10_000
    starts = {" ".join(row.split()[:6]) for row in rows}
    root = paths.repository()
    files = [*SOURCES, *(root / "figures").rglob("*.md"), *(root / "data" / "results").rglob("*.json")]
    for path in files:
        if path.suffix == ".ipynb":
            text = json.dumps([c.get("outputs", []) for c in read(path).cells], ensure_ascii=False)
        else:
            text = path.read_text(encoding="utf-8")
        words = text.replace('"', " ").replace("\\n", " ").split()
        matches = starts & {" ".join(words[i : i + 6]) for i in range(len(words) - 5)}
        assert not matches, f"{path.name} holds a row of SST-2"


def test_two_parameters_cells_are_refused(make: Make) -> None:
    path = make("a", ["1"])
    notebook = read(path)
    notebook.cells.append(notebook.cells[1].copy())
    nbformat.write(notebook, path)
    with pytest.raises(BeftError, match="2 cells tagged"):
        parameter_names(path)


def executed(*counts: int | None) -> Any:
    return new_notebook(cells=[new_code_cell("1", execution_count=count) for count in counts])


def test_only_cells_run_once_and_in_order_are_complete() -> None:
    assert incomplete(executed(1, 2, 3)) is None
    assert "did not run" in str(incomplete(executed(1, None)))
    assert "in order" in str(incomplete(executed(2, 1)))
    assert "in order" in str(incomplete(executed(1, 3)))
