"""Parts of an encoder's layer as one operator.

The end of half a layer, dropout, sum and layer norm, which on a GPU is a kernel; and on a CPU query, key and value as
one product.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .attention import attend
from .dropout import ForwardState, keep_bits, kernels, with_bits

# Of these, forward(x, residual) is LayerNorm(dropout(dense(x)) + residual).
ENDS = {f"{family}{part}" for family in ("Bert", "Roberta", "Electra") for part in ("SelfOutput", "Output")}
ENDS |= {f"{family}{part}" for family in ("XLMRoberta", "Camembert") for part in ("SelfOutput", "Output")}
ENDS |= {"MPNetOutput"}
# Of these, forward(x, ...) is LayerNorm(dropout(attn(x, ...)[0]) + x), and attn is of `WRITTEN`.
AROUND = {"MPNetAttention"}
# Attentions that are written out: scores with a bias of positions, softmax, dropout.
WRITTEN = {"MPNetSelfAttention"}


class Fused:
    """A module whose forward is another until `remove`, like the handle of a hook."""

    def __init__(self, module: nn.Module, forward: Any) -> None:
        self.module = module
        vars(module)["forward"] = forward

    def remove(self) -> None:
        """Let the module compute as it did."""
        vars(self.module).pop("forward", None)


def _end(end: Any, state: ForwardState, place: int, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    return _ended(end, state, place, *_parted(end, state, end.dense(hidden_states), input_tensor))


def _around(end: Any, state: ForwardState, place: int, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    out, *others = end.attn(hidden_states, *args, **kwargs)
    return _ended(end, state, place, *_parted(end, state, out, hidden_states)), *others


def _parted(end: Any, state: ForwardState, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """The output of an attention and its residual, of every run where they part here.

    The weights of an attention sum to one, so what a run adds to all values passes it as it is.
    """
    parting = state.parting
    if parting is None or parting.end is not end or not state.shared or state.run_ids is not None:
        return x, residual
    weight = parting.projection.weight
    own = nn.functional.linear(parting.values().to(weight.dtype), weight)  # (R, d)
    x, residual = state.of_each_run(x, own), state.of_each_run(residual)
    state.part(x.device)
    return x, residual


def end_of_attention(layer: nn.Module, fused: Sequence["Fused"]) -> tuple[nn.Module, nn.Linear] | None:
    """Of the fused parts, the one that ends a layer's attention, and the linear layer of the attention's output.

    None where that layer is more than its weight and bias.
    """
    ends = {own.module for own in fused}
    for module in layer.modules():
        kind = type(module).__name__
        if module in ends and (kind in AROUND or kind.endswith("SelfOutput")):
            projection = module.attn.o if kind in AROUND else module.dense  # type: ignore[union-attr]
            return (module, projection) if type(projection) is nn.Linear else None
    return None


def is_hooked(module: nn.Module) -> bool:
    """Whether a module computes something else than its class does."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def _ended(end: Any, state: ForwardState, place: int, x: Tensor, residual: Tensor) -> Tensor:
    norm, p = end.LayerNorm, end.dropout.p
    # a run adds to its bias, or trains it or its weight, or what comes is more than is read, or is not to be float32
    own = norm._forward_hooks or norm._forward_pre_hooks or norm.weight.dtype != torch.float32
    if own or norm.weight.requires_grad or norm.bias.requires_grad:
        return norm(end.dropout(x) + residual)  # type: ignore[no-any-return]
    keys = state.keys if p else None
    tokens = state.tokens if state.tokens is not None and state.tokens.hold(x) else None
    frozen = norm.weight, norm.bias, norm.eps
    if x.is_cuda and (by := kernels()) is not None:
        return by.norm.KernelNorm.apply(x, residual, *frozen, keys, state.salt(place), p, tokens)  # type: ignore[no-any-return]
    if keys is not None and tokens is None:
        return norm(end.dropout(x) + residual)  # type: ignore[no-any-return]
    bits = None if keys is None else keep_bits(state.token_keys(place), x.shape[-1], p)[None]
    return DropSumNorm.apply(x, residual, *frozen, bits, 1.0 / (1.0 - p))  # type: ignore[no-any-return]


def fuse(model: Any, state: ForwardState, places: dict[nn.Module, int]) -> list[Fused]:
    """The ends of a model; `places` are the numbers of the dropouts."""
    ends, widest = dict.fromkeys(ENDS, _end) | dict.fromkeys(AROUND, _around), None
    if next(model.parameters()).is_cuda:
        if (by := kernels()) is None:
            return []
        ends, widest = dict.fromkeys(ENDS, _end), by.norm.WIDEST
    found = [m for m in model.modules() if type(m).__name__ in ends and m.LayerNorm.bias is not None]
    if widest:
        found = [m for m in found if len(m.LayerNorm.weight) <= widest]
    return [Fused(m, partial(ends[type(m).__name__], m, state, places[m.dropout])) for m in found]


