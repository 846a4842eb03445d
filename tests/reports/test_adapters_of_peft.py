"""BEFT adapters that PEFT itself made are taken: its default targets and any others, of today's format and 0.19's.

What PEFT writes: `adapter_model.safetensors` with a tensor "base_model.model.<module>.beft_bias" (1, d) for each module
(`BeftLayer.update_layer`; the adapter's name is taken out by `get_peft_model_state_dict`), a classifier's head whole
(`PeftModelForSequenceClassification` puts "classifier" and "score" into `modules_to_save`), and `adapter_config.json`
with `target_modules` as the user gave them: last parts of names, a pattern, or the family's default of
`TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING`.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from peft.utils import TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING as DEFAULTS
from safetensors.torch import save_file
from small_tokenizers import TOKENIZERS

import beft
from beft.bank.baselines import open_bank
from beft.bank.peft_adapter import load_adapter
from beft.errors import BeftError
from beft.theory import null_key_bias as tiny_models

pytestmark = pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term")

AUTO = {"SEQ_CLS": "SequenceClassification", "CAUSAL_LM": "CausalLM", "SEQ_2_SEQ_LM": "Seq2SeqLM"}
DECODERS = ["OPT", "GPT-J", "LLaMA", "Mistral", "Phi", "Gemma", "Gemma 2", "Gemma 3", "Qwen2", "Qwen3"]
WITH_DEFAULTS = [
    *((name, "SEQ_CLS") for name in ("BERT", "RoBERTa", "DeBERTa-v2 (c2p, p2c)")),
    *((name, "CAUSAL_LM") for name in DECODERS),
    *((name, "SEQ_2_SEQ_LM") for name in ("T5", "BART")),
]


def base_of(name: str, task: str, **changes: Any) -> Any:
    specimen = tiny_models.ARCHITECTURES[name]
    config = getattr(transformers, specimen.config)(**(specimen.settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"AutoModelFor{AUTO[task]}").from_config(config)
    return model.eval().requires_grad_(False)


def trained_by_peft(name: str, task: str, folder: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """Logits of an adapter that PEFT trained, stood for by random numbers, and the inputs they are of."""
    model = peft.get_peft_model(base_of(name, task), peft.BeftConfig(task_type=task, **settings))
    generator = torch.Generator().manual_seed(0)
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    inputs = tiny_models.inputs(model.get_base_model())
    model.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(**inputs).logits, inputs


@pytest.mark.parametrize(("name", "task"), WITH_DEFAULTS)
def test_an_adapter_with_pefts_default_targets_is_put_on_its_model_and_into_a_bank(name, task, tmp_path):
    said, inputs = trained_by_peft(name, task, tmp_path)
    with torch.no_grad():
        tuned = beft.load_tuned(base_of(name, task), tmp_path)
        torch.testing.assert_close(tuned(**inputs).logits, said, rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == DEFAULTS[tuned.config.model_type]
    with open_bank(base_of(name, task), ["b_v"], [3]) as bank, torch.no_grad():
        load_adapter(bank, 0, tmp_path)
        back = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
    torch.testing.assert_close(back, said, rtol=1e-4, atol=1e-4)


SEVERAL = [
    ("BERT", "SEQ_CLS", ["query", "value"]),
    ("BERT", "SEQ_CLS", r".*\.attention\.self\.(query|key|value)"),
    ("BERT", "SEQ_CLS", ["value", "output.dense", "intermediate.dense"]),
    ("RoBERTa", "SEQ_CLS", ["encoder.layer.1.attention.self.value"]),
    ("LLaMA", "CAUSAL_LM", ["q_proj", "k_proj", "v_proj"]),
    ("OPT", "CAUSAL_LM", "all-linear"),
    ("Mistral", "CAUSAL_LM", ["model.layers.0.self_attn.v_proj"]),
    ("Phi-3", "CAUSAL_LM", ["qkv_proj"]),
    ("T5", "SEQ_2_SEQ_LM", ["q", "v"]),
]


@pytest.mark.parametrize(("name", "task", "targets"), SEVERAL)
def test_several_targets_some_layers_and_patterns_are_taken(name, task, targets, tmp_path):
    said, inputs = trained_by_peft(name, task, tmp_path, target_modules=targets)
    with torch.no_grad():
        tuned = beft.load_tuned(base_of(name, task), tmp_path)
        torch.testing.assert_close(tuned(**inputs).logits, said, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "task", "targets"), [case for case in SEVERAL if case[0] not in ("T5",)])
def test_they_become_a_plain_checkpoint_that_needs_no_peft(name, task, targets, tmp_path):
    said, inputs = trained_by_peft(name, task, tmp_path / "adapter", target_modules=targets)
    layout = {"layout": "qwen2"} if name in ("Mistral", "Phi-3") else {}
    changes = {"sliding_window": None} if name == "Mistral" else {}
    beft.merge_adapter(base_of(name, task, **changes), tmp_path / "adapter", tmp_path / "plain", **layout)
    plain = getattr(transformers, f"AutoModelFor{AUTO[task]}").from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(**inputs).logits, said, rtol=1e-4, atol=1e-4)


# --- as PEFT 0.19 wrote it --------------------------------------------------------------------------------------------

# The main branch between 0.19.1 and 0.20, when BEFT came in (pull request 3195), called itself 0.19.2.dev0 and wrote
# its commit behind (`PeftConfigMixin._get_peft_version`); the fields are those of BeftConfig there.
CONFIG_0_19 = {
    "auto_mapping": None,
    "base_model_name_or_path": "the-base",
    "inference_mode": True,
    "init_weights": True,
    "modules_to_save": None,
    "peft_type": "BEFT",
    "peft_version": "0.19.2.dev0@UNKNOWN",
    "revision": None,
    "target_modules": ["v_proj"],
    "task_type": "CAUSAL_LM",
}
# Before it was merged the pull request had two more fields, under other names.
DRAFT = {"fan_in_fan_out": False, "init_beft_weights": True}


def by_hand(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """An adapter's folder with these files and no others."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def vectors(layers: int = tiny_models.LAYERS, width: int = 2 * tiny_models.SIZE) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    name = "base_model.model.model.layers.{}.self_attn.v_proj.beft_bias"
    return {name.format(i): torch.randn(1, width, generator=draw) for i in range(layers)}


