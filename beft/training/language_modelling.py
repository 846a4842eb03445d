"""Texts as what a bank on a language model learns: masked tokens of an encoder, next tokens of a decoder."""

from abc import abstractmethod
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
from ..models.tokens import check_texts
from ..study import Study
from .objective import Objective, Scores, no_scores

SHARE = 0.15  # of a text's tokens that are masked


class LanguageModelling(Objective):
    """Texts of which tokens are predicted; its score is the share of held-out tokens predicted right.

    Attributes:
        nats: loss of each run per held-out token, as last scored; None for a run without a finite one.
    """

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.draws = list(draws)
        self.train, self.held_out = (
            encode(loaded.tokenizer, split.rows, study.max_length) for split in (data.train, data.validation)
        )
        check_texts(loaded, self.train, (self.held_out,), f"the training texts of {data.task.name}")
        self.lengths, self.padding, self.validation = self.train.lengths, self.train.padding, len(data.validation)
        self.nats: list[float | None] = []

    @abstractmethod
    def held_out_tokens(self, bank: BiasBank, run_ids: Tensor, index: np.ndarray) -> tuple[Tensor, Tensor]:
        """Log-probabilities (n, V) of the predicted tokens of held-out texts `index` (B,), and the true ones (n,)."""

    @torch.inference_mode()
    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The share of the held-out texts' tokens that each run predicts, the same tokens for all."""
        scores = no_scores(bank.R)
        if not validate:
            return scores
        self.nats = [None] * bank.R
        for run in range(bank.R):
            hits, total, loss = 0, 0, 0.0
            for part in chunks(self.held_out.lengths, cost):
                run_ids = torch.full((len(part),), run, device=bank.device)
                log_probs, right = self.held_out_tokens(bank, run_ids, part)
                if not torch.isfinite(log_probs).all():
                    break
                hits, total = hits + int((log_probs.argmax(-1) == right).sum()), total + len(right)
                loss -= float(log_probs.gather(1, right[:, None]).double().sum())
            else:
                scores["validation"][run], self.nats[run] = hits / total, loss / total
        return scores