def rewrite(attentions: Sequence[nn.Module], state: ForwardState) -> list[Fused]:
    """Attentions that are written out, as `attend` computes them where tokens are packed; none if there are others."""
    if not all(type(m).__name__ in WRITTEN for m in attentions):
        return []
    return [Fused(m, partial(_attend, m, state)) for m in attentions]


def _attend(
    own: Any,
    state: ForwardState,
    hidden_states: Tensor,
    attention_mask: Any = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    x, tokens = hidden_states, state.tokens
    if tokens is None or not tokens.hold(x) or position_bias is None:
        return type(own).forward(own, x, attention_mask, position_bias, **kwargs)
    shape = (*x.shape[:2], own.num_attention_heads, own.attention_head_size)
    query, key, value = (m(x).view(shape).transpose(1, 2) for m in (own.q, own.k, own.v))
    # positions are counted in each row, so all rows have the same bias
    out = attend(own, query, key, value, own.attention_head_size**-0.5, position_bias[0])
    return (own.o(out.flatten(2)),)


class DropSumNorm(torch.autograd.Function):
    """norm(dropout(x) + residual), (..., d) each, in float32, by a frozen layer norm's weight and bias (d,).

    Dropout is by `bits` (..., d) of `keep_bits`; none without them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        bits: Tensor | None,
        scale: float,
    ) -> Tensor:
        kept, ctx.scale = (x, 1.0) if bits is None else (with_bits(x, bits), scale)
        total = torch.add(residual, kept, alpha=ctx.scale).float()
        out, mean, spread = torch.native_layer_norm(total, weight.shape, weight, bias, eps)
        ctx.save_for_backward(total, mean, spread, weight, bias, bits)
        ctx.types = x.dtype, residual.dtype
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        total, mean, spread, weight, bias, bits = ctx.saved_tensors
        given = gradient.contiguous(), total, weight.shape, mean, spread, weight, bias
        of_total, *_ = torch.ops.aten.native_layer_norm_backward(*given, [True, False, False])
        of_x = (of_total * ctx.scale).to(ctx.types[0])
        if bits is not None:
            of_x = with_bits(of_x, bits)
        return of_x, of_total.to(ctx.types[1]), None, None, None, None, None


class Together:
    """Query, key and value of an attention as one product until `remove`, like the handle of a hook.

    Whoever is called first computes the others, which keep them for a call with the same input. Of an attention of
    which only first tokens are read the query is computed of these alone, and is zero elsewhere.
    """

    def __init__(self, projections: Sequence[nn.Linear], state: ForwardState, attention: nn.Module) -> None:
        self.projections, self.state, self.attention = projections, state, attention
        # views of one matrix, so that nothing is there twice
        self.weight = torch.cat([p.weight.detach() for p in projections])
        self.bias = torch.cat([p.bias.detach() for p in projections])
        self.sizes = [len(p.bias) for p in projections]
        ends = zip(projections, self.weight.split(self.sizes), self.bias.split(self.sizes), strict=True)
        for own, weight, bias in ends:
            own.weight.data, own.bias.data = weight, bias
        self.given: Tensor | None = None
        self.made: dict[int, Tensor] = {}
        for i, own in enumerate(projections):
            vars(own)["forward"] = partial(self._forward, i)

    def _forward(self, i: int, x: Tensor) -> Tensor:
        if self.given is not x:
            self.given, self.made = x, self._products(x)
        out = self.made.pop(i, None)
        if out is None:  # asked again
            return nn.functional.linear(x, self.projections[i].weight, self.projections[i].bias)
        if not self.made:
            self.given = None
        return out

    def _products(self, x: Tensor) -> dict[int, Tensor]:
        tokens, q = self.state.tokens, self.sizes[0]
        if tokens is None or not tokens.hold(x) or self.state.reads_first is not self.attention:
            return dict(enumerate(nn.functional.linear(x, self.weight, self.bias).split(self.sizes, -1)))
        rest = nn.functional.linear(x, self.weight[q:], self.bias[q:]).split(self.sizes[1:], -1)
        asked = nn.functional.linear(tokens.firsts(x)[:, 0], self.weight[:q], self.bias[:q])
        return {0: tokens.spread(asked), **dict(enumerate(rest, 1))}

    def remove(self) -> None:
        """Let each compute its own."""
        for own in self.projections:
            vars(own).pop("forward", None)
            own.weight.data, own.bias.data = own.weight.data.clone(), own.bias.data.clone()


def put_together(
    model: nn.Module, attentions: Sequence[nn.Module], names: Sequence[Sequence[str]], state: ForwardState
) -> list[Together]:
    """The attentions whose query, key and value, `names` of each, are frozen linear layers with biases."""
    found = []
    for attention, own in zip(attentions, names, strict=True):
        layers = [model.get_submodule(name) for name in own]
        if all(type(m) is nn.Linear and m.bias is not None and not m.weight.requires_grad for m in layers):
            found.append(Together(layers, state, attention))  # type: ignore[arg-type]
    return found
