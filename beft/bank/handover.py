"""What a finished run leaves with: a model to predict with, its folder, an adapter and all that loading it takes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from ..errors import BeftError
from ..models.files import TINY, reference
from ..models.gguf import base_note
from ..study import ALL_METHODS, parse_method
from . import adapter_files
from .adapter_files import CONFIG, EMBEDDINGS, MODEL, check_apart, folder_of, prefix_of
from .bank import BiasBank
from .bias_as_lora import lora_of
from .export import check_mergeable, merge
from .labels import label_names, name_labels
from .peft_adapter import GGUF_CODE, about, adapter_of, fitting, save_adapter, task_type, why_no_adapter
from .virtual_tokens import VIRTUAL

AUTO = {"SEQ_CLS": "ForSequenceClassification", "CAUSAL_LM": "ForCausalLM", "SEQ_2_SEQ_LM": "ForSeq2SeqLM"}
CARD = """---
base_model: {base}
library_name: peft
tags: [beft]
---

{what}, trained by beft. It is loaded by

```python
{code}
```
"""
# The random model has no files, so that nothing but beft can make its base model.
WITH_BEFT = """import beft.models

model = beft.load_tuned(beft.models.load("{name}", labels={labels}).model, {folder!r})"""
WITH_PEFT = """from peft import {auto}

