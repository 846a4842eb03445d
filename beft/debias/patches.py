"""Patches: what a run has trained, taken off one model and put, frozen, into another with the same backbone.

Phase two of PEFTDebias (Agarwal, Veerubhotla, Bansal, arXiv:2312.00434): the patch stays as it is while the rest of the
model is fine-tuned. A bias patch freezes the whole bias it is added to, a sparse one the entries it changed; what is
full (Full-Debias) freezes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..bank import prompt_tuning
from ..bank.bank import BiasBank
from ..bank.baselines import PATCH, add_lora, replaced
from ..bank.peft_adapter import PREFIX, WEIGHTS, save_adapter
from ..errors import BeftError

FILE = "patch.safetensors"
VALUES, PLACES = ":values", ":places"  # behind a parameter's name: some of its entries
Frozen = Mapping[str, Tensor | None]  # parameter -> places of its entries that stay, None for all of them


@dataclass(frozen=True, eq=False)
class Patch:
    """What one run trained.

    Attributes:
        method: of the run; "sparse" for chosen entries.
        base: sha256 of the weights of the model it was trained on.
        tensors: "<module>.bias" -> what is added to it; for LoRA, a prompt and full the parameters themselves; for
            sparse "<parameter>:places" (k,) in the flat parameter and ":values" (k,), what is added there.
    """

    method: str
    base: str
    tensors: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """How many numbers it holds (places not counted)."""
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith(PLACES))

    def sha256(self) -> str:
        """Of names and values."""
        return _hash(self.tensors)

    def put(self, model: Any) -> Frozen:
        """Put it into a model; returns what must not be trained. `take` undoes it.

        Raises:
            BeftError: a tensor that does not fit the model.
        """
        originals: dict[str, Tensor | None] = {}
        vars(model)["beft_patch_originals"] = originals
        try:
            return self._put(model, originals)
        except BeftError:
            self.take(model)
            raise

    def _put(self, model: Any, originals: dict[str, Tensor | None]) -> Frozen:
        if self.method in ("lora", "adapter"):
            add_lora(model, 0, sorted({name.partition(".lora_")[0] for name in self.tensors}))
        elif self.method == "prompt":
            prompt_tuning.add_prompt(model, 0)
        frozen: dict[str, Tensor | None] = {}
        with torch.no_grad():
            for name, value in self.tensors.items():
                parameter, ending = name.removesuffix(VALUES), name.endswith(VALUES)
                if name.endswith(PLACES):
                    continue
                if self.method == "full" and not _has(model, name):
                    continue  # the head of the language model it was trained on
                own = _parameter(model, parameter, value.numel(), originals)
                originals.setdefault(parameter, own.detach().clone())
                if ending:
                    places = self.tensors[parameter + PLACES].to(own.device)
                    own.view(-1).index_add_(0, places, value.to(own))
                    frozen[parameter] = places
                elif self.method in ("lora", "adapter", "prompt", "full"):
                    own.copy_(self._fitting(name, value, own))
                    frozen[parameter] = None
                else:
                    own.add_(self._fitting(name, value, own).to(own))
                    frozen[parameter] = None
        return {} if self.method == "full" else frozen

    def _fitting(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        if value.shape != own.shape:
            raise BeftError(
                f"the {self.method} patch has {name} of shape {tuple(value.shape)} and the model {tuple(own.shape)}: "
                "it is of another model"
            )
        return value

    def take(self, model: Any) -> None:
        """Give the model its own values back; what PEFT put in is taken out by `weights.restored`."""
        with torch.no_grad():
            for name, value in vars(model).pop("beft_patch_originals", {}).items():
                module, _, attribute = name.rpartition(".")
                if value is None:
                    setattr(model.get_submodule(module), attribute, None)
                elif _has(model, name):
                    model.get_parameter(name).copy_(value)

    def save(self, folder: str | Path) -> Path:
        """Write it as one safetensors file."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"method": self.method, "base": self.base})
        save_file(
            {n: t.contiguous() for n, t in self.tensors.items()}, folder / FILE, metadata={"patch": about}
        )
        return folder


