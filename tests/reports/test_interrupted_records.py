"""A record made after an interruption is that of an undisturbed sweep in everything but times and peak memory.

That holds wherever the sweep stops: within a bank, between two records of one, or between two banks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_sweep import STUDY, timeless

from beft.experiments import sweep
from beft.records.store import Store
from beft.study import Run
from beft.training.loop import fit

# in banks of at most three: 2, 3, 2 and 3 runs, and the heads in banks of their own
RUNS = [Run("b_v", seed, 1e-2) for seed in range(10)] + [Run("head", seed, 1e-2) for seed in range(2)]
SHORT = replace(STUDY, regime=24, epochs=2, tuning=0.25)


def go(store: Store) -> list[Any]:
    return [timeless(record) for record in sweep.run(SHORT, RUNS, store, progress=False, bank_size=3)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return go(Store(tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize(("banks", "epoch"), [(1, 1), (2, 0), (3, 1)])
def test_a_sweep_that_stopped_in_a_bank_ends_as_if_it_had_not(tmp_path, monkeypatch, undisturbed, banks, epoch):
    """The first bank is the heads'."""
    store, begun = Store(tmp_path), []

    def stopping(*arguments, **more):
        begun.append(1)
        for state in fit(*arguments, **more):
            if len(begun) == banks + 1 and state.number == epoch:
                raise KeyboardInterrupt
            yield state

    monkeypatch.setattr(sweep, "fit", stopping)
    with pytest.raises(KeyboardInterrupt):
        go(store)
    monkeypatch.undo()
    assert 0 < len(store.all("run")) < len(RUNS)
    assert go(store) == undisturbed


@pytest.mark.parametrize("written", [1, 5])
def test_a_sweep_that_stopped_between_two_records_of_a_bank_ends_as_if_it_had_not(
    tmp_path, monkeypatch, undisturbed, written
):
    store, write = Store(tmp_path), Store.write

    def stopping(self, record):
        if len(self.all("run")) == written:
            raise KeyboardInterrupt
        return write(self, record)

    monkeypatch.setattr(Store, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        go(store)
    monkeypatch.undo()
    assert go(store) == undisturbed