model = {auto}.from_pretrained({arguments})"""


def check_method(method: str, prompted: bool = False) -> None:
    """Raise BeftError for a method with which no classifier, or `prompted` no language model, is handed over."""
    if prompted:
        if isinstance(method, str) and method == "prefix":
            raise BeftError(
                "tune hands over no prefix, which cannot be merged: choose another method, or run Study(..., "
                "prompted=True) with beft.experiments.sweep.run"
            )
        parse_method(method, tuple(name for name in ALL_METHODS if name not in ("head", "prompt", "prefix")))
        return
    if isinstance(method, str) and method == "prefix":
        raise BeftError("a prefix is for causal language models, which have no head to tune: choose another method")
    parse_method(method, tuple(name for name in ALL_METHODS if name != "prefix"))


def check_handover(bank: BiasBank, run: int, labels: Sequence[Any], adapter: str | Path | None) -> None:
    """Raise BeftError, before a run is trained, for what could not be handed over afterwards."""
    label_names(labels)
    if bank.methods[run] not in VIRTUAL:
        check_mergeable(bank, run)
    if adapter is None:
        return
    if reason := why_no_adapter(bank, run):
        raise BeftError(f"{reason}; in tune leave `adapter` out, `save` of what it returns writes that checkpoint")
    check_apart(folder_of(adapter), MODEL)


def tuned_model(bank: BiasBank, run: int, labels: Sequence[Any], model_name: str) -> Any:
    """A run as a model of its own, beside the bank: a plain one, or PEFT's with the virtual tokens of a prompt.

    Args:
        labels: names of the classes, for the model's config; none for a regression.
        model_name: of the base model.
    """
    if bank.methods[run] not in VIRTUAL:
        return merge(bank, run, labels=labels)
    base = bank.bare_copy()
    if not bank.language_model:
        name_labels(base.config, labels)
    config, tensors = adapter_of(bank, run)
    config.base_model_name_or_path = None
    with torch.random.fork_rng(devices=[]):  # PEFT's initial values are replaced at once
        model = get_peft_model(base, config)
    prefix = prefix_of(config.peft_type.value)
    set_peft_model_state_dict(model, {n if n == EMBEDDINGS else prefix + n: x for n, x in tensors.items()})
    config.base_model_name_or_path = reference(model_name)
    model.beft_about = about(bank, labels)
    return model.requires_grad_(False).eval()


def save_model(model: Any, tokenizer: Any, folder: str | Path) -> str | None:
    """Write what `tuned_model` gave, and its tokenizer.

    Returns:
        None for a plain checkpoint, which the `AutoModelFor...` of its kind loads; else the line that loads it.
    """
    folder = folder_of(folder)
    check_apart(folder, MODEL if isinstance(model, PeftModel) else CONFIG)
    tokenizer.save_pretrained(str(folder))
    if not isinstance(model, PeftModel):
        model.save_pretrained(str(folder))
        return None
    config = model.peft_config["default"]
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    prefix = prefix_of(config.peft_type.value)
    tensors = {name.removeprefix(prefix): value.cpu().contiguous() for name, value in state.items()}
    adapter_files.write(folder, config, tensors, model.beft_about)
    return _card(folder, model.get_base_model(), config.base_model_name_or_path, model.beft_about["labels"])


def share_adapter(
    bank: BiasBank, run: int, folder: str | Path, model_name: str, labels: Sequence[Any], tokenizer: Any
) -> str:
    """Write one run as an adapter with its tokenizer and a card that says how to load it.

    Returns:
        The lines of Python that do. Raises BeftError as `save_adapter`.
    """
    folder, base = folder_of(folder), reference(model_name)
    save_adapter(bank, run, folder, base, labels)
    tokenizer.save_pretrained(str(folder))
    if note := base_note(getattr(bank.model.config, "name_or_path", "")):  # of which `save_adapter` has written a card
        return GGUF_CODE.format(file=note.partition(" (")[0], folder=repr(str(folder)))
    return _card(folder, bank.model, base, labels)


def adapter_as_lora(model: Any, adapter: str | Path, folder: str | Path) -> Path:
    """Write a BEFT adapter, of this package or of PEFT's own making, as a LoRA adapter that gives the same logits.

    PEFT loads it on any base model, and merges it only where every layer with a vector has a bias of its own; a base
    without biases keeps it beside the model. What is saved whole, such as a head, is saved whole here too. It takes
    in + 2 out numbers a layer in place of out.

    Args:
        model: the base model, as `models.loading` gives it.
        adapter: the folder of the BEFT adapter.
        folder: to write.

    Raises BeftError: as `peft_adapter.load_tuned`; an adapter of another of PEFT's kinds; a folder that cannot be
    written.
    """
    files = fitting(model, adapter)
    if files.kind != "BEFT":
        raise BeftError(
            f"adapter {files.folder} is of PEFT's kind {files.kind}, and only a BEFT one is written as LoRA with a bias"
        )
    config, tensors = lora_of(model, files.tensors, files.config)
    return adapter_files.write(folder_of(folder), config, tensors, files.about)


def _card(folder: Path, model: Any, base: str, labels: Sequence[Any]) -> str:
    """Write README.md into the folder of an adapter on this base model. Returns the code that loads it."""
    kind = task_type(model)
    auto = "AutoPeftModel" + (AUTO[kind.value] if kind is not None else "")
    given = [repr(str(folder)), *(f"{name}={value!r}" for name, value in loading_arguments(model, labels).items())]
    if base == TINY:
        code = WITH_BEFT.format(name=base, labels=model.config.num_labels, folder=str(folder))
    else:
        code = WITH_PEFT.format(auto=auto, arguments=", ".join(given))
    what = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["peft_type"]
    text = CARD.format(base=base, what=f"A PEFT adapter ({what})", code=code)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return code


def loading_arguments(model: Any, labels: Sequence[Any]) -> dict[str, Any]:
    """What `AutoPeftModelFor...from_pretrained` has to be given beside the folder of an adapter.

    An adapter does not hold the config of its base model, which PEFT reads anew: with two classes without names, in the
    precision of the files, and with the head that the files may have.
    """
    own = _checkpoint_config(model)
    given: dict[str, Any] = {}
    if model.get_output_embeddings() is None:
        count, before = model.config.num_labels, len(own.get("id2label") or ()) or int(own.get("num_labels") or 2)
        names = label_names(labels)
        if names:
            given |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        elif count != before:
            given["num_labels"] = count
        if count == 1 or own.get("problem_type"):
            given["problem_type"] = "regression" if count == 1 else None
        has_head = any("ForSequenceClassification" in name for name in own.get("architectures") or ())
        if has_head and count != before:
            given["ignore_mismatched_sizes"] = True
    dtype = str(model.dtype).removeprefix("torch.")
    if (own.get("dtype") or own.get("torch_dtype") or dtype) != dtype:
        given["dtype"] = dtype
    return given


def _checkpoint_config(model: Any) -> Mapping[str, Any]:
    """The config in the folder that a model was read from; empty where there is none."""
    try:
        read = json.loads((Path(model.config.name_or_path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
