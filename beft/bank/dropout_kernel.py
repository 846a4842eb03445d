"""`dropout.dropout` on a GPU as one kernel: the same masks, bit for bit, without the forty calls that make them.

Each of those is a call for the GPU to wait for, and a pass over its memory. Triton compiles the kernel at its first
use; it comes with builds of torch for CUDA.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024


@triton.jit
def _mix(x):  # type: ignore[no-untyped-def]
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit(do_not_specialize=["salt", "numbers", "first", "second", "last"])
def _drop(  # type: ignore[no-untyped-def]
    x, keys, out, salt, numbers, first, second, last, border, scale, outer: tl.constexpr, block: tl.constexpr
):
    """out = x with dropout, of (B, last), (B, first, last) or (B, first, second, last) by `outer`, contiguous."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = at < numbers
    feature = (at % last).to(tl.uint32)
    row = at // last
    if outer == 2:
        j = (row % second + 1).to(tl.uint32)
        row = row // second
    if outer >= 1:
        i = (row % first + 1).to(tl.uint32)
        row = row // first
    key = _mix((tl.load(keys + row, mask=inside, other=0) + salt).to(tl.uint32, bitcast=True))
    if outer >= 1:
        key = _mix(key + i * 0x9E3779B9)
    if outer == 2:
        key = _mix(key + j * 0x9E3779B9)
    bits = key ^ _mix((feature // 2 + 1) * 0x9E3779B9)  # one 32-bit hash decides two units
    bits = bits * 0x7FEB352D
    bits = bits ^ (bits >> 15)
    bits = bits * 0x846CA68B
    half = tl.where(feature % 2 == 0, bits & 0xFFFF, bits >> 16).to(tl.int32)
    signed = tl.where(half >= 32768, half - 65536, half)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, tl.where(signed >= border, value * scale, 0.0).to(out.dtype.element_ty), mask=inside)


def _dropped(x: Tensor, keys: Tensor, salt: int, p: float) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    *outer, last = x.shape[1:]
    first, second = [*outer, 1, 1][:2]
    scale = torch.tensor(1.0 / (1.0 - p)).to(x.dtype).item()  # rounded as where the mask is a tensor of x's type
    border = round(p * 65536) - 32768
    grid = (triton.cdiv(x.numel(), _BLOCK),)
    _drop[grid](x, keys, out, salt, x.numel(), first, second, last, border, scale, len(outer), _BLOCK)
    return out


class KernelDropout(torch.autograd.Function):
    """Inverted dropout of x (B, ...), of two to four dimensions, with masks from int32 keys (B,).

    `salt`, an int32, tells the places of a network apart: the masks are those of `mix(keys + salt)`. The backward pass
    makes the masks again rather than keep them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, keys: Tensor, salt: int, p: float) -> Tensor:
        ctx.save_for_backward(keys)
        ctx.salt, ctx.p = salt, p
        return _dropped(x, keys, salt, p)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (keys,) = ctx.saved_tensors
        return _dropped(gradient, keys, ctx.salt, ctx.p), None, None, None
