"""What the runs of a bank train: one stacked parameter per place, and which runs train it.

A slot knows its own work: how it enters the forward pass, what a run of it makes of the model's parameter, and how it
leaves for a PEFT adapter and comes back from one. Biases and heads are here, weights in `baselines`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..anatomy.projections import bias_modules, classifier, describe
from ..anatomy.sites import Anatomy, Slice, width_of
from ..errors import BeftError
from ..study import parse_method, split_method
from .dropout import ForwardState
from .forms import FORMS, Form, draws
from .unpadded import OfTokens

if TYPE_CHECKING:
    from .peft_adapter import Adapter

Sites = Mapping[str, str]  # as of `anatomy.describe`
WIDE = 2**16  # numbers of a head's layer, from which a product for each run is worth while
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)  # their outputs have the bias on axis 1


@dataclass(frozen=True)
class Change:
    """What a run makes of one parameter of the model.

    Attributes:
        parameter: its exact dotted name.
        value: takes the place of the parameter, or is added to it.
        added: whether it is added.
        places: where in the flat parameter it is added (k,), for a `value` (k,); None for the whole parameter.
    """

    parameter: str
    value: Tensor
    added: bool
    places: Tensor | None = None

    @torch.no_grad()
    def apply(self, own: Tensor) -> None:
        """Make the change in a parameter of a plain model."""
        if self.places is not None:
            own.view(-1).index_add_(0, self.places.to(own.device), self.value.to(own))
        elif self.added:
            own += self.value.to(own.device)
        else:
            own.copy_(self.value)


class Slot:
    """One stacked parameter.

    Attributes:
        parameter: exact dotted name of the model's parameter that it adds to or stands for.
        group: "bias", "pooler", "head" or "weights", by which parameters are counted.
        values: the trained numbers, a row per run: (R, ...).
        trained: bool (R,), the runs that train it; the other rows stay as they were.
    """

    def __init__(self, parameter: str, group: str, values: Tensor, trained: Tensor) -> None:
        self.parameter, self.group, self.trained = parameter, group, trained
        self.values = nn.Parameter(values)

    @property
    def module(self) -> str:
        """Name of the module that has the parameter."""
        return self.parameter.rpartition(".")[0]

    def attach(self, model: Any, state: ForwardState) -> list[Any]:
        """Register the hooks by which the runs' values enter the forward pass; returns their handles."""
        return []

    def change(self, run: int, model: Any) -> Change:
        """What the run makes of the parameter, beside the bank."""
        return Change(self.parameter, self.values[run].detach(), added=False)

    def export(self, run: int, model: Any, adapter: Adapter) -> None:
        """Put the run's values into an adapter. Raises BeftError where PEFT's BEFT has no place for them."""
        raise NotImplementedError

    def load(self, run: int, model: Any, adapter: Adapter) -> None:
        """Set the run's values to those of an adapter. Raises BeftError where they are missing or do not fit."""
        raise NotImplementedError


