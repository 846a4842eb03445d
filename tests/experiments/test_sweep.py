"""A sweep trains what is missing and nothing else, and nothing that was finished is ever lost or touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import RUNS, STUDY, timeless

from beft.bank import peft_adapter as adapters
from beft.data import sources as data_module
from beft.errors import BeftError
from beft.experiments import sweep
from beft.models import loading as models
from beft.records.store import Store
from beft.study import Run, Study
from beft.training import loop as training
from beft.training.loop import fit


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def banks(monkeypatch):
    """The runs of every call of `fit`, in order."""
    seen = []

    def counted(loaded, data, study, runs, **more):
        seen.append(list(runs))
        return fit(loaded, data, study, runs, **more)

    monkeypatch.setattr(sweep, "fit", counted)
    return seen


def go(store, runs=RUNS, study=STUDY, **more):
    return sweep.run(study, runs, store, progress=False, **more)


def files(store):
    """Content and time of every record file."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(store.folder.glob("*.json"))}


def test_records_come_in_the_order_of_the_runs_with_heads_banked_apart(store, banks):
    records = go(store)
    assert [(r["settings"]["method"], r["settings"]["seed"], r["settings"]["rate"]) for r in records] == [
        (r.method, r.seed, r.rate) for r in RUNS
    ]
    assert banks == [[RUNS[1]], [RUNS[0], RUNS[2], RUNS[3]]]
    assert [r["bank"]["runs"] for r in records] == [3, 1, 3, 3]
    assert all(len(r["epochs"]) == 3 and r["outcome"] == "ok" for r in records)
    assert sorted(r["key"] for r in store.all("run")) == sorted(r["key"] for r in records)
    assert not list((store.folder / "checkpoints").iterdir())


def test_banks_have_at_most_the_asked_size_and_are_nearly_equal(store, banks):
    go(store, [Run("head", seed, 1e-2) for seed in range(5)], replace(STUDY, epochs=1), bank_size=3)
    assert [len(bank) for bank in banks] == [2, 3]


def test_only_missing_runs_are_trained_and_nothing_is_loaded_for_none(store, banks, monkeypatch):
    go(store, RUNS[:2])
    before = files(store)
    banks.clear()
    records = go(store)
    assert banks == [[RUNS[2], RUNS[3]]]
    assert {name: files(store)[name] for name in before} == before
    banks.clear()
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("the model was read for nothing"))
    assert go(store) == records and go(store, [RUNS[3], RUNS[3]]) == [records[3]] * 2
    assert banks == []


def test_a_deleted_record_is_made_again_and_the_others_are_not_touched(store, banks):
    first, kept = go(store), files(store)
    (store.folder / store.name(first[2]["settings"])).unlink()
    banks.clear()
    again = go(store)
    assert banks == [[RUNS[2]]]
    assert again[2]["settings"] == first[2]["settings"]
    assert again[2]["final"]["validation"] == pytest.approx(first[2]["final"]["validation"], abs=0.02)
    assert {name for name, content in files(store).items() if kept.get(name) == content} == set(kept) - {
        store.name(first[2]["settings"])
    }


def test_jobs_of_one_study_share_banks_and_records_come_job_by_job(store, banks):
    other = replace(STUDY, task="microworld_similarity", regime=32)
    jobs = [(STUDY, RUNS[:2]), (other, RUNS[:1]), (STUDY, [RUNS[3], RUNS[0]])]
    records = sweep.run_all(jobs, store, progress=False)
    assert banks == [[RUNS[1]], [RUNS[0], RUNS[3]], [RUNS[0]]]
    assert [[r["settings"]["task"] for r in part] for part in records] == [
        ["microworld_sentiment"] * 2,
        ["microworld_similarity"],
        ["microworld_sentiment"] * 2,
    ]
    assert records[0][0] == records[2][1] and len(store.all("run")) == 4
    assert sweep.run_all(jobs, store, progress=False) == records and len(banks) == 3


def test_rows_are_read_once_for_a_sweep_and_the_model_once_for_a_kind_of_head(store, monkeypatch):
    read = {"data": [], "model": []}
    for name, module in (("data", data_module), ("model", models)):
        load = module.load
        monkeypatch.setattr(
            module, "load", lambda *a, name=name, load=load, **k: (read[name].append(a[0]), load(*a, **k))[1]
        )
    short = replace(STUDY, epochs=1)
    sweep.run_all([(replace(short, clip=c), RUNS[:1]) for c in (1.0, 2.0, 3.0)], store, progress=False)
    assert read == {"data": [STUDY.task], "model": [STUDY.model]}


