"""What a bank does at the modules of its model, as forward hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .dropout import Switch
from .slots import Slot

if TYPE_CHECKING:
    from .bank import BiasBank

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)  # their outputs have the bias on axis 1


def dropout(switch: Switch, place: int, p: float) -> Any:
    """Dropout of a module's output where the switch is on."""
    return lambda module, args, output: switch(output, place, p)


def bias(bank: BiasBank, slot: Slot) -> Any:
    """What each example's run adds to a module's output."""
    axis = 1 if isinstance(bank.model.get_submodule(slot.module), CONVOLUTIONS) else -1

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        if bank.rows is None:  # every run at once, behind an encoder that no run changes
            return output + slot.delta()[:, None].to(output.dtype)  # (R, B, d)
        rows = bank.rows
        if len(output) != len(rows):
            # a lone run may also change what a batch shares, such as DeBERTa's embeddings of distances; OPT's
            # feed-forward layers have a row per token
            rows = rows[:1] if bank.R == 1 else rows.repeat_interleave(len(output) // len(rows))
        delta = slot.delta().index_select(0, rows).to(output.dtype)  # (B, d)
        delta = slot.part.put(delta, output.shape[axis])
        shape = [len(delta)] + [1] * (output.dim() - 1)
        shape[axis] = -1
        return output + delta.view(shape)  # (B, 1, d)

    return hook


def head(bank: BiasBank, weight: Tensor, offset: Tensor) -> Any:
    """Each example's own head in the place of a module: weight (R, C, d), offset (R, C)."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        with torch.autocast(bank.device.type, enabled=False):  # heads are small: always float32
            x = args[0].float()
            if bank.rows is None:
                x = x if x.dim() == 3 else x.expand(bank.R, *x.shape)  # (R, B, d)
                return torch.baddbmm(offset[:, None], x, weight.transpose(1, 2))  # (R, B, C)
            W = weight.index_select(0, bank.rows)  # (B, C, d)
            return torch.einsum("b...d,bcd->b...c", x, W) + offset.index_select(0, bank.rows)

    return hook


def first_token(module: nn.Module, args: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Inputs (B, T, d) of a module cut to the first token, (B, 1, d)."""
    return tuple(x[:, :1] for x in args)


def attention_dropout(attention: nn.Module) -> float:
    """The drop probability of attention weights, where the families keep it."""
    for name in ("dropout", "attention_dropout", "dropout_prob", "attn_dropout"):
        value = getattr(attention, name, None)
        if isinstance(value, nn.Dropout):
            return value.p
        if isinstance(value, float):
            return value
    return 0.0
