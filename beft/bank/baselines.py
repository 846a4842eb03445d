"""Baselines that train weights: full fine-tuning, a random mask (PROTOCOL), LoRA, an adapter, a prefix, a prompt.

They are banks of a single run: what they train is put in the place of the model's own parameters at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .. import paper
from ..anatomy import head as parts
from ..anatomy import projections as anatomy
from ..anatomy.sites import Slice
from ..errors import BeftError
from ..study import WEIGHT_METHODS
from . import prompt_tuning
from .prefix import WEIGHT, add_prefix, without_prefix
from .slots import Slot

# Names under which a model carries a frozen patch (`patches.Patch`) and chosen entries of a mask, if any.
PATCH, ENTRIES = "beft_patch", "beft_entries"
BERT_BASE = 85_054_464  # numbers in the encoder layers of bert-base-cased


def weight_slots(model: Any, methods: Sequence[str], seeds: Sequence[int]) -> list[Slot]:
    """The weights that a bank of these methods trains: none but for a lone run of such a method.

    For `lora`, `adapter`, `prefix` and `prompt` the model gets parts of PEFT, which `restored` takes out again.

    Raises:
        BeftError: such a run beside others.
    """
    if not set(methods) & set(WEIGHT_METHODS):
        return []
    if len(methods) > 1:
        raise BeftError(
            f"runs of {', '.join(WEIGHT_METHODS)} train weights and need a bank each: give one run"
        )
    make = {
        "full": _full,
        "mask": _mask,
        "lora": _lora,
        "adapter": _lora_behind,
        "prefix": _prefix,
        "prompt": _prompt,
    }
    return make[methods[0]](model, int(seeds[0]))


def _full(model: Any, seed: int) -> list[Slot]:
    """Every parameter but the head's, which a bank holds anyway, and a frozen patch's, as it is."""
    heads = parts.classifier(model).modules
    patch = vars(model).get(PATCH)
    frozen = patch.put(model) if patch is not None else {}
    slots = []
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[0] in heads or frozen.get(name, 0) is None:
            continue
        slots.append(_slot(name, "whole", parameter.detach().clone()[None], frozen.get(name)))
    return slots


def _mask(model: Any, seed: int) -> list[Slot]:
    """Entries of the encoder layers' parameters: drawn without replacement from all of them alike, or chosen ones."""
    chosen = vars(model).get(ENTRIES)
    if chosen is not None:
        return [
            _slot(name, "entries", torch.zeros(1, len(index), device=index.device), index)
            for name, index in chosen.items()
        ]
    names = dict(encoder_parameters(model))
    ends = np.cumsum([p.numel() for p in names.values()])
    size = mask_size(model, int(ends[-1]))
    drawn = np.sort(np.random.default_rng([seed, size]).choice(int(ends[-1]), size, replace=False))
    slots = []
    for (name, parameter), end in zip(names.items(), ends.tolist(), strict=True):
        start = end - parameter.numel()
        mine = torch.from_numpy(drawn[(drawn >= start) & (drawn < end)] - start).to(parameter.device)
        if len(mine):
            slots.append(_slot(name, "entries", torch.zeros(1, len(mine), device=parameter.device), mine))
    return slots


def _lora(model: Any, seed: int) -> list[Slot]:
    """PEFT's LoRA on the query and value projections, its first matrices drawn from the seed."""
    add_lora(model, seed, lora_sites(model))
    return _lora_slots(model)


def _lora_behind(model: Any, seed: int) -> list[Slot]:
    """The nearest that PEFT has to the bottleneck adapter of Houlsby et al. 2019.

    LoRA of the same rank on the two projections that end a layer's attention and its feed-forward part, behind which
    that adapter stands: it too goes down to a few dimensions and up again, but beside the projection and without a
    nonlinearity between.
    """
    add_lora(model, seed, ends_of_layers(model))
    return _lora_slots(model)


def _lora_slots(model: Any) -> list[Slot]:
    return [
        _slot(name, "whole", p.detach().clone()[None])
        for name, p in model.named_parameters()
        if ".lora_" in name
    ]


