"""The files of a PEFT adapter: written, read, and checked against the model they are to go on.

Beside PEFT's two files there is a third, with the names of the classes and some numbers of the base model, by which
another one is told apart.
"""

import json
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import BeftConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..anatomy.sites import width_of
from ..errors import BeftError
from ..paths import check_folder

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODEL = "config.json"  # of a plain model
ABOUT = "beft.json"  # the third file, which PEFT passes over
PROMPTS = ("PROMPT_TUNING", "PREFIX_TUNING")  # PEFT's kinds that are virtual tokens,
EMBEDDINGS = "prompt_embeddings"  # and the name of theirs
SAMPLES = 16  # numbers of the base model at each of two places
ROUNDED = 2.0**-7  # relative difference of a number in bfloat16 or float16 from the same in float32, at most
WORDS = {"SEQ_CLS": "a classifier", "CAUSAL_LM": "a causal language model", "SEQ_2_SEQ_LM": "an encoder-decoder"}


@dataclass(frozen=True)
class AdapterFiles:
    """What a folder holds.

    Attributes:
        config: of PEFT.
        tensors: by names without PEFT's prefix.
        about: {"labels": names of the classes, "base": numbers of the base model by module, "rounded": whether they
            have the few digits of bfloat16 or float16}; empty in older adapters.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def kind(self) -> str:
        """PEFT's name of the method, such as "BEFT"."""
        return str(self.config.get("peft_type"))


def prefix_of(kind: str) -> str:
    """What PEFT puts before the names of a model's modules in the adapters of this kind."""
    return "base_model." if kind in PROMPTS else "base_model.model."


