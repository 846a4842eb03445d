"""The loop: the plain loop's numbers, the same every time, through interrupts, divergence and bad settings."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting import fitted

from beft.bank.baselines import open_bank
from beft.bank.slots import HeadSlot
from beft.data import sources as data_module
from beft.data.batching import ChunkCost, encode
from beft.data.datasets import Split, draw
from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import loading as models
from beft.study import METHODS, Result, Run, Study
from beft.training import classification
from beft.training import loop as training
from beft.training.classification import logits, predict
from benchmarks import reference as plain

REAL = Path(os.environ.get("BEFT_DATA") or Path(__file__).parents[3] / "shared" / "data")
STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=50, epochs=2, offline=True)


def trained(loaded, data, study, runs, **more):
    """(results, values by slot) of a call of `fit`."""
    kept = []
    results = fitted(
        loaded,
        data,
        study,
        runs,
        at_end=lambda b, _: kept.extend(s.values.detach().clone() for s in b.slots),
        **more,
    )
    return results, kept


def same(one, two):
    """Bit for bit, whatever the times."""
    (a, values), (b, others) = one, two
    assert [(r.run, r.epochs, r.outcome, r.rows, r.parameters) for r in a] == [
        (r.run, r.epochs, r.outcome, r.rows, r.parameters) for r in b
    ]
    # a diverged run may hold NaN, which equals nothing
    pairs = [(x.nan_to_num(nan=7e7), y.nan_to_num(nan=7e7)) for x, y in zip(values, others)]
    return len(values) == len(others) and all(torch.equal(x, y) for x, y in pairs)


def test_the_same_seed_twice_is_the_same_bit_for_bit_and_another_is_not(tiny, sentiment):
    runs = [Run(m, 3, 1e-2) for m in METHODS]
    first = trained(tiny, sentiment, STUDY, runs)
    torch.manual_seed(123)
    assert same(first, trained(models.load(models.TINY, labels=2), sentiment, STUDY, runs))
    other, _ = trained(tiny, sentiment, STUDY, [replace(r, seed=4) for r in runs])
    for a, b in zip(first[0], other):
        assert a.epochs[0]["train_loss"] != b.epochs[0]["train_loss"]


@pytest.mark.parametrize("regime", [48, 50])
def test_a_run_is_the_plain_loop_with_a_short_last_batch_too(still, sentiment, regime):
    """Rows by the paper's draw, batches of 16 (the last may hold 2), mean loss, clipping at 1, AdamW."""
    study, run = replace(STUDY, regime=regime, validate="last"), Run("b_v", 1, 5e-3)
    (result,), _ = trained(still, sentiment, study, [run])
    learned = {}
    fitted(
        still,
        sentiment,
        study,
        [run],
        at_end=lambda b, _: learned.update({s.parameter: s.values[0].detach().clone() for s in b.slots}),
    )
    with open_bank(still.model, ["b_v"], [1]) as bank:  # for the initial head, which the seed gives
        start = {s.parameter: s.values[0].detach().clone() for s in bank.slots if isinstance(s, HeadSlot)}
        plain = bank.bare_copy()
    plain.requires_grad_(False)
    named = {}
    for name in learned:
        named[name] = plain.get_parameter(name)
        if name in start:
            named[name].copy_(start[name])
    before = {key: p.detach().clone() for key, p in named.items()}
    for parameter in named.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(named.values(), lr=5e-3, eps=1e-6, weight_decay=0.0)
    rows, losses = draw(sentiment, regime, 1).train, []
    for epoch in (1, 2):
        order, total = np.random.default_rng([1, epoch]).permutation(rows), 0.0
        for at in range(0, regime, 16):
            index = order[at : at + 16]
            batch = encode(still.tokenizer, [sentiment.train.rows[i] for i in index], 128)
            target = torch.from_numpy(sentiment.train.labels[index])
            loss = torch.nn.functional.cross_entropy(plain(**batch.columns).logits, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(named.values()), 1.0)
            optimizer.step()
            total += float(loss.detach()) * len(index)
        losses.append(total / regime)
    assert [e["train_loss"] for e in result.epochs] == pytest.approx(losses, abs=1e-5)
    for key, parameter in named.items():
        moved = parameter.detach() - (0 if key in start else before[key])
        torch.testing.assert_close(learned[key], moved, rtol=0, atol=1e-5)


