"""The benchmark trains what it says it trains, scales as it says, and reports pass and miss; no time is asserted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bench_arguments import TINY
from fitting import fitted

from beft.anatomy import projections as anatomy
from beft.data.batching import CHUNKS, encode
from beft.errors import BeftError
from beft.models import loading as models
from beft.study import METHODS, Run, Study
from beft.training.classification import logits
from benchmarks import reference as plain
from benchmarks import report as bench_report
from benchmarks import steps as bench
from benchmarks import timing

STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=2, offline=True)


def memory_of(count, *rest):
    return {"before": 100 * bench_report.MB, "peak": (120 if count == 1 else 200) * bench_report.MB}


@pytest.fixture
def few(sentiment):
    validation = type(sentiment.validation)(sentiment.validation.rows[:40], sentiment.validation.labels[:40])
    return replace(sentiment, validation=validation)


# --- the plain loop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["head", "b_q", "b_v", "all_biases"])
def test_plain_run_without_dropout_ends_where_the_banked_run_of_its_seed_does(still, few, method):
    run = Run(method, 3, 3e-3)
    end = {}

    def keep(bank, results):
        encoded = encode(still.tokenizer, few.validation.rows, STUDY.max_length)
        x = logits(bank, encoded, [np.arange(40)] * 2, CHUNKS["cpu"])[1]
        end["loss"] = float(torch.nn.functional.cross_entropy(x, torch.from_numpy(few.validation.labels)))

    banked = fitted(still, few, STUDY, [Run(method, 0, 1e-2), run], at_end=keep, device="cpu")[1]
    alone = plain.fit(still, few, STUDY, run, dropout=False)
    for ours, theirs in zip(banked.epochs, alone, strict=True):
        assert ours["validation"] == theirs["validation"]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
    assert end["loss"] == pytest.approx(alone[-1]["validation_loss"], abs=1e-4)


def test_padding_to_the_longest_and_leaving_the_training_set_unscored_change_no_result(still, few):
    run = Run("b_v", 1, 3e-3)
    whole = plain.fit(still, few, STUDY, run)
    short = plain.fit(still, few, STUDY, run, longest=True, score_training=False)
    for one, other in zip(whole, short, strict=True):
        assert one["training"] is not None and other["training"] is None
        assert one["validation"] == other["validation"]
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], abs=1e-4)


def test_plain_training_pads_every_batch_to_max_length_and_uses_dropout(tiny, few, monkeypatch):
    seen = []
    step = plain.train_step

    def spy(model, optimizer, inputs, labels, clip):
        seen.append((model.training, tuple(inputs["input_ids"].shape)))
        return step(model, optimizer, inputs, labels, clip)

    monkeypatch.setattr(plain, "train_step", spy)
    plain.fit(tiny, few, replace(STUDY, epochs=1), Run("b_v", 0, 1e-3))
    assert seen == [(True, (16, 128))] * 3


@pytest.mark.parametrize("method", METHODS)
def test_plain_run_trains_the_chosen_biases_the_pooler_bias_and_the_head_alone(tiny, method):
    model, parameters = plain.prepare(tiny, method, 0)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    if method == "all_biases":
        chosen = {f"{name}.bias" for name in anatomy.bias_modules(model)}
    else:
        sites = anatomy.describe(model).sites if method != "head" else ()
        chosen = {f"{site.module}.bias" for site in sites if site.term == method[-1]}
    assert names == chosen | {"bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert len(parameters) == len(names)
    assert not any(p.requires_grad for p in tiny.model.parameters())


def test_plain_run_of_an_unknown_method_names_the_near_one(tiny):
    with pytest.raises(BeftError, match="b_v"):
        plain.prepare(tiny, "bv", 0)


# --- what is measured -----------------------------------------------------------------------------------------


def test_seconds_are_scaled_linearly_in_the_batches_of_each_kind():
    study = replace(STUDY, epochs=2)
    per_batch = {"train": 1.0, "score_training": 0.5, "score_validation": 0.25}
    assert timing.scaled(per_batch, 32, 64, study) == 2 * (2 * 1.0 + 2 * 0.5 + 4 * 0.25)
    del per_batch["score_training"]
    assert timing.scaled(per_batch, 32, 64, study) == 2 * (2 * 1.0 + 4 * 0.25)


def test_sampled_batches_are_full_distinct_and_spread_over_the_lengths():
    lengths = np.arange(1, 101)
    picked = timing.spread(lengths, np.arange(100), 16, 3)  # six full batches; the four longest rows fill none
    assert [len(index) for index in picked] == [16, 16, 16]
    assert [int(lengths[index].max()) for index in picked] == [32, 64, 96]
    assert len(timing.spread(lengths, np.arange(100), 16, 99)) == 6
    assert len(timing.spread(lengths, np.arange(5), 16, 3)) == 1


def test_scoring_padding_counts_every_run_and_never_less_than_the_text():
    lengths = np.array([3, 9, 4, 4, 8])
    padding = timing.scoring_padding(lengths, 3, CHUNKS["cpu"])
    assert padding.real == 3 * 28
    assert 3 * 28 <= padding.computed <= 3 * 5 * 9


def test_peak_memory_comes_from_a_fresh_process():
    held = torch.ones(75, 2**20)  # 300 MiB here, which the figure must not contain
    memory = timing.peak_of(1, models.TINY, "microworld_sentiment", 32)
    assert 0 < memory["before"] <= memory["peak"] < timing.resident()
    del held


def test_peak_memory_of_a_process_that_fails_is_an_error_with_its_reason():
    with pytest.raises(BeftError, match="nowhere"):
        timing.peak_of(1, models.TINY, "nowhere", 32)


# --- the data -------------------------------------------------------------------------------------------------


def test_generated_text_stands_in_only_where_nothing_was_asked_for_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("BEFT_DATA", raising=False)
    data, note = bench.find_data(None)
    assert data.task.name == "microworld_sentiment" and "substitute for SST-2" in note
    with pytest.raises(BeftError, match="sst2"):
        bench.find_data("sst2")
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    with pytest.raises(BeftError, match="sst2"):
        bench.find_data(None)


# --- the whole ------------------------------------------------------------------------------------------------


def test_bench_writes_a_record_and_a_table_of_every_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "peak_of", memory_of)
    monkeypatch.setattr(timing, "no_bfloat16", lambda device: "no bfloat16 in this test")
    assert bench.main([*TINY, "--samples", "1", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    record = json.loads(path.read_text())
    assert list(record["times"]) == ["plain", "longest", "unscored", "stacked"]
    assert all(set(per) == set(METHODS) for per in record["times"].values())
    assert all(t["score"] is not None for t in record["times"]["stacked"].values())
    assert [bank["runs"] for bank in record["banks"]] == [2, 8]  # heads, and all else
    assert all(0 < bank[part] <= 1 for bank in record["banks"] for part in ("training", "scoring"))
    shown = capsys.readouterr().out
    assert path.with_suffix(".md").read_text() in shown
    for label in bench_report.LABELS.values():
        assert label in shown
    assert "skipped: no bfloat16 in this test" in shown and "not measured" in shown
    assert "of 16 runs over that of one: 1.67; target at most 1.5: MISS" in shown
    assert "generated by beft.data.microworld" in shown


def test_bench_in_its_own_folder_makes_the_table_that_readme_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "peak_of", memory_of)
    monkeypatch.setattr(timing, "no_bfloat16", lambda device: "no bfloat16 in this test")
    monkeypatch.setenv("BEFT_HOME", str(tmp_path))
    assert bench.main([*TINY, "--samples", "1"]) == 0
    (record,) = map(json.loads, (path.read_text() for path in (tmp_path / "data/results/bench").glob("*.json")))
    shown = (tmp_path / "figures/bench/steps.md").read_text()
    assert shown == bench_report.summary(record)
    grid = sum(t["seconds"] for t in record["times"]["stacked"].values())
    assert f"| {grid:.1f} |" in " ".join(shown.split()) and "1.67; target at most 1.5: MISS" in shown


def test_full_bench_runs_the_plain_protocol_whole_and_in_bfloat16(monkeypatch):
    monkeypatch.setattr(timing, "peak_of", memory_of)
    monkeypatch.setattr(timing, "no_bfloat16", lambda device: None)
    sampled = []
    monkeypatch.setattr(timing, "sample", lambda *args: sampled.append(args))
    options = bench.Options(models.TINY, "microworld_sentiment", rows=16, seeds=1, epochs=1, full=True)
    record = bench.measure(options, progress=False)
    assert not sampled and list(record["times"]) == list(bench.STEPS)
    assert all(t["score"] is not None for per in record["times"].values() for t in per.values())
    assert "run whole" in bench_report.report(record)


def test_targets_pass_at_their_limits_and_miss_beyond_them():
    def record(stacked, bfloat16, efficiency, peak):
        times = {name: {"b_v": {"seconds": s}} for name, s in [("plain", 120.0), ("stacked", stacked)]}
        times["bfloat16"] = {"b_v": {"seconds": bfloat16}}
        memory = {"1": {"peak": 100}, "16": {"peak": peak}}
        banks = [{"runs": 3, "training": efficiency}]
        return {"times": times, "memory": memory, "targets": bench.TARGETS, "banks": banks}

    assert [t[3] for t in bench_report.targets(record(15.0, 8.0, 0.9, 150))] == [True] * 4
    assert [t[3] for t in bench_report.targets(record(15.1, 8.1, 0.89, 151))] == [False] * 4


def test_training_efficiency_weighs_banks_by_the_tokens_they_computed():
    banks = [{"runs": 2, "training": 0.5}, {"runs": 3, "training": 1.0}]  # 2 real of 4 computed, 3 of 3
    assert bench_report.training_efficiency({"banks": banks}) == pytest.approx(5 / 7)


@pytest.mark.parametrize("given", [["--rows", "8"], ["--seeds", "0"], ["--task", "nowhere"], ["--model", "nowhere"]])
def test_bad_input_is_one_sentence_and_exit_status_2(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert bench.main([*TINY, *given, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
