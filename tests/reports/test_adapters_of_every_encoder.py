"""An adapter of any encoder says elsewhere what the tuned model says here, with two classes, three, or a value: put on
its base model by PEFT, put back into a bank, and loaded by PEFT's `AutoPeftModelForSequenceClassification` from its
folder alone, with the arguments that the folder's README.md names."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from small_tokenizers import TOKENIZERS

import beft
from beft.bank import peft_adapter as adapters
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.handover import loading_arguments, share_adapter
from beft.models import loading as models
from beft.theory import null_key_bias as tiny_models

ENCODERS = ["BERT", "RoBERTa", "DistilBERT", "ELECTRA", "MPNet", "DeBERTa-v2 (c2p, p2c)", "ALBERT"]
ENCODERS += ["ModernBERT with biases"]  # XLM-RoBERTa and CamemBERT are RoBERTa by other names
WITHOUT_POOLER = ["RoBERTa", "DistilBERT", "ELECTRA", "MPNet", "ModernBERT with biases"]  # in their classifiers
OUTPUTS = {"two classes": ("bad", "good"), "three classes": ("bad", "good", "mixed"), "a value": ()}


@dataclass(frozen=True)
class Shared:
    """An adapter in a folder, its base model's folder, and the logits of the run (4, C) on `inputs`."""

    folder: Path
    base: Path
    labels: tuple[str, ...]
    logits: torch.Tensor
    inputs: dict[str, Any]
    code: str

    @property
    def outputs(self) -> int:
        return len(self.labels) or 1


def pretrained(name: str, folder: Path, bare: bool = False, **settings: Any) -> Path:
    """A folder as it is on the hub: a masked language model of this architecture, which has no pooler and no head.

    `bare`: the encoder alone, without what stands before the masked language model's output.
    """
    specimen = tiny_models.ARCHITECTURES[name]
    tokenizer = TOKENIZERS["WordPiece"]
    settings = specimen.settings | {"vocab_size": len(tokenizer)} | settings
    config = getattr(transformers, specimen.config)(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForMaskedLM.from_config(config)
        for parameter in (p for n, p in model.named_parameters() if n.endswith("bias")):
            torch.nn.init.normal_(parameter, std=0.2)
    (model.base_model if bare else model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for slot in bank.slots:
            slot.values.copy_(torch.randn(slot.values.shape, generator=generator) * 0.3)


def share(name: str, method: str, labels: tuple[str, ...], here: Path, **settings: Any) -> Shared:
    base = pretrained(name, here / "base", **settings)
    loaded = models.load(str(base), labels=len(labels) or 1)
    inputs = tiny_models.inputs(loaded.model)
    with open_bank(loaded.model, [method], [0]) as bank, torch.no_grad():
        fill(bank)
        logits = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        code = share_adapter(bank, 0, here / "adapter", str(base), labels, loaded.tokenizer)
    return Shared(here / "adapter", base, labels, logits, inputs, code)


def same(model: Any, shared: Shared) -> None:
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**shared.inputs).logits, shared.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_an_adapter_says_elsewhere_what_the_run_said_here(name, outputs, tmp_path):
    shared = share(name, "b_v", OUTPUTS[outputs], tmp_path)
    # put on its base model by PEFT, which draws the head anew, and by beft
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(shared.base, num_labels=shared.outputs)
    with torch.no_grad():
        assert (plain.eval()(**shared.inputs).logits - shared.logits).abs().max() > 1e-2
    same(peft.PeftModel.from_pretrained(plain, shared.folder), shared)
    loaded = models.load(str(shared.base), labels=shared.outputs)
    same(beft.load_tuned(loaded.model, shared.folder), shared)
    # back in a bank
    again = models.load(str(shared.base), labels=shared.outputs).model
    with open_bank(again, ["b_v"], [7]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, shared.folder)
        back = bank(torch.zeros(4, dtype=torch.long), None, **shared.inputs)
    torch.testing.assert_close(back, shared.logits, rtol=1e-4, atol=1e-4)
    # from its folder alone
    found: dict[str, Any] = {}
    exec(shared.code, found)  # what README.md of the folder says
    assert shared.code in (shared.folder / "README.md").read_text(encoding="utf-8")
    assert type(found["model"]) is peft.PeftModelForSequenceClassification
    same(found["model"], shared)
    if outputs == "two classes":
        same(peft.AutoPeftModelForSequenceClassification.from_pretrained(shared.folder), shared)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((name, method) for name in ENCODERS for method in ("all_biases", "lora", "adapter", "prompt")),
        *((name, "head") for name in ENCODERS if name not in WITHOUT_POOLER),
    ],
)
def test_so_does_every_method_that_peft_has_a_format_for(name, method, tmp_path):
    shared = share(name, method, ("bad", "good", "mixed"), tmp_path)
    found: dict[str, Any] = {}
    exec(shared.code, found)
    same(found["model"], shared)
    again = models.load(str(shared.base), labels=3).model
    with open_bank(again, [method], [7]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, shared.folder)
        back = bank(torch.zeros(4, dtype=torch.long), None, **shared.inputs)
    torch.testing.assert_close(back, shared.logits, rtol=1e-4, atol=1e-4)


