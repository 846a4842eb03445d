"""Texts and prompts as tokens, and chunks of (run, example) rows sorted by length, which need almost no padding."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BeftError
from .prompts import Example


@dataclass(frozen=True)
class ChunkCost:
    """The size and the cost of a chunk.

    Attributes:
        tokens: largest number of padded tokens.
        call: fixed cost of a chunk, in tokens.
        rows: chunks are cut at multiples of this number of rows. Matrix products of few different shapes are prepared
            once and cached (oneDNN's primitives). With many shapes, preparing them takes a third of the time.
        padded: share of the work that is done for padding too; the rest is done for real tokens alone.
    """

    tokens: int
    call: int
    rows: int = 4
    padded: float = 1.0


# On a CPU the activations of 1,024 tokens stay in the cache. A GPU needs more to be busy; with 16,384 the logits of a
# language model's whole vocabulary still fit beside it (3 GB in float32 for 49,152 words).
CHUNKS = {"cpu": ChunkCost(1024, 32), "cuda": ChunkCost(16384, 4096)}


def whole(tokens: int) -> int:
    """The number of tokens that a chunk of so many is filled up to where few different sizes are wanted.

    A CPU's products in bfloat16 are prepared for each size, which takes longer than most of them do.
    """
    step = 16
    while 16 * step < tokens:
        step *= 2
    return -(-tokens // step) * step


@dataclass
class Padding:
    """Tokens of text, and tokens whose matrix products are computed, padding included."""

    real: int = 0
    computed: int = 0

    @property
    def efficiency(self) -> float:
        """Real over computed tokens; nan before the first chunk."""
        return self.real / self.computed if self.computed else float("nan")


@dataclass
class Encoded:
    """Texts as padded columns `input_ids`, `attention_mask`, ... (N, T_max), with their lengths (N,)."""

    columns: dict[str, Tensor]
    lengths: np.ndarray
    padding: Padding = field(default_factory=Padding)

    def rows(
        self, index: np.ndarray, device: torch.device, padded: float = 1.0, fills: bool = False
    ) -> dict[str, Tensor]:
        """Model inputs (B, T) of the examples `index` (B,), no longer than the longest of them.

        `padded` is the share of the matrix products that is computed for padding too (`bank.padded`), and `fills` says
        whether the tokens are filled up to `whole` (`bank.fills`).
        """
        longest, real = int(self.lengths[index].max()), int(self.lengths[index].sum())
        self.padding.real += real
        self.padding.computed += (whole(real) if fills else real) + round(padded * (longest * len(index) - real))
        picked = torch.from_numpy(index)
        return {name: column[picked, :longest].to(device) for name, column in self.columns.items()}


def encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Encoded:
    """Tokenise single texts or pairs of texts, cut to `max_length` tokens.

    Texts are cut and padded on the right, whatever sides the tokenizer's own config names. Raises BeftError if
    `max_length` leaves no token for text beside the special ones, and for a text that holds half a surrogate pair.
    """
    columns = [list(column) for column in zip(*texts, strict=True)]
    special = tokenizer.num_special_tokens_to_add(pair=len(columns) == 2)
    if max_length <= special:
        raise BeftError(
            f"max_length {max_length} leaves no token for text beside {special} special tokens: "
            f"give {special + 1} or more"
        )
    if tokenizer.pad_token is None:  # padding is masked, so any token serves, in a copy of the tokenizer
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    with _cutting_on_the_right(tokenizer), _naming_surrogates(texts):
        batch = tokenizer(*columns, truncation=True, max_length=max_length, return_attention_mask=True)
    # padded here: for thousands of rows the tokenizer's own padding and conversion take longer than all the rest of it
    lengths = np.fromiter(map(len, batch["input_ids"]), dtype=np.int64, count=len(texts))
    inside = np.arange(lengths.max(initial=0)) < lengths[:, None]
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    tensors = {}
    for name, rows in batch.items():
        column = np.full(inside.shape, fill.get(name, 0), dtype=np.int64)
        column[inside] = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
        tensors[name] = torch.from_numpy(column)
    return Encoded(tensors, lengths)


def encode_each(tokenizer: Any, texts: Sequence[tuple[str, ...]], lengths: Sequence[int]) -> Encoded:
    """Tokenise single texts and pairs, in any order, each cut to a number of tokens of its own (N,). As `encode`."""
    kinds = [(len(row), length) for row, length in zip(texts, lengths, strict=True)]
    alike = {kind: [i for i, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)}
    parts = {kind: encode(tokenizer, [texts[i] for i in index], kind[1]) for kind, index in alike.items()}
    if len(parts) == 1:
        return parts[kinds[0]]
    longest = max(part.columns["input_ids"].shape[1] for part in parts.values())
    fill = {"input_ids": tokenizer.pad_token_id or 0}  # RoBERTa finds padding by it, all others by the mask
    columns: dict[str, Tensor] = {}
    sizes = np.zeros(len(texts), dtype=np.int64)
    for kind, index in alike.items():
        sizes[index] = parts[kind].lengths
        for name, column in parts[kind].columns.items():
            if name not in columns:
                columns[name] = column.new_full((len(texts), longest), fill.get(name, 0))
            columns[name][index, : column.shape[1]] = column
    return Encoded(columns, sizes)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of one text with its special tokens, cut on the right to what the tokenizer takes. Raises as `encode`."""
    with _cutting_on_the_right(tokenizer), _naming_surrogates([(text,)]):
        return tokenizer(text, truncation=True)["input_ids"]  # type: ignore[no-any-return]


@contextmanager
def _cutting_on_the_right(tokenizer: Any) -> Iterator[None]:
    side = tokenizer.truncation_side  # unlike the side of padding, no argument of a call
    tokenizer.truncation_side = "right"
    try:
        yield
    finally:
        tokenizer.truncation_side = side


@contextmanager
def _naming_surrogates(texts: Sequence[tuple[str, ...]]) -> Iterator[None]:
    """Let a text that no tokenizer takes, for half a surrogate pair in it, end in a BeftError that says which it is."""
    try:
        yield
    except (TypeError, UnicodeEncodeError) as error:
        for number, row in enumerate(texts, 1):
            half = next((c for text in row for c in text if "\ud800" <= c <= "\udfff"), None)
            if half is not None:
                raise BeftError(
                    f"text {number} ({row[0][:40]!r}) holds U+{ord(half):04X}, half of a surrogate pair and no "
                    "character: read it with the encoding that it was written in, or remove it"
                ) from error
        raise


def chunks(lengths: np.ndarray, cost: ChunkCost) -> list[np.ndarray]:
    """Cut rows of these lengths (n,) into index arrays, longest first, at the least cost of padding and calls.

    The cut minimises the sum over chunks of rows x longest + `cost.call`, where padding counts as `cost.padded`, by
    dynamic programming over the rows sorted by length, in steps of `cost.rows` rows. No chunk has more than
    `cost.tokens` tokens, counted so, unless it is a single step. Equal lengths keep their order, so the cut is
    deterministic.
    """
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].astype(np.int64)
    real = np.append(0, np.cumsum(sizes))
    cuts = np.append(np.arange(0, len(sizes), cost.rows), len(sizes))  # (n + 1,) places where a chunk may end
    best, before = np.zeros(len(cuts), dtype=np.int64), np.zeros(len(cuts), dtype=np.int64)
    for i in range(1, len(cuts)):
        j = np.arange(i)  # the last chunk is [cuts[j], cuts[i]); its longest row is the first
        tokens = (cuts[i] - cuts[j]) * sizes[cuts[j]]
        if cost.padded < 1:
            tokens = np.ceil(cost.padded * tokens + (1 - cost.padded) * (real[cuts[i]] - real[cuts[j]])).astype(
                np.int64
            )
        total = best[j] + tokens + cost.call
        total[:-1][tokens[:-1] > cost.tokens] = np.iinfo(np.int64).max
        before[i] = total.argmin()
        best[i] = total[before[i]]
    ends = [len(cuts) - 1]
    while ends[-1] > 0:
        ends.append(int(before[ends[-1]]))
    return [order[cuts[start] : cuts[end]] for end, start in zip(ends[-2::-1], ends[:0:-1], strict=True)]


