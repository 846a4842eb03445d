"""A frozen model on which many adapters are served at once, each row of a batch under its own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..anatomy.architectures import text_positions
from ..data.batching import CHUNKS, chunks, encode_each, encode_options
from ..data.prompts import Example
from ..data.texts import items_of, row_of, rows_of
from ..errors import BeftError, brief
from ..models.tokens import check_ids, check_length
from ..training import prompting
from ..training.prompting import NEW_TOKENS, Scored
from .shelf import Entry, Shelf

# Adapters whose prompts are scored together: each has a copy of the keys and values that all prompts share.
TOGETHER = 8
POSITIONS = 2048  # tokens of a prompt with its answer, where no config says how many a model takes
Which = str | None | Iterable[str | None]


class Served(Shelf):
    """Adapters by name on one frozen model, and what they answer; `beft.serve` makes it.

    The backbone is computed once for all rows of a batch, whatever their adapters. Texts are sorted by length and
    computed in chunks with little padding; answers come in the order of the texts. Threads, and what `None` is, are as
    in `Shelf`.
    """

    # texts with labels ---------------------------------------------------------------------------------------

    def predict(self, texts: Any, which: Which) -> Any:
        """The most probable label of each text or pair of texts, under its adapter; of a regression, its value.

        On a language model each adapter puts the texts into the prompt that it was tuned on, and the label is the one
        whose option has the highest mean log-probability per token.

        Args:
            texts: a text, or a list, tuple, array, Series, data set column or table of N, as of `Tuned.predict`; those
                of an adapter that was tuned on pairs are tuples of two, of a prompt with more columns of as many.
            which: the adapter of each text (N,), or one for all; `None` for the model as it is.

        Returns:
            One label for one text with one name of an adapter, else a list (N,), in the order of the texts.

        Raises BeftError: no texts, or one that cannot be used, with its position; another number of names than texts;
        an adapter that is not served; no tokenizer; of a language model, an adapter without a prompt, or `None`.
        """
        answers = []
        scored, entries, single = self._scored(texts, which)
        for row, entry in zip(scored, entries, strict=True):
            answers.append(entry.labels[int(row.argmax())] if entry.labels else float(row[0]))
        return answers[0] if single else answers

    def probabilities(self, texts: Any, which: Which) -> Any:
        """Probabilities (C,) of the classes of each text's adapter, in the order of `labels(name)`; values (1,).

        A list (N,) of arrays, or of one text with one name its array. Arguments and errors as of `predict`.
        """
        scored, entries, single = self._scored(texts, which)
        out = [(x.softmax(-1) if e.labels else x).numpy() for x, e in zip(scored, entries, strict=True)]
        return out[0] if single else out

    def by_label(self, texts: Any, which: Which) -> Any:
        """{label: probability} of each text, a list (N,), or a regression's value; of one text with one name its own.

        Labels and numbers are of one moment, whatever other threads add and remove. As `predict`.
        """
        answers: list[Any] = []
        scored, entries, single = self._scored(texts, which)
        for row, entry in zip(scored, entries, strict=True):
            named = dict(zip(entry.labels, row.softmax(-1).tolist(), strict=True)) if entry.labels else float(row[0])
            answers.append(named)
        return answers[0] if single else answers

    def logits(self, texts: Any, which: Which) -> Any:
        """Logits (C,) of each text, a list (N,) of arrays; of one text with one name its array. As `predict`."""
        scored, _, single = self._scored(texts, which)
        out = [row.numpy() for row in scored]
        return out[0] if single else out

    @torch.inference_mode()
    def _scored(self, texts: Any, which: Which) -> tuple[list[Tensor], list[Entry], bool]:
        """Logits (C,) in float32 of each text, its adapter, and whether one text was given."""
        with self._lock:
            self._check_open()
            rows, entries, single = self._rows(texts, which)
            tokenizer = self._tokenizer(len(rows))
            if self._writes:
                examples = [self._worded(row, entry) for row, entry in zip(rows, entries, strict=True)]
                scored = self._of_options(examples, [entry.max_length for entry in entries], entries)
                return [torch.from_numpy(one.mean).float() for one in scored], entries, single
            lengths = [entry.max_length for entry in entries]
            check_length(self.model, max(lengths))
            encoded = encode_each(tokenizer, rows, lengths)
            check_ids(encoded.columns["input_ids"], self.model)
            numbers = np.array([entry.number for entry in entries])
            out: list[Tensor] = [torch.empty(0)] * len(rows)
            for part in self._parts(encoded.lengths, entries):
                with self.running(numbers[part]):
                    logits = self.model(**encoded.rows(part, self.model.device)).logits.float().cpu()
                for at, row in zip(part.tolist(), logits, strict=True):
                    out[at] = row[: entries[at].outputs]
            return out, entries, single

    def _worded(self, row: Sequence[str], entry: Entry) -> Example:
        """A row in the prompt of its adapter. Raises BeftError for an adapter that has none."""
        if entry.wording is None:
            name = next((n for n, own in self._entries.items() if own is entry), None)
            raise BeftError(
                f"{type(self.model).__name__} writes and has no classes, and {brief(name)} comes with no prompt of its "
                "own: use choose() with the answers as options, or generate()"
            )
        return entry.wording.example(row)

    def _rows(self, texts: Any, which: Which) -> tuple[list[tuple[str, ...]], list[Entry], bool]:
        if which is None or isinstance(which, str):
            entry = self._entry(which, "")
            rows, single = rows_of(texts, entry.columns or None, named=entry.wording is not None)
            return rows, [entry] * len(rows), single
        items = [texts] if isinstance(texts, str) else items_of(texts)
        entries = self._named(which, len(items), "texts")
        sizes = [len(entry.columns) or None for entry in entries]
        count = len(items)
        each = enumerate(zip(items, sizes, entries, strict=True), 1)
        rows = [row_of(item, n, f"text {i} of {count}", own.wording is not None) for i, (item, n, own) in each]
        return rows, entries, False

    def _parts(self, lengths: np.ndarray, entries: Sequence[Entry]) -> Iterator[np.ndarray]:
        """Rows to be computed together, as index arrays: of like length, and of one adapter where they must be."""
        groups: dict[int, list[int]] = {}
        for i, entry in enumerate(entries):
            groups.setdefault(entry.number if entry.alone else 0, []).append(i)
        for rows in groups.values():
            index = np.array(rows)
            for part in chunks(lengths[index], CHUNKS["cpu" if self.model.device.type == "cpu" else "cuda"]):
                yield index[part]

    # prompts -------------------------------------------------------------------------------------------------

    def choose(self, prompts: Any, options: Sequence[Any], which: Which, *, max_length: int | None = None) -> Any:
        """The option that the model finds most probable behind each prompt, per token, under the prompt's adapter.

        Args:
            prompts: a text, or a collection of N.
            options: possible continuations, with the space that stands in front of them, the same for all prompts; or
                N lists of them.
            which: the adapter of each prompt (N,), or one for all; `None` for the model as it is.
            max_length: tokens of a prompt with its option; what is longer is cut on its left. By default as many as the
                model takes.

        Returns:
            One option for one prompt with one name of an adapter, else a list (N,).

        Raises BeftError: as `predict`; options that are none; a model that does not write.
        """
        scored = self.option_scores(prompts, options, which, max_length=max_length)
        if isinstance(scored, Scored):
            return _options_of_each(options, 1)[0][int(scored.mean.argmax())]
        own = _options_of_each(options, len(scored))
        return [each[int(s.mean.argmax())] for each, s in zip(own, scored, strict=True)]

    @torch.inference_mode()
    def option_scores(
        self, prompts: Any, options: Sequence[Any], which: Which, *, max_length: int | None = None
    ) -> Any:
        """Log-probabilities of the options behind each prompt, a list (N,) of `Scored`. As `choose`."""
        with self._lock:
            texts, entries, single = self._prompts(prompts, which)
            longest = max_length or self._positions()
            own = _options_of_each(options, len(texts))
            examples = [Example(text, each) for text, each in zip(texts, own, strict=True)]
            out = self._of_options(examples, [longest] * len(texts), entries)
            return out[0] if single else out

    def _of_options(
        self, examples: Sequence[Example], lengths: Sequence[int], entries: Sequence[Entry]
    ) -> list[Scored]:
        """The options of each example, of at most so many tokens with its prompt, under its adapter."""
        tokenizer = self._tokenizer()
        check_length(self.model, max(lengths))
        encoded = [encode_options(tokenizer, e, length) for e, length in zip(examples, lengths, strict=True)]
        check_ids(torch.tensor([t for e in encoded for ids in e.sequences for t in ids]), self.model)
        numbers = np.array([entry.number for entry in entries])
        adapters = np.unique(numbers)
        out: dict[int, Scored] = {}
        for start in range(0, len(adapters), TOGETHER):
            some = adapters[start : start + TOGETHER]
            index = np.flatnonzero(np.isin(numbers, some))
            own_runs = np.searchsorted(some, numbers[index])
            scored = prompting.option_scores(_Runs(self, some), [encoded[i] for i in index], own_runs)
            out.update(zip(index.tolist(), scored, strict=True))
        return [out[i] for i in range(len(examples))]

    @torch.inference_mode()
    def generate(
        self,
        prompts: Any,
        which: Which,
        *,
        max_new_tokens: int = NEW_TOKENS,
        stop: str | None = None,
        max_length: int | None = None,
    ) -> Any:
        """What the model writes behind each prompt, under the prompt's adapter; greedy, with a key/value cache.

        Args:
            prompts, which: as of `choose`.
            max_new_tokens: most tokens of an answer.
            stop: where an answer ends, such as a line's end, which is not part of it; None for the model's own end.
            max_length: tokens of a prompt with its answer, as of `choose`.

        Returns:
            One text for one prompt with one name of an adapter, else a list (N,); without spaces around it.

        Raises BeftError: as `choose`; a number of tokens that leaves none for the prompt.
        """
        with self._lock:
            texts, entries, single = self._prompts(prompts, which)
            longest = max_length or self._positions()
            if not 0 < max_new_tokens < longest:
                raise BeftError(
                    f"max_new_tokens {max_new_tokens} is not between 1 and {longest - 1}: a prompt with its answer has "
                    f"{longest} tokens"
                )
            numbers = np.array([entry.number for entry in entries])
            adapters, own = np.unique(numbers, return_inverse=True)
            runs, examples = _Runs(self, adapters), [Example(text) for text in texts]
            settings: dict[str, Any] = {"new_tokens": max_new_tokens, "stop": stop}
            written = prompting.generate(runs, self._tokenizer(), examples, longest, own, **settings)
            return written[0] if single else written

    def _prompts(self, prompts: Any, which: Which) -> tuple[list[str], list[Entry], bool]:
        self._check_open()
        if not self._writes:
            raise BeftError(f"{type(self.model).__name__} classifies and does not write: use predict()")
        items = [prompts] if isinstance(prompts, str) else items_of(prompts)
        single = isinstance(prompts, str) and (which is None or isinstance(which, str))
        rows = [row_of(item, 1, f"prompt {i} of {len(items)}")[0] for i, item in enumerate(items, 1)]
        return rows, self._named(which, len(rows), "prompts"), single

    def _positions(self) -> int:
        config = self.model.config
        return text_positions(config) or int(getattr(config, "max_position_embeddings", None) or POSITIONS)

    def _named(self, which: Which, count: int, what: str) -> list[Entry]:
        """The adapter of each of so many rows."""
        if which is None or isinstance(which, str):
            return [self._entry(which, "")] * count
        if isinstance(which, Mapping) or not isinstance(which, Iterable):
            raise BeftError(f"which is {brief(which)}: give the name of an adapter, or one for each of the {what}")
        names = list(which)
        if len(names) != count:
            raise BeftError(
                f"there are {count} {what} and {len(names)} names in which: give one for each, or a single name for all"
            )
        return [self._entry(name, f"of row {i}") for i, name in enumerate(names, 1)]

    def _tokenizer(self, rows: int = 1) -> Any:
        """The tokenizer. Raises BeftError where there is none, or its padding hides from a decoder that classifies.

        `rows` are computed together, for which such a decoder needs a padding token.
        """
        if self.tokenizer is None:
            raise BeftError("there is no tokenizer beside the adapters: give one, beft.serve(..., tokenizer=...)")
        pad, kind = self.model.config.pad_token_id, type(self.model).__name__
        hidden = self.tokenizer.pad_token_id != pad or (pad is None and rows > 1)
        if self._anatomy.causal and not self._writes and hidden:
            raise BeftError(
                f"{kind} finds the last token of a text by the pad_token_id of its config ({pad}), and the tokenizer "
                f"pads with {self.tokenizer.pad_token_id}: set tokenizer.pad_token and model.config.pad_token_id to "
                "the same token"
            )
        return self.tokenizer


class _Runs:
    """Some adapters as what scores prompts takes: a row's run is the place of its adapter among them."""

    def __init__(self, served: Served, numbers: np.ndarray) -> None:
        self.model, self.device = served.model, served.model.device
        self._served, self._numbers = served, numbers

    def running(self, run_ids: Tensor) -> Any:
        """The model as the adapters of a batch's rows have it."""
        return self._served.running(self._numbers[run_ids.cpu().numpy()])


def _options_of_each(options: Any, count: int) -> list[tuple[str, ...]]:
    """The options of each of so many prompts. Raises BeftError for what is none."""
    if isinstance(options, str) or not isinstance(options, Sequence) or not options:
        raise BeftError(f"options is {brief(options)}: give a list of texts, or one for each prompt")
    each = [options] * count if isinstance(options[0], str) else list(options)
    if len(each) != count:
        raise BeftError(f"there are {count} prompts and {len(each)} lists of options: give one for each prompt")
    for i, own in enumerate(each, 1):
        fit = isinstance(own, Sequence) and not isinstance(own, str)
        if not fit or len(own) < 2 or not all(isinstance(o, str) and o.strip() for o in own):
            raise BeftError(f"the options of prompt {i} are {brief(own)}: give two or more texts that are not empty")
    return [tuple(own) for own in each]
