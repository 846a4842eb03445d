"""CrowS-Pairs (Nangia et al. 2020): which of two sentences a language model finds likelier.

The score of a sentence is the sum of log P(token | the sentence with that token masked) over the tokens that both
sentences of a pair share, so that the words in which they differ are given and not scored. Every masked place is a row
of its own; rows of all sentences are sorted by length and computed together, and the head, as what is behind the last
attention, is applied at the masked place alone. A decoder has no mask: there it is log P(token | those before it).

Usual for decoders is another score, the log-likelihood of the whole sentence (`sentence_scores`): words in which the
two differ are scored as well, and how frequent they are is part of it.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy.architectures import FAMILIES
from ..bank.bank import as_bank
from ..bank.virtual_tokens import has_prompt
from ..data.batching import CHUNKS, ChunkCost, chunks, encode, padded, token_ids
from ..errors import BeftError
from ..training.language_modelling import mask_token, next_tokens, text_inputs, vocabulary_head

# One sentence: its ids, and the places that are scored.
Places = tuple[list[int], list[int]]


def shared_places(first: Sequence[int], second: Sequence[int], special: set[int]) -> tuple[list[int], list[int]]:
    """Places of the tokens that two sentences share, in their order (difflib), without special tokens."""
    one, other = [], []
    for tag, a, b, c, _ in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if tag == "equal":
            kept = [n for n in range(b - a) if first[a + n] not in special]
            one += [a + n for n in kept]
            other += [c + n for n in kept]
    return one, other


def pair_places(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[tuple[Places, Places]]:
    """Both sentences of every pair as `place_scores` takes them.

    Raises BeftError: a tokenizer without a mask token, or an empty sentence, by its number.
    """
    mask_token(tokenizer)
    special, both = set(tokenizer.all_special_ids), []
    for n, pair in enumerate(pairs, 1):
        if not all(text.strip() for text in pair):
            raise BeftError(f"pair {n} has an empty sentence: correct it or leave it out")
        ids = [token_ids(tokenizer, text) for text in pair]
        places = shared_places(ids[0], ids[1], special)
        both.append(((ids[0], places[0]), (ids[1], places[1])))
    return both


def pair_scores(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """Pseudo-log-likelihoods (N, 2) of both sentences of every pair, in nats, over the tokens they share.

    Args:
        model: a masked language model in eval mode, or a bank on one.
        run: of a bank, which run scores.
        cost: of a chunk.

    Raises BeftError: as `pair_places`.
    """
    sentences = [sentence for pair in pair_places(tokenizer, pairs) for sentence in pair]
    owner = np.repeat(np.arange(len(sentences)), [len(scored) for _, scored in sentences])
    rows = [(ids, i) for ids, scored in sentences for i in scored]
    values = place_scores(model, tokenizer, rows, run, cost)
    return np.bincount(owner, values, minlength=len(sentences)).reshape(-1, 2)


@torch.inference_mode()
def place_scores(
    model: Any, tokenizer: Any, rows: Sequence[tuple[Sequence[int], int]], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """log P(token at a place | the row with that place masked) of every row (n,), in nats.

    Args:
        model: a masked language model in eval mode, or a bank on one.
        rows: ids with the special tokens, and the place of the one that is masked and scored.
        run: of a bank, which run scores.
        cost: of a chunk.

    Raises BeftError: a tokenizer without a mask token.
    """
    mask_id, bank = mask_token(tokenizer), as_bank(model)
    lengths = np.array([len(ids) for ids, _ in rows], dtype=np.int64)
    scores = np.zeros(len(rows))
    for part in chunks(lengths, cost or CHUNKS[bank.device.type]) if len(rows) else ():
        ids, mask = padded([rows[i][0] for i in part], tokenizer.pad_token_id or 0)
        every, at = torch.arange(len(part)), torch.tensor([rows[i][1] for i in part])
        right = ids[every, at].to(bank.device)
        ids[every, at] = mask_id
        with bank.running(torch.full((len(part),), run, device=bank.device)) as running:
            logits = _at(running, ids.to(bank.device), mask.to(bank.device), at.to(bank.device))
            log_probs = logits.float().log_softmax(-1)
        scores[part] = log_probs.gather(1, right[:, None])[:, 0].double().cpu().numpy()
    return scores


def _at(model: Any, ids: Tensor, mask: Tensor, at: Tensor) -> Tensor:
    """Logits (B, V) of the places `at` (B,): the head costs as much as the encoder where the vocabulary is large."""
    rows = torch.arange(len(ids), device=ids.device)
    head = vocabulary_head(model)
    if head is None:
        return model(input_ids=ids, attention_mask=mask).logits[rows, at]  # type: ignore[no-any-return]
    encoder = model.base_model
    family = FAMILIES.get(encoder.config.model_type)
    if family is None or family.mixed is None or has_prompt(model):
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state[rows, at][:, None]
    else:  # what is behind the last attention mixes no tokens: compute it for these places alone
        mixer = encoder.get_submodule(family.stack)[-1].get_submodule(family.mixed)
        hook = mixer.register_forward_pre_hook(lambda _, args: tuple(x[rows, at][:, None] for x in args))
        try:
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        finally:
            hook.remove()
    return head(hidden)[:, 0]  # type: ignore[no-any-return]


@torch.inference_mode()
def causal_pair_scores(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """Log-likelihoods (N, 2) of both sentences of every pair, in nats, over the tokens that they share.

    The first token of a text is given and not scored, unless a token that begins texts stands before it.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        run: of a bank, which run scores.
        cost: of a chunk.
    """
    bank = as_bank(model)
    encoded = encode(tokenizer, [(text,) for pair in pairs for text in pair], 10**6)
    ids = encoded.columns["input_ids"].tolist()
    special = set(tokenizer.all_special_ids)
    texts = [row[:length] for row, length in zip(ids, encoded.lengths, strict=True)]
    shared: list[list[int]] = []
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        # nothing stands before a first token: where one side of a place is that, neither is scored
        both = [(a, b) for a, b in zip(*shared_places(first, second, special), strict=True) if a and b]
        shared += [[a for a, _ in both], [b for _, b in both]]
    scores = np.zeros(len(ids))
    for part in chunks(encoded.lengths, cost or CHUNKS[bank.device.type]):
        inputs = encoded.rows(part, bank.device)
        with bank.running(torch.full((len(part),), run, device=bank.device)) as running:
            logits = running(**text_inputs(inputs), use_cache=False).logits.float()
        log_probs, right, _ = next_tokens(logits, inputs)
        own = log_probs.gather(-1, right[..., None])[..., 0].double().cpu().numpy()
        for row, n in enumerate(part):
            scores[n] = own[row, [i - 1 for i in shared[n]]].sum()
    return scores.reshape(-1, 2)


@torch.inference_mode()
def sentence_scores(
    model: Any, tokenizer: Any, texts: Sequence[str], run: int = 0, cost: ChunkCost | None = None
) -> np.ndarray:
    """Log-likelihood of whole texts in nats, and how many tokens it is of: (N, 2).

    In front of each text stands the token that begins texts, or else the one that ends them, so that the first token
    is scored too; where the tokenizer has neither, the first token is given. Special tokens are not scored.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        run: of a bank, which run scores.
        cost: of a chunk.

    Raises BeftError: a text without a letter, by its number.
    """
    bank, special = as_bank(model), set(tokenizer.all_special_ids)
    start = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    rows: list[list[int]] = []
    for n, text in enumerate(texts, 1):
        if not text.strip():
            raise BeftError(f"sentence {n} is empty: correct it or leave it out")
        ids = token_ids(tokenizer, text)
        while len(ids) > 1 and ids[-1] in special:
            ids = ids[:-1]
        rows.append(ids if start is None or ids[0] == start else [start, *ids])
    scores = np.zeros((len(rows), 2))
    lengths = np.array([len(ids) for ids in rows], dtype=np.int64)
    for part in chunks(lengths, cost or CHUNKS[bank.device.type]) if rows else ():
        given, mask = (x.to(bank.device) for x in padded([rows[i] for i in part], tokenizer.pad_token_id or 0))
        inputs = {"input_ids": given, "attention_mask": mask}
        with bank.running(torch.full((len(part),), run, device=bank.device)) as running:
            logits = running(**inputs, use_cache=False).logits.float()
        log_probs, right, real = next_tokens(logits, inputs)
        own = log_probs.gather(-1, right[..., None])[..., 0].double()
        scores[part, 0], scores[part, 1] = ((x * real).sum(1).cpu().numpy() for x in (own, real.double()))
    return scores