def rows_of(tuning):
    return {"train": 10, "tuning": tuning, "validation": 10}


def test_final_is_the_last_epoch_and_best_is_chosen_on_tuning_where_there_is_one():
    scores = [(0.5, 0.9), (0.8, 0.6), (0.8, 0.7), (0.6, 0.8)]
    epochs = [{"epoch": i, "train_loss": 1.0, "tuning": t, "validation": v} for i, (t, v) in enumerate(scores, 1)]
    result = Result(Run("b_v", 0, 1e-3), rows_of(10), {}, epochs)
    assert result.final == {"epoch": 4, "validation": 0.8, "tuning": 0.6}
    assert result.best == {
        "epoch": 2,
        "validation": 0.6,
        "tuning": 0.8,
        "chosen_on": "tuning",
    }  # the first of equals
    untuned = [e | {"tuning": None} for e in epochs]
    result = Result(Run("b_v", 0, 1e-3), rows_of(0), {}, untuned)
    assert result.best == {"epoch": 1, "validation": 0.9, "tuning": None, "chosen_on": "validation"}


def test_a_tuning_split_is_scored_apart_and_never_trained_on(tiny, sentiment):
    study = replace(STUDY, tuning=0.2)
    ((result,), values) = trained(tiny, sentiment, study, [Run("b_v", 0, 1e-2)])
    assert result.rows == {"train": 40, "tuning": 10, "validation": 60}
    assert all(0 <= e["tuning"] <= 1 and 0 <= e["validation"] <= 1 for e in result.epochs)
    assert result.best["chosen_on"] == "tuning"
    held = draw(sentiment, 50, 0, 0.2).tuning
    labels = sentiment.train.labels.copy()
    labels[held] = 1 - labels[held]
    flipped = replace(sentiment, train=Split(sentiment.train.rows, labels))
    ((other,), others) = trained(tiny, flipped, study, [Run("b_v", 0, 1e-2)])
    assert all(torch.equal(a, b) for a, b in zip(values, others))
    assert [e["tuning"] for e in other.epochs] == pytest.approx([1 - e["tuning"] for e in result.epochs])


def test_validation_after_the_last_epoch_only_is_the_same_last_score(tiny, sentiment):
    each, last = (
        fitted(tiny, sentiment, replace(STUDY, validate=v), [Run("b_v", 0, 1e-2)])[0] for v in ("each", "last")
    )
    assert [e["validation"] is None for e in last.epochs] == [True, False]
    assert last.final == each.final


def test_a_training_size_larger_than_the_data_is_refused(tiny, sentiment):
    with pytest.raises(BeftError, match="asks for 5000 training rows .* has 4000"):
        fitted(tiny, sentiment, replace(STUDY, regime=5000), [Run("b_v", 0, 1e-2)])


@pytest.mark.parametrize("rate", [1e9, 3e38])
def test_a_run_that_diverges_is_recorded_without_scores_beside_one_that_does_not(tiny, sentiment, rate):
    study = replace(STUDY, epochs=3)
    good, bad = fitted(tiny, sentiment, study, [Run("all_biases", 0, 1e-2), Run("all_biases", 0, rate)])
    assert good.outcome == "ok" and all(e["validation"] is not None for e in good.epochs)
    assert bad.outcome.startswith("diverged: mean training loss ") and bad.outcome.endswith(f"at rate {rate:g}")
    assert len(bad.epochs) == 3 and bad.final["validation"] is None and bad.best["validation"] is None
    assert all(e["train_loss"] is None or math.isfinite(e["train_loss"]) for e in bad.epochs)


