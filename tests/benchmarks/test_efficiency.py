"""The benchmark of what a run costs writes records that notebook 06 can show; no time is asserted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from beft.data import sources
from beft.models import loading
from beft.models.files import TINY
from beft.records.store import Store
from beft.report.figures import efficiency as figures
from beft.report.tables import efficiency as tables
from beft.study import Run, Study
from benchmarks import efficiency, usual, work

FEW = ["--task", "microworld_sentiment", "--rows", "32", "--validation", "20", "--repeats", "1", "--epochs", "2"]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(efficiency, "ENCODER", TINY)
    monkeypatch.setattr(efficiency, "GROWN", {"R": (1, 2), "length": (8, 16), "layers": (1, 2), "width": (64, 128)})
    monkeypatch.setattr(efficiency, "START", {"layers": 1, "width": 64, "length": 8, "R": 1})
    fast = {"products": {"float32": {"384": 1e11}, "bfloat16": {"384": 2e11}}, "copies": 1e10}
    monkeypatch.setattr(efficiency, "rates", lambda: fast)
    monkeypatch.setattr(efficiency, "memory_of", lambda runs, dtype, task: {"runs": runs, "dtype": dtype, "peak": 10})


def test_every_part_that_trains_small_models_has_a_record_table_and_figure(small, tmp_path):
    parts = ["encoder", "growth", "profile"]
    assert efficiency.main([*FEW, "--parts", *parts, "--out", str(tmp_path)]) == 0
    cpu = tables.by_part(Store(tmp_path).all("bench"))
    assert list(cpu) and set(cpu) == set(parts)

    ways = tables.ways(cpu["encoder"], 384)
    assert {"bank", "Trainer", "authors' protocol"} == set(ways["way"])
    assert (ways["seconds"] > 0).all() and ways["score"].between(0, 1).all()
    bank = ways[ways["way"] == "bank"]
    assert (bank["share"] > 0).all() and bank["padding"].between(0, 0.5).all()
    assert list(ways.loc[ways["best"].astype(bool), "times"]) == pytest.approx([1.0] * ways["best"].sum())

    aims = tables.targets(ways, tables.ways(None, 576), cpu["encoder"]["memory"])
    assert list(aims["measured"])[-1] == "not run" and not aims["met"].iloc[-1]
    grown = tables.growth(cpu["growth"])
    assert set(grown["grown"]) == {"R", "length", "layers", "width"} and np.isfinite(grown["exponent"]).all()
    parts_of_time = tables.breakdown(cpu["profile"])
    assert parts_of_time.sum(axis=1).to_numpy() == pytest.approx(np.ones(len(parts_of_time)))
    for fig in (figures.cost_by_way({"tiny": ways}), figures.growth(grown), figures.where_time_goes(parts_of_time)):
        fig.canvas.draw()


def test_runs_in_the_shape_of_bert_base_are_measured_with_random_weights(small, monkeypatch, tmp_path):
    own = efficiency.bert
    monkeypatch.setattr(efficiency, "bert", lambda layers, width, length: own(1, 64, length))
    monkeypatch.setattr(efficiency, "ONCE_WITH", {"card": (1, 16, 30)})
    assert efficiency.main([*FEW, "--parts", "card", "--out", str(tmp_path)]) == 0
    record = tables.by_part(Store(tmp_path).all("bench"))["card"]
    assert record["model"]["name"] == "BERT-base's shape, random weights", "not the model whose tokenizer it has"
    card = tables.ways(record, 768)
    banks = card[(card["way"] == "bank") & (card["method"] == "b_v")]
    assert {16, 30} <= set(banks["runs"]) and "authors' protocol" in set(card["way"])
    aims = tables.targets_on_a_card(card, None)
    assert list(aims["measured"])[2:] == ["not run", "not run"] and "not run" not in list(aims["measured"])[:2]


def test_what_a_step_of_a_large_shape_keeps_is_reckoned_from_its_sizes():
    step = {"layers": 2, "tokens": 3, "width": 8, "inner": 20, "model_bytes": 1000, "peak": 1500}
    assert tables.kept_bytes(step) == 2 * 2 * 3 * (48 + 40)
    step |= {"shape": "LLaMA2-7B", "runs": 1, "rows": 4, "length": 128}
    aims = tables.targets_on_a_card(tables.ways(None, 768), {"results": [step]})
    assert aims["measured"].iloc[-1] == f"{1500 / (1000 + 1056):.2f}" and aims["met"].iloc[-1]


def test_without_records_tables_and_figures_say_not_run(quiet_figures):
    nothing = tables.ways(None, 384)
    assert not len(nothing) and not len(tables.of_model(nothing)) and not len(tables.shapes(None))
    assert set(tables.targets(nothing, nothing, [])["measured"]) == {"not run"}
    assert set(tables.targets_on_a_card(nothing, None)["measured"]) == {"not run"}
    for fig in (
        figures.cost_by_way({"tiny": nothing}),
        figures.growth(tables.growth(None)),
        figures.where_time_goes(tables.breakdown(None)),
    ):
        fig.canvas.draw()


@pytest.mark.parametrize("method", usual.METHODS)
def test_the_trainer_trains_what_the_method_names(tiny, method):
    model = usual.adapted(tiny, method)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    biases = {name for name in trained if "bias" in name and "classifier" not in name}
    assert any("classifier" in name for name in trained)
    assert not any(p.requires_grad for p in tiny.model.parameters()), "the model itself stays as it was"
    if method == "b_v":
        assert biases and all("value" in name for name in biases)
    if method == "full":
        assert trained == {name for name, _ in model.named_parameters()}
    if method == "lora":
        assert any("lora_A" in name for name in trained)


@pytest.mark.parametrize("best", [False, True])
def test_a_run_with_the_trainer_has_a_row_of_logits_and_a_label_for_every_row(tiny, best):
    task = sources.load("microworld_sentiment", evaluated=40)
    study = Study(TINY, "microworld_sentiment", 64, 2, 16)
    logits, labels = usual.classify(tiny, task, study, Run("b_v", 0, 1e-2), best)
    assert logits.shape == (40, 2) and np.isfinite(logits).all()
    assert sorted(labels) == sorted(task.validation.labels)


@pytest.mark.parametrize("best", [False, True])
def test_labels_belong_to_their_logits_in_whatever_order_the_trainer_predicts(tiny, best, monkeypatch):
    task = sources.load("microworld_sentiment", evaluated=40)
    rows = [*zip(task.train.rows, task.train.labels), *zip(task.validation.rows, task.validation.labels)]
    known = {tuple(tiny.tokenizer(text)["input_ids"]): int(label) for (text,), label in rows}

    class Knows(torch.nn.Module):  # the label of every text
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, input_ids, attention_mask, labels):
            texts = [tuple(ids[mask > 0].tolist()) for ids, mask in zip(input_ids, attention_mask)]
            logits = self.scale * torch.eye(2)[[known[text] for text in texts]]
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    monkeypatch.setattr(usual, "adapted", lambda *_: Knows())
    study = Study(TINY, "microworld_sentiment", 32, 1, 16)
    logits, labels = usual.classify(tiny, task, study, Run("b_v", 0, 1e-2), best)
    assert (logits.argmax(1) == labels).all()


def test_a_run_with_the_trainer_is_scored_by_the_metric_of_the_task_as_a_bank_is(tiny, monkeypatch):
    data = sources.load("microworld_sentiment", evaluated=40)
    data = replace(data, task=replace(data.task, metrics=("f1", "accuracy")))
    answers = np.eye(2)[[1, 1, 1, 0]], np.array([1, 0, 1, 1])  # three of class 1 predicted and three there, two in both
    monkeypatch.setattr(usual, "classify", lambda *_: answers)
    study = Study(TINY, "microworld_sentiment", 64, 1, 16)
    score = efficiency.with_the_trainer(tiny, data, study, Run("b_v", 0, 1e-2), False)["score"]
    assert score == pytest.approx(2 / 3)


def test_prompts_with_the_trainer_score_every_option():
    loaded = loading.load_causal("tiny-llama")
    data = sources.load_prompts("microworld_choices", evaluated=6)
    study = Study("tiny-llama", "microworld_choices", 16, 1, 8, 512, prompted=True, schedule="linear")
    scores, labels = usual.prompt(loaded, data, study, Run("b_v", 0, 1e-2))
    assert labels.tolist() == [e.label for e in data.validation.rows]
    assert scores.shape == (6, len(data.validation.rows[0].options)) and (scores < 0).all()


def test_weights_in_products_are_those_of_the_layers(tiny):
    linear = sum(p.numel() for n, p in tiny.model.named_parameters() if ".layer." in n and p.dim() == 2)
    assert work.weights_in_products(tiny.model) == linear


def test_the_gpu_is_asked_for_where_there_is_none(monkeypatch, capsys):
    assert efficiency.main(["--gpu"]) == 2
    assert "there is no GPU here" in capsys.readouterr().err