def load_patch(folder: str | Path) -> Patch:
    """Read a patch. Raises BeftError for a file that is missing, truncated or no patch."""
    path = Path(folder) / FILE
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["patch"])
            return Patch(about["method"], about["base"], {n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118
    except FileNotFoundError as error:
        raise BeftError(f"no patch in {folder} ({FILE} is missing): train one there first") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BeftError(f"{path} is truncated or no patch: train it again") from error


def patch_of(bank: BiasBank, run: int, base: str, method: str | None = None) -> Patch:
    """What one run of a bank has trained (on a language model, which has no head of its own)."""
    tensors: dict[str, Tensor] = {}
    for slot in bank.slots:
        if not slot.trained[run]:
            continue
        if slot.kind == "bias":
            size = _width(bank.model.get_submodule(slot.module))
            added = slot.part.put(slot.delta()[run].detach().cpu(), size)
            name = f"{slot.module}.bias"
            tensors[name] = tensors[name] + added if name in tensors else added
        elif slot.kind == "entries":
            assert slot.fixed is not None
            tensors[slot.module + VALUES] = slot.values[run].detach().cpu().clone()
            tensors[slot.module + PLACES] = slot.fixed.cpu().clone()
        else:
            tensors[slot.module] = slot.values[run].detach().cpu().clone()
    return Patch(method or bank.methods[run], base, tensors)


def frozen_in(model: Any, patch: Patch, base: str) -> None:
    """From the next bank on, until `freed`, have the patch in this model, frozen.

    Raises:
        BeftError: the patch is of a model with other weights than `base`.
    """
    if patch.base != base:
        raise BeftError(
            f"the {patch.method} patch was trained on weights {patch.base[:12]}... and the model has {base[:12]}...: "
            "use a patch of this model"
        )
    vars(model)[PATCH] = patch


def freed(model: Any) -> None:
    """Have no patch any more."""
    vars(model).pop(PATCH, None)


def seen(bank: BiasBank, patch: Patch) -> str:
    """Hash of the patch's places as the bank computes with them now: it is the same before and after training.

    Raises:
        BeftError: nothing of the patch is frozen in this bank's model.
    """
    trained, frozen = replaced(bank.model, bank.slots), {}
    for name in patch.tensors:
        parameter = name.removesuffix(VALUES)
        if name.endswith(PLACES) or not _has(bank.model, parameter):
            continue
        value = trained.get(parameter, bank.model.get_parameter(parameter)).detach().cpu()
        places = patch.tensors.get(parameter + PLACES)
        frozen[parameter] = value if places is None else value.flatten()[places]
    if not frozen:
        raise BeftError(f"the {patch.method} patch is not in this model: put it in with frozen_in() first")
    return _hash(frozen)


def save_peft(bank: BiasBank, run: int, folder: str | Path, base_model: str = "") -> Path | None:
    """Write a run in PEFT's own format, for `PeftModel.from_pretrained`: biases, LoRA, an adapter, a prompt.

    Returns:
        The folder; None for what PEFT has no format for: chosen entries, whole weights, biases of a Conv1D (GPT-2).
    """
    folder, method = Path(folder), bank.methods[run]
    biased = [bank.model.get_submodule(slot.module) for slot in bank.slots if slot.kind == "bias"]
    if method in ("mask", "full") or any(isinstance(module, Conv1D) for module in biased):
        return None
    if method not in ("lora", "adapter", "prompt"):
        return save_adapter(bank, run, folder, base_model)
    config: Any
    tensors = patch_of(bank, run, "").tensors
    if method == "prompt":
        values = tensors[prompt_tuning.WEIGHT]
        config, named = prompt_tuning.config_for(bank.model, len(values)), {"prompt_embeddings": values}
    else:
        config = bank.model.peft_config["default"]
        assert isinstance(config, LoraConfig)
        config.inference_mode = True
        named = {PREFIX + name.replace(".default", ""): value for name, value in tensors.items()}
    config.base_model_name_or_path = base_model
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    save_file(named, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def _has(model: Any, name: str) -> bool:
    try:
        model.get_parameter(name)
    except AttributeError:
        return False
    return True


def _parameter(model: Any, name: str, size: int, originals: dict[str, Tensor | None]) -> Tensor:
    """A parameter of the model; a bias that it lacks is made."""
    module, _, attribute = name.rpartition(".")
    try:
        owner = model.get_submodule(module)
    except AttributeError as error:
        raise BeftError(
            f"the model has no {module}, where a patch belongs: it is of another model"
        ) from error
    if attribute == "bias" and getattr(owner, "bias", None) is None:
        owner.bias = nn.Parameter(torch.zeros(size).to(owner.weight), requires_grad=False)
        originals[name] = None
    return getattr(owner, attribute)  # type: ignore[no-any-return]


def _width(module: Any) -> int:
    """Numbers of a module's bias."""
    if getattr(module, "bias", None) is not None:
        return len(module.bias)
    return int(module.out_features)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