def interrupted(tiny, sentiment, study, runs, path, after):
    def stop(bank, epoch):
        if epoch == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(tiny, sentiment, study, runs, checkpoint=path, at_epoch=stop)


RUNS = [Run("b_v", 0, 1e-2), Run("b_v", 1, 1e-2), Run("b_v", 1, 1e9)]


def test_scoring_of_tuning_rows_counts_no_padding_that_is_not_computed(tiny, sentiment):
    results, _ = trained(tiny, sentiment, replace(STUDY, tuning=0.2), RUNS[:1])
    assert results[0].bank["padding_efficiency"] == 1.0, "in float32 an encoder computes its real tokens alone"


def test_an_interrupted_bank_goes_on_to_the_same_result(tmp_path, tiny, sentiment):
    study = replace(STUDY, epochs=4, tuning=0.2, dtype="bfloat16")  # in which chunks are filled up
    path, seen = tmp_path / "deep" / "bank.safetensors", []
    whole = trained(tiny, sentiment, study, RUNS)
    interrupted(tiny, sentiment, study, RUNS, path, after=2)  # epoch 2 is lost, epoch 1 is kept
    again = trained(tiny, sentiment, study, RUNS, checkpoint=path, at_epoch=lambda b, epoch: seen.append(epoch))
    assert seen == [2, 3, 4]
    assert same(whole, again)
    padding = [r.bank["padding_efficiency"] for r in (*whole[0], *again[0])]
    assert len(set(padding)) == 1 and 0.5 < padding[0] < 1
    assert list(path.parent.iterdir()) == []
    assert whole[0][2].outcome == again[0][2].outcome != "ok"


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "other runs", "other method", "no progress"])
def test_a_checkpoint_that_cannot_be_used_is_ignored(tmp_path, tiny, sentiment, damage):
    study, path, runs, seen = replace(STUDY, epochs=3), tmp_path / "bank.safetensors", RUNS[:2], []
    others = [replace(r, seed=7) for r in runs] if damage == "other runs" else runs
    interrupted(tiny, sentiment, study, others, path, after=2)
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) * 2 // 3])
    elif damage in ("garbage", "empty"):
        path.write_bytes(b"x" * 5000 if damage == "garbage" else b"")
    elif damage == "no progress":
        from safetensors.torch import load_file, save_file

        save_file(load_file(path), path)
    elif damage == "other method":  # the same runs by name, other places
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        with safe_open(path, framework="pt") as file:
            progress = file.metadata()
        state = load_file(path)
        state["value1"] = state["value1"][:, :5].contiguous()
        save_file(state, path, metadata=progress)
    got = trained(tiny, sentiment, study, runs, checkpoint=path, at_epoch=lambda b, epoch: seen.append(epoch))
    assert seen == [0, 1, 2, 3]
    assert same(got, trained(tiny, sentiment, study, runs))
    assert not path.exists()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 GB")],
)
def test_too_little_memory_is_one_sentence_with_the_remedy(tiny, sentiment, monkeypatch, error):
    def fail(self, factor):
        raise error

    monkeypatch.setattr(training.StackedAdam, "step", fail)
    with pytest.raises(BeftError, match="not enough memory on cpu for 1 runs .*fewer runs per bank"):
        fitted(tiny, sentiment, STUDY, [Run("b_v", 0, 1e-2)], device="cpu")
    monkeypatch.undo()
    assert fitted(tiny, sentiment, STUDY, [Run("b_v", 0, 1e-2)])[0].outcome == "ok"  # the bank was taken off


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_the_peak_of_memory_is_that_of_the_runs_and_not_of_what_was_before():
    cpu = torch.device("cpu")
    big = torch.ones(50_000_000)  # 200 MB
    before = training.peak_memory(cpu)
    del big
    training.forget_peak(cpu)
    assert training.peak_memory(cpu) < before - 150_000_000


