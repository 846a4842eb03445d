"""The attention of a bank: dropout of its weights by keys, and no work for the padding of packed rows.

Tokens of a chunk are packed, see `unpadded`. Only attention needs rows: there, rows of like length are put together,
so that few of the scores are those of padding, and what comes of them is packed again. On a GPU a kernel does the same
without putting anything together.
"""

import copy
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

from .dropout import ForwardState, keep_bits, kernels, with_bits
from .unpadded import Tokens

KEYED = "beft"  # the name of `keyed_attention` in transformers
# What a group of rows costs beside its scores, in scores of one head: some thirty small operators.
GROUP = 8000
LONG = 128  # places of a group, beyond which torch's own attention is faster where it can be had

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

    Packed tokens, (1, H, M, d), are attended to within their rows; `attention_mask` then says nothing new.
    """
    state, place, p = _ATTENTION.get(module, (None, 0, 0.0))
    tokens = None if state is None else state.tokens
    if state is not None and tokens is not None and tokens.count > 1 and query.shape[0] == 1:
        scaling = scaling or query.shape[-1] ** -0.5
        if not query.is_cuda:
            return attend(module, query, key, value, scaling), None
        if (by := kernels()) is not None and by.attention.fits(query, key, value):
            keys = state.keys if p else None
            out = by.attention.KernelAttention.apply(query, key, value, tokens, scaling, keys, state.salt(place), p)
            return out, None
        query, key, value = (
            tokens.pad(x.transpose(1, 2).flatten(2)).unflatten(-1, (x.shape[1], -1)).transpose(1, 2)
            for x in (query, key, value)
        )
        out, _ = _attention(module, query, key, value, attention_mask, scaling, state, place, p, **kwargs)
        return tokens.pack(out.flatten(2)).unflatten(-1, out.shape[2:]), None
    return _attention(module, query, key, value, attention_mask, scaling, state, place, p, **kwargs)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, bias: Tensor | None = None
) -> Tensor:
    """Attention (1, M, H, d) of packed tokens, (1, H, M, d) each; `bias` (H, T, T) is added to the scores of each row.

    Of a layer behind which first tokens alone are read, only these are computed; the others are zeros.
    """
    state, place, p = _ATTENTION[module]
    tokens = state.tokens
    assert tokens is not None
    if key.shape[1] != query.shape[1]:  # heads of the query that share a key and a value
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    groups = Groups.of(tokens, query.shape[1], module is state.reads_first, bias)
    own = None if state.keys is None or not p else state.query_keys(place, query.shape[1], groups)
    return GroupedAttention.apply(query, key, value, groups, scaling, own, p, bias)  # type: ignore[no-any-return]


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


class Groups:
    """Rows of packed tokens in groups of like length, each as the matrices of its heads: (rows H, longest, d).

    The N keys are those of all groups one after another, places behind the end of a row included, and so are the
    queries: N, or one for a row and head where only first tokens ask. A group has rows and places more than it needs,
    so that there are few sizes: a CPU prepares products in bfloat16 for each, which takes longer than the product. What
    is more is of the group's last row and of each row's last token, and nothing comes of it.

    Attributes:
        first: whether only first tokens ask.
        sizes: of each group its number of matrices and its longest row.
        keys: which of (M H) each key is, (N,); behind the end of a row its last token, so that nothing of another row
            is read.
        queries: the same of the queries.
        packed: which key each of (M H) is, (M H,).
        row_heads: row and head of each query, as a place in (B H).
        places: its place in the row.
        added: of each group what is added to its scores, (rows H, queries or 1, longest): a bias, and -inf behind the
            end of a row; None where that is nothing.
        real: 1 for a query that something comes of, else 0, (queries, 1); None where all are real.
    """

    def __init__(self, tokens: Tokens, heads: int, bias: Tensor | None) -> None:
        lengths, device = tokens.lengths.cpu().numpy(), tokens.at.device
        begins, order = np.cumsum(lengths) - lengths, np.argsort(-lengths, kind="stable")
        self.first, self.sizes, self.added = False, [], []  # type: ignore[var-annotated]
        head, packed = np.arange(heads), np.empty((int(lengths.sum()), heads), dtype=np.int64)
        parts: list[tuple[np.ndarray, ...]] = []
        at = 0
        for start, stop in cut(lengths[order]):
            count, longest = stop - start, whole_length(int(lengths[order[start]]))
            rows = order[np.minimum(np.arange(start, start + whole_rows(count, longest)), stop - 1)]
            own = lengths[rows][:, None]
            place = np.arange(longest)
            within = place < own  # (rows, longest)
            real = within & (np.arange(len(rows)) < count)[:, None]
            token = begins[rows][:, None] + np.minimum(place, own - 1)
            shape = (len(rows), heads, longest)
            size = len(rows) * heads * longest
            packed[token[real]] = np.arange(at, at + size).reshape(shape).transpose(0, 2, 1)[real]
            at += size
            of_keys = token[:, None] * heads + head[:, None]
            row_heads = np.broadcast_to((rows[:, None] * heads + head)[..., None], shape)
            here = np.broadcast_to(np.minimum(place, tokens.length - 1), shape)
            parts.append(tuple(x.ravel() for x in (of_keys, row_heads, here, np.broadcast_to(real[:, None], shape))))
            self.sizes.append((len(rows) * heads, longest))
            self.added.append(_added(within, heads, bias, device))
        keys, row_heads, places, is_real = (np.concatenate(x) for x in zip(*parts, strict=True))
        self.keys, self.packed, self.row_heads, self.places = (
            torch.from_numpy(x).to(device) for x in (keys, packed.ravel(), row_heads, places)
        )
        self.queries = self.keys
        self.real = None if is_real.all() else torch.from_numpy(is_real.astype(np.float32))[:, None].to(device)

    @classmethod
    def of(cls, tokens: Tokens, heads: int, first: bool = False, bias: Tensor | None = None) -> "Groups":
        """Those of a chunk, made once; a chunk has one bias for all its layers."""
        if (heads, first) not in tokens.groups:
            made = cls.of(tokens, heads, False, bias)._asked_by_first() if first else cls(tokens, heads, bias)
            tokens.groups[heads, first] = made
        return tokens.groups[heads, first]  # type: ignore[no-any-return]

    def _asked_by_first(self) -> "Groups":
        """The same groups, where only first tokens ask."""
        made, at = copy.copy(self), 0
        firsts = []
        for n, longest in self.sizes:
            firsts.append(torch.arange(at, at + n * longest, longest, device=self.keys.device))
            at += n * longest
        index = torch.cat(firsts)
        made.first, made.added = True, [None if x is None else x[:, :1] for x in self.added]
        made.queries, made.row_heads, made.places = (
            x.index_select(0, index) for x in (self.keys, self.row_heads, self.places)
        )
        made.real = None if self.real is None else self.real.index_select(0, index)
        return made

    def of_keys(self, x: Tensor) -> list[Tensor]:
        """(N, ...) as the heads' matrices of each group, (rows H, longest, ...)."""
        if len(self.sizes) == 1:
            return [x.view(*self.sizes[0], -1)]
        pieces = x.split([n * longest for n, longest in self.sizes])
        return [piece.view(*size, -1) for piece, size in zip(pieces, self.sizes, strict=True)]

    def of_queries(self, x: Tensor) -> list[Tensor]:
        """The same of what queries have, (rows H, longest or 1, ...)."""
        if not self.first:
            return self.of_keys(x)
        return [piece[:, None] for piece in x.split([n for n, _ in self.sizes])]

    def pack(self, x: Tensor) -> Tensor:
        """What queries have, (N, d) or (B H, d), as (M H, d); zeros for those that do not ask."""
        if not self.first:
            return x.index_select(0, self.packed)
        if self.real is not None:  # what a row has twice is added once
            x = x * self.real.to(x.dtype)
        return x.new_zeros(len(self.packed), x.shape[1]).index_add_(0, self.queries, x)


