"""A bias as LoRA of rank 1 with a bias says through PEFT what the BEFT adapter says."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import beft
from beft.bank import adapter_files
from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.bias_as_lora import as_vectors, lora_of
from beft.bank.handover import adapter_as_lora
from beft.errors import BeftError
from beft.models import loading as models
from beft.theory import null_key_bias as tiny_models

ENCODERS = ["BERT", "RoBERTa", "DeBERTa-v2 (c2p, p2c)"]
DECODERS = ["OPT", "Qwen2", "LLaMA", "Mistral", "Phi-3", "GPT-NeoX"]
# PEFT merges into a layer that has a bias of its own, and into no other.
BARE = ["LLaMA", "Mistral", "Phi-3"]
ELSEWHERE = """
import sys, torch
from pathlib import Path
from peft import PeftModel
from safetensors.torch import load_file, save_file
import transformers
here, auto, logits = Path(sys.argv[1]), getattr(transformers, sys.argv[2]), {}
inputs = load_file(here / "inputs.safetensors")
with torch.inference_mode():
    for kind in ("beft", "lora"):
        base = auto.from_pretrained(here / "base").eval()
        tuned = PeftModel.from_pretrained(base, here / kind).eval()
        assert tuned.peft_config["default"].peft_type.value == kind.upper()
        logits[kind] = tuned(**inputs).logits.contiguous()