def padded(rows: Sequence[Sequence[int]], value: int = 0, left: bool = False) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T) of token lists, filled with `value` on the right, or on the left."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), value, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        at = slice(longest - len(row), longest) if left else slice(len(row))
        ids[b, at], mask[b, at] = torch.tensor(row, dtype=torch.long), 1
    return ids, mask


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

    Raises BeftError for an option without a token of its own or with no token in front of it, two options of the same
    tokens, a prompt that cannot be cut enough, or a slow tokenizer.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise BeftError(
            f"{type(tokenizer).__name__} does not say which characters its tokens hold: use a model with a fast one"
        )
    prompt, options = before + example.prompt, example.options or ("",)
    encoded, starts = [], []
    for option in options:
        with _naming_surrogates([(prompt + option,)]):
            batch = tokenizer(prompt + option, return_offsets_mapping=True)
        ends = [end for _, end in batch["offset_mapping"]]  # of each token's characters; 0 for special tokens
        length = max((i for i, end in enumerate(ends, 1) if end), default=0)  # without trailing special tokens
        ids, ends = batch["input_ids"][:length], ends[:length]
        own = [i for i, end in enumerate(ends) if end > len(prompt)]
        if option and not own:
            raise BeftError(f"the option {option!r} has no token of its own: give it another text")
        encoded.append((ids, ends))
        starts.append(own[0] if own else length)
    _refuse_alike(options, [ids for ids, _ in encoded])
    excess = max(0, *(len(ids) - max_length for ids, _ in encoded))
    keep = len(before) + example.keep
    sequences = []
    for option, (ids, ends) in zip(options, encoded, strict=True):
        front = next((i for i, end in enumerate(ends) if end), 0)
        if any(end > keep for end in ends[front : front + excess]):
            raise BeftError(
                f"what must not be cut of a prompt is longer than {max_length} tokens "
                f"({(prompt + option)[keep : keep + 40]!r}...): give a larger max_length or leave the row out"
            )
        sequences.append(ids[:front] + ids[front + excess :])
    # An option's first token needs a token in front. There is none if the prompt is empty or part of that first token.
    if min(starts) - excess < 1:
        option = options[starts.index(min(starts))]
        raise BeftError(f"no token stands in front of the option {option!r}: give a longer prompt")
    return EncodedOptions(tuple(sequences), tuple(start - excess for start in starts))


def _refuse_alike(options: Sequence[str], ids: Sequence[list[int]]) -> None:
    """Raise BeftError for two options that a tokenizer makes the same tokens of, as of words that it does not know."""
    first: dict[tuple[int, ...], str] = {}
    for option, own in zip(options, ids, strict=True):
        other = first.setdefault(tuple(own), option)
        if other != option:
            raise BeftError(
                f"the options {other!r} and {option!r} are the same tokens to this model: give them other words"
            )


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Number of leading tokens that all sequences share."""
    first, last = min(sequences), max(sequences)  # in lexicographic order, those that differ earliest
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
