"""Steps that a GPU plays back are those that the host would have asked for; here computed on a CPU, as they come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from encoders import build
from fitting import fitted

from beft.bank.baselines import open_bank
from beft.bank.dropout import example_keys
from beft.data import sources as data
from beft.data.batching import Encoded
from beft.models import loading as models
from beft.study import Run, Study
from beft.training import graphs, loop

STUDY = Study(models.TINY, "microworld_sentiment", 30, epochs=2, batch_size=8, max_length=32, tuning=0.0)


@pytest.fixture
def played(monkeypatch):
    """Let a CPU take the steps of a GPU, without records of them."""

    def use(most=4096):
        def passes(bank, objective, cost):
            table = objective.table()
            return None if table is None or bank.padded == 1 else graphs.Passes(bank, *table, most)

        monkeypatch.setattr(loop, "_passes", passes)

    return use


def trained(methods, study=STUDY, labels=2):
    values: list[torch.Tensor] = []
    results = fitted(
        models.load(models.TINY, labels=labels),
        data.load(study.task),
        study,
        [Run(method, seed, 3e-3) for seed, method in enumerate(methods)],
        at_end=lambda bank, _: values.extend(slot.values.detach().clone() for slot in bank.slots),
    )
    return [result.epochs for result in results], values


@pytest.mark.parametrize("most", [4096, 60])
@pytest.mark.parametrize(
    "methods", [["b_v", "b_q", "all_biases", "head"], ["b_v"], ["b_v[1]", "b_q[0]"], ["full"], ["lora"]]
)
def test_a_bank_learns_the_same_however_its_steps_are_taken(methods, most, played):
    usual, values = trained(methods)
    played(most)
    epochs, others = trained(methods)
    for a, b in zip(usual, epochs, strict=True):
        assert [e["train_loss"] for e in a] == pytest.approx([e["train_loss"] for e in b], abs=1e-4)
        assert [e["validation"] for e in a] == pytest.approx([e["validation"] for e in b], abs=0.6)
    for a, b in zip(values, others, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-2)


def test_values_are_learnt_as_classes_are(played):
    study = replace(STUDY, task="microworld_similarity")
    usual, values = trained(["b_v", "head"], study, 1)
    played()
    epochs, others = trained(["b_v", "head"], study, 1)
    assert [e["train_loss"] for e in usual[0]] == pytest.approx([e["train_loss"] for e in epochs[0]], rel=1e-3)
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(values, others, strict=True))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "mpnet"])
def test_gradients_of_a_step_are_those_of_its_rows(family):
    model, lengths = build(family), np.array([7, 3, 5, 9, 4, 6])
    ids = torch.randint(5, 60, (6, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.from_numpy(lengths)[:, None]).long()
    rows = Encoded({"input_ids": ids * mask + (1 - mask), "attention_mask": mask}, lengths)
    labels, index = torch.tensor([0, 1, 1, 0, 1, 0]), np.array([3, 0, 1, 2, 4, 5])
    keys = example_keys(torch.tensor([5, 5, 5, 9, 9, 9]), 2, torch.tensor([0, 1, 2, 0, 1, 2]))
    with open_bank(model, ["b_v", "all_biases"], [5, 9]) as bank:
        passes = graphs.Passes(bank, rows, labels, 100)
        passes.step(index, keys)
        taken = [gradient.clone() for gradient in passes.gradients]
        for slot in bank.slots:
            slot.values.grad = None
        run_ids = torch.tensor([0, 0, 0, 1, 1, 1])
        own = torch.nn.functional.cross_entropy(
            bank(run_ids, keys, **rows.rows(index, bank.device)), labels[index], reduction="none"
        )
        (own.sum() / 3).backward()
        for slot, gradient in zip(bank.slots, taken, strict=True):
            whole = torch.zeros_like(gradient) if slot.values.grad is None else slot.values.grad
            torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(passes.losses, own.detach().double().view(2, 3).sum(1), rtol=1e-4, atol=1e-6)


def test_nan_of_a_run_stays_in_its_own_gradient():
    model = build("bert")
    ids = torch.randint(5, 60, (4, 8), generator=torch.Generator().manual_seed(1))
    rows = Encoded({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, np.full(4, 8))
    with open_bank(model, ["b_v", "b_v"], [0, 1]) as bank:
        with torch.no_grad():
            bank.slots[0].values[0] = float("nan")
        passes = graphs.Passes(bank, rows, torch.zeros(4, dtype=torch.long), 100)
        passes.step(np.arange(4), torch.arange(4, dtype=torch.int32))
        assert any(gradient[0].isnan().any() for gradient in passes.gradients)
        assert not any(gradient[1].isnan().any() for gradient in passes.gradients)


def test_shapes_of_passes_are_few_and_little_is_filled():
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(3.1, 0.5, 4000), 4, 64).astype(int)
    ids = torch.ones(len(lengths), 64, dtype=torch.long)
    rows = Encoded({"input_ids": ids, "attention_mask": ids}, lengths)
    with open_bank(build("bert"), ["b_v"] * 16, list(range(16))) as bank:
        passes = graphs.Passes(bank, rows, torch.zeros(len(lengths), dtype=torch.long), 16384)
        shapes = set()
        for _ in range(60):
            index = generator.choice(len(lengths), 256)
            shape, numbers = passes._numbers(index, torch.zeros(256, dtype=torch.int32), 16)
            shapes.add(shape)
            assert len(numbers) == shape.rows * (shape.length + 2) + shape.tokens + 256
        assert len(shapes) < 20 and rows.padding.efficiency > 0.95


def test_without_memory_for_a_graph_passes_are_computed_as_they_come(monkeypatch):
    class Graph:
        ended = 0

        def capture_end(self):
            Graph.ended += 1
            raise RuntimeError("the capture was invalidated")

    def full(shape, given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    ids = torch.ones(4, 8, dtype=torch.long)
    rows = Encoded({"input_ids": ids, "attention_mask": ids}, np.full(4, 8))
    with open_bank(build("bert"), ["b_v"], [0]) as bank:
        passes = graphs.Passes(bank, rows, torch.zeros(4, dtype=torch.long), 100)
        monkeypatch.setattr(passes, "_compute", full)
        shape, numbers = passes._numbers(np.arange(4), torch.zeros(4, dtype=torch.int32), 4)
        assert passes.captures and not passes._captured(Graph(), shape, numbers)
        assert not passes.captures and Graph.ended == 1
