"""Records: whole or absent, checked on reading, found again by their settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_records import record, settings

from beft.errors import BeftError
from beft.paths import ROOT
from beft.progress import RUN_LOG, count_runs, log_runs
from beft.records import schema
from beft.records.store import Store
from beft.report import dataframes as frames
from beft.study import Study

LAPTOP = ROOT / "data" / "results" / "laptop"
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TINY_LLAMA = "57268ed29932ad9640b50fd3119cc30d249464f5f28e729b8d381761119ebd35"
MPNET = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
MPNET_CONFIG = "0bdd939da9b94d0d041659dede6d82745323dadbef6a51cdd1b77015f532dd8f"
SMOLLM = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GONE = {"48bc66cd74bc", "f4b27c53df4f", "21fa17b02d83", "b47fe6a8a6bd"}  # of records that others have replaced
TINY_BERT = "1d5aa8157384e36f7fb2366c1abbe15425ea5374479e5e2f8df3aba945dd2f26"


def ranking() -> dict[str, Any]:
    base = {k: v for k, v in record().items() if k not in ("parameters", "epochs", "final", "best", "bank")}
    more = {
        "scores": {"magnitude": {"q": [0.1]}},
        "by_epoch": [],
        "key_bias_null": {"null": True, "reason": "softmax"},
    }
    return base | more | {"kind": "ranking", "settings": settings(kind="ranking", method=None)}


def run_settings(study: Study, sha256: str, data: str, train: int, method: str | None, rate: float) -> dict[str, Any]:
    """The settings of a run of seed 0, of `train` rows outside the tuning split."""
    tuning = round(train * study.tuning / (1 - study.tuning))
    common = study.identity() | {"model_sha256": sha256, "data_fingerprint": data}
    return common | {"train_size": train, "tuning_size": tuning, "method": method, "seed": 0, "rate": rate}


def sample_settings() -> dict[str, dict[str, Any]]:
    """Settings of committed records of different kinds, now or before, by the key that they had when written."""
    encoder: dict[str, Any] = {"dtype": "bfloat16", "validate": "last"}
    decoder: dict[str, Any] = {"schedule": "linear", "prompted": True, "validate": "last"}
    rte = Study(task="rte", epochs=6, **encoder)
    stsb = Study(task="stsb", epochs=12, **encoder)
    sst2 = Study(task="sst2", epochs=8, tuning=0.2, **encoder)
    generated = Study("tiny-llama", "microworld_sentiment", 300, 5, batch_size=8, max_length=512, **decoder)
    cb = Study(task="cb", epochs=10, validate="last")
    mpnet = Study("all-mpnet-base-v2", "sst2", epochs=8, **encoder)
    config = {"model_config_sha256": MPNET_CONFIG}
    prompted = {"epochs": 3, "batch_size": 8, "max_length": 512, "tuning": 0.2, "dtype": "bfloat16"}
    smollm = Study("SmolLM2-135M-Instruct-Q4_1", "sst2", **prompted, **decoder)
    people = Study("tiny-bert", "microworld_people", epochs=8, batch_size=32, max_length=96, schedule="linear")
    patch = {n: v for n, v in people.identity().items() if n not in ("validate", "regime")}
    patch |= {"kind": "patch", "model_sha256": TINY_BERT, "measured": "798e185c9ac1", "axis": "gender"}
    patch |= {"data_fingerprint": "f306abab8c3b604d", "method": "all_biases", "seed": 0, "rate": 0.03}
    return {
        "48bc66cd74bc": run_settings(rte, MINILM, "181e2eb517373a6d", 300, "b_v", 0.003),
        "08b3886361f0": run_settings(stsb, MINILM, "97aa4e4577ee806c", 287, "lora", 0.001),
        "f4b27c53df4f": run_settings(sst2, MINILM, "0edd0a65e89a735d", 800, "all_biases", 0.0003),
        "21fa17b02d83": run_settings(generated, TINY_LLAMA, "4750b95b37942c9a", 300, "b_v", 0.03),
        "b47fe6a8a6bd": run_settings(cb, MINILM, "6b33ec9eb70cf9d8", 250, None, 0.003) | {"kind": "ranking"},
        "c5a600a59bee": patch,
        "f1f1ec86514f": run_settings(mpnet, MPNET, "0edd0a65e89a735d", 1000, "b_q", 0.01) | config,
        "223fb51afae4": run_settings(replace(mpnet, dtype="float32"), MPNET, "0edd0a65e89a735d", 1000, None, 0.001)
        | config
        | {"kind": "ranking"},
        "1fe8ddaa3e2a": run_settings(smollm, SMOLLM, "51ef26a0e398eb94", 800, "b_v", 0.003),
    }


def refused(folder: Path, path: Path, reason: str, wanted: dict[str, Any] | None = None) -> None:
    """A file is named when it is read, no record where one is looked for, and stays as it is."""
    content = path.read_bytes()
    with pytest.raises(BeftError, match=f"{path.name} cannot be used, {reason}.*: run the command that made it"):
        Store(folder).read(path)
    assert Store(folder).find(wanted or settings()) is None and Store(folder).all() == []
    assert path.read_bytes() == content


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_written_record_is_found_by_its_settings_whatever_their_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "folder")
    store.write(record())
    result = store.find(dict(reversed(settings().items())))
    assert result is not None and result["final"]["validation"] == 0.75 and result["schema"] == schema.SCHEMA


@pytest.mark.parametrize("change", [{"seed": 1}, {"rate": 5e-4}, {"method": "b_q"}, {"dtype": "bfloat16"}])
def test_any_other_setting_is_another_run(tmp_path: Path, change: dict[str, Any]) -> None:
    store = Store(tmp_path)
    store.write(record())
    assert store.find(settings(**change)) is None


def test_the_key_is_the_same_for_numpy_and_python_values_and_in_another_process() -> None:
    ours = schema.key(settings())
    assert schema.key(settings(seed=np.int64(0), rate=np.float64(4e-4))) == ours
    code = f"from beft.records import key; print(key({settings()!r}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ours


@pytest.mark.parametrize(("expected", "given"), sample_settings().items(), ids=list(sample_settings()))
def test_the_keys_of_committed_records_stay(expected: str, given: dict[str, Any]) -> None:
    assert schema.key(given) == expected
    committed = Store(LAPTOP).find(given)
    if expected not in GONE:
        assert committed is not None and committed["key"] == expected and committed["settings"] == given


def test_the_file_name_reads_and_holds_no_folder_of_a_user_path(tmp_path: Path) -> None:
    name = Store(tmp_path).path(settings(task="/home/me/my reviews.csv")).name
    assert (
        name == f"my_reviews.csv-tiny-b_v-seed0-rate0.0004-{schema.key(settings(task='/home/me/my reviews.csv'))}.json"
    )


def test_nan_and_infinity_are_written_as_null(tmp_path: Path) -> None:
    epochs = [{"epoch": 1, "train_loss": float("nan"), "tuning": float("inf"), "validation": np.float32("nan")}]
    path = Store(tmp_path).write(record(epochs=epochs, outcome="diverged: loss is not finite"))
    assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
    assert Store(tmp_path).all()[0]["epochs"] == [{"epoch": 1, "train_loss": None, "tuning": None, "validation": None}]


def test_a_half_written_temporary_file_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(record())
    half = path.read_text()[:40]
    path.rename(path.with_name(f".{path.name}.0a1b2c3d.tmp"))
    path.with_name(f".{path.name}.0a1b2c3d.tmp").write_text(half)
    assert store.all() == [] and store.find(settings()) is None


def test_killed_while_writing_leaves_the_old_record_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write(record())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write(record(outcome="failed: other"))
    monkeypatch.undo()
    assert [r["outcome"] for r in store.all()] == ["ok"] and len(list(tmp_path.iterdir())) == 1


def test_a_truncated_record_is_refused_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(record())
    path.write_bytes(path.read_bytes()[:100])
    refused(tmp_path, path, "it is not valid JSON")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seconds": 1.0}, "its checksum"),
        ({"final": {"epoch": 2, "validation": 0.99, "tuning": None}}, "its checksum"),
        ({"schema": 0}, "its schema is 0, this version reads 1"),
        ({"settings": settings(seed=7)}, "its key does not belong"),
        ({"epochs": "none"}, "epochs has the wrong type"),
        ({"epochs": [{"epoch": 1}]}, r"epochs\[0\].train_loss is missing"),
        ({"seconds": True}, "seconds has the wrong type"),
    ],
)
def test_a_changed_record_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = Store(tmp_path).write(record())
    edited(path, **changes)
    refused(tmp_path, path, reason)


def test_a_record_of_a_newer_version_is_never_made_again_over_it(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    edited(path, schema=2)
    for call in (lambda: Store(tmp_path).find(settings()), Store(tmp_path).all, lambda: Store(tmp_path).read(path)):
        with pytest.raises(BeftError, match=f"{path.name} cannot be used, its schema is 2, .*written by a newer vers"):
            call()


def test_a_record_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write(record()).rename(store.path(settings(seed=1)))
    refused(tmp_path, path, "its file name does not end in its key", settings(seed=1))


def planted(path: Path, *repair: str, **changes: Any) -> None:
    """Change a record by hand, and make its key or checksum (`repair`) agree with the change."""
    content = json.loads(path.read_text()) | changes
    if "key" in repair:
        content["key"] = schema.key(content["settings"])
    if "checksum" in repair:
        content["checksum"] = schema.checksum(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("repair", "reason"),
    [
        ([], "its key does not belong to its settings"),
        (["checksum"], "its key does not belong to its settings"),
        (["key"], "its checksum does not match"),
        (["key", "checksum"], "its file name does not end in its key"),
    ],
)
def test_other_settings_planted_in_a_record_are_refused(tmp_path: Path, repair: list[str], reason: str) -> None:
    path = Store(tmp_path).write(record())
    planted(path, *repair, settings=settings(rate=0.5))
    refused(tmp_path, path, reason)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_is_no_number_of_json_is_refused_in_the_place_of_null(tmp_path: Path, number: str) -> None:
    path = Store(tmp_path).write(record())
    path.write_text(path.read_text().replace('"tuning": null', f'"tuning": {number}', 1))
    refused(tmp_path, path, "it")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": 1', "", "null", "[]", "3"])
def test_any_other_text_is_refused(tmp_path: Path, text: str) -> None:
    path = Store(tmp_path).write(record())
    path.write_text(text)
    refused(tmp_path, path, "it")


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    path.write_text(path.read_text().replace('"ok"', '"\\ud800"'))
    refused(tmp_path, path, "it")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = Store(tmp_path).write(record())
    path.write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, path, "it is not valid JSON")


@pytest.mark.parametrize("missing", ["settings", "final", "outcome", "bank"])
def test_a_record_without_a_required_field_is_not_written(tmp_path: Path, missing: str) -> None:
    incomplete = {k: v for k, v in record().items() if k != missing}
    with pytest.raises(BeftError, match=f"{missing} is missing"):
        Store(tmp_path).write(incomplete)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(BeftError, match="cannot write the record"):
        Store(tmp_path / "taken").write(record())


def test_all_selects_by_kind_and_an_absent_folder_holds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record())
    store.write(ranking())
    assert [len(store.all(k)) for k in (None, "run", "ranking", "other")] == [2, 1, 1, 0]
    assert Store(tmp_path / "absent").all() == []


def test_frame_has_one_row_per_run_and_curves_one_per_epoch(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record())
    store.write(record(settings=settings(seed=1)))
    store.write(ranking())
    table, curve = frames.frame(store.all()), frames.curves(store.all())
    assert table["seed"].tolist() == [0, 1] and table["final"].tolist() == [0.75, 0.75]
    assert table[["bias", "head", "pooler"]].iloc[0].tolist() == [8, 10, 4]
    assert table["final_tuning"].isna().all() and table["final_tuning"].dtype == "float64"
    assert curve["validation"].tolist() == [0.5, 0.75] * 2 and curve["epoch"].tolist() == [1, 2] * 2


def test_frames_of_nothing_have_their_columns() -> None:
    assert {"method", "final", "outcome"} <= set(frames.frame([]).columns)
    assert {"method", "epoch", "validation"} <= set(frames.curves([]).columns)


def test_provenance_is_filled_in_where_a_record_has_none(tmp_path: Path) -> None:
    bare = {k: v for k, v in record().items() if k not in ("code", "versions", "device")}
    written = Store(tmp_path).read(Store(tmp_path).write(bare))
    assert {"torch", "numpy", "sklearn", "python", "beft"} <= set(written["versions"])
    assert written["device"]["kind"] == "cpu" and written["device"]["threads"] >= 1


def test_what_sweeps_log_is_counted_past_half_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv(RUN_LOG, str(path))
    log_runs(done=2, reused=1, failed=0)
    log_runs(done=1, reused=0, failed=1)
    path.write_text(path.read_text() + '{"done": 1')
    assert count_runs(path) == {"done": 3, "reused": 1, "failed": 1}


def test_without_a_log_nothing_is_written_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_LOG, "")
    monkeypatch.chdir(tmp_path)
    log_runs(done=1, reused=0, failed=0)
    nothing = {"done": 0, "reused": 0, "failed": 0}
    assert list(tmp_path.iterdir()) == [] and count_runs(tmp_path / "log") == nothing
