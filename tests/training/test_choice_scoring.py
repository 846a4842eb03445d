"""Scores of options: shared computation changes no number; tokens at the border are those of the full text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import TOKENIZERS

from beft.bank.baselines import open_bank
from beft.data.batching import ChunkCost
from beft.data.choices import Encoded, common_prefix, encode
from beft.data.prompts import PROMPTS, Example, get_prompt
from beft.errors import BeftError
from beft.theory import null_key_bias as zoo
from beft.training.choice_scoring import option_scores


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40)
@given(prompt=st.text("the cat is.?Y\n ", min_size=1), option=st.text(" YesNomatgr\n", min_size=1))
def test_an_options_tokens_are_those_of_the_full_text(kind, prompt, option):
    tokenizer = TOKENIZERS[kind]
    try:
        found = encode(tokenizer, Example(prompt, (option,)), 1000)
    except BeftError as error:  # WordPiece drops spaces, so some options are nothing to it
        first = tokenizer(prompt + option, return_offsets_mapping=True)["offset_mapping"][0][1]
        assert ("no token of its own" in str(error) and not option.strip()) or (
            "no token stands in front" in str(error) and first > len(prompt)
        )
        return
    full = tokenizer(prompt + option)
    last = len(full["input_ids"]) - (1 if kind == "WordPiece" else 0)
    assert found.sequences[0][: found.starts[0]] == full["input_ids"][: found.starts[0]]
    assert (
        found.sequences[0] == full["input_ids"][: len(found.sequences[0])] and len(found.sequences[0]) <= last
    )
    # before the start nothing of the option, from there on all of it
    offsets = tokenizer(prompt + option, return_offsets_mapping=True)["offset_mapping"]
    assert all(end <= len(prompt) for _, end in offsets[: found.starts[0]])
    own = "".join(tokenizer.decode(found.sequences[0][found.starts[0] :]).split())
    assert own.endswith("".join(option.split())) or "[UNK]" in own


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_left_is_cut_and_the_question_never(kind):
    tokenizer = TOKENIZERS[kind]
    context, question = "the cat sat on a mat. " * 20, "Is it so?\n"
    example = Example(context + question, ("Yes", "No way"), 0, keep=len(context))
    whole, cut = encode(tokenizer, example, 10_000), encode(tokenizer, example, 40)
    front = 0 if kind == "byte-level BPE" else 1
    assert max(map(len, cut.sequences)) == 40
    for full, part, start, moved in zip(
        whole.sequences, cut.sequences, whole.starts, cut.starts, strict=True
    ):
        assert part[:front] == full[:front] and part[front:] == full[len(full) - len(part) + front :]
        assert full[start:] == part[moved:]
    least = len(tokenizer(question + "No way")["input_ids"]) - 2
    with pytest.raises(BeftError, match="must not be cut"):
        encode(tokenizer, example, least)


def test_an_option_that_is_nothing_to_the_tokenizer_is_named():
    with pytest.raises(BeftError, match="option ' ' has no token of its own"):
        encode(TOKENIZERS["WordPiece"], Example("the cat", (" ", "Yes")), 100)


def test_an_option_with_nothing_in_front_of_it_is_refused():
    with pytest.raises(BeftError, match="no token stands in front of the option 'Yes'"):
        encode(TOKENIZERS["byte-level BPE"], Example("", ("Yes", "No")), 100)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_prefix(sequences):
    n = common_prefix(sequences)
    assert len({tuple(s[:n]) for s in sequences}) == 1
    assert min(map(len, sequences)) == n or len({tuple(s[: n + 1]) for s in sequences}) > 1


# --- scores -----------------------------------------------------------------------------------------------------------


def language_model(name: str) -> Any:
    return zoo.build(name, auto="AutoModelForCausalLM").float().requires_grad_(False)


def some_examples(count: int = 7, demonstrations: int = 0, seed: int = 0) -> list[Encoded]:
    """Random ids: two to four options of one to three tokens, some the beginning of others, some alike at first."""
    draw = np.random.default_rng(seed)
    front = draw.integers(3, zoo.VOCABULARY, demonstrations).tolist()
    found = []
    for _ in range(count):
        prompt = front + draw.integers(3, zoo.VOCABULARY, draw.integers(2, 9)).tolist()
        options = [
            draw.integers(3, zoo.VOCABULARY, draw.integers(1, 4)).tolist() for _ in range(draw.integers(2, 5))
        ]
        options.append([*options[0], 5])  # longer than another, and the same at first
        sequences = tuple(prompt + option for option in options)
        found.append(Encoded(sequences, (len(prompt),) * len(options)))
    return found


def one_at_a_time(model: Any, examples: list[Encoded]) -> list[np.ndarray]:
    found = []
    for e in examples:
        totals = []
        for ids, start in zip(e.sequences, e.starts, strict=True):
            with torch.no_grad():
                chances = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            totals.append(float(chances[np.arange(start - 1, len(ids) - 1), ids[start:]].sum()))
        found.append(np.array(totals))
    return found


CAUSAL = [
    n for n in zoo.ZOO if n.startswith(("GPT", "OPT", "BLOOM", "Falcon", "LLaMA", "Mistral", "Qwen", "Phi"))
]
CAUSAL += ["StableLM", "Gemma", "Gemma 2", "Gemma 3", "gpt-oss"]


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("demonstrations", [0, 11])
def test_shared_computation_changes_no_score(name, demonstrations):
    model, examples = language_model(name), some_examples(demonstrations=demonstrations)
    expected = one_at_a_time(model, examples)
    for cost in (ChunkCost(24, 4), ChunkCost(4096, 4)):
        for scored, wanted, e in zip(
            option_scores(model, examples, cost=cost), expected, examples, strict=True
        ):
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


def test_nothing_to_score_is_nothing():
    assert option_scores(language_model("OPT"), []) == []


# --- prompts ----------------------------------------------------------------------------------------------------------

ROWS = {
    "sst2": ({"sentence": "a fine film ", "label": 1}, "a fine film It was great"),
    "rte": (
        {"sentence1": "It rains.", "sentence2": "It is wet", "label": 1},
        'It rains.\nDoes this mean that "It is wet" is true? Yes or No?\nNo',
    ),
    "cb": (
        {"premise": "It rains.", "hypothesis": "it is wet", "label": 2},
        'Suppose It rains. Can we infer that "it is wet"? Yes, No, or Maybe?\nMaybe',
    ),
    "boolq": (
        {"passage": "Rain is wet.", "question": "is rain wet", "label": 1},
        "Rain is wet. Is rain wet?\nYes",
    ),
    "wsc": (
        {"text": "Ann fed her cat.", "span1_text": "Ann", "span2_text": "Her", "label": 1},
        'Ann fed her cat.\nIn the previous sentence, does the pronoun "her" refer to Ann? Yes or No?\nYes',
    ),
    "wic": (
        {"word": "bank", "sentence1": "A bank.", "sentence2": "The bank.", "label": 0},
        'Does the word "bank" have the same meaning in these two sentences? Yes, No?\nA bank.\nThe bank.\nNo',
    ),
    "multirc": (
        {"paragraph": "It rains.", "question": "What falls?", "answer": "Snow", "label": 0},
        'It rains.\nQuestion: What falls?\nI found this answer "Snow". Is that correct? Yes or No?\nNo',
    ),
    "copa": (
        {"premise": "It rained.", "choice1": "I got wet.", "choice2": "The sun set.", "question": "effect", "label": 1},
        "It rained so the sun set.",
    ),
    "record": (
        {"passage": "Ann sings\n@highlight\nBo cooks", "query": "@placeholder is a cook", "entities": ["Ann", "Bo"]}
        | {"answers": ["Bo"]},
        "Ann sings\n- Bo cooks\n- Bo is a cook",
    ),
    "microworld_sentiment": ({"sentence": "The soup was fine.", "label": 1}, "The soup was fine. All in all, good"),
    "microworld_entailment": (
        {"premise": "The soup was fine.", "hypothesis": "The soup pleased the narrator.", "label": 1},
        "The soup was fine.\nTell me: does it follow that the soup pleased the narrator? No",
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", ROWS)
def test_prompts_read_as_the_paper_writes_them_and_the_generated_as_stated(task):
    row, text = ROWS[task]
    example = get_prompt(task).write(row)
    assert example.prompt + example.options[example.label] == text


def test_generated_answers_have_a_prompt_alone():
    squad = get_prompt("squad").write(
        {
            "title": "Rain",
            "context": "It falls.",
            "question": " What falls?",
            "answers": {"text": ["rain", "rain"]},
        }
    )
    assert squad.prompt == "Title: Rain\nContext: It falls.\nQuestion: What falls?\nAnswer:"
    assert squad.answers == ("rain",) and squad.prompt[squad.keep :].startswith("\nQuestion")
    drop = get_prompt("drop").write(
        {"passage": "Two fell.", "question": "How many?", "answers_spans": {"spans": ["2"]}}
    )
    assert drop.prompt == "Passage: Two fell.\nQuestion: How many?\nAnswer:" and drop.answers == ("2",)


def test_the_word_i_keeps_its_capital():
    row = {
        "premise": "It rained.",
        "choice1": "I got wet.",
        "choice2": "I'm wet.",
        "question": "cause",
        "label": 0,
    }
    example = get_prompt("copa").write(row)
    assert example.prompt == "It rained because" and example.options == (" I got wet.", " I'm wet.")


def test_what_may_be_cut_is_the_context():
    for task, part in (
        ("rte", "\nDoes"),
        ("cb", " Can we"),
        ("boolq", " Is rain"),
        ("multirc", "\nQuestion"),
    ):
        example = get_prompt(task).write(ROWS[task][0])
        assert example.prompt[example.keep :].startswith(part)


def test_eleven_tasks_and_an_unknown_one_is_refused():
    assert len([p for p in PROMPTS.values() if p.suite != "microworld"]) == 11
    with pytest.raises(BeftError, match="unknown decoder task 'sst'"):
        get_prompt("sst")
