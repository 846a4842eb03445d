"""A record, or the adapter beside it, as a plain checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_sweep import RUNS, STUDY

from beft.api import Tuned
from beft.errors import BeftError
from beft.experiments import exports, sweep
from beft.experiments.exports import export_saved
from beft.records.store import Store

TEXTS = ["the clock was slow", "a good film"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def run(store: Store, **changes: object) -> Path:
    """The file of the record of one run."""
    sweep.run(replace(STUDY, **changes), RUNS[:1], store, progress=False)
    (path,) = store.folder.glob("*.json")
    return path


def test_a_record_and_its_adapter_become_the_checkpoint_of_the_run(store: Store, tmp_path: Path) -> None:
    record = run(store, tuning=0.25, validate="last")
    (adapter,) = (store.folder / "adapters").iterdir()
    sweep.export(replace(STUDY, tuning=0.25), RUNS[0], store, tmp_path / "expected")
    expected = Tuned.load(tmp_path / "expected").probabilities(TEXTS)
    for source in (record, adapter):
        export_saved(source, tmp_path / "out", offline=True)
        assert Tuned.load(tmp_path / "out").probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert list(store.folder.glob("*.json")) == [record], "nothing was trained"


def test_ones_own_file_is_given_again_and_another_is_refused(store: Store, tmp_path: Path) -> None:
    rows = "".join(f"{word} {i},{label}\n" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12))
    (tmp_path / "mine.csv").write_text("text,label\n" + rows)
    record = run(store, task=str(tmp_path / "mine.csv"), regime="all")
    with pytest.raises(BeftError, match="unknown task 'mine'"):
        export_saved(record, tmp_path / "out", offline=True)
    export_saved(record, tmp_path / "out", offline=True, task=str(tmp_path / "mine.csv"))
    assert (tmp_path / "out" / "model.safetensors").exists()
    (tmp_path / "mine.csv").write_text("text,label\n" + rows.replace("good", "fine"))
    with pytest.raises(BeftError, match="was made with another data_fingerprint .*: give the model and the task"):
        export_saved(record, tmp_path / "again", offline=True, task=str(tmp_path / "mine.csv"))
    assert not (tmp_path / "again").exists()


def test_the_adapter_of_a_language_model_goes_by_its_record(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        exports, "export", lambda study, run, store, folder, **form: asked.append((study, run, folder, form))
    )
    study = replace(STUDY, model="tiny-llama", prompted=True, regime=8, epochs=1, max_length=256, schedule="linear")
    with torch.random.fork_rng():
        sweep.run(study, RUNS[:1], store, progress=False)
    (adapter,) = (store.folder / "adapters").iterdir()
    export_saved(adapter, tmp_path / "out", offline=True)
    export_saved(adapter, tmp_path / "out", offline=True, layout="qwen2", gguf="q8_0")
    made = (study, RUNS[0], tmp_path / "out")
    assert asked == [(*made, {"layout": None, "gguf": None}), (*made, {"layout": "qwen2", "gguf": "q8_0"})]


def test_a_record_of_another_kind_and_a_damaged_one_are_refused(store: Store, tmp_path: Path) -> None:
    record = run(store)
    content = json.loads(record.read_text())
    ranking = {"kind": "ranking", "scores": {}, "by_epoch": [], "key_bias_null": {}}
    path = store.write({**content, **ranking, "settings": content["settings"] | {"kind": "ranking"}})
    with pytest.raises(BeftError, match="is the record of a ranking, not of a run"):
        export_saved(path, tmp_path / "out")
    record.write_text("{")
    with pytest.raises(BeftError, match="is not valid JSON"):
        export_saved(record, tmp_path / "out")