def _added(within: np.ndarray, heads: int, bias: Tensor | None, device: torch.device) -> Tensor | None:
    if within.all() and bias is None:
        return None
    longest = within.shape[1]
    ends = torch.from_numpy(np.where(within, np.float32(0), np.float32("-inf"))).to(device)
    if bias is None:
        return ends.repeat_interleave(heads, 0)[:, None]
    more, exact = max(0, longest - bias.shape[2]), torch.promote_types(bias.dtype, torch.float32)
    own = nn.functional.pad(bias.detach().to(exact), (0, more, 0, more))[:, :longest, :longest]
    return (own + ends[:, None, None]).flatten(0, 1)


def whole_length(length: int) -> int:
    """Places of a group: a multiple of 8, and 16 at least, below which a softmax takes longer on a CPU."""
    return max(16, -(-length // 8) * 8)


def whole_rows(rows: int, longest: int) -> int:
    """Rows of a group: a multiple of 4, of more than 32 of 8, of more than 64 of 16, and so on.

    Of 2 for more than 32 places and of 1 for more than 64: a chunk has few such rows, and each costs much.
    """
    step = 4 if longest <= 32 else 2 if longest <= 64 else 1
    while 8 * step < rows:
        step *= 2
    return -(-rows // step) * step


def cut(lengths: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of groups of rows whose lengths (B,) descend: the fewest scores, where a group costs `GROUP`."""
    stops = [*(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]  # where another length begins
    starts = [0, *stops[:-1]]
    longest = [whole_length(int(lengths[i])) for i in starts]
    best, before = [0], [0]
    for j, stop in enumerate(stops):
        costs = [best[i] + GROUP + whole_rows(stop - starts[i], longest[i]) * longest[i] ** 2 for i in range(j + 1)]
        before.append(min(range(j + 1), key=costs.__getitem__))
        best.append(costs[before[-1]])
    groups, j = [], len(stops)
    while j > 0:
        groups.append((starts[before[j]], stops[j - 1]))
        j = before[j]
    return groups[::-1]


class GroupedAttention(torch.autograd.Function):
    """Attention (1, M, H, d) of packed tokens, (1, H, M, d) each, group by group, with keyed dropout of its weights.

    `keys` are those of `ForwardState.query_keys`; None for no dropout. `bias` (H, T, T) is part of what the groups add
    to scores, and is given for its gradient. In the precision of products under autocast; the softmax is float32, of
    double precision double.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        groups: Groups,
        scaling: float,
        keys: Tensor | None,
        p: float,
        bias: Tensor | None = None,
    ) -> Tensor:
        kind = query.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
        ctx.groups, ctx.scaling, ctx.scale = groups, scaling, 1.0 if keys is None else 1.0 / (1.0 - p)
        q = _flat(query, dtype).index_select(0, groups.queries)  # (N, d)
        k, v = (_flat(x, dtype).index_select(0, groups.keys) for x in (key, value))
        out = torch.empty_like(q)
        ctx.bias = (bias.shape, bias.dtype) if bias is not None and ctx.needs_input_grad[7] else None
        of_weights = any(ctx.needs_input_grad[:2]) or ctx.bias is not None
        exact = torch.promote_types(dtype, torch.float32)
        kept: list[Tensor | None] = []
        own = [None] * len(groups.sizes) if keys is None else [x.flatten() for x in groups.of_queries(keys)]
        with torch.autocast(kind, enabled=False):
            asked, answers = groups.of_queries(q), groups.of_queries(out)
            parts = zip(asked, groups.of_keys(k), groups.of_keys(v), answers, groups.added, own, strict=True)
            for a, b, c, answer, added, those in parts:
                if those is None and not any(ctx.needs_input_grad) and a.shape[1] > LONG:
                    answer.copy_(_without_scores(a, b, c, added, scaling))
                    continue
                scores = _product(a, b.transpose(1, 2), scaling, None if added is None else added.to(dtype))
                soft = torch.softmax(scores, -1, dtype=exact)
                weights, bits = soft.to(dtype), None
                if those is not None:
                    bits = keep_bits(those, b.shape[1], p).view(weights.shape)
                    weights = with_bits(weights, bits)
                _product(weights, c, ctx.scale, out=answer)
                kept += [weights, soft if of_weights else None, bits if of_weights else None]
        ctx.save_for_backward(q, k, v, *kept)
        return groups.pack(out).view(1, query.shape[2], query.shape[1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, *kept = ctx.saved_tensors
        groups: Groups = ctx.groups
        given = gradient.reshape(-1, gradient.shape[-1]).to(v.dtype).index_select(0, groups.queries)
        if groups.real is not None:
            given *= groups.real.to(given.dtype)
        found = [torch.empty_like(x) if n else None for x, n in zip((q, k, v), ctx.needs_input_grad, strict=False)]
        nothing = [None] * len(groups.sizes)
        of_q = nothing if found[0] is None else groups.of_queries(found[0])
        of_k, of_v = (nothing if x is None else groups.of_keys(x) for x in found[1:])
        asked, given = groups.of_queries(q), groups.of_queries(given)  # type: ignore[assignment]
        H = gradient.shape[2]
        of_bias = None if ctx.bias is None else gradient.new_zeros(ctx.bias[0], dtype=ctx.bias[1])
        parts = zip(asked, groups.of_keys(k), groups.of_keys(v), given, kept[::3], kept[1::3], kept[2::3], strict=True)
        for i, (a, b, c, g, weights, soft, bits) in enumerate(parts):
            if of_v[i] is not None:
                _product(weights.transpose(1, 2), g, ctx.scale, out=of_v[i])
            if soft is None:
                continue
            of_weights = _product(g, c.transpose(1, 2), ctx.scale)
            if bits is not None:
                of_weights = with_bits(of_weights, bits)
            of_scores = torch._softmax_backward_data(of_weights.to(soft.dtype), soft, -1, soft.dtype)
            if of_bias is not None:
                length = of_bias.shape[-1]
                of_rows = of_scores.unflatten(0, (-1, H)).sum(0)[:, :length, :length]  # (H, queries, keys)
                of_bias[:, : of_rows.shape[1], : of_rows.shape[2]] += of_rows
            of_scores = of_scores.to(v.dtype)
            if of_q[i] is not None:
                _product(of_scores, b, ctx.scaling, out=of_q[i])
            if of_k[i] is not None:
                _product(of_scores.transpose(1, 2), a, ctx.scaling, out=of_k[i])
        packed = [None if x is None else x.index_select(0, groups.packed) for x in found[1:]]
        packed.insert(0, None if found[0] is None else groups.pack(found[0]))
        of_inputs = (None if x is None else x.view(1, -1, H, x.shape[1]).transpose(1, 2) for x in packed)
        return (*of_inputs, None, None, None, None, of_bias)


def _without_scores(q: Tensor, k: Tensor, v: Tensor, added: Tensor | None, scaling: float) -> Tensor:
    """Attention of matrices (n, T, d) that keeps no scores."""
    mask = None if added is None else added.to(q.dtype)[None]
    sdpa = nn.functional.scaled_dot_product_attention
    return sdpa(q[None], k[None], v[None], attn_mask=mask, scale=scaling)[0]


def _flat(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(1, H, M, d) as (M H, d)."""
    return x[0].transpose(0, 1).to(dtype).reshape(-1, x.shape[-1])


def _product(a: Tensor, b: Tensor, alpha: float, added: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """alpha a b + added, of matrices (n, ...)."""
    if added is None:
        return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=alpha, out=out)
    return torch.baddbmm(added, a, b, alpha=alpha, out=out)
