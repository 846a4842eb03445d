"""Tuned runs leave the package: as PEFT adapters and plain checkpoints that need nothing of it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    RobertaConfig,
)

from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.slots import BiasSlot
from beft.errors import BeftError
from beft.models import loading as models
from beft.study import METHODS
from beft.theory import null_key_bias as tiny_models

ELSEWHERE = """
import sys, torch
from pathlib import Path
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
here, names = Path(sys.argv[1]), sys.argv[2:]
inputs, logits = load_file(here / "inputs.safetensors"), {}
with torch.inference_mode():
    for name in names:
        base = AutoModelForSequenceClassification.from_pretrained(here / "base").eval()
        tuned = PeftModel.from_pretrained(base, here / "adapters" / name).eval()
        logits["adapter " + name] = tuned(**inputs).logits
        merged = AutoModelForSequenceClassification.from_pretrained(here / "merged" / name).eval()
        logits["merged " + name] = merged(**inputs).logits
    base = AutoModelForSequenceClassification.from_pretrained(here / "base").eval()
    logits["base"] = base(**inputs).logits
assert not [name for name in sys.modules if name.partition(".")[0] == "beft"], "beft was imported"
save_file({k: v.contiguous() for k, v in logits.items()}, here / "logits.safetensors")
"""


def fill(bank, seed=0, size=0.3):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for slot in bank.slots:
            values = torch.randn(slot.values.shape, generator=generator) * size
            slot.values[slot.trained] = values[slot.trained]


def some_inputs(loaded):
    texts = ["the film was good", "a bad and slow plot with a weak ending", "film", "not good at all"]
    return dict(loaded.tokenizer(texts, padding=True, return_tensors="pt"))


def config(kind, **changes):
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 60,
    }
    return kind(**(sizes | changes))


def model_of(c):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(c).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, run_elsewhere):
    """Logits of every method's run here, and of its adapter and merged checkpoint in a process without beft."""
    here, loaded = tmp_path_factory.mktemp("elsewhere"), models.load(models.TINY, labels=2)
    loaded.model.save_pretrained(here / "base")
    inputs = some_inputs(loaded)
    save_file(inputs, here / "inputs.safetensors")
    with open_bank(loaded.model, METHODS, range(5)) as bank, torch.no_grad():
        fill(bank)
        every = bank.every_run(**inputs)
        for run, name in enumerate(METHODS):
            adapters.save_adapter(bank, run, here / "adapters" / name, "base")
            merge(bank, run, here / "merged" / name)
    run_elsewhere(ELSEWHERE, here, *METHODS)
    return dict(zip(METHODS, every)), load_file(here / "logits.safetensors")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_a_process_without_beft_gives_the_same_logits(elsewhere, form, method):
    here, there = elsewhere
    assert (here[method] - there["base"]).abs().max() > 1e-2
    torch.testing.assert_close(there[f"{form} {method}"], here[method], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_comes_back_into_a_bank(tmp_path, tiny, method):
    inputs = some_inputs(tiny)
    with open_bank(tiny.model, [method], [0]) as bank, torch.no_grad():
        fill(bank)
        saved, values = bank.every_run(**inputs), [s.values[0].clone() for s in bank.slots]
        adapters.save_adapter(bank, 0, tmp_path)
    with open_bank(tiny.model, ["b_k", method], [1, 2]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 1, tmp_path)
        torch.testing.assert_close(bank.every_run(**inputs)[1], saved[0], rtol=0, atol=1e-5)
        mine = [s.values[1] for s in bank.slots if s.trained[1]]
        assert sum(m.numel() for m in mine) == sum(v.numel() for v in values)
        assert all(not s.values[0].any() for s in bank.slots if s.group != "head")
    tuned = adapters.load_tuned(tiny.model, tmp_path)
    torch.testing.assert_close(tuned(**inputs).logits, saved[0], rtol=0, atol=1e-5)


@pytest.fixture
def value_adapter(tmp_path, tiny):
    """An adapter of a b_v run of the tiny model."""
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        fill(bank)
        return adapters.save_adapter(bank, 0, tmp_path / "b_v")


@pytest.mark.parametrize("method", ["head", "b_q", "b_k", "all_biases"])
def test_an_adapter_of_another_method_is_refused(value_adapter, tiny, method):
    with open_bank(tiny.model, [method], [0]) as bank:
        with pytest.raises(BeftError, match=f"a {method} run .*(another model or method|does not train)"):
            adapters.load_adapter(bank, 0, value_adapter)


@pytest.mark.parametrize("name", ["Phi-3", "GPT-NeoX", "BLOOM", "Falcon (grouped)"])
def test_another_term_of_a_fused_projection_is_refused(name, tmp_path):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)
    with open_bank(model, ["b_q", "b_v"], [0, 0]) as bank, torch.no_grad():
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path)
        with pytest.raises(BeftError, match="also has other terms of .*beft_bias, which a b_v run does not train"):
            adapters.load_adapter(bank, 1, tmp_path)
        wanted = [slot.values[0].clone() for slot in bank.trained(0)]
        for slot in bank.trained(0):
            slot.values.zero_()
        adapters.load_adapter(bank, 0, tmp_path)
        assert all(torch.equal(slot.values[0], one) for slot, one in zip(bank.trained(0), wanted, strict=True))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": 3}, "has no .*layer.2.attention.self.value"),
        ({"num_hidden_layers": 1}, "also has .*layer.1.attention.self.value"),
        ({"hidden_size": 16}, "layer.0.attention.self.value.beft_bias has shape"),
    ],
)
def test_an_adapter_of_another_model_is_refused(value_adapter, changes, says):
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    with open_bank(model_of(config(BertConfig, **(sizes | changes))), ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match=says):
            adapters.load_adapter(bank, 0, value_adapter)


