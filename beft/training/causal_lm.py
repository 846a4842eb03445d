"""Texts under a decoder: what a bank of patches learns from there (causal language modelling), and how it scores pairs.

A causal model has no masked tokens. Phase one of debiasing trains on every next token, and the score of a sentence is
the sum of log P(token | those before it) over the tokens that both sentences of a pair share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import CHUNKS, ChunkCost, chunks, encode
from ..data.datasets import Dataset, Draw
from ..debias.pair_scores import shared_places
from ..errors import BeftError
from ..models.loading import Loaded
from ..study import Study
from .evaluation import Scores
from .masked_lm import LIMIT


class NextTokens:
    """Texts, each token told from those before it. A `classification.Problem`; its score is the share told right."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.draws = list(draws)
        self.train, self.held_out = (
            encode(loaded.tokenizer, split.rows, study.max_length) for split in (data.train, data.validation)
        )
        for split in (self.train, self.held_out):
            if len(split.lengths) and split.lengths.min() < 2:
                raise BeftError(
                    f"text {int(split.lengths.argmin()) + 1} of {data.task.name} has one token: leave it out"
                )
        self.lengths, self.validation, self.limit = self.train.lengths, len(data.validation), LIMIT
        self.nats: list[float | None] = []  # loss of each run per held-out token, as last scored

    def loss(self, bank: BiasBank, rows: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The mean cross-entropy of each text's tokens behind the first (B,), in nats."""
        inputs = self.train.rows(index, bank.device)
        told, real = _told(bank(rows, keys, **_used(inputs)), inputs)
        chances = told.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
        return -(chances * real).sum(1) / real.sum(1)

    @torch.inference_mode()
    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The share of the held-out texts' tokens that each run tells."""
        found: Scores = {"tuning": [None] * bank.R, "validation": [None] * bank.R}
        if not validate:
            return found
        self.nats = [None] * bank.R
        for run in range(bank.R):
            hits, total, loss = 0, 0, 0.0
            for part in chunks(self.held_out.lengths, cost):
                inputs = self.held_out.rows(part, bank.device)
                rows = torch.full((len(part),), run, device=bank.device)
                told, real = _told(bank(rows, None, **_used(inputs)), inputs)
                if not torch.isfinite(told).all():
                    break
                hits += int(((told.argmax(-1) == inputs["input_ids"][:, 1:]) & real).sum())
                total += int(real.sum())
                right = told.gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
                loss -= float((right * real).double().sum())
            else:
                found["validation"][run], self.nats[run] = hits / total, loss / total
        return found

    def efficiency(self) -> float:
        """Real over computed tokens of training so far."""
        return self.train.padding.efficiency


@torch.inference_mode()
def causal_pair_scores(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """Log-likelihoods (N, 2) of both sentences of every pair, in nats, over the tokens that they share.

    As `pseudo_likelihood.pair_scores`, with what stands before a token alone. The first token of a text without one
    that begins it is given and not scored.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        run: of a bank, which run scores.
        cost: of a chunk.
    """
    bank = model if isinstance(model, BiasBank) else None
    plain = model if bank is None else bank.model
    device = next(plain.parameters()).device
    encoded = encode(tokenizer, [(text,) for pair in pairs for text in pair], 10**6)
    ids = encoded.columns["input_ids"].tolist()
    special = set(tokenizer.all_special_ids)
    texts = [row[:length] for row, length in zip(ids, encoded.lengths, strict=True)]
    shared: list[list[int]] = []
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        # nothing stands before a first token: where one side of a place is that, neither is scored
        both = [(a, b) for a, b in zip(*shared_places(first, second, special), strict=True) if a and b]
        shared += [[a for a, _ in both], [b for _, b in both]]
    found = np.zeros(len(ids))
    for part in chunks(encoded.lengths, cost or CHUNKS[device.type]):
        inputs = encoded.rows(part, device)
        runs = torch.full((len(part),), run, device=device)
        with bank.running(runs) if bank is not None else nullcontext():
            logits = plain(**_used(inputs), use_cache=False).logits.float()
        told = (
            _told(logits, inputs)[0]
            .gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
            .double()
            .cpu()
            .numpy()
        )
        for row, n in enumerate(part):
            found[n] = told[row, [i - 1 for i in shared[n]]].sum()
    return found.reshape(-1, 2)


def _used(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def _told(logits: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, T - 1, V) of what is behind each token, and which of it is text (B, T - 1)."""
    return logits[:, :-1].log_softmax(-1), inputs["attention_mask"][:, 1:].bool()
