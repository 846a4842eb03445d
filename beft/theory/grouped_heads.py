"""What a bias does that a language model did not have: which heads it moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.projections import describe
from ..anatomy.sites import LINEAR
from ..bank.baselines import open_bank
from ..bank.slots import BiasSlot
from ..errors import BeftError
from .expressiveness import Batch


def moved_heads(model: nn.Module, batch: Batch, layer: int = 0, entry: int = 0) -> Tensor:
    """How far one number of the layer's b_v, raised by 1, moves each head's output: (heads,), in units of the number.

    THEORY section 2: attention's weights sum to one, so a value bias arrives whole, in every query head that shares
    its kv-head. The largest change over tokens and entries is taken; works where the model has no bias.

    Args:
        batch: one tokenised batch.
        layer: whose bias.
        entry: which of its numbers.

    Raises:
        BeftError: the layer's output projection was not found.
    """
    found = describe(model)
    site = found.of("v")[layer]
    attention = site.module.rpartition(".")[0]
    taken = {s.module for s in found.sites}
    outputs = [
        module
        for name, module in model.get_submodule(attention).named_children()
        if isinstance(module, LINEAR) and f"{attention}.{name}" not in taken
    ]
    if len(outputs) != 1:
        raise BeftError(f"{attention} has {len(outputs)} output projections and not one: use another model")
    seen: list[Tensor] = []
    hook = outputs[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    inputs: dict[str, Any] = {**batch, "use_cache": False}
    try:
        with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
            rows = torch.zeros(len(batch["input_ids"]), dtype=torch.long)
            bank(rows, **inputs)
            slots = [s for s in bank.slots if isinstance(s, BiasSlot)]
            slot = next(s for s in slots if (s.module, s.part) == (site.module, site.part))
            slot.values[0, entry] += 1.0
            bank(rows, **inputs)
    finally:
        hook.remove()
    change = (seen[1] - seen[0]).abs()  # (B, T, heads * head size)
    return change.unflatten(-1, (found.heads, -1)).amax(dim=(0, 1, 3))