def test_a_truncated_adapter_is_refused(value_adapter, tiny):
    weights = value_adapter / adapters.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-100])
    with (
        open_bank(tiny.model, ["b_v"], [0]) as bank,
        pytest.raises(BeftError, match="truncated .*save the adapter"),
    ):
        adapters.load_adapter(bank, 0, value_adapter)
    with pytest.raises(BeftError, match="truncated"):
        adapters.load_tuned(tiny.model, value_adapter)


def test_a_folder_without_an_adapter_is_named(tmp_path, tiny):
    with pytest.raises(BeftError, match=f"no adapter in {tmp_path}"):
        adapters.load_tuned(tiny.model, tmp_path)


def test_a_head_without_any_bias_has_no_adapter_but_merges(tmp_path):
    model = model_of(config(RobertaConfig))
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 5, 6, 7]])}
    with open_bank(model, ["head"], [0]) as bank, torch.no_grad():
        fill(bank)
        with pytest.raises(BeftError, match="has no BEFT adapter: export it with merge"):
            adapters.save_adapter(bank, 0, tmp_path / "adapter")
        assert not (tmp_path / "adapter").exists()
        plain = merge(bank, 0)
        torch.testing.assert_close(plain(**inputs).logits, bank.every_run(**inputs)[0], rtol=0, atol=1e-5)


def test_a_bias_that_the_model_does_not_have_is_switched_on_by_its_config(small_vit):
    model = small_vit(qkv_bias=False)
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        plain = merge(bank, 0)
        pixels = {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)}
        torch.testing.assert_close(plain(**pixels).logits, bank.every_run(**pixels)[0], rtol=0, atol=1e-5)
    assert plain.config.qkv_bias is True and model.config.qkv_bias is False


def test_a_bfloat16_bank_merges_into_unrounded_weights(tmp_path, tiny):
    original = {n: t.clone() for n, t in tiny.model.state_dict().items()}
    with open_bank(tiny.model, ["b_v"], [0], "bfloat16") as bank, torch.no_grad():
        fill(bank)
        moved = {s.module: s.values[0].clone() for s in bank.slots if isinstance(s, BiasSlot)}
        merge(bank, 0, tmp_path)
    merged = load_file(tmp_path / "model.safetensors")
    assert merged.keys() == original.keys()
    for name, tensor in merged.items():
        module, _, leaf = name.rpartition(".")
        if name.startswith("classifier"):
            continue
        expected = original[name] + moved[module] if leaf == "bias" and module in moved else original[name]
        assert tensor.dtype == torch.float32 and torch.equal(tensor, expected), name
