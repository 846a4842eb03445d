"""Dropout whose masks depend on a key per example and on nothing else.

A bank mixes the examples of many runs in one chunk, in an order chosen for length. A mask drawn from one random
stream would then depend on the chunk; here it is a hash of (key of the example, place in the network, position,
feature), so a run sees the same masks alone, in a bank, after a restart, and whatever the padding.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from .unpadded import Tokens

PLACES = 4096  # more than the dropouts of a network
KEYED = "beft"  # the name of `keyed_attention` in transformers
# Names of dropouts whose input has no row per example, so that no key is one's own: DeBERTa's, of the embeddings of
# distances (2 span, d).
SHARED_BY_BATCH = ("pos_dropout",)


@lru_cache(maxsize=64)
def _constant(value: int, device: torch.device) -> Tensor:
    """The low 32 bits of a number as an int32 tensor: with a Python number every operation would convert it anew."""
    return torch.tensor(_int32(value), dtype=torch.int32, device=device)


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
    *outer, last = shape
    # (B, ...) grows by one dimension a time; an entry depends on its indices, not on the extents
    for n in outer:
        keys = mix(keys[..., None] + _index_keys(n, keys.device))
    return _kept(keys, last, p)


def _kept(keys: Tensor, last: int, p: float) -> Tensor:
    """Bool (..., last) of keys (...)."""
    half = (last + 1) // 2  # one 32-bit hash decides two units
    x = keys[..., None] ^ _feature_keys(half, keys.device)  # (B, *outer, half)
    x.mul_(_constant(_MUL_A, x.device))
    _fold(x, 15, 0x1FFFF).mul_(_constant(_MUL_B, x.device))
    return x.view(torch.int16)[..., :last] >= round(p * 65536) - 32768


def dropout(x: Tensor, keys: Tensor, p: float) -> Tensor:
    """Inverted dropout of x (B, ...) with masks from keys (B,)."""
    return _thinned(x, keep_mask(keys, x.shape[1:], p), p)


def _thinned(x: Tensor, keep: Tensor, p: float) -> Tensor:
    return x * keep.to(x.dtype).mul_(1.0 / (1.0 - p))


class ForwardState:
    """What the hooks of one bank need to know of the chunk in hand; the bank sets it around each call.

    Attributes:
        R: runs of the bank.
        run_ids: the run of each row of the chunk (B,); None where all runs see the same rows, and between calls.
        keys: a dropout key per row (B,); None without dropout.
        tokens: where the real tokens of the chunk are, where only these are computed (see `unpadded`).
        shared: rows of which all runs see the same so far, with the run of each row to come; 0 for none.
        each: rows of every run where these stand in the order of the runs, with rows behind them that nothing comes
            of; 0 for any other order.
        depth: layers begun so far, in models that use a layer at several depths: each has masks of its own.
    """

    def __init__(self, R: int) -> None:
        self.R = R
        self.run_ids: Tensor | None = None
        self.keys: Tensor | None = None
        self.tokens: Tokens | None = None
        self.shared = self.each = 0
        self.depth = 0

    def forget(self) -> None:
        """The chunk is over."""
        self.run_ids, self.keys, self.tokens, self.shared, self.each = None, None, None, 0, 0

    def part_runs(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A forward pre-hook of a layer from which on each run has rows of its own: every row R times."""
        B = self.shared
        if not B:
            return None
        x, *others = args
        if self.run_ids is None:  # the lowest such layer
            self.run_ids = torch.arange(self.R, device=x.device).repeat_interleave(B)
            packed = self.tokens is not None
            x = x.repeat(1, self.R, 1) if packed else x.repeat(self.R, 1, 1)
            self.tokens = self.tokens.times(self.R) if self.tokens is not None else None
        repeated = (
            y.repeat(self.R, *[1] * (y.dim() - 1)) if isinstance(y, Tensor) and len(y) == B else y for y in others
        )
        return (x, *repeated)

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
        keys = mix(self.keys + _constant(self.salt(place), self.keys.device))
        if self.tokens is not None and self.tokens.hold(x):  # the mask that these tokens have in (B, T, d)
            of_places = _index_keys(self.tokens.length, keys.device).index_select(0, self.tokens.places)
            keys = mix(keys.index_select(0, self.tokens.rows) + of_places)
            return _thinned(x, _kept(keys, x.shape[-1], p)[None], p)
        return dropout(x, keys, p)

    def hook(self, place: int, p: float) -> Any:
        """A forward hook: dropout of a module's output."""
        return lambda module, args, output: self.dropout(output, place, p)


