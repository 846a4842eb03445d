"""A user gives any value to any public function: it answers with a right result or with one sentence, nothing else.

The values are those that real calls have brought or that break naive code: another type, an empty one, a number out of
range, half a character, a path that is no file. Every value goes to every argument, so that none is left out by chance.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import beft
from beft.data import counterfactual, stereotype_sets
from beft.data import sources as data
from beft.debias.patches import load_patch
from beft.experiments import sweep
from beft.models import loading as models
from beft.records.store import Store

ROWS = [
    (f"{opening} the {thing} was {word}", label)
    for thing in ("film", "play", "book")
    for opening, word, label in (("they say", "fine", "good"), ("we think", "dull", "bad"))
]
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 10**30, 0.5, float("nan"), float("inf"), -0.0, 1e-320, "", " ", "\ud800",
    "\x00", "a\nb", "a" * 5000, "none", "3", "b_v", "..", "/", "https://example.org/x.csv", b"bytes", [],
    [None], ["a", 1], [["a"]], (), ("a", "b"), {}, {"a": 1}, set(), object(), len, 2j, Decimal("0.1"),
    np.int64(1), np.float32("nan"), np.bool_(True), np.array([]), np.zeros((2, 2)), torch.zeros(2),
    pd.Series(["a", None]), pd.DataFrame(), pd.NA, Path("nonexistent/x"), Path("."), range(3), iter("ab"),
    Exception("x"), type,
]  # fmt: skip
OUTSIDE = ("..", "/")
SMALL = {"model": models.TINY, "epochs": 1, "batch_size": 4, "max_length": 16, "offline": True, "progress": False}


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the BeftError that it ends in. Nothing else may come of it."""
    try:
        return call()
    except beft.BeftError as error:
        text = str(error)
        assert 15 < len(text) < 2500 and "\n" not in text, text
        text.encode()  # it can be printed
        return error


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings are not what this is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def reviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    "name",
    [*("task", "method", "rate", "epochs", "seed", "adapter", "model", "regime", "batch_size", "max_length", "dtype")]
    + [*("tuning", "validate", "clip", "schedule", "sites", "kind", "drop", "validation", "columns", "prompted")],
)
def test_tune(name: str, reviews: str) -> None:
    for value in VALUES:
        if name == "epochs" and value is VALUES[6] or name == "adapter" and isinstance(value, str) and value in OUTSIDE:
            continue  # a training without end, or files outside the test's folder, are what was asked for
        made = outcome(lambda value=value: beft.tune(**{"task": reviews, **SMALL, name: value}))
        assert isinstance(made, beft.BeftError | beft.Tuned)
        if isinstance(made, beft.Tuned):
            answers = made.predict(["the film was fine", "a dull play"])
            assert len(answers) == 2 and set(answers) <= {"bad", "good"}


def test_predict_and_save(reviews: str, tmp_path: Path) -> None:
    tuned = beft.tune(reviews, **SMALL)
    for value in VALUES:
        made = outcome(lambda value=value: tuned.predict(value))
        if isinstance(value, str) and value.strip() and not isinstance(made, beft.BeftError):
            assert made in tuned.labels
        for other in (None, ("text",), ("text_a", "text_b")):
            scores = outcome(lambda v=value, c=other: beft.predict(tuned.model, tuned.tokenizer, v, 16, c))
            assert isinstance(scores, beft.BeftError) or np.isfinite(scores).all()
        if not isinstance(value, str) or value not in OUTSIDE:
            outcome(lambda value=value: tuned.save(value))
        outcome(lambda value=value: beft.Tuned.load(value, offline=True))


@pytest.mark.parametrize("made", [beft.Study, beft.Run], ids=["Study", "Run"])
def test_settings(made: type) -> None:
    start = {"method": "b_v", "seed": 0, "rate": 1e-3} if made is beft.Run else {}
    for name in made.__dataclass_fields__:
        for value in VALUES:
            settings = outcome(lambda name=name, value=value: made(**start | {name: value}))
            if not isinstance(settings, beft.BeftError):
                json.dumps(vars(settings), allow_nan=False)  # what is accepted can be recorded
                assert not isinstance(getattr(settings, name), float) or math.isfinite(getattr(settings, name))
        assert isinstance(outcome(lambda: made(**start, learning_speed=1)), beft.BeftError)


