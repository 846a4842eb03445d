"""Baselines that train weights: full fine-tuning, a random mask (PROTOCOL), LoRA, an adapter, a prefix, a prompt.

Each has a bank of a single run: what it trains stands in the place of the model's own parameters at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from .. import paper
from ..anatomy.projections import classifier
from ..anatomy.sites import LINEAR, width_of
from ..errors import BeftError
from ..study import WEIGHT_METHODS
from .adapter_files import EMBEDDINGS
from .bank import BiasBank
from .slots import Change, Sites, Slot, anatomy_in_bank, pooler_slots
from .virtual_tokens import PREFIX, PROMPT, VIRTUAL, Prefix, Prompt

if TYPE_CHECKING:
    from .peft_adapter import Adapter

BERT_BASE = 85_054_464  # numbers in the encoder layers of bert-base-cased


class FrozenPart(Protocol):
    """What stays as it is while the rest of a model is trained, such as a patch of `debias.patches`."""

    @property
    def method(self) -> str:
        """How it was trained."""

    def put(self, model: Any) -> tuple[Mapping[str, Tensor | None], Callable[[], None]]:
        """Put it into a model: (parameter -> places of its entries that stay, None for all; what takes it out)."""


class WeightSlot(Slot):
    """Numbers that stand in the place of a parameter at every call, or are added to some of its entries; R = 1.

    Attributes:
        values: (1, ...) in the parameter's shape; with `entries`, (1, k). In float32 whatever the parameter is, since
            bfloat16 has no digits for steps of a usual rate.
        entries: places in the flat parameter that `values` are added to (k,); None where they take its place.
        frozen: places in the flat parameter that stay as they are; None for none.
    """

    def __init__(
        self, parameter: str, values: Tensor, entries: Tensor | None = None, frozen: Tensor | None = None
    ) -> None:
        everyone = torch.ones(1, dtype=torch.bool, device=values.device)
        super().__init__(parameter, "weights", values[None].float(), everyone)
        self.entries, self.frozen = entries, frozen

    def stand_in(self, model: Any) -> Tensor:
        """What takes the place of the parameter, by which gradients reach the values."""
        # a view: the gradient of an index would be written to zeros of this size first
        own, value = model.get_parameter(self.parameter), self.values.view(self.values.shape[1:])
        if self.entries is not None:
            return own.float().flatten().index_add(0, self.entries, value).view_as(own)  # type: ignore[no-any-return]
        if self.frozen is not None:
            kept = own.flatten()[self.frozen].to(value.dtype)
            return value.flatten().index_copy(0, self.frozen, kept).view_as(value)
        return value

    def change(self, run: int, model: Any) -> Change:
        if self.entries is not None:
            return Change(self.parameter, self.values[0].detach(), added=True, places=self.entries)
        return Change(self.parameter, self.stand_in(model).detach(), added=False)

    @property
    def _in_adapter(self) -> str:
        """The name that PEFT saves it under."""
        virtual = self.parameter.startswith((PREFIX, PROMPT))
        return EMBEDDINGS if virtual else self.parameter.replace(".default.", ".")

    def export(self, run: int, model: Any, adapter: Adapter) -> None:
        """Numbers of LoRA or of virtual tokens, as they are."""
        adapter.add(self._in_adapter, self.values[run])

    def load(self, run: int, model: Any, adapter: Adapter) -> None:
        adapter.set(self._in_adapter, self.values[run], adapter.take(self._in_adapter))


class WeightBank(BiasBank):
    """One run that trains weights; what PEFT puts into the model for it is taken out by `detach()`.

    Args:
        method: one of `study.WEIGHT_METHODS`.
        frozen: for `full`, a part of the model that stays as it is.
        entries: for `mask`, parameter -> chosen places (k,) in it; by default they are drawn.
        name: of the model, by which the paper gives the number of drawn entries.
        sites: as of `BiasBank`; a prompt and a prefix need an architecture that beft knows.
        other arguments and errors: as `BiasBank`; also BeftError for a prefix on an encoder or a prompt on a decoder.
    """

    trains_weights = True

    def __init__(
        self,
        model: Any,
        method: str,
        seed: int,
        dtype: str = "float32",
        *,
        frozen: FrozenPart | None = None,
        entries: Mapping[str, Tensor] | None = None,
        name: str = "",
        sites: Sites | None = None,
    ) -> None:
        undo: list[Callable[[], None]] = []
        given: dict[str, Any] = {"frozen": frozen, "entries": entries, "name": name, "sites": sites}
        make = partial(weight_slots, model, method, seed, undo, **given)
        try:
            super().__init__(model, [method], [seed], dtype, make, sites=sites)
        except BaseException:
            _take_out(undo)
            raise
        self._undo = undo

    @property
    def weights(self) -> list[WeightSlot]:
        """The slots of weights, without the pooler's bias and the heads."""
        return [slot for slot in self.slots if isinstance(slot, WeightSlot)]

    def stand_ins(self) -> dict[str, Tensor]:
        """{parameter: what takes its place at a call}; gradients go to the slots."""
        return {slot.parameter: slot.stand_in(self.model) for slot in self.weights}

    def _call(self, inputs: dict[str, Any]) -> Any:
        return functional_call(self.model, self.stand_ins(), (), inputs)

    def _cast_frozen(self) -> list[tuple[str, nn.Linear, dict[str, Tensor]]]:
        return []  # its weights are not frozen

    def recomputing(self) -> Any:
        """Raises BeftError: the weights stand in the model during a call alone, not in the backward pass."""
        raise BeftError(f"{self.methods[0]} has no gradient checkpointing: use smaller chunks")

    @contextmanager
    def running(self, run_ids: Tensor) -> Iterator[Any]:
        own = {}
        for name, value in self.stand_ins().items():
            parameter = self.model.get_parameter(name)
            own[name], parameter.data = parameter.data, value.detach()
        try:
            with super().running(run_ids) as model:
                yield model
        finally:
            for name, data in own.items():
                self.model.get_parameter(name).data = data

    def changes(self, run: int) -> list[Change]:
        """As `BiasBank.changes`; of LoRA, what it adds to the weights, by PEFT's own arithmetic.

        Raises BeftError: virtual tokens, which are no part of a plain model.
        """
        self.check_plain()
        changes = super().changes(run)
        if self.methods[0] not in ("lora", "adapter"):
            return changes
        own = {slot.parameter for slot in self.weights}
        with torch.no_grad():
            for slot in self.weights:
                self.model.get_parameter(slot.parameter).copy_(slot.values[0])
            added = {name: layer.get_delta_weight("default") for name, layer in _lora_layers(self.model)}
        rest = [change for change in changes if change.parameter not in own]
        return [*(Change(f"{name}.weight", value, added=True) for name, value in added.items()), *rest]

    def check_plain(self) -> None:
        """Raise BeftError for virtual tokens."""
        method = self.methods[0]
        if method in VIRTUAL:
            what = "keys and values" if method == "prefix" else "virtual tokens"
            raise BeftError(
                f"a {method} is {what} and no part of a plain checkpoint: save it as an adapter, or export a run of "
                "another method"
            )

    def _bare_state(self) -> dict[str, Tensor]:
        state = super()._bare_state()  # LoRA wraps layers of the model, virtual tokens are a module of it
        own = {n: value for n, value in state.items() if ".lora_" not in n and not n.startswith((PREFIX, PROMPT))}
        return {n.replace(".base_layer.", "."): value for n, value in own.items()}

    def detach(self) -> Any:
        """Take hooks, LoRA, virtual tokens and frozen parts off and return the model as it was."""
        super().detach()
        _take_out(self._undo)
        return self.model


