"""Runs of a bank in PEFT's BEFT adapter format, out and in."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import BeftConfig, PeftModel, TaskType
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import BeftError
from .bank import BiasBank
from .slots import BiasSlot

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass
class Adapter:
    """The tensors of one run's adapter, on their way out or in, by names without PEFT's prefix.

    Attributes:
        method: of the run, for messages.
        where: the folder they were read from, for messages.
        tensors: {"<module>.beft_bias", "<module>.weight", "<module>.bias": tensor}.
        targets: modules with a BEFT vector.
        whole: modules that are saved whole.
        used: names that a slot has taken.
    """

    method: str
    where: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    targets: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def add_bias(self, module: str, value: Tensor) -> None:
        """Add to the BEFT vector (1, d) of a linear layer; a fused one has several terms."""
        name = f"{module}.beft_bias"
        self.tensors[name] = self.tensors.get(name, 0) + value.cpu()[None]
        self.targets.add(module)

    def add_whole(self, module: str, parameter: str, value: Tensor) -> None:
        """Save a parameter of a module that is saved whole."""
        self.tensors[f"{module}.{parameter}"] = value.cpu().contiguous().clone()
        self.whole.add(module)

    def take(self, name: str) -> Tensor:
        """The tensor of that name. Raises BeftError where there is none."""
        if name not in self.tensors:
            raise BeftError(
                f"adapter {self.where} has no {PREFIX}{name}, which a {self.method} run of this model trains: "
                "it belongs to another model or method"
            )
        self.used.add(name)
        return self.tensors[name]

    def set(self, name: str, own: Tensor, value: Tensor) -> None:
        """Copy a tensor into a run's values. Raises BeftError where it has another shape."""
        if value.shape != own.shape:
            raise BeftError(
                f"adapter {self.where}: {PREFIX}{name} has shape {tuple(value.shape)}, not that of this model"
            )
        own.copy_(value)


def save_adapter(bank: BiasBank, run: int, folder: str | Path, base_model: str = "") -> Path:
    """Write one run as a PEFT BEFT adapter that `PeftModel.from_pretrained` loads to the same logits.

    Biases of linear layers become BEFT vectors (the pooler's too, and a bias in another form, as what it comes to);
    layer norms, which BEFT cannot hold, and the head go whole into `modules_to_save`.

    Args:
        base_model: name of the base model, for the adapter's config.

    Raises BeftError: the run trains no bias of a linear layer (head only, on a model without a pooler), or weights, or
    a bias of a Conv1D (GPT-2), which PEFT's BEFT does not know.
    """
    _refuse_weights(bank, run)
    adapter = Adapter(bank.methods[run])
    for slot in bank.trained(run):
        slot.export(run, bank.model, adapter)
    if not adapter.targets:
        raise BeftError(
            f"run {run} ({bank.methods[run]}) trains no bias of a linear layer, so it has no BEFT adapter: "
            "export it with merge() as a plain checkpoint"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = {"target_modules": sorted(adapter.targets), "modules_to_save": sorted(adapter.whole)}
    config = BeftConfig(task_type=_task_type(bank), base_model_name_or_path=base_model, inference_mode=True, **names)
    config.save_pretrained(str(folder))
    # PEFT writes the names of a set in an order that changes from process to process
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    written["target_modules"] = sorted(adapter.targets)
    (folder / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True), encoding="utf-8")
    tensors = {PREFIX + name: tensor for name, tensor in adapter.tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def _task_type(bank: BiasBank) -> TaskType | None:
    """What PEFT calls a model of this kind; None makes it a plain wrapper, as for masked language models."""
    if not bank.language_model:
        return TaskType.SEQ_CLS
    if bank.model.config.is_encoder_decoder:
        return TaskType.SEQ_2_SEQ_LM
    return TaskType.CAUSAL_LM if bank.anatomy.causal else None


@torch.no_grad()
def load_adapter(bank: BiasBank, run: int, folder: str | Path) -> None:
    """Set one run of a bank to an adapter written by `save_adapter` (or by PEFT, for the same places).

    Raises BeftError: no adapter there, truncated weights, or places this run does not train.
    """
    _refuse_weights(bank, run)
    adapter = Adapter(bank.methods[run], str(folder), _read(Path(folder)))
    for slot in bank.trained(run):
        slot.load(run, bank.model, adapter)
    left = sorted(set(adapter.tensors) - adapter.used)
    if left:
        raise BeftError(f"adapter {folder} also has {PREFIX}{left[0]}, which a {adapter.method} run does not train")


def load_tuned(model: Any, folder: str | Path) -> PeftModel:
    """The base model (as `models.load` gives it) with an adapter on it, through PEFT."""
    _read(Path(folder))  # PEFT would go to the hub for a folder that is not there
    return PeftModel.from_pretrained(model, str(folder)).eval()


def fault_of(folder: Path) -> str | None:
    """Why no adapter can be read from a folder, in words, or None: a file that is missing, cut short or not itself."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            if not list(file.keys()):
                return f"{WEIGHTS} is empty"
    except (OSError, SafetensorError):
        return f"{WEIGHTS} is missing or cut short"
    try:
        whole = isinstance(json.loads((folder / CONFIG).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        whole = False
    return None if whole else f"{CONFIG} is missing or cut short"


def holds_adapter(bank: BiasBank, run: int) -> bool:
    """Whether `save_adapter` can write this run: it trains biases of layers that PEFT's BEFT knows, and no weights."""
    slots = [slot for slot in bank.trained(run) if isinstance(slot, BiasSlot)]
    modules = [bank.model.get_submodule(slot.module) for slot in slots]
    linear = any(isinstance(module, nn.Linear) for module in modules)
    return linear and not bank.trains_weights and not any(isinstance(module, Conv1D) for module in modules)


def _refuse_weights(bank: BiasBank, run: int) -> None:
    if bank.trains_weights:
        raise BeftError(
            f"a {bank.methods[run]} run trains weights, which no BEFT adapter holds: export it with merge() as a plain "
            "checkpoint"
        )


def _read(folder: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise BeftError(f"no adapter in {folder} ({WEIGHTS} is missing): save one there first") from error
    except SafetensorError as error:
        raise BeftError(f"{folder / WEIGHTS} is truncated or not safetensors: save the adapter again") from error
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
