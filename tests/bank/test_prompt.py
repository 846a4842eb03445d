"""Prompt tuning is PEFT's: the same logits, from drawn tokens, and gone afterwards."""

from __future__ import annotations

import pytest
import torch
from masked_models import small
from peft import PromptTuningConfig, TaskType, get_peft_model

from beft import paper
from beft.bank.baselines import open_bank
from beft.bank.virtual_tokens import PROMPT as MODULE
from beft.errors import BeftError
from beft.models import loading as models
from beft.theory import null_key_bias as tiny_models

TOKENS = paper.data()["prompt"]["tokens"]


def test_a_prompt_on_a_classifier_gives_what_pefts_own_model_gives():
    loaded = models.load(models.TINY, labels=3)
    inputs = loaded.tokenizer(["the plot was dull", "the soup was never superb"], padding=True, return_tensors="pt")
    rows = torch.zeros(2, dtype=torch.long)
    plain = loaded.model(**inputs).logits
    with open_bank(loaded.model, ["prompt"], [5]) as bank:
        ours = bank(rows, None, **inputs).detach()
        (values,) = (s.values[0].detach().clone() for s in bank.slots if s.group == "weights")
        assert bank.parameter_counts(0)["weights"] == values.numel() == TOKENS * loaded.model.config.hidden_size
        heads = [s for s in bank.slots if s.group == "head"]
        state = {s.parameter: s.values[0].detach().clone() for s in heads}
    assert torch.equal(loaded.model(**inputs).logits, plain)
    assert not hasattr(loaded.model, MODULE)
    wrapped = get_peft_model(loaded.model, PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=TOKENS))
    wrapped.prompt_encoder["default"].embedding.weight.data = values
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        layer = wrapped.base_model.get_submodule(module)
        layer = getattr(layer, "modules_to_save", {"default": layer})["default"]
        getattr(layer, parameter).data = value
    with torch.no_grad():
        theirs = wrapped.eval()(**inputs).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_language_model_answers_for_the_texts_own_tokens():
    loaded = small()
    inputs = loaded.tokenizer(["the plot was dull"], return_tensors="pt")
    with open_bank(loaded.model, ["prompt"], [0]) as bank:
        ours = bank(torch.zeros(1, dtype=torch.long), None, **inputs).detach()
        prompt = bank.slots[0].values[0].detach()
    words = loaded.model.get_input_embeddings().weight
    assert all(any(torch.equal(row, word) for word in words) for row in prompt)  # begins as words
    embedded = torch.cat([prompt, words[inputs["input_ids"][0]]])[None]
    with torch.no_grad():
        whole = loaded.model(inputs_embeds=embedded).logits[:, TOKENS:]
    torch.testing.assert_close(ours, whole, atol=1e-5, rtol=1e-5)


def test_a_decoder_is_refused():
    model = tiny_models.build("OPT", auto="AutoModelForCausalLM").requires_grad_(False)
    with (
        pytest.raises(BeftError, match="prompt tuning is for encoders here .* use prefix"),
        open_bank(model, ["prompt"], [0]),
    ):
        pass