def _take_out(undo: list[Callable[[], None]]) -> None:
    while undo:
        undo.pop()()


def open_bank(
    model: Any,
    methods: Sequence[str],
    seeds: Sequence[int],
    dtype: str = "float32",
    *,
    frozen: FrozenPart | None = None,
    entries: Mapping[str, Tensor] | None = None,
    name: str = "",
    sites: Sites | None = None,
) -> BiasBank:
    """The bank of these methods: a `BiasBank`, or the `WeightBank` of a lone run that trains weights.

    Arguments as of these two. Raises BeftError also for a run that trains weights beside others.
    """
    if not set(methods) & set(WEIGHT_METHODS):
        return BiasBank(model, methods, seeds, dtype, sites=sites)
    if len(methods) > 1:
        raise BeftError(f"runs of {', '.join(WEIGHT_METHODS)} train weights and need a bank each: give one run")
    more: dict[str, Any] = {"frozen": frozen, "entries": entries, "name": name, "sites": sites}
    return WeightBank(model, methods[0], int(seeds[0]), dtype, **more)


def weight_slots(
    model: Any,
    method: str,
    seed: int,
    undo: list[Callable[[], None]],
    *,
    frozen: FrozenPart | None = None,
    entries: Mapping[str, Tensor] | None = None,
    name: str = "",
    sites: Sites | None = None,
) -> list[Slot]:
    """What a run of such a method trains besides its head; appends to `undo` what takes PEFT's parts out again."""
    if method == "full":
        return [*full_slots(model, frozen, undo, sites)]
    poolers = pooler_slots(model, 1, sites)
    if method == "mask":
        return [*poolers, *mask_slots(model, seed, entries, name, sites)]
    if method in ("lora", "adapter"):
        # PROTOCOL: on query and value
        every, wanted = anatomy_in_bank(model, sites).sites, paper.data()["lora"]["projections"]
        projections = [site.module for site in every if site.term in wanted]
        add_lora(model, seed, projections if method == "lora" else ends_of_layers(model, sites))
        undo.append(partial(remove_lora, model))
        lora = [(n, p) for n, p in model.named_parameters() if ".lora_" in n]
        return [*poolers, *(WeightSlot(n, p.detach().clone()) for n, p in lora)]
    tokens = (Prefix if method == "prefix" else Prompt)(model, seed)
    undo.append(tokens.remove)
    return [*poolers, WeightSlot(tokens.parameter, tokens.start)]


