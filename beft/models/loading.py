"""Models by name, frozen and in eval mode: sequence classifiers, causal and masked language models."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from ..anatomy.architectures import FAMILIES
from ..anatomy.projections import describe
from ..errors import BeftError, reason_of, unknown
from .files import TINY, ModelFiles, find, read_config, tiny
from .tokens import check_vocabulary, decide_sides, missing_tokenizer


@dataclass(frozen=True)
class Loaded:
    """A frozen classifier in eval mode with its tokenizer, and where its weights came from.

    `sha256` is that of the weight file (of the names and hashes of all of them where there are several), and
    `config_sha256` that of config and tokenizer, as in `ModelFiles`.
    """

    model: Any
    tokenizer: Any
    name: str
    source: str
    revision: str
    sha256: str
    config_sha256: str = ""


def load(name: str, *, labels: int, seed: int = 0, offline: bool = False) -> Loaded:
    """Load `name` as a sequence classifier with `labels` classes; every parameter frozen, eval mode, float32.

    Order: a folder or a GGUF file, the tiny random model, the models of this repository, the hub's cache, the packages
    that `beft.carriers` fetched, the hub (unless `offline` or HF_HUB_OFFLINE). GGUF files and pytorch_model.bin are
    converted once. Whatever the checkpoint lacks (the head, sometimes the pooler) is drawn from `seed`; a bank draws
    its own heads. Its tokenizer cuts and pads texts on the right. No code that comes with a model is run.

    Raises BeftError: no such model here, a wrong hash, weights that are truncated, pickled with code or no numbers, a
    model with code of its own, a tokenizer that is missing or of another model.
    """
    if isinstance(name, str) and name == TINY:
        model, tokenizer, digest = tiny(labels, seed)
        source = f"random initialisation, seed {seed}"
        return Loaded(model.requires_grad_(False).eval(), tokenizer, TINY, source, "none", digest)
    # A head for another number of classes is ignored here; `_check_complete` looks at the other mismatches.
    settings: dict[str, Any] = {"num_labels": labels, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    settings["problem_type"] = None  # that of a task it was tuned on before
    loaded = _read(name, find(name, offline=offline), AutoModelForSequenceClassification, seed, **settings)
    decide_sides(loaded.tokenizer)
    return loaded


def load_classifier(folder: str) -> Loaded:
    """A saved sequence classifier, with its own head, as `load` otherwise. Raises BeftError: weights without a head."""
    files = find(folder, offline=True)
    loaded = _read(folder, files, AutoModelForSequenceClassification, 0, head=True, dtype=torch.float32)
    decide_sides(loaded.tokenizer)
    return loaded


def load_causal(name: str, *, offline: bool = False, dtype: str = "float32") -> Loaded:
    """Load `name` as a causal language model; every parameter frozen, eval mode. Found in the order of `load`.

    The dtype of the weights is "float32" or "bfloat16". A tokenizer without a padding token is used as it is: padding
    is masked, or stands behind all that is read. Raises BeftError: as `load`; a model that is no causal language model;
    an unknown dtype.
    """
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"))
    files = find(name, offline=offline)
    if files.folder is None:
        raise BeftError(f"{name} looks both ways: give a causal language model, such as facebook/opt-1.3b")
    loaded = _read(name, files, AutoModelForCausalLM, 0, dtype=getattr(torch, dtype))
    check_causal(loaded.model.config, name)
    return loaded


def load_masked(name: str, *, offline: bool = False) -> Loaded:
    """Load `name` as a masked language model; every parameter frozen, eval mode, float32. Found in the order of `load`.

    Raises BeftError: as `load`; a model or a tokenizer without masked tokens, or weights without the head for them.
    """
    files = find(name, offline=offline)
    if files.folder is None:
        raise BeftError(f"{name} has no head for masked tokens: give a masked language model, such as tiny-bert")
    try:
        loaded = _read(name, files, AutoModelForMaskedLM, 0, dtype=torch.float32)
    except BeftError as error:
        reason = str(error).partition(":")[0]
        raise BeftError(
            f"{name} cannot be used as a masked language model, it may have no head for masked tokens ({reason}): give "
            "one that has, such as tiny-bert or bert-base-cased"
        ) from error
    if loaded.tokenizer.mask_token_id is None:
        raise BeftError(f"the tokenizer of {name} has no mask token: give a masked language model")
    decide_sides(loaded.tokenizer)
    return loaded


def empty(config: Any, dtype: str = "float32") -> Any:
    """A frozen causal language model with shapes but without values (torch's `meta` device)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    return model.requires_grad_(False).eval()


def shape_of(name: str, *, offline: bool = False) -> Any:
    """Model `name` with shapes but without values, whatever its head. Found and refused as in `load`."""
    folder = find(name, offline=offline).folder
    if folder is None:
        return tiny(2, 0)[0]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return AutoModel.from_config(config, trust_remote_code=False)
    except Exception as error:  # JSON's errors, transformers' own of several kinds
        raise BeftError(
            f"{folder} has no config.json that transformers knows ({reason_of(error)}): fetch it again"
        ) from error


def check_causal(config: Any, name: str) -> None:
    """Raise BeftError unless a config is that of a causal language model, whose tokens attend to earlier ones only."""
    try:
        causal = describe(empty(config)).causal
    except BeftError as error:
        known = ", ".join(name for name, family in FAMILIES.items() if family.causal)
        raise BeftError(
            f"{name} ({config.model_type}) is of no family that beft knows how to tune on prompts: give a model of the "
            f"families {known}"
        ) from error
    except ValueError:  # transformers has no such class for this family
        causal = False
    if not causal:
        raise BeftError(
            f"{name} ({config.model_type}) looks both ways: give a causal language model, such as facebook/opt-1.3b"
        )


def _read(name: str, files: ModelFiles, auto: Any, seed: int, head: bool = False, **settings: Any) -> Loaded:
    folder = files.folder
    assert folder is not None
    config = read_config(folder)
    _refuse(config, folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        with (
            _explained(folder, config, "weights may be truncated or of another kind"),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(seed)
            if settings.get("num_labels") == 1:  # transformers refuses one output while the old task is in the config
                own = AutoConfig.from_pretrained(folder, problem_type=settings.pop("problem_type"), **options)
                own.num_labels = settings.pop("num_labels")
                settings["config"] = own
            model, report = auto.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options, **settings
            )
        try:
            with _explained(folder, config, "tokenizer may be damaged"):
                tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        except BeftError as error:
            raise missing_tokenizer(folder) or error from error
    _check_complete(model, report, folder, head)
    _check_finite(model, folder)
    use_working_experts(model)
    check_vocabulary(tokenizer, model, folder)
    # what is in no file: an adapter has to bring it along
    model.drawn_parameters = frozenset(report["missing_keys"])
    model.requires_grad_(False).eval()
    return Loaded(model, tokenizer, os.fspath(name), files.source, files.revision, files.sha256, files.config_sha256)


def _refuse(config: dict[str, Any], folder: Path) -> None:
    """Raise BeftError for a folder whose weights are quantised or an adapter's, or whose attention is fetched code."""
    quantized = config.get("quantization_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise BeftError(
            f"the weights in {folder} are quantised ({method or 'an unnamed method'}), and a tuned bias could not be "
            "merged into them: give the model's unquantised weights"
        )
    if (folder / "adapter_config.json").exists():
        raise BeftError(
            f"{folder} has an adapter beside the model, which would be loaded with it: give a folder without "
            "adapter_config.json"
        )
    kernel = config.get("attn_implementation")
    if isinstance(kernel, str) and "/" in kernel:
        raise BeftError(
            f"the config.json in {folder} asks for attention by code from the hub ({kernel}), which is not run: take "
            "attn_implementation out of it"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # "newly initialized: classifier" is intended here
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


@contextmanager
def _explained(folder: Path, config: dict[str, Any], guess: str) -> Iterator[None]:
    """Let whatever loading raises end in a BeftError."""
    try:
        yield
    except Exception as error:  # safetensors, transformers and tokenizers raise types of their own
        reason = str(error).strip().split("\n")[0]
        kind = config.get("model_type", "no model_type")
        if "custom code" in reason:
            raise BeftError(
                f"model folder {folder} ({kind}) needs code that comes with it, by auto_map in its config, and such "
                "code is not run: give a model of an architecture that transformers itself has"
            ) from error
        raise BeftError(
            f"model folder {folder} ({kind}) cannot be loaded, its {guess} ({reason}): fetch it again"
        ) from error


def use_working_experts(model: Any) -> None:
    """Let experts be computed one by one where torch's product of all at once would end in an error at the first text.

    It takes rows of whole 16 bytes, and before torch 2.10 only bfloat16 on a GPU.
    """
    if getattr(model.config, "_experts_implementation", None) != "grouped_mm":
        return
    stacks = [p for p in model.parameters() if p.dim() == 3]  # (experts, in, out)
    uneven = any(n * p.element_size() % 16 for p in stacks for n in p.shape[1:])
    old = not hasattr(torch.nn.functional, "grouped_mm") and any(p.dtype != torch.bfloat16 for p in stacks)
    if uneven or old:
        model.set_experts_implementation("eager")


def _check_complete(model: Any, report: dict[str, Any], folder: Path, head: bool) -> None:
    """Refuse weights that leave tensors of the model at their random initialisation, which transformers only logs.

    The head of a classifier may stay random unless `head` is set, that of a language model may not.
    """
    base = f"{model.base_model_prefix}."
    absent = [name for name in report["missing_keys"] if not name.startswith(f"{base}pooler.")]
    misfits = [name for name, *_ in report["mismatched_keys"]]
    needed = base if model.get_output_embeddings() is None and not head else ""
    lost = sorted(name for name in (*absent, *misfits) if name.startswith(needed))
    if lost:
        raise BeftError(
            f"the weights in {folder} lack {len(lost)} of the model's tensors or have them in another shape "
            f"({lost[0]}): they are of another model or incomplete, fetch it again"
        )


def _check_finite(model: Any, folder: Path) -> None:
    """Refuse weights with NaN or infinite entries, under which every rate would diverge.

    A sum has one where its terms have, and takes a tenth of the time of looking at each.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.sum()) and not torch.isfinite(parameter).all():
            count = int((~torch.isfinite(parameter)).sum())
            raise BeftError(
                f"the weights in {folder} are damaged: {count} entries of {name} are NaN or infinite; fetch it again"
            )
