"""An adapter is read as vectors and whole layers, and what does not belong to the model is refused in one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from small_adapters import TEXTS, by_peft, classifier, decoder, ours, tokenizer_of

import beft
from beft.bank import adapter_files
from beft.bank.saved import About
from beft.errors import BeftError
from beft.serving.contents import read


def contents(folder, model):
    return read(adapter_files.read(folder), model)


def changed(folder, change):
    """The folder with its tensors changed."""
    path = folder / adapter_files.WEIGHTS
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def test_a_head_is_a_layer_and_what_is_whole_with_the_models_weight_a_vector(tmp_path):
    model = classifier("BERT")
    own = contents(ours(tmp_path / "all", classifier("BERT"), "all_biases"), model)
    assert set(own.layers) == {"classifier"} and own.outputs == 2
    assert "bert.embeddings.LayerNorm" in own.vectors  # held whole in the file, its weight being the model's
    assert set(contents(ours(tmp_path / "v", classifier("BERT"), "b_v"), model).vectors) == {
        "bert.encoder.layer.0.attention.self.value",
        "bert.encoder.layer.1.attention.self.value",
        "bert.pooler.dense",
    }


def test_a_pooler_that_the_models_files_lack_is_a_layer_where_another_was_drawn(tmp_path):
    trained, other = classifier("BERT"), classifier("BERT")
    trained.drawn_parameters = frozenset({"bert.pooler.dense.weight"})
    folder = ours(tmp_path / "v", trained, "b_v")
    assert "bert.pooler.dense" in contents(folder, classifier("BERT")).vectors
    with torch.no_grad():
        other.bert.pooler.dense.weight.add_(0.1)
    assert "bert.pooler.dense" in contents(folder, other).layers


def test_layer_norms_with_a_weight_of_their_own_are_refused(tmp_path):
    norms = {"target_modules": ["value"], "modules_to_save": ["classifier", "bert.embeddings.LayerNorm"]}
    folder = by_peft(tmp_path / "norms", classifier("BERT"), "SEQ_CLS", **norms)
    with pytest.raises(BeftError, match=r"another weight of bert.embeddings.LayerNorm than this.*: load the base"):
        contents(folder, classifier("BERT"))
    words = {"target_modules": ["value"], "modules_to_save": ["classifier", "word_embeddings"]}
    folder = by_peft(tmp_path / "words", classifier("BERT"), "SEQ_CLS", **words)
    with pytest.raises(BeftError, match=r"holds bert.embeddings.word_embeddings \(Embedding\) whole.*: merge it into"):
        contents(folder, classifier("BERT"))


def test_a_bias_that_is_written_as_lora_is_served_as_the_bias_it_is(tmp_path):
    folder = ours(tmp_path / "beft", classifier("BERT"), "b_v")
    beft.adapter_as_lora(classifier("BERT"), folder, tmp_path / "lora")
    tok = tokenizer_of(classifier("BERT"))
    with beft.serve(classifier("BERT"), {"a": folder, "b": tmp_path / "lora"}, tokenizer=tok) as served:
        first, second = served.logits(TEXTS[:3], ["a"] * 3), served.logits(TEXTS[:3], ["b"] * 3)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_adapter_of_another_kind_is_refused(tmp_path):
    lora = get_peft_model(classifier("BERT"), LoraConfig(task_type="SEQ_CLS", target_modules=["value"]))
    lora.save_pretrained(str(tmp_path / "lora"))
    prompt = get_peft_model(decoder("LLaMA"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    prompt.save_pretrained(str(tmp_path / "prompt"))
    with pytest.raises(BeftError, match=r"is of PEFT's kind LORA, and serve takes biases \(BEFT\).*: leave it out, or"):
        beft.serve(classifier("BERT"), {"a": tmp_path / "lora"})
    with pytest.raises(BeftError, match="is of PEFT's kind PROMPT_TUNING, and serve takes biases"):
        beft.serve(decoder("LLaMA"), {"a": tmp_path / "prompt"})
    with pytest.raises(BeftError, match="LORA"):  # before a model is read
        beft.serve("no-such-model", {"a": tmp_path / "lora"})


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: classifier("BERT", seed=1), "was trained on another base model .*: load that model"),
        (lambda: classifier("RoBERTa"), "for which RobertaForSequenceClassification has no place.*another base model"),
        (lambda: decoder("LLaMA"), "is of a classifier and LlamaForCausalLM is none: load its base model"),
    ],
)
def test_an_adapter_of_another_base_model_is_refused(tmp_path, model, says):
    folder = ours(tmp_path / "a", classifier("BERT"), "b_v")
    with pytest.raises(BeftError, match=says):
        contents(folder, model())


def test_layers_that_the_model_does_not_have_and_other_widths_are_refused(tmp_path):
    name = "base_model.model.bert.encoder.layer.{}.attention.self.value.beft_bias"
    folder = ours(tmp_path / "deep", classifier("BERT"), "b_v")
    (folder / adapter_files.ABOUT).unlink()  # as PEFT writes it: no numbers of the base model
    deep = changed(folder, lambda tensors: tensors.update({name.format(7): tensors[name.format(0)].clone()}))
    with pytest.raises(BeftError, match=r"has bert.encoder.layer.7.attention.self.value.beft_bias, for.* no place"):
        contents(deep, classifier("BERT"))
    folder = ours(tmp_path / "wide", classifier("BERT"), "b_v")
    (folder / adapter_files.ABOUT).unlink()
    wide = changed(folder, lambda tensors: tensors.update({name.format(0): torch.zeros(1, 99)}))
    with pytest.raises(BeftError, match=r"has shape \(1, 99\), not that of this model, \(1, 64\)"):
        contents(wide, classifier("BERT"))


def test_numbers_that_are_none_or_too_large_are_refused(tmp_path):
    name = "base_model.model.bert.encoder.layer.0.attention.self.value.beft_bias"
    bad = changed(ours(tmp_path / "a", classifier("BERT"), "b_v"), lambda t: t[name].fill_(float("nan")))
    with pytest.raises(BeftError, match="has entries that are NaN or infinite: save it again"):
        contents(bad, classifier("BERT"))
    large = changed(ours(tmp_path / "b", classifier("BERT"), "b_v"), lambda t: t[name].fill_(1e6))
    with pytest.raises(BeftError, match="has numbers that are beyond float16: serve with dtype='bfloat16'"):
        beft.serve(classifier("BERT"), {"b": large}, dtype="float16")


def test_no_adapter_and_files_that_are_cut_short_are_refused(tmp_path):
    with pytest.raises(BeftError, match=r"no adapter in .*nothing \(adapter_model.safetensors is missing\): save one"):
        beft.serve(classifier("BERT"), {"a": tmp_path / "nothing"})
    folder = ours(tmp_path / "cut", classifier("BERT"), "b_v")
    weights = folder / adapter_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(BeftError, match="is truncated or not safetensors"):
        beft.serve(classifier("BERT"), {"a": folder})


def test_names_of_classes_are_as_many_as_outputs(tmp_path):
    folder = ours(tmp_path / "a", classifier("BERT"), "b_v", about=About(("yes", "no"), ("text",), 9))
    assert contents(folder, classifier("BERT", 3)).labels == ("yes", "no")  # of the adapter, whatever the model has
    file = folder / adapter_files.ABOUT
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": ["yes", "no", "maybe"]}))
    with pytest.raises(BeftError, match="has 3 labels for 2 outputs: save the adapter again"):
        contents(folder, classifier("BERT"))


def test_an_adapter_without_names_has_the_models_where_they_are_as_many(tmp_path):
    model = classifier("BERT")
    folder = by_peft(tmp_path / "a", classifier("BERT"), "SEQ_CLS")
    assert contents(folder, model).labels == ("LABEL_0", "LABEL_1")
    model.config.id2label = {0: "bad", 1: "good"}
    assert contents(folder, model).labels == ("bad", "good")
    assert contents(folder, model).max_length == 128 and contents(folder, model).columns == ()
    model.config.max_position_embeddings = 50
    assert contents(folder, model).max_length == 50
    three = by_peft(tmp_path / "b", classifier("BERT", 3), "SEQ_CLS")
    assert contents(three, model).labels == ("LABEL_0", "LABEL_1", "LABEL_2") and contents(three, model).outputs == 3