def test_other_errors_are_not_taken_for_memory(tiny, sentiment, monkeypatch):
    def fail(self, factor):
        raise RuntimeError("something else")

    monkeypatch.setattr(training.StackedAdam, "step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        fitted(tiny, sentiment, STUDY, [Run("b_v", 0, 1e-2)])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("b_w", 0, 1e-3), "unknown method 'b_w': did you mean"),
        (("b_v", 0, 0.0), "rate 0.0 is not a positive number"),
        (("b_v", 0, math.nan), "rate nan"),
        (("b_v", 0, math.inf), "rate inf"),
        (("b_v", 0, "1e-3"), "rate '1e-3'"),
        (("b_v", 0, True), "rate True"),
        (("b_v", -1, 1e-3), "seed -1"),
        (("b_v", 2**31, 1e-3), "seed 2147483648"),
        (("b_v", 1.5, 1e-3), "seed 1.5 is not a whole number"),
        (("b_v", "a", 1e-3), "seed 'a'"),
    ],
)
def test_a_run_with_a_bad_value_is_refused(values, says):
    with pytest.raises(BeftError, match=says):
        Run(*values)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "bfloat"}, "unknown dtype 'bfloat': did you mean bfloat16"),
        ({"validate": "lst"}, "unknown validate 'lst': did you mean last"),
        ({"epochs": 0}, "epochs 0 is not a whole number"),
        ({"batch_size": 1.5}, "batch_size 1.5"),
        ({"max_length": "128"}, "max_length '128'"),
        ({"epochs": True}, "epochs True is not a whole number"),
        ({"clip": 0}, "clip 0 is not a positive number"),
        ({"eps": -1e-6}, "eps -1e-06 is not a positive number"),
    ],
)
def test_a_study_with_a_bad_value_is_refused(changes, says):
    with pytest.raises(BeftError, match=says):
        Study(**changes)


def test_where_data_come_from_does_not_identify_a_run():
    assert Study(offline=True).identity() == Study(offline=False).identity()
    assert Study(epochs=3).identity() != Study(epochs=4).identity()


def test_predictions_are_probabilities_in_the_order_of_the_texts(tiny):
    texts = ["the film was good", "a bad and slow plot with a weak ending", "film"]
    together = predict(tiny.model, tiny.tokenizer, texts)
    assert together.shape == (3, 2) and together.sum(1) == pytest.approx(1.0)
    for text, row in zip(texts, together):
        assert predict(tiny.model, tiny.tokenizer, [(text,)])[0] == pytest.approx(row, abs=1e-6)
    assert np.ptp(together[:, 0]) > 1e-6


@pytest.mark.parametrize("method", ["head", "b_v"])
def test_logits_are_those_of_each_runs_own_rows_in_order(tiny, sentiment, method):
    encoded = encode(tiny.tokenizer, sentiment.validation.rows[:12], 64)
    wanted = [np.array([3, 0, 11]), np.array([5, 3])]
    with open_bank(tiny.model, [method] * 2, [0, 1]) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.normal_(generator=torch.Generator().manual_seed(0))
        got = logits(bank, encoded, wanted, ChunkCost(64, 8))
        for r, index in enumerate(wanted):
            for at, i in enumerate(index):
                alone = bank(torch.tensor([r]), **encoded.rows(np.array([i]), bank.device))
                torch.testing.assert_close(got[r][at], alone[0], rtol=1e-5, atol=1e-5)


