"""Prompts and options as tokens, with the border between them where the tokens of the full text have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BeftError
from .prompts import Example


@dataclass(frozen=True)
class EncodedOptions:
    """An example as tokens.

    Attributes:
        sequences: one list of ids per option: leading special tokens, prompt, option; the prompt alone where there is
            no option. The whole text is tokenised at once, not prompt and option separately.
        starts: per option, the index of its first token, which is the first token that holds any character of it.
    """

    sequences: tuple[list[int], ...]
    starts: tuple[int, ...]


def encode_options(tokenizer: Any, example: Example, max_length: int, before: str = "") -> EncodedOptions:
    """Tokens of an example with each of its options (or with answers to train on, given as options).

    Args:
        tokenizer: a fast one, which gives the characters of each token.
        max_length: tokens of prompt and option. A longer prompt loses tokens at its left end, behind the leading
            special ones, the same number for all options. `example.keep` and everything behind it is never cut.
        before: text in front of the prompt, such as demonstrations. It is cut first.

    Raises:
        BeftError: an option without a token of its own or with no token in front of it, a prompt that cannot be cut
            enough, or a slow tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BeftError(
            f"{type(tokenizer).__name__} does not say which characters its tokens hold: use a model with a fast one"
        )
    prompt = before + example.prompt
    sequences, starts = [], []
    for option in example.options or ("",):
        ids, ends = _tokens(tokenizer, prompt + option)
        own = [i for i, end in enumerate(ends) if end > len(prompt)]
        if option and not own:
            raise BeftError(f"the option {option!r} has no token of its own: give it another text")
        sequences.append(ids)
        starts.append(own[0] if own else len(ids))
    excess = max(len(ids) for ids in sequences) - max_length
    if excess > 0:
        keep = len(before) + example.keep
        for n, option in enumerate(example.options or ("",)):
            sequences[n] = _cut(tokenizer, prompt + option, sequences[n], excess, keep, max_length)
            starts[n] -= excess
    # An option's first token needs a token in front. There is none if the prompt is empty or part of that first token.
    if min(starts) < 1:
        option = (*example.options, "")[starts.index(min(starts))]
        raise BeftError(f"no token stands in front of the option {option!r}: give a longer prompt")
    return EncodedOptions(tuple(sequences), tuple(starts))


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids of a text without trailing special tokens, and the end of each token's characters (0 for special ones)."""
    batch = tokenizer(text, return_offsets_mapping=True)
    ids, ends = batch["input_ids"], [end for _, end in batch["offset_mapping"]]
    last = max((i for i, end in enumerate(ends) if end), default=-1)
    return ids[: last + 1], ends[: last + 1]


def _cut(tokenizer: Any, text: str, ids: list[int], excess: int, keep: int, max_length: int) -> list[int]:
    """`ids` without the first `excess` tokens behind the leading special ones."""
    _, ends = _tokens(tokenizer, text)
    front = next(i for i, end in enumerate(ends) if end)
    if any(end > keep for end in ends[front : front + excess]):
        raise BeftError(
            f"what must not be cut of a prompt is longer than {max_length} tokens ({text[keep : keep + 40]!r}...): "
            "give a larger max_length or leave the row out"
        )
    return ids[:front] + ids[front + excess :]


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Number of leading tokens that all sequences share."""
    first, last = min(sequences), max(sequences)  # in lexicographic order, those that differ earliest
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
