"""The web service of docs/serving.md, read out of it: its core, its endpoints, and over HTTP where FastAPI is."""

from __future__ import annotations

import re
import shutil
import sys
import types

import pytest
from small_adapters import ours

from beft import paths
from beft.bank.saved import About
from beft.models import loading

PAGE = (paths.ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"`(\w+\.py)`[^`]*(?:`[^`\n]+`[^`]*)*?```python\n(.*?)```", PAGE, re.DOTALL)
SOURCES = dict(BLOCKS)


class Refused(Exception):
    """Stands for fastapi.HTTPException."""


class Recorder:
    """Stands for fastapi.FastAPI: hands every function back and remembers under what it was registered."""

    def __init__(self):
        self.routes = {}

    def _register(self, kind):
        return lambda what: lambda function: self.routes.setdefault((kind, what), function)

    def __getattr__(self, kind):
        return self._register(kind)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The two files in a folder to import from, two adapters, and a third that is added later."""
    base = loading.load("tiny-bert", labels=2).model
    mood = About(("sad", "glad"), ("text",), 40)
    ours(tmp_path / "adapters" / "films", base, "b_v", 1, mood)
    ours(tmp_path / "adapters" / "stars", loading.load("tiny-bert", labels=1).model, "b_q", 2)
    ours(tmp_path / "later", base, "b_k", 3, mood)
    (tmp_path / "secret").mkdir()
    for name, source in SOURCES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BASE", "tiny-bert")
    monkeypatch.setenv("ADAPTERS", str(tmp_path / "adapters"))
    yield tmp_path
    for name in ("app", "answer"):
        sys.modules.pop(name, None)


@pytest.fixture
def recorded(place, monkeypatch):
    """The app, its FastAPI a double: for machines without FastAPI, and for endpoints without HTTP."""
    web, responses = types.ModuleType("fastapi"), types.ModuleType("fastapi.responses")
    web.FastAPI, web.HTTPException = Recorder, Refused
    responses.JSONResponse = lambda content, status_code: (status_code, content)
    monkeypatch.setitem(sys.modules, "fastapi", web)
    monkeypatch.setitem(sys.modules, "fastapi.responses", responses)
    import app

    return app


def test_the_page_has_both_files_and_the_app_is_short():
    assert set(SOURCES) == {"answer.py", "app.py"}
    assert (
        sum(len(source.splitlines()) for source in SOURCES.values()) < 80 and len(SOURCES["app.py"].splitlines()) < 60
    )


def test_the_core_answers_rows_of_several_adapters(place):
    import beft

    adapters = {name: place / "adapters" / name for name in ("films", "stars")}
    served = beft.serve("tiny-bert", adapters)
    from answer import answer

    film, star = answer(served, [{"text": "a film", "adapter": "films"}, {"text": "a film", "adapter": "stars"}])
    assert film["label"] == served.predict("a film", "films") in ("sad", "glad") and 0.5 <= film["probability"] <= 1
    assert star == {"value": pytest.approx(served.predict("a film", "stars"))}


def test_the_endpoints_predict_add_remove_and_explain(recorded, place):
    app = recorded
    routes = app.app.routes
    assert set(routes) == {
        ("exception_handler", app.beft.BeftError),
        ("get", "/adapters"),
        ("put", "/adapters/{name}"),
        ("delete", "/adapters/{name}"),
        ("post", "/predict"),
    }
    assert set(app.adapters()) == {"films", "stars"}
    rows = [app.Row(text="a film", adapter="films"), app.Row(text="a plot", adapter="stars")]
    assert [set(row) for row in app.predict(rows)] == [{"label", "probability"}, {"value"}]
    for name in ("later", "../secret", "secret"):
        with pytest.raises(Refused):
            app.add(name)
    shutil.copytree(place / "later", place / "adapters" / "later")
    assert set(app.add("later")) == {"films", "stars", "later"}
    assert "films" not in app.remove("films")
    with pytest.raises(app.beft.BeftError) as error:
        app.predict(rows)
    assert app.explain(None, error.value) == (422, {"detail": str(error.value)})


def test_a_client_predicts_adds_and_removes_over_http(place):
    pytest.importorskip("fastapi", reason="FastAPI is not among the packages of requirements.lock")
    testclient = pytest.importorskip("fastapi.testclient", reason="FastAPI's client needs httpx", exc_type=ImportError)
    import app

    with testclient.TestClient(app.app) as client:
        assert set(client.get("/adapters").json()) == {"films", "stars"}
        rows = [{"text": "a film", "adapter": "films"}, {"text": "a plot", "adapter": "stars"}]
        answers = client.post("/predict", json=rows)
        assert answers.status_code == 200 and answers.json()[0]["label"] in ("sad", "glad")
        wrong = client.post("/predict", json=[{"text": "a film", "adapter": "film"}])
        assert wrong.status_code == 422 and "did you mean films" in wrong.json()["detail"]
        assert client.put("/adapters/later").status_code == 404
        shutil.copytree(place / "later", place / "adapters" / "later")
        assert "later" in client.put("/adapters/later").json()
        assert "films" not in client.delete("/adapters/films").json()
        assert client.delete("/adapters/films").status_code == 422
