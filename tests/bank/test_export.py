"""Tuned language models leave the package: plain checkpoints with biases switched on, and PEFT adapters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from beft.anatomy import projections as anatomy
from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.export import bias_flag, merge, moved_biases, switched
from beft.errors import BeftError
from beft.theory import null_key_bias as tiny_models

HAVE = ["GPT-2", "OPT", "BLOOM", "GPT-NeoX", "Qwen2", "Phi", "Falcon (grouped)", "GPT-BigCode"]
FLAGS = {
    "LLaMA": "attention_bias",
    "Qwen3": "attention_bias",
    "Gemma 2": "attention_bias",
    "Gemma 3": "attention_bias",
}
# Families without a flag of their own -> what lets them compute as Qwen2 does.
AS_QWEN2 = {"Mistral": {"sliding_window": None}, "Phi-3": {}}
NO_FLAG = ["Mistral", "GPT-J", "Phi-3"]

ELSEWHERE = """
import json, sys, torch
from pathlib import Path
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
here, logits = Path(sys.argv[1]), {}
inputs = load_file(here / "inputs.safetensors")
with torch.inference_mode():
    for folder in sorted((here / "plain").iterdir()):
        logits["plain " + folder.name] = AutoModelForCausalLM.from_pretrained(folder)(**inputs).logits
    for folder in sorted((here / "adapters").iterdir()):
        base = AutoModelForCausalLM.from_pretrained(here / "base" / folder.name)
        logits["base " + folder.name] = base(**inputs).logits
        logits["adapter " + folder.name] = PeftModel.from_pretrained(base, folder).eval()(**inputs).logits
assert not [name for name in sys.modules if name.partition(".")[0] == "beft"], "beft was imported"
save_file({k: v.contiguous() for k, v in logits.items()}, here / "logits.safetensors")
"""


def language_model(name: str, **changes: Any) -> Any:
    specimen = tiny_models.ARCHITECTURES[name]
    config = getattr(transformers, specimen.config)(**(specimen.settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def inputs_of(model: Any) -> dict[str, Tensor]:
    return tiny_models.inputs(model)


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for slot in bank.slots:
        slot.values.data = torch.randn(slot.values.shape, generator=generator) * 0.3 * slot.trained[:, None]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, run_elsewhere):
    """Logits of tuned models here, and of their exports in a process that has neither beft nor this one's memory."""
    here, expected = tmp_path_factory.mktemp("elsewhere"), {}
    for name in (*HAVE, *FLAGS, *AS_QWEN2):
        model = language_model(name, **AS_QWEN2.get(name, {}))
        model.save_pretrained(here / "base" / name)
        inputs = inputs_of(model)
        save_file(inputs, here / "inputs.safetensors")
        with open_bank(model, ["b_q", "b_v"], [0, 0]) as bank, torch.no_grad():
            fill(bank)
            expected[name] = bank(torch.ones(4, dtype=torch.long), None, **inputs)
            merge(bank, 1, here / "plain" / name, layout="qwen2" if name in AS_QWEN2 else None)
            if name != "GPT-2":
                adapters.save_adapter(bank, 1, here / "adapters" / name, "base")
    run_elsewhere(ELSEWHERE, here)
    return expected, load_file(here / "logits.safetensors"), here


@pytest.mark.parametrize("name", [*HAVE, *FLAGS, *AS_QWEN2])
def test_a_plain_checkpoint_needs_neither_beft_nor_peft(elsewhere, name):
    expected, there, _ = elsewhere
    torch.testing.assert_close(there[f"plain {name}"], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in (*HAVE, *FLAGS, *AS_QWEN2) if name != "GPT-2"])
def test_peft_loads_the_adapter_to_the_same_logits(elsewhere, name):
    expected, there, _ = elsewhere
    assert (there[f"base {name}"] - expected[name]).abs().max() > 1e-2
    torch.testing.assert_close(there[f"adapter {name}"], expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FLAGS)
def test_a_family_without_biases_gets_them_by_its_own_flag_zero_elsewhere(elsewhere, name):
    here = elsewhere[2]
    config = transformers.AutoConfig.from_pretrained(here / "plain" / name)
    assert getattr(config, FLAGS[name]) is True
    tensors = load_file(here / "plain" / name / "model.safetensors")
    biases = {n: x for n, x in tensors.items() if n.endswith("bias")}
    values = {n for n, x in biases.items() if x.any()}
    assert values == {n for n in biases if "v_proj" in n} and len(values) == tiny_models.LAYERS < len(biases)


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term")
@pytest.mark.parametrize("name", NO_FLAG)
def test_a_family_without_a_flag_is_named_and_an_adapter_offered(name, tmp_path):
    model = language_model(name)
    inputs = inputs_of(model)
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        expected = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        with pytest.raises(
            BeftError, match=f"no flag of {tiny_models.ARCHITECTURES[name].config} gives .* a bias.*save an adapter"
        ):
            merge(bank, 0)
        adapters.save_adapter(bank, 0, tmp_path)
    with torch.no_grad():
        tuned = adapters.load_tuned(model, tmp_path)
        torch.testing.assert_close(tuned(**inputs).logits, expected, rtol=1e-5, atol=1e-5)


