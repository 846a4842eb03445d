"""Which runs share a bank: how many fit into memory, and which have their backward pass in common."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..bank.slots import anatomy_in_bank, must_run_alone
from ..records.schema import key
from ..records.store import Store
from ..study import WEIGHT_METHODS, Run, parse_method
from ..training.loop import runs_of_checkpoint
from .context import Context
from .memory import bank_size, largest_bank


def divide(
    context: Context, wanted: Mapping[str, Run], missing: Collection[str], store: Store, size: int | None = None
) -> Iterator[list[Run]]:
    """The banks of the missing ones among the runs that are wanted, {key: run}.

    The runs of a bank decide together how sums are rounded. A sweep that goes on after an interruption therefore has
    the banks that it would have had without: first those with a checkpoint, then those of all wanted runs together.
    Where such a bank has only some runs missing, the others came from another sweep: the missing ones are then packed
    by themselves.
    """
    left = {name: run for name, run in wanted.items() if name in missing}
    for bank in unfinished(wanted, store):
        if not left.keys().isdisjoint(bank):
            yield list(bank.values())
            left = {name: run for name, run in left.items() if name not in bank}
    if not left:
        return
    runs = set(left.values())
    banks = list(pack(context, list(wanted.values()), size))
    if any(0 < len(runs.intersection(bank)) < len(bank) for bank in banks):
        yield from pack(context, list(left.values()), size)
    else:
        yield from (bank for bank in banks if runs.issuperset(bank))


def unfinished(wanted: Mapping[str, Run], store: Store) -> Iterator[dict[str, Run]]:
    """Banks whose checkpoint an interruption has left, {key: run} each, where all their runs are wanted."""
    names = {run: name for name, run in wanted.items()}
    for path in sorted((store.folder / "checkpoints").glob("*.safetensors")):
        runs = runs_of_checkpoint(path)
        if runs and all(run in names for run in runs):
            bank = {names[run]: run for run in runs}
            if key({"bank": list(bank)}) == path.stem:
                yield bank


def pack(context: Context, runs: Sequence[Run], size: int | None = None) -> Iterator[list[Run]]:
    """Which runs share a bank of at most `size`, by default as many as fit into memory.

    Heads alone together, because they need no backward pass through the encoder; runs of some layers with those of the
    same lowest layer, because theirs ends there; all else together. Runs that train weights have a bank each.
    """
    yield from ([r] for r in runs if r.method in WEIGHT_METHODS)
    if size is None:
        # of language models `Context.plan` fits the chunks; of an unknown architecture nothing is estimated
        size = largest_bank()
        methods = [r.method for r in runs if r.method not in WEIGHT_METHODS]
        if methods and len(runs) > 1 and not context.study.prompted and context.study.sites is None:
            size = bank_size(context.loaded.model, methods, context.study.max_length, context.study.dtype)
    for together in _by_depth([r for r in runs if r.method not in WEIGHT_METHODS]):
        alone = must_run_alone(anatomy_in_bank(context.loaded.model, context.study.sites), [r.method for r in together])
        count = len(together) if alone else -(-len(together) // size)
        for i in range(count):  # of nearly equal sizes
            yield together[i * len(together) // count : (i + 1) * len(together) // count]


def _by_depth(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs by how far down their backward pass goes: of heads not at all, of named layers to the lowest of them."""
    groups: dict[int, list[Run]] = {}
    for run_ in runs:
        layers = parse_method(run_.method).layers
        groups.setdefault(-1 if run_.method == "head" else layers[0] + 1 if layers else 0, []).append(run_)
    return [groups[depth] for depth in sorted(groups)]