def test_ones_own_file_with_three_classes_is_trained_on(tmp_path):
    words = {"happy": "glad joy smile", "sad": "tears gloom loss", "angry": "rage shout fury"}
    lines = [f"{text.split()[i % 3]} {text} {i},{label}" for label, text in words.items() for i in range(20)]
    (tmp_path / "moods.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    own = data_module.load(str(tmp_path / "moods.csv"))
    loaded = models.load(models.TINY, labels=len(own.task.labels))
    study = replace(STUDY, regime="all", epochs=3)
    (result,) = fitted(loaded, own, study, [Run("b_v", 0, 1e-2)])
    assert result.rows == {"train": 48, "tuning": 0, "validation": 12}
    assert result.epochs[0]["train_loss"] == pytest.approx(math.log(3), abs=0.2)
    assert result.parameters["head"] == 3 * 32 + 3
    assert 0 <= result.final["validation"] <= 1


# --- pairs, values, further metrics -----------------------------------------------------------------------------


def shortened(name, rows):
    whole = data_module.load(name)
    few = Split(whole.validation.rows[:rows], whole.validation.labels[:rows])
    return replace(whole, validation=few)


@pytest.fixture
def one_output():
    """The tiny model with a head for values, without dropout."""
    loaded = models.load(models.TINY, labels=1)
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return loaded


@pytest.mark.parametrize("method", ["head", "b_v"])
def test_a_regression_in_a_bank_is_the_plain_loop_on_squared_errors(one_output, method):
    data = shortened("microworld_similarity", 40)
    study = replace(STUDY, task="microworld_similarity")
    run = Run(method, 3, 3e-3)
    banked = fitted(one_output, data, study, [Run("b_q", 0, 1e-2), run], device="cpu")[1]
    alone = plain.fit(one_output, data, study, run, dropout=False)
    for ours, theirs in zip(banked.epochs, alone, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-3)
        assert ours["validation"] == pytest.approx(theirs["validation"], abs=1e-3)
        assert set(ours["metrics"]) == {"spearman", "pearson"}
        assert ours["metrics"]["spearman"] == ours["validation"]


def test_squared_errors_of_values_and_cross_entropy_of_codes_on_hand_worked_vectors():
    values = classification.targets(np.array([1.0, -1.0]))
    assert classification.losses(torch.tensor([[3.0], [0.0]]), values).tolist() == [4.0, 1.0]
    codes = classification.targets(np.array([1, 0]))
    assert classification.losses(torch.zeros(2, 4), codes).tolist() == pytest.approx([math.log(4)] * 2)
    assert classification.predictions(torch.tensor([[3.0], [0.5]])).tolist() == [3.0, 0.5]
    assert classification.predictions(np.array([[0.1, 0.9], [0.8, 0.2]])).tolist() == [1, 0]


def test_values_far_from_one_are_no_divergence(one_output):
    data = shortened("microworld_similarity", 20)
    data = replace(data, train=Split(data.train.rows, data.train.labels * 1000 + 500))
    study = replace(STUDY, task="microworld_similarity", epochs=1)
    assert fitted(one_output, data, study, [Run("b_v", 0, 1e-3)])[0].outcome == "ok"


def test_further_splits_and_metrics_are_scored_after_the_last_epoch(tiny, sentiment):
    further = {"other": Split(sentiment.train.rows[:30], sentiment.train.labels[:30])}
    task = replace(sentiment.task, metrics=("accuracy", "f1"))
    (result,) = fitted(tiny, replace(sentiment, task=task, further=further), STUDY, [Run("b_v", 0, 1e-2)])
    assert set(result.epochs[0]["metrics"]) == {"accuracy", "f1"}
    assert set(result.final["metrics"]) == {"accuracy", "f1", "accuracy (other)", "f1 (other)"}
    assert result.final["metrics"]["accuracy"] == result.final["validation"]
    (one,) = fitted(tiny, sentiment, STUDY, [Run("b_v", 0, 1e-2)])
    assert "metrics" not in one.final and one.final["validation"] == result.final["validation"]


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "glue" / "stsb").is_dir(), reason="no real GLUE: BEFT_DATA is not set")
def test_real_similarity_is_learned_beyond_chance():
    data = data_module.load("stsb", folder=REAL)
    few = Split(data.validation.rows[:200], data.validation.labels[:200])
    loaded = models.load(model_files.DEFAULT, labels=1)
    study = Study(task="stsb", regime=300, epochs=3, validate="last", max_length=64)
    (result,) = fitted(loaded, replace(data, validation=few), study, [Run("all_biases", 0, 3e-3)])
    assert result.final["metrics"]["spearman"] > 0.5