def full_slots(
    model: Any, frozen: FrozenPart | None, undo: list[Callable[[], None]], sites: Sites | None = None
) -> list[WeightSlot]:
    """Every parameter but the heads', which a bank holds anyway, and but what is frozen."""
    kept: Mapping[str, Tensor | None] = {}
    if frozen is not None:
        kept, take_out = frozen.put(model)
        undo.append(take_out)
    heads = classifier(model, sites is not None).modules
    return [
        WeightSlot(name, parameter.detach().clone(), frozen=kept.get(name))
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[0] not in heads and not (name in kept and kept[name] is None)
    ]


def mask_slots(
    model: Any,
    seed: int,
    entries: Mapping[str, Tensor] | None = None,
    name: str = "",
    sites: Sites | None = None,
) -> list[WeightSlot]:
    """Entries of the encoder layers' parameters: chosen ones, or drawn without replacement from all of them alike."""
    if entries is None:
        parameters = dict(encoder_parameters(model, sites))
        total = sum(p.numel() for p in parameters.values())
        size = mask_size(name, total)
        drawn = np.sort(np.random.default_rng([seed, size]).choice(total, size, replace=False))
        entries = places_in(parameters, torch.from_numpy(drawn))
    device = next(model.parameters()).device
    return [
        WeightSlot(name, torch.zeros(len(places), device=device), entries=places.to(device))
        for name, places in entries.items()
    ]


def places_in(parameters: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """Sorted places (k,) in all parameters laid end to end, as {parameter: places in it}, without empty ones."""
    placed, start = {}, 0
    for name, parameter in parameters.items():
        own = places[(places >= start) & (places < start + parameter.numel())] - start
        if len(own):
            placed[name] = own.to(parameter.device)
        start += parameter.numel()
    return placed


def mask_size(model: str, total: int) -> int:
    """Entries of the mask: the paper's number for its models, elsewhere BERT-base's share of `total`."""
    entries = paper.data()["encoder_settings"]["random_mask_entries"]
    share = round(total * entries["bert-base-cased"] / BERT_BASE)
    return int(entries.get(model, max(1, share)))


def encoder_parameters(model: Any, sites: Sites | None = None) -> list[tuple[str, nn.Parameter]]:
    """(name, parameter) of the encoder's layers, without embeddings, pooler and head."""
    steps = anatomy_in_bank(model, sites).sites[0].module.split(".")
    layers = ".".join(steps[: next(i for i, part in enumerate(steps) if part.isdecimal())]) + "."
    return [(name, p) for name, p in model.named_parameters() if name.startswith(layers)]


def ends_of_layers(model: Any, sites: Sites | None = None) -> list[str]:
    """Names of the linear layers that write into the residual stream: of the model's width, and no q, k or v.

    LoRA of the same rank on them is the nearest that PEFT has to the bottleneck adapter of Houlsby et al. 2019, which
    stands behind them: it too goes down to a few dimensions and up again, but beside the projection and without a
    nonlinearity between.
    """
    projections = {site.module for site in anatomy_in_bank(model, sites).sites}
    names = {name.rpartition(".")[0] for name, _ in encoder_parameters(model, sites)} - projections
    layers = [(name, model.get_submodule(name)) for name in sorted(names)]
    width = model.config.hidden_size
    return [n for n, m in layers if isinstance(m, LINEAR) and width_of(m) == width]


def add_lora(model: Any, seed: int, names: list[str]) -> LoraConfig:
    """Put PEFT's LoRA (rank and alpha as in PROTOCOL) on these layers until `remove_lora`; at first it adds nothing."""
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


def remove_lora(model: Any) -> None:
    """Put the layers that LoRA wrapped back in their places."""
    for name, layer in _lora_layers(model):
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, layer.get_base_layer())
    vars(model).pop("peft_config", None)


def _lora_layers(model: Any) -> list[tuple[str, Any]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]
