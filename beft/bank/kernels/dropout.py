"""`dropout.dropout` on a GPU as one kernel: the same masks, bit for bit, without the forty calls that make them.

Each of those is a call for the GPU to wait for, and a pass over its memory. Triton compiles the kernel at its first
use.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..unpadded import Tokens

_BLOCK = 2048  # units of a program


@triton.jit
def mixed(x):  # type: ignore[no-untyped-def]
    """`dropout.mix`."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def decided(key, feature, border):  # type: ignore[no-untyped-def]
    """Whether a unit is kept, by the key of what it belongs to and its number there."""
    bits = key ^ mixed((feature // 2 + 1) * 0x9E3779B9)  # one 32-bit hash decides two units
    bits = bits * 0x7FEB352D
    bits = bits ^ (bits >> 15)
    bits = bits * 0x846CA68B
    half = tl.where(feature % 2 == 0, bits & 0xFFFF, bits >> 16).to(tl.int32)
    return tl.where(half >= 32768, half - 65536, half) >= border


@triton.jit
def key_of(at, inside, keys, rows, places, salt, first, second, outer: tl.constexpr, packed: tl.constexpr):  # type: ignore[no-untyped-def]
    """What decides for the units of (..., last), by the number `at` of that among all of (B, first, second).

    Where it is packed, they are the M tokens of (1, M, last), each with its row and its place there.
    """
    if packed:
        i = tl.load(places + at, mask=inside, other=0).to(tl.uint32)
        at = tl.load(rows + at, mask=inside, other=0)
    elif outer == 2:
        j = (at % second).to(tl.uint32)
        at = at // second
    if outer >= 1 and not packed:
        i = (at % first).to(tl.uint32)
        at = at // first
    key = mixed((tl.load(keys + at, mask=inside, other=0) + salt).to(tl.uint32, bitcast=True))
    if outer >= 1:
        key = mixed(key + (i + 1) * 0x9E3779B9)
    if outer == 2:
        key = mixed(key + (j + 1) * 0x9E3779B9)
    return key


@triton.jit(do_not_specialize=["salt", "number", "first", "second", "border"])
def _drop(  # type: ignore[no-untyped-def]
    x,
    out,
    keys,
    rows,
    places,
    number,
    last,
    salt,
    first,
    second,
    border,
    scale,
    outer: tl.constexpr,
    packed: tl.constexpr,
    together: tl.constexpr,
    width: tl.constexpr,
):
    """out (number, last) = x with dropout; a program does so many rows of it `together`."""
    at = tl.program_id(0) * together + tl.arange(0, together)
    inside = at < number
    key = key_of(at, inside, keys, rows, places, salt, first, second, outer, packed)
    feature = tl.arange(0, width)
    where = at.to(tl.int64)[:, None] * last + feature[None, :]
    within = inside[:, None] & (feature < last)[None, :]
    value = tl.load(x + where, mask=within, other=0.0).to(tl.float32)
    keep = decided(key[:, None], feature.to(tl.uint32)[None, :], border)
    tl.store(out + where, tl.where(keep, value * scale, 0.0).to(out.dtype.element_ty), mask=within)


def scale_and_border(p: float, dtype: torch.dtype) -> tuple[float, int]:
    """What is kept is multiplied by the first, and what is decided by numbers from the second on."""
    # rounded as where the mask is a tensor of that type
    return torch.tensor(1.0 / (1.0 - p)).to(dtype).item(), round(p * 65536) - 32768


def places_of(x: Tensor, keys: Tensor, tokens: Tokens | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `key_of` takes of x (B, ..., last): keys, rows, places; and its shape."""
    outer = x.shape[1:-1]
    rows, places = (keys, keys) if tokens is None else (tokens.rows, tokens.places)
    first, second = (*outer, 1, 1)[:2]
    shape = {"first": first, "second": second, "outer": len(outer), "packed": tokens is not None}
    return (keys, rows, places), shape


def _dropped(x: Tensor, keys: Tensor, salt: int, p: float, tokens: Tokens | None) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    last = x.shape[-1]
    number, width = x.numel() // last, triton.next_power_of_2(last)
    together = max(1, _BLOCK // width)
    scale, border = scale_and_border(p, x.dtype)
    at, shape = places_of(x, keys, tokens)
    sizes = {"salt": salt, "border": border, "scale": scale, "together": together, "width": width}
    _drop[(triton.cdiv(number, together),)](x, out, *at, number, last, **sizes, **shape)
    return out


class KernelDropout(torch.autograd.Function):
    """Inverted dropout of x (B, ...), of two to four dimensions, with masks from int32 keys (B,).

    `salt`, an int32, tells the places of a network apart: the masks are those of `mix(keys + salt)`. The backward pass
    makes the masks again rather than keep them. Of `tokens`, x is (1, M, d), and has the masks of (B, T, d).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, salt: int, p: float, tokens: Tokens | None) -> Tensor:
        ctx.save_for_backward(keys)
        ctx.salt, ctx.p, ctx.tokens = salt, p, tokens
        return _dropped(x, keys, salt, p, tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (keys,) = ctx.saved_tensors
        return _dropped(gradient, keys, ctx.salt, ctx.p, ctx.tokens), None, None, None, None