def lora_sites(model: Any) -> list[str]:
    """Names of the projections that LoRA is put on (PROTOCOL: query and value)."""
    wanted = paper.data()["lora"]["projections"]
    return [site.module for site in anatomy.describe(model).sites if site.term in wanted]


def ends_of_layers(model: Any) -> list[str]:
    """Names of the linear layers that write into the residual stream: of the model's width, and no q, k or v."""
    sites = {site.module for site in anatomy.describe(model).sites}
    names = {name.rpartition(".")[0] for name, _ in encoder_parameters(model)} - sites
    width = model.config.hidden_size
    found = [(name, model.get_submodule(name)) for name in sorted(names)]
    return [n for n, m in found if isinstance(m, nn.Linear | Conv1D) and m.weight.shape[_out(m)] == width]


def _out(module: Any) -> int:
    return 1 if isinstance(module, Conv1D) else 0


def add_lora(model: Any, seed: int, names: list[str]) -> LoraConfig:
    """Put PEFT's LoRA (rank and alpha as in PROTOCOL) on these layers until `restored`; at first it adds nothing."""
    settings = paper.data()["lora"]
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=names,
        fan_in_fan_out=any(isinstance(model.get_submodule(n), Conv1D) for n in names),  # GPT-2's
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    model.requires_grad_(False)  # what is trained is in the slots
    return config


def _prefix(model: Any, seed: int) -> list[Slot]:
    return [_slot(WEIGHT, "whole", add_prefix(model, seed)[None])]


def _prompt(model: Any, seed: int) -> list[Slot]:
    return [_slot(prompt_tuning.WEIGHT, "whole", prompt_tuning.add_prompt(model, seed)[None])]


def restored(model: Any) -> Any:
    """The model as it was: the layers that LoRA wrapped in their places, no prefix or prompt, a patch taken back."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, layer.get_base_layer())
    vars(model).pop("peft_config", None)
    if PATCH in vars(model):
        vars(model)[PATCH].take(model)
    return prompt_tuning.without_prompt(without_prefix(model))


@torch.no_grad()
def lora_changes(model: Any, slots: list[Slot]) -> dict[str, Tensor]:
    """{weight name in the model without LoRA: what LoRA adds to it}, by PEFT's own arithmetic."""
    for slot in slots:
        if ".lora_" in slot.module:
            model.get_parameter(slot.module).copy_(slot.values[0])
    return {
        f"{name}.weight": layer.get_delta_weight("default")
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }


def encoder_parameters(model: Any) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of the encoder's layers, without embeddings, pooler and head."""
    steps = anatomy.describe(model).sites[0].module.split(".")
    layers = ".".join(steps[: next(i for i, part in enumerate(steps) if part.isdecimal())]) + "."
    return [(name, p) for name, p in model.named_parameters() if name.startswith(layers)]


def mask_size(model: Any, total: int) -> int:
    """Entries of the mask: the paper's number for its models, elsewhere BERT-base's share of `total`."""
    entries = paper.data()["encoder_settings"]["random_mask_entries"]
    share = round(total * entries["bert-base-cased"] / BERT_BASE)
    return int(entries.get(getattr(model, "beft_name", ""), max(1, share)))


def _slot(name: str, kind: str, values: Tensor, index: Tensor | None = None) -> Slot:
    everyone = torch.ones(1, dtype=torch.bool, device=values.device)
    return Slot(name, kind, "weights", Slice(0, 0), nn.Parameter(values), everyone, fixed=index)


def replaced(model: Any, slots: list[Slot]) -> dict[str, Tensor]:
    """{parameter name: value} to call the model with; gradients go to the slots."""
    values = {}
    for slot in slots:
        if slot.kind == "whole" and slot.fixed is None:
            values[slot.module] = slot.values[0]
        elif slot.kind == "whole" and slot.fixed is not None:  # all but some entries, which stay as they are
            own = model.get_parameter(slot.module).flatten()[slot.fixed]
            values[slot.module] = (
                slot.values[0].flatten().index_copy(0, slot.fixed, own).view_as(slot.values[0])
            )
        elif slot.kind == "entries":
            own = model.get_parameter(slot.module)
            values[slot.module] = own.flatten().index_add(0, slot.fixed, slot.values[0]).view_as(own)
    return values