def test_a_modernbert_as_it_is_published_gets_the_biases_that_it_lacks(tmp_path):
    """In an adapter as in a plain checkpoint, by the flag of its own config; all biases of none are refused."""
    shared = share("ModernBERT with biases", "b_v", ("bad", "good", "mixed"), tmp_path, attention_bias=False)
    found: dict[str, Any] = {}
    with pytest.warns(UserWarning, match="no bias term"):
        exec(shared.code, found)
    same(found["model"], shared)
    model = models.load(str(shared.base), labels=3).model
    assert not any(name.endswith("Wqkv.bias") for name, _ in model.named_parameters())
    with open_bank(model, ["b_v"], [7]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, shared.folder)
        merged = merge(bank, 0)
    assert merged.config.attention_bias
    same(merged, shared)
    same(beft.Tuned.load(shared.folder, offline=True).model, shared)  # PEFT merges nothing into such a layer
    with pytest.raises(beft.BeftError, match="all_biases trains nothing of ModernBertForSequenceClassification"):
        open_bank(model, ["all_biases"], [0])


@pytest.mark.parametrize("method", ["b_v", "all_biases", "lora", "prompt"])
def test_an_adapter_has_the_layers_of_a_head_that_the_base_model_lacks_and_no_run_trains(method, tmp_path):
    """A checkpoint of the bare ModernBERT has no dense layer before the classifier: beft draws one, PEFT another."""
    shared = share("ModernBERT with biases", method, ("bad", "good", "mixed"), tmp_path, bare=True)
    found: dict[str, Any] = {}
    torch.manual_seed(7)
    exec(shared.code, found)
    same(found["model"], shared)
    same(beft.Tuned.load(shared.folder, offline=True).model, shared)
    again = models.load(str(shared.base), labels=3)
    with open_bank(again.model, [method], [7]) as bank, torch.no_grad():
        adapters.load_adapter(bank, 0, shared.folder)
        back = bank(torch.zeros(4, dtype=torch.long), None, **shared.inputs)
    torch.testing.assert_close(back, shared.logits, rtol=1e-4, atol=1e-4)
    other = models.load(str(shared.base), labels=3, seed=1).model
    with open_bank(other, [method], [7]) as bank, pytest.raises(beft.BeftError, match=r"head.dense.weight is not that"):
        adapters.load_adapter(bank, 0, shared.folder)


