"""A run as a plain checkpoint, with biases switched on by the model's own config or by another family's layout."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.projections import describe
from ..anatomy.sites import TERMS, Site
from ..errors import BeftError, unknown
from ..models.gguf import base_note
from ..models.gguf_export import KINDS, write_gguf
from .adapter_files import CONFIG, check_apart, folder_of
from .bank import BiasBank, filled
from .bias_as_lora import as_vectors
from .labels import name_labels
from .layouts import check_layout, give_biases, in_layout
from .peft_adapter import fitting
from .slots import BiasSlot, Change

CARD = "{what}, with a bias tuned by beft{base}.\n"


def merge(
    bank: BiasBank,
    run: int,
    folder: str | Path | None = None,
    tokenizer: Any = None,
    labels: Sequence[Any] = (),
    *,
    layout: str | None = None,
    gguf: str | None = None,
) -> Any:
    """A plain copy of the model with one run's biases added to its own and its head in place.

    Where the model has no bias to add to, its config's own flag gives it some, zero elsewhere. With `folder` it is also
    written there as safetensors (with the tokenizer, if given), so that the `AutoModelFor...from_pretrained` of its
    kind, or an inference server, loads it with neither beft nor peft. The copy computes what the loaded one does. Warns
    where the bank's model does not, because a cast rounded what no checkpoint holds.

    Args:
        labels: names of a classifier's classes, for its config.
        layout: "qwen2" or "llama", the family that a language model is written as, for one like Mistral without a flag
            of its own; its logits there are compared with its own.
        gguf: "f32", "f16" or "q8_0": the folder gets one GGUF file of these numbers in place of safetensors, in the
            layout of Qwen2, read again by transformers and compared.

    Raises BeftError: a tuned layer has no bias and the family no flag for it; a prefix or a prompt, which are no part
    of a checkpoint; quantised weights; a folder that is a file or has an adapter in it; labels as
    `labels.name_labels`; what `layouts.in_layout` and `models.gguf_export.write_gguf` raise.
    """
    folder = _place(folder)
    layout = check_form(bank.model, layout, gguf, folder is not None and tokenizer is not None)
    bare = _without_bias(bank, run)
    changes = bank.changes(run)
    # a model that is made draws weights, though they are replaced at once
    with torch.random.fork_rng(devices=[]):
        exported = bank.bare_copy()
    _warn_of_rounded(bank.model, exported)
    exported = _changed(exported, bare, changes, layout)
    if not bank.language_model:
        name_labels(exported.config, labels)
    _save(exported, bank.model, folder, tokenizer, gguf)
    return exported


def merge_adapter(
    model: Any,
    adapter: str | Path,
    folder: str | Path | None = None,
    tokenizer: Any = None,
    *,
    layout: str | None = None,
    gguf: str | None = None,
) -> Any:
    """A plain copy of a model with a BEFT adapter in it, of this package or of PEFT's own making; else as `merge`.

    PEFT merges no bias into a layer without one; here the config's own flag, or a `layout`, gives it one.

    Args:
        model: the base model, as `models.loading` gives it.
        adapter: the folder.

    Raises BeftError: as `peft_adapter.load_tuned` and `merge`; an adapter of another of PEFT's kinds.
    """
    folder = _place(folder)
    files = as_vectors(fitting(model, adapter))
    if files.kind != "BEFT":
        raise BeftError(f"adapter {files.folder} is of PEFT's kind {files.kind}, and a bias is merged of a BEFT one")
    _refuse_quantised(model)
    layout = check_form(model, layout, gguf, folder is not None and tokenizer is not None)
    changes = []
    for name, tensor in files.tensors.items():
        module, _, leaf = name.rpartition(".")
        bias = leaf == "beft_bias"
        changes.append(Change(f"{module}.bias", tensor.flatten(), True) if bias else Change(name, tensor, False))
    tuned = [name.removesuffix(".beft_bias") for name in files.tensors if name.endswith(".beft_bias")]
    bare = [name for name in tuned if model.get_submodule(name).bias is None]
    with torch.random.fork_rng(devices=[]):
        exported = filled(model, copy.deepcopy(model.config), model.state_dict()).requires_grad_(False)
    exported = _changed(exported, bare, changes, layout)
    if exported.get_output_embeddings() is None:
        name_labels(exported.config, files.about.get("labels", ()))
    _save(exported, model, folder, tokenizer, gguf)
    return exported


def _place(folder: str | Path | None) -> Path | None:
    """The folder to write. Raises BeftError for one that cannot be, or has an adapter in it."""
    if folder is not None:
        folder = folder_of(folder)
        check_apart(folder, apart_from=CONFIG)
    return folder


def _changed(model: Any, bare: Sequence[str], changes: Sequence[Change], layout: str | None) -> Any:
    """A plain model with changes made, in another layout if one is named; the linear layers `bare` get a bias first."""
    if layout is not None:
        give_biases(model, bare)
    elif bare:
        with torch.random.fork_rng(devices=[]):
            model = with_biases(model, bare)
    for change in changes:
        change.apply(model.get_parameter(change.parameter))
    return model if layout is None else in_layout(model, layout)


def _save(exported: Any, source: Any, folder: Path | None, tokenizer: Any, gguf: str | None) -> None:
    """Write a model as safetensors or GGUF, and where it was made from a GGUF file or is one, a note that says so."""
    if folder is None:
        return
    what = "A whole checkpoint"
    if gguf is None:
        exported.save_pretrained(str(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(folder))
    else:
        what = f"A whole model as GGUF ({write_gguf(exported, tokenizer, folder, gguf)})"
    note = base_note(getattr(source.config, "name_or_path", ""))
    if note or gguf is not None:
        text = CARD.format(what=what, base=f", of {note}" if note else "")
        (folder / "README.md").write_text(text, encoding="utf-8")


def check_form(model: Any, layout: str | None, gguf: str | None, written: bool = True) -> str | None:
    """The layout that a model is exported in, None for its own; found before anything is computed.

    Args:
        written: whether there is a folder and a tokenizer to write, which a GGUF file needs.

    Raises BeftError: an unknown kind of GGUF file, one in another layout than Qwen2's or with nothing to write it from,
    what `layouts.check_layout` says.
    """
    if gguf is not None:
        if gguf not in KINDS:
            raise unknown("kind of GGUF file", gguf, KINDS)
        if layout not in (None, "qwen2"):
            raise BeftError(
                f"transformers reads the biases of a GGUF file in the layout qwen2 only, not {layout}: leave layout out"
            )
        if not written:
            raise BeftError("a GGUF file has the tokenizer in it: give merge a folder and the tokenizer")
        layout = "qwen2"
    if layout is not None:
        check_layout(model, layout)
    return layout


def check_mergeable(bank: BiasBank, run: int) -> None:
    """Raise BeftError where `merge` would, without merging."""
    bare = _without_bias(bank, run)
    if bare:
        bias_flag(bank.model, bare)


def _without_bias(bank: BiasBank, run: int) -> list[str]:
    """The modules that have to be given a bias first. Raises BeftError for what is no part of a plain checkpoint."""
    bank.check_plain()
    _refuse_quantised(bank.model)
    tuned = [slot.module for slot in bank.trained(run) if isinstance(slot, BiasSlot)]
    return list(dict.fromkeys(name for name in tuned if bank.model.get_submodule(name).bias is None))


def _refuse_quantised(model: Any) -> None:
    if getattr(model.config, "quantization_config", None) is not None:
        raise BeftError(
            f"the weights of this {model.config.model_type} model are quantised and a bias cannot be merged into them: "
            "load it unquantised, or save an adapter"
        )


def _warn_of_rounded(model: Any, exported: Any) -> None:
    """Say so where a buffer of the model is a rounded one of what its config gives, such as rotary frequencies."""
    own = dict(model.named_buffers())
    for name, made in exported.named_buffers():
        rounded = own.get(name, made)
        if rounded.dtype != made.dtype and not torch.equal(rounded.to(made.dtype), made):
            warnings.warn(
                f"{name} of this model was rounded to {str(rounded.dtype).removeprefix('torch.')} by a cast, and the "
                "merged model has it unrounded, as every copy loaded from a file: its outputs differ from the bank's. "
                "Load the model with dtype= instead of casting it",
                stacklevel=3,
            )
            return


def with_biases(model: Any, modules: Sequence[str]) -> Any:
    """A copy of `model` whose linear layers `modules` (exact names) have biases, zero like all that come with them.

    The family's own flags are asked for, not listed: every flag of the config that has "bias" in its name and is off is
    tried on an empty model, and the one that gives the layers their biases with the fewest others is taken. Raises
    BeftError: no flag of this family does it; an adapter holds such a bias.
    """
    config = copy.deepcopy(model.config)
    setattr(config, bias_flag(model, modules), True)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in type(model)(config).named_parameters()}
    state = model.state_dict()
    added = {name: torch.zeros(shape, dtype=model.dtype) for name, shape in shapes.items() if name not in state}
    return filled(model, config, state | added).requires_grad_(False)


def bias_flag(model: Any, modules: Sequence[str]) -> str:
    """The flag of the model's config that gives `modules` biases. Raises BeftError as `with_biases`."""
    added: dict[str, int] = {}
    flags = [n for n, value in model.config.to_dict().items() if value is False and "bias" in n]
    for flag in flags:
        config = copy.deepcopy(model.config)
        setattr(config, flag, True)
        with torch.device("meta"):
            tried = type(model)(config)
        linear = dict(tried.named_modules())
        if all(isinstance(linear[name], nn.Linear) and linear[name].bias is not None for name in modules):
            added[flag] = sum(1 for _ in tried.parameters()) - sum(1 for _ in model.parameters())
    if not added:
        raise BeftError(
            f"no flag of {type(model.config).__name__} gives {modules[0]} a bias, so a plain checkpoint cannot hold "
            f"one: save an adapter instead{_or_in_another_layout(model)}"
        )
    return min(added, key=lambda flag: (added[flag], flag))


