"""Runs of a bank as PEFT adapters, out and in: BEFT's vectors of biases, LoRA, a prompt and a prefix."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import BeftConfig, PeftConfig, PeftModel, PrefixTuningConfig, TaskType
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..anatomy.projections import describe
from ..anatomy.sites import width_of
from ..errors import BeftError, reason_of
from ..models.gguf import base_note
from . import adapter_files
from .adapter_files import EMBEDDINGS, ROUNDED, AdapterFiles, folder_of
from .bank import BiasBank
from .bias_as_lora import as_vectors, lora_of
from .labels import label_names, name_labels
from .slots import BiasSlot
from .virtual_tokens import prompt_config

WEIGHTS, CONFIG = adapter_files.WEIGHTS, adapter_files.CONFIG  # the names of an adapter's files
# PEFT's kind of adapter for the methods that train weights; of biases it is BEFT.
KINDS = {"lora": "LORA", "adapter": "LORA", "prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING"}
HEADS = ("classifier", "score")  # modules that PEFT itself saves whole with a classifier

# PEFT finds no base model in a GGUF file by itself.
GGUF_CODE = """from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained("the folder of that file", gguf_file="{file}", dtype="float32")
model = PeftModel.from_pretrained(base, {folder})"""
GGUF_CARD = """---
base_model: {base}
library_name: peft
tags: [beft]
---

A PEFT adapter, trained by beft. Its base model is {note}. Without beft, both are loaded by

```python
{code}
```
"""


@dataclass
class Adapter:
    """The tensors of one run's adapter, on their way out or in, by names without PEFT's prefix.

    Attributes:
        method: of the run, for messages.
        frozen: (module, parameter) -> what the base model has there, in its own precision.
        kind: PEFT's name of it; "BEFT" alone holds biases as vectors, in all others their modules are saved whole.
        where: the folder they were read from, for messages.
        tensors: {"<module>.beft_bias", "<module>.weight", "<module>.bias", ...: tensor}.
        targets: modules with a BEFT vector.
        whole: modules that are saved whole.
        used: names that a slot has taken.
    """

    method: str
    frozen: Callable[[str, str], Any]
    kind: str = "BEFT"
    where: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    targets: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    @property
    def has_vectors(self) -> bool:
        """Whether it can hold a bias as a vector."""
        return self.kind == "BEFT"

    @property
    def modules_to_save(self) -> list[str]:
        """As PEFT lists what is saved whole: a head of several layers, which it wraps as one, by the head's name."""
        names = set()
        for name in self.whole:
            steps = name.split(".")
            inner = next((i for i, step in enumerate(steps) if step in HEADS), len(steps) - 1)
            names.add(".".join(steps[: inner + 1]))
        return sorted(names)

    def add(self, name: str, value: Tensor) -> None:
        """Save a tensor as it is."""
        self.tensors[name] = value.detach().cpu().contiguous().clone()

    def add_changed(self, module: str, bias: Tensor) -> None:
        """Save a module whole, with another bias."""
        self.add_whole(module, "weight", self.frozen(module, "weight").float())
        self.add_whole(module, "bias", bias)

    def add_bias(self, module: str, value: Tensor) -> None:
        """Add to the BEFT vector (1, d) of a linear layer; a fused one has several terms."""
        name = f"{module}.beft_bias"
        self.tensors[name] = self.tensors.get(name, 0) + value.cpu()[None]
        self.targets.add(module)

    def add_whole(self, module: str, parameter: str, value: Tensor) -> None:
        """Save a parameter of a module that is saved whole."""
        self.add(f"{module}.{parameter}", value)
        self.whole.add(module)

    def take(self, name: str) -> Tensor:
        """The tensor of that name. Raises BeftError where there is none."""
        if name not in self.tensors:
            raise BeftError(
                f"adapter {self.where} has no {name}, which a {self.method} run of this model trains: it belongs to "
                "another model or method"
            )
        self.used.add(name)
        return self.tensors[name]

    def take_changed(self, module: str) -> Tensor:
        """What a module that was saved whole adds to the model's bias. Raises BeftError for another weight."""
        self.take_frozen(module, "weight")
        return self.take(f"{module}.bias") - self.frozen(module, "bias").detach().float().cpu()

    def take_frozen(self, module: str, parameter: str) -> None:
        """Take what the model has itself, and no run trains. Raises BeftError where it has something else."""
        name = f"{module}.{parameter}"
        value, own = (x.detach().float().cpu() for x in (self.take(name), self.frozen(module, parameter)))
        if value.shape != own.shape or not torch.allclose(value, own, rtol=ROUNDED, atol=1e-7):
            raise BeftError(f"adapter {self.where}: {name} is not that of this model, but of another base model")

    def set(self, name: str, own: Tensor, value: Tensor) -> None:
        """Copy a tensor into a run's values. Raises BeftError where it has another shape."""
        if value.shape != own.shape:
            raise BeftError(f"adapter {self.where}: {name} has shape {tuple(value.shape)}, not that of this model")
        own.copy_(value)


