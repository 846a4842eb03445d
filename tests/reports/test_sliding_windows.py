"""A model with a sliding window scores, trains and generates together what it does one text at a time.

Prompts in a batch differ in length, and padding between a prompt and what follows it takes no token's place in the
window; demonstrations and virtual tokens in front of a prompt slide out of sight where real ones would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from small_tokenizers import TOKENIZERS
from torch import Tensor
from windowed_models import WINDOW, WINDOWED, windowed

from beft.bank.bank import BiasBank
from beft.bank.baselines import open_bank
from beft.data.batching import ChunkCost, EncodedOptions, encode_options
from beft.data.datasets import Draw, prompt_dataset, text_dataset
from beft.data.prompts import Example, Prompt
from beft.debias.pair_scores import causal_pair_scores, shared_places
from beft.models.loading import Loaded
from beft.study import Study
from beft.training.classification import predict
from beft.training.language_modelling import NextTokens
from beft.training.multiple_choice import Prompted
from beft.training.prompting import generate, option_scores

TOKENIZER, WRITER = TOKENIZERS["SentencePiece"], TOKENIZERS["byte-level BPE"]
STUDY = Study(model="windowed", task="made up", regime="all", epochs=1, max_length=100, prompted=True)
PROMPTS = [
    Example("the cat sat on a mat. is it? so because of rain it was not", (" great", " terrible, so was it"), 0),
    Example("the cat", (" terrible rain", " great. Yes No Maybe"), 1),
    Example("so because of rain Yes No Maybe great terrible", (" Yes", " No, it was"), 1),
    Example("a mat. Yes No", (" Maybe", " it was not so"), 0),
]
TEXTS = [e.prompt + e.options[1] for e in PROMPTS]
Logits = Callable[[Tensor], Tensor]  # of the ids of one text (1, T)
windows = pytest.mark.parametrize("which", WINDOWED)


def speaking(which: str, tokenizer: Any = TOKENIZER) -> Any:
    """The model with a vocabulary for texts, whose words in and out differ: else it repeats the last one."""
    return windowed(which, vocab_size=len(tokenizer), tie_word_embeddings=False, eos_token_id=None)


def some_examples(demonstrations: int, count: int = 5) -> list[EncodedOptions]:
    """Random ids: prompts of 3 to 24 tokens, up to three times the window, and options of 1 to 6."""
    draw = np.random.default_rng(0)
    front = draw.integers(3, 101, demonstrations).tolist()
    found = []
    for _ in range(count):
        prompt = front + draw.integers(3, 101, draw.integers(3, 25)).tolist()
        options = [draw.integers(3, 101, draw.integers(1, 6)).tolist() for _ in range(2)]
        options.append([*options[0], 5])  # longer than another, and the same at first
        found.append(EncodedOptions(tuple(prompt + option for option in options), (len(prompt),) * 3))
    return found


def plain(model: Any) -> Logits:
    return lambda ids: model(input_ids=ids, use_cache=False).logits


def of_run(bank: BiasBank, run: int) -> Logits:
    return lambda ids: bank(torch.tensor([run]), None, input_ids=ids, use_cache=False)


def behind(tokens: Tensor, logits: Logits) -> Logits:
    """The logits of a text with `tokens` (1, V) in front of it."""
    return lambda ids: logits(torch.cat([tokens, ids], dim=1))[:, tokens.shape[1] :]


def alone(logits: Logits, ids: list[int], start: int) -> Tensor:
    """log P of every token from `start` on, of one text by itself."""
    log_probs = logits(torch.tensor([ids]))[0].float().log_softmax(-1)
    return log_probs[torch.arange(start - 1, len(ids) - 1), torch.tensor(ids[start:])]


def check_scores(found: list[Any], examples: list[EncodedOptions], logits: Logits) -> None:
    with torch.no_grad():
        for scored, e in zip(found, examples, strict=True):
            own = [float(alone(logits, ids, n).sum()) for ids, n in zip(e.sequences, e.starts, strict=True)]
            np.testing.assert_allclose(scored.total, own, atol=1e-4, rtol=0)


def test_every_family_with_a_window_is_here():
    families = {which.partition(",")[0] for which in WINDOWED}
    assert families >= {"Gemma 2", "Gemma 3", "Mistral", "Qwen2", "Qwen3", "Phi-3", "gpt-oss"}


@windows
@pytest.mark.parametrize("demonstrations", [0, 20])
def test_options_scored_together_are_scored_as_alone(which, demonstrations):
    model, examples = windowed(which), some_examples(demonstrations)
    for cost in (ChunkCost(60, 4), ChunkCost(4096, 4)):
        check_scores(option_scores(model, examples, cost=cost), examples, plain(model))


@windows
def test_every_run_of_a_bank_scores_as_alone(which):
    model, examples = windowed(which), some_examples(demonstrations=5, count=3)
    with open_bank(model, ["b_v", "b_q"], [0, 0]) as bank:
        scatter(bank)
        both = option_scores(bank, [*examples, *examples], [0] * len(examples) + [1] * len(examples))
        for run in range(2):
            check_scores(both[run * len(examples) :][: len(examples)], examples, of_run(bank, run))


@windows
@pytest.mark.parametrize(("window", "demonstrations"), [(WINDOW, 0), (WINDOW, 10), (4, 0)])
def test_a_prefix_slides_out_of_sight_as_real_tokens_do(which, window, demonstrations):
    """It begins as five real tokens: more than the smaller window has room for."""
    model, examples = windowed(which, sliding_window=window), some_examples(demonstrations, count=3)
    with open_bank(model, ["prefix"], [3]) as bank:
        found = option_scores(bank, examples)
    check_scores(found, examples, behind(front_of(model), plain(model)))


def front_of(model: Any) -> Tensor:
    """The real tokens that a prefix of seed 3 begins as."""
    return torch.randint(model.config.vocab_size, (1, 5), generator=torch.Generator().manual_seed(3))


def greedy(logits: Logits, prompt: str, tokens: int) -> str:
    ids = WRITER(prompt)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + tokens and "\n" not in WRITER.decode(ids[start:]):
            ids.append(int(logits(torch.tensor([ids]))[0, -1].argmax()))
    return WRITER.decode(ids[start:], skip_special_tokens=True).partition("\n")[0].strip()


@windows
def test_prompts_are_continued_together_as_alone(which):
    check_continued(speaking(which, WRITER))


@pytest.mark.parametrize("which", ["Mistral, every layer", "Gemma 2, some"])
def test_a_cache_of_fixed_size_changes_no_continuation(which):
    model = speaking(which, WRITER)
    model.generation_config.cache_implementation = "static"
    check_continued(model)


def check_continued(model: Any) -> None:
    """Without a prefix and with one."""
    found = generate(model, WRITER, PROMPTS, 100, new_tokens=5)
    assert found == [greedy(plain(model), e.prompt, 5) for e in PROMPTS]
    with open_bank(model, ["prefix"], [3]) as bank:
        with_prefix = generate(bank, WRITER, PROMPTS, 100, new_tokens=5)
    assert with_prefix == [greedy(behind(front_of(model), plain(model)), e.prompt, 5) for e in PROMPTS] != found


def scatter(bank: BiasBank) -> None:
    generator = torch.Generator().manual_seed(1)
    for slot in bank.slots:
        slot.values.data = torch.randn(slot.values.shape, generator=generator) * slot.trained[:, None]


def gradients(bank: BiasBank, losses: Tensor) -> list[Tensor]:
    for slot in bank.slots:
        slot.values.grad = None
    losses.sum().backward()
    return [slot.values.grad.clone() for slot in bank.slots]


def check_training(bank: BiasBank, objective: Any, runs: list[int], own_loss: Callable[[Logits, int], Tensor]) -> None:
    """The losses and the gradients of every text in a chunk are those of the texts by themselves."""
    together = objective.loss(bank, torch.tensor(runs), None, np.arange(len(runs)))
    found = gradients(bank, together)
    one_by_one = torch.stack([own_loss(of_run(bank, run), i) for i, run in enumerate(runs)])
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)
    for mine, theirs in zip(found, gradients(bank, one_by_one), strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


@windows
def test_options_are_learnt_together_as_alone(which):
    model = speaking(which)
    prompt = Prompt("made up", "microworld", (), lambda row: row, form="options")
    data = prompt_dataset(prompt, PROMPTS, PROMPTS, "by hand")
    loaded = Loaded(model, TOKENIZER, which, "zoo", "none", "none")
    objective = Prompted(loaded, data, STUDY, [Draw(np.arange(4), np.arange(0))] * 2)

    def own_loss(logits: Logits, i: int) -> Tensor:
        e = encode_options(TOKENIZER, PROMPTS[i], 100)
        means = [alone(logits, ids, start).mean() for ids, start in zip(e.sequences, e.starts, strict=True)]
        return -torch.stack(means).log_softmax(0)[PROMPTS[i].label]

    with open_bank(model, ["b_v", "b_q"], [0, 0]) as bank:
        scatter(bank)
        check_training(bank, objective, [0, 1, 1, 0], own_loss)


@windows
def test_next_tokens_are_learnt_together_as_alone(which):
    model = speaking(which)
    loaded = Loaded(model, TOKENIZER, which, "zoo", "none", "none")
    draws = [Draw(np.arange(4), np.arange(0))] * 2
    objective = NextTokens(loaded, text_dataset("t", TEXTS, TEXTS, "by hand"), STUDY, draws)

    def own_loss(logits: Logits, i: int) -> Tensor:
        return -alone(logits, TOKENIZER(TEXTS[i])["input_ids"], 1).mean()

    with open_bank(model, ["b_v", "b_q"], [0, 0]) as bank:
        scatter(bank)
        check_training(bank, objective, [0, 1, 1, 0], own_loss)


@pytest.mark.parametrize("which", ["Mistral, every layer", "Gemma 3, some"])
def test_dropped_weights_are_those_of_the_text_alone(which):
    model = windowed(which, attention_dropout=0.3)
    ids = torch.randint(3, 101, (3, 24), generator=torch.Generator().manual_seed(0))
    lengths, rows, keys = [24, 17, 10], torch.zeros(3, dtype=torch.long), torch.tensor([5, 6, 7], dtype=torch.int32)
    mask = (torch.arange(24) < torch.tensor(lengths)[:, None]).long()
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        together = bank(rows, keys, input_ids=ids, attention_mask=mask)
        assert (together - bank(rows, None, input_ids=ids, attention_mask=mask)).abs().max() > 1e-2
        for i, length in enumerate(lengths):
            own = bank(rows[:1], keys[i : i + 1], input_ids=ids[i : i + 1, :length])
            torch.testing.assert_close(together[i, :length], own[0], atol=1e-4, rtol=1e-4)


@windows
def test_pairs_and_classes_are_scored_together_as_alone(which):
    model, pairs = speaking(which), [(TEXTS[0], TEXTS[1]), (TEXTS[3], TEXTS[2])]
    found = causal_pair_scores(model, TOKENIZER, pairs)
    with torch.no_grad():
        for pair, scores in zip(pairs, found, strict=True):
            ids = [TOKENIZER(text)["input_ids"] for text in pair]
            for row, at, score in zip(ids, shared_places(*ids, set(TOKENIZER.all_special_ids)), scores, strict=True):
                own = alone(plain(model), row, 1)
                assert score == pytest.approx(sum(float(own[i - 1]) for i in at if i), abs=1e-4)
    sorting = windowed(which, "AutoModelForSequenceClassification", vocab_size=len(TOKENIZER), num_labels=3)
    together = predict(sorting, TOKENIZER, TEXTS)
    alone_each = np.concatenate([predict(sorting, TOKENIZER, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone_each, atol=1e-4)
