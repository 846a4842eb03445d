"""Tokenised texts, and chunks of (run, example) rows sorted by length, which need almost no padding."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BeftError


@dataclass(frozen=True)
class ChunkCost:
    """The size and the cost of a chunk.

    Attributes:
        tokens: largest number of padded tokens.
        call: fixed cost of a chunk, in tokens.
        rows: chunks are cut at multiples of this number of rows. Matrix products of few different shapes are prepared
            once and cached (oneDNN's primitives). With many shapes, preparing them takes a third of the time.
    """

    tokens: int
    call: int
    rows: int = 4


# On a CPU the activations of 1,024 tokens stay in the cache. A GPU needs more to be busy.
CHUNKS = {"cpu": ChunkCost(1024, 32), "cuda": ChunkCost(65536, 4096)}


@dataclass
class Padding:
    """Tokens of text, and tokens computed, padding included."""

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

    def rows(self, index: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """Model inputs (B, T) of the examples `index` (B,), no longer than the longest of them."""
        longest = int(self.lengths[index].max())
        self.padding.real += int(self.lengths[index].sum())
        self.padding.computed += longest * len(index)
        picked = torch.from_numpy(index)
        return {name: column[picked, :longest].to(device) for name, column in self.columns.items()}


def encode(tokenizer: Any, texts: Sequence[tuple[str, ...]], max_length: int) -> Encoded:
    """Tokenise single texts or pairs of texts, cut to `max_length` tokens.

    Raises BeftError if `max_length` leaves no token for text beside the special ones.
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
    batch = tokenizer(*columns, truncation=True, max_length=max_length, padding="longest", return_tensors="pt")
    lengths = batch["attention_mask"].sum(1).numpy()
    return Encoded(dict(batch), lengths)


def chunks(lengths: np.ndarray, cost: ChunkCost) -> list[np.ndarray]:
    """Cut rows of these lengths (n,) into index arrays, longest first, at the least cost of padding and calls.

    The cut minimises the sum over chunks of rows x longest + `cost.call`, by dynamic programming over the rows
    sorted by length, in steps of `cost.rows` rows. No chunk has more than `cost.tokens` padded tokens unless it is a
    single step. Equal lengths keep their order, so the cut is deterministic.
    """
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].astype(np.int64)
    cuts = np.append(np.arange(0, len(sizes), cost.rows), len(sizes))  # (n + 1,) places where a chunk may end
    best, before = np.zeros(len(cuts), dtype=np.int64), np.zeros(len(cuts), dtype=np.int64)
    for i in range(1, len(cuts)):
        j = np.arange(i)  # the last chunk is [cuts[j], cuts[i]); its longest row is the first
        tokens = (cuts[i] - cuts[j]) * sizes[cuts[j]]
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
