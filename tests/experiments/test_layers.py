"""Which runs of single layers there are: of each layer, and of the first few of an order."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
from small_sweep import STUDY

from beft.anatomy.projections import describe
from beft.errors import BeftError
from beft.experiments import layers
from beft.experiments.grid import Cell
from beft.models import loading
from beft.records.store import Store
from beft.study import Study, parse_method

CELL = Cell(STUDY, (0, 3), 0.01, {"b_v": 0.02})


def test_each_layer_of_each_term_is_tuned_alone_beside_the_term_and_the_head():
    ((study, runs),) = layers.alone([CELL], ["b_q", "b_v"])
    assert study == STUDY and {run.seed for run in runs} == {0, 3}
    assert list(dict.fromkeys(run.method for run in runs)) == ["b_q[0]", "b_q[1]", "b_v[0]", "b_v[1]"]
    assert {run.rate for run in runs if run.method.startswith("b_v")} == {0.02}, "a term's rate is that of its layers"
    assert {run.rate for run in runs if not run.method.startswith("b_v")} == {0.01}
    ((study, runs),) = layers.whole([CELL], ["b_q", "b_v", "b_v"])
    assert study == STUDY and {run.seed for run in runs} == {0, 3}
    assert [run.method for run in runs if run.seed == 3] == ["head", "b_q", "b_v"]
    assert [run.rate for run in runs if run.seed == 3] == [0.01, 0.01, 0.02]


def test_layers_of_a_language_model_are_tuned_alone_on_prompts():
    study = Study("tiny-llama", "microworld_sentiment", prompted=True, offline=True)
    ((_, runs),) = layers.alone([Cell(study, (0,), 0.01, {})], ["b_v"])
    layers_of_model = describe(loading.load_causal("tiny-llama", offline=True).model).layers
    assert [run.method for run in runs] == [f"b_v[{n}]" for n in range(layers_of_model)]
    ((_, runs),) = layers.whole([Cell(study, (0,), 0.01, {})], ["b_v"])
    assert [run.method for run in runs] == ["b_v"], "no head to train"


@pytest.fixture
def swept(monkeypatch):
    """A sweep that trains nothing: the tuning score of a run is the share of `best` that its rate comes to."""
    asked = []

    def run_all(jobs, store):
        asked.append(jobs)
        return [[record(run) for run in runs] for _, runs in jobs]

    def record(run):
        best = {"b_v": 0.1, "b_q": 0.03}[run.method.partition("[")[0]]
        final = {"tuning": min(run.rate / best, best / run.rate), "validation": 1.0 - run.rate}
        return {"settings": {"method": run.method, "rate": run.rate, "seed": run.seed}, "outcome": "ok", "final": final}

    monkeypatch.setattr(layers.sweep, "run_all", run_all)
    return asked


HELD_OUT = Cell(replace(STUDY, tuning=0.2), (0, 3), 0.01, {"b_v": 0.02})


def test_the_rate_of_single_layers_is_chosen_for_each_term_on_the_tuning_split(swept):
    assert layers.rates_alone([HELD_OUT], ["b_q", "b_v"], [0.1, 0.03, 0.01], None) == [{"b_q": 0.03, "b_v": 0.1}]
    (((study, runs),),) = swept
    assert study == HELD_OUT.study and {run.seed for run in runs} == {0}
    assert len(runs) == 2 * 2 * 3, "both layers of the two-layer model, at every rate"


def test_without_rates_to_choose_from_single_layers_have_that_of_their_term(swept):
    assert layers.rates_alone([CELL], ["b_q", "b_v"], [], None) == [{"b_q": 0.01, "b_v": 0.02}] and not swept
    with pytest.raises(BeftError, match="held_out above 0"):
        layers.rates_alone([CELL], ["b_v"], [0.1], None)


def test_single_layers_are_tuned_at_the_chosen_rate_and_all_of_them_at_that_of_the_cell():
    ((_, runs),) = layers.alone([CELL], ["b_v"], [{"b_v": 0.1}])
    assert {run.rate for run in runs} == {0.1}
    ((_, runs),) = layers.whole([CELL], ["b_v"])
    assert {run.rate for run in runs if run.method == "b_v"} == {0.02}


def test_few_layers_are_the_first_of_each_order_and_a_set_of_layers_is_tuned_once(swept):
    (records,) = layers.few([CELL], [{"b_v": [[2, 0, 1], [0, 2, 1]]}], [1, 2, 3], None, [{"b_v": 0.1}])
    kept = [r["settings"] for r in records if r["settings"]["seed"] == 0]
    assert [s["method"] for s in kept] == ["b_v[2]", "b_v[0,2]", "b_v[0]"]
    assert {s["rate"] for s in kept} == {0.1} and len(swept[0][0][1]) == 3, "no tuning split, nothing to choose by"


def test_a_few_layers_have_the_best_rate_on_the_tuning_split(swept):
    layers.few([HELD_OUT], [{"b_q": [[1, 0, 2]]}], [2], None, [{"b_q": 0.3}], [0.03, 0.3])
    assert {r.rate for r in swept.pop(0)[0][1]} == {0.01, 0.03, 0.3}
    assert {r.rate for r in swept.pop()[0][1]} == {0.03}
    (records,) = layers.few([HELD_OUT], [{"b_q": [[1, 0, 2]]}], [1, 2], None, [{"b_q": 0.3}])
    tried, final = swept
    assert [(r.method, r.rate) for r in tried[0][1]] == [("b_q[1]", 0.3), ("b_q[0:2]", 0.01), ("b_q[0:2]", 0.3)]
    assert {(r["settings"]["method"], r["settings"]["rate"]) for r in records} == {("b_q[1]", 0.3), ("b_q[0:2]", 0.01)}
    assert len(records) == 4, "every seed"


@pytest.mark.parametrize("term", ["all_biases", "head", "lora", "b_v:lora", "b_v[0]"])
def test_what_is_no_single_term_is_refused(term):
    with pytest.raises(BeftError, match="is no single term with layers of its own"):
        layers.alone([CELL], [term])
    with pytest.raises(BeftError, match="is no single term with layers of its own"):
        layers.forward([HELD_OUT], [term], 1, None)


@pytest.fixture
def searched(monkeypatch):
    """A sweep of a four-layer model that trains nothing: layers 1 and 2 do the same, layer 3 adds to what they do."""
    asked = []

    def score(method):
        tuned = {n for n in range(4) if n in parse_method(method).layers}
        return 0.5 + 0.3 * bool(tuned & {1, 2}) + 0.01 * (2 in tuned) + 0.1 * (3 in tuned)

    def run_all(jobs, store):
        asked.append([r.method for _, runs in jobs for r in runs])
        return [[record(r) for r in runs] for _, runs in jobs]

    def record(run):
        final = {"tuning": score(run.method) + (0.2 if run.seed else -0.2), "validation": 0.0}
        failed = run.method == "b_v[0]" and run.seed
        settings = {"method": run.method, "rate": run.rate, "seed": run.seed}
        return {"settings": settings, "outcome": "diverged" if failed else "ok", "final": final}

    monkeypatch.setattr(layers.sweep, "run_all", run_all)
    monkeypatch.setattr(layers, "_depth", lambda study: 4)
    return asked


def test_a_forward_search_passes_over_a_layer_that_repeats_a_chosen_one(searched):
    assert layers.forward([HELD_OUT], ["b_v"], 1, None) == [{"b_v": [2, 1, 3, 0]}], "by single layers 1 is the second"
    searched.clear()
    assert layers.forward([HELD_OUT], ["b_v"], 3, None) == [{"b_v": [2, 3, 0, 1]}], "equal ones by number"
    steps = [list(dict.fromkeys(names)) for names in searched]
    assert steps == [
        ["b_v[0]", "b_v[1]", "b_v[2]", "b_v[3]"],
        ["b_v[0,2]", "b_v[1:3]", "b_v[2:4]"],
        ["b_v[0,2:4]", "b_v[1:4]"],
    ]
    assert all(len(names) == 2 * len(set(names)) for names in searched), "every seed of the cell"


def without_training(monkeypatch, depth, score):
    """A sweep of a model of so many layers whose runs have the tuning scores `score(run, layer)`."""

    def record(run):
        settings = {"method": run.method, "rate": run.rate, "seed": run.seed}
        final = {"tuning": score(run, *parse_method(run.method).layers)}
        return {"settings": settings, "outcome": "ok", "final": final}

    monkeypatch.setattr(layers.sweep, "run_all", lambda jobs, store: [[record(r) for r in runs] for _, runs in jobs])
    monkeypatch.setattr(layers, "_depth", lambda study: depth)


def test_means_that_differ_by_rounding_alone_are_ties(monkeypatch):
    uneven, even = (0.6, 0.61, 0.695), (0.635,) * 3
    assert fmean(even) > fmean(uneven)  # by the last bit
    without_training(monkeypatch, 6, lambda run, n: (uneven if run.rate == 0.01 else even)[(1, 3, 4).index(n)])
    assert layers.rates_alone([HELD_OUT], ["b_v"], [0.1, 0.01], None) == [{"b_v": 0.01}], "the smaller rate"
    without_training(monkeypatch, 2, lambda run, n: (even if n else uneven)[run.seed])
    cell = replace(HELD_OUT, seeds=(0, 1, 2))
    assert layers.forward([cell], ["b_v"], 1, None) == [{"b_v": [0, 1]}], "by number"


def test_a_forward_search_has_at_most_as_many_steps_as_layers_and_needs_rows_held_out(searched):
    (found,) = layers.forward([HELD_OUT], ["b_q", "b_v"], 9, None, [{"b_v": 0.1}])
    assert {term: sorted(order) for term, order in found.items()} == {"b_q": [0, 1, 2, 3], "b_v": [0, 1, 2, 3]}
    searched.clear()
    assert layers.forward([CELL], [], 2, None) == [{}] and layers.forward([], ["b_v"], 2, None) == []
    assert not any(searched), "nothing is run for no term"
    with pytest.raises(BeftError, match="a forward search chooses layers on a tuning split: give the cell a held_out"):
        layers.forward([CELL], ["b_v"], 2, None)


def test_a_forward_search_follows_the_records_it_leaves_and_trains_none_of_them_twice(tmp_path, monkeypatch):
    store, cell = Store(tmp_path), Cell(replace(STUDY, tuning=0.25, epochs=1), (0, 1), 0.01, {})
    (found,) = layers.forward([cell], ["b_v"], 3, store)  # of two layers
    scores = {}
    for record in store.all("run"):
        scores.setdefault(record["settings"]["method"], []).append(record["final"]["tuning"])
    assert set(scores) == {"b_v[0]", "b_v[1]", "b_v[0:2]"} and {len(own) for own in scores.values()} == {2}
    assert found == {"b_v": [0, 1] if sum(scores["b_v[0]"]) >= sum(scores["b_v[1]"]) else [1, 0]}
    monkeypatch.setattr(layers.sweep, "fit", None)
    assert layers.forward([cell], ["b_v"], 3, store) == [found]


def test_layers_may_be_chosen_with_fewer_seeds_than_they_are_compared_with():
    assert layers.choosing([CELL], [3]) == [replace(CELL, seeds=(3,))]
    assert layers.choosing([CELL], []) == [CELL]