def test_the_bar_counts_the_rows_of_all_that_is_missing_and_ends_full(store, monkeypatch, banks):
    bars = []

    class Bar(sweep.Bar):
        def __init__(self, *a, **more):
            super().__init__(*a, **more | {"disable": False, "file": open(os.devnull, "w")})
            bars.append(self)

    monkeypatch.setattr(sweep, "Bar", Bar)
    go(store, RUNS[:1])
    assert (bars[-1].total, bars[-1].n) == (3 * 48, 3 * 48)
    jobs = [(STUDY, RUNS), (replace(STUDY, epochs=2), RUNS[:2])]
    sweep.run_all(jobs, store, progress=False)
    assert bars[-1].total == bars[-1].n == 3 * 3 * 48 + 2 * 2 * 48


def test_another_setting_is_another_run(store, banks):
    go(store, RUNS[:1])
    for changed in ({"epochs": 2}, {"regime": 40}, {"batch_size": 8}, {"tuning": 0.25}, {"clip": 0.5}):
        go(store, RUNS[:1], replace(STUDY, **changed))
    assert len(banks) == len(store.all("run")) == 6


def test_two_fresh_stores_hold_the_same_records_but_for_times(tmp_path):
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    go(one)
    go(two)
    assert files(one).keys() == files(two).keys()
    assert [timeless(r) for r in one.all()] == [timeless(r) for r in two.all()]


def test_a_run_scored_after_each_epoch_serves_where_the_last_is_asked_for_but_not_the_other_way(store, banks):
    (each,) = go(store, RUNS[:1])
    assert go(store, RUNS[:1], replace(STUDY, validate="last")) == [each]
    assert len(banks) == 1
    go(store, RUNS[2:3], replace(STUDY, validate="last"))
    go(store, RUNS[2:3])
    assert len(banks) == 3


def test_the_runner_is_told_what_was_done_reused_and_failed(store, tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_RUN_LOG", str(tmp_path / "log"))
    study = replace(STUDY, epochs=1)
    go(store, RUNS[:2], study)
    go(store, [*RUNS[:2], RUNS[0], Run("b_v", 0, 1e9)], study)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [{"done": 2, "reused": 0, "failed": 0}, {"done": 0, "reused": 2, "failed": 1}]


def test_an_interrupt_before_the_records_are_written_costs_no_more_than_an_epoch(store, monkeypatch):
    steps = []
    step = training.StackedAdam.step
    monkeypatch.setattr(training.StackedAdam, "step", lambda self, factor: (steps.append(1), step(self, factor))[1])

    def stop(self, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            go(store, RUNS[:1])
    assert len(steps) == 9 and store.all() == []
    (record,) = go(store, RUNS[:1])
    assert len(steps) == 9 + 3 and record["outcome"] == "ok"


KILLED = """
import sys, time
from pathlib import Path
from beft.experiments import sweep
from beft.records import Store
from small_sweep import RUNS, STUDY
fit, marker, calls = sweep.fit, Path(sys.argv[2]), []
def slow(*arguments, **more):
    calls.append(1)
    for epoch in fit(*arguments, **more):
        if len(calls) == 3 and epoch.number == 2:
            marker.touch()
            time.sleep(600)
        yield epoch
sweep.fit = slow
sweep.run(STUDY, RUNS, Store(sys.argv[1]), progress=False, bank_size=1)
"""


def test_a_killed_sweep_is_resumed_with_the_missing_runs_only(tmp_path, store, banks):
    """Killed in the third of four banks: two records stay untouched, the third run goes on after its second epoch."""
    root, marker = Path(__file__).resolve().parents[2], tmp_path / "in-the-third-bank"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.folder), str(marker)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not marker.exists() and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = files(store)
    assert len(before) == 2
    # what a kill in the middle of a write leaves behind
    (store.folder / ".half.json.12ab.tmp").write_text('{"schema": 1, "ki')
    (store.folder / "checkpoints" / "other.safetensors.1.tmp").write_bytes(b"half")
    epochs = []

    def noted(loaded, data, study, runs, **more):
        for epoch in fit_before(loaded, data, study, runs, **more):
            epochs.append(epoch.number)
            yield epoch

    fit_before, sweep.fit = sweep.fit, noted
    try:
        records = go(store, bank_size=1)
    finally:
        sweep.fit = fit_before
    assert len(banks) == 2 and epochs == [
        2,
        3,
        0,
        1,
        2,
        3,
    ]  # the third from its checkpoint, the fourth from the start
    assert {name: files(store)[name] for name in before} == before
    fresh = go(Store(tmp_path / "fresh"), bank_size=1)
    assert [timeless(r) for r in records] == [timeless(r) for r in fresh]


def test_an_adapter_is_at_hand_or_trained_again_without_touching_the_record(store, banks, tiny):
    go(store, RUNS[:1])
    folder = sweep.adapter(STUDY, RUNS[0], store)
    before, weights = files(store), (folder / adapters.WEIGHTS).read_bytes()
    assert len(banks) == 1
    shutil.rmtree(folder)
    again = sweep.adapter(STUDY, RUNS[0], store)
    assert len(banks) == 2 and again == folder
    assert (again / adapters.WEIGHTS).read_bytes() == weights
    assert files(store) == before
    adapters.load_tuned(tiny.model, again)


def test_the_adapter_of_a_run_scored_after_each_epoch_serves_a_study_that_asks_for_the_last(store, banks):
    go(store, RUNS[:1])
    last = replace(STUDY, validate="last")
    assert sweep.adapter(last, RUNS[0], store) == sweep.adapter(STUDY, RUNS[0], store)
    assert len(banks) == len(store.all("run")) == 1
    go(store, RUNS[3:], last)
    assert sweep.adapter(STUDY, RUNS[3], store) == sweep.adapter(last, RUNS[3], store)
    assert len(banks) == len(store.all("run")) == 2, "nor the other way"


def test_a_run_that_was_never_trained_gets_its_record_with_its_adapter(store, banks):
    assert (sweep.adapter(STUDY, RUNS[0], store) / adapters.WEIGHTS).exists()
    assert [r["settings"]["method"] for r in store.all("run")] == ["b_v"] and len(banks) == 1


def test_a_diverged_run_is_recorded_once_and_has_no_adapter(store, banks):
    bad = Run("b_v", 0, 1e9)
    good, record = go(store, [RUNS[0], bad])
    assert good["outcome"] == "ok" and record["outcome"].startswith("diverged")
    assert record["final"]["validation"] is None
    assert go(store, [bad]) == [record] and len(banks) == 1
    with pytest.raises(BeftError, match="b_v run of seed 0 has no adapter: diverged"):
        sweep.adapter(STUDY, bad, store)
    assert len(banks) == 1


def test_ones_own_file_is_named_in_its_record_without_its_folder(store, tmp_path):
    rows = "".join(f"{word} {i},{label}\n" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12))
    (tmp_path / "mine.csv").write_text("text,label\n" + rows)
    (record,) = go(store, RUNS[:1], replace(STUDY, task=str(tmp_path / "mine.csv"), regime="all", epochs=1))
    assert record["settings"]["task"] == record["data"]["task"] == "mine"
    assert str(tmp_path) not in json.dumps(record)


