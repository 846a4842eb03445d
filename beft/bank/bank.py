"""BiasBank: R independent bias-tuning runs on one frozen backbone.

Every row of a chunk carries the index of its run. At each trained place the bank holds a stack with a row per run and
adds `stack[run]` to the module's output; the classification head is a stack of heads. The runs share every matrix
product of the backbone and nothing else: a value of one run never enters another's output or gradient.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ..anatomy.architectures import FAMILIES, SHARED
from ..anatomy.projections import backbone_of, classifier, last_mixer
from ..anatomy.sites import TERMS, find, width_of
from ..errors import BeftError, unknown
from ..study import ALL_METHODS, WEIGHT_METHODS, check_seed, parse_method
from .attention import drop_weights_of, keep_weights_of, use_keyed_attention
from .dropout import SHARED_BY_BATCH, ForwardState, Parting
from .fused import Fused, end_of_attention, fuse, is_hooked, put_together, rewrite
from .slots import BiasSlot, Change, Sites, Slot, anatomy_in_bank, bias_slots, head_slots, must_run_alone
from .unpadded import AROUND, INSIDE, Tokens, filled_up, tokens_of, unpad
from .virtual_tokens import VIRTUAL

DTYPES = ("float32", "bfloat16")
NO_LAYER = 10**6  # above all layers of any model
_TAKEN: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()  # models with hooks on them -> why they are taken


def check_free(model: nn.Module) -> None:
    """Raise BeftError for a model that has a bank on it, or is served."""
    if model in _TAKEN:
        raise BeftError(_TAKEN[model])


def take(model: nn.Module, why: str) -> None:
    """Let nobody else put hooks on a model until `release`; `why`, a sentence with the remedy, is what they read."""
    check_free(model)
    _TAKEN[model] = why


def release(model: nn.Module) -> None:
    """The model is free again."""
    _TAKEN.pop(model, None)


class BiasBank(nn.Module):
    """R runs on one frozen classifier or language model; R = 1 is plain BEFT.

    A bias that the model does not have is injected: what a run adds to a projection's output is its bias. The bank
    hooks into the model until `detach()`, or the end of a `with` block.

    Args:
        model: a frozen `...ForSequenceClassification`, or one with a language model's head, which stays as it is.
        methods: one per run: the term whose bias is tuned (also in another form, "b_v:lora", or in some layers,
            "b_v[6:12]"), all biases of linear layers and layer norms (BitFit), or the head alone. Every run also has a
            head of its own and, where the model has a pooler, a bias of its own there (the paper's protocol); on a
            language model it has neither.
            Methods that train weights have banks of their own, see `baselines.open_bank`.
        seeds: one per run, for the initial head and for dropout.
        dtype: "float32", or "bfloat16" for autocast. Trained values are float32 either way.
        make_slots: makes what the runs train besides their heads, for a bank of another kind; else `bias_slots`.
        sites: of `anatomy.describe`: where query, key and value are in a model whose architecture it does not know.

    Raises BeftError: unknown method or dtype, unknown architecture without `sites`, a model without a head that beft
    knows, a method that trains nothing of it, or a model that already has a bank.
    """

    trains_weights = False

    def __init__(
        self,
        model: Any,
        methods: Sequence[str],
        seeds: Sequence[int],
        dtype: str = "float32",
        make_slots: Callable[[], Sequence[Slot]] | None = None,
        *,
        sites: Sites | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        check_free(model)
        for name in methods:
            parse_method(name, ALL_METHODS)  # not "sparse", a patch that is trained as a mask
        for seed in seeds:
            check_seed(seed)
        if make_slots is None and set(methods) & set(WEIGHT_METHODS):
            raise BeftError(f"{', '.join(methods)} train weights: use open_bank(), which gives them their own bank")
        self.methods, self.dtype, self.R = tuple(methods), dtype, len(methods)
        self.model, self.anatomy, self.sites = model, anatomy_in_bank(model, sites), sites
        self.head = classifier(model, sites is not None).modules
        self.device = next(model.parameters()).device
        self.seeds = torch.tensor(list(seeds), device=self.device)
        self.state, self._handles = ForwardState(self.R), []  # type: ignore[var-annotated]
        self._recomputes = False
        own = bias_slots(model, methods, seeds, sites) if make_slots is None else make_slots()
        self._check_head()
        self.slots: list[Slot] = [*own, *head_slots(model, seeds, sites)]
        self._check_methods()
        for i, slot in enumerate(self.slots):  # named, so that state_dict() and .to() see them
            self.register_parameter(f"slot{i}", slot.values)
        if self.R > 1 and must_run_alone(self.anatomy, self.methods):
            raise BeftError(
                f"a {self.anatomy.family} model applies these biases to position embeddings that a batch shares, "
                f"so its runs cannot share a bank: put each of the {self.R} runs in a bank of its own"
            )
        # sites by hand: a head may act on every token, and (R, B, d) and (B, T, d) could not be told apart
        self.encoder_is_frozen = sites is None and not any(slot.group in ("bias", "weights") for slot in self.slots)
        self._attach()

    def _check_head(self) -> None:
        """Refuse a model whose head nobody would train."""
        self.language_model = self.model.get_output_embeddings() is not None
        if self.language_model:
            return
        kind = f"{type(self.model).__name__} ({self.anatomy.family})"
        known = ", ".join(name for name, family in FAMILIES.items() if not family.causal and not family.further)
        if not self.head and self.anatomy.causal:
            raise BeftError(
                f"{kind} is a causal language model, which beft tunes on prompts and not with a classifier's head: to "
                f"classify texts give an encoder of the families {known}, such as all-MiniLM-L6-v2, or tune this model "
                "on a task with a prompt, Study(..., prompted=True)"
            )
        if not self.head:
            raise BeftError(
                f"{kind} has no head that beft knows: give a sequence classifier of the families {known}, or a model "
                "with a language model's head"
            )
        bare = [name for name in self.head if self.model.get_submodule(name).bias is None]
        if bare:
            raise BeftError(f"{bare[0]} in the head of {kind} has no bias, and a run trains one there: give it a bias")

    def _check_methods(self) -> None:
        """Refuse runs that would train nothing."""
        kind = f"{type(self.model).__name__} ({self.anatomy.family})"
        for run, method in enumerate(self.methods):
            own = {slot.group for slot in self.trained(run)}
            if not own or (method != "head" and own <= {"head", "pooler"}):
                raise BeftError(f"{method} trains nothing of {kind}: choose another method")

    # what a run trains ----------------------------------------------------------------------------------------

    def trained(self, run: int) -> list[Slot]:
        """The slots that a run trains. Raises BeftError for a run that is not in this bank."""
        if not 0 <= run < self.R:
            raise BeftError(f"run {run} is not in this bank of {self.R} runs")
        return [slot for slot in self.slots if slot.trained[run]]

    def parameter_counts(self, run: int) -> dict[str, int]:
        """Trained numbers of one run: {"bias", "head", "pooler"}, and "weights" where it trains some."""
        counts = {"bias": 0, "head": 0, "pooler": 0} | ({"weights": 0} if self.trains_weights else {})
        for slot in self.trained(run):
            counts[slot.group] += slot.values[run].numel()
        return counts

    def bytes_per_run(self) -> int:
        """Bytes of the values of one run."""
        return sum(slot.values.numel() * slot.values.element_size() for slot in self.slots) // self.R

    def biases(self, run: int, term: str) -> tuple[Tensor, Tensor]:
        """Pre-trained and tuned bias of a term, (L, d) each; a missing pre-trained bias is zero."""
        before, after = [], []
        slots = [slot for slot in self.slots if isinstance(slot, BiasSlot)]
        for site in self.anatomy.of(term):
            bias = self._frozen(site.module, "bias")
            b0 = torch.zeros(site.size) if bias is None else site.part.take(bias.detach()).float().cpu()
            width = width_of(self.model.get_submodule(site.module))  # a slot may have all of a fused projection
            here = [slot for slot in slots if slot.module == site.module]
            moved = [site.part.take(slot.part.put(slot.delta()[run].detach().cpu(), width)) for slot in here]
            before.append(b0)
            after.append(b0 + sum(moved))
        return torch.stack(before), torch.stack(after)

    def changes(self, run: int) -> list[Change]:
        """What a run makes of the parameters of the plain model."""
        return [slot.change(run, self.model) for slot in self.trained(run)]

    def check_plain(self) -> None:
        """Raise BeftError where a run is more than parameters of the plain model."""

    # forward --------------------------------------------------------------------------------------------------

    def forward(self, run_ids: Tensor, keys: Tensor | None = None, **inputs: Tensor) -> Tensor:
        """Logits (B, C), of a language model (B, T, V), of rows whose runs are `run_ids` (B,).

        Dropout is drawn from `keys` (B,); there is none without.
        """
        return self._logits(run_ids, keys, inputs)

    def in_order(self, each: int, run_ids: Tensor, keys: Tensor, tokens: Tokens, inputs: dict[str, Tensor]) -> Tensor:
        """`forward` without a look at the numbers, which a GPU would have to wait for.

        Args:
            each: so many rows of every run, in the order of the runs; the logits of rows behind them are zeros.
            tokens: those of the rows, where the attention mask has ones.
        """
        with self._as(run_ids, keys):
            self.state.tokens, self.state.each = tokens, each
            return self._call(inputs).logits.float()  # type: ignore[no-any-return]

    def every_run(self, **inputs: Tensor) -> Tensor:
        """Logits (R, B, C) of the same rows under every run, without dropout.

        What no run changes is computed once for all of them: the whole encoder, or its layers below `lowest`, and of
        that one the attention where runs change its values alone (and the end of its layer is fused).
        """
        if self.encoder_is_frozen:
            return self._logits(None, None, inputs)
        B = len(next(iter(inputs.values())))
        if self._share_now():
            inputs = filled_up(inputs) if self.fills and B > 1 else inputs
            with self._as(None, None):
                self.state.shared = len(next(iter(inputs.values())))
                self.state.tokens = tokens_of(inputs.get("attention_mask"), self._packs_all)
                return self._call(inputs).logits.float().unflatten(0, (self.R, self.state.shared))[:, :B]  # type: ignore[no-any-return]
        run_ids = torch.arange(self.R, device=self.device).repeat_interleave(B)
        repeated = {name: x.repeat(self.R, *[1] * (x.dim() - 1)) for name, x in inputs.items()}
        return self._logits(run_ids, None, repeated).unflatten(0, (self.R, B))

    def _share_now(self) -> bool:
        """Whether runs that see the same rows share some of the work, in a model as it is now."""
        if not self.shares or self._recomputes:  # a layer that is computed again cannot part the runs again
            return False
        return self.state.parting is None or not is_hooked(self.state.parting.projection)

    def _logits(self, run_ids: Tensor | None, keys: Tensor | None, inputs: dict[str, Any]) -> Tensor:
        packs, B = self.padded < 1, len(next(iter(inputs.values())))
        if packs and self.fills and B > 1:
            inputs = filled_up(inputs)
            more = len(next(iter(inputs.values()))) - B
            run_ids, keys = (None if x is None else torch.cat([x, x[:1].expand(more)]) for x in (run_ids, keys))
        with self._as(run_ids, keys):
            if packs:
                self.state.tokens = tokens_of(inputs.get("attention_mask"), self._packs_all)
            logits = self._call(inputs).logits.float()
            return logits if not packs else logits[:, :B] if run_ids is None else logits[:B]

    def _call(self, inputs: dict[str, Any]) -> Any:
        return self.model(**inputs)

    @contextmanager
    def _as(self, run_ids: Tensor | None, keys: Tensor | None) -> Iterator[None]:
        cast = torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()
        self.state.forget()
        self.state.run_ids, self.state.keys, self.state.depth = run_ids, keys, 0
        try:
            with cast:
                yield
        finally:
            if not self._recomputes:
                self.state.forget()

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Gradient checkpointing of a call and its backward pass: layers keep their inputs and are computed again."""
        # not the models' own switch: it puts layers in training mode, in which some drop out what we do not see
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers:
            again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            vars(layer)["forward"] = again
        self._recomputes = True  # the runs of the rows stay known until the backward pass is over
        try:
            yield
        finally:
            self._recomputes = False
            self.state.forget()
            for layer in layers:
                del vars(layer)["forward"]

    @contextmanager
    def running(self, run_ids: Tensor) -> Iterator[Any]:
        """The model as the runs `run_ids` (B,) have it, for what needs no gradient, such as generating."""
        with self._as(run_ids, None):
            yield self.model

    # on and off the model -------------------------------------------------------------------------------------

    def _attach(self) -> None:
        take(self.model, "this model already has a bank on it: call its detach() first")
        self._attention = getattr(self.model.config, "_attn_implementation", None)
        if self._drops_attention():
            use_keyed_attention(self.model)
        place = 0
        places: dict[nn.Module, int] = {}
        for name, module in self.model.named_modules():
            # stays in eval mode and passes its input on; the hook drops
            if isinstance(module, nn.Dropout) and name.rpartition(".")[2] not in SHARED_BY_BATCH:
                places[module] = place = place + 1
                self._handles.append(module.register_forward_hook(self.state.hook(place, module.p)))
        self.state.modules = place
        packs = self.device.type == "cpu" and not set(self.methods) & set(VIRTUAL)
        rewritten = rewrite(self._attentions(), self.state) if packs else []
        self._handles += rewritten
        for attention in self._attentions():
            own = places[attention.dropout] if rewritten else (place := place + 1)  # type: ignore[index]
            drop_weights_of(attention, self.state, own)
            self.state.attentions += (own,)
            if SHARED in self.anatomy.extras:
                self._handles.append(attention.register_forward_pre_hook(self.state.deeper))
        for slot in self.slots:
            self._handles += slot.attach(self.model, self.state)
        fused = fuse(self.model, self.state, places)
        self._handles += fused
        mixer = last_mixer(self.model) if self.sites is None else None
        # the padding of rows is not computed, see `unpadded`
        self.padded, self.lowest, self.shares, self.fills, self._packs_all = 1.0, 0, False, False, False
        if mixer is not None and not set(self.methods) & set(VIRTUAL):
            _, backbone, family = backbone_of(self.model)
            inside = self._drops_attention() or bool(rewritten)
            self.padded = INSIDE if inside else AROUND
            self.state.packs_all = self._packs_all = inside and self.device.type == "cpu"
            self.fills = self._packs_all and self.dtype == "bfloat16"
            layers = find(backbone, family.stack)
            self._handles += unpad(layers, self._attentions(), self.state, inside)
            if not self.encoder_is_frozen and self.R > 1:
                self._share(layers, fused)
        if mixer is not None:
            # the rest of the last layer is computed for the token that the head reads, no other
            module = self.model.get_submodule(mixer)
            self._handles.append(module.register_forward_pre_hook(lambda _, args: tuple(map(self._firsts, args))))
            self.state.reads_first = self._attentions()[-1]
        self._cast = self._cast_frozen() if self.dtype == "bfloat16" else []
        if self.padded == INSIDE and self.device.type == "cpu" and self._is_frozen():
            names = zip(*([site.module for site in self.anatomy.of(term)] for term in TERMS), strict=True)
            self._handles += put_together(self.model, self._attentions(), list(names), self.state)

    def _share(self, layers: Sequence[nn.Module], fused: Sequence[Fused]) -> None:
        """Let runs that see the same rows part at the lowest layer that one of them changes."""
        self.lowest = min(map(_lowest, self.methods))
        first = self.lowest
        end = end_of_attention(layers[first], fused)
        methods = [parse_method(name) for name in self.methods]
        if end is not None and all(method.term == "v" or method.base == "head" for method in methods):
            module = self.anatomy.of("v")[first].module
            slots = [slot for slot in self.slots if isinstance(slot, BiasSlot) and slot.module == module]
            self.state.parting = Parting(*end, lambda: torch.stack([slot.delta() for slot in slots]).sum(0))
            first += 1
        self.shares = first > 0
        for layer in layers[first:] if self.shares else ():
            self._handles.append(layer.register_forward_pre_hook(self.state.part_runs))

    def _firsts(self, x: Tensor) -> Tensor:
        """The first token of each row, (B, 1, d)."""
        tokens = self.state.tokens
        return tokens.firsts(x) if tokens is not None and tokens.hold(x) else x[:, :1]

    def _attentions(self) -> list[nn.Module]:
        sites = self.anatomy.of(self.anatomy.sites[0].term)
        return [self.model.get_submodule(site.module.rpartition(".")[0]) for site in sites]

    def _drops_attention(self) -> bool:
        """Whether the model's attention can be exchanged for the one with keyed dropout, which is SDPA otherwise.

        Not where it is more than that: with soft-capped logits or sinks, or written out by the family itself.
        """
        return bool(self.model._can_set_attn_implementation() and self.model._supports_sdpa)

    def _is_frozen(self) -> bool:
        """Whether all weights stay as they are."""
        return not self.trains_weights

    def _cast_frozen(self) -> list[tuple[str, nn.Linear, dict[str, Tensor]]]:
        """Cast frozen linear layers to bfloat16 once, as autocast would at every call; returns the originals."""
        kept = []
        heads = self.head
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
                return originals[name]
        return getattr(self.model.get_submodule(module), name)  # type: ignore[no-any-return]

    def _bare_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of the model without the bank, in its own precision."""
        state = dict(self.model.state_dict())
        for name, _, originals in self._cast:
            state |= {f"{name}.{n}": data for n, data in originals.items()}
        return state

    def bare_copy(self) -> Any:
        """A copy of the model without hooks, in its own precision."""
        bare = filled(self.model, copy.deepcopy(self.model.config), self._bare_state())
        if self._attention and bare._can_set_attn_implementation():
            bare.set_attn_implementation(self._attention)
        return bare

    def detach(self) -> Any:
        """Take the hooks off and return the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for _, module, originals in self._cast:
            for name, data in originals.items():
                getattr(module, name).data = data
        self._cast = []
        for attention in self._attentions():
            keep_weights_of(attention)
        if self._drops_attention() and self._attention:
            self.model.set_attn_implementation(self._attention)
        release(self.model)
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()


def _lowest(method: str) -> int:
    """The lowest layer that a method changes; of the head alone, none."""
    known = parse_method(method)
    return NO_LAYER if known.base == "head" else known.layers[0] if known.layers else 0


def filled(model: Any, config: Any, state: Mapping[str, Tensor], kind: Any = None) -> Any:
    """A new model, in eval mode and on the same device as `model`, with this config and these parameters.

    It is of the same class, or of the class `kind`.

    Every parameter has the precision that it has in `state`. Buffers that a checkpoint does not hold, such as rotary
    frequencies, are those of `from_pretrained`: computed in full precision and kept in that of a model made in the
    precision of `state`. A cast of the whole model would round them.
    """
    kind = kind or type(model)
    made, usual = kind(config), torch.get_default_dtype()
    torch.set_default_dtype(next(x.dtype for x in state.values() if x.is_floating_point()))
    try:
        with torch.device("meta"):
            precisions = {name: buffer.dtype for name, buffer in kind(config).named_buffers()}
    finally:
        torch.set_default_dtype(usual)
    for name, parameter in made.named_parameters():
        parameter.data = parameter.data.to(state[name].dtype)
    for name, buffer in made.named_buffers():
        buffer.data = buffer.data.to(precisions[name])
    made.load_state_dict(state)
    if hasattr(model, "generation_config"):
        made.generation_config = model.generation_config
    return made.to(model.device).eval()


class Runs(Protocol):
    """What scores and generates takes: a model, and how to have it as some runs have it."""

    model: Any
    device: torch.device

    def running(self, run_ids: Tensor) -> AbstractContextManager[Any]:
        """The model as the runs `run_ids` (B,) of the rows have it."""


class BareModel:
    """A model without a bank, behind the face of one with a single run, for what scores either."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, next(model.parameters()).device

    def running(self, run_ids: Tensor) -> AbstractContextManager[Any]:
        """The model as it is."""
        return nullcontext(self.model)


def as_bank(model: Any) -> Runs:
    """A bank, or what is used like one, as it is, a model as a `BareModel`: `with as_bank(m).running(run_ids)`."""
    return model if hasattr(model, "running") else BareModel(model)
