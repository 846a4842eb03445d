"""BiasBank: R independent bias-tuning runs on one frozen backbone.

Every example of a chunk carries the index of its run. At each trained place the bank holds a stack with a row per
run and adds `stack[run]` to the module's output; the classification head is a stack of heads. The runs share every
matrix product of the backbone and nothing else: a value of one run never enters another's output or gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ..anatomy import head as parts
from ..anatomy import projections as anatomy
from ..anatomy.sites import Site
from ..errors import BeftError, unknown
from . import hooks
from .baselines import replaced, restored, weight_slots
from .dropout import Switch
from .slots import Slot, bias_slots, head_slots, shares_places


class BiasBank(nn.Module):
    """R runs on one frozen classifier or language model; R = 1 is plain BEFT.

    A bias that the model does not have is injected: what a run adds to a projection's output is its bias.

    Args:
        model: a frozen `...ForSequenceClassification`, or one with a language model's head, which stays as it is; the
            bank hooks into it until `detach()`.
        methods: one of `study.ALL_METHODS` per run: the term whose bias is tuned (also in another form, "b_v:lora"),
            all biases of linear layers and layer norms (BitFit), or the head alone. Every run also has a head of its
            own and, where the model has a pooler, a bias of its own there (the paper's protocol); on a language model
            it has neither. Those of `study.WEIGHT_METHODS` train weights, in a bank of one run.
        seeds: one per run, for the initial head and for dropout.
        dtype: "float32", or "bfloat16" for autocast. Trained values are float32 either way.

    Raises:
        BeftError: unknown method or dtype, unknown architecture, a model without a head that beft knows, a method
            that trains nothing of it, or a model that already has a bank.
    """

    def __init__(
        self, model: Any, methods: Sequence[str], seeds: Sequence[int], dtype: str = "float32"
    ) -> None:
        super().__init__()
        if dtype not in ("float32", "bfloat16"):
            raise unknown("dtype", dtype, ("float32", "bfloat16"))
        if getattr(model, "beft_bank", False):
            raise BeftError("this model already has a bank on it: call its detach() first")
        self.methods, self.dtype, self.R = tuple(methods), dtype, len(methods)
        self.model, self.anatomy = model, anatomy.describe(model)
        self.device = next(model.parameters()).device
        self.seeds = torch.tensor(list(seeds), device=self.device)
        self.switch, self._hooks = Switch(), []  # type: ignore[var-annotated]
        self.rows: Tensor | None = None  # the run of every row of the chunk in hand
        self._recomputes = False
        biases, weights = bias_slots(model, methods, seeds), weight_slots(model, methods, seeds)
        self.slots = [*biases, *weights, *head_slots(model, seeds)]
        self._check_head()
        for i, slot in enumerate(self.slots):  # named, so that state_dict() and .to() see them
            self.register_parameter(f"slot{i}", slot.values)
        if self.R > 1 and shares_places(self.anatomy, self.methods):
            raise BeftError(
                f"a {self.anatomy.family} model applies these biases to position embeddings that a batch shares, "
                f"so its runs cannot share a bank: put each of the {self.R} runs in a bank of its own"
            )
        self.trains_weights = bool(weights)
        self.encoder_is_frozen = not any(slot.group in ("bias", "weights") for slot in self.slots)
        self._attach()

    def _check_head(self) -> None:
        """Refuse a model whose head nobody would train, and runs that would train nothing."""
        self.language_model = self.model.get_output_embeddings() is not None
        kind = f"{type(self.model).__name__} ({self.anatomy.family})"
        if not (self.language_model or parts.classifier(self.model).modules):
            raise BeftError(
                f"{kind} has no head that beft knows: give a language model, or a sequence classifier of the families "
                "bert, roberta, electra, distilbert, deberta-v2 or vit"
            )
        for run, method in enumerate(self.methods):
            if not any(slot.trained[run] for slot in self.slots):
                raise BeftError(f"{method} trains nothing of {kind}: choose another method")

    def parameter_counts(self, run: int) -> dict[str, int]:
        """Trained numbers of one run: {"bias", "head", "pooler"}, and "weights" where it trains some."""
        counts = {"bias": 0, "head": 0, "pooler": 0} | ({"weights": 0} if self.trains_weights else {})
        for slot in self.slots:
            if slot.trained[run]:
                counts[slot.group] += slot.values[run].numel()
        return counts

    def biases(self, run: int, term: str) -> tuple[Tensor, Tensor]:
        """Pre-trained and tuned bias of a term, (L, d) each; a missing pre-trained bias is zero."""
        before, after = [], []
        for site in self.anatomy.of(term):
            bias = self._frozen(site.module, "bias")
            b0 = torch.zeros(site.size) if bias is None else site.part.take(bias.detach()).float().cpu()
            moved = [s.delta()[run].detach().cpu() for s in self.slots if self._is(s, site)]
            before.append(b0)
            after.append(b0 + sum(moved))
        return torch.stack(before), torch.stack(after)

    @staticmethod
    def _is(slot: Slot, site: Site) -> bool:
        return (slot.module, slot.part) == (site.module, site.part)

    # forward --------------------------------------------------------------------------------------------------

    def forward(self, rows: Tensor, keys: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Logits (B, C), of a language model (B, T, V), of examples whose runs are `rows` (B,).

        Dropout is drawn from `keys` (B,); there is none without.
        """
        return self._call(rows, keys, inputs)

    def every_run(self, **inputs: Tensor) -> Tensor:
        """Logits (R, B, C) of the same examples under every run, without dropout.

        Where no run changes the encoder it is computed once for all of them.
        """
        if self.encoder_is_frozen:
            return self._call(None, None, inputs)
        B = len(next(iter(inputs.values())))
        rows = torch.arange(self.R, device=self.device).repeat_interleave(B)
        repeated = {name: x.repeat(self.R, *[1] * (x.dim() - 1)) for name, x in inputs.items()}
        return self._call(rows, None, repeated).unflatten(0, (self.R, B))

    def _call(self, rows: Tensor | None, keys: Tensor | None, inputs: dict[str, Any]) -> Tensor:
        with self._as(rows, keys):
            if self.trains_weights:  # gradients go through what stands in the parameters' places
                return functional_call(
                    self.model, replaced(self.model, self.slots), (), inputs
                ).logits.float()
            return self.model(**inputs).logits.float()

    @contextmanager
    def _as(self, rows: Tensor | None, keys: Tensor | None) -> Iterator[None]:
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()
        self.rows, self.switch.keys = rows, keys
        try:
            with cast:
                yield
        finally:
            if not self._recomputes:
                self.rows, self.switch.keys = None, None

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Gradient checkpointing of a call and its backward pass: layers keep their inputs and are computed again.

        Raises:
            BeftError: the bank trains weights, which stand in the model during a call alone.
        """
        if self.trains_weights:
            raise BeftError(f"{self.methods[0]} has no gradient checkpointing: use smaller chunks")
        # not the models' own switch: it puts layers in training mode, in which some drop out what we do not see
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            vars(layer)["forward"] = again
        self._recomputes = True  # the rows stay known until the backward pass is over
        try:
            yield
        finally:
            self._recomputes, self.rows, self.switch.keys = False, None, None
            for layer in layers:
                del vars(layer)["forward"]

    @contextmanager
    def running(self, rows: Tensor) -> Iterator[Any]:
        """The model as the runs `rows` (B,) have it, for what needs no gradient: scoring with a cache, generating."""
        plain = {}
        if self.trains_weights:
            for name, value in replaced(self.model, self.slots).items():
                parameter = self.model.get_parameter(name)
                plain[name], parameter.data = parameter.data, value.detach()
        try:
            with self._as(rows, None):
                yield self.model
        finally:
            for name, data in plain.items():
                self.model.get_parameter(name).data = data

    def _attach(self) -> None:
        self.model.beft_bank = True
        self._attention = getattr(self.model.config, "_attn_implementation", None)
        if self._drops_attention():
            self.model.set_attn_implementation("beft")
        place = 0
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):  # stays in eval mode and passes its input on; the hook drops
                self._hook(module, hooks.dropout(self.switch, place := place + 1, module.p))
        for site in self.anatomy.of(self.anatomy.sites[0].term):
            attention = self.model.get_submodule(site.module.rpartition(".")[0])
            attention.beft_attention = (self.switch, place := place + 1, hooks.attention_dropout(attention))
        heads: dict[str, list[Slot]] = {}
        for slot in self.slots:
            if slot.kind == "bias":
                self._hook(self.model.get_submodule(slot.module), hooks.bias(self, slot))
            elif slot.group == "head":
                heads.setdefault(slot.module, []).append(slot)
        for name, (weight, offset) in heads.items():
            self._hook(self.model.get_submodule(name), hooks.head(self, weight.values, offset.values))
        mixer = parts.last_mixer(self.model)
        if (
            mixer is not None
        ):  # the rest of the last layer is computed for the token that the head reads, no other
            self._hooks.append(self.model.get_submodule(mixer).register_forward_pre_hook(hooks.first_token))
        self._cast = [] if self.dtype == "float32" or self.trains_weights else self._cast_frozen(heads)

    def _drops_attention(self) -> bool:
        """Whether the model's attention can be exchanged for the one with keyed dropout, which is SDPA otherwise.

        Not where it is more than that: with soft-capped logits or sinks, or written out by the family itself.
        """
        return bool(self.model._can_set_attn_implementation() and self.model._supports_sdpa)

    def _hook(self, module: nn.Module, function: Any) -> None:
        self._hooks.append(module.register_forward_hook(function))

    def _cast_frozen(self, heads: dict[str, list[Slot]]) -> list[tuple[str, nn.Linear, Any]]:
        """Cast frozen linear layers to bfloat16 once, as autocast would at every call; returns the originals."""
        kept = []
        output = self.model.get_output_embeddings()  # its weight may be that of the input's, too
        for name, module in self.model.named_modules():
            if type(module) is nn.Linear and name not in heads and module is not output:
                kept.append((name, module, {n: p.data for n, p in module.named_parameters()}))
                module.to(torch.bfloat16)
        return kept

    def _frozen(self, module: str, name: str) -> Tensor | None:
        """A parameter of the backbone in its own precision, also while layers are cast."""
        for cast, _, originals in self._cast:
            if cast == module and name in originals:
                return originals[name]  # type: ignore[no-any-return]
        return getattr(self.model.get_submodule(module), name)  # type: ignore[no-any-return]

    def plain_copy(self) -> Any:
        """A copy of the model without hooks, in its own precision."""
        config = copy.deepcopy(self.model.config)
        state = {  # of a model that holds PEFT's LoRA layers, the layers they wrap
            name.replace(".base_layer.", "."): value
            for name, value in self.model.state_dict().items()
            if ".lora_" not in name
        }
        for name, _, originals in self._cast:
            state |= {f"{name}.{n}": data for n, data in originals.items()}
        plain = type(self.model)(config).to(next(self.model.parameters()).dtype)
        plain.load_state_dict(state)
        if hasattr(self.model, "generation_config"):
            plain.generation_config = self.model.generation_config
        if self._attention and plain._can_set_attn_implementation():
            plain.set_attn_implementation(self._attention)
        return plain.to(self.device).eval()

    def detach(self) -> Any:
        """Take the hooks off and return the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for _, module, originals in self._cast:
            for name, data in originals.items():
                getattr(module, name).data = data
        self._cast = []
        for module in self.model.modules():
            if hasattr(module, "beft_attention"):
                del module.beft_attention
        if self._drops_attention() and self._attention:
            self.model.set_attn_implementation(self._attention)
        self.model.beft_bank = False
        return restored(self.model)


@contextmanager
def bank_on(
    model: Any, methods: Sequence[str], seeds: Sequence[int], dtype: str = "float32"
) -> Iterator[BiasBank]:
    """A BiasBank that is taken off the model at the end of the block."""
    bank = BiasBank(model, methods, seeds, dtype)
    try:
        yield bank
    finally:
        bank.detach()
