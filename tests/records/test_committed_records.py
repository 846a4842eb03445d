"""The numbers that are committed: every record sound, of one model and one version of each task, and none edited."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from beft.errors import BeftError
from beft.experiments import grid
from beft.records.store import Store
from beft.report import dataframes, intervals
from beft.settings import profiles

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "results" / "laptop"
RECORDS = [Store(FOLDER).read(path) for path in sorted(FOLDER.glob("*.json"))]


def test_every_record_is_sound_and_there_are_some():
    assert len(RECORDS) > 100
    assert {"run", "ranking", "untuned"} <= {r["kind"] for r in RECORDS}
    assert {r["kind"] for r in RECORDS} <= {"run", "ranking", "untuned", "memory", "patch", "debias", "transfer"}


def test_a_task_has_one_fingerprint_and_a_model_one_hash():
    prints, hashes = defaultdict(set), defaultdict(set)
    for r in RECORDS:
        if r["kind"] == "memory":  # of a shape, without data
            continue
        assert r["model"]["sha256"] == r["settings"]["model_sha256"]
        hashes[r["settings"]["model"]].add(r["model"]["sha256"])
        if r["settings"].get("method") == "none" and r["kind"] == "patch":  # the untouched model has read no corpus
            continue
        assert r["data"]["fingerprint"] == r["settings"]["data_fingerprint"]
        if r["kind"] in ("run", "ranking"):  # those of debiasing have a link of several strengths
            # fewer validation rows have a fingerprint of their own
            rows = (r["settings"]["task"], bool(r["settings"].get("prompted")), r["settings"].get("evaluated"))
            prints[rows].add(r["data"]["fingerprint"])
    assert all(len(values) == 1 for values in (*prints.values(), *hashes.values()))
    assert len({next(iter(values)) for values in prints.values()}) == len(prints)
    tuned = {fingerprint for (_, prompted, _), values in prints.items() if prompted for fingerprint in values}
    assert {r["data"]["fingerprint"] for r in RECORDS if r["kind"] == "untuned"} <= tuned


def test_no_record_names_a_folder_or_a_changed_tree():
    for r in RECORDS:
        assert "/" not in r["settings"]["model"] and "/home/" not in json.dumps(r)
        assert r["code"]["dirty"] is False, r["key"]


def test_what_figures_and_tables_were_made_from_is_there():
    bench = Store(ROOT / "data" / "results" / "bench").all()
    assert all(r["code"]["dirty"] is False for r in bench)
    known = {r["key"] for r in [*RECORDS, *bench]}
    entries = json.loads((ROOT / "figures" / "laptop" / "index.json").read_text())
    for entry in entries:
        assert set(entry["records"]) <= known, entry["name"]
    assert sum(bool(entry["records"]) for entry in entries) > 15


@pytest.mark.parametrize("where", ["final", "epochs", "data", "settings"])
def test_a_wrong_number_planted_in_a_record_is_refused(tmp_path, where):
    source = next(path for path in sorted(FOLDER.glob("sst2-*-b_v-*.json")))
    shutil.copy(source, tmp_path)
    path = tmp_path / source.name
    record = json.loads(path.read_text())
    changes = {
        "final": lambda: record["final"].update(validation=0.99),
        "epochs": lambda: record["epochs"][0].update(train_loss=0.1),
        "data": lambda: record["data"].update(fingerprint="0" * 16),
        "settings": lambda: record["settings"].update(rate=0.5),
    }
    changes[where]()
    path.write_text(json.dumps(record))
    with pytest.raises(BeftError, match="cannot be used, its (checksum does not match|key does not belong)"):
        Store(tmp_path).read(path)
    assert Store(tmp_path).all() == []


@pytest.mark.parametrize("notebook", ["03_fine_tuning", "04_bias_free_injection"])
def test_confirming_runs_have_the_rates_that_were_chosen_by_other_seeds(notebook):
    s = profiles.load(notebook, {"profile": "laptop"})
    prompted = notebook.startswith("04")
    confirming = grid.cells(s, "confirming_cells", prompted)
    assert confirming
    for again in confirming:
        study = again.study
        (cell,) = [c for c in grid.cells(s, prompted=prompted) if place(c.study) == place(study)]
        chose = cell.rate_seeds or s["rate_seeds"]
        trials = [
            r
            for r in RECORDS
            if (r["kind"], r["settings"].get("tuning_size", 0) > 0) == ("run", True)
            and (r["settings"]["model"], r["settings"]["task"], r["settings"]["regime"]) == place(study)
            and r["settings"]["epochs"] == study.epochs
            and r["settings"]["seed"] in chose
        ]
        rates = intervals.choose_rate(dataframes.frame(trials))
        for run in again.runs(["b_q", "b_v"]):
            assert run.rate == rates[run.method] and run.seed not in chose, (study.task, run)


def place(study):
    return study.model, study.task, study.regime