def save_adapter(
    bank: BiasBank,
    run: int,
    folder: str | Path,
    base_model: str = "",
    labels: Sequence[Any] = (),
    *,
    as_lora: bool = False,
) -> Path:
    """Write one run as a PEFT adapter that `PeftModel.from_pretrained` loads to the same logits.

    Biases of linear layers become BEFT vectors (the pooler's too, and a bias in another form, as what it comes to);
    layer norms, which BEFT cannot hold, and the head go whole into `modules_to_save`, and so does what the base model's
    files lack, such as a pooler. LoRA, a prompt and a prefix are PEFT's own kinds; beside them the pooler is saved
    whole.

    Args:
        base_model: name of the base model, for the adapter's config.
        labels: names of a classifier's classes, which `load_tuned` puts into the model's config.
        as_lora: write biases as LoRA of rank 1 with zero matrices and a bias, for what serves no BEFT; see
            `handover.adapter_as_lora`.

    Raises BeftError: what `why_no_adapter` says; labels as `labels.label_names`.
    """
    config, tensors = adapter_of(bank, run, base_model)
    if as_lora and config.peft_type.value == "BEFT":
        config, tensors = lora_of(bank.model, tensors, config)
    written = adapter_files.write(folder_of(folder), config, tensors, about(bank, labels))
    if note := base_note(getattr(bank.model.config, "name_or_path", "")):
        code = GGUF_CODE.format(file=note.partition(" (")[0], folder='"this folder"')
        card = GGUF_CARD.format(base=base_model, note=note, code=code)
        (written / "README.md").write_text(card, encoding="utf-8")
    return written


def adapter_of(bank: BiasBank, run: int, base_model: str = "") -> tuple[PeftConfig, dict[str, Tensor]]:
    """PEFT's config of one run, and its tensors by names without PEFT's prefix. Raises BeftError as `save_adapter`."""
    if reason := why_no_adapter(bank, run):
        raise BeftError(reason)
    adapter = Adapter(bank.methods[run], bank._frozen, _kind(bank, run))
    for slot in bank.trained(run):
        slot.export(run, bank.model, adapter)
    for module, parameter in _frozen_draws(bank, run):
        adapter.add_whole(module, parameter, adapter.frozen(module, parameter).float())
    if adapter.has_vectors and not adapter.targets:  # only a pooler is tuned, and saved whole: PEFT wants a vector
        site = bank.anatomy.sites[-1]
        adapter.add_bias(site.module, torch.zeros(width_of(bank.model.get_submodule(site.module))))
    config = _config(bank, adapter)
    config.task_type = task_type(bank.model)
    if adapter.method == "prompt" and config.task_type is None:
        config.task_type = TaskType.FEATURE_EXTRACTION  # PEFT's model that puts a prompt in front
    if config.task_type is None:  # what PEFT's AutoPeftModel makes of it
        own = type(bank.model)
        config.auto_mapping = {"base_model_class": own.__name__, "parent_library": own.__module__}
    config.base_model_name_or_path, config.inference_mode = base_model, True
    config.modules_to_save = adapter.modules_to_save  # type: ignore[attr-defined]
    return config, adapter.tensors


