"""Masked-language modelling: BERT's rule for what is masked, and texts as what a bank of patches learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import ChunkCost, chunks, encode
from ..data.datasets import Dataset, Draw
from ..errors import BeftError
from ..models.loading import Loaded
from ..study import Study
from .evaluation import Scores

LIMIT = 1e3  # nats per token: a mean training loss above it is divergence
SHARE = 0.15


@dataclass(frozen=True)
class Rule:
    """What BERT does to a text (Devlin et al. 2019): of 15% of its tokens, 80% become [MASK], 10% another token.

    Attributes:
        mask: id of the mask token.
        special: ids that stay.
        vocabulary: ids to draw from.
    """

    mask: int
    special: tuple[int, ...]
    vocabulary: int

    def apply(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(ids with some replaced (T,), places that must be told (n,), at least one) of ids (T,)."""
        free = np.flatnonzero(~np.isin(ids, self.special))
        if not len(free):  # nothing but special tokens: the last of them is told
            free = np.array([len(ids) - 1])
        places = np.sort(rng.permutation(free)[: max(1, round(SHARE * len(free)))])
        kind, other = rng.random(len(places)), rng.integers(self.vocabulary, size=len(places))
        shown = ids.copy()
        shown[places] = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, other, ids[places]))
        return shown, places


def rule_of(tokenizer: Any) -> Rule:
    """The rule for a tokenizer. Raises BeftError for one without a mask token."""
    if tokenizer.mask_token_id is None:
        raise BeftError(f"{type(tokenizer).__name__} has no mask token: give a masked language model")
    return Rule(tokenizer.mask_token_id, tuple(sorted(tokenizer.all_special_ids)), len(tokenizer))


@contextmanager
def told_at(model: Any, rows: Tensor, places: Tensor) -> Iterator[None]:
    """While it lasts, the model's logits are those of `places` (n,) of its `rows` (n,): (n, V) rather than (B, T, V).

    A head over a vocabulary costs as much as the encoder, and most of a text is not masked.
    """
    head = getattr(model, "cls", None) or getattr(model, "lm_head", None)  # BERT's; RoBERTa's
    if head is None:
        hook = model.register_forward_hook(lambda _, __, out: replace(out, logits=out.logits[rows, places]))
    else:
        hook = head.register_forward_pre_hook(lambda _, args: (args[0][rows, places], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


class Masked:
    """Texts with masked tokens. A `classification.Problem`; its score is the share of masked tokens told right."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.rule, self.draws = rule_of(loaded.tokenizer), list(draws)
        self.train, self.held_out = (
            encode(loaded.tokenizer, split.rows, study.max_length) for split in (data.train, data.validation)
        )
        self.lengths, self.validation, self.limit = self.train.lengths, len(data.validation), LIMIT
        self.nats: list[float | None] = []  # loss of each run per held-out token, as last scored
        self.ids = self.train.columns["input_ids"].numpy()
        held = self.held_out.columns["input_ids"].numpy()
        self.asked = [
            self.rule.apply(row[:length], np.random.default_rng(n))
            for n, (row, length) in enumerate(zip(held, self.held_out.lengths, strict=True))
        ]

    def loss(self, bank: BiasBank, rows: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The mean cross-entropy of each text's masked tokens (B,), in nats; what is masked follows from the keys."""
        seeds = np.zeros(len(index), np.int64) if keys is None else keys.cpu().numpy()
        made = [
            self.rule.apply(self.ids[i, : self.lengths[i]], np.random.default_rng(int(seed) & 0xFFFFFFFF))
            for i, seed in zip(index, seeds, strict=True)
        ]
        inputs = self.train.rows(index, bank.device)
        chances, owner, right = _told(bank, rows, keys, inputs, made, self.ids[index])
        losses = -chances.gather(1, right[:, None])[:, 0]
        counts = torch.bincount(owner, minlength=len(index))
        return torch.zeros(len(index), device=losses.device).index_add(0, owner, losses) / counts

    @torch.inference_mode()
    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The share of the held-out texts' masked tokens that each run tells, the same ones for all."""
        found: Scores = {"tuning": [None] * bank.R, "validation": [None] * bank.R}
        if not validate:
            return found
        ids = self.held_out.columns["input_ids"].numpy()
        self.nats = [None] * bank.R
        for run in range(bank.R):
            hits, total, loss = 0, 0, 0.0
            for part in chunks(self.held_out.lengths, cost):
                rows = torch.full((len(part),), run, device=bank.device)
                inputs, made = self.held_out.rows(part, bank.device), [self.asked[i] for i in part]
                chances, _, right = _told(bank, rows, None, inputs, made, ids[part])
                if not torch.isfinite(chances).all():
                    break
                hits, total = hits + int((chances.argmax(-1) == right).sum()), total + len(right)
                loss -= float(chances.gather(1, right[:, None]).double().sum())
            else:
                found["validation"][run], self.nats[run] = hits / total, loss / total
        return found

    def efficiency(self) -> float:
        """Real over computed tokens of training so far."""
        return self.train.padding.efficiency


def _told(
    bank: BiasBank,
    rows: Tensor,
    keys: Tensor | None,
    inputs: dict[str, Tensor],
    made: Sequence[tuple[np.ndarray, np.ndarray]],
    ids: np.ndarray,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (n, V) at all masked places of a chunk, whose row each is (n,), and the true tokens (n,)."""
    shown = inputs["input_ids"].clone()
    for b, (changed, _) in enumerate(made):
        shown[b, : len(changed)] = torch.from_numpy(changed)
    owner = np.repeat(np.arange(len(made)), [len(p) for _, p in made])
    places = np.concatenate([p for _, p in made])
    at, where = torch.from_numpy(owner).to(bank.device), torch.from_numpy(places).to(bank.device)
    with told_at(bank.model, at, where):
        logits = bank(rows, keys, **(inputs | {"input_ids": shown}))
    return logits.log_softmax(-1), at, torch.from_numpy(ids[owner, places]).to(bank.device)