def test_the_flag_that_adds_least_is_taken():
    model = language_model("LLaMA")
    modules = [site.module for site in anatomy.describe(model).of("v")]
    assert bias_flag(model, modules) == "attention_bias"
    assert bias_flag(model, ["model.layers.0.mlp.up_proj"]) == "mlp_bias"
    with pytest.raises(BeftError, match="no flag of LlamaConfig"):
        bias_flag(model, ["lm_head"])


def test_a_conv1d_has_no_adapter_and_says_so(tmp_path):
    with open_bank(language_model("GPT-2"), ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match="c_attn is a Conv1D.*merge"):
            adapters.save_adapter(bank, 0, tmp_path)


def test_an_injected_bias_comes_back_from_its_adapter(tmp_path):
    model = language_model("LLaMA")
    with open_bank(model, ["b_v"], [0]) as bank:
        fill(bank)
        saved = bank.biases(0, "v")[1]
        adapters.save_adapter(bank, 0, tmp_path)
    with open_bank(model, ["b_q", "b_v"], [0, 0]) as bank:
        adapters.load_adapter(bank, 1, tmp_path)
        assert torch.equal(bank.biases(1, "v")[1], saved)
        with pytest.raises(BeftError, match="another model or method"):
            adapters.load_adapter(bank, 0, tmp_path)


def test_a_model_in_bfloat16_stays_so(tmp_path):
    model = language_model("OPT").to(torch.bfloat16)
    with open_bank(model, ["b_v"], [0]) as bank:
        fill(bank)
        plain = merge(bank, 0, tmp_path)
    assert plain.dtype == torch.bfloat16
    assert {x.dtype for x in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}


def test_exporting_draws_no_random_numbers_and_leaves_the_model_alone():
    model = language_model("LLaMA")
    state, before = torch.get_rng_state(), {n: x.clone() for n, x in model.state_dict().items()}
    with open_bank(model, ["b_v"], [0]) as bank:
        merge(bank, 0)
    after = model.state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("name", "auto", "method", "what"),
    [
        ("LLaMA", "AutoModelForCausalLM", "prefix", "keys and values"),
        ("BERT", "AutoModelForMaskedLM", "prompt", "virtual tokens"),
    ],
)
def test_virtual_tokens_are_no_part_of_a_checkpoint(name, auto, method, what):
    with open_bank(tiny_models.build(name, auto=auto).requires_grad_(False), [method], [0]) as bank:
        with pytest.raises(BeftError, match=f"a {method} is {what} and no part of a plain checkpoint"):
            merge(bank, 0)


def test_quantised_weights_are_not_merged_into():
    model = tiny_models.build("LLaMA", auto="AutoModelForCausalLM").requires_grad_(False)
    model.config.quantization_config = {"quant_method": "gptq"}
    with open_bank(model, ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match="llama model are quantised"):
            merge(bank, 0)


@pytest.mark.parametrize(("name", "flags"), [("LLaMA", {"attention_bias": (False, True)}), ("OPT", {})])
def test_what_an_export_switched_on_is_read_from_config_and_sites(name, flags):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").requires_grad_(False)
    for parameter in (p for n, p in model.named_parameters() if n.endswith("_proj.bias")):
        parameter.data.zero_()
    with open_bank(model, ["b_v"], [0]) as bank:
        next(s for s in bank.slots if s.module.endswith("1.self_attn.v_proj")).values.data.fill_(1.0)
        exported = merge(bank, 0)
    biases = {"b_q": 0, "b_k": 0, "b_v": 1}
    assert switched(model.config, exported) == {"flags": flags, "biases": biases, "layers": 2}


@pytest.mark.parametrize("name", ["LLaMA", "GPT-2"])  # without biases; with query, key and value in one projection
def test_how_far_each_bias_moved_is_known_by_term_and_layer(name):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").requires_grad_(False)
    for parameter in (p for n, p in model.named_parameters() if n.endswith("c_attn.bias")):
        parameter.data.fill_(1.0)
    with open_bank(model, ["b_v"], [0]) as bank:
        own = [slot for slot in bank.slots if slot.values.shape[1:] == (anatomy.describe(model).of("v")[0].size,)]
        own[1].values.data.fill_(3.0)
        tuned = merge(bank, 0)
    rows = moved_biases(model, tuned)
    size = anatomy.describe(model).of("v")[1].size
    assert {(r["term"], r["layer"]) for r in rows} == {(f"b_{t}", n) for t in "qkv" for n in (1, 2)}
    moved = {(r["term"], r["layer"]): r["change"] for r in rows if r["change"]}
    assert moved == {("b_v", 2): pytest.approx(3 * size**0.5)}
    assert [r["size"] for r in rows] == pytest.approx([0.0 if name == "LLaMA" else size**0.5] * 6)


def test_biases_of_two_architectures_are_not_compared():
    one, other = (tiny_models.build(name, auto="AutoModelForCausalLM") for name in ("GPT-2", "OPT"))
    with pytest.raises(BeftError, match="other biases: give one model before and after tuning"):
        moved_biases(one, other)
