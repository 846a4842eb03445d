"""Training steps on a GPU that the host does not hold up: a pass is recorded once for its shape and then played back.

A step of a bank is a few thousand short kernels, and Python needs longer to ask for them than a GPU to run them. A CUDA
graph asks once. It wants the same shapes and the same memory every time, so the rows of a step go through the network
as packed tokens (see `bank.unpadded`), filled up to one of a few numbers with rows that nothing comes of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bank.bank import BiasBank
from ..bank.unpadded import Tokens
from ..data.batching import Encoded
from .classification import losses

LENGTHS = 16  # rows are as long as a multiple of it
LEAST, PARTS = 64, 16  # tokens are filled up to a multiple of one sixteenth of their number, but at least of so many
MOST_GRAPHS = 96  # shapes that are recorded; others are computed as they come


class Shape(NamedTuple):
    """What a recorded pass is of.

    Attributes:
        each: rows of every run.
        batch: rows of every run in the whole step, by whose number losses are divided.
        rows: rows in all, B, with those that fill.
        length: tokens of a padded row, T.
        tokens: tokens in all, M.
    """

    each: int
    batch: int
    rows: int
    length: int
    tokens: int


class Passes:
    """Forward and backward passes of the rows of a step, all runs together; their gradients are added to the slots'.

    Args:
        bank: one that computes packed tokens (`bank.padded` below 1).
        rows: the training rows, padded on the right.
        labels: their targets (N,), as `classification.losses` takes them.
        most: tokens of a pass. A step of more is split by rows of every run.

    Attributes:
        losses: sums of the rows' losses so far, (R,).
        captures: whether shapes that come again are recorded; no more after one that could not be, as without memory.
    """

    def __init__(self, bank: BiasBank, rows: Encoded, labels: Tensor, most: int) -> None:
        self.bank, self.encoded, self.labels, self.most = bank, rows, labels, most
        self.columns = [name for name in rows.columns if name != "attention_mask"]
        self.losses = torch.zeros(bank.R, dtype=torch.float64, device=bank.device)
        self.gradients = [torch.zeros_like(slot.values) for slot in bank.slots]
        self.captures = True
        self._given: dict[Shape, Tensor] = {}
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        if bank.device.type == "cuda":
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def step(self, index: np.ndarray, keys: Tensor) -> None:
        """The gradients of one step.

        Args:
            index: training rows, those of each run together: (R b,).
            keys: of their dropout, on the host: (R b,).
        """
        torch._foreach_zero_(self.gradients)
        for slot, gradient in zip(self.bank.slots, self.gradients, strict=True):
            slot.values.grad = gradient
        by_run = index.reshape(self.bank.R, -1)
        of_run = keys.view(self.bank.R, -1)
        for part in self._parts(by_run):
            shape, numbers = self._numbers(by_run[:, part].ravel(), of_run[:, part].ravel(), by_run.shape[1])
            self._run(shape, numbers)

    def _parts(self, by_run: np.ndarray) -> Iterator[slice]:
        """Slices of the rows of each run, as few of the same size as keep the tokens of each at `most`."""
        lengths = self.encoded.lengths[by_run].sum(0)  # (b,)
        b = len(lengths)
        for count in (n for n in range(1, b + 1) if b % n == 0):
            if count == b or lengths.reshape(count, -1).sum(1).max() <= self.most:
                return (slice(at, at + b // count) for at in range(0, b, b // count))
        raise AssertionError("a step has rows")

    def _numbers(self, index: np.ndarray, keys: Tensor, batch: int) -> tuple[Shape, Tensor]:
        """The shape of a pass, and all that it needs in one row of int64 numbers."""
        lengths = self.encoded.lengths[index].astype(np.int64)
        n, real = len(index), int(lengths.sum())
        longest = len(self.encoded.columns["input_ids"][0])  # that a model has positions for
        length = min(-(-int(lengths.max()) // LENGTHS) * LENGTHS, longest)
        unit = max(LEAST, 2 ** (real.bit_length() - 1) // PARTS)
        fill = -(-unit // (length - 1))  # rows that can hold from `fill` tokens up to as many as may be missing
        tokens = -(-(real + fill) // unit) * unit
        missing = np.ones(fill, dtype=np.int64)
        for i in range(fill):
            missing[i] += min(length - 1, tokens - real - int(missing.sum()))
        lengths = np.append(lengths, missing)
        shape = Shape(n // self.bank.R, batch, n + fill, length, tokens)
        picked = torch.from_numpy(index)
        columns = torch.zeros(len(self.columns), shape.rows, length, dtype=torch.int64)
        columns[:] = torch.stack([self.encoded.columns[name][0, 0] for name in self.columns])[:, None, None]
        for own, name in zip(columns, self.columns, strict=True):
            column = self.encoded.columns[name][picked, :length]
            own[:n, : column.shape[1]] = column
        starts = np.cumsum(lengths) - lengths
        row = np.repeat(np.arange(shape.rows), lengths)
        at = row * length + np.arange(tokens) - starts[row]
        labels = self.labels[picked]
        if labels.is_floating_point():
            labels = labels.float().view(torch.int32)
        keys_of_all = torch.cat([keys, keys[:1].expand(fill)]).long()
        parts = [columns.flatten(), keys_of_all, torch.from_numpy(lengths), torch.from_numpy(at), labels.long()]
        self.encoded.padding.real += real
        self.encoded.padding.computed += tokens
        return shape, torch.cat(parts)

    def _run(self, shape: Shape, numbers: Tensor) -> None:
        if self.bank.device.type != "cuda":
            self._compute(shape, numbers)
            return
        known = shape in self._given
        if not known:
            self._given[shape] = torch.empty(len(numbers), dtype=torch.int64, device=self.bank.device)
        given = self._given[shape]
        given.copy_(numbers.pin_memory(), non_blocking=True)
        if shape not in self._graphs and known and self.captures and len(self._graphs) < MOST_GRAPHS:
            self._capture(shape, given)
        if shape in self._graphs:
            self._graphs[shape].replay()
            return
        with self._aside():  # the first of a shape: what is allocated and compiled at first use is no part of a graph
            self._compute(shape, given)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Inside, on the stream on which passes are recorded, after what was asked for and before what will be."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, shape: Shape, given: Tensor) -> None:
        # not `torch.cuda.graph`, which collects Python's garbage and empties the cache for each of them
        torch.cuda.synchronize()
        if torch.cuda.mem_get_info()[0] < torch.cuda.memory_reserved():
            torch.cuda.empty_cache()  # a graph has memory of its own, as much again as a pass
        graph = torch.cuda.CUDAGraph()
        with self._aside():
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            if self._captured(graph, shape, given):
                self._graphs[shape] = graph

    def _captured(self, graph: torch.cuda.CUDAGraph, shape: Shape, given: Tensor) -> bool:
        """Whether a pass was captured; after one that could not be, for want of memory for one, none is any more."""
        try:
            self._compute(shape, given)
        except RuntimeError:  # what is wrong with the pass itself shows when it is computed as it comes
            self.captures = False
            with contextlib.suppress(RuntimeError):  # of a capture that ends too early
                graph.capture_end()
            return False
        graph.capture_end()
        return True

    def _compute(self, shape: Shape, given: Tensor) -> None:
        """One pass from its numbers, without a look at them."""
        R, n = self.bank.R, self.bank.R * shape.each
        sizes = [len(self.columns) * shape.rows * shape.length, shape.rows, shape.rows, shape.tokens, n]
        columns, keys, lengths, at, labels = given.split(sizes)
        by_column = columns.view(len(self.columns), shape.rows, shape.length)
        inputs = dict(zip(self.columns, by_column, strict=True))
        inputs["attention_mask"] = (torch.arange(shape.length, device=given.device) < lengths[:, None]).long()
        run_ids = torch.arange(R, device=given.device).repeat_interleave(shape.each, output_size=n)
        run_ids = torch.cat([run_ids, run_ids.new_zeros(shape.rows - n)])
        tokens = Tokens(shape.length, at, lengths)
        logits = self.bank.in_order(shape.each, run_ids, keys.int(), tokens, inputs)[:n]
        targets = labels.int().view(torch.float32) if self.labels.is_floating_point() else labels
        own = losses(logits, targets)
        (own.sum() / shape.batch).backward()
        self.losses += own.detach().double().view(R, -1).sum(1)