@pytest.mark.parametrize("method", ["b_v", "all_biases"])
def test_an_adapter_of_an_image_classifier_is_loaded_by_peft(method, tmp_path):
    specimen = tiny_models.ARCHITECTURES["ViT"]
    config = transformers.ViTConfig(**specimen.settings, num_labels=3)
    base = transformers.AutoModelForImageClassification.from_config(config).eval().requires_grad_(False)
    base.save_pretrained(tmp_path / "base")
    inputs = {"pixel_values": tiny_models.inputs(base)["pixel_values"].float()}
    with open_bank(base, [method], [0]) as bank, torch.no_grad():
        fill(bank)
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        adapters.save_adapter(bank, 0, tmp_path / "adapter", str(tmp_path / "base"))
    with torch.no_grad():
        alone = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter", num_labels=3)
        torch.testing.assert_close(alone.eval()(**inputs).logits, said, rtol=1e-4, atol=1e-4)


def test_a_base_in_bfloat16_with_another_head_needs_what_the_folder_says(tmp_path):
    settings = {"num_labels": 5, "problem_type": "single_label_classification"}
    base = pretrained("RoBERTa", tmp_path / "base", **settings)
    five = transformers.AutoModelForSequenceClassification.from_pretrained(base).to(torch.bfloat16)
    five.save_pretrained(base)
    for labels in (("bad", "good", "mixed"), ()):
        loaded = models.load(str(base), labels=len(labels) or 1)
        inputs = tiny_models.inputs(loaded.model)
        with open_bank(loaded.model, ["b_v"], [0]) as bank, torch.no_grad():
            fill(bank)
            said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
            code = share_adapter(bank, 0, tmp_path / "adapter", str(base), labels, loaded.tokenizer)
        given = loading_arguments(loaded.model, labels)
        assert given["ignore_mismatched_sizes"] and given["dtype"] == "float32"
        found: dict[str, Any] = {}
        exec(code, found)
        with torch.no_grad():
            torch.testing.assert_close(found["model"].eval()(**inputs).logits, said, rtol=1e-4, atol=1e-4)
        assert found["model"].config.problem_type == (None if labels else "regression")


@pytest.mark.parametrize(
    ("name", "auto", "opened_by"),
    [
        *((n, "CausalLM", "AutoPeftModelForCausalLM") for n in ("OPT", "LLaMA", "Phi-3", "GPT-NeoX", "gpt-oss")),
        *((n, "Seq2SeqLM", "AutoPeftModelForSeq2SeqLM") for n in ("T5", "BART")),
        *((n, "MaskedLM", "AutoPeftModel") for n in ENCODERS),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term")
def test_a_language_model_is_loaded_from_its_adapters_folder_alone(name, auto, opened_by, tmp_path):
    model = tiny_models.build(name, auto=f"AutoModelFor{auto}").float().requires_grad_(False)
    model.save_pretrained(tmp_path / "base")
    inputs = tiny_models.inputs(model)
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        adapters.save_adapter(bank, 0, tmp_path / "adapter", str(tmp_path / "base"))
    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
        alone = getattr(peft, opened_by).from_pretrained(tmp_path / "adapter").eval()
        torch.testing.assert_close(alone(**inputs).logits, said, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["OPT", "GPT-2", "LLaMA", "Qwen3"])
def test_a_prefix_is_an_adapter_of_its_language_model(name, tmp_path):
    model = tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)
    model.save_pretrained(tmp_path / "base")
    inputs = tiny_models.inputs(model)
    real = inputs["attention_mask"].bool()
    with open_bank(model, ["prefix"], [0]) as bank, torch.no_grad():
        said = bank(torch.zeros(4, dtype=torch.long), None, **inputs, use_cache=False)
        adapters.save_adapter(bank, 0, tmp_path / "adapter", str(tmp_path / "base"))
    with torch.no_grad():
        alone = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
        torch.testing.assert_close(alone(**inputs).logits[real], said[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["OPT", "LLaMA", "GPT-2", "T5", "BART"])
def test_a_decoder_with_a_classification_head_is_refused_before_anything_is_trained(name):
    model = tiny_models.build(name, auto="AutoModelForSequenceClassification").requires_grad_(False)
    with pytest.raises(beft.BeftError, match="is a causal language model|has no head that beft knows"):
        open_bank(model, ["b_v"], [0])