def write(folder: Path, config: PeftConfig, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Write a folder as `PeftModel.from_pretrained` reads it. Raises BeftError for a folder that cannot be written."""
    check_apart(folder, MODEL)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    # PEFT writes the names of a set in an order that changes from process to process
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if written.get("target_modules"):
        written["target_modules"] = sorted(written["target_modules"])
    (folder / CONFIG).write_text(json.dumps(written, indent=2, sort_keys=True), encoding="utf-8")
    prefix = prefix_of(written["peft_type"])
    named = {name if name == EMBEDDINGS else prefix + name: tensor for name, tensor in tensors.items()}
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def read(folder: Path) -> AdapterFiles:
    """Read an adapter. Raises BeftError for files that are missing, truncated or no adapter's."""
    about: dict[str, Any] = {}
    try:
        tensors = load_file(folder / WEIGHTS)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if os.path.isfile(folder / ABOUT):
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        lost = CONFIG if os.path.isfile(folder / WEIGHTS) else WEIGHTS
        raise BeftError(f"no adapter in {folder} ({lost} is missing): save one there first") from error
    except SafetensorError as error:
        raise BeftError(f"{folder / WEIGHTS} is truncated or not safetensors: save the adapter again") from error
    except (ValueError, OSError) as error:
        raise BeftError(
            f"the adapter in {folder} cannot be read, {CONFIG} or {ABOUT} may be truncated: save it again"
        ) from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise BeftError(f"{folder / CONFIG} is not that of a PEFT adapter: save the adapter again")
    prefix = prefix_of(config["peft_type"])
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return AdapterFiles(folder, config, bare, about if isinstance(about, dict) else {})


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


def folder_of(name: Any) -> Path:
    """A folder by its name. Raises BeftError for what names none."""
    try:
        folder = Path(name).expanduser()
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return folder  # what is to be done with it says more
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise BeftError(f"{reprlib.repr(name)} is not the name of a folder: give one as text or Path") from error
    return folder


def check_apart(folder: str | Path, apart_from: str) -> None:
    """Raise BeftError where a folder cannot be written, as `paths.check_folder`, or has what must not be beside it.

    Args:
        apart_from: the file of what must not be in it already: with a model and an adapter in one folder, transformers
            would put the one on the other.
    """
    folder = check_folder(folder, "folder")
    if os.path.isfile(folder / apart_from):
        what = "an adapter" if apart_from == CONFIG else "a model"
        raise BeftError(f"folder {folder} holds {what} ({apart_from}), which would be mixed up: give another folder")


def samples(modules: Sequence[str], weight_of: Callable[[str], Tensor]) -> dict[str, list[float]]:
    """Some numbers of a base model, by which it is known again: module -> SAMPLES numbers of its weight.

    Args:
        modules: of which to take some.
        weight_of: module -> its weight.
    """
    numbers = {}
    for module in modules:
        flat = weight_of(module).detach().flatten()
        places = torch.linspace(0, len(flat) - 1, SAMPLES).long()
        numbers[module] = flat[places.to(flat.device)].double().tolist()
    return numbers


def check_base(files: AdapterFiles, weight_of: Callable[[str], Tensor], rounded: bool) -> None:
    """Raise BeftError where an adapter was trained on other weights than those of this model.

    Args:
        weight_of: module -> its weight in the model.
        rounded: whether the model has the few digits of bfloat16 or float16.
    """
    known = files.about.get("base")
    if not isinstance(known, dict):  # of an older version, or PEFT's own
        return
    apart = ROUNDED if rounded or files.about.get("rounded") else 1e-6
    try:
        found = samples(list(known), weight_of)
        same = all(
            np.allclose(np.array(found[module]), np.array(known[module], dtype=float), rtol=apart, atol=1e-7)
            for module in known
        )
    except (AttributeError, TypeError, ValueError):  # no such module, or other shapes
        same = False
    if not same:
        raise BeftError(
            f"adapter {files.folder} was trained on another base model ({_base(files)}), whose weights are not those "
            "of this one: load that model"
        )


def check_fits(files: AdapterFiles, model: Any, task: str | None, any_outputs: bool = False) -> None:
    """Raise BeftError where an adapter is of another kind of model than `model`, whose task PEFT calls `task`.

    The adapters that this package writes are also compared module by module. `any_outputs`: the last layer of its head
    may have another number of outputs than the model's.
    """
    wanted = files.config.get("task_type")
    classifies = model.get_output_embeddings() is None
    if wanted in WORDS and wanted != task and not (wanted == "SEQ_CLS" and classifies):
        raise BeftError(
            f"adapter {files.folder} is of {WORDS[wanted]} and {type(model).__name__} is none: load its base model "
            f"({_base(files)}) as one"
        )
    if files.kind not in ("BEFT", "LORA", *PROMPTS):
        return
    for name, tensor in files.tensors.items():
        _check_tensor(files, model, name, tensor, any_outputs)
    ends = {"BEFT": ("beft_bias",), "LORA": ("lora_A.weight", "lora_B.weight")}.get(files.kind, ())
    for module in _targets(files, model):
        lost = [f"{module}.{end}" for end in ends if f"{module}.{end}" not in files.tensors]
        if lost:
            raise BeftError(
                f"adapter {files.folder} lacks {lost[0]}: it is damaged, or of a base model with fewer layers "
                f"({_base(files)}); load that, or save the adapter again"
            )


def _targets(files: AdapterFiles, model: Any) -> list[str]:
    """The modules of a model that an adapter changes, as PEFT finds them by its config.

    A BEFT adapter of PEFT's own making names them by their last part or a pattern, or not at all: the family's default.
    """
    wanted = files.config.get("target_modules")
    modules = [name for name, _ in model.named_modules() if name]
    if files.kind != "BEFT":
        return [name for name in modules if isinstance(wanted, list) and name in wanted]
    wanted = wanted or TRANSFORMERS_MODELS_TO_BEFT_TARGET_MODULES_MAPPING.get(model.config.model_type)
    if not wanted:
        return []  # PEFT says that it knows none
    config = BeftConfig(target_modules=wanted, modules_to_save=files.config.get("modules_to_save"))
    return [name for name in modules if check_target_module_exists(config, name)]


def _check_tensor(files: AdapterFiles, model: Any, name: str, tensor: Tensor, any_outputs: bool) -> None:
    """Whether one tensor of an adapter has a place in the model."""
    if name == EMBEDDINGS:
        if files.kind == "PREFIX_TUNING":
            return  # its width is that of all layers' keys and values, which PEFT knows
        width = model.get_input_embeddings().embedding_dim
        wanted: tuple[int, ...] = (len(tensor), width)
    else:
        found = _wanted_shape(model, name, tensor)
        if found is None:
            raise BeftError(
                f"adapter {files.folder} has {name}, for which {type(model).__name__} has no place: it is of another "
                f"base model ({_base(files)}) or of one with another head"
            )
        wanted = found
    shape = tuple(tensor.shape)
    if shape == wanted:
        return
    if shape[1:] == wanted[1:] and wanted[0] == model.config.num_labels:
        if any_outputs:
            return
        raise BeftError(
            f"adapter {files.folder} has {shape[0]} outputs and this model {wanted[0]}: load the model with "
            f"labels={shape[0]} (num_labels in transformers)"
        )
    raise BeftError(
        f"adapter {files.folder}: {name} has shape {shape}, not that of this model, {wanted}: it is of another base "
        f"model ({_base(files)})"
    )


def _wanted_shape(model: Any, name: str, tensor: Tensor) -> tuple[int, ...] | None:
    """The shape that a tensor of an adapter has to have on this model; None where it has no place."""
    module, _, end = name.rpartition(".")
    try:
        if end == "beft_bias":
            return (1, model.get_submodule(module).out_features)
        if module.endswith((".lora_A", ".lora_B")):
            layer = model.get_submodule(module.rpartition(".")[0])
            if module.endswith("lora_A"):
                return (tensor.shape[0], layer.weight.shape[0] if isinstance(layer, Conv1D) else layer.in_features)
            if end == "bias":
                return (width_of(layer),)
            return (width_of(layer), tensor.shape[1])
        return tuple(model.get_parameter(name).shape)
    except AttributeError:
        return None


def _base(files: AdapterFiles) -> str:
    return files.config.get("base_model_name_or_path") or "not named in it"