def _or_in_another_layout(model: Any) -> str:
    try:
        check_layout(model, "qwen2")
    except BeftError:
        return ""
    return ', or export the model with layout="qwen2"'


def switched(config: Any, exported: Any) -> dict[str, Any]:
    """What differs between a model with this config and what was exported of it.

    Returns:
        flags: each boolean of the config that changed, name -> (before, after); biases: "b_q", "b_k" and "b_v" -> the
        layers in which that bias is not zero; layers: of the model.
    """
    before, after = config.to_dict(), exported.config.to_dict()
    flags = {n: (before.get(n), v) for n, v in after.items() if isinstance(v, bool) and before.get(n) != v}
    anatomy, counts = describe(exported), {}
    for term in TERMS:
        biases = [(site.part, exported.get_submodule(site.module).bias) for site in anatomy.of(term)]
        counts[f"b_{term}"] = sum(b is not None and bool(part.take(b.detach()).any()) for part, b in biases)
    return {"flags": flags, "biases": counts, "layers": anatomy.layers}


def moved_biases(before: Any, after: Any) -> list[dict[str, Any]]:
    """How far apart the query, key and value biases of two models of one architecture are, as before and after tuning.

    Returns:
        A row per term and layer: term ("b_v"), layer (counted from 1), size (Euclidean length of the bias in `before`,
        0 where there is none) and change (length of the difference). Raises BeftError: an unknown architecture, or two
        models that differ in it.
    """
    sites, others = describe(before).sites, describe(after).sites
    if [(s.term, s.layer, s.part) for s in sites] != [(s.term, s.layer, s.part) for s in others]:
        raise BeftError("the two models have other biases: give one model before and after tuning")
    rows = []
    for site, other in zip(sites, others, strict=True):
        start, end = (_bias_of(model, own) for model, own in ((before, site), (after, other)))
        change = float((end - start).norm())
        rows.append({"term": f"b_{site.term}", "layer": site.layer + 1, "size": float(start.norm()), "change": change})
    return rows


def _bias_of(model: Any, site: Site) -> Tensor:
    """The bias of a site (size,) in float32, zero where there is none."""
    bias = model.get_submodule(site.module).bias
    return torch.zeros(site.size) if bias is None else site.part.take(bias.detach()).float().cpu()
