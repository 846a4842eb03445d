"""What a bank needs is known before weights are read, and is what it then takes."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import transformers

from beft.bank.baselines import open_bank
from beft.errors import BeftError
from beft.experiments import memory
from beft.models import loading as models
from beft.records.store import Store
from beft.theory import null_key_bias as tiny_models

ENCODERS = (
    "BERT", "RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "MPNet", "ALBERT", "ViT",
    "DeBERTa-v2 (c2p)", "DeBERTa-v2 (c2p, p2c)", "ModernBERT with biases", "T5", "BART",
)  # fmt: skip
SMALL = ["OPT", "LLaMA", "GPT-2", "GPT-J"]
DECODERS = [n for n in tiny_models.ARCHITECTURES if n not in ENCODERS]


def config(name: str, **changes):
    return getattr(transformers, tiny_models.ARCHITECTURES[name].config)(
        **(tiny_models.ARCHITECTURES[name].settings | changes)
    )


def saved(bank, forward) -> int:
    """Bytes autograd keeps of a forward pass, by the addresses of what it saves, without the bank's own tensors."""
    tensors = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        tensors[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    owned = {p.untyped_storage().data_ptr() for p in (*bank.parameters(), *bank.model.buffers())}
    return sum(size for place, (size, _) in tensors.items() if place not in owned)


def kept(config, tokens: int, rows: int, dtype: str = "float32") -> int:
    """Bytes autograd keeps of a step on a real model of random weights."""
    model = memory.random_model(config, dtype, torch.device("cpu"))
    with open_bank(model, ["b_v"], [0]) as bank:
        ids = torch.zeros(rows, tokens // rows, dtype=torch.long)
        return saved(bank, lambda: memory.step_loss(bank, ids))


LISTED = [n for n in DECODERS if config(n).model_type in memory.KEPT]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", LISTED)
def test_the_estimate_is_what_a_real_forward_pass_keeps(name, dtype):
    estimate = memory.estimate(config(name), tokens=64, rows=2, dtype=dtype)
    assert estimate.kept == pytest.approx(kept(config(name), 64, 2, dtype), rel=0.25)


@pytest.mark.parametrize("name", [n for n in DECODERS if n not in LISTED and n != "gpt-oss"])
def test_the_estimate_of_a_family_that_is_not_listed_is_no_less_than_what_it_keeps(name):
    estimate = memory.estimate(config(name), tokens=64, rows=2, dtype="float32")
    assert estimate.kept >= kept(config(name), 64, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["BERT", "XLM-RoBERTa", "ELECTRA", "MPNet", "DistilBERT", "ALBERT", "ModernBERT with biases"]
)
def test_the_estimate_of_a_layer_of_an_encoder_is_what_it_keeps_with_dropout(name, dtype):
    layers = "n_layers" if name == "DistilBERT" else "num_hidden_layers"
    ids, keys, kept_by = torch.full((4, 16), 5), torch.arange(4, dtype=torch.int32), []
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    drops = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1} if name == "ALBERT" else {}
    for count in (3, 4):
        c = config(name, **{layers: count}, **drops)
        model = transformers.AutoModelForSequenceClassification.from_config(c).eval().requires_grad_(False)
        with open_bank(model, ["all_biases"], [0], dtype) as bank:
            kept_by.append(saved(bank, partial(bank, torch.zeros(4, dtype=torch.long), keys, **inputs)))
    _, layer = memory.kept_by_layers(c, 64, 4, 4 if dtype == "float32" else 2)
    # what ELECTRA's embeddings hand on is bfloat16 there, and so are its sums
    rel = 0.17 if (name, dtype) == ("ELECTRA", "bfloat16") else 0.15
    assert layer == pytest.approx(kept_by[1] - kept_by[0], rel=rel)


def test_weights_and_runs_are_counted_exactly():
    c = config("LLaMA")
    model = memory.random_model(c, "float32", torch.device("cpu"))
    found = memory.estimate(c, tokens=64, rows=2, dtype="float32")
    with open_bank(model, ["b_v"], [0]) as bank:
        assert found.run == memory.ADAM * 4 * bank.parameter_counts(0)["bias"]
    assert found.parameters == sum(p.numel() for p in model.parameters()) and found.weights == 4 * found.parameters
    assert memory.estimate(c, tokens=64, rows=2).weights == 2 * found.parameters
    assert found.total(3) - found.total(1) == 2 * found.run
    assert found.recomputed < found.kept and found.total(recompute=True) < found.total()


def test_a_shape_is_the_papers_model_in_size():
    sizes = {name: memory.estimate(memory.config_of(name), tokens=64, rows=2).parameters for name in memory.shapes()}
    assert sizes == pytest.approx(
        {
            "opt-1.3b": 1.3e9,
            "opt-6.7b": 6.7e9,
            "llama2-7b": 6.74e9,
            "deepseek-coder-1.3b": 1.35e9,
            "gpt-j-6b": 6.05e9,
        },
        rel=0.02,
    )


def test_a_plan_takes_what_fits_and_no_more():
    c = config("LLaMA")
    found = memory.estimate(c, tokens=128, rows=1, dtype="float32")
    base = found.weights + 2 * found.run

    def plan(room: float) -> memory.Plan:
        return memory.plan(c, 2, 128, free=int(base + room / memory.SHARE) + 1, dtype="float32")

    assert plan(1e9) == memory.Plan(False, memory.CHUNKS["cpu"].tokens)
    assert plan(2 * found.kept) == memory.Plan(False, 256)
    assert plan(1.01 * found.recomputed).recompute
    with pytest.raises(BeftError, match=r"llama model of .* billion parameters needs .* GB .* are free on cpu"):
        plan(0.5 * found.recomputed)


def test_a_model_that_is_too_large_is_refused_before_it_is_read(monkeypatch, tmp_path):
    from beft.experiments import context
    from beft.study import Study

    tiny_models.build("LLaMA", auto="AutoModelForCausalLM").save_pretrained(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    monkeypatch.setattr(models, "load_causal", lambda *a, **k: pytest.fail("it was read"))
    study = Study(str(tmp_path), "microworld_sentiment", prompted=True, regime=8, offline=True)
    with pytest.raises(BeftError, match="GB are free on cpu: use a smaller model"):
        _ = context.Context(study).loaded


@pytest.mark.parametrize("name", SMALL)
def test_gradient_checkpointing_changes_no_gradient(name):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)
    inputs = tiny_models.inputs(model, batch=4)
    inputs = {n: inputs[n] for n in ("input_ids", "attention_mask")} | {"use_cache": False}
    rows, found = torch.tensor([0, 1, 0, 1]), []
    with open_bank(model, ["b_v", "b_q"], [0, 1]) as bank:
        for recomputes in (False, True):
            bank.zero_grad()
            if recomputes:
                with bank.recomputing():
                    bank(rows, None, **inputs).square().mean().backward()
            else:
                bank(rows, None, **inputs).square().mean().backward()
            found.append([s.values.grad.clone() for s in bank.slots])
        assert bank.state.run_ids is None and not any(m.training for m in model.modules())
    for plain, again in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradient_checkpointing_keeps_less(recomputes):
    model = memory.random_model(config("LLaMA", num_hidden_layers=6), "float32", torch.device("cpu"))
    kept, inside = [], []

    def note(tensor):
        kept.append(tensor.numel())
        return tensor

    with open_bank(model, ["b_v"], [0]) as bank:
        layer = model.model.layers[3].mlp.act_fn.register_forward_hook(lambda *a: inside.append(1))
        with bank.recomputing() if recomputes else nullcontext():
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                loss = memory.step_loss(bank, torch.zeros(2, 64, dtype=torch.long))
            loss.backward()
        layer.remove()
    assert len(inside) == 1 + recomputes
    assert (sum(kept) < 20 * 2 * 64 * model.config.hidden_size) is recomputes


def test_a_step_at_full_size_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(
        memory, "shapes", lambda: {"small": {"model_type": "llama", **tiny_models.ARCHITECTURES["LLaMA"].settings}}
    )
    store = Store(tmp_path)
    record = memory.measured("small", store, runs=2, tokens=64, rows=2)
    assert record["kind"] == "memory" and record["expected_bytes"] > 0 and record["seconds"] > 0
    monkeypatch.setattr(memory, "random_model", lambda *a: pytest.fail("measured again"))
    assert memory.measured("small", store, runs=2, tokens=64, rows=2) == record


def test_a_random_model_is_frozen_and_the_same_every_time_and_draws_from_no_one_elses_numbers():
    state, c = torch.get_rng_state(), config("LLaMA")
    one, other = (memory.random_model(c, "bfloat16", torch.device("cpu")) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.training and not any(p.requires_grad for p in one.parameters())
    assert {p.dtype for p in one.parameters()} == {torch.bfloat16}
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_an_unknown_shape_is_named_with_its_neighbours():
    with pytest.raises(BeftError, match="llama2-7b"):
        memory.config_of("llama2-7")


@pytest.mark.parametrize("name", DECODERS)
def test_every_family_has_a_plan(name):
    plan = memory.plan(config(name), 2, 64, dtype="float32")
    assert plan.tokens == memory.CHUNKS["cpu"].tokens and not plan.recompute
    assert "chunks of 1,024 tokens without gradient checkpointing" in plan.message


def prompted(model):
    from beft.experiments.context import Context
    from beft.study import Study

    return Context(Study(str(model), "microworld_sentiment", prompted=True, regime=8, offline=True))


@pytest.mark.parametrize("name", ["BERT", "T5"])
def test_a_model_that_is_not_causal_is_refused_in_a_sentence_before_it_is_read(name, tmp_path):
    auto = {"BERT": "AutoModelForMaskedLM", "T5": "AutoModelForSeq2SeqLM"}[name]
    tiny_models.build(name, auto=auto).save_pretrained(tmp_path)
    for model in (tmp_path, models.TINY):
        with pytest.raises(BeftError, match="looks both ways: give a causal language model"):
            _ = prompted(model).loaded


def test_a_config_that_cannot_be_read_is_named(tmp_path):
    tiny_models.build("LLaMA", auto="AutoModelForCausalLM").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(BeftError, match="has no readable config.json"):
        _ = prompted(tmp_path).loaded
