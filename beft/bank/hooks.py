"""What a bank does at the modules of its model, as forward hooks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .dropout import ForwardState


def dropout(state: ForwardState, place: int, p: float) -> Any:
    """Dropout of a module's output where it is on."""
    return lambda module, args, output: state.dropout(output, place, p)


def bias(state: ForwardState, delta: Callable[[], Tensor], put: Callable[[Tensor, int], Tensor], axis: int) -> Any:
    """What each row's run adds to a module's output.

    Args:
        delta: gives the biases of all runs (R, d).
        put: places d numbers in the width of the output.
        axis: of the output that has the bias.
    """

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if state.run_ids is None:  # every run at once, behind an encoder that no run changes
            return output + delta()[:, None].to(output.dtype)  # (R, B, d)
        run_ids = state.run_ids
        if len(output) != len(run_ids):
            # a lone run may also change what a batch shares, such as DeBERTa's embeddings of distances; OPT's
            # feed-forward layers have a row per token
            run_ids = run_ids[:1] if state.R == 1 else run_ids.repeat_interleave(len(output) // len(run_ids))
        added = put(delta().index_select(0, run_ids).to(output.dtype), output.shape[axis])  # (B, width)
        shape = [len(added)] + [1] * (output.dim() - 1)
        shape[axis] = -1
        return output + added.view(shape)  # (B, 1, width)

    return hook


def head(state: ForwardState, weight: Tensor, offset: Tensor) -> Any:
    """Each row's own head in the place of a module: weight (R, C, d), offset (R, C)."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):  # heads are small: always float32
            x = args[0].float()
            if state.run_ids is None:
                x = x if x.dim() == 3 else x.expand(state.R, *x.shape)  # (R, B, d)
                return torch.baddbmm(offset[:, None], x, weight.transpose(1, 2))  # (R, B, C)
            W = weight.index_select(0, state.run_ids)  # (B, C, d)
            return torch.einsum("b...d,bcd->b...c", x, W) + offset.index_select(0, state.run_ids)

    return hook


def first_token(module: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Inputs (B, T, d) of a module cut to the first token, (B, 1, d)."""
    return tuple(x[:, :1] for x in args)
