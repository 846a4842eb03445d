"""A language model behind prompts: how probable it finds each option, and what it writes.

Options are scored in three passes with a key/value cache, so that what prompts have in common is computed once: the
tokens that all examples start with (demonstrations, say) once per run, the rest of each prompt once per example, and of
each option what the others do not share.
"""

import copy
import inspect
import re
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from ..bank.bank import Runs, as_bank
from ..bank.caches import close_gaps, shortest_window, whole
from ..bank.virtual_tokens import prefix_tokens
from ..data.batching import CHUNKS, ChunkCost, EncodedOptions, chunks, common_prefix, encode_options, padded
from ..data.prompts import Example
from ..models.tokens import check_length

NEW_TOKENS = 50  # PROTOCOL, decoders


@dataclass(frozen=True)
class Scored:
    """Log-probabilities of an example's options (K,), summed over their tokens, in nats; `tokens` (K,) of each."""

    total: np.ndarray
    tokens: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Per token (K,), by which the paper compares options."""
        return self.total / self.tokens


@torch.inference_mode()
def option_scores(
    model: Any,
    examples: Sequence[EncodedOptions],
    runs: Sequence[int] | np.ndarray | None = None,
    cost: ChunkCost | None = None,
) -> list[Scored]:
    """The log-probability of every option of every example.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        examples: as `choices.encode_options` gives them, with options.
        runs: of a bank, which run scores each example (N,); the first by default.
        cost: of a chunk; `tokens` are those of the prompts, or of the options, computed at a time.
    """
    bank = as_bank(model)
    owner = np.zeros(len(examples), dtype=np.int64) if runs is None else np.asarray(runs)
    scores: list[Scored | None] = [None] * len(examples)
    if not examples:
        return []
    # where the options of an example part; each has a token of its own behind it
    forks = [min(common_prefix(e.sequences), min(map(len, e.sequences)) - 1) for e in examples]
    shared = min(
        common_prefix([e.sequences[0] for e in examples]),
        *(fork - 1 for fork in forks),
        *(min(e.starts) - 1 for e in examples),
    )
    scorer = _Scorer(bank, shared)
    scorer.prepare(examples[0].sequences[0][:shared], int(owner.max()) + 1)
    # Every row has a copy of the shared keys and values, which attention reads: four of them cost about as much as a
    # token, so rows behind long demonstrations go few at a time (measured: 2 to 3 rows behind 1,500 tokens on a CPU).
    lengths = np.array([fork - shared + shared // 4 for fork in forks])
    for part in chunks(lengths, cost or replace(CHUNKS[bank.device.type], rows=1)):
        picked = [examples[i] for i in part]
        for i, scored in zip(part, scorer.chunk(picked, [forks[i] for i in part], owner[part]), strict=True):
            scores[i] = scored
    return scores  # type: ignore[return-value]


def option_probabilities(model: Any, tokenizer: Any, examples: Sequence[Example], max_length: int) -> np.ndarray:
    """Probabilities (N, K) of the options of examples that all have K: the softmax of their means per token.

    Raises BeftError: as `encode_options`; `max_length` beyond the model's positions.
    """
    check_length(model, max_length)
    scored = option_scores(model.eval(), [encode_options(tokenizer, example, max_length) for example in examples])
    means = torch.from_numpy(np.stack([one.mean for one in scored]))
    return means.softmax(1).float().numpy()


class _Scorer:
    """The passes over one list of examples, whose first `shared` tokens are the same."""

    def __init__(self, bank: Runs, shared: int) -> None:
        self.bank, self.device, self.shared = bank, bank.device, shared
        accepted = inspect.signature(bank.model.forward).parameters
        self.positions = "position_ids" in accepted
        self.keep = "logits_to_keep" in accepted
        self.window, self.virtual = shortest_window(bank.model.config), prefix_tokens(bank.model)
        self.cache: Any = None

    def prepare(self, ids: list[int], runs: int) -> None:
        """The first pass: the tokens that all share, once per run."""
        if ids:
            rows = torch.tensor([ids] * runs, device=self.device)  # (R, C)
            mask = torch.ones_like(rows)
            self.cache = self._forward(rows, mask, None, np.arange(runs), torch.zeros(1, dtype=torch.long))[1]

    def chunk(self, examples: list[EncodedOptions], forks: list[int], owner: np.ndarray) -> Iterator[Scored]:
        """Scores of some examples."""
        heads = [e.sequences[0][self.shared : fork] for e, fork in zip(examples, forks, strict=True)]
        ids, real = (x.to(self.device) for x in padded(heads))  # on the right; what stands there is never looked at
        mask = torch.cat([real.new_ones(len(ids), self.shared), real], dim=1)
        starts = [min(e.starts) - 1 - self.shared for e in examples]
        wanted = torch.arange(max(min(starts), 0), ids.shape[1])  # from there on logits are read
        cache = copy.deepcopy(self.cache)  # of the first pass
        if cache is not None:
            cache.batch_select_indices(torch.from_numpy(owner).to(self.device))
        gaps = ids.shape[1] - real.sum(1)
        in_the_way = self._in_the_way(examples, forks, gaps)
        if in_the_way:
            cache = whole(cache) if cache is not None else DynamicCache()
        logits, cache = self._forward(ids, mask, cache, owner, wanted)
        if in_the_way:
            mask = close_gaps(cache, torch.cat([mask.new_ones(len(ids), self.virtual), mask], dim=1), gaps)
        log_probs = logits.log_softmax(-1)  # (B, |wanted|, V)
        totals = [np.zeros(len(e.sequences)) for e in examples]
        tails: list[tuple[int, int]] = []
        for b, (e, fork) in enumerate(zip(examples, forks, strict=True)):
            for k, sequence in enumerate(e.sequences):
                at = np.arange(e.starts[k], fork + 1)  # tokens whose logits are in this pass
                totals[b][k] = float(
                    log_probs[b, at - 1 - self.shared - int(wanted[0]), sequence[e.starts[k] : fork + 1]].sum()
                )
                if len(sequence) > fork + 1:
                    tails.append((b, k))
        if tails:
            self._tails(examples, forks, owner, mask, cache, tails, totals)
        for e, total in zip(examples, totals, strict=True):
            lengths = [len(s) - start for s, start in zip(e.sequences, e.starts, strict=True)]
            yield Scored(total, np.array(lengths))

    def _in_the_way(self, examples: list[EncodedOptions], forks: list[int], gaps: Tensor) -> bool:
        """Whether padding behind the prompts, `gaps` (B,), would take places in the window of an option's tokens."""
        if self.window is None:
            return False
        behind = max(len(s) - 1 - fork for e, fork in zip(examples, forks, strict=True) for s in e.sequences)
        places = self.virtual + max(forks) + behind
        return behind > 0 and places > self.window and bool(gaps.any())

    def _tails(
        self,
        examples: list[EncodedOptions],
        forks: list[int],
        owner: np.ndarray,
        mask: Tensor,
        cache: Any,
        tails: list[tuple[int, int]],
        totals: list[np.ndarray],
    ) -> None:
        """The third pass: of each option, the tokens behind the fork but the last."""
        rows = torch.tensor([b for b, _ in tails], device=self.device)
        ids, real = (x.to(self.device) for x in padded([examples[b].sequences[k][forks[b] : -1] for b, k in tails]))
        cache.batch_select_indices(rows)
        every = torch.cat([mask[rows], real], dim=1)
        logits, _ = self._forward(ids, every, cache, owner[[b for b, _ in tails]], torch.arange(ids.shape[1]))
        log_probs = logits.log_softmax(-1)
        for row, (b, k) in enumerate(tails):
            own = examples[b].sequences[k][forks[b] + 1 :]
            totals[b][k] += float(log_probs[row, np.arange(len(own)), own].sum())

    def _forward(self, ids: Tensor, mask: Tensor, cache: Any, owner: np.ndarray, wanted: Tensor) -> tuple[Tensor, Any]:
        """Logits (B, |wanted|, V) at these places of ids (B, T), and the cache with them in it."""
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
        inputs["past_key_values"] = cache if cache is not None else DynamicCache(config=self.bank.model.config)
        if self.positions:
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        if self.keep:
            inputs["logits_to_keep"] = wanted.to(self.device)
        with self.bank.running(torch.from_numpy(owner).to(self.device)) as model:
            output = model(**inputs)
        logits = output.logits if self.keep else output.logits[:, wanted.to(self.device)]
        return logits.float(), output.past_key_values


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    runs: Sequence[int] | np.ndarray | None = None,
    before: str = "",
    new_tokens: int = NEW_TOKENS,
    at_once: int = 16,
    stop: str | None = "\n",
) -> list[str]:
    """What the model writes behind each prompt, by default up to a line's end; greedy, with a key/value cache.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        max_length: tokens of prompt and answer together; see `choices.encode_options` for what is cut.
        runs: of a bank, which run writes each answer (N,); the first by default.
        before: text in front of every prompt, such as demonstrations.
        at_once: prompts in a batch; they are sorted by length and padded on the left.
        stop: where an answer ends, which is not part of it; None for the model's own end alone.

    Raises BeftError: a prompt of which nothing more may be cut.
    """
    bank = as_bank(model)
    ends = bank.model.generation_config
    owner = np.zeros(len(examples), dtype=np.int64) if runs is None else np.asarray(runs)
    longest = max_length - new_tokens
    bare = [Example(e.prompt, keep=e.keep) for e in examples]
    prompts = [encode_options(tokenizer, example, longest, before).sequences[0] for example in bare]
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        stop_strings=[stop] if stop else None,
        pad_token_id=0,
        eos_token_id=ends.eos_token_id,
        bos_token_id=ends.bos_token_id,
        # a model's own config may ask for a cache of fixed size, which has no room for a prefix
        cache_implementation="dynamic" if prefix_tokens(bank.model) else None,
    )
    texts = [""] * len(examples)
    for part in _batches(bank.model, prompts, new_tokens, at_once):
        ids, mask = (x.to(bank.device) for x in padded([prompts[i] for i in part], left=True))
        with bank.running(torch.from_numpy(owner[part]).to(bank.device)) as running:
            out = running.generate(input_ids=ids, attention_mask=mask, generation_config=config, tokenizer=tokenizer)
        for i, row in zip(part, out[:, ids.shape[1] :].tolist(), strict=True):
            text = tokenizer.decode(row, skip_special_tokens=True)
            texts[i] = (text.partition(stop)[0] if stop else text).strip()
    return texts


