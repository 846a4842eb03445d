"""PEFTDebias, phase one: patches trained on both sides of every text by language modelling, and a record each.

Encoders learn masked tokens, decoders next tokens (`training.language_modelling`). Biases of all seeds share one bank;
LoRA, the adapter, the prompt and full have a bank each. A patch is kept in a file of its own, and in PEFT's format
where there is one. Sparse fine-tuning (Ansell et al. 2022) has two rounds: everything is trained and set back, then the
entries that moved most are trained alone, as many as LoRA has numbers.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..anatomy.projections import describe
from ..bank.baselines import encoder_parameters, open_bank, places_in
from ..data.datasets import Dataset, draw
from ..errors import BeftError, unknown
from ..experiments.packing import unfinished
from ..models.files import model_identity
from ..models.loading import Loaded
from ..progress import Bar, log_runs
from ..records.provenance import build_record, origin
from ..records.schema import key
from ..records.store import Store
from ..study import BIAS_PATCHES, PATCHES, Run, Study
from ..training.device import default_device
from ..training.language_modelling import LanguageModelling, MaskedTokens, NextTokens
from ..training.loop import Epoch, fit
from .patches import Patch, fault_of, load_patch, patch_of, save_peft

Record = dict[str, Any]
Measure = Callable[[Any, int], dict[str, Any]]  # a model or a bank, and its run -> intrinsic measures


@dataclass(frozen=True)
class Phase:
    """What the patches of a corpus share.

    Attributes:
        loaded: a language model, as `models.load_masked` or `models.load_causal` gives it.
        corpus: texts with their counterfactuals, along `axis`.
        study: settings of the training; its task is the corpus.
        measure: the intrinsic measures that go into a record, identified by `measured`, words or a hash.
    """

    loaded: Loaded
    corpus: Dataset
    axis: str
    study: Study
    measure: Measure
    measured: str

    def settings(self, run: Run | None) -> Record:
        """What identifies a patch; of none, the model as it is. Raises BeftError for a method that makes no patch."""
        common: Record = {"kind": "patch", "model": self.loaded.name, **model_identity(self.loaded)}
        common |= {"measured": self.measured, "max_length": self.study.max_length}
        if run is None:  # records in float32 are older than the other precision
            dtype = {} if self.study.dtype == "float32" else {"dtype": self.study.dtype}
            return common | dtype | {"method": "none"}
        if run.method not in PATCHES:
            raise unknown("patch", run.method, PATCHES)
        study = {n: v for n, v in self.study.identity().items() if n not in ("model", "validate", "regime")}
        study |= {"task": self.corpus.task.name, "axis": self.axis, "data_fingerprint": self.corpus.fingerprint}
        return common | study | {"method": run.method, "seed": run.seed, "rate": float(run.rate)}

    def record(self, settings: Record, **fields: Any) -> Record:
        """The record of a patch, or of the model as it is."""
        rows = {"train": len(self.corpus.train), "validation": len(self.corpus.validation)}
        subject = origin(self.loaded.name, self.loaded, self.corpus, rows)
        return build_record("patch", settings, subject, default_device(), **fields)

    def objective(self) -> type[LanguageModelling]:
        """What its patches learn."""
        return NextTokens if describe(self.loaded.model).causal else MaskedTokens


def untouched(phase: Phase, store: Store) -> Record:
    """The record of the model as it is, without a patch."""
    wanted = phase.settings(None)
    if store.find(wanted) is None:
        store.check_writable()
        began = time.perf_counter()
        measures = _measured_as_it_is(phase)
        nothing: Record = {"parameters": {}, "epochs": [], "patch": {}, "bank": {}}
        seconds = time.perf_counter() - began
        store.write(phase.record(wanted, **nothing, measures=measures, seconds=seconds))
    return store.read(store.name(wanted))


def _measured_as_it_is(phase: Phase) -> Record:
    """The measures of the model without a patch, in the precision in which patches are measured."""
    model = phase.loaded.model.to(default_device())
    if phase.study.dtype == "float32":
        return phase.measure(model, 0)
    with open_bank(model, ["b_v"], [0], phase.study.dtype) as bank:  # its biases are zero
        return phase.measure(bank, 0)


def train_patches(phase: Phase, runs: Sequence[Run], store: Store, progress: bool = True) -> list[Record]:
    """The records of `runs`, in order; patches that `store` lacks are trained first, see `patch`.

    Raises BeftError: a method that makes no patch; bad model, corpus or memory; finished patches stay.
    """
    settings = [phase.settings(run) for run in runs]
    todo = [run for run, s in zip(runs, settings, strict=True) if store.find(s) is None]
    if todo:
        store.check_writable()
    biases = {key(phase.settings(run)): run for run in runs if run.method in BIAS_PATCHES}
    left = [run for run in todo if run.method in BIAS_PATCHES]
    # what an interruption broke off is gone on with by the same runs together
    banks = [own for bank in unfinished(biases, store) if not set(left).isdisjoint(own := list(bank.values()))]
    left = [run for run in left if not any(run in bank for bank in banks)]
    banks += [left] if left else []
    banks += [[run] for run in todo if run.method not in BIAS_PATCHES]
    twice = ([run] for run in todo if run.method == "sparse")  # it is trained in two rounds
    total = sum(_row_visits(phase, bank) for bank in (*banks, *twice))
    label, quiet = f"{len(todo)} patches against {phase.axis}", not (progress and todo)
    with Bar(total=total, desc=label, unit="row", unit_scale=True, mininterval=5.0, disable=quiet) as bar:
        for bank in banks:
            with store.lock(_name(phase, bank)):  # another process may have trained it while we waited
                if any(store.find(phase.settings(run)) is None for run in bank):
                    _train(phase, bank, store, bar)
    done = sum(key(phase.settings(run)) in store.written for run in todo)  # another process may have been first
    log_runs(done=done, reused=len(runs) - done, failed=0)
    return [record for s in settings if (record := store.find(s)) is not None]


def patch(phase: Phase, run: Run, store: Store) -> Patch:
    """The patch of a run; where its file is not kept, it is trained again, in the bank that its record names.

    The other runs of a bank decide how sums are rounded: the patch is then the one that was measured. Raises BeftError:
    the run diverged.
    """
    wanted = phase.settings(run)
    folder, record = store.fetch(key(wanted), fault_of), store.find(wanted)
    if folder is None:
        store.check_writable()
        members = [Run(*member) for member in record["bank"].get("of", [])] if record else []
        runs = members if len(members) > 1 else [run]
        visits = _row_visits(phase, runs)
        with Bar(total=visits, desc=f"{run.method} again", unit="row", unit_scale=True) as bar:
            _train(phase, runs, store, bar)
        folder, record = store.fetch(key(wanted)), store.find(wanted)
    if folder is None:
        raise BeftError(f"the {run.method} patch of seed {run.seed} {record['outcome'] if record else 'is lost'}")
    return load_patch(folder)


def _row_visits(phase: Phase, runs: Sequence[Run]) -> int:
    """Training rows that a bank visits over all epochs."""
    sizes = (len(draw(phase.corpus, phase.study.regime, run.seed, phase.study.tuning).train) for run in runs)
    return sum(sizes) * phase.study.epochs


def _name(phase: Phase, runs: Sequence[Run]) -> str:
    return key({"bank": [key(phase.settings(run)) for run in runs]})


def _train(phase: Phase, runs: Sequence[Run], store: Store, bar: Bar) -> None:
    """Train a bank of patches, measure each and keep both."""
    checkpoint = store.folder / "checkpoints" / f"{_name(phase, runs)}.safetensors"
    more: dict[str, Any] = {"objective": phase.objective(), "advance": bar.update}
    if runs[0].method != "full":  # its checkpoint would be three times the model at every epoch
        more["checkpoint"] = checkpoint
    if runs[0].method == "sparse":
        more["entries"] = most_moved(phase, runs[0], bar.update)
    trained_as = [replace(run, method="mask") if run.method == "sparse" else run for run in runs]
    with store.explained():  # of checkpoints and patches
        for epoch in fit(phase.loaded, phase.corpus, phase.study, trained_as, **more):
            if epoch.last:
                for i, run in enumerate(runs):
                    _keep(phase, epoch, i, run, store)


def _keep(phase: Phase, epoch: Epoch, i: int, run: Run, store: Store) -> None:
    """Write the patch of one run of a bank, and its record where there is none."""
    wanted, result = phase.settings(run), epoch.results[i]
    kept, measures = None, {}
    if result.outcome == "ok":
        assert isinstance(epoch.objective, LanguageModelling)
        kept = patch_of(epoch.bank, i, phase.loaded.sha256, run.method)
        folder = store.folder / "adapters" / f"{key(wanted)}.{os.getpid()}.tmp"
        save_peft(epoch.bank, i, kept.save(folder), phase.loaded.name)
        store.keep(folder, key(wanted))
        measures = phase.measure(epoch.bank, i) | {"held-out nats": epoch.objective.nats[i]}
    if store.find(wanted) is not None:  # the patch was trained again for its file
        return
    store.write(
        phase.record(
            wanted,
            parameters=result.parameters | {"patch": kept.size if kept else 0},
            epochs=result.epochs,
            measures=measures,
            patch={"sha256": kept.sha256()} if kept else {},
            bank=result.bank,
            seconds=result.seconds,
            outcome=result.outcome,
        )
    )


def most_moved(phase: Phase, run: Run, advance: Callable[[int], Any] = lambda rows: None) -> dict[str, torch.Tensor]:
    """Round one of sparse fine-tuning: {parameter of the encoder's layers: places of the entries that moved most}."""
    model = phase.loaded.model
    with open_bank(model, ["lora"], [0]) as bank:
        count = bank.parameter_counts(0)["weights"]
    parameters = dict(encoder_parameters(model))
    moved: dict[str, torch.Tensor] = {}
    options: dict[str, Any] = {"objective": phase.objective(), "advance": advance}
    for epoch in fit(phase.loaded, phase.corpus, phase.study, [replace(run, method="full")], **options):
        if epoch.last:
            epoch.results[0].raise_if_lost()
            trained = {slot.parameter: slot.values[0].detach() for slot in epoch.bank.slots}
            moved = {name: (trained[name] - own).abs().flatten() for name, own in parameters.items()}
    everything = torch.cat([moved[name] for name in parameters])
    best = torch.sort(torch.topk(everything, min(count, len(everything))).indices).values
    return places_in(parameters, best)
