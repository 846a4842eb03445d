"""An adapter goes on the model it was trained on and on no other, and damaged files are named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers
from masked_models import small

import beft
from beft.bank import adapter_files
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.peft_adapter import load_adapter, load_tuned, save_adapter
from beft.errors import BeftError
from beft.models import loading as models


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for slot in bank.slots:
        slot.values.data = torch.randn(slot.values.shape, generator=generator) * 0.3


@pytest.fixture(params=["b_v", "lora", "prompt"])
def saved(request, tmp_path, tiny):
    """An adapter of a run of each of PEFT's kinds."""
    with open_bank(tiny.model, [request.param], [0]) as bank:
        fill(bank)
        return save_adapter(bank, 0, tmp_path / request.param, "the-base", ["bad", "good"])


def refused(model: Any, folder: Any) -> str:
    names = list(model.state_dict())
    with pytest.raises(BeftError) as caught:
        load_tuned(model, folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text
    assert list(model.state_dict()) == names  # nothing was put on it
    return text


def changed(model: Any, **changes: Any) -> Any:
    config = type(model.config)(**(model.config.to_dict() | changes))
    return type(model)(config).eval().requires_grad_(False)


def test_another_base_model_of_the_same_shape_is_refused(saved, tiny):
    other = changed(tiny.model)
    assert "trained on another base model (the-base)" in refused(other, saved)
    method = saved.name
    with open_bank(other, [method], [0]) as bank, pytest.raises(BeftError, match="another base model"):
        load_adapter(bank, 0, saved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_same_base_model_in_few_digits_is_the_same(saved, tiny, dtype):
    with torch.no_grad():
        inputs = dict(tiny.tokenizer(["the film was good"], return_tensors="pt"))
        rounded = load_tuned(models.load(models.TINY, labels=2).model.to(dtype), saved)(**inputs).logits
        said = load_tuned(models.load(models.TINY, labels=2).model, saved)(**inputs).logits
    torch.testing.assert_close(rounded.float(), said, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bank_in_either_precision_saves_the_unrounded_base(tiny, tmp_path, dtype):
    tiny.model.drawn_parameters = {"bert.pooler.dense.weight"}  # so that it is saved whole
    own = {n: p.clone() for n, p in tiny.model.bert.pooler.dense.named_parameters()}
    with open_bank(tiny.model, ["b_v"], [0], dtype) as bank:
        fill(bank)
        tuned = next(s.values[0].detach().clone() for s in bank.slots if s.group == "pooler")
        save_adapter(bank, 0, tmp_path)
        load_adapter(bank, 0, tmp_path)
    tensors = adapter_files.read(tmp_path).tensors
    assert torch.equal(tensors["bert.pooler.dense.weight"], own["weight"])
    assert torch.equal(tensors["bert.pooler.dense.bias"], own["bias"] + tuned)


def test_a_model_of_another_shape_is_refused(saved, tiny):
    assert "it is of another base model (the-base)" in refused(
        changed(tiny.model, hidden_size=48, intermediate_size=48), saved
    )


def test_another_number_of_classes_is_named(saved):
    three = models.load(models.TINY, labels=3).model
    assert "has 2 outputs and this model 3: load the model with labels=2" in refused(three, saved)


def test_another_kind_of_model_is_named(saved):
    assert "is of a classifier and BertForMaskedLM is none" in refused(small().model, saved)


def test_a_model_that_has_an_adapter_is_refused(saved, tiny):
    tuned = load_tuned(tiny.model, saved)
    with pytest.raises(BeftError, match="has an adapter on it already"):
        load_tuned(tuned, saved)


@pytest.mark.parametrize("file", [adapter_files.WEIGHTS, adapter_files.CONFIG])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_damaged_files_are_named(saved, tiny, file, damage):
    path = saved / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    if damage == "missing":
        path.unlink()
    text = refused(tiny.model, saved)
    assert file in text and "save" in text


def test_an_adapter_is_the_same_bytes_every_time(tiny, tmp_path):
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        fill(bank)
        first, *others = [save_adapter(bank, 0, tmp_path / str(i), "base", ["bad", "good"]) for i in range(5)]
    content = {path.name: path.read_bytes() for path in first.iterdir()}
    assert all({path.name: path.read_bytes() for path in other.iterdir()} == content for other in others)


@pytest.mark.parametrize("content", [[], {"r": 8}, "text"])
def test_a_config_that_is_no_adapters_is_named(saved, tiny, content):
    (saved / adapter_files.CONFIG).write_text(json.dumps(content), encoding="utf-8")
    assert "is not that of a PEFT adapter" in refused(tiny.model, saved)


def test_a_missing_tensor_is_named(tiny, tmp_path):
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        save_adapter(bank, 0, tmp_path)
    path = tmp_path / adapter_files.CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"].append("bert.encoder.layer.0.attention.self.query")
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "lacks bert.encoder.layer.0.attention.self.query.beft_bias" in refused(tiny.model, tmp_path)


def test_an_adapter_of_another_kind_does_not_go_into_a_bank(saved, tiny):
    other = "lora" if saved.name == "b_v" else "b_v"
    with open_bank(tiny.model, [other], [0]) as bank:
        with pytest.raises(BeftError, match=f"is of PEFT's kind .* and a {other} run is saved as"):
            load_adapter(bank, 0, saved)


def test_an_adapter_without_what_beft_notes_is_loaded_all_the_same(saved, tiny):
    files = adapter_files.read(saved)
    config = beft.bank.peft_adapter.PeftModel.from_pretrained(tiny.model, str(saved)).peft_config["default"]
    adapter_files.write(saved, config, files.tensors, {})
    (saved / adapter_files.ABOUT).unlink()
    base = models.load(models.TINY, labels=2).model
    assert load_tuned(base, saved).config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


def test_a_folder_that_is_a_file_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        for folder in (tmp_path / "file", tmp_path / "file" / "below"):
            with pytest.raises(BeftError, match=r"cannot be used, .*file is not a folder: give another"):
                save_adapter(bank, 0, folder)


def test_an_architecture_that_beft_does_not_know_keeps_its_peft_adapter(tmp_path):
    from peft import LoraConfig, get_peft_model

    def make() -> Any:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.RoCBertConfig(vocab_size=50, pronunciation_vocab_size=10, shape_vocab_size=10, **sizes)
        return transformers.RoCBertForSequenceClassification(config).eval()

    get_peft_model(make(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(tmp_path)
    assert load_tuned(make(), tmp_path).active_adapter == "default"


def test_what_is_no_model_and_what_is_no_folder_is_named(saved, tiny, tmp_path):
    with pytest.raises(BeftError, match=r"not a Loaded: give `models.load\(...\).model`"):
        load_tuned(tiny, saved)
    for folder in (None, 3, ["a"]):
        with pytest.raises(BeftError, match="is not the name of a folder"):
            load_tuned(tiny.model, folder)
    for folder in ("a\0b", "x" * 5000, saved / adapter_files.CONFIG):
        with pytest.raises(BeftError):
            load_tuned(tiny.model, folder)


def test_a_model_and_an_adapter_do_not_share_a_folder(tiny, tmp_path):
    """transformers would put the adapter on the model that has it merged already."""
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        save_adapter(bank, 0, tmp_path / "adapter")
        merge(bank, 0, tmp_path / "model")
        for _ in range(2):  # the same thing again is written anew
            merge(bank, 0, tmp_path / "model")
            save_adapter(bank, 0, tmp_path / "adapter")
        with pytest.raises(BeftError, match="holds an adapter .* give another folder"):
            merge(bank, 0, tmp_path / "adapter")
        with pytest.raises(BeftError, match="holds a model .* give another folder"):
            save_adapter(bank, 0, tmp_path / "model")
