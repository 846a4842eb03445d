"""Of a model in bfloat16, what `merge` returns, what it writes and what the bank computed are one model.

Rotary frequencies and other buffers stay as exact as `from_pretrained` makes them; they are in no file.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.theory import null_key_bias as tiny_models

ROWS = torch.zeros(4, dtype=torch.long)


def auto_of(name: str) -> str:
    if name in ("T5", "BART"):
        return "AutoModelForSeq2SeqLM"
    if name == "ViT":
        return "AutoModelForImageClassification"
    encoders = ("BERT", "RoBERTa", "XLM-RoBERTa", "CamemBERT", "DistilBERT", "ELECTRA", "MPNet", "ALBERT", "DeBERTa")
    encoders += ("ModernBERT",)
    return "AutoModelForMaskedLM" if name.startswith(encoders) else "AutoModelForCausalLM"


def with_buffers() -> list[str]:
    """The architectures with numbers that are no parameters, such as frequencies, sines or scales."""
    found = []
    for name, architecture in tiny_models.ARCHITECTURES.items():
        config = getattr(transformers, architecture.config)(**architecture.settings)
        with torch.device("meta"):
            model = getattr(transformers, auto_of(name)).from_config(config)
        if any(buffer.is_floating_point() for buffer in model.buffers()):
            found.append(name)
    return found


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Loads an architecture in bfloat16, from a folder in which it is in bfloat16."""
    here = tmp_path_factory.mktemp("models")

    def read(name: str) -> Any:
        if not (here / name).exists():
            tiny_models.build(name, auto=auto_of(name)).to(torch.bfloat16).save_pretrained(here / name)
        return loaded(name, here / name)

    return read


def loaded(name: str, folder: Any) -> Any:
    return getattr(transformers, auto_of(name)).from_pretrained(folder).requires_grad_(False).eval()


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits


@pytest.mark.parametrize("name", with_buffers())
def test_what_is_returned_what_is_saved_and_what_the_bank_computed_agree(load, tmp_path, name):
    """A bank that has learnt nothing yet computes the model to the last bit, and so must its merged copies."""
    model = load(name)
    inputs = tiny_models.inputs(model)
    assert model.dtype == torch.bfloat16
    # a plain checkpoint of these families cannot hold the bias
    with open_bank(model, ["lora" if name in ("GPT-J", "Mistral", "Phi-3") else "b_v"], [0]) as bank:
        merged = merge(bank, 0, tmp_path)
        computed = bank(ROWS, None, **inputs, use_cache=False).detach()
    saved = loaded(name, tmp_path)
    assert torch.equal(logits(merged, inputs), logits(saved, inputs))
    assert torch.equal(logits(merged, inputs).float(), computed)
    for copy in (merged, saved):
        kept = dict(copy.named_buffers())
        assert kept.keys() == dict(model.named_buffers()).keys()
        for buffer, own in model.named_buffers():
            assert kept[buffer].dtype == own.dtype and torch.equal(kept[buffer], own)


@pytest.mark.parametrize("name", ["LLaMA", "Qwen2", "Gemma 2"])
def test_a_trained_bias_is_returned_as_it_is_saved(load, tmp_path, name):
    model = load(name)
    inputs = tiny_models.inputs(model)
    with open_bank(model, ["b_v"], [0]) as bank:
        for slot in bank.slots:
            slot.values.data = torch.randn(slot.values.shape, generator=torch.Generator().manual_seed(0)) * 0.3
        merged = merge(bank, 0, tmp_path)
        computed = bank(ROWS, None, **inputs, use_cache=False).detach()
    assert torch.equal(logits(merged, inputs), logits(loaded(name, tmp_path), inputs))
    # the bank rounds twice, behind the projection and behind the bias
    assert (logits(merged, inputs).float() - computed).abs().mean() < 0.03
    assert (logits(model, inputs).float() - computed).abs().mean() > 0.1


def test_frequencies_that_a_cast_has_rounded_are_spoken_of(load, tmp_path):
    model = load("LLaMA").float().to(torch.bfloat16)
    inputs = tiny_models.inputs(model)
    with open_bank(model, ["b_v"], [0]) as bank:
        with pytest.warns(UserWarning, match=r"rotary_emb.inv_freq of this model was rounded to bfloat16 by a cast"):
            merged = merge(bank, 0, tmp_path)
    assert torch.equal(logits(merged, inputs), logits(loaded("LLaMA", tmp_path), inputs))