@dataclass(frozen=True)
class Rule:
    """BERT's rule for what is masked (Devlin et al. 2019): of 15% of a text's tokens, 80% become [MASK], 10% another.

    Attributes:
        mask: id of the mask token.
        special: ids that stay.
        vocabulary: ids to draw from.
    """

    mask: int
    special: tuple[int, ...]
    vocabulary: int

    def apply(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(ids with some replaced (T,), masked positions (n,), at least one) of ids (T,)."""
        free = np.flatnonzero(~np.isin(ids, self.special))
        if not len(free):  # nothing but special tokens: the last of them is predicted
            free = np.array([len(ids) - 1])
        positions = np.sort(rng.permutation(free)[: max(1, round(SHARE * len(free)))])
        kind, other = rng.random(len(positions)), rng.integers(self.vocabulary, size=len(positions))
        masked = ids.copy()
        masked[positions] = np.where(kind < 0.8, self.mask, np.where(kind < 0.9, other, ids[positions]))
        return masked, positions


def rule_of(tokenizer: Any) -> Rule:
    """The rule for a tokenizer. Raises BeftError for one without a mask token."""
    return Rule(mask_token(tokenizer), tuple(sorted(tokenizer.all_special_ids)), len(tokenizer))


def mask_token(tokenizer: Any) -> int:
    """The id of the mask token. Raises BeftError where there is none."""
    if tokenizer.mask_token_id is None:
        raise BeftError(f"{type(tokenizer).__name__} has no mask token: give a masked language model")
    return int(tokenizer.mask_token_id)


class MaskedTokens(LanguageModelling):
    """Masked tokens, predicted from both sides."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        self.rule = rule_of(loaded.tokenizer)
        super().__init__(loaded, data, study, draws)
        self.ids, self.held_out_ids = (split.columns["input_ids"].numpy() for split in (self.train, self.held_out))
        self.masked_held_out = [
            self.rule.apply(row[:length], np.random.default_rng(n))
            for n, (row, length) in enumerate(zip(self.held_out_ids, self.held_out.lengths, strict=True))
        ]

    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The mean cross-entropy of each text's masked tokens (B,), in nats; what is masked follows from the keys."""
        seeds = np.zeros(len(index), np.int64) if keys is None else keys.cpu().numpy()
        masked = [
            self.rule.apply(self.ids[i, : self.lengths[i]], np.random.default_rng(int(seed) & 0xFFFFFFFF))
            for i, seed in zip(index, seeds, strict=True)
        ]
        inputs = self.train.rows(index, bank.device)
        log_probs, owner, right = _at_masked(bank, run_ids, keys, inputs, masked, self.ids[index])
        losses = -log_probs.gather(1, right[:, None])[:, 0]
        counts = torch.bincount(owner, minlength=len(index))
        return torch.zeros(len(index), device=losses.device).index_add(0, owner, losses) / counts

    def held_out_tokens(self, bank: BiasBank, run_ids: Tensor, index: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, masked = self.held_out.rows(index, bank.device), [self.masked_held_out[i] for i in index]
        log_probs, _, right = _at_masked(bank, run_ids, None, inputs, masked, self.held_out_ids[index])
        return log_probs, right


def _at_masked(
    bank: BiasBank,
    run_ids: Tensor,
    keys: Tensor | None,
    inputs: dict[str, Tensor],
    masked: Sequence[tuple[np.ndarray, np.ndarray]],
    ids: np.ndarray,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (n, V) at all masked positions of a chunk, the row of each (n,), and the true tokens (n,)."""
    given = inputs["input_ids"].clone()
    for b, (changed, _) in enumerate(masked):
        given[b, : len(changed)] = torch.from_numpy(changed)
    owner = np.repeat(np.arange(len(masked)), [len(p) for _, p in masked])
    positions = np.concatenate([p for _, p in masked])
    at, where = torch.from_numpy(owner).to(bank.device), torch.from_numpy(positions).to(bank.device)
    with logits_at(bank.model, at, where):
        logits = bank(run_ids, keys, **(inputs | {"input_ids": given}))
    return logits.log_softmax(-1), at, torch.from_numpy(ids[owner, positions]).to(bank.device)


@contextmanager
def logits_at(model: Any, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """While it lasts, the model's logits are those of `positions` (n,) of its `rows` (n,): (n, V), not (B, T, V).

    A head over a vocabulary costs as much as the encoder, and most of a text is not masked.
    """
    head = vocabulary_head(model)
    if head is None:
        hook = model.register_forward_hook(lambda _, __, out: replace(out, logits=out.logits[rows, positions]))
    else:
        hook = head.register_forward_pre_hook(lambda _, args: (args[0][rows, positions], *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def vocabulary_head(model: Any) -> Any:
    """The module that takes hidden states to the vocabulary, where it is known to be token by token; else None."""
    return getattr(model, "cls", None) or getattr(model, "lm_head", None)  # BERT's; RoBERTa's


class NextTokens(LanguageModelling):
    """Every token behind the first, predicted from those before it."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        super().__init__(loaded, data, study, draws)
        for split in (self.train, self.held_out):
            if len(split.lengths) and split.lengths.min() < 2:
                raise BeftError(
                    f"text {int(split.lengths.argmin()) + 1} of {data.task.name} has one token: leave it out"
                )

    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The mean cross-entropy of each text's tokens behind the first (B,), in nats."""
        inputs = self.train.rows(index, bank.device)
        log_probs, right, real = next_tokens(bank(run_ids, keys, **text_inputs(inputs)), inputs)
        own = log_probs.gather(-1, right[..., None])[..., 0]
        return -(own * real).sum(1) / real.sum(1)

    def held_out_tokens(self, bank: BiasBank, run_ids: Tensor, index: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs = self.held_out.rows(index, bank.device)
        log_probs, right, real = next_tokens(bank(run_ids, None, **text_inputs(inputs)), inputs)
        return log_probs[real], right[real]


def text_inputs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that every decoder takes."""
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def next_tokens(logits: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (B, T - 1, V) behind each token, the tokens there (B, T - 1), and which of them are text."""
    real = inputs["attention_mask"][:, 1:].bool()
    return logits[:, :-1].log_softmax(-1), inputs["input_ids"][:, 1:], real
