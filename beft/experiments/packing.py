"""Which runs share a bank, and how many of them fit into memory, found by measuring."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..anatomy.projections import describe
from ..bank.bank import bank_on
from ..bank.slots import shares_places
from ..data.batching import CHUNKS
from ..records.schema import jsonable
from ..study import ALL_METHODS, WEIGHT_METHODS, Run
from ..training.loop import default_device
from ..training.objective import losses
from .context import Context
from .memory import ADAM, BANK, SHARE, free_memory


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


def former_banks(context: Context, runs: Sequence[Run], records: Sequence[dict]) -> list[list[Run]]:
    """The whole banks that some of these runs were in once, as the records of the other runs of each tell.

    The company of a run decides how its sums are rounded: only in its former bank does a run whose record was deleted
    come out to the last bit as before. A bank that lost all its records is forgotten.
    """
    common = jsonable({n: v for n, v in context.common().items() if n != "validate"})
    kept: dict[tuple[float | None, int], list[dict]] = {}  # seconds of a bank tell it from every other
    for record in records:
        if common.items() <= record["settings"].items() and record["bank"].get("runs", 1) > 1:
            kept.setdefault((record["bank"].get("seconds"), record["bank"]["runs"]), []).append(record)
    banks = []
    left = [r for r in runs if r.method not in WEIGHT_METHODS]
    for (_, size), records in kept.items():
        members = _members(records, size, left)
        if members:
            banks.append(members)
            left = [r for r in left if r not in members]
    return banks


def _members(records: Sequence[dict], size: int, missing: Sequence[Run]) -> list[Run]:
    """The runs of a bank of which these records are left, if some of its runs are missing; else none.

    Older records do not name their company: there as many runs must be missing as the bank lacks.
    """
    found = [Run(r["settings"]["method"], r["settings"]["seed"], r["settings"]["rate"]) for r in records]
    if "of" in records[0]["bank"]:
        whole = [Run(*member) for member in records[0]["bank"]["of"]]
        return whole if any(r in missing for r in whole) else []
    alike = [r for r in missing if (r.method == "head") == (found[0].method == "head")]
    if not alike or len(found) + len(alike) != size:
        return []
    return sorted([*found, *alike], key=lambda r: (ALL_METHODS.index(r.method), r.rate, r.seed))


def bank_size(context: Context, runs: Sequence[Run], free: int | None = None) -> int:
    """Most runs of a bank: `BANK`, or as many as fit into the memory that is free now.

    Two things are measured on the model itself: what a run keeps (its values, their gradients and moments, a row in
    every place that any run of the bank trains) and what one chunk keeps for its backward pass, which is the same for
    any number of runs.

    Args:
        free: bytes, instead of those of the default device.
    """
    methods = sorted({r.method for r in runs if r.method not in WEIGHT_METHODS})
    if not methods or len(runs) == 1 or context.study.prompted:  # of those `Context.plan` sets the chunks
        return BANK
    device = torch.device(default_device())
    free = free_memory(device) if free is None else free
    run, chunk = footprint(context, methods, device)
    return max(1, min(BANK, int((SHARE * free - chunk) // run)))


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
            target = ids[:, 0].float() if context.labelled.task.regression else ids[:, 0]
            losses(bank(owner, None, input_ids=ids, attention_mask=torch.ones_like(ids)), target).sum()
    held = sum(size for place, size in seen.items() if place not in owned)
    return max(1, state), held * max(1, CHUNKS[device.type].tokens // ids.numel())
