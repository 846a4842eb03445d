"""Where a GPU computes the ends of an encoder's half layers, dropout, sum and layer norm, as one kernel."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from .dropout import ForwardState, kernels

# Of these, forward(x, residual) is LayerNorm(dropout(dense(x)) + residual).
ENDS = {f"{family}{part}" for family in ("Bert", "Roberta", "Electra") for part in ("SelfOutput", "Output")}
ENDS |= {f"{family}{part}" for family in ("XLMRoberta", "Camembert") for part in ("SelfOutput", "Output")}
ENDS |= {"MPNetOutput"}


class Fused:
    """A module whose forward is the kernel's until `remove`, like the handle of a hook.

    Args:
        end: one of `ENDS`.
        state: of the bank.
        place: the number of the module's dropout in the network.
    """

    def __init__(self, end: nn.Module, state: ForwardState, place: int) -> None:
        self.end = end
        vars(end)["forward"] = partial(_forward, end, state, place)

    def remove(self) -> None:
        """Let the module compute as it did."""
        vars(self.end).pop("forward", None)


def _forward(end: Any, state: ForwardState, place: int, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    x, norm, p = end.dense(hidden_states), end.LayerNorm, end.dropout.p
    # a run adds to its bias, or trains it or its weight
    if norm._forward_hooks or norm.weight.requires_grad or norm.bias.requires_grad:
        return norm(end.dropout(x) + input_tensor)  # type: ignore[no-any-return]
    by = kernels()
    assert by is not None
    keys = state.keys if p else None
    tokens = state.tokens if state.tokens is not None and state.tokens.hold(x) else None
    frozen = norm.weight, norm.bias, norm.eps
    return by.norm.KernelNorm.apply(x, input_tensor, *frozen, keys, state.salt(place), p, tokens)  # type: ignore[no-any-return]


def fuse(model: Any, state: ForwardState, places: dict[nn.Module, int]) -> list[Fused]:
    """The ends of a model on a GPU, where there are kernels; `places` are the numbers of the dropouts."""
    by = kernels()
    if by is None:
        return []
    ends = [m for m in model.modules() if type(m).__name__ in ENDS and m.LayerNorm.bias is not None]
    return [Fused(m, state, places[m.dropout]) for m in ends if len(m.LayerNorm.weight) <= by.norm.WIDEST]