# The attention modules that a bank is on: its state, the number of the place, the drop probability.
_ATTENTION: WeakKeyDictionary[nn.Module, tuple[ForwardState, int, float]] = WeakKeyDictionary()


def drop_weights_of(attention: nn.Module, state: ForwardState, place: int) -> None:
    """From now on `keyed_attention` drops weights of this module by `state`, until `keep_weights_of`."""
    _ATTENTION[attention] = (state, place, _drop_probability(attention))


def keep_weights_of(attention: nn.Module) -> None:
    """No dropout of the weights of this module any more."""
    _ATTENTION.pop(attention, None)


def _drop_probability(attention: nn.Module) -> float:
    """Of attention weights, under the names that the families give it."""
    for name in ("dropout", "attention_dropout", "dropout_prob", "attn_dropout"):
        value = getattr(attention, name, None)
        if isinstance(value, nn.Dropout):
            return value.p
        if isinstance(value, float):
            return value
    return 0.0


def keyed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention interface, (B, H, T, d) each: SDPA, or written out where its weights are dropped.

    Where the tokens of a chunk stand one after another, (1, H, M, d), they are put into rows and back.
    """
    state, place, p = _ATTENTION.get(module, (None, 0, 0.0))
    tokens = None if state is None else state.tokens
    if state is not None and tokens is not None and tokens.count > 1 and query.shape[0] == 1:
        if query.is_cuda and (by := kernels()) is not None and by.attention.fits(query, key, value):
            scaling = scaling or query.shape[-1] ** -0.5
            keys = state.keys if p else None
            out = by.attention.KernelAttention.apply(query, key, value, tokens, scaling, keys, state.salt(place), p)
            return out, None
        heads = [x.transpose(1, 2).flatten(2) for x in (query, key, value)]  # (1, M, H d)
        query, key, value = (
            tokens.pad(x).unflatten(-1, (own.shape[1], -1)).transpose(1, 2)
            for x, own in zip(heads, (query, key, value), strict=True)
        )
        out, _ = _attention(module, query, key, value, attention_mask, scaling, state, place, p, **kwargs)
        return tokens.pack(out.flatten(2)).unflatten(-1, out.shape[2:]), None
    return _attention(module, query, key, value, attention_mask, scaling, state, place, p, **kwargs)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None,
    state: ForwardState | None,
    place: int,
    p: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if state is None or state.keys is None or p == 0.0:
        kwargs.pop("dropout", None)
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=scaling, **kwargs)
    if key.shape[1] not in (1, query.shape[1]):  # heads of the query that share a key and a value
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = torch.matmul(query * (scaling or query.shape[-1] ** -0.5), key.transpose(2, 3))  # (B, H, T, T)
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = state.dropout(torch.softmax(scores, dim=-1), place, p)
    return torch.matmul(weights.to(value.dtype), value).transpose(1, 2).contiguous(), None


def use_keyed_attention(model: Any) -> None:
    """Let a model compute its attention by `keyed_attention`."""
    AttentionInterface.register(KEYED, keyed_attention)
    AttentionMaskInterface.register(KEYED, eager_mask)  # additive, which both branches of it take
    model.set_attn_implementation(KEYED)
