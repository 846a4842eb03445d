"""Runs of a bank in PEFT's BEFT adapter format, out and in, and merged into a plain checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import BeftConfig, PeftModel, TaskType
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..errors import BeftError
from .bank import BiasBank
from .baselines import lora_changes, replaced
from .export import with_biases
from .slots import Slot

PREFIX = "base_model.model."
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_adapter(bank: BiasBank, run: int, folder: str | Path, base_model: str = "") -> Path:
    """Write one run as a PEFT BEFT adapter that `PeftModel.from_pretrained` loads to the same logits.

    Biases of linear layers become BEFT vectors (the pooler's too, and a bias in another form, as what it comes to);
    layer norms, which BEFT cannot hold, and the head go whole into `modules_to_save`.

    Args:
        base_model: name of the base model, for the adapter's config.

    Raises:
        BeftError: the run trains no bias of a linear layer (head only, on a model without a pooler), or weights, or a
            bias of a Conv1D (GPT-2), which PEFT's BEFT does not know.
    """
    _refuse_weights(bank, run)
    targets, whole, tensors = [], [], {}
    for slot in _trained(bank, run):
        module, values = bank.model.get_submodule(slot.module), _values(slot, run).detach().cpu()
        name = PREFIX + slot.module
        if slot.kind != "bias":
            tensors[f"{name}.{'weight' if slot.kind == 'weight' else 'bias'}"] = values.contiguous()
        elif isinstance(module, nn.Linear):
            full = slot.part.put(values, module.out_features)[None]
            tensors[f"{name}.beft_bias"] = tensors.get(f"{name}.beft_bias", 0) + full
            targets.append(slot.module)
            continue
        elif isinstance(module, Conv1D):
            raise BeftError(
                f"{slot.module} is a Conv1D, whose bias PEFT's BEFT cannot hold: export the run with merge() as a "
                "plain checkpoint"
            )
        else:
            tensors[f"{name}.weight"] = module.weight.detach().float().cpu().clone()  # type: ignore[operator,union-attr]
            tensors[f"{name}.bias"] = module.bias.detach().float().cpu() + values  # type: ignore[operator,union-attr]
        whole.append(slot.module)
    if not targets:
        raise BeftError(
            f"run {run} ({bank.methods[run]}) trains no bias of a linear layer, so it has no BEFT adapter: "
            "export it with merge() as a plain checkpoint"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = BeftConfig(
        task_type=_task_type(bank),
        target_modules=sorted(set(targets)),
        modules_to_save=sorted(set(whole)),
        base_model_name_or_path=base_model,
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    _sort_names(folder / CONFIG)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def _task_type(bank: BiasBank) -> TaskType | None:
    """What PEFT calls a model of this kind; None makes it a plain wrapper, as for masked language models."""
    if not bank.language_model:
        return TaskType.SEQ_CLS
    if bank.model.config.is_encoder_decoder:
        return TaskType.SEQ_2_SEQ_LM
    return TaskType.CAUSAL_LM if bank.anatomy.causal else None


def _sort_names(path: Path) -> None:
    """PEFT writes the names of a set in an order that changes from process to process; sort them."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def load_adapter(bank: BiasBank, run: int, folder: str | Path) -> None:
    """Set one run of a bank to an adapter written by `save_adapter` (or by PEFT, for the same places).

    Raises:
        BeftError: no adapter there, truncated weights, or places this run does not train.
    """
    _refuse_weights(bank, run)
    tensors = _read(Path(folder))
    used: set[str] = set()
    with torch.no_grad():
        for slot in _trained(bank, run):
            if slot.form is not None:
                method = bank.methods[run]
                raise BeftError(
                    f"an adapter holds a bias and not the numbers that a {method} run trains: "
                    f"load it into a {method.partition(':')[0]} run"
                )
            name = PREFIX + slot.module
            suffix = {"bias": "beft_bias", "weight": "weight", "offset": "bias"}[slot.kind]
            module = bank.model.get_submodule(slot.module)
            if slot.kind == "bias" and f"{name}.beft_bias" not in tensors:
                suffix = "bias"  # a layer norm, saved whole
            key = f"{name}.{suffix}"
            if key not in tensors:
                raise BeftError(
                    f"adapter {folder} has no {key}, which a {bank.methods[run]} run of this model trains: "
                    "it belongs to another model or method"
                )
            value = tensors[key].reshape(-1) if slot.kind == "bias" else tensors[key]
            if slot.kind == "bias" and suffix == "bias":
                value = value - module.bias.detach().float().cpu()  # type: ignore[operator,union-attr]
                used.add(f"{name}.weight")
            elif slot.kind == "bias" and len(value) == module.out_features:
                value = slot.part.take(value)
            if value.shape != slot.values[run].shape:
                raise BeftError(
                    f"adapter {folder}: {key} has shape {tuple(value.shape)}, not that of this model"
                )
            slot.values[run] = value.to(slot.values.device)
            used.add(key)
    left = sorted(set(tensors) - used)
    if left:
        raise BeftError(
            f"adapter {folder} also has {left[0]}, which a {bank.methods[run]} run does not train"
        )


def load_tuned(model: Any, folder: str | Path) -> PeftModel:
    """The base model (as `models.load` gives it) with an adapter on it, through PEFT."""
    _read(Path(folder))  # PEFT would go to the hub for a folder that is not there
    return PeftModel.from_pretrained(model, str(folder)).eval()


def merge(bank: BiasBank, run: int, folder: str | Path | None = None, tokenizer: Any = None) -> Any:
    """A plain copy of the model with one run's biases added to its own and its head in place.

    Where the model has no bias to add to, its config's own flag gives it some, zero elsewhere (see `export`). With
    `folder` it is also written there as safetensors (with the tokenizer, if given), so that the
    `AutoModelFor...from_pretrained` of its kind, or an inference server, loads it with neither beft nor peft.

    Raises:
        BeftError: a tuned layer has no bias and the family no flag for it; a prefix, which is no part of a checkpoint;
            quantised weights.
    """
    if "prefix" in bank.methods:
        raise BeftError(
            "a prefix is keys and values and no part of a plain checkpoint: export a run of another method"
        )
    if getattr(bank.model.config, "quantization_config", None) is not None:
        raise BeftError(
            f"the weights of this {bank.anatomy.family} model are quantised and a bias cannot be merged into them: "
            "load it unquantised, or save an adapter"
        )
    with torch.random.fork_rng(
        devices=[]
    ):  # a model that is made draws weights, though they are replaced at once
        plain = bank.plain_copy()
        slots = [s for s in _trained(bank, run) if s.kind == "bias"]
        bare = dict.fromkeys(s.module for s in slots if plain.get_submodule(s.module).bias is None)
        if bare:
            plain = with_biases(plain, list(bare))
    with torch.no_grad():
        if "lora" in bank.methods:
            for name, change in lora_changes(bank.model, bank.slots).items():
                plain.get_parameter(name).add_(change)
        else:
            for name, value in replaced(plain, bank.slots).items():
                plain.get_parameter(name).copy_(value)
        for slot in _trained(bank, run):
            if slot.group == "weights":
                continue
            module, values = plain.get_submodule(slot.module), _values(slot, run)
            if slot.kind == "weight":
                module.weight.copy_(values)
            elif slot.kind == "offset":
                module.bias.copy_(values)
            else:
                module.bias += slot.part.put(values, len(module.bias))
    if folder is not None:
        plain.save_pretrained(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    return plain


def holds_adapter(bank: BiasBank, run: int) -> bool:
    """Whether `save_adapter` can write this run: it trains biases of layers that PEFT's BEFT knows, and no weights."""
    trained = [bank.model.get_submodule(s.module) for s in _trained(bank, run) if s.kind == "bias"]
    linear = any(isinstance(module, nn.Linear) for module in trained)
    return linear and not bank.trains_weights and not any(isinstance(module, Conv1D) for module in trained)


def _refuse_weights(bank: BiasBank, run: int) -> None:
    if bank.trains_weights:
        raise BeftError(
            f"a {bank.methods[run]} run trains weights, which no BEFT adapter holds: export it with merge() as a plain "
            "checkpoint"
        )


def _values(slot: Slot, run: int) -> Tensor:
    """What one run adds at a place, or has there; of a form, the bias that it comes to."""
    return slot.delta()[run] if slot.kind == "bias" else slot.values[run]


def _trained(bank: BiasBank, run: int) -> list[Slot]:
    if not 0 <= run < bank.R:
        raise BeftError(f"run {run} is not in this bank of {bank.R} runs")
    return [slot for slot in bank.slots if slot.trained[run]]


def _read(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError as error:
        raise BeftError(f"no adapter in {folder} ({WEIGHTS} is missing): save one there first") from error
    except SafetensorError as error:
        raise BeftError(
            f"{folder / WEIGHTS} is truncated or not safetensors: save the adapter again"
        ) from error