class BiasSlot(Slot):
    """A bias: added to `part` of the output of a module, d of its entries.

    Attributes:
        part: which entries.
        form: how `values` (R, p) become a bias; None where they are one, (R, d).
        fixed: numbers of a form that are drawn and not trained, (R, f).
        before: the pre-trained bias (d,) of a form.
    """

    def __init__(self, module: str, part: Slice, group: str, values: Tensor, trained: Tensor) -> None:
        super().__init__(f"{module}.bias", group, values, trained)
        self.part = part
        self.form: Form | None = None
        self.fixed: Tensor | None = None
        self.before: Tensor | None = None

    def write_as(self, form: Form, seeds: Sequence[int], bias: Tensor | None) -> None:
        """Write the bias in another form, each run's numbers drawn from its seed; `bias` is the module's, if any."""
        d, device = self.part.size, self.values.device
        before = torch.zeros(d) if bias is None else self.part.take(bias.detach()).float().cpu()
        generators = [draws(seed, self.module, self.part.start) for seed in seeds]
        self.values = nn.Parameter(torch.stack([form.start(d, g, before) for g in generators]).to(device))
        self.form, self.before = form, before.to(device)
        self.fixed = torch.stack([form.fixed(d, g) for g in generators]).to(device)

    def delta(self) -> Tensor:
        """What each run adds to the bias, (R, d), in float32; zero for runs that do not train it."""
        if self.form is None:
            return self.values
        assert self.fixed is not None and self.before is not None
        with torch.autocast(self.values.device.type, enabled=False):
            added = self.form.delta(self.values, self.fixed, self.before)
        return torch.where(self.trained[:, None], added, 0.0)

    def attach(self, model: Any, state: ForwardState) -> list[Any]:
        module = model.get_submodule(self.module)
        axis = 1 if isinstance(module, CONVOLUTIONS) else -1

        def add(_: nn.Module, args: Any, output: Tensor) -> Tensor:
            if state.run_ids is None and state.shared:  # of values, added where the runs part
                return output
            if state.run_ids is None:  # every run at once, behind an encoder that no run changes
                return output + self.delta()[:, None].to(output.dtype)  # (R, B, d)
            run_ids = state.run_ids
            if state.R > 1 and state.tokens is not None and state.tokens.hold(output):
                own = OfTokens.apply(self.delta(), run_ids, state.tokens, state.each, output.dtype)  # (M, d)
                # (1, M, d), as the output: the gradient of another shape would be summed over the first dimension
                return output + self.part.put(own, output.shape[-1])[None]
            own = per_output(run_ids, len(output), state.R == 1)
            return with_bias(output, self.part.put(self.delta().index_select(0, own), output.shape[axis]), axis)

        return [module.register_forward_hook(add)]

    def change(self, run: int, model: Any) -> Change:
        module = model.get_submodule(self.module)
        width = len(module.bias) if getattr(module, "bias", None) is not None else width_of(module)
        return Change(self.parameter, self.part.put(self.delta()[run].detach(), width), added=True)

    def export(self, run: int, model: Any, adapter: Adapter) -> None:
        """A vector of a linear layer; whole, where the adapter cannot hold that: a layer norm, a pooler beside LoRA.

        Whole too is a layer whose weight the base model's files lack, as they may lack the pooler: who loads the
        adapter elsewhere would draw another.
        """
        module, change = model.get_submodule(self.module), self.change(run, model)
        drawn = f"{self.module}.weight" in getattr(model, "drawn_parameters", ())
        if adapter.has_vectors and isinstance(module, nn.Linear) and not drawn:
            adapter.add_bias(self.module, change.value)
        else:
            adapter.add_changed(self.module, adapter.frozen(self.module, "bias").detach().float() + change.value)

    def load(self, run: int, model: Any, adapter: Adapter) -> None:
        if self.form is not None:
            raise BeftError(
                f"an adapter holds a bias and not the numbers that a {adapter.method} run trains: "
                f"load it into a {parse_method(adapter.method).base} run"
            )
        module = model.get_submodule(self.module)
        vector, whole = f"{self.module}.beft_bias", f"{self.module}.weight" in adapter.tensors
        if vector in adapter.tensors or (adapter.has_vectors and isinstance(module, nn.Linear) and not whole):
            name, value = vector, adapter.take(vector).reshape(-1)
            if len(value) == module.out_features:  # of a fused projection, all terms
                terms, value = value, self.part.take(value)
                if terms.count_nonzero() != value.count_nonzero():
                    raise BeftError(
                        f"adapter {adapter.where} also has other terms of {vector}, which a {adapter.method} run does "
                        "not train"
                    )
        else:
            name, value = self.parameter, adapter.take_changed(self.module)
        adapter.set(name, self.values[run], value)