@pytest.mark.parametrize("name", ["task", "folder", "kind", "drop", "validation", "columns"])
def test_rows(name: str, reviews: str) -> None:
    for value in VALUES:
        rows = outcome(lambda value=value: data.load(**{"task": reviews, "offline": True, name: value}))
        assert isinstance(rows, beft.BeftError) or len(rows.train) + len(rows.validation) == len(ROWS)


def test_cells_of_a_table() -> None:
    for value in VALUES:
        for column in ("text", "label"):
            table = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
            table[column][2] = value
            rows = outcome(
                lambda table=table: data.load(pd.DataFrame({n: pd.Series(v, dtype=object) for n, v in table.items()}))
            )
            assert isinstance(rows, beft.BeftError) or len(rows.train) + len(rows.validation) == len(ROWS)


def test_models_and_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = models.load(models.TINY, labels=2)
    for value in VALUES:
        for load in (lambda v: models.load(v, labels=2, offline=True), lambda v: models.load_causal(v, offline=True)):
            assert isinstance(outcome(lambda value=value, load=load: load(value)), beft.BeftError)
        for call in (
            lambda v: beft.load_tuned(loaded.model, v),
            lambda v: beft.load_tuned(v, tmp_path),
            load_patch,
        ):
            assert isinstance(outcome(lambda value=value, call=call: call(value)), beft.BeftError)
        outcome(lambda value=value: beft.BiasBank(loaded.model, [value], [0]).detach())
        outcome(lambda value=value: beft.BiasBank(loaded.model, ["b_v"], [value]).detach())


def test_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    study = beft.Study(models.TINY, "microworld_sentiment", 16, epochs=1, batch_size=8, max_length=16, validate="last")
    run = beft.Run("b_v", 0, 1e-3)
    sweep.run(study, [run], store, progress=False)
    for value in VALUES:
        if not isinstance(value, str | Path):
            assert isinstance(outcome(lambda value=value: sweep.export(study, run, store, value)), beft.BeftError)
        for arguments in ((value, run, store), (study, value, store), (study, run, value)):
            assert isinstance(outcome(lambda a=arguments: sweep.export(*a, tmp_path / "out")), beft.BeftError)
            assert isinstance(outcome(lambda a=arguments: sweep.adapter(*a)), beft.BeftError)


def test_files_of_word_lists_and_stereotypes(tmp_path: Path) -> None:
    """Each value as the whole file, and in the place of each part of a good one."""
    words = {"axes": {"size": {"groups": ["big", "small"], "words": [["giant", "dwarf"]], "names": []}}}
    entry = {
        "id": "1", "target": "cat", "bias_type": "age", "context": "It is BLANK.",
        "sentences": [
            {"sentence": f"It is {w}.", "gold_label": g}
            for w, g in (("old", "stereotype"), ("new", "anti-stereotype"), ("it", "unrelated"))
        ],
    }  # fmt: skip
    triples = {"data": {"intrasentence": [entry]}}
    pairs = {"sent_more": "He is old.", "sent_less": "She is old.", "bias_type": "gender"}
    readers: list[tuple[Any, str, Callable[[Path], Any]]] = [
        (words, "words.json", lambda path: counterfactual.axis("size", path=path)),
        (triples, "dev.json", lambda path: stereotype_sets.stereoset(path)),
        (pairs, "pairs.jsonl", lambda path: stereotype_sets.crows_pairs(path)),
    ]
    for good, name, read in readers:
        path = tmp_path / name
        path.write_text(json.dumps(good))
        assert not isinstance(outcome(partial(read, path)), beft.BeftError)
        for text in variants(good):
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            outcome(partial(read, path))
        for value in VALUES:
            if value is not None:
                outcome(partial(read, value))


JSON_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    " ",
    "\ud800",
    "a" * 3000,
    [],
    [None],
    [[]],
    {},
    {"a": 1},
    ["a"],
    "BLANK",
]


def variants(good: Any) -> Iterator[str]:
    """A file of JSON with each value in the place of each part, with a part left out, and cut short."""
    whole = json.dumps(good)
    yield from ("", "\x00", "[", whole[: len(whole) // 2], f"[{whole}]", "[" * 5000)
    yield from (json.dumps(value) for value in JSON_VALUES)
    for place in places(good):
        for value in (*JSON_VALUES, ...):
            changed = json.loads(whole)
            at = changed
            for step in place[:-1]:
                at = at[step]
            if value is ...:
                del at[place[-1]]
            else:
                at[place[-1]] = value
            yield json.dumps(changed)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of a value."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in steps:
        yield (*above, step)
        yield from places(part, (*above, step))
