"""Which runs share a bank, and how many of them fit into memory, found by measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psutil
import torch

from .anatomy import describe
from .bank import bank_on
from .batches import CHUNKS
from .context import Context
from .objective import losses
from .slots import shares_places
from .study import WEIGHT_METHODS, Run
from .training import default_device

BANK = 24  # runs: enough sentences a step for chunks of nearly equal lengths
SHARE = (
    0.7  # of the free memory: the rest is for what is not measured, such as temporaries of a backward pass
)
ADAM = 4  # numbers per trained number: its value, gradient and two moments


def pack(context: Context, runs: Sequence[Run], size: int) -> Iterator[list[Run]]:
    """Heads alone together, because they need no backward pass through the encoder, and all else together.

    Runs that train weights have a bank each.
    """
    yield from ([r] for r in runs if r.method in WEIGHT_METHODS)
    heads = [r for r in runs if r.method == "head"]
    for mine in (heads, [r for r in runs if r.method not in ("head", *WEIGHT_METHODS)]):
        alone = mine and shares_places(describe(context.loaded.model), [r.method for r in mine])
        count = len(mine) if alone else -(-len(mine) // size)
        for i in range(count):  # of nearly equal sizes
            yield mine[i * len(mine) // count : (i + 1) * len(mine) // count]


def bank_size(context: Context, runs: Sequence[Run], free: int | None = None) -> int:
    """Most runs of a bank: `BANK`, or as many as fit into the memory that is free now.

    Two things are measured on the model itself: what a run keeps (its values, their gradients and moments, a row in
    every place that any run of the bank trains) and what one chunk keeps for its backward pass, which is the same for
    any number of runs.

    Args:
        free: bytes, instead of those of the default device.
    """
    methods = sorted({r.method for r in runs if r.method not in WEIGHT_METHODS})
    if not methods or len(runs) == 1:
        return BANK
    device = torch.device(default_device())
    free = free_memory(device) if free is None else free
    run, chunk = footprint(context, methods, device)
    return max(1, min(BANK, int((SHARE * free - chunk) // run)))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or available to a process on a CPU."""
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


def footprint(context: Context, methods: Sequence[str], device: torch.device) -> tuple[int, int]:
    """Bytes that a run keeps, and that a chunk keeps for its backward pass, of a bank that has all these methods."""
    study, model = context.study, context.loaded.model.to(device)
    rows, seen = 4, {}  # chunks are cut at multiples of four rows
    ids = torch.zeros(rows, study.max_length, dtype=torch.long, device=device)

    def note(kept: torch.Tensor) -> torch.Tensor:
        storage = kept.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return kept

    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kinds = methods[:1] if shares_places(describe(model), methods) else methods
    with bank_on(model, kinds, [0] * len(kinds), study.dtype) as bank:
        state = ADAM * sum(s.values.numel() * s.values.element_size() for s in bank.slots) // bank.R
        owner = torch.arange(rows, device=device) % bank.R
        with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if bank.language_model:  # of which few places are read
                bank(owner, None, **inputs, use_cache=False, logits_to_keep=8).log_softmax(-1).sum()
            else:
                target = ids[:, 0].float() if context.data.task.regression else ids[:, 0]
                losses(bank(owner, None, **inputs), target).sum()
    held = sum(size for place, size in seen.items() if place not in owned)
    return max(1, state), held * max(1, CHUNKS[device.type].tokens // ids.numel())
