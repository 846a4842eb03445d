"""Attention of packed tokens on a GPU without a table of all pairs in memory, with keyed dropout of its weights.

What it stands for puts query, key and value into padded rows, and reads and writes the table of all pairs of tokens
six times. Here a program does a block of a row's queries for one head and passes over the keys block by block, with
the sums of the softmax as they are so far (Dao et al. 2022); the backward pass computes the weights again. The masks of
dropout are those of `dropout.keep_mask`, bit for bit.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..unpadded import Tokens
from .dropout import decided, mixed, scale_and_border

WIDTHS = (16, 32, 64, 128)  # of a head
_BLOCK = 64


@triton.jit
def _loaded(x, start, at, length, head, of_head, of_token, width: tl.constexpr):  # type: ignore[no-untyped-def]
    """(block, width) of a head, of the tokens `at` of a row; zeros behind its end."""
    places = (start + at)[:, None] * of_token + head * of_head + tl.arange(0, width)[None, :]
    return tl.load(x + places, mask=(at < length)[:, None], other=0.0)


@triton.jit
def _stored(x, value, start, at, length, head, of_head, of_token, width: tl.constexpr):  # type: ignore[no-untyped-def]
    places = (start + at)[:, None] * of_token + head * of_head + tl.arange(0, width)[None, :]
    tl.store(x + places, value.to(x.dtype.element_ty), mask=(at < length)[:, None])


@triton.jit
def _keep(keys, salt, row, head, queries, others, border):  # type: ignore[no-untyped-def]
    """Which weights (queries, keys) are kept."""
    key = mixed((tl.load(keys + row) + salt).to(tl.uint32, bitcast=True))
    key = mixed(key + (head + 1).to(tl.uint32) * 0x9E3779B9)
    of_query = mixed(key + (queries + 1).to(tl.uint32) * 0x9E3779B9)
    return decided(of_query[:, None], others.to(tl.uint32)[None, :], border)


@triton.jit(do_not_specialize=["salt", "border"])
def _attention(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    out,
    logs,
    keys,
    first,
    lengths,
    salt,
    border,
    scale,
    scaling,
    heads,
    of_head,
    of_token,
    drops: tl.constexpr,
    precision: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """out (M, heads, width) and the logarithms of the softmax's sums (M, heads)."""
    row, head = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(first + row), tl.load(lengths + row)
    at = tl.program_id(2) * block + tl.arange(0, block)
    if tl.program_id(2) * block < length:
        query = _loaded(q, start, at, length, head, of_head, of_token, width)
        result = tl.zeros([block, width], tl.float32)
        most = tl.full([block], float("-inf"), tl.float32)
        total = tl.zeros([block], tl.float32)
        for begin in range(0, length, block):
            others = begin + tl.arange(0, block)
            key = _loaded(k, start, others, length, head, of_head, of_token, width)
            value = _loaded(v, start, others, length, head, of_head, of_token, width)
            scores = tl.dot(query, tl.trans(key), input_precision=precision) * scaling
            scores = tl.where((others < length)[None, :], scores, float("-inf"))
            now = tl.maximum(most, tl.max(scores, 1))
            weights, shrunk = tl.exp(scores - now[:, None]), tl.exp(most - now)
            total = total * shrunk + tl.sum(weights, 1)
            if drops:
                weights = tl.where(_keep(keys, salt, row, head, at, others, border), weights * scale, 0.0)
            result = result * shrunk[:, None] + tl.dot(weights.to(value.dtype), value, input_precision=precision)
            most = now
        _stored(out, result / total[:, None], start, at, length, head, width, heads * width, width)
        tl.store(logs + (start + at) * heads + head, most + tl.log(total), mask=at < length)


