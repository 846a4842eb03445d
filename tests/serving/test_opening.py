"""`beft.serve` takes a model by name or loaded, moves and casts it, and refuses what it cannot serve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_adapters import by_peft, classifier, decoder, ours, tokenizer_of
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig

import beft
from beft.bank.saved import About
from beft.errors import BeftError
from beft.models import loading


def test_a_model_by_name_is_of_the_kind_that_its_adapters_are(tmp_path):
    three = loading.load("tiny-bert", labels=3)
    kind = ours(tmp_path / "kind", three.model, "b_v", about=About(("x", "y", "z"), ("text",), 40))
    served = beft.serve("tiny-bert", {"kind": kind})
    assert type(served.model).__name__ == "BertForSequenceClassification" and served.model.config.num_labels == 3
    assert served.predict("a film", "kind") in ("x", "y", "z")
    writer = ours(tmp_path / "writer", loading.load_causal("tiny-llama").model, "b_v")
    served = beft.serve("tiny-llama", {"writer": writer}, dtype="bfloat16")
    assert type(served.model).__name__ == "LlamaForCausalLM" and served.model.dtype == torch.bfloat16
    assert isinstance(served.generate("a film", "writer", max_new_tokens=3), str)


def test_pairs_of_names_and_folders_serve_too_and_a_loaded_model_needs_none(tmp_path, tiny):
    folder = ours(tmp_path / "v", tiny.model, "b_v")
    with beft.serve(tiny, [("a", folder), ("b", str(folder))]) as served:
        assert served.names == ["a", "b"]
        np.testing.assert_array_equal(*served.logits(["a film"] * 2, ["a", "b"]))
    with pytest.raises(BeftError, match="an adapter is served as 'a' already"):
        beft.serve(tiny, [("a", folder), ("a", folder)])
    with pytest.raises(BeftError, match="adapters is .*: give names with folders"):
        beft.serve(tiny, ["folder"])
    with beft.serve(tiny) as served:  # the error above gave the model back
        assert served.predict("a film", None) in ("LABEL_0", "LABEL_1")


def test_half_precision_rounds_parameters_and_no_buffers(tmp_path):
    model = decoder("LLaMA")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    beft.serve(model, dtype="bfloat16", tokenizer=tokenizer_of(model))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AutoModel.from_config(BertConfig(num_hidden_layers=1)), "BertModel can not be served: give a"),
        (
            lambda: AutoModelForMaskedLM.from_config(BertConfig(num_hidden_layers=1)),
            "BertForMaskedLM can not be",
        ),
        (lambda: torch.nn.Linear(2, 2), "serve takes a model of transformers or the name of one, not a Linear"),
        (lambda: "tiny-bert", "no adapter that says what kind of model 'tiny-bert' is served as: give one"),
    ],
)
def test_models_that_cannot_be_served_are_refused(make, says):
    with pytest.raises(BeftError, match=says):
        beft.serve(make())


def test_a_model_with_an_adapter_on_it_and_unknown_settings_are_refused(tmp_path):
    folder = by_peft(tmp_path / "a", classifier("BERT"), "SEQ_CLS")
    with pytest.raises(BeftError, match="PeftModelForSequenceClassification has an adapter on it already: load"):
        beft.serve(beft.load_tuned(classifier("BERT"), folder))
    with pytest.raises(BeftError, match="unknown dtype 'float61': did you mean float16"):
        beft.serve(classifier("BERT"), dtype="float61")
    with pytest.raises(BeftError, match="cannot serve on the device 'gpu'.*: give cpu or cuda"):
        beft.serve(classifier("BERT"), device="gpu")


def test_sites_by_hand_serve_an_architecture_that_is_not_known(tmp_path, monkeypatch):
    folder, model = ours(tmp_path / "v", classifier("BERT"), "b_v"), classifier("BERT")
    expected = beft.serve(classifier("BERT"), {"v": folder}, tokenizer=tokenizer_of(model)).logits("a film", "v")
    monkeypatch.setattr("beft.anatomy.projections.FAMILIES", {})
    with pytest.raises(BeftError, match="unknown architecture"):
        beft.serve(model)
    sites = {"v": "bert.encoder.layer.{layer}.attention.self.value"}
    served = beft.serve(model, {"v": folder}, tokenizer=tokenizer_of(model), sites=sites)
    np.testing.assert_allclose(served.logits("a film", "v"), expected, atol=1e-6)
