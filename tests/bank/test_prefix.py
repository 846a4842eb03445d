"""Prefix tuning is PEFT's: the same logits, from the same start, and gone afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fitting import fitted
from peft import PrefixTuningConfig, TaskType, get_peft_model
from transformers import LlamaConfig

from beft.bank.baselines import open_bank
from beft.bank.virtual_tokens import PREFIX as MODULE
from beft.data.batching import encode_options
from beft.data.prompts import Example
from beft.errors import BeftError
from beft.experiments import memory
from beft.theory import null_key_bias as tiny_models
from beft.training.prompting import generate, option_scores

FAMILIES = ["OPT", "LLaMA", "GPT-2", "Qwen3"]


def language_model(name: str) -> Any:
    return tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)


def inputs_of(model: Any) -> dict[str, Any]:
    return {n: x for n, x in tiny_models.inputs(model, batch=3).items() if n in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_gives_what_pefts_own_model_gives(name):
    model, rows = language_model(name), torch.zeros(3, dtype=torch.long)
    inputs = inputs_of(model)
    with open_bank(model, ["prefix"], [0]) as bank:
        ours = bank(rows, None, **inputs, use_cache=False).detach()
        values = bank.slots[0].values[0].detach().clone()
        assert bank.parameter_counts(0) == {"bias": 0, "head": 0, "pooler": 0, "weights": values.numel()}
    wrapped = get_peft_model(model, PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=5))
    wrapped.prompt_encoder["default"].embedding.weight.data = values
    with torch.no_grad():
        theirs = wrapped(**inputs).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[real], theirs[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_begins_as_the_keys_and_values_of_real_tokens(name):
    model = language_model(name)
    ids = torch.randint(model.config.vocab_size, (1, 5), generator=torch.Generator().manual_seed(3))
    inputs = inputs_of(model)
    with open_bank(model, ["prefix"], [3]) as bank:
        ours = bank(torch.zeros(3, dtype=torch.long), None, **inputs, use_cache=False).detach()
    with torch.no_grad():
        mask = torch.cat([torch.ones(3, 5, dtype=torch.long), inputs["attention_mask"]], dim=1)
        whole = model(input_ids=torch.cat([ids.expand(3, 5), inputs["input_ids"]], dim=1), attention_mask=mask).logits[
            :, 5:
        ]
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(ours[real], whole[real], atol=1e-4, rtol=1e-4)


def test_the_model_is_as_it_was_afterwards():
    model = language_model("LLaMA")
    names, inputs = list(model.state_dict()), inputs_of(model)
    with torch.no_grad():
        before = model(**inputs).logits
        with open_bank(model, ["prefix"], [0]) as bank:
            changed = bank(torch.zeros(3, dtype=torch.long), None, **inputs)
        assert (changed - before).abs().max() > 1e-3
        assert torch.equal(model(**inputs).logits, before)
    assert list(model.state_dict()) == names and not hasattr(model, MODULE)
    assert not any(p.requires_grad for p in model.parameters())


def test_gradients_reach_the_prefix_and_nothing_else():
    model = language_model("LLaMA")
    with open_bank(model, ["prefix"], [0]) as bank:
        bank(torch.zeros(3, dtype=torch.long), None, **inputs_of(model), use_cache=False).square().sum().backward()
        assert [s.values.grad is not None for s in bank.slots] == [True]
        assert bank.slots[0].values.grad.abs().max() > 0
    assert all(p.grad is None for p in model.parameters())


def test_options_and_generation_see_the_prefix():
    from small_tokenizers import TOKENIZERS

    tokenizer = TOKENIZERS["byte-level BPE"]
    settings = tiny_models.ARCHITECTURES["LLaMA"].settings | {"vocab_size": len(tokenizer)}
    model = memory.random_model(LlamaConfig(**settings), "float32", torch.device("cpu"))
    example = Example("the cat is not", (" great", " terrible"), 0)
    encoded = encode_options(tokenizer, example, 100)
    with open_bank(model, ["prefix"], [0]) as bank:
        (found,) = option_scores(bank, [encoded])
        for k, ids in enumerate(encoded.sequences):
            logits = bank(
                torch.zeros(1, dtype=torch.long),
                None,
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            ).detach()
            chances = logits[0, :-1].log_softmax(-1)[range(len(ids) - 1), ids[1:]]
            assert found.total[k] == pytest.approx(float(chances[encoded.starts[k] - 1 :].sum()), abs=1e-4)
        with_prefix = generate(bank, tokenizer, [example], 60, new_tokens=8)
        bank.slots[0].values.data.mul_(50.0)
        assert generate(bank, tokenizer, [example], 60, new_tokens=8) != with_prefix


def test_a_prefix_is_refused_where_there_is_no_causal_language_model():
    with pytest.raises(BeftError, match="prefix tuning is for causal language models"):
        with open_bank(tiny_models.build("BERT", auto="AutoModelForMaskedLM").requires_grad_(False), ["prefix"], [0]):
            pass


@pytest.mark.parametrize("name", ["OPT", "GPT-2"])
def test_a_text_as_long_as_the_context_leaves_room_for_the_prefix(name):
    from small_models import tokenizer_for

    from beft.data.datasets import prompt_dataset
    from beft.data.prompts import PROMPTS
    from beft.models.loading import Loaded
    from beft.study import Run, Study

    model = tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)
    positions = model.config.max_position_embeddings
    tokenizer = tokenizer_for("tiny-opt", count=50)
    model.resize_token_embeddings(len(tokenizer))
    text = "a plot " * positions
    long = [Example(text + str(n), (" Yes", " No"), n % 2, keep=len(text)) for n in range(4)]
    data = prompt_dataset(PROMPTS["microworld_entailment"], long, long, "by hand")
    study = Study(model=name, task="x", regime="all", epochs=1, batch_size=2, max_length=positions, prompted=True)
    loaded = Loaded(model, tokenizer, name, "random", "none", "none")
    (result,) = fitted(loaded, data, study, [Run("prefix", 0, 0.01)])
    assert result.outcome == "ok" and result.final["validation"] is not None
