"""Where the numbers of many adapters are kept, and how those of a row's adapter enter the forward pass.

One place is one module of the model. It has a stack with a row per adapter that has numbers there, and before a chunk
of a batch is computed it takes the rows of the chunk's adapters out; a forward hook then adds them to the module's
output, or computes the layer anew. A bank's `Slot`s do the same for runs, and their arithmetic is used here. They are
not used themselves, because runs are what an optimizer needs: fixed in number, each with a row at every place, heads of
one shape, values in float32. Adapters come and go, hold different places, and have heads of different shapes.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bank.slots import WIDE, per_output, with_bias


class Stack:
    """Numbers of adapters: `values` (rows, ...) with a row for each adapter that has some; row 0 is zero, for others.

    Rows are used again after `drop`. Where none is free the tensor is doubled, so that a number is copied at most twice
    on the average however many adapters are added. It does not become smaller again.
    """

    @torch.inference_mode()
    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.values = torch.zeros(2, *shape, dtype=dtype, device=device)
        self._rows: dict[int, int] = {}  # of an adapter, by its number
        self._free = [1]

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    @property
    def nbytes(self) -> int:
        """Bytes that are kept, those of free rows included."""
        return self.values.nbytes

    @torch.inference_mode()
    def put(self, number: int, value: Tensor) -> None:
        """Keep the numbers (...) of an adapter that has none here."""
        if not self._free:
            rows = len(self.values)
            self.values = torch.cat([self.values, torch.zeros_like(self.values)])
            self._free = list(range(2 * rows - 1, rows - 1, -1))
        row = self._free[-1]
        self.values[row] = value
        self._rows[number] = self._free.pop()

    def drop(self, number: int) -> None:
        """Forget an adapter, whether it has numbers here or not."""
        if number in self._rows:
            self._free.append(self._rows.pop(number))

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of adapters (B,), 0 for those without numbers here."""
        return np.array([self._rows.get(number, 0) for number in numbers.tolist()], dtype=np.int64)

    def take(self, rows: np.ndarray) -> Tensor:
        """The numbers of these rows (B, ...)."""
        return self.values.index_select(0, torch.from_numpy(rows).to(self.values.device))


class AddedBias:
    """A vector for each row of a batch, added to the output of a linear layer or a layer norm."""

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.stack = Stack((width,), dtype, device)
        self._added: Tensor | None = None  # of the chunk in hand: (B, width), or (1, width) of the one adapter of all

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self.stack.nbytes

    def drop(self, number: int) -> None:
        """Forget an adapter."""
        self.stack.drop(number)

    def prepare(self, numbers: np.ndarray) -> None:
        """Take out what is to be added for rows of these adapters (B,); nothing where none has numbers here."""
        rows = self.stack.rows(numbers)
        if rows.any():
            self._added = self.stack.take(rows[:1] if len(set(numbers.tolist())) == 1 else rows)

    def clear(self) -> None:
        """The module is the model's own again."""
        self._added = None

    def hook(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """A forward hook."""
        if self._added is None:
            return output
        return with_bias(output, per_output(self._added, len(output), len(self._added) == 1))


class OwnLayer:
    """A linear layer that adapters hold whole, such as a head: a row is computed by that of its adapter.

    Layers of one shape are in one stack. Where the rows of a batch have different numbers of outputs, the output is as
    wide as the widest, and what is behind a row's own outputs is zero. They are small, and computed in float32.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        # (outputs, whether there is a bias) -> weights (rows, C, d) and biases (rows, C)
        self._stacks: dict[tuple[int, bool], tuple[Stack, Stack | None]] = {}
        self._batch = 0
        # of the chunk in hand: rows (b,) of the batch, those of the stacks (b,), and the stacks
        self._groups: list[tuple[np.ndarray, np.ndarray, Stack, Stack | None]] = []

    def __len__(self) -> int:
        return sum(len(weights) for weights, _ in self._stacks.values())

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return sum(stack.nbytes for pair in self._stacks.values() for stack in pair if stack is not None)

    def put(self, number: int, weight: Tensor, bias: Tensor | None) -> None:
        """Keep the weight (C, d) and the bias (C,) of an adapter."""
        kind = (len(weight), bias is not None)
        if kind not in self._stacks:
            offsets = None if bias is None else Stack((len(weight),), self._dtype, self._device)
            self._stacks[kind] = (Stack(tuple(weight.shape), self._dtype, self._device), offsets)
        weights, offsets = self._stacks[kind]
        weights.put(number, weight)
        if offsets is not None and bias is not None:
            offsets.put(number, bias)

    def drop(self, number: int) -> None:
        """Forget an adapter; shapes that no other has take no memory any more."""
        for kind, (weights, offsets) in list(self._stacks.items()):
            weights.drop(number)
            if offsets is not None:
                offsets.drop(number)
            if not len(weights):
                del self._stacks[kind]

    def prepare(self, numbers: np.ndarray) -> None:
        """Find the rows of these adapters (B,) in the stacks."""
        self._batch = len(numbers)
        for weights, offsets in self._stacks.values():
            rows = weights.rows(numbers)
            if rows.any():
                own = np.flatnonzero(rows)
                self._groups.append((own, rows[own], weights, offsets))

    def clear(self) -> None:
        """The module is the model's own again."""
        self._groups = []

    def hook(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """A forward hook."""
        if not self._groups:
            return output
        x = args[0]
        first, rows, weights, offsets = self._groups[0]
        if len(first) == self._batch and (rows == rows[0]).all():  # one layer for all, also for what a batch shares
            return _linear(x, weights, offsets, int(rows[0])).to(output.dtype)
        per_row = x if len(x) == self._batch else x.unflatten(0, (self._batch, -1))  # OPT's have a row per token
        own = output.unflatten(0, per_row.shape[:-1]) if per_row.dim() != x.dim() else output
        widths = [stack.values.shape[1] for _, _, stack, _ in self._groups]
        rest = own.shape[-1] if sum(len(group[0]) for group in self._groups) < self._batch else 0
        out = own.new_zeros(*own.shape[:-1], max(*widths, rest))
        if rest:
            out[..., :rest] = own
        for places, rows, weights, offsets in self._groups:
            index = torch.from_numpy(places).to(x.device)
            result = out.new_zeros(len(places), *out.shape[1:])
            result[..., : weights.values.shape[1]] = _per_row(per_row[index], weights, offsets, rows).to(out.dtype)
            out[index] = result
        return out.flatten(0, 1) if per_row.dim() != x.dim() else out


def _linear(x: Tensor, weights: Stack, offsets: Stack | None, row: int) -> Tensor:
    """The layer of one row of the stacks on x (..., d), in float32: (..., C)."""
    bias = None if offsets is None else offsets.values[row].float()
    return nn.functional.linear(x.float(), weights.values[row].float(), bias)


def _per_row(x: Tensor, weights: Stack, offsets: Stack | None, rows: np.ndarray) -> Tensor:
    """Each of x (b, ..., d) by the layer of its row (b,) of the stacks, in float32: (b, ..., C)."""
    if weights.values[0].numel() >= WIDE:  # copies of large layers cost more than a product for each of them
        out = x.new_empty(*x.shape[:-1], weights.values.shape[1], dtype=torch.float32)
        for row in np.unique(rows):
            index = torch.from_numpy(np.flatnonzero(rows == row)).to(x.device)
            out[index] = _linear(x[index], weights, offsets, int(row))
        return out
    out = torch.einsum("b...d,bcd->b...c", x.float(), weights.take(rows).float())
    if offsets is None:
        return out
    return with_bias(out, offsets.take(rows))