@triton.jit(do_not_specialize=["salt", "border"])
def _of_queries(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    out,
    logs,
    gradient,
    of_q,
    sums,
    keys,
    first,
    lengths,
    salt,
    border,
    scale,
    scaling,
    heads,
    of_head,
    of_token,
    drops: tl.constexpr,
    precision: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """The gradient of q, and the sums (M, heads) of output times gradient, which that of k needs too."""
    row, head = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(first + row), tl.load(lengths + row)
    at = tl.program_id(2) * block + tl.arange(0, block)
    if tl.program_id(2) * block < length:
        query = _loaded(q, start, at, length, head, of_head, of_token, width)
        given = _loaded(gradient, start, at, length, head, width, heads * width, width)
        own = _loaded(out, start, at, length, head, width, heads * width, width)
        summed = tl.sum(own.to(tl.float32) * given.to(tl.float32), 1)
        tl.store(sums + (start + at) * heads + head, summed, mask=at < length)
        log = tl.load(logs + (start + at) * heads + head, mask=at < length, other=0.0)
        result = tl.zeros([block, width], tl.float32)
        for begin in range(0, length, block):
            others = begin + tl.arange(0, block)
            key = _loaded(k, start, others, length, head, of_head, of_token, width)
            value = _loaded(v, start, others, length, head, of_head, of_token, width)
            scores = tl.dot(query, tl.trans(key), input_precision=precision) * scaling
            weights = tl.where((others < length)[None, :], tl.exp(scores - log[:, None]), 0.0)
            of_weights = tl.dot(given, tl.trans(value), input_precision=precision)
            if drops:
                of_weights = tl.where(_keep(keys, salt, row, head, at, others, border), of_weights * scale, 0.0)
            of_scores = weights * (of_weights - summed[:, None]) * scaling
            result += tl.dot(of_scores.to(key.dtype), key, input_precision=precision)
        _stored(of_q, result, start, at, length, head, width, heads * width, width)


@triton.jit(do_not_specialize=["salt", "border"])
def _of_keys(  # type: ignore[no-untyped-def]
    q,
    k,
    v,
    logs,
    gradient,
    sums,
    of_k,
    of_v,
    keys,
    first,
    lengths,
    salt,
    border,
    scale,
    scaling,
    heads,
    of_head,
    of_token,
    drops: tl.constexpr,
    precision: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """The gradients of k and v."""
    row, head = tl.program_id(0), tl.program_id(1)
    start, length = tl.load(first + row), tl.load(lengths + row)
    at = tl.program_id(2) * block + tl.arange(0, block)
    if tl.program_id(2) * block < length:
        key = _loaded(k, start, at, length, head, of_head, of_token, width)
        value = _loaded(v, start, at, length, head, of_head, of_token, width)
        of_key = tl.zeros([block, width], tl.float32)
        of_value = tl.zeros([block, width], tl.float32)
        for begin in range(0, length, block):
            queries = begin + tl.arange(0, block)
            inside = queries < length
            query = _loaded(q, start, queries, length, head, of_head, of_token, width)
            given = _loaded(gradient, start, queries, length, head, width, heads * width, width)
            log = tl.load(logs + (start + queries) * heads + head, mask=inside, other=0.0)
            summed = tl.load(sums + (start + queries) * heads + head, mask=inside, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision=precision) * scaling
            weights = tl.where(inside[:, None] & (at < length)[None, :], tl.exp(scores - log[:, None]), 0.0)
            of_weights = tl.dot(given, tl.trans(value), input_precision=precision)
            dropped = weights
            if drops:
                keep = _keep(keys, salt, row, head, queries, at, border)
                dropped = tl.where(keep, weights * scale, 0.0)
                of_weights = tl.where(keep, of_weights * scale, 0.0)
            of_value += tl.dot(tl.trans(dropped.to(given.dtype)), given, input_precision=precision)
            of_scores = weights * (of_weights - summed[:, None]) * scaling
            of_key += tl.dot(tl.trans(of_scores.to(query.dtype)), query, input_precision=precision)
        _stored(of_k, of_key, start, at, length, head, width, heads * width, width)
        _stored(of_v, of_value, start, at, length, head, width, heads * width, width)


def fits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the kernels compute attention of these, (1, H, M, d) each."""
    if query.shape[-1] not in WIDTHS or query.stride(-1) != 1:
        return False
    return all((x.shape, x.stride(), x.dtype) == (query.shape, query.stride(), query.dtype) for x in (key, value))


class KernelAttention(torch.autograd.Function):
    """Attention of (1, H, M, d) each, a row of `tokens` for itself: (1, M, H, d).

    The weights are dropped with probability p by the int32 `keys` (B,) of the rows, see `KernelDropout`; not without
    keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tokens: Tokens,
        scaling: float,
        keys: Tensor | None,
        salt: int,
        p: float,
    ) -> Tensor:
        _, heads, M, width = query.shape
        out = query.new_empty(1, M, heads, width)
        logs = torch.empty(M, heads, dtype=torch.float32, device=query.device)
        scale, border = scale_and_border(p, torch.float32)
        block = min(_BLOCK, max(16, triton.next_power_of_2(tokens.length)))
        ctx.numbers = (tokens.first if keys is None else keys, tokens.first, tokens.lengths, salt, border, scale)
        ctx.numbers += (scaling, heads, query.stride(1), query.stride(2))
        ctx.grid = tokens.count, heads, triton.cdiv(tokens.length, block)
        precision = "ieee" if query.dtype == torch.float32 else "tf32"
        ctx.shape = {"drops": keys is not None, "precision": precision, "block": block, "width": width}
        _attention[ctx.grid](query, key, value, out, logs, *ctx.numbers, **ctx.shape)
        ctx.save_for_backward(query, key, value, out, logs)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, out, logs = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_q, of_k, of_v = (torch.empty_like(out) for _ in range(3))
        sums = torch.empty_like(logs)
        given = query, key, value, out, logs, gradient, of_q, sums
        _of_queries[ctx.grid](*given, *ctx.numbers, **ctx.shape)
        given = query, key, value, logs, gradient, sums, of_k, of_v
        _of_keys[ctx.grid](*given, *ctx.numbers, **ctx.shape)
        return (*(g.transpose(1, 2) for g in (of_q, of_k, of_v)), None, None, None, None, None)
