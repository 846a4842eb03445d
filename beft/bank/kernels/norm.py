"""The end of half a layer of an encoder as one kernel: dropout, the sum with what came in, and its layer norm."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..unpadded import Tokens
from .dropout import decided, key_of, places_of, scale_and_border

WIDEST = 4096


@triton.jit
def _norm_forward(  # type: ignore[no-untyped-def]
    x,
    residual,
    weight,
    bias,
    out,
    total,
    means,
    spreads,
    keys,
    rows,
    places,
    last,
    eps,
    salt,
    border,
    scale,
    first,
    second,
    outer: tl.constexpr,
    packed: tl.constexpr,
    drops: tl.constexpr,
    width: tl.constexpr,
):
    """out = norm(total), total = dropout(x) + residual, (rows, last) each; a program does one row."""
    at = tl.program_id(0)
    feature = tl.arange(0, width)
    within = feature < last
    where = at.to(tl.int64) * last + feature
    value = tl.load(x + where, mask=within, other=0.0).to(tl.float32)
    if drops:
        key = key_of(at, at >= 0, keys, rows, places, salt, first, second, outer, packed)
        value = tl.where(decided(key, feature.to(tl.uint32), border), value * scale, 0.0)
        value = value.to(x.dtype.element_ty).to(tl.float32)  # rounded as between two kernels
    value += tl.load(residual + where, mask=within, other=0.0).to(tl.float32)
    tl.store(total + where, value, mask=within)
    mean = tl.sum(value, 0) / last
    apart = tl.where(within, value - mean, 0.0)
    spread = 1.0 / tl.sqrt(tl.sum(apart * apart, 0) / last + eps)
    tl.store(means + at, mean)
    tl.store(spreads + at, spread)
    gain = tl.load(weight + feature, mask=within, other=0.0).to(tl.float32)
    offset = tl.load(bias + feature, mask=within, other=0.0).to(tl.float32)
    tl.store(out + where, apart * spread * gain + offset, mask=within)


@triton.jit
def _norm_backward(  # type: ignore[no-untyped-def]
    gradient,
    total,
    weight,
    means,
    spreads,
    of_x,
    of_residual,
    keys,
    rows,
    places,
    last,
    salt,
    border,
    scale,
    first,
    second,
    outer: tl.constexpr,
    packed: tl.constexpr,
    drops: tl.constexpr,
    width: tl.constexpr,
):
    """The gradients of x and of the residual; those of weight and bias are not needed."""
    at = tl.program_id(0)
    feature = tl.arange(0, width)
    within = feature < last
    where = at.to(tl.int64) * last + feature
    spread = tl.load(spreads + at)
    given = tl.load(gradient + where, mask=within, other=0.0).to(tl.float32)
    given *= tl.load(weight + feature, mask=within, other=0.0).to(tl.float32)
    value = tl.load(total + where, mask=within, other=0.0)
    value = tl.where(within, (value - tl.load(means + at)) * spread, 0.0)
    own = (given - tl.sum(given, 0) / last - value * (tl.sum(given * value, 0) / last)) * spread
    tl.store(of_residual + where, own.to(of_residual.dtype.element_ty), mask=within)
    own = own.to(of_x.dtype.element_ty).to(tl.float32)
    if drops:
        key = key_of(at, at >= 0, keys, rows, places, salt, first, second, outer, packed)
        own = tl.where(decided(key, feature.to(tl.uint32), border), own * scale, 0.0)
    tl.store(of_x + where, own.to(of_x.dtype.element_ty), mask=within)


class KernelNorm(torch.autograd.Function):
    """norm(dropout(x) + residual), (B, ..., d) each, in float32, by a frozen layer norm's weight and bias (d,).

    Dropout is as in `KernelDropout`; none without keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        keys: Tensor | None,
        salt: int,
        p: float,
        tokens: Tokens | None,
    ) -> Tensor:
        x, residual = x.contiguous(), residual.contiguous()
        number, last = x.numel() // x.shape[-1], x.shape[-1]
        out, total = (torch.empty(x.shape, dtype=torch.float32, device=x.device) for _ in range(2))
        means, spreads = (torch.empty(number, dtype=torch.float32, device=x.device) for _ in range(2))
        at, ctx.shape = _shape(x, means, keys, salt, p, tokens)
        _norm_forward[(number,)](x, residual, weight, bias, out, total, means, spreads, *at, last, eps, **ctx.shape)
        ctx.save_for_backward(total, weight, means, spreads)
        ctx.at, ctx.types = at, (x.dtype, residual.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        total, weight, means, spreads = ctx.saved_tensors
        of_x, of_residual = (torch.empty(total.shape, dtype=t, device=total.device) for t in ctx.types)
        given = (gradient.contiguous(), total, weight, means, spreads, of_x, of_residual)
        _norm_backward[(len(means),)](*given, *ctx.at, total.shape[-1], **ctx.shape)
        return (of_x, of_residual, *[None] * 7)


def _shape(
    x: Tensor, unused: Tensor, keys: Tensor | None, salt: int, p: float, tokens: Tokens | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    scale, border = scale_and_border(p, x.dtype)
    at, shape = places_of(x, unused if keys is None else keys, None if keys is None else tokens)
    shape |= {"salt": salt, "border": border, "scale": scale, "drops": keys is not None}
    width = triton.next_power_of_2(x.shape[-1])
    return at, shape | {"width": width, "num_warps": 4 if width <= 1024 else 8}
