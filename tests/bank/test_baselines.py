"""Full fine-tuning and the random mask: the plain loop's numbers, in banks of one, and nothing of the model changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fitting import fitted
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from beft.bank import baselines as weights
from beft.bank import fused
from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.dropout import ForwardState
from beft.bank.export import merge
from beft.data import load
from beft.data.batching import encode
from beft.data.datasets import Split
from beft.errors import BeftError
from beft.experiments import sweep
from beft.models import loading as models
from beft.records.store import Store
from beft.study import Run, Study
from benchmarks import reference as plain

STUDY = Study(model=models.TINY, task="microworld_sentiment", regime=48, epochs=2, offline=True)

SMALL_LLAMA = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


@pytest.fixture
def few(sentiment):
    return replace(sentiment, validation=Split(sentiment.validation.rows[:40], sentiment.validation.labels[:40]))


def kept(loaded, data, study, run):
    """(result, slots' values by name, the model's parameters before and after)."""
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    values = {}
    results = fitted(
        loaded,
        data,
        study,
        [run],
        at_end=lambda bank, _: values.update({s.parameter: s.values.detach().clone() for s in bank.slots}),
    )
    assert all(torch.equal(p, before[name]) for name, p in loaded.model.named_parameters())
    return results[0], values


def test_full_fine_tuning_is_the_plain_loop_with_every_weight_trained(still, few):
    run = Run("full", 3, 1e-3)
    ours, _ = kept(still, few, STUDY, run)
    theirs = plain.fit(still, few, STUDY, run, dropout=False)
    for mine, other in zip(ours.epochs, theirs, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert mine["validation"] == other["validation"]
    head = ours.parameters["head"]
    assert ours.parameters["weights"] + head == sum(p.numel() for p in still.model.parameters())
    assert (ours.parameters["bias"], ours.parameters["pooler"]) == (0, 0)


def test_lora_is_pefts_own_in_the_plain_loop(still, few, monkeypatch):
    """The layers, their start and their arithmetic are PEFT's; the loop is compared with torch's AdamW on them."""
    run = Run("lora", 3, 1e-2)
    modules, attributes = dict(still.model.named_modules()), set(vars(still.model))
    ours, values = kept(still, few, STUDY, run)
    assert dict(still.model.named_modules()) == modules, "the model is not as it was"
    assert set(vars(still.model)) == attributes
    assert ours.parameters["weights"] == sum(v.numel() for n, v in values.items() if ".lora_" in n) > 0
    assert {name.split(".")[-4] for name in values if ".lora_" in name} == {"query", "value"}
    assert ours.parameters["pooler"] > 0 and ours.parameters["bias"] == 0

    def with_lora(loaded, method, seed):
        model, parameters = prepare(loaded, "head", seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=["classifier"])
        torch.manual_seed(seed)
        model = get_peft_model(model, config)
        head = model.get_base_model().classifier.modules_to_save["default"]
        head.load_state_dict(model.get_base_model().classifier.original_module.state_dict())
        model.get_base_model().bert.pooler.dense.bias.requires_grad_(True)
        return model, [p for p in model.parameters() if p.requires_grad]

    prepare = plain.prepare
    monkeypatch.setattr(plain, "prepare", with_lora)
    theirs = plain.fit(still, few, STUDY, run, dropout=False)
    for mine, other in zip(ours.epochs, theirs, strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert mine["validation"] == other["validation"]


def test_the_mask_trains_its_entries_and_the_pooler_bias_alone(still, few):
    run = Run("mask", 3, 1e-2)
    result, values = kept(still, few, STUDY, run)
    entries = {name: value for name, value in values.items() if ".layer." in name}
    total = sum(p.numel() for _, p in weights.encoder_parameters(still.model))
    size = weights.mask_size(still.name, total)
    assert result.parameters["weights"] == sum(v.numel() for v in entries.values()) == size > 10
    assert sum(int((v != 0).sum()) for v in entries.values()) > size / 2
    assert result.parameters["pooler"] > 0 and result.parameters["bias"] == 0
    again, same = kept(still, few, STUDY, run)
    assert again.epochs == result.epochs and all(torch.equal(same[name], values[name]) for name in values)


def test_the_mask_is_drawn_without_replacement_from_the_encoder_alike(monkeypatch):
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=60)
    model = BertForSequenceClassification(config).eval().requires_grad_(False)
    sizes = {name: p.numel() for name, p in weights.encoder_parameters(model)}
    total = sum(sizes.values())
    assert all(name.startswith("bert.encoder.layer.") for name in sizes) and len(sizes) == 32
    monkeypatch.setattr(weights, "mask_size", lambda model, total: total // 2)
    share = torch.zeros(0)
    with open_bank(model, ["mask"], [0]) as bank:
        slots = bank.weights
        for slot in slots:
            size = sizes[slot.parameter]
            assert len(slot.entries.unique()) == len(slot.entries) and slot.entries.max() < size
            if size > 200:
                share = torch.cat([share, torch.tensor([len(slot.entries) / size])])
        assert sum(len(s.entries) for s in slots) == total // 2
    assert len(share) > 10 and (share - 0.5).abs().max() < 0.12
    with open_bank(model, ["mask"], [1]) as bank:
        other = bank.weights
    assert any(not torch.equal(a.entries, b.entries) for a, b in zip(slots, other))


def test_mask_sizes_are_the_papers_for_its_models_and_a_like_share_elsewhere():
    assert weights.mask_size("roberta-base", 85_054_464) == 105_000
    assert weights.mask_size("some-other", 85_054_464) == 100_000
    assert weights.mask_size("some-other", 10_646_784) == round(100_000 * 10_646_784 / 85_054_464)


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_a_layer_norm_of_which_anything_is_trained_is_left_to_torch(still, trained):
    """As entries of a mask may be: what stands for it has no gradient for either."""
    places = {module: 1 for module in still.model.modules() if isinstance(module, torch.nn.Dropout)}
    ends = fused.fuse(still.model, ForwardState(1), places)
    assert ends
    for handle in ends:
        own = getattr(handle.module.LayerNorm, trained).requires_grad_(True)
        x = torch.randn(2, 3, handle.module.dense.in_features)
        handle.module(x, torch.randn(2, 3, len(own))).square().sum().backward()
        assert own.grad.abs().max() > 0


def test_a_bank_takes_the_size_of_its_mask_from_the_models_name(still, monkeypatch):
    names = []
    monkeypatch.setattr(weights, "mask_size", lambda name, total: names.append(name) or 7)
    loaded = replace(still, name="models/roberta-base")
    data = load("microworld_sentiment")
    study = replace(STUDY, epochs=1)
    (result,) = fitted(loaded, data, study, [Run("mask", 0, 1e-2)])
    assert names == ["roberta-base"] and result.parameters["weights"] == 7


@pytest.mark.parametrize("method", ["full", "mask", "lora", "adapter"])
def test_weights_leave_as_a_plain_checkpoint(still, few, tmp_path, method):
    inputs = encode(still.tokenizer, few.train.rows[:4], 64).columns
    with open_bank(still.model, [method], [0]) as bank, torch.no_grad():
        for i, slot in enumerate(bank.slots):
            slot.values += 0.05 * torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(i))
        expected = bank.every_run(**inputs)[0]
        merged = merge(bank, 0, tmp_path / "plain")
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, expected, rtol=0, atol=1e-5)
        again = BertForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["full", "mask"])
def test_weights_as_they_are_have_no_adapter(still, tmp_path, method):
    with open_bank(still.model, [method], [0]) as bank:
        for refused in (adapters.save_adapter, adapters.load_adapter):
            with pytest.raises(BeftError, match=f"a {method} run trains weights as they are, .* PEFT has no adapter"):
                refused(bank, 0, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_patch_that_is_no_method_of_a_bank_is_refused(still):
    """Else it would train the head alone, under another name."""
    with pytest.raises(BeftError, match="unknown method 'sparse'"):
        open_bank(still.model, ["sparse"], [0])


@pytest.mark.parametrize("methods", [["full", "b_v"], ["mask", "mask"], ["lora", "head"]])
def test_runs_that_train_weights_share_no_bank(still, methods):
    with pytest.raises(BeftError, match="full, .*, prompt train weights and need a bank each"):
        open_bank(still.model, methods, [0, 1])
    open_bank(still.model, ["head"], [0]).detach()


def test_a_sweep_gives_them_a_bank_each_and_records_them_without_adapters(tmp_path):
    store = Store(tmp_path)
    runs = [Run(method, 0, 1e-3) for method in ("full", "b_v", "mask", "lora")]
    records = sweep.run(replace(STUDY, epochs=1), runs, store, progress=False)
    assert [r["bank"]["runs"] for r in records] == [1, 1, 1, 1] and all(r["outcome"] == "ok" for r in records)
    assert [r["parameters"].get("weights", 0) > 0 for r in records] == [True, False, True, True]
    assert [p.name for p in (tmp_path / "adapters").iterdir()] == [records[1]["key"]]
    with pytest.raises(BeftError, match="a full run trains weights"):
        sweep.adapter(STUDY, runs[0], store)


@pytest.mark.parametrize("method", ["full", "mask", "lora"])
def test_bfloat16_changes_the_precision_and_not_the_model(tiny, few, method):
    result, _ = kept(tiny, few, replace(STUDY, dtype="bfloat16", epochs=1), Run(method, 0, 1e-3))
    assert result.outcome == "ok"
    assert {p.dtype for p in tiny.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["full", "mask", "lora", "adapter", "prefix"])
def test_what_is_trained_of_a_model_in_bfloat16_has_the_digits_of_float32(method):
    model = LlamaForCausalLM(SMALL_LLAMA).to(torch.bfloat16).eval()
    with open_bank(model, [method], [0], "bfloat16") as bank:
        assert {slot.values.dtype for slot in bank.slots} == {torch.float32}
        for slot in bank.slots:
            slot.values.data.add_(1e-5)  # below the digits of most numbers in bfloat16, as a usual step is
        logits = bank(torch.zeros(2, dtype=torch.long), input_ids=torch.tensor([[1, 2, 3], [4, 5, 6]]))
        logits.sum().backward()
        assert all(slot.values.grad.isfinite().all() for slot in bank.slots)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
