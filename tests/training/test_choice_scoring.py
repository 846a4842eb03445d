"""Scores of options: shared computation changes no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from windowed_models import windowed

from beft.bank.baselines import open_bank
from beft.data.batching import ChunkCost, EncodedOptions
from beft.theory import null_key_bias as tiny_models
from beft.training.prompting import option_scores


def language_model(name: str) -> Any:
    return tiny_models.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)


def some_examples(count: int = 7, demonstrations: int = 0, seed: int = 0) -> list[EncodedOptions]:
    """Random ids: two to four options of one to three tokens, some the beginning of others, some alike at first."""
    draw = np.random.default_rng(seed)
    front = draw.integers(3, tiny_models.VOCABULARY, demonstrations).tolist()
    found = []
    for _ in range(count):
        prompt = front + draw.integers(3, tiny_models.VOCABULARY, draw.integers(2, 9)).tolist()
        options = [
            draw.integers(3, tiny_models.VOCABULARY, draw.integers(1, 4)).tolist() for _ in range(draw.integers(2, 5))
        ]
        options.append([*options[0], 5])  # longer than another, and the same at first
        sequences = tuple(prompt + option for option in options)
        found.append(EncodedOptions(sequences, (len(prompt),) * len(options)))
    return found


def one_at_a_time(model: Any, examples: list[EncodedOptions]) -> list[np.ndarray]:
    found = []
    for e in examples:
        totals = []
        for ids, start in zip(e.sequences, e.starts, strict=True):
            with torch.no_grad():
                log_probs = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            totals.append(float(log_probs[np.arange(start - 1, len(ids) - 1), ids[start:]].sum()))
        found.append(np.array(totals))
    return found


CAUSAL = [
    n
    for n in tiny_models.ARCHITECTURES
    if n.startswith(("GPT", "OPT", "BLOOM", "Falcon", "LLaMA", "Mistral", "Qwen", "Phi"))
]
CAUSAL += ["StableLM", "Gemma", "Gemma 2", "Gemma 3", "gpt-oss"]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("demonstrations", [0, 11])
def test_shared_computation_changes_no_score(name, demonstrations):
    model, examples = language_model(name), some_examples(demonstrations=demonstrations)
    expected = one_at_a_time(model, examples)
    for cost in (ChunkCost(24, 4), ChunkCost(4096, 4)):
        for scored, wanted, e in zip(option_scores(model, examples, cost=cost), expected, examples, strict=True):
            np.testing.assert_allclose(scored.total, wanted, atol=2e-4, rtol=1e-5)
            assert scored.tokens.tolist() == [len(s) - e.starts[0] for s in e.sequences]
            np.testing.assert_allclose(scored.mean, scored.total / scored.tokens)


@pytest.mark.parametrize("name", ["OPT", "LLaMA", "GPT-2"])
def test_every_run_of_a_bank_scores_as_it_does_alone(name):
    model, examples = language_model(name), some_examples(demonstrations=5)
    with open_bank(model, ["b_v", "b_q"], [0, 0]) as bank:
        generator = torch.Generator().manual_seed(1)
        for slot in bank.slots:
            slot.values.data = torch.randn(slot.values.shape, generator=generator) * slot.trained[:, None]
        both = option_scores(bank, [*examples, *examples], [0] * len(examples) + [1] * len(examples))
        for run in range(2):

            def alone(input_ids, run=run):
                with bank.running(torch.tensor([run])) as own:
                    return own(input_ids=input_ids)

            mine = both[run * len(examples) : (run + 1) * len(examples)]
            for scored, wanted in zip(mine, one_at_a_time(alone, examples), strict=True):
                np.testing.assert_allclose(scored.total, wanted, atol=2e-4, rtol=1e-5)
    assert not np.allclose(both[0].total, both[len(examples)].total, atol=1e-2)


@pytest.mark.parametrize("demonstrations", [0, 11])
def test_a_window_that_no_text_fills_changes_no_bit(demonstrations):
    """Nor does the care for windows: the scores are those of the same weights without one."""
    examples = some_examples(demonstrations=demonstrations)
    longest = max(len(ids) for e in examples for ids in e.sequences)
    found = [
        option_scores(windowed("Mistral, every layer", sliding_window=window), examples)
        for window in (None, longest + 10)
    ]
    for without, within in zip(*found, strict=True):
        assert without.total.tolist() == within.total.tolist()


def test_nothing_to_score_is_nothing():
    assert option_scores(language_model("OPT"), []) == []
