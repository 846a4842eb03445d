"""Patches: what a run has trained, taken off one model and put, frozen, into another with the same backbone.

Phase two of PEFTDebias (Agarwal, Veerubhotla, Bansal, arXiv:2312.00434): the patch stays as it is while the rest of the
model is fine-tuned. A bias patch freezes the whole bias it is added to, a sparse one the entries it changed; a full one
(Full-Debias) freezes nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..bank.adapter_files import folder_of
from ..bank.bank import BiasBank
from ..bank.baselines import WeightBank, add_lora, remove_lora
from ..bank.peft_adapter import save_adapter, why_no_adapter
from ..bank.slots import Change
from ..bank.virtual_tokens import VIRTUAL, Prefix, Prompt
from ..errors import BeftError

FILE = "patch.safetensors"
VALUES, PLACES = ":values", ":places"  # behind a parameter's name: some of its entries
BY_PEFT = ("lora", "adapter", "prompt", "prefix")


@dataclass(frozen=True, eq=False)
class Patch:
    """What one run trained.

    Attributes:
        method: of the run; "sparse" for chosen entries.
        base: sha256 of the weights of the model it was trained on.
        tensors: "<module>.bias" -> what is added to it; for LoRA, virtual tokens and full the parameters themselves;
            for sparse "<parameter>:places" (k,) in the flat parameter and ":values" (k,), what is added there.
    """

    method: str
    base: str
    tensors: Mapping[str, Tensor]

    @property
    def size(self) -> int:
        """How many numbers it holds (places not counted)."""
        return sum(t.numel() for name, t in self.tensors.items() if not name.endswith(PLACES))

    @property
    def stays(self) -> bool:
        """Whether anything of it is frozen under fine-tuning."""
        return self.method != "full"

    def sha256(self) -> str:
        """Of names and values."""
        return _hash(self.tensors)

    def changes(self) -> list[Change]:
        """What it makes of each parameter."""
        values = {n.removesuffix(VALUES): value for n, value in self.tensors.items() if not n.endswith(PLACES)}
        added = self.method not in (*BY_PEFT, "full")
        return [Change(name, value, added, self.tensors.get(name + PLACES)) for name, value in values.items()]

    def put(self, model: Any) -> tuple[dict[str, Tensor | None], Callable[[], None]]:
        """Put it into a model.

        Returns:
            parameter -> places of its entries that must not be trained, None for all of them; and a function that gives
            the model its own values back.

        Raises BeftError: a tensor that does not fit the model, which then is as it was.
        """
        undo: list[Callable[[], None]] = []

        def take_out() -> None:
            while undo:
                undo.pop()()

        try:
            return self._put(model, undo), take_out
        except BeftError:
            take_out()
            raise

    @torch.no_grad()
    def _put(self, model: Any, undo: list[Callable[[], None]]) -> dict[str, Tensor | None]:
        if self.method in ("lora", "adapter"):
            add_lora(model, 0, sorted({name.partition(".lora_")[0] for name in self.tensors}))
            undo.append(partial(remove_lora, model))
        elif self.method in VIRTUAL:
            undo.append((Prefix if self.method == "prefix" else Prompt)(model, 0).remove)
        frozen: dict[str, Tensor | None] = {}
        for change in self.changes():
            if self.method == "full" and not _has(model, change.parameter):
                continue  # the head of the language model it was trained on
            own = _parameter(model, change, undo)
            if change.places is None and change.value.shape != own.shape:
                raise BeftError(
                    f"the {self.method} patch has {change.parameter} of shape {tuple(change.value.shape)} and the "
                    f"model {tuple(own.shape)}: it is of another model"
                )
            undo.append(partial(Change(change.parameter, own.detach().clone(), added=False).apply, own))
            change.apply(own)
            frozen[change.parameter] = None if change.places is None else change.places.to(own.device)
        return frozen if self.stays else {}

    def save(self, folder: str | Path) -> Path:
        """Write it as one safetensors file."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = json.dumps({"method": self.method, "base": self.base})
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, folder / FILE, metadata={"patch": about})
        return folder


def _has(model: Any, name: str) -> bool:
    try:
        model.get_parameter(name)
    except AttributeError:
        return False
    return True


def _parameter(model: Any, change: Change, undo: list[Callable[[], None]]) -> Tensor:
    """A parameter of the model; a bias that it lacks is made."""
    module, _, attribute = change.parameter.rpartition(".")
    try:
        owner = model.get_submodule(module)
    except AttributeError as error:
        raise BeftError(f"the model has no {module}, where a patch belongs: it is of another model") from error
    if attribute == "bias" and getattr(owner, "bias", None) is None:
        owner.bias = nn.Parameter(torch.zeros(len(change.value)).to(owner.weight), requires_grad=False)
        undo.append(partial(setattr, owner, "bias", None))
    return getattr(owner, attribute)  # type: ignore[no-any-return]


def load_patch(folder: str | Path) -> Patch:
    """Read a patch. Raises BeftError for a file that is missing, truncated or no patch."""
    path = folder_of(folder) / FILE
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["patch"])
            return Patch(about["method"], about["base"], {n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118
    except FileNotFoundError as error:
        raise BeftError(f"no patch in {folder} ({FILE} is missing): train one there first") from error
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise BeftError(f"{path} is truncated or no patch: train it again") from error


def fault_of(folder: Path) -> str | None:
    """Why no patch can be read from a folder, in words, or None."""
    try:
        load_patch(folder)
    except BeftError:
        return f"{FILE} is missing or cut short"
    return None


def patch_of(bank: BiasBank, run: int, base: str, method: str | None = None) -> Patch:
    """What one run of a bank has trained (on a language model, which has no head of its own)."""
    tensors: dict[str, Tensor] = {}
    for slot in bank.trained(run):
        change = slot.change(run, bank.model)
        value, name = change.value.cpu().clone(), change.parameter
        if change.places is not None:
            tensors |= {name + VALUES: value, name + PLACES: change.places.cpu().clone()}
        else:  # a fused projection has a change for each of its terms
            tensors[name] = tensors[name] + value if name in tensors else value
    return Patch(method or bank.methods[run], base, tensors)


def check_base(patch: Patch, base: str) -> None:
    """Raise BeftError where a patch is of a model with other weights than `base`, a sha256."""
    if patch.base != base:
        raise BeftError(
            f"the {patch.method} patch was trained on weights {patch.base[:12]}... and the model has {base[:12]}...: "
            "use a patch of this model"
        )


def fingerprint(bank: WeightBank, patch: Patch) -> str:
    """Hash of the patch's places as the bank computes with them now: it is the same before and after training.

    Raises BeftError: nothing of the patch is frozen in this bank's model.
    """
    trained, frozen = bank.stand_ins(), {}
    for change in patch.changes():
        name = change.parameter
        if _has(bank.model, name):
            value = trained.get(name, bank.model.get_parameter(name)).detach().cpu()
            frozen[name] = value if change.places is None else value.flatten()[change.places]
    if not frozen:
        raise BeftError(f"the {patch.method} patch is not in this model: put it in with fit(..., frozen=patch)")
    return _hash(frozen)


def save_peft(bank: BiasBank, run: int, folder: str | Path, base_model: str = "") -> Path | None:
    """Write a run in PEFT's own format, for `PeftModel.from_pretrained`: biases, LoRA, an adapter, a prompt, a prefix.

    Returns:
        The folder; None for what PEFT has no format for: chosen entries, whole weights, biases of a Conv1D (GPT-2).
    """
    return None if why_no_adapter(bank, run) else save_adapter(bank, run, folder, base_model)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
