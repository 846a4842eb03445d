"""A family without biases is exported as one that has them where it computes the same, and refused elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from beft.bank import layouts
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.layouts import apart, give_biases, in_layout
from beft.errors import BeftError
from beft.models import loading as models
from beft.theory import null_key_bias as tiny_models

# Families -> what has to be set for their arithmetic to be that of Qwen2.
FITTING = {"Mistral": {"sliding_window": None}, "Phi-3": {}, "LLaMA": {}, "LLaMA with biases": {}, "Qwen2": {}}


def language_model(name: str, **changes: Any) -> Any:
    specimen = tiny_models.ARCHITECTURES[name]
    config = getattr(transformers, specimen.config)(**(specimen.settings | FITTING.get(name, {}) | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for own in (p for n, p in model.named_parameters() if n.endswith("norm.weight")):
            torch.nn.init.uniform_(own, 0.5, 1.5)  # a norm that is left out would show
    return model.eval().requires_grad_(False)


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for slot in bank.slots:
        slot.values.data = torch.randn(slot.values.shape, generator=generator) * 0.3 * slot.trained[:, None]


@pytest.mark.parametrize("layout", ["qwen2", "llama"])
@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("method", ["b_q", "b_v"])
def test_a_tuned_model_computes_in_another_layout_what_it_did_in_its_own(name, layout, method, tmp_path):
    model = language_model(name)
    inputs = tiny_models.inputs(model)
    with open_bank(model, [method], [0]) as bank, torch.no_grad():
        fill(bank)
        tuned = bank(torch.zeros(4, dtype=torch.long), None, **inputs)
        made = merge(bank, 0, tmp_path, layout=layout)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.model_type == layout
    with torch.no_grad():
        assert (model(**inputs).logits - tuned).abs().max() > 1e-2
        for exported in (made, loaded):
            torch.testing.assert_close(exported(**inputs).logits, tuned, rtol=1e-4, atol=1e-4)


def test_it_generates_with_a_cache_what_the_tuned_model_says(tmp_path):
    model = language_model("Mistral")
    ids = tiny_models.inputs(model)["input_ids"][:1]
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        fill(bank)
        merge(bank, 0, tmp_path, layout="qwen2")
        grown = ids
        for _ in range(6):
            logits = bank(torch.zeros(1, dtype=torch.long), None, input_ids=grown)
            grown = torch.cat([grown, logits[:, -1:].argmax(-1)], 1)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    said = loaded.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(said, grown)


def test_what_came_from_no_family_of_its_own_is_loaded_by_this_package_too(tmp_path):
    base = models.load_causal("tiny-llama", offline=True)
    with open_bank(base.model, ["b_v"], [0]) as bank:
        fill(bank)
        made = merge(bank, 0, tmp_path, base.tokenizer, layout="qwen2")
    again = models.load_causal(str(tmp_path), offline=True)
    assert apart(made, again.model)[0] == 0 and again.model.config.model_type == "qwen2"


@settings(max_examples=20)
@given(st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from([8, 16, 32]), st.integers(0, 5))
def test_every_shape_of_heads_has_its_place(kv_heads, tied, head_dim, seed):
    sizes = {"num_key_value_heads": kv_heads, "tie_word_embeddings": tied, "head_dim": head_dim}
    model = language_model("Mistral", **sizes)
    module = f"model.layers.1.self_attn.{'qkv'[seed % 3]}_proj"
    give_biases(model, [module])
    torch.nn.init.normal_(model.get_submodule(module).bias, std=0.5)
    made = in_layout(model, "qwen2")
    difference, size = apart(model, made)
    assert difference <= 1e-5 * size and made.config.tie_word_embeddings == tied
    assert torch.equal(made.get_submodule(module).bias, model.get_submodule(module).bias)


def test_the_precision_of_the_model_stays(tmp_path):
    model = language_model("Mistral", dtype=torch.bfloat16)
    with open_bank(model, ["b_v"], [0]) as bank:
        fill(bank)
        made = merge(bank, 0, tmp_path, layout="qwen2")
    assert {p.dtype for p in made.parameters()} == {torch.bfloat16}
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_the_models_generation_config_goes_along_and_the_model_stays_as_it_was():
    model = language_model("Mistral")
    model.generation_config.temperature = 0.25
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    made = in_layout(model, "qwen2")
    made.generation_config.temperature = 0.5
    assert model.generation_config.temperature == 0.25 and torch.equal(torch.get_rng_state(), state)
    assert before.keys() == model.state_dict().keys()


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(model: Any, layout: str = "qwen2", method: str = "b_v") -> str:
    with open_bank(model, [method], [0]) as bank:
        fill(bank)
        with pytest.raises(BeftError) as caught:
            merge(bank, 0, layout=layout)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("Mistral", {"sliding_window": 16}, "attends to the last 16 tokens only, .*: save an adapter instead"),
        ("Mistral", {"hidden_act": "gelu"}, None),
        ("Phi-3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
         "does not compute in the layout qwen2 .*logits of up to .* differ by .*: save an adapter instead"),
        ("Mistral", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
         r"frequencies of this mistral model change with the length of a text \(dynamic\).*save an adapter"),
        ("Gemma", {}, "gemma model does not compute in the layout qwen2"),
        ("Qwen3", {}, r"qwen3 model cannot be written .*it also has model.layers.0.self_attn.q_norm.weight"),
        ("GPT-J", {}, "gptj model cannot be written in the layout qwen2 .*it has no model.embed_tokens.weight"),
        ("StableLM", {}, "stablelm model (does not compute|cannot be written) in the layout qwen2"),
    ],
)  # fmt: skip
def test_another_arithmetic_is_refused_in_one_sentence(name, changes, says):
    model = language_model(name, **changes)
    if says is None:  # an activation goes along
        with open_bank(model, ["b_v"], [0]) as bank:
            assert merge(bank, 0, layout="qwen2").config.hidden_act == changes["hidden_act"]
        return
    with pytest.raises(BeftError, match=says):
        raise BeftError(refused(model))


def test_a_window_as_long_as_the_positions_is_none():
    model = language_model("Mistral", sliding_window=64, max_position_embeddings=64)
    assert in_layout(model, "qwen2").config.sliding_window is None


def test_logits_decide_and_not_the_names_of_parameters(monkeypatch):
    """A copy whose norms divide by something else has every parameter in its place, and is caught."""
    own = layouts._config

    def other(config: Any, kind: Any) -> Any:
        made = own(config, kind)
        made.rms_norm_eps = 0.1
        return made

    monkeypatch.setattr(layouts, "_config", other)
    assert "does not compute in the layout qwen2" in refused(language_model("Mistral"))


def test_a_bias_of_the_output_has_no_place_in_qwen2_and_one_in_llama():
    model = language_model("LLaMA with biases")
    torch.nn.init.normal_(model.model.layers[0].self_attn.o_proj.bias)
    assert "it also has model.layers.0.self_attn.o_proj.bias" in refused(model)
    difference, size = apart(model, in_layout(model, "llama"))
    assert difference <= 1e-5 * size


def test_an_unknown_layout_and_a_model_with_a_head_are_named(tiny):
    assert "unknown layout 'qwen': did you mean qwen2" in refused(language_model("Mistral"), "qwen")
    assert "BertForSequenceClassification is no causal language model" in refused(tiny.model)
    assert set(layouts.LAYOUTS) == {"qwen2", "llama"}


def test_who_has_no_flag_of_its_own_is_told_of_the_layout_where_it_fits():
    model = language_model("Mistral")
    with open_bank(model, ["b_v"], [0]) as bank, pytest.raises(BeftError, match='an adapter .*with layout="qwen2"'):
        merge(bank, 0)
    with open_bank(language_model("GPT-J"), ["b_v"], [0]) as bank, pytest.raises(BeftError) as caught:
        merge(bank, 0)
    assert "layout" not in str(caught.value)