def per_output(rows: Tensor, count: int, alone: bool) -> Tensor:
    """What each row of a batch has, (B, ...), for an output of a module with `count` rows.

    OPT's feed-forward layers have a row per token. What a batch shares, such as DeBERTa's embeddings of distances, has
    fewer than B: where all rows are `alone`, of one run, that run's is for all of them.
    """
    if len(rows) == count:
        return rows
    return rows[:1] if alone else rows.repeat_interleave(count // len(rows), dim=0)


def with_bias(output: Tensor, bias: Tensor, axis: int = -1) -> Tensor:
    """An output (B, ..., width) of a module plus a bias (B or 1, width) for each row, of which it keeps the precision.

    `axis`: that of the width.
    """
    shape = [len(bias)] + [1] * (output.dim() - 1)
    shape[axis] = -1
    return output + bias.to(output.dtype).view(shape)  # (B, 1, width)


class HeadPerRun(torch.autograd.Function):
    """Rows x (B, d) times the weight (C, d) of their run, out of (R, C, d): (B, C), a product for each run.

    With a product for each row, a CPU spends a fifth of the time of a bank of MPNet on the gradients of the rows'
    copies of the head's dense layer. The sums differ by rounding, so float32 keeps the other way.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, run_ids: Tensor) -> Tensor:
        ctx.rows = [(run, (run_ids == run).nonzero().flatten()) for run in run_ids.unique().tolist()]
        ctx.save_for_backward(x, weight)
        out = x.new_empty(len(x), weight.shape[1])
        for run, rows in ctx.rows:
            out[rows] = x[rows] @ weight[run].T
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        for run, rows in ctx.rows:
            of_x[rows] = gradient[rows] @ weight[run]
            of_weight[run] = gradient[rows].T @ x[rows]
        return of_x, of_weight, None


class HeadSlot(Slot):
    """The weight (R, C, d) or the offset (R, C) of a linear layer of a classification head, a head per run."""

    def __init__(self, parameter: str, values: Tensor, trained: Tensor, offset: HeadSlot | None = None) -> None:
        super().__init__(parameter, "head", values, trained)
        self.offset = offset  # of a weight, the slot beside it

    def attach(self, model: Any, state: ForwardState) -> list[Any]:
        if self.offset is None:
            return []
        weight, offset = self.values, self.offset.values

        def replace(_: nn.Module, args: Any, output: Tensor) -> Tensor:
            in_bfloat16 = torch.is_autocast_enabled(weight.device.type)
            with torch.autocast(weight.device.type, enabled=False):  # heads are small: always float32
                x = args[0].float()
                if state.run_ids is None:
                    x = x if x.dim() == 3 else x.expand(state.R, *x.shape)  # (R, B, d)
                    return torch.baddbmm(offset[:, None], x, weight.transpose(1, 2))  # (R, B, C)
                if state.each and x.dim() == 2:  # rows in the order of their runs, and others that nobody reads
                    n = state.R * state.each
                    of_runs = torch.baddbmm(offset[:, None], x[:n].unflatten(0, (state.R, -1)), weight.transpose(1, 2))
                    return torch.cat([of_runs.flatten(0, 1), x.new_zeros(len(x) - n, offset.shape[1])])
                own = offset.index_select(0, state.run_ids)
                if in_bfloat16 and x.dim() == 2 and x.device.type == "cpu" and weight[0].numel() >= WIDE:
                    return cast(Tensor, HeadPerRun.apply(x, weight, state.run_ids)) + own
                W = weight.index_select(0, state.run_ids)  # (B, C, d)
                return with_bias(torch.einsum("b...d,bcd->b...c", x, W), own)  # by hand maybe of every token

        module = model.get_submodule(self.module)
        handles = [module.register_forward_hook(replace)]
        if module.weight.dtype != torch.float32:  # behind another layer of the head, which is float32
            handles.append(module.register_forward_pre_hook(lambda own, args: (args[0].to(own.weight.dtype),)))
        return handles

    def export(self, run: int, model: Any, adapter: Adapter) -> None:
        adapter.add_whole(self.module, self.parameter.rpartition(".")[2], self.values[run].detach())

    def load(self, run: int, model: Any, adapter: Adapter) -> None:
        adapter.set(self.parameter, self.values[run], adapter.take(self.parameter))


def bias_slots(model: Any, methods: Sequence[str], seeds: Sequence[int], sites: Sites | None = None) -> list[BiasSlot]:
    """The biases that a bank of these methods adds to, nothing at first, and the pooler's, which every run trains.

    `sites` are those of `anatomy.describe`, for a model whose architecture it does not know, here and below.
    """
    wanted: dict[tuple[str, Slice, str], list[int]] = {}
    for run, name in enumerate(methods):
        for module, part in places(model, name, sites):
            wanted.setdefault((module, part, parse_method(name).form), []).append(run)
    slots = []
    for (module, part, form), runs in wanted.items():
        slot = _bias_slot(model, module, part, "bias", runs, len(methods))
        if form:
            slot.write_as(FORMS[form], seeds, model.get_submodule(module).bias)
        slots.append(slot)
    return [*slots, *pooler_slots(model, len(methods), sites)]


def pooler_slots(model: Any, R: int, sites: Sites | None = None) -> list[BiasSlot]:
    """The bias of the pooler, trained by all R runs; none where the model has no pooler."""
    pooler = classifier(model, sites is not None).pooler
    if pooler is None:
        return []
    part = Slice(0, model.get_submodule(pooler).out_features)
    return [_bias_slot(model, pooler, part, "pooler", range(R), R)]


def places(model: Any, name: str, sites: Sites | None = None) -> Iterator[tuple[str, Slice]]:
    """(module, part of its output) of the biases that a method trains. Raises BeftError for layers that are missing."""
    method = parse_method(name)
    if method.term:
        anatomy = anatomy_in_bank(model, sites)
        if method.layers and method.layers[-1] >= anatomy.layers:
            raise BeftError(
                f"method {name} names layer {method.layers[-1]}, and this {anatomy.family} model has the layers 0 to "
                f"{anatomy.layers - 1}: name some of these"
            )
        for site in anatomy.of(method.term):
            if not method.layers or site.layer in method.layers:
                yield site.module, site.part
    elif method.base == "all_biases":
        for module, layer in bias_modules(model, sites is not None).items():
            yield module, Slice(0, len(layer.bias))  # type: ignore[arg-type]


def anatomy_in_bank(model: Any, sites: Sites | None) -> Anatomy:
    """`anatomy.describe`; of sites named by hand a bank does not need the number of heads, which may be unknown."""
    if sites is None:
        return describe(model)
    return describe(model, sites, getattr(model.config, "num_attention_heads", None) or 1)


def _bias_slot(model: Any, module: str, part: Slice, group: str, runs: Sequence[int], R: int) -> BiasSlot:
    device = next(model.parameters()).device
    # which runs train it is known even where a model has shapes and no numbers
    trained = torch.zeros(R, dtype=torch.bool, device="cpu" if device.type == "meta" else device)
    trained[list(runs)] = True
    return BiasSlot(module, part, group, torch.zeros(R, part.size, device=device), trained)


def head_slots(model: Any, seeds: Sequence[int], sites: Sites | None = None) -> list[HeadSlot]:
    """Stacked heads, drawn as transformers does, each from its run's seed: runs of one seed start alike."""
    std = getattr(model.config, "initializer_range", 0.02)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    device = next(model.parameters()).device
    everyone = torch.ones(len(seeds), dtype=torch.bool, device=device)
    slots = []
    for name in classifier(model, sites is not None).modules:
        out, width = model.get_submodule(name).weight.shape
        weight = torch.stack([torch.randn(out, width, generator=g) * std for g in generators]).to(device)
        offset = HeadSlot(f"{name}.bias", torch.zeros(len(seeds), out, device=device), everyone)
        slots += [HeadSlot(f"{name}.weight", weight, everyone, offset), offset]
    return slots


def must_run_alone(anatomy: Anatomy, methods: Sequence[str]) -> bool:
    """Whether a method tunes a bias that also acts on something a batch shares, so that a run needs its own bank.

    DeBERTa projects the embeddings of distances once for all examples: with layers of its own, which all_biases
    tunes, or with the query's and key's.
    """
    if "disentangled relative" not in anatomy.positions:
        return False
    sharing = {"all_biases"} | ({"b_q", "b_k"} if "shared position projections" in anatomy.extras else set())
    return not sharing.isdisjoint(split_method(method)[0] for method in methods)
