"""How many runs a bank has: bounded by memory that is measured, and halved where that was not enough."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from beft.errors import BeftError, OutOfMemory
from beft.experiments import packing, sweep
from beft.experiments.context import Context
from beft.models import loading as models
from beft.records.store import Store
from beft.study import Run, Study
from beft.training.loop import fit

STUDY = Study(
    model=models.TINY, task="microworld_sentiment", regime=48, epochs=2, max_length=64, offline=True
)
CPU = torch.device("cpu")


def runs(*methods, seeds=range(4)):
    return [Run(m, seed, 1e-2) for m in methods for seed in seeds]


@pytest.fixture(scope="module")
def context():
    return Context(STUDY)


def test_what_a_run_keeps_is_four_numbers_for_each_that_a_row_of_the_bank_has(context):
    hidden, layers, vocabulary = 32, 2, 2
    config = context.loaded.model.config
    assert (config.hidden_size, config.num_hidden_layers) == (hidden, layers), "the tiny model has changed"
    head = vocabulary * hidden + vocabulary
    run, _ = packing.footprint(context, ["b_v"], CPU)
    assert run == 4 * 4 * (layers * hidden + hidden + head)  # b_v, the pooler's bias, the head
    both, _ = packing.footprint(context, ["b_q", "b_v"], CPU)
    assert both == 4 * 4 * (2 * layers * hidden + hidden + head)


def test_a_chunk_keeps_activations_for_a_tuned_encoder_and_next_to_none_for_a_frozen_one(context):
    tuned, frozen = (packing.footprint(context, [m], CPU)[1] for m in ("all_biases", "head"))
    assert tuned > 20 * max(frozen, 1)
    longer = Context(replace(STUDY, max_length=128))
    assert packing.footprint(longer, ["all_biases"], CPU)[1] == pytest.approx(tuned, rel=0.5)


def test_a_bank_has_as_many_runs_as_fit(context):
    run, chunk = packing.footprint(context, ["b_q", "b_v"], CPU)
    wanted = runs("b_q", "b_v")
    for fit_in in (1, 3, 7):
        free = int((chunk + (fit_in + 0.5) * run) / packing.SHARE)
        assert packing.bank_size(context, wanted, free=free) == fit_in
    assert packing.bank_size(context, wanted, free=10**12) == packing.BANK
    assert packing.bank_size(context, wanted, free=0) == 1
    assert 1 <= packing.bank_size(context, wanted) <= packing.BANK


def test_measuring_leaves_the_model_as_it_was(context):
    before = {n: p.clone() for n, p in context.loaded.model.state_dict().items()}
    packing.footprint(context, ["all_biases", "b_v"], CPU)
    assert all(torch.equal(p, before[n]) for n, p in context.loaded.model.state_dict().items())
    assert not context.loaded.model.beft_bank


def test_a_bank_that_does_not_fit_is_halved_until_it_does(tmp_path, monkeypatch, capsys):
    sizes = []

    def small(loaded, data, study, members, **more):
        sizes.append(len(members))
        if len(members) > 2:
            raise OutOfMemory(f"not enough memory for {len(members)} runs")
        return fit(loaded, data, study, members, **more)

    monkeypatch.setattr(sweep, "fit", small)
    records = sweep.run(STUDY, runs("b_v", seeds=range(5)), Store(tmp_path), progress=False)
    assert sizes == [5, 2, 3, 1, 2]
    assert [r["settings"]["seed"] for r in records] == list(range(5))
    assert all(r["outcome"] == "ok" for r in records)
    assert "not enough memory for 5 runs; going on with banks of half the size" in capsys.readouterr().out


def test_the_bank_that_did_not_fit_is_gone_when_its_halves_are_trained(tmp_path, monkeypatch):
    """An error that is being handled keeps its traceback, and that the bank's tensors: on a GPU nothing would fit."""
    first = []

    def small(loaded, data, study, members, **more):
        if len(members) > 1:
            tensors = torch.zeros(10)
            first.append(weakref.ref(tensors))
            raise OutOfMemory("not enough memory")
        gc.collect()
        assert first[0]() is None
        return fit(loaded, data, study, members, **more)

    monkeypatch.setattr(sweep, "fit", small)
    assert len(sweep.run(STUDY, runs("b_v", seeds=range(2)), Store(tmp_path), progress=False)) == 2


def test_where_not_one_run_fits_the_sentence_says_so_and_what_was_finished_stays(tmp_path, monkeypatch):
    def never(loaded, data, study, members, **more):
        if members[0].seed:
            raise OutOfMemory("not enough memory on cpu: use a smaller model")
        return fit(loaded, data, study, members, **more)

    monkeypatch.setattr(sweep, "fit", never)
    store = Store(tmp_path)
    with pytest.raises(BeftError, match="not enough memory on cpu: use a smaller model"):
        sweep.run(STUDY, runs("b_v", seeds=range(3)), store, progress=False, bank_size=1)
    assert [r["settings"]["seed"] for r in store.all()] == [0]
