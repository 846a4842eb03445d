"""PEFTDebias, phase one: patches trained on both sides of every text by language modelling, and a record each.

Encoders are told masked tokens (`masking`), decoders the next ones (`next_tokens`).

Biases of all seeds share one bank; LoRA, the adapter, the prompt and full have a bank each. What is kept of a patch is
its own file, and beside it the same in PEFT's format where PEFT has one. Sparse fine-tuning (Ansell
et al. 2022) is two rounds: everything is trained, the entries that moved most are kept and all is rewound, then these
alone are trained; there are as many of them as LoRA has numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..anatomy.projections import describe
from ..bank.bank import BiasBank, bank_on
from ..bank.baselines import ENTRIES, encoder_parameters
from ..data.datasets import Dataset
from ..errors import BeftError, unknown
from ..models.loading import Loaded
from ..records.provenance import origin, provenance
from ..records.run_log import log_runs
from ..records.schema import key
from ..records.store import Store
from ..study import BIAS_PATCHES, PATCHES, Result, Run, Study
from ..training.causal_lm import NextTokens
from ..training.loop import default_device, fit
from ..training.masked_lm import Masked
from .patches import Patch, load_patch, patch_of, save_peft

Record = dict[str, Any]
Measure = Callable[[Any, int], dict[str, Any]]  # a model or a bank, and its run -> intrinsic measures


@dataclass(frozen=True)
class PatchRun:
    """One patch: what is trained, its seed and rate."""

    method: str
    seed: int
    rate: float

    def __post_init__(self) -> None:
        if self.method not in PATCHES:
            raise unknown("patch", self.method, PATCHES)


@dataclass(frozen=True)
class Phase:
    """What the patches of a corpus share.

    Attributes:
        loaded: a language model, as `models.load_masked` or `models.load_causal` gives it.
        corpus: texts with their counterfactuals, along `axis`.
        study: settings of the training; its task is the corpus.
        measure: the intrinsic measures that go into a record, told by `measured` in words or as a hash.
    """

    loaded: Loaded
    corpus: Dataset
    axis: str
    study: Study
    measure: Measure
    measured: str

    def settings(self, run: PatchRun | None) -> dict[str, Any]:
        """What identifies a patch; of none, the model as it is."""
        common: Record = {"kind": "patch", "model": self.loaded.name, "model_sha256": self.loaded.sha256}
        common |= {"measured": self.measured, "max_length": self.study.max_length}
        if run is None:
            return common | {"method": "none"}
        study = {n: v for n, v in self.study.identity().items() if n not in ("model", "validate", "regime")}
        study |= {
            "task": self.corpus.task.name,
            "axis": self.axis,
            "data_fingerprint": self.corpus.fingerprint,
        }
        return common | study | {"method": run.method, "seed": run.seed, "rate": float(run.rate)}


def untouched(phase: Phase, store: Store) -> Record:
    """The record of the model as it is, without a patch."""
    wanted = phase.settings(None)
    found = store.find(wanted)
    if found is None:
        began = time.perf_counter()
        measures = phase.measure(phase.loaded.model.to(default_device()), 0)
        store.write(_record(phase, wanted, {}, [], measures, None, time.perf_counter() - began, "ok"))
        found = store.find(wanted)
    assert found is not None
    return found


def train_patches(
    phase: Phase, runs: Sequence[PatchRun], store: Store, progress: bool = True
) -> list[Record]:
    """The records of `runs`, in order; patches that `store` lacks are trained first, see `patch`.

    Raises:
        BeftError: what model, corpus and memory say; finished patches stay.
    """
    settings = [phase.settings(run) for run in runs]
    todo = [run for run, s in zip(runs, settings, strict=True) if store.find(s) is None]
    banks = _banks(todo, [record for s in settings if (record := store.find(s)) is not None])
    rounds = sum(len(bank) * (2 if bank[0].method == "sparse" else 1) for bank in banks)
    with tqdm(
        total=rounds * phase.study.epochs,
        desc=f"{len(todo)} patches against {phase.axis}",
        unit="epoch",
        mininterval=5.0,
        disable=not (progress and todo),
    ) as bar:
        for bank in banks:
            with store.lock(_name(phase, bank)):  # another process may have trained it while we waited
                if any(store.find(phase.settings(run)) is None for run in bank):
                    _train(phase, bank, store, bar)
    log_runs(done=len(todo), reused=len(runs) - len(todo), failed=0)
    found = [store.find(s) for s in settings]
    return [record for record in found if record is not None]


def patch(phase: Phase, run: PatchRun, store: Store) -> Patch:
    """The patch of a run; where its file is not kept, it is trained again.

    Raises:
        BeftError: the run diverged.
    """
    name = key(phase.settings(run))
    folder = store.fetch(name)
    if folder is None:
        # in the company it had: that decides how sums are rounded
        company = _company(store.find(phase.settings(run))) or [run]
        with tqdm(total=len(company) * phase.study.epochs, desc=f"{run.method} again", unit="epoch") as bar:
            _train(phase, company, store, bar)
        folder = store.fetch(name)
    if folder is None:
        record = store.find(phase.settings(run))
        raise BeftError(
            f"the {run.method} patch of seed {run.seed} {record['outcome'] if record else 'is lost'}"
        )
    return load_patch(folder)


def _company(record: Record | None) -> list[PatchRun]:
    """The patches that the one of `record` was trained with, itself among them; none where it was trained alone."""
    members = record["bank"].get("of", []) if record else []
    return [PatchRun(*member) for member in members] if len(members) > 1 else []


def _banks(todo: list[PatchRun], found: list[Record]) -> list[list[PatchRun]]:
    """What is trained together: all biases, everything else alone.

    A bias whose record was deleted is trained in the company it had, which the records of that company name: it decides
    how sums are rounded.
    """
    left, banks = [run for run in todo if run.method in BIAS_PATCHES], []
    for record in found:
        former = _company(record)
        if any(run in former for run in left):
            banks.append(former)
            left = [run for run in left if run not in former]
    return banks + ([left] if left else []) + [[run] for run in todo if run.method not in BIAS_PATCHES]


def _problem(phase: Phase) -> type[Masked] | type[NextTokens]:
    return NextTokens if describe(phase.loaded.model).causal else Masked


def _name(phase: Phase, runs: Sequence[PatchRun]) -> str:
    return key({"bank": [key(phase.settings(run)) for run in runs]})


def _train(phase: Phase, runs: Sequence[PatchRun], store: Store, bar: tqdm) -> None:
    """Train a bank of patches, measure each and keep both."""
    problems: list[Masked | NextTokens] = []

    def make(*given: Any) -> Masked | NextTokens:
        problems.append(_problem(phase)(*given))
        return problems[-1]

    def keep(bank: BiasBank, results: list[Result]) -> None:
        for i, (run, result) in enumerate(zip(runs, results, strict=True)):
            wanted = phase.settings(run)
            kept, measures = None, {}
            if result.outcome == "ok":
                kept = patch_of(bank, i, phase.loaded.sha256, run.method)
                folder = store.folder / "adapters" / f"{key(wanted)}.{os.getpid()}.tmp"
                save_peft(bank, i, kept.save(folder), phase.loaded.name)
                store.keep(folder, key(wanted))
                measures = phase.measure(bank, i) | {"held-out nats": problems[-1].nats[i]}
            if store.find(wanted) is None:  # a patch is trained again for its file
                counts = result.parameters | {"patch": kept.size if kept else 0}
                told = result.epochs, measures, kept, result.seconds, result.outcome
                store.write(_record(phase, wanted, counts, *told) | {"bank": result.bank})

    chosen = [Run({"sparse": "mask"}.get(run.method, run.method), run.seed, run.rate) for run in runs]
    model = phase.loaded.model
    try:
        if runs[0].method == "sparse":
            vars(model)[ENTRIES] = most_moved(phase, runs[0], bar)
        checkpoint = store.folder / "checkpoints" / f"{_name(phase, runs)}.safetensors"
        fit(
            phase.loaded,
            phase.corpus,
            phase.study,
            chosen,
            problem=make,
            on_end=keep,
            checkpoint=None
            if runs[0].method == "full"
            else checkpoint,  # three times the model at every epoch
            on_epoch=_seen(bar, len(runs)),
        )
    finally:
        vars(model).pop(ENTRIES, None)


def _seen(bar: tqdm | None, runs: int) -> Callable[[BiasBank, int], Any]:
    return lambda _, epoch: bar.update(runs if epoch else 0) if bar is not None else None


def most_moved(phase: Phase, run: PatchRun, bar: tqdm | None = None) -> dict[str, torch.Tensor]:
    """Round one of sparse fine-tuning: {parameter of the encoder's layers: places of the entries that moved most}."""
    model = phase.loaded.model
    with bank_on(model, ["lora"], [0]) as bank:
        count = bank.parameter_counts(0)["weights"]
    names = dict(encoder_parameters(model))
    moved: dict[str, torch.Tensor] = {}

    def note(bank: BiasBank, results: list[Result]) -> None:
        results[0].raise_if_lost()
        for slot in bank.slots:
            if slot.module in names:
                moved[slot.module] = (slot.values[0].detach() - names[slot.module]).abs().flatten()

    first = [Run("full", run.seed, run.rate)]
    fit(
        phase.loaded,
        phase.corpus,
        phase.study,
        first,
        problem=_problem(phase),
        on_end=note,
        on_epoch=_seen(bar, 1),
    )
    everything = torch.cat([moved[name] for name in names])
    best = torch.sort(torch.topk(everything, min(count, len(everything))).indices).values
    ends = np.cumsum([moved[name].numel() for name in names]).tolist()
    found = {}
    for name, end in zip(names, ends, strict=True):
        start = end - moved[name].numel()
        mine = best[(best >= start) & (best < end)] - start
        if len(mine):
            found[name] = mine
    return found


def _record(
    phase: Phase,
    settings: dict[str, Any],
    parameters: dict[str, int],
    epochs: list[dict[str, Any]],
    measures: dict[str, Any],
    kept: Patch | None,
    seconds: float,
    outcome: str,
) -> Record:
    rows = {"train": len(phase.corpus.train), "validation": len(phase.corpus.validation)}
    return {
        "kind": "patch",
        "settings": settings,
        **origin(phase.loaded.name, phase.loaded, phase.corpus, rows),
        **provenance(default_device()),
        "parameters": parameters,
        "epochs": epochs,
        "measures": measures,
        "patch": {"sha256": kept.sha256()} if kept else {},
        "bank": {},
        "seconds": seconds,
        "outcome": outcome,
    }