def _frozen_draws(bank: BiasBank, run: int) -> Iterator[tuple[str, str]]:
    """(module, parameter) of what the base model's files lack and a run does not train; elsewhere it is drawn anew.

    Such is the dense layer before ModernBERT's classifier, which a checkpoint of the bare encoder does not have.
    """
    drawn = {name.rpartition(".")[0] for name in getattr(bank.model, "drawn_parameters", ())}
    for module in sorted(drawn - {slot.module for slot in bank.trained(run)}):
        for parameter, _ in bank.model.get_submodule(module).named_parameters(recurse=False):
            yield module, parameter


def _config(bank: BiasBank, adapter: Adapter) -> PeftConfig:
    if adapter.kind == "LORA":
        return copy.copy(bank.model.peft_config["default"])  # type: ignore[no-any-return]
    if adapter.kind == "PROMPT_TUNING":
        return prompt_config(bank.model, len(adapter.tensors[EMBEDDINGS]))
    if adapter.kind == "PREFIX_TUNING":
        return PrefixTuningConfig(num_virtual_tokens=len(adapter.tensors[EMBEDDINGS]))
    return BeftConfig(target_modules=sorted(adapter.targets))


def about(bank: BiasBank, labels: Sequence[Any] = ()) -> dict[str, Any]:
    """What an adapter of this bank notes of itself, beside PEFT's files."""
    first, last = bank.anatomy.sites[0].module, bank.anatomy.sites[-1].module
    base = adapter_files.samples([first, last], _frozen_weights(bank))
    return {"labels": list(label_names(labels)), "base": base, "rounded": _rounded(bank.model)}


def _frozen_weights(bank: BiasBank) -> Callable[[str], Any]:
    return lambda module: bank._frozen(module, "weight")  # not as cast for autocast


def task_type(model: Any) -> TaskType | None:
    """What PEFT calls a model of this kind; None makes it a plain wrapper, for masked language models and images."""
    if model.get_output_embeddings() is None:
        return TaskType.SEQ_CLS if model.main_input_name == "input_ids" else None
    if model.config.is_encoder_decoder:
        return TaskType.SEQ_2_SEQ_LM
    return TaskType.CAUSAL_LM if describe(model).causal else None


@torch.no_grad()
def load_adapter(bank: BiasBank, run: int, folder: str | Path) -> None:
    """Set one run of a bank to an adapter written by `save_adapter` (or by PEFT, for the same places).

    Raises BeftError: no adapter there, truncated weights, another base model, or places this run does not train.
    """
    method, kind = bank.methods[run], _kind(bank, run)
    if method in ("full", "mask"):
        raise BeftError(_no_format(method))
    files = adapter_files.read(folder_of(folder))
    if kind == "BEFT":
        files = as_vectors(files)
    if files.kind != kind:
        raise BeftError(f"adapter {folder} is of PEFT's kind {files.kind}, and a {method} run is saved as {kind}")
    adapter = Adapter(method, bank._frozen, kind, str(folder), files.tensors)
    for slot in bank.trained(run):
        module = slot.parameter.rpartition(".")[0]
        if slot.group == "pooler" and not files.about and not any(n.startswith(f"{module}.") for n in files.tensors):
            slot.values[run] = 0  # PEFT's own adapters leave the pooler as it is
        else:
            slot.load(run, bank.model, adapter)
    for module, parameter in _frozen_draws(bank, run):
        if f"{module}.{parameter}" in adapter.tensors:  # older adapters leave it out
            adapter.take_frozen(module, parameter)
    left = sorted(name for name in adapter.tensors.keys() - adapter.used if adapter.tensors[name].any())
    if left:
        raise BeftError(f"adapter {folder} also has {left[0]}, which a {method} run does not train")
    _check_base(files, bank.model, _frozen_weights(bank))


