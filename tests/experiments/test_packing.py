"""How many runs a bank has: bounded by an estimate of memory, and halved where that was not enough."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from beft.bank.baselines import open_bank
from beft.errors import BeftError, OutOfMemory
from beft.experiments import memory, packing, sweep
from beft.experiments.context import Context
from beft.models import loading as models
from beft.records.schema import key
from beft.records.store import Store
from beft.study import Run, Study
from beft.training.loop import fit

STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=2, max_length=64, offline=True)


def runs(*methods, seeds=range(4)):
    return [Run(m, seed, 1e-2) for m in methods for seed in seeds]


@pytest.fixture(scope="module")
def context():
    return Context(STUDY)


def size(model, methods, free, longest=64):
    return memory.bank_size(model, methods, longest, "float32", free=free)


def test_a_bank_has_as_many_runs_as_fit_beside_a_chunk(context):
    """A run keeps four numbers for each that a row of the bank has: its value, its gradient and two moments."""
    hidden, layers, vocabulary = 32, 2, 2
    model = context.loaded.model
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (hidden, layers)
    head = vocabulary * hidden + vocabulary
    run = 4 * 4 * (2 * layers * hidden + hidden + head)  # b_q, b_v, the pooler's bias, the head
    chunk = layers * memory.kept_by_layers(model.config, 1024, 16, 4)[1]
    for fit_in in (1, 3, 7):
        free = int((chunk + (fit_in + 0.5) * run) / memory.SHARE)
        assert size(model, ["b_q", "b_v", "b_v"], free) == fit_in
    assert size(model, ["b_q", "b_v"], 10**12) == memory.BANK
    assert size(model, ["b_q", "b_v"], 0) == 1
    assert 1 <= size(model, ["b_q", "b_v"], None) <= memory.BANK


def test_a_gpu_takes_larger_banks(context, monkeypatch):
    monkeypatch.setattr(memory, "default_device", lambda: "cuda")
    assert memory.largest_bank() == memory.GPU_BANK > memory.BANK
    with monkeypatch.context() as on_cpu:
        on_cpu.setattr(memory, "default_device", lambda: "cpu")
        assert memory.largest_bank() == memory.BANK


def test_a_frozen_encoder_keeps_no_chunk(context):
    run = 4 * 4 * (32 + 66)  # the pooler's bias, the head
    assert size(context.loaded.model, ["head"], int(5.5 * run / memory.SHARE)) == 5


def test_the_estimate_leaves_the_model_as_it_was(context):
    before = {n: p.clone() for n, p in context.loaded.model.state_dict().items()}
    size(context.loaded.model, ["all_biases", "b_v"], 10**9)
    assert all(torch.equal(p, before[n]) for n, p in context.loaded.model.state_dict().items())
    open_bank(context.loaded.model, ["head"], [0]).detach()  # no bank is on it


def test_runs_of_a_study_share_banks_of_the_size_that_fits(context, monkeypatch):
    monkeypatch.setattr(packing, "bank_size", lambda *a: 3)
    banks = list(packing.pack(context, runs("head", "b_v", "full", seeds=range(4))))
    assert [len(bank) for bank in banks] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_record_says_how_its_bank_was_cut_into_chunks(tmp_path):
    (record,) = sweep.run(STUDY, runs("b_v", seeds=[0]), Store(tmp_path), progress=False)
    assert record["bank"]["chunk_tokens"] == memory.CHUNKS["cpu"].tokens
    assert record["bank"]["recomputed"] is False


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


def divided(context, store, done, wanted, size):
    """The banks of what is wanted, where `done` has records."""
    by_key = {key(context.settings(run)): run for run in wanted}
    missing = [name for name, run in by_key.items() if run not in done]
    return list(packing.divide(context, by_key, missing, store, size))


def test_what_other_sweeps_have_left_is_packed_by_itself(context, tmp_path):
    wanted, store = runs("b_v", seeds=range(10)), Store(tmp_path)
    whole = list(packing.pack(context, wanted, 3))
    assert [len(bank) for bank in whole] == [2, 3, 2, 3]
    assert divided(context, store, [], wanted, 3) == whole
    assert divided(context, store, [*whole[0], *whole[2]], wanted, 3) == [whole[1], whole[3]]
    assert divided(context, store, wanted[:3], wanted, 3) == list(packing.pack(context, wanted[3:], 3))
    assert divided(context, store, wanted, wanted, 3) == []


def test_a_bank_with_a_checkpoint_keeps_its_runs_whatever_the_size_of_banks_now(context, tmp_path, monkeypatch):
    wanted, store = runs("b_v", seeds=range(6)), Store(tmp_path)
    begun = wanted[1:4]

    def stopping(*arguments, **more):
        for epoch in fit(*arguments, **more):
            if epoch.number == 2:
                raise KeyboardInterrupt
            yield epoch

    monkeypatch.setattr(sweep, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        sweep.train(context, begun, store)
    assert divided(context, store, [], wanted, 2) == [begun, *packing.pack(context, [wanted[0], *wanted[4:]], 2)]
    assert divided(context, store, begun[:2], wanted, 6)[0] == begun
    # who wants some of them only, or has them all, does not go on with it
    assert divided(context, store, [], wanted[:2], 6) == [wanted[:2]]
    assert divided(context, store, begun, wanted, 6) == [[wanted[0], *wanted[4:]]]