def expected(model: Any, inputs: dict[str, Any], tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits with each vector added to what its layer gives, by hooks: by neither PEFT nor this package."""
    hooks = [
        model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".beft_bias")).register_forward_hook(
            lambda module, given, out, bias=bias: out + bias
        )
        for name, bias in tensors.items()
    ]
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    for hook in hooks:
        hook.remove()
    return logits


@pytest.mark.parametrize("fields", [{}, DRAFT, {"target_modules": None}, {"target_modules": r".*\.v_proj"}])
@pytest.mark.parametrize("name", ["LLaMA", "Mistral", "Qwen2"])
def test_an_adapter_of_0_19_is_taken(name, fields, tmp_path):
    tensors = vectors()
    folder = by_hand(tmp_path / "adapter", CONFIG_0_19 | fields, tensors)
    model = base_of(name, "CAUSAL_LM")
    inputs = tiny_models.inputs(model)
    said = expected(model, inputs, tensors)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "Unexpected keyword arguments")  # PEFT's, of the draft's fields
        tuned = beft.load_tuned(base_of(name, "CAUSAL_LM"), folder)
        torch.testing.assert_close(tuned(**inputs).logits, said, rtol=1e-5, atol=1e-5)
    with open_bank(base_of(name, "CAUSAL_LM"), ["b_v"], [3]) as bank, torch.no_grad():
        load_adapter(bank, 0, folder)
        torch.testing.assert_close(bank(torch.zeros(4, dtype=torch.long), None, **inputs), said, rtol=1e-5, atol=1e-5)


def test_ours_has_the_fields_of_todays_peft_and_no_others(tiny, tmp_path):
    with open_bank(tiny.model, ["b_v"], [0]) as bank:
        beft.save_adapter(bank, 0, tmp_path / "ours")
    trained_by_peft("BERT", "SEQ_CLS", tmp_path / "theirs")
    ours, theirs = (
        json.loads((tmp_path / folder / "adapter_config.json").read_text()) for folder in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys() and {type(ours[n]) for n in ("target_modules", "modules_to_save")} == {list}
    assert CONFIG_0_19.keys() == theirs.keys()


# --- labels and tokenizer ---------------------------------------------------------------------------------------------


def test_a_classifier_of_pefts_with_its_base_becomes_one_of_ours(tmp_path):
    """Its base model and head are found by the adapter's folder alone; PEFT wrote no names of classes."""
    tokenizer = TOKENIZERS["WordPiece"]
    base = base_of("BERT", "SEQ_CLS", vocab_size=len(tokenizer))
    base.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    model = peft.get_peft_model(base, peft.BeftConfig(task_type="SEQ_CLS", target_modules=["query", "value"]))
    for parameter in (p for p in model.parameters() if p.requires_grad):
        parameter.data = torch.full(parameter.shape, 0.2)
    model.base_model.model.classifier.modules_to_save["default"].bias.data = torch.tensor([0.0, 3.0])
    model.save_pretrained(tmp_path / "adapter")
    tuned = beft.Tuned.load(tmp_path / "adapter", offline=True)
    texts = ["the cat sat on a mat", "great rain"]
    with torch.no_grad():
        logits = torch.cat([model.eval()(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    assert tuned.probabilities(texts) == pytest.approx(logits.softmax(-1).numpy(), abs=1e-5)
    assert tuned.labels == ("LABEL_0", "LABEL_1") and tuned.predict(texts[0]) == "LABEL_1"


def test_names_of_classes_and_the_tokenizer_travel_with_ours(tmp_path):
    rows = "".join(f"{word} {i},{label}\n" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows, encoding="utf-8")
    tokenizer = TOKENIZERS["WordPiece"]
    base_of("BERT", "SEQ_CLS", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown words
        tuned = beft.tune(
            tmp_path / "rows.csv", model=str(tmp_path / "base"), epochs=1, adapter=tmp_path / "adapter", progress=False
        )
    names = {0: "no", 1: "yes"}
    code = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["model"].config.id2label == names
    assert beft.load_tuned(transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"),
                           tmp_path / "adapter").config.id2label == names  # fmt: skip
    own = transformers.AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert own("good 3 mat").input_ids == tuned.tokenizer("good 3 mat").input_ids
    with torch.no_grad():
        logits = found["model"].eval()(**own("good 3", return_tensors="pt")).logits
    assert tuned.probabilities("good 3") == pytest.approx(logits.softmax(-1)[0].numpy(), abs=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(model: Any, folder: Path) -> str:
    names = list(model.state_dict())
    with pytest.raises(BeftError) as caught:
        beft.load_tuned(model, folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    assert list(model.state_dict()) == names  # nothing was put on it
    return str(caught.value)


def test_layers_that_do_not_exist_are_named(tmp_path):
    folder = by_hand(tmp_path / "more", CONFIG_0_19, vectors(3))
    said = refused(base_of("LLaMA", "CAUSAL_LM"), folder)
    assert "model.layers.2.self_attn.v_proj.beft_bias, for which LlamaForCausalLM has no place" in said
    assert "another base model (the-base)" in said


@pytest.mark.parametrize("targets", [["v_proj"], r".*\.v_proj", None])
def test_layers_that_the_adapter_lacks_are_named(targets, tmp_path):
    """PEFT puts nothing on the layers beyond those of the base model, and warns."""
    folder = by_hand(tmp_path / "fewer", CONFIG_0_19 | {"target_modules": targets}, vectors(1))
    said = refused(base_of("LLaMA", "CAUSAL_LM"), folder)
    assert "lacks model.layers.1.self_attn.v_proj.beft_bias: it is damaged, or of a base model with fewer" in said


def test_another_width_and_a_target_that_is_nowhere_are_named(tmp_path):
    wide = by_hand(tmp_path / "wide", CONFIG_0_19, vectors(width=7))
    assert "has shape (1, 7), not that of this model, (1, 32)" in refused(base_of("LLaMA", "CAUSAL_LM"), wide)
    nowhere = by_hand(tmp_path / "nowhere", CONFIG_0_19 | {"target_modules": ["w_proj"]}, vectors())
    said = refused(base_of("LLaMA", "CAUSAL_LM"), nowhere)
    assert "PEFT cannot put adapter" in said and "load the base model that it was saved from" in said


def test_an_adapter_of_another_kind_does_not_become_a_bias(tmp_path):
    model = peft.get_peft_model(base_of("LLaMA", "CAUSAL_LM"), peft.LoraConfig(task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "lora")
    prompt = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(base_of("LLaMA", "CAUSAL_LM"), prompt).save_pretrained(tmp_path / "prompt")
    for folder, kind in (("lora", "LORA"), ("prompt", "PROMPT_TUNING")):
        with pytest.raises(BeftError, match=f"is of PEFT's kind {kind}, and a bias is merged of a BEFT one"):
            beft.merge_adapter(base_of("LLaMA", "CAUSAL_LM"), tmp_path / folder)
        with open_bank(base_of("LLaMA", "CAUSAL_LM"), ["b_v"], [0]) as bank, pytest.raises(BeftError, match=kind):
            load_adapter(bank, 0, tmp_path / folder)


def test_several_targets_are_no_run_of_one_term(tmp_path):
    trained_by_peft("LLaMA", "CAUSAL_LM", tmp_path, target_modules=["q_proj", "v_proj"])
    with open_bank(base_of("LLaMA", "CAUSAL_LM"), ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match="also has model.layers.0.self_attn.q_proj.beft_bias, which a b_v run"):
            load_adapter(bank, 0, tmp_path)