def test_on_real_data_a_short_run_of_b_v_is_better_than_the_head_alone(store, real_data, default_model, monkeypatch):
    """200 sentences of SST-2, 3 epochs, one seed: about 0.67 against 0.49 of all 872 validation sentences."""
    monkeypatch.setenv("BEFT_DATA", str(real_data))
    study = Study(task="sst2", regime=200, epochs=3, validate="last", offline=True)
    head, b_v = go(store, [Run(method, 1, 1e-2) for method in ("head", "b_v")], study)
    for record in (head, b_v):
        assert record["data"]["rows"]["validation"] == 872 and not record["data"]["substitute"]
    assert b_v["final"]["validation"] > head["final"]["validation"] + 0.08


TWO = """
import sys
from beft.experiments import sweep
from beft.records import Store, folders
from small_sweep import RUNS, STUDY
folders.WAITS = 0.1
sweep.run(STUDY, RUNS, Store(sys.argv[1]), progress=False, bank_size=1)
"""


def test_two_sweeps_on_one_folder_both_finish_and_train_every_run_once(tmp_path, store, monkeypatch):
    """The other, in a process of its own, waits for the first bank of this one; then they go on side by side."""
    root, log, others = Path(__file__).resolve().parents[2], tmp_path / "log", []
    monkeypatch.setenv("BEFT_RUN_LOG", str(log))
    environment = {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}

    def with_another(loaded, data, study, runs, **more):
        for epoch in fit(loaded, data, study, runs, **more):
            if not others:
                others.append(
                    subprocess.Popen(
                        [sys.executable, "-c", TWO, str(store.folder)],
                        env=os.environ | environment,
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
                said = others[0].stdout.readline()
                assert said.startswith("another sweep is training bank"), others[0].communicate()[1]
            yield epoch

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "fit", with_another)
        go(store, bank_size=1)
    (other,) = others
    errors = other.communicate(timeout=300)[1]
    assert other.returncode == 0, errors
    counts = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(counts) == 2 and sum(count["done"] for count in counts) == len(RUNS), counts
    fresh = go(Store(tmp_path / "fresh"), bank_size=1)
    assert [timeless(r) for r in go(store)] == [timeless(r) for r in fresh]
    assert len(list(store.folder.glob("*.json"))) == len(RUNS)
    assert not list(store.folder.glob(".*")) and not list((store.folder / "checkpoints").iterdir())
    assert len(list((store.folder / "adapters").iterdir())) == len(RUNS)
