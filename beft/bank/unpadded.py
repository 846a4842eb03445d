"""The real tokens of a chunk one after another: what treats tokens separately is not computed for padding.

But for the attention's scores an encoder treats every token by itself. There a chunk of B rows of at most T tokens is
a matrix of its M real tokens, (1, M, d). Attention takes its rows from that, see `attention`, or gets (B, T, d) with
zeros for padding, and what comes of it is packed again. So rows of unlike lengths share a chunk, and there are few
chunks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batching import whole

# Share of the matrix products that is done for padding too: none, or those of attentions that put rows together no
# other way than by their inputs (query, key, value and output of 12 parts).
INSIDE, AROUND = 0.0, 1 / 3
SCORES = 0.2  # share of an encoder's work that the scores are at least
CALL = 128  # what a chunk costs beside its tokens, in tokens: many operators, few of them large


class Tokens:
    """Where the real tokens of a chunk are.

    Args:
        length: tokens of a padded row, T.
        at: the place of each among all B x T, ascending (M,).
        lengths: tokens of each row, (B,).

    Attributes:
        rows: the row of each, (M,).
        places: its place in that row, (M,).
        first: that of each row's first token among the M, (B,).
        groups: the same rows as `attention` takes them, by what it asks for.
    """

    def __init__(self, length: int, at: Tensor, lengths: Tensor) -> None:
        self.count, self.length, self.at, self.lengths = len(lengths), length, at, lengths
        self.rows, self.places = at // length, at % length
        self.first = lengths.cumsum(0) - lengths
        self.groups: dict[Any, Any] = {}

    @classmethod
    def of(cls, mask: Tensor) -> "Tokens":
        """Those that a mask (B, T) names."""
        return cls(mask.shape[1], mask.flatten().nonzero()[:, 0], mask.sum(1))

    def hold(self, x: Tensor) -> bool:
        """Whether x is (1, M, d), and not (B, ...)."""
        return x.dim() == 3 and x.shape[0] == 1 < self.count and x.shape[1] == len(self.at)

    def times(self, runs: int) -> "Tokens":
        """Those of the same rows, repeated for each of several runs."""
        mask = torch.zeros(self.count * self.length, dtype=torch.long, device=self.at.device)
        mask[self.at] = 1
        return Tokens.of(mask.view(self.count, self.length).repeat(runs, 1))

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, d) as (1, M, d)."""
        return _Take.apply(x.flatten(0, 1), self.at)[None]  # type: ignore[no-any-return]

    def pad(self, x: Tensor) -> Tensor:
        """(1, M, d) as (B, T, d), zeros for padding."""
        return _Put.apply(x[0], self.at, self.count * self.length).unflatten(0, (self.count, self.length))  # type: ignore[no-any-return]

    def spread(self, x: Tensor) -> Tensor:
        """What the first token of each row has, (B, d), as (1, M, d), zeros for the others."""
        return _Put.apply(x, self.first, len(self.at))[None]  # type: ignore[no-any-return]

    def firsts(self, x: Tensor) -> Tensor:
        """The first token of each row, (B, 1, d), of (1, M, d)."""
        return x[0].index_select(0, self.first)[:, None]


def tokens_of(mask: Tensor | None, full: bool = False) -> Tokens | None:
    """The tokens of a mask (B, T) that is worth it: several rows, padded on the right alone, some padded or `full`."""
    if mask is None or mask.dim() != 2 or len(mask) < 2:
        return None
    if not bool(mask[:, 0].all() & (mask[:, 1:] <= mask[:, :-1]).all()):
        return None
    return Tokens.of(mask) if full or not bool(mask.all()) else None


def filled_up(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs (B, T) with rows behind them that nothing comes of, so that the tokens of all are `batching.whole`.

    They are of the first row's first token. The same inputs where some are of another shape.
    """
    mask = inputs.get("attention_mask")
    if mask is None or any(x.shape != mask.shape for x in inputs.values()):
        return dict(inputs)
    count, T = int(mask.sum()), mask.shape[1]
    more = whole(count) - count
    rows = -(-more // T)
    filled = {name: torch.cat([x, x[:1, :1].expand(rows, T)]) for name, x in inputs.items()}
    filled["attention_mask"][len(mask) :] = torch.arange(rows * T, device=mask.device).view(rows, T) < more
    return filled


class _Take(torch.autograd.Function):
    """Rows `at` of x (N, d), each at most once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Tensor) -> Tensor:
        ctx.size = len(x)
        ctx.save_for_backward(at)
        return x.index_select(0, at)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (at,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.size, gradient.shape[1]).index_copy_(0, at, gradient), None


class _Put(torch.autograd.Function):
    """x (M, d) in the rows `at` of zeros (N, d)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, at: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(at)
        return x.new_zeros(size, x.shape[1]).index_copy_(0, at, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (at,) = ctx.saved_tensors
        return gradient.index_select(0, at), None, None


class OfTokens(torch.autograd.Function):
    """What each row has, out of (R, d) by the rows' runs (B,), for each of its tokens: (M, d), in precision `dtype`.

    `each`: so many rows of every run stand in the order of the runs, and behind them rows that nothing comes of; 0
    where that is not known.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, runs: Tensor, tokens: Tokens, each: int = 0, dtype: torch.dtype | None = None
    ) -> Tensor:
        own = runs.index_select(0, tokens.rows)
        ctx.size, ctx.dtype, ctx.tokens, ctx.each = len(values), values.dtype, tokens, each
        ctx.save_for_backward(runs, own)
        return values.to(dtype or values.dtype).index_select(0, own)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        runs, own = ctx.saved_tensors
        # sums and no product with the runs' ones and zeros: 0 x NaN is NaN, and would be in every run
        gradient = gradient.to(ctx.dtype)
        if not gradient.is_cuda:
            return gradient.new_zeros(ctx.size, gradient.shape[1]).index_add_(0, own, gradient), None, None, None, None
        # an order of additions that is the same each time, which a GPU's `index_add_` of many rows has not
        lengths = ctx.tokens.lengths
        of_rows = torch.segment_reduce(gradient.contiguous(), "sum", lengths=lengths, unsafe=True)  # (B, d)
        if ctx.each:
            return of_rows[: ctx.size * ctx.each].unflatten(0, (ctx.size, -1)).sum(1), None, None, None, None
        found = gradient.new_zeros(ctx.size, gradient.shape[1]).index_add_(0, runs, of_rows)
        return found, None, None, None, None


def unpad(layers: Sequence[nn.Module], attentions: Sequence[nn.Module], state: Any, inside: bool) -> list[Any]:
    """Hooks by which layers see (1, M, d), where `state.tokens` is set.

    Their attentions get the same where they put it into rows and back themselves (`inside`, see `attention`), then in
    the precision of their products, cast once for all of them; else (B, T, d).
    """

    def enter(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        tokens = state.tokens
        if tokens is not None and args[0].shape[:2] != (tokens.count, tokens.length):
            state.tokens = tokens = None  # virtual tokens stand in front of the text's, as those of a frozen prompt
        return None if tokens is None else (tokens.pack(args[0]), *args[1:])

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if state.tokens is None:
            return None
        x, kind = args[0], args[0].device.type
        x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
        return (x if inside else state.tokens.pad(x), *args[1:])

    def behind(_: nn.Module, args: Any, output: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return None if state.tokens is None else (state.tokens.pack(output[0]), *output[1:])

    handles = [layers[0].register_forward_pre_hook(enter)]
    for attention in attentions:
        handles.append(attention.register_forward_pre_hook(before))
        if not inside:
            handles.append(attention.register_forward_hook(behind))
    return handles
