"""Prompts and options as tokens: the border between them exactly where the full text's tokens have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BeftError
from .prompts import Example


@dataclass(frozen=True)
class Encoded:
    """An example as tokens.

    Attributes:
        sequences: one list of ids per option: special tokens in front, prompt, option; the prompt alone where there is
            no option. They are what the tokenizer makes of the whole text, not of its parts.
        starts: the place of the first token of each option, the first that holds any character of it.
    """

    sequences: tuple[list[int], ...]
    starts: tuple[int, ...]


def encode(tokenizer: Any, example: Example, max_length: int, before: str = "") -> Encoded:
    """Tokens of an example with each of its options (or answers to train on: pass them as options).

    Args:
        tokenizer: a fast one, which says which characters a token holds.
        max_length: tokens of prompt and option. A longer prompt loses tokens on its left, behind the special ones in
            front, the same for all options, and never any of `example.keep` and after.
        before: text in front, such as demonstrations, which goes first.

    Raises:
        BeftError: an option without a token of its own or with nothing in front of it, nothing more that may be cut, or
            a slow tokenizer.
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
    if (
        min(starts) < 1
    ):  # its first token has no probability: the prompt is empty, or one token holds the end of it too
        option = (*example.options, "")[starts.index(min(starts))]
        raise BeftError(f"no token stands in front of the option {option!r}: give a longer prompt")
    return Encoded(tuple(sequences), tuple(starts))


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Ids of a text without special tokens behind it, and where the characters of each end (0 for special ones)."""
    found = tokenizer(text, return_offsets_mapping=True)
    ids, ends = found["input_ids"], [end for _, end in found["offset_mapping"]]
    last = max((i for i, end in enumerate(ends) if end), default=-1)
    return ids[: last + 1], ends[: last + 1]


def _cut(tokenizer: Any, text: str, ids: list[int], excess: int, keep: int, max_length: int) -> list[int]:
    """`ids` without `excess` tokens behind the special ones in front."""
    _, ends = _tokens(tokenizer, text)
    front = next(i for i, end in enumerate(ends) if end)
    if any(end > keep for end in ends[front : front + excess]):
        raise BeftError(
            f"what must not be cut of a prompt is longer than {max_length} tokens ({text[keep : keep + 40]!r}...): "
            "give a larger max_length or leave the row out"
        )
    return ids[:front] + ids[front + excess :]


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many tokens all sequences start with."""
    first, last = min(sequences), max(sequences)  # in lexicographic order, those that differ earliest
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
