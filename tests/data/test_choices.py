"""Options as tokens: those at the border between prompt and option are the full text's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import TOKENIZERS

from beft.data.batching import common_prefix, encode_options
from beft.data.prompts import Example
from beft.errors import BeftError


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=40)
@given(prompt=st.text("the cat is.?Y\n ", min_size=1), option=st.text(" YesNomatgr\n", min_size=1))
def test_an_options_tokens_are_those_of_the_full_text(kind, prompt, option):
    tokenizer = TOKENIZERS[kind]
    try:
        encoded = encode_options(tokenizer, Example(prompt, (option,)), 1000)
    except BeftError as error:  # WordPiece drops spaces, so some options are nothing to it
        first = tokenizer(prompt + option, return_offsets_mapping=True)["offset_mapping"][0][1]
        assert ("no token of its own" in str(error) and not option.strip()) or (
            "no token stands in front" in str(error) and first > len(prompt)
        )
        return
    full = tokenizer(prompt + option)
    last = len(full["input_ids"]) - (1 if kind == "WordPiece" else 0)
    assert encoded.sequences[0][: encoded.starts[0]] == full["input_ids"][: encoded.starts[0]]
    assert encoded.sequences[0] == full["input_ids"][: len(encoded.sequences[0])] and len(encoded.sequences[0]) <= last
    # before the start nothing of the option, from there on all of it
    offsets = tokenizer(prompt + option, return_offsets_mapping=True)["offset_mapping"]
    assert all(end <= len(prompt) for _, end in offsets[: encoded.starts[0]])
    own = "".join(tokenizer.decode(encoded.sequences[0][encoded.starts[0] :]).split())
    assert own.endswith("".join(option.split())) or "[UNK]" in own


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_left_is_cut_and_the_question_never(kind):
    tokenizer = TOKENIZERS[kind]
    context, question = "the cat sat on a mat. " * 20, "Is it so?\n"
    example = Example(context + question, ("Yes", "No way"), 0, keep=len(context))
    whole, cut = encode_options(tokenizer, example, 10_000), encode_options(tokenizer, example, 40)
    front = 0 if kind == "byte-level BPE" else 1
    assert max(map(len, cut.sequences)) == 40
    for full, part, start, moved in zip(whole.sequences, cut.sequences, whole.starts, cut.starts, strict=True):
        assert part[:front] == full[:front] and part[front:] == full[len(full) - len(part) + front :]
        assert full[start:] == part[moved:]
    least = len(tokenizer(question + "No way")["input_ids"]) - 2
    with pytest.raises(BeftError, match="must not be cut"):
        encode_options(tokenizer, example, least)


def test_an_option_that_is_nothing_to_the_tokenizer_is_named():
    with pytest.raises(BeftError, match="option ' ' has no token of its own"):
        encode_options(TOKENIZERS["WordPiece"], Example("the cat", (" ", "Yes")), 100)


def test_options_of_the_same_tokens_are_refused():
    with pytest.raises(BeftError, match="options ' Yes' and '  Yes' are the same tokens"):
        encode_options(TOKENIZERS["WordPiece"], Example("the cat", (" Yes", "  Yes")), 100)
    encode_options(TOKENIZERS["WordPiece"], Example("the cat", (" Yes", " Yes")), 100)  # a row of the data has it twice


def test_an_option_with_nothing_in_front_of_it_is_refused():
    with pytest.raises(BeftError, match="no token stands in front of the option 'Yes'"):
        encode_options(TOKENIZERS["byte-level BPE"], Example("", ("Yes", "No")), 100)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_prefix(sequences):
    n = common_prefix(sequences)
    assert len({tuple(s[:n]) for s in sequences}) == 1
    assert min(map(len, sequences)) == n or len({tuple(s[: n + 1]) for s in sequences}) > 1
