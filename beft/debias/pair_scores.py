"""CrowS-Pairs (Nangia et al. 2020): which of two sentences a masked language model finds likelier.

The score of a sentence is the sum of log P(token | the sentence with that token masked) over the tokens that both
sentences of a pair share, so that the words in which they differ are given and not scored. Every masked place is a row
of its own; rows of all sentences are sorted by length and computed together, and the head, as what is behind the last
attention, is applied at the masked place alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy.architectures import FAMILIES
from ..bank.bank import BiasBank
from ..bank.prompt_tuning import MODULE as PROMPT
from ..data.batching import CHUNKS, ChunkCost, chunks
from ..errors import BeftError


@dataclass(frozen=True)
class Places:
    """One sentence: its ids, and the places that are scored."""

    ids: list[int]
    scored: list[int]


def shared_places(
    first: Sequence[int], second: Sequence[int], special: set[int]
) -> tuple[list[int], list[int]]:
    """Places of the tokens that two sentences share, in their order (difflib), without special tokens."""
    one, other = [], []
    for tag, a, b, c, _ in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            kept = [n for n in range(b - a) if first[a + n] not in special]
            one += [a + n for n in kept]
            other += [c + n for n in kept]
    return one, other


def pair_places(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[Places, Places]]:
    """Both sentences of every pair as `score_places` takes them.

    Raises:
        BeftError: a tokenizer without a mask token, or an empty sentence, by its number.
    """
    mask_of(tokenizer)
    special, found = set(tokenizer.all_special_ids), []
    for n, pair in enumerate(pairs, 1):
        if not all(text.strip() for text in pair):
            raise BeftError(f"pair {n} has an empty sentence: correct it or leave it out")
        ids = [tokenizer(text, truncation=True)["input_ids"] for text in pair]
        places = shared_places(ids[0], ids[1], special)
        found.append((Places(ids[0], places[0]), Places(ids[1], places[1])))
    return found


def pair_scores(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """Pseudo-log-likelihoods (N, 2) of both sentences of every pair, in nats, over the tokens they share.

    Args:
        model: a masked language model in eval mode, or a bank on one.
        run: of a bank, which run scores.
        cost: of a chunk.

    Raises:
        BeftError: as `pair_places`.
    """
    sentences = [sentence for pair in pair_places(tokenizer, pairs) for sentence in pair]
    owner = np.repeat(np.arange(len(sentences)), [len(s.scored) for s in sentences])
    rows = [(s.ids, i) for s in sentences for i in s.scored]
    values = place_scores(model, tokenizer, rows, run, cost)
    return np.bincount(owner, values, minlength=len(sentences)).reshape(-1, 2)


@torch.inference_mode()
def place_scores(
    model: Any,
    tokenizer: Any,
    rows: Sequence[tuple[Sequence[int], int]],
    run: int = 0,
    cost: ChunkCost | None = None,
) -> np.ndarray:
    """log P(token at a place | the row with that place masked) of every row (n,), in nats.

    Args:
        model: a masked language model in eval mode, or a bank on one.
        rows: ids with the special tokens, and the place of the one that is masked and scored.
        run: of a bank, which run scores.
        cost: of a chunk.

    Raises:
        BeftError: a tokenizer without a mask token.
    """
    mask_id = mask_of(tokenizer)
    bank = model if isinstance(model, BiasBank) else None
    plain = model if bank is None else bank.model
    device = next(plain.parameters()).device
    lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)
    found = np.zeros(len(rows))
    for part in chunks(lengths, cost or CHUNKS[device.type]) if len(rows) else ():
        ids, mask = _padded([rows[i][0] for i in part], tokenizer.pad_token_id or 0)
        every, at = torch.arange(len(part)), torch.tensor([rows[i][1] for i in part])
        right = ids[every, at].to(device)
        ids[every, at] = mask_id
        runs = torch.full((len(part),), run, device=device)
        with bank.running(runs) if bank is not None else nullcontext():
            chances = _at(plain, ids.to(device), mask.to(device), at.to(device)).float().log_softmax(-1)
        found[part] = chances.gather(1, right[:, None])[:, 0].double().cpu().numpy()
    return found


def mask_of(tokenizer: Any) -> int:
    """The id of the mask token. Raises BeftError where there is none."""
    if tokenizer.mask_token_id is None:
        raise BeftError(f"{type(tokenizer).__name__} has no mask token: give a masked language model")
    return int(tokenizer.mask_token_id)


def _padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for n, row in enumerate(rows):
        ids[n, : len(row)], mask[n, : len(row)] = torch.tensor(row), 1
    return ids, mask


def _at(model: Any, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
    """Logits (B, V) of the places `at` (B,): the head costs as much as the encoder where the vocabulary is large."""
    rows = torch.arange(len(ids), device=ids.device)
    head = getattr(model, "cls", None) or getattr(model, "lm_head", None)  # BERT's; RoBERTa's
    if head is None:
        return model(input_ids=ids, attention_mask=mask).logits[rows, at]  # type: ignore[no-any-return]
    encoder = model.base_model
    family = FAMILIES.get(encoder.config.model_type)
    if family is None or family.mixed is None or hasattr(model, PROMPT):  # a prompt moves the places
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[rows, at][:, None]
    else:  # what is behind the last attention mixes no tokens: compute it for these places alone
        mixer = encoder.get_submodule(family.stack)[-1].get_submodule(family.mixed)
        hook = mixer.register_forward_pre_hook(lambda _, args: tuple(x[rows, at][:, None] for x in args))
        try:
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        finally:
            hook.remove()
    return head(hidden)[:, 0]  # type: ignore[no-any-return]
