"""What has to come with an addition (CONTRIBUTING.md): the test that fails first where a part of it is missing."""

import importlib
import inspect
import json
import pkgutil

import pytest
import transformers

from beft import paths, report, study
from beft.anatomy.architectures import FAMILIES
from beft.data import rated_sentences
from beft.data.prompts import PROMPTS
from beft.data.sources import GENERATORS
from beft.data.tasks import HUB, TASKS
from beft.experiments.ranking import BY_CHANGE
from beft.report.names import METHOD_NAMES, SCORE_NAMES, method_name
from beft.theory.null_key_bias import ARCHITECTURES


def _cells():
    """The code of all notebooks."""
    books = [json.loads(path.read_text(encoding="utf-8")) for path in (paths.ROOT / "notebooks").glob("*.ipynb")]
    return "\n".join("".join(c["source"]) for book in books for c in book["cells"] if c["cell_type"] == "code")


def _made():
    """ "figures.cells.by_task", and every other public function of the modules of tables and figures."""
    for package in (report.tables, report.figures):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{found.name}")
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ == module.__name__ and not name.startswith("_"):
                    yield f"{package.__name__.rpartition('.')[2]}.{found.name}.{name}"


def test_every_architecture_has_a_tiny_model_on_which_its_anatomy_is_checked():
    types = {getattr(transformers, architecture.config).model_type for architecture in ARCHITECTURES.values()}
    assert set(FAMILIES) <= types


@pytest.mark.parametrize("tasks", [TASKS, PROMPTS])
def test_every_task_has_a_place_where_its_rows_come_from(tasks):
    suites = {*HUB, rated_sentences.SUITE}
    assert not [name for name, task in tasks.items() if task.suite not in suites and name not in GENERATORS]


def test_every_score_of_a_bias_has_a_name_in_figures():
    assert set(BY_CHANGE) <= set(SCORE_NAMES)


def test_every_method_has_a_name_in_figures():
    bare = [m for m in (*study.ALL_METHODS, *study.PATCHES) if m not in ("b_q", "b_k", "b_v")]
    assert not [m for m in bare if m not in METHOD_NAMES and ":" not in m] and all(map(method_name, bare))


@pytest.mark.parametrize("name", _made())
def test_every_figure_and_table_is_made_in_a_notebook_or_by_another(name):
    short = name.split(".", 1)[1]
    module, _, function = short.partition(".")
    sources = [p.read_text(encoding="utf-8") for p in (paths.ROOT / "beft" / "report").rglob("*.py")]
    called = sum(source.count(f"{function}(") + source.count(f"import {function}") for source in sources)
    assert f"{short}(" in _cells() or called > 1
