"""What a bank on a language model learns: the right option or answer behind a prompt, and how it is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..data.batching import ChunkCost, EncodedOptions, Padding, encode_options, padded
from ..data.datasets import Dataset, Draw
from ..data.prompts import Example, choice_score
from ..models.loading import Loaded
from ..models.tokens import check_ids, check_known
from ..study import Study
from .objective import Objective, Scores, no_scores
from .prompting import generate, option_scores, token_f1


@dataclass(frozen=True)
class Paths:
    """What is computed for one training example, and what is read from it.

    Attributes:
        ids: sequences that are computed, none of them the beginning of another.
        reads: of each option (sequence, places whose logits are read, their true tokens).
    """

    ids: list[list[int]]
    reads: list[tuple[int, np.ndarray, list[int]]]

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return len(self.ids) * max(map(len, self.ids))


def paths(encoded: EncodedOptions, wanted: Sequence[int]) -> Paths:
    """What must be computed to know the options `wanted`: prompts that options share are not computed twice.

    The last token of an option is only read, so options of one token need the prompt alone.
    """
    needed = [encoded.sequences[k][:-1] for k in wanted]
    kept: list[list[int]] = []
    for ids in sorted(needed, key=len, reverse=True):
        if not any(longer[: len(ids)] == ids for longer in kept):
            kept.append(ids)
    reads = []
    for k, ids in zip(wanted, needed, strict=True):
        start = encoded.starts[k]
        at = next(n for n, longer in enumerate(kept) if longer[: len(ids)] == ids)
        reads.append((at, np.arange(start - 1, len(ids)), encoded.sequences[k][start:]))
    return Paths(kept, reads)


def _flat_reads(picked: Sequence[Paths]) -> tuple[np.ndarray, ...]:
    """What is read of a chunk's logits: (rows (M,), places (M,), true tokens (M,), option (M,), example (K,)).

    Reads are numbered over the sequences, options over the examples, of the whole chunk.
    """
    rows, places, tokens, counts, example = [], [], [], [], []
    begins = np.cumsum([0, *(len(p.ids) for p in picked)])
    for b, p in enumerate(picked):
        for at, where, own in p.reads:
            rows += [begins[b] + at] * len(own)
            places.append(where)
            tokens += own
            counts.append(len(own))
            example.append(b)
    option = np.repeat(np.arange(len(counts)), counts)
    return np.array(rows), np.concatenate(places), np.array(tokens), option, np.array(example)


class Prompted(Objective):
    """Prompts with options or answers, and a frozen language model's own head."""

    def __init__(self, loaded: Loaded, data: Dataset, study: Study, draws: Sequence[Draw]) -> None:
        assert data.prompt is not None
        self.data, self.draws, self.tokenizer, self.prompt = data, list(draws), loaded.tokenizer, data.prompt
        self.longest = min(study.max_length, self.prompt.max_length)
        self.by_options = self.prompt.form == "options"
        self.validation, self.padding = len(data.validation), Padding()
        used = np.unique(np.concatenate([d.train for d in draws]))
        self.paths = {int(i): self._paths(data.train.rows[i]) for i in used}
        ids = torch.tensor([token for p in self.paths.values() for row in p.ids for token in row])
        check_ids(ids, loaded.model)
        check_known(loaded, ids, f"the training prompts of {data.task.name}")
        self.lengths = np.zeros(len(data.train), dtype=np.int64)
        self.lengths[used] = [self.paths[int(i)].tokens for i in used]
        self._encoded: dict[tuple[str, int], EncodedOptions] = {}

    def _paths(self, example: Example) -> Paths:
        if self.prompt.form == "answer":
            # with the line's end, by which a model stops
            right = Example(example.prompt, (f" {example.answers[0]}\n",), 0, keep=example.keep)
            return paths(encode_options(self.tokenizer, right, self.longest), [0])
        encoded = encode_options(self.tokenizer, example, self.longest)
        return paths(encoded, range(len(example.options)) if self.by_options else [example.label])

    def loss(self, bank: BiasBank, run_ids: Tensor, keys: Tensor | None, index: np.ndarray) -> Tensor:
        """The loss of each example (B,), in nats: over its options, or per token of the right one.

        The options' cross-entropy is that of their mean log-probabilities (PROTOCOL, decoders).
        """
        picked = [self.paths[int(i)] for i in index]
        sequences = [ids for p in picked for ids in p.ids]
        owner = torch.tensor([b for b, p in enumerate(picked) for _ in p.ids], device=bank.device)
        ids, mask = padded(sequences)
        self.padding.real += int(mask.sum())
        self.padding.computed += ids.numel()
        rows, places, tokens, option, example = (torch.from_numpy(x) for x in _flat_reads(picked))
        kept, columns = places.unique(return_inverse=True)  # logits are computed where some row reads them
        logits = bank(  # (N, |kept|, V)
            run_ids[owner],
            None if keys is None else keys[owner],
            input_ids=ids.to(bank.device),
            attention_mask=mask.to(bank.device),
            use_cache=False,
            logits_to_keep=kept.to(bank.device),
        )
        rows, columns, tokens, option = (x.to(bank.device) for x in (rows, columns, tokens, option))
        log_probs = logits[rows, columns].log_softmax(-1).gather(1, tokens[:, None])[:, 0]  # (M,)
        totals = log_probs.new_zeros(len(example)).index_add(0, option, log_probs)
        means = totals / torch.bincount(option, minlength=len(example))  # (K,) of every option of every example
        if not self.by_options:
            return -means
        width = np.bincount(example.numpy())  # options of each example
        slot = torch.arange(len(example)) - torch.from_numpy(np.repeat(np.cumsum(width) - width, width))
        table = means.new_full((len(picked), int(width.max())), -torch.inf)
        table = table.index_put((example.to(bank.device), slot.to(bank.device)), means)  # (B, most options)
        right = torch.tensor([self.data.train.rows[int(i)].label for i in index], device=bank.device)
        return -table.log_softmax(1).gather(1, right[:, None])[:, 0]

    def scores(self, bank: BiasBank, validate: bool, last: bool, cost: ChunkCost) -> Scores:
        """The metric of each run on its tuning rows and on the validation split; None where not taken."""
        scores = no_scores(bank.R)
        if len(self.draws[0].tuning):
            scores["tuning"] = self._score(bank, "train", [d.tuning for d in self.draws], cost)
        if validate:
            everything = np.arange(len(self.data.validation))
            scores["validation"] = self._score(bank, "validation", [everything] * bank.R, cost)
        return scores

    def _score(self, bank: BiasBank, split: str, wanted: list[np.ndarray], cost: ChunkCost) -> list[float | None]:
        index, run_ids = np.concatenate(wanted), np.repeat(np.arange(bank.R), [len(w) for w in wanted])
        examples = getattr(self.data, split).rows
        ends = np.cumsum([len(w) for w in wanted])[:-1]
        if self.prompt.form == "answer":
            texts = generate(bank, self.tokenizer, [examples[i] for i in index], self.longest, run_ids)
            hits = [token_f1(text, examples[i].answers) for text, i in zip(texts, index, strict=True)]
            return [float(part.mean()) for part in np.split(np.array(hits), ends)]
        encoded = [self._encode(split, int(i)) for i in index]
        means = [scored.mean for scored in option_scores(bank, encoded, run_ids, cost)]
        finite = np.array([bool(np.isfinite(m).all()) for m in means])
        best = np.array([int(np.argmax(m)) for m in means])
        by_run = zip(np.split(index, ends), np.split(best, ends), np.split(finite, ends), strict=True)
        return [
            choice_score(self.prompt.metric, [examples[i] for i in at], b) if ok.all() else None for at, b, ok in by_run
        ]

    def _encode(self, split: str, i: int) -> EncodedOptions:
        if (split, i) not in self._encoded:
            example = getattr(self.data, split).rows[i]
            self._encoded[split, i] = encode_options(self.tokenizer, example, self.longest)
        return self._encoded[split, i]
