"""Dropout whose masks depend on a key per example and on nothing else.

A bank mixes the examples of many runs in one chunk, in an order chosen for length. A mask drawn from one random
stream would then depend on the chunk; here it is a hash of (key of the example, place in the network, position,
feature), so a run sees the same masks alone, in a bank, after a restart, and whatever the padding.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .unpadded import Tokens

PLACES = 4096  # more than the dropouts of a network
# Names of dropouts whose input has no row per example, so that no key is one's own: DeBERTa's, of the embeddings of
# distances (2 span, d).
SHARED_BY_BATCH = ("pos_dropout",)


@lru_cache(maxsize=64)
def _constant(value: int, device: torch.device) -> Tensor:
    """The low 32 bits of a number as an int32 tensor: with a Python number every operation would convert it anew."""
    return torch.tensor(_int32(value), dtype=torch.int32, device=device)


@lru_cache(maxsize=256)
def _column(values: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device=device)[:, None]


@lru_cache(maxsize=64)
def _constant16(value: int, device: torch.device) -> Tensor:
    return torch.tensor(value, dtype=torch.int16, device=device)


def _int32(value: int) -> int:
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


class _Kernels(NamedTuple):
    dropout: Any
    attention: Any
    norm: Any


@lru_cache(maxsize=1)
def kernels() -> _Kernels | None:
    """The modules of the kernels, or None where torch has come without Triton."""
    try:
        from .kernels import attention, dropout, norm
    except ImportError:
        return None
    return _Kernels(dropout, attention, norm)


@lru_cache(maxsize=4096)
def _index_keys(n: int, device: torch.device) -> Tensor:
    """What tells n places apart before mixing, int32 (n,)."""
    return torch.arange(1, n + 1, dtype=torch.int32, device=device) * _constant(_GOLDEN, device)


@lru_cache(maxsize=256)
def _feature_keys(n: int, device: torch.device) -> Tensor:
    """The same mixed, int32 (n,)."""
    return mix(_index_keys(n, device))


_GOLDEN, _MUL_A, _MUL_B = 0x9E3779B9, 0x7FEB352D, 0x846CA68B


def mix(x: Tensor) -> Tensor:
    """A bijective 32-bit finaliser (Wellons' lowbias32) on an int32 tensor of any shape."""
    x = x.clone()
    _fold(x, 16, 0xFFFF).mul_(_constant(_MUL_A, x.device))
    _fold(x, 15, 0x1FFFF).mul_(_constant(_MUL_B, x.device))
    return _fold(x, 16, 0xFFFF)


def _fold(x: Tensor, shift: int, mask: int) -> Tensor:
    """x ^= x >> shift in place; the mask undoes the sign that an int32 shift drags along."""
    high = torch.bitwise_right_shift(x, _constant(shift, x.device)).bitwise_and_(_constant(mask, x.device))
    return x.bitwise_xor_(high)


def example_keys(seeds: Tensor, step: int, places: Tensor) -> Tensor:
    """Keys (B,) of examples from the seed of their run (B,), the optimiser step and the place in the batch (B,)."""
    golden = _constant(_GOLDEN, seeds.device)
    key = mix(seeds.to(torch.int32) * golden + 1)
    key = mix(key + _constant(step * _GOLDEN, seeds.device))
    return mix(key + places.to(torch.int32) * golden)


def keep_mask(keys: Tensor, shape: Sequence[int], p: float) -> Tensor:
    """Bool (B, *shape), True where a unit is kept, each with probability 1 - p (to 1 in 65,536).

    Args:
        keys: int32 (B,), one per example.
        shape: the other dimensions of the activation, e.g. (T, d) or (H, T, T).
        p: drop probability in [0, 1).
    """
    return keep_bits(_keys_of(keys, shape[:-1]), shape[-1], p) != 0


def _keys_of(keys: Tensor, outer: Sequence[int]) -> Tensor:
    """Keys (B, *outer) of keys (B,): an entry depends on its indices, not on the extents."""
    for n in outer:
        keys = mix(keys[..., None] + _index_keys(n, keys.device))
    return keys


def keep_bits(keys: Tensor, last: int, p: float) -> Tensor:
    """int16 (..., last) of keys (...): all bits of a unit that is kept, none of one that is dropped.

    As numbers and not as truth values, because a CPU has wide instructions for those: with `>=` and a product by its
    outcome, dropout took four times as long.
    """
    half = (last + 1) // 2  # one 32-bit hash decides two units
    x = keys[..., None] ^ _feature_keys(half, keys.device)  # (..., half)
    x.mul_(_constant(_MUL_A, x.device))
    _fold(x, 15, 0x1FFFF).mul_(_constant(_MUL_B, x.device))
    x = x.view(torch.int16)
    x = x if 2 * half == last else x[..., :last]
    border = round(p * 65536) - 32768  # a unit is kept if x >= border: halved, so that the difference has its sign
    halves = x >> _constant16(1, x.device)
    if border % 2:
        halves += x & _constant16(1, x.device)
    return torch.sub(_constant16((border + 1) // 2 - 1, x.device), halves).bitwise_right_shift_(
        _constant16(15, x.device)
    )


INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def with_bits(x: Tensor, bits: Tensor) -> Tensor:
    """x, floating, where `bits` of `keep_bits` has ones, and zero elsewhere."""
    kind = INTEGERS[x.element_size()]
    return (x.contiguous().view(kind) & bits.to(kind)).view(x.dtype)


class _Thinned(torch.autograd.Function):
    """x where `bits` has ones, times `scale`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(bits)
        ctx.scale = scale
        return with_bits(x, bits).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (bits,) = ctx.saved_tensors
        return with_bits(gradient, bits).mul_(ctx.scale), None, None


def dropout(x: Tensor, keys: Tensor, p: float) -> Tensor:
    """Inverted dropout of x (B, ...) with masks from keys (B,)."""
    bits = keep_bits(_keys_of(keys, x.shape[1:-1]), x.shape[-1], p)
    return _Thinned.apply(x, bits, 1.0 / (1.0 - p))  # type: ignore[no-any-return]


class Parting(NamedTuple):
    """Where in a layer rows that all runs share become rows of each, see `ForwardState.parting`."""

    end: nn.Module
    projection: nn.Linear
    values: Callable[[], Tensor]


class ForwardState:
    """What the hooks of one bank need to know of the chunk in hand; the bank sets it around each call.

    Attributes:
        R: runs of the bank.
        run_ids: the run of each row of the chunk (B,); None where all runs see the same rows, and between calls.
        keys: a dropout key per row (B,); None without dropout.
        tokens: where the real tokens of the chunk are, where only these are computed (see `unpadded`).
        shared: rows of which all runs see the same until they part; 0 for none.
        each: rows of every run where these stand in the order of the runs, with rows behind them that nothing comes
            of; 0 for any other order.
        modules: number of dropouts that are modules; these have the places from 1 on.
        attentions: the places of the dropout of attention weights, by layer.
        reads_first: the attention of which only first tokens are read, the last one's; None where all are.
        parting: of the attention behind which runs that share rows part: its end, the linear layer of its output, and
            the biases (R, d) of its values; None where they part in front of a layer.
        packs_all: whether packed tokens are all that layers look at, attentions too.
        depth: layers begun so far, in models that use a layer at several depths: each has masks of its own.
    """

    def __init__(self, R: int) -> None:
        self.R = R
        self.run_ids: Tensor | None = None
        self.keys: Tensor | None = None
        self.tokens: Tokens | None = None
        self.shared = self.each = 0
        self.modules = 0
        self.attentions: tuple[int, ...] = ()
        self.reads_first: nn.Module | None = None
        self.parting: Parting | None = None
        self.packs_all = False
        self.depth = 0
        self._tables: dict[tuple[str, int], Tensor] = {}

    def forget(self) -> None:
        """The chunk is over."""
        self.run_ids, self.keys, self.tokens, self.shared, self.each = None, None, None, 0, 0
        self._tables.clear()

    def part_runs(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A forward pre-hook of a layer from which on each run has rows of its own: every row R times."""
        B = self.shared
        if not B:
            return None
        x, *others = args
        if self.run_ids is None:  # the lowest such layer
            x = self.of_each_run(x)
            self.part(x.device)
        if self.packs_all and self.tokens is not None:  # masks and positions of rows that nobody looks at
            return (x, *others)
        repeated = (
            y.repeat(self.R, *[1] * (y.dim() - 1)) if isinstance(y, Tensor) and len(y) == B else y for y in others
        )
        return (x, *repeated)

    def of_each_run(self, x: Tensor, own: Tensor | None = None) -> Tensor:
        """The rows that all runs share, (B, T, d) or (1, M, d), of every run; `own` (R, d) is added to the run's."""
        shape = (self.R, *x.shape)
        rows = x.expand(shape) if own is None else x + own[:, None, None].to(x.dtype)
        packed = self.tokens is not None and self.tokens.hold(x)
        return rows.reshape(1, -1, x.shape[-1]) if packed else rows.flatten(0, 1)

    def part(self, device: torch.device) -> None:
        """From now on each run has rows of its own."""
        self.run_ids = torch.arange(self.R, device=device).repeat_interleave(self.shared)
        self.tokens = self.tokens.times(self.R) if self.tokens is not None else None

    def deeper(self, *_: Any) -> None:
        """A forward pre-hook: another layer begins."""
        self.depth += 1

    def salt(self, place: int) -> int:
        """What tells a place of a network from the others, at the depth in hand: an int32."""
        return _int32((place + PLACES * self.depth) * _GOLDEN)

    def dropout(self, x: Tensor, place: int, p: float) -> Tensor:
        """x (B, ...), or (1, M, d) of `tokens`, with dropout if it is on; `place` tells a network's dropouts apart."""
        if self.keys is None or p == 0.0:
            return x
        if x.is_cuda and x.dim() in (2, 3, 4) and (own := kernels()) is not None:
            tokens = self.tokens if self.tokens is not None and self.tokens.hold(x) else None
            return own.dropout.KernelDropout.apply(x, self.keys, self.salt(place), p, tokens)  # type: ignore[no-any-return]
        if self.tokens is not None and self.tokens.hold(x):  # the mask that these tokens have in (B, T, d)
            bits = keep_bits(self.token_keys(place), x.shape[-1], p)[None]
            return _Thinned.apply(x, bits, 1.0 / (1.0 - p))  # type: ignore[no-any-return]
        return dropout(x, mix(self.keys + _constant(self.salt(place), self.keys.device)), p)

    def token_keys(self, place: int) -> Tensor:
        """Keys (M,) of the packed tokens at a place."""
        assert self.keys is not None and self.tokens is not None
        if ("tokens", self.depth) not in self._tables:
            of_rows = mix(self.keys + self._salts(range(1, self.modules + 1)))  # (places, B)
            of_places = _index_keys(self.tokens.length, self.keys.device).index_select(0, self.tokens.places)
            self._tables["tokens", self.depth] = mix(of_rows.index_select(1, self.tokens.rows) + of_places)
        return self._tables["tokens", self.depth][place - 1]

    def query_keys(self, place: int, heads: int, groups: Any) -> Tensor:
        """Keys of the queries of `attention.Groups` at a place: of row and head, then of the place in the row."""
        assert self.keys is not None and self.tokens is not None
        if groups.first:  # of one attention, the last
            return self._mixed_queries((place,), heads, groups)[0]
        if ("queries", self.depth) not in self._tables:
            self._tables["queries", self.depth] = self._mixed_queries(self.attentions, heads, groups)
        return self._tables["queries", self.depth][self.attentions.index(place)]

    def _mixed_queries(self, places: tuple[int, ...], heads: int, groups: Any) -> Tensor:
        assert self.keys is not None and self.tokens is not None
        of_rows = mix(self.keys + self._salts(places))  # (places, B)
        each = mix(of_rows[..., None] + _index_keys(heads, self.keys.device)).flatten(1)  # (places, B H)
        here = _index_keys(self.tokens.length, self.keys.device).index_select(0, groups.places)
        return mix(each.index_select(1, groups.row_heads) + here)

    def _salts(self, places: Iterable[int]) -> Tensor:
        """Of several places, int32 (places, 1)."""
        assert self.keys is not None
        return _column(tuple(map(self.salt, places)), self.keys.device)

    def hook(self, place: int, p: float) -> Any:
        """A forward hook: dropout of a module's output."""
        return lambda module, args, output: self.dropout(output, place, p)
