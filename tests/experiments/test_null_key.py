"""A run of a null b_k is the run of the head alone: not trained unless that is asked for, as its record says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from small_sweep import STUDY

from beft.experiments import null_key, sweep
from beft.experiments.context import Context
from beft.records.store import Store
from beft.study import Run, Study

KEY, HEAD = Run("b_k", 0, 1e-2), Run("head", 0, 1e-2)
NUMBERS = ("epochs", "final", "best", "seconds", "outcome", "bank")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_RUN_LOG", str(tmp_path / "log"))
    return Store(tmp_path / "results")


def go(store, *runs, study=STUDY, **more):
    return sweep.run(study, list(runs), store, progress=False, **more)


def log(store):
    return [json.loads(line) for line in (store.folder.parent / "log").read_text().splitlines()]


def test_a_null_b_k_has_the_numbers_of_the_head_and_its_own_settings(store):
    key, value, head = go(store, KEY, Run("b_v", 0, 1e-2), HEAD)
    assert key["same_as"] == head["key"] != key["key"] and "same_as" not in head | value
    assert {name: key[name] for name in NUMBERS} == {name: head[name] for name in NUMBERS}
    assert key["settings"] == head["settings"] | {"method": "b_k"}
    assert key["parameters"] == value["parameters"], "b_k is as large as b_v here"
    assert log(store) == [{"done": 2, "reused": 1, "failed": 0}]


def test_the_head_is_trained_for_it_where_nobody_asked_for_the_head_and_then_kept(store):
    (key,) = go(store, KEY)
    (head,) = go(store, HEAD)
    assert key["same_as"] == head["key"]
    assert go(store, KEY) == [key]
    assert [entry["done"] for entry in log(store)] == [1, 0, 0]


def test_it_is_trained_when_asked_for_and_comes_to_the_same_but_for_rounding(store):
    borrowed, _ = go(store, KEY, HEAD)
    computed, head = go(store, KEY, HEAD, compute_null=True)
    assert computed["key"] == borrowed["key"] and "same_as" not in computed
    losses = [[epoch["train_loss"] for epoch in record["epochs"]] for record in (computed, head)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert losses[0] != losses[1] or computed["bank"]["of"] != head["bank"]["of"]
    assert go(store, KEY) == [computed], "what was computed stays"


def test_a_lost_head_makes_a_lost_b_k(store):
    wild = [replace(run, rate=1e9) for run in (KEY, HEAD)]
    key, head = go(store, *wild)
    assert head["outcome"].startswith("diverged") and key["outcome"] == head["outcome"]


def test_scored_after_each_epoch_serves_where_the_last_is_asked_for(store):
    go(store, HEAD)
    (key,) = go(store, KEY, study=replace(STUDY, validate="last"))
    assert log(store)[-1]["done"] == 0 and key["settings"]["validate"] == "each"


def test_an_adapter_of_b_k_is_trained_as_b_k(store):
    go(store, KEY)
    folder = sweep.adapter(STUDY, KEY, store)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert any("key" in name for name in config["target_modules"])


@pytest.mark.parametrize(
    ("study", "method"),
    [
        (STUDY, "b_q"),
        (STUDY, "lora"),
        (Study(model="tiny-llama", task="microworld_choices", regime=8, prompted=True, offline=True), "b_k"),
    ],
)
def test_no_other_run_borrows_its_numbers(study, method):
    assert null_key.stand_in(Context(study), Run(method, 0, 1e-2)) is None


def test_a_form_of_b_k_borrows_too():
    assert null_key.stand_in(Context(STUDY), Run("b_k:lora", 3, 1e-2)) == Run("head", 3, 1e-2)