def _batches(model: Any, prompts: Sequence[list[int]], new_tokens: int, at_once: int) -> Iterator[np.ndarray]:
    """Prompts to be continued together, longest first, as index arrays.

    Padding stands in front of a prompt, where it is in no token's way, but behind a prefix: where a window would count
    it, prompts of one length go together.
    """
    lengths = np.array([len(ids) for ids in prompts], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    window, virtual = shortest_window(model.config), prefix_tokens(model)
    alike = bool(window and virtual and len(order) and virtual + lengths.max() + new_tokens > window)
    ends = np.flatnonzero(np.diff(lengths[order])) + 1 if alike else ()
    for group in np.split(order, ends):
        for start in range(0, len(group), at_once):
            yield group[start : start + at_once]


def token_f1(text: str, answers: Sequence[str]) -> float:
    """F1 of the words of a text against the answer it comes closest to, as SQuAD counts it: in [0, 1].

    Case, punctuation and articles do not count. Where either has no word, both must have none.
    """
    return max((_f1(_words(text), _words(answer)) for answer in answers), default=0.0)


def _f1(given: list[str], right: list[str]) -> float:
    if not given or not right:
        return float(given == right)
    common = sum((Counter(given) & Counter(right)).values())
    return 2 * common / (len(given) + len(right))


def _words(text: str) -> list[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()