assert not [name for name in sys.modules if name.partition(".")[0] == "beft"], "beft was imported"
save_file(logits, here / "logits.safetensors")
"""


def model_of(name: str, auto: str) -> Any:
    return tiny_models.build(name, auto=f"AutoModelFor{auto}").float().requires_grad_(False)


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for slot in bank.slots:
            slot.values.copy_(torch.randn(slot.values.shape, generator=generator) * 0.3)


CASES = [*((name, "SequenceClassification") for name in ENCODERS), *((name, "CausalLM") for name in DECODERS)]


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term", "ignore:`lora_bias=True`")
@pytest.mark.parametrize("method", ["b_v", "b_q"])
@pytest.mark.parametrize(("name", "auto"), CASES)
def test_peft_gives_the_same_logits_of_both(name, auto, method, tmp_path):
    model = model_of(name, auto)
    inputs = tiny_models.inputs(model)
    with open_bank(model, [method], [0]) as bank, torch.no_grad():
        fill(bank)
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        adapters.save_adapter(bank, 0, tmp_path / "beft", "base")
        adapters.save_adapter(bank, 0, tmp_path / "lora", "base", as_lora=True)
    adapter_as_lora(model, tmp_path / "beft", tmp_path / "again")
    for kind in ("beft", "lora", "again"):
        base = model_of(name, auto)
        with torch.no_grad():
            before = base(**inputs).logits
            tuned = peft.PeftModel.from_pretrained(base, tmp_path / kind).eval()
            assert (tuned(**inputs).logits - before).abs().max() > 1e-2
            torch.testing.assert_close(tuned(**inputs).logits, said, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                beft.load_tuned(model_of(name, auto), tmp_path / kind)(**inputs).logits, said, rtol=1e-5, atol=1e-5
            )
    one, two = (load_file(tmp_path / folder / adapters.WEIGHTS) for folder in ("lora", "again"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_a_process_without_this_package_gives_them_too(tmp_path, run_elsewhere):
    from safetensors.torch import save_file

    model = model_of("OPT", "CausalLM")
    model.save_pretrained(tmp_path / "base")
    save_file(tiny_models.inputs(model), tmp_path / "inputs.safetensors")
    with open_bank(model, ["b_v"], [0]) as bank:
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path / "beft")
        adapters.save_adapter(bank, 0, tmp_path / "lora", as_lora=True)
    run_elsewhere(ELSEWHERE, tmp_path, "AutoModelForCausalLM")
    there = load_file(tmp_path / "logits.safetensors")
    torch.testing.assert_close(there["lora"], there["beft"], rtol=1e-5, atol=1e-5)


def test_the_matrices_are_zero_and_of_rank_one(tiny, tmp_path):
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path, as_lora=True)
    config = json.loads((tmp_path / adapters.CONFIG).read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_bias"]) == ("LORA", 1, 1, True)
    tensors = adapter_files.read(tmp_path).tensors
    matrices = {n: x for n, x in tensors.items() if n.endswith((".lora_A.weight", ".lora_B.weight"))}
    assert matrices and not any(x.any() for x in matrices.values())
    assert all(x.shape[0 if "lora_A" in n else 1] == 1 for n, x in matrices.items())
    assert "classifier.weight" in tensors and config["modules_to_save"] == ["classifier"]


@pytest.mark.parametrize(("name", "auto"), CASES)
def test_peft_merges_it_where_every_layer_has_a_bias_and_nowhere_else(name, auto, tmp_path):
    model = model_of(name, auto)
    inputs = tiny_models.inputs(model)
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        adapters.save_adapter(bank, 0, tmp_path, as_lora=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuned = peft.PeftModel.from_pretrained(model_of(name, auto), tmp_path)
    if name in BARE:
        with pytest.raises(RuntimeError, match="Impossible to merge LoRA with `lora_bias=True`"):
            tuned.merge_and_unload()
        return
    with torch.no_grad():
        torch.testing.assert_close(tuned.merge_and_unload()(**inputs).logits, said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "auto"), [("BERT", "SequenceClassification"), ("LLaMA", "CausalLM")])
def test_it_comes_back_into_a_bank_and_into_a_plain_model(name, auto, tmp_path):
    model = model_of(name, auto)
    inputs = tiny_models.inputs(model)
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        adapters.save_adapter(bank, 0, tmp_path, as_lora=True)
    with open_bank(model_of(name, auto), ["b_v"], [1]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, tmp_path)
        torch.testing.assert_close(bank(torch.zeros(4, dtype=torch.long), None, **inputs), said, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        merged = beft.merge_adapter(model_of(name, auto), tmp_path)
        torch.testing.assert_close(merged(**inputs).logits, said, rtol=1e-5, atol=1e-5)


def test_a_classifier_of_it_is_loaded_with_its_labels(tmp_path):
    with open_bank(models.load(models.TINY, labels=2).model, ["b_v"], [0]) as bank:
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path, models.TINY, ["bad", "good"], as_lora=True)
        adapters.save_adapter(bank, 0, tmp_path / "beft", models.TINY, ["bad", "good"])
    loaded, expected = (beft.Tuned.load(folder) for folder in (tmp_path, tmp_path / "beft"))
    assert loaded.labels == ("bad", "good")
    texts = ["the film was good", "a bad plot"]
    assert loaded.probabilities(texts) == pytest.approx(expected.probabilities(texts), abs=1e-6)


@settings(max_examples=25)
@given(st.sampled_from([1, 2, 8]), st.floats(0.5, 16), st.booleans())
def test_the_scale_of_a_lora_is_that_of_its_bias(rank, alpha, root):
    """PEFT multiplies the bias too, by alpha over the rank or its root; a LoRA made elsewhere may have any."""
    layer = torch.nn.Linear(6, 4)
    made = peft.LoraConfig(r=rank, lora_alpha=alpha, use_rslora=root, lora_bias=True, target_modules=["0"])
    tuned = peft.get_peft_model(torch.nn.Sequential(layer), made)
    bias = torch.tensor([1.0, -2.0, 3.0, 0.5])
    tuned.base_model.model[0].lora_A["default"].weight.data.zero_()
    tuned.base_model.model[0].lora_B["default"].bias.data.copy_(bias)
    x = torch.ones(1, 6)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "use_rslora": root}
    tensors = {"0.lora_A.weight": torch.zeros(rank, 6), "0.lora_B.weight": torch.zeros(4, rank), "0.lora_B.bias": bias}
    files = as_vectors(adapter_files.AdapterFiles(Path("x"), config, tensors, {}))
    with torch.no_grad():
        torch.testing.assert_close(layer(x) + files.tensors["0.beft_bias"], tuned(x))


def test_a_lora_with_matrices_stays_one(tmp_path):
    model = model_of("LLaMA", "CausalLM")
    with open_bank(model, ["lora"], [0]) as bank:
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path / "lora", as_lora=True)
    assert as_vectors(adapter_files.read(tmp_path / "lora")).kind == "LORA"
    with open_bank(model_of("LLaMA", "CausalLM"), ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match="is of PEFT's kind LORA, and a b_v run is saved as BEFT"):
            adapters.load_adapter(bank, 0, tmp_path / "lora")
    for call in (
        lambda: adapter_as_lora(model_of("LLaMA", "CausalLM"), tmp_path / "lora", tmp_path / "out"),
        lambda: beft.merge_adapter(model_of("LLaMA", "CausalLM"), tmp_path / "lora"),
    ):
        with pytest.raises(BeftError, match="is of PEFT's kind LORA"):
            call()
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_model_and_a_folder_with_a_model_are_refused(tmp_path):
    model = model_of("LLaMA", "CausalLM")
    with open_bank(model, ["b_v"], [0]) as bank:
        fill(bank)
        adapters.save_adapter(bank, 0, tmp_path / "beft", "the-base")
    other = transformers.LlamaForCausalLM(model.config).requires_grad_(False)
    with pytest.raises(BeftError, match=r"trained on another base model \(the-base\)"):
        adapter_as_lora(other, tmp_path / "beft", tmp_path / "out")
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(BeftError, match="holds a model .* give another folder"):
        adapter_as_lora(model, tmp_path / "beft", tmp_path / "model")


def test_what_is_whole_in_an_adapter_stays_so(tiny):
    tensors = {
        "bert.encoder.layer.0.attention.self.value.beft_bias": torch.ones(1, 32),
        "classifier.bias": torch.ones(2),
    }
    config, made = lora_of(tiny.model, tensors, {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]})
    assert torch.equal(made["classifier.bias"], torch.ones(2)) and config.modules_to_save == ["classifier"]
    assert config.target_modules == {"bert.encoder.layer.0.attention.self.value"}