def load_tuned(model: Any, folder: str | Path) -> PeftModel:
    """The base model (as `models.load` gives it) with an adapter on it, through PEFT.

    The names of the classes, if the adapter has them, go into the model's config. Raises BeftError: no adapter there,
    files that are truncated, or an adapter of another base model or kind of model.
    """
    files = fitting(model, folder)
    try:
        tuned = PeftModel.from_pretrained(model, str(files.folder)).eval()
    except Exception as error:  # PEFT and torch raise types of their own
        raise BeftError(
            f"PEFT cannot put adapter {folder} on this {type(model).__name__} ({reason_of(error)}): load the base "
            "model that it was saved from"
        ) from error
    if model.get_output_embeddings() is None:
        name_labels(model.config, files.about.get("labels", ()))
    return tuned


def fitting(model: Any, folder: str | Path) -> AdapterFiles:
    """The files of an adapter that fits a base model. Raises BeftError as `load_tuned`."""
    files = adapter_files.read(folder_of(folder))  # PEFT would go to the hub for a folder that is not there
    if not isinstance(model, PreTrainedModel | PeftModel):
        raise BeftError(
            f"load_tuned takes a model of transformers, not a {type(model).__name__}: give `models.load(...).model`"
        )
    if hasattr(model, "peft_config"):
        raise BeftError(f"this {type(model).__name__} has an adapter on it already: load the base model anew")
    adapter_files.check_fits(files, model, task_type(model))
    check_same_base(files, model)
    return files


def check_same_base(files: AdapterFiles, model: Any) -> None:
    """Raise BeftError where an adapter that says so was trained on other weights than those of a plain model."""
    _check_base(files, model, lambda module: model.get_submodule(module).weight)


def _check_base(files: AdapterFiles, model: Any, weight_of: Callable[[str], Any]) -> None:
    if all(parameter.is_floating_point() for parameter in model.parameters()):  # else they are quantised
        adapter_files.check_base(files, weight_of, _rounded(model))


def _rounded(model: Any) -> bool:
    return next(model.parameters()).dtype in (torch.bfloat16, torch.float16)


def holds_adapter(bank: BiasBank, run: int) -> bool:
    """Whether a run is kept as a BEFT adapter: it trains biases of layers that PEFT's BEFT knows, and no weights."""
    return not bank.trains_weights and why_no_adapter(bank, run) is None


def why_no_adapter(bank: BiasBank, run: int) -> str | None:
    """Why `save_adapter` cannot write a run, as a sentence with the remedy; None where it can.

    Whole weights and masks are no kind of PEFT's; its BEFT knows no bias of a Conv1D (GPT-2), and needs one of a linear
    layer, which a head alone has none of on a model without a pooler.
    """
    method = bank.methods[run]
    if method in ("full", "mask"):
        return _no_format(method)
    if bank.trains_weights:
        return None
    slots = [slot for slot in bank.trained(run) if isinstance(slot, BiasSlot)]
    modules = {slot.module: bank.model.get_submodule(slot.module) for slot in slots}
    for name, module in modules.items():
        if isinstance(module, Conv1D):
            return f"{name} is a Conv1D, whose bias PEFT's BEFT cannot hold: {_PLAIN}"
    if not any(isinstance(module, nn.Linear) for module in modules.values()):
        return f"a {method} run of this model trains no bias of a linear layer, so it has no BEFT adapter: {_PLAIN}"
    return None


_PLAIN = "export it with merge() as a plain checkpoint"


def _no_format(method: str) -> str:
    return f"a {method} run trains weights as they are, for which PEFT has no adapter: {_PLAIN}"


def _kind(bank: BiasBank, run: int) -> str:
    return KINDS.get(bank.methods[run], "BEFT")
