"""`beft.serve`: a model by name or as it is, in the precision and on the device wanted, with its adapters on it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..bank.bank import check_free
from ..bank.saved import outputs_of
from ..bank.slots import Sites
from ..errors import BeftError, brief, reason_of, unknown
from ..models import loading as models
from ..models.tokens import tokenizer_in
from ..training.device import default_device
from .contents import open_folder
from .served import Served

DTYPES = ("float32", "bfloat16", "float16")


def serve(
    model: Any,
    adapters: Mapping[str, str | Path] | Iterable[tuple[str, str | Path]] = (),
    *,
    tokenizer: Any = None,
    dtype: str | None = None,
    device: str | None = None,
    sites: Sites | None = None,
    offline: bool = False,
) -> Served:
    """Serve any number of tuned biases on one model, each row of a batch under its own.

    ```python
    served = beft.serve("bert-base-cased", {"films": "my_adapter", "mails": "another"})
    served.predict(["I would watch it again.", "You have won!"], which=["films", "mails"])
    ```

    Args:
        model: the base model of all adapters: its name or folder, what `models.load` or `models.load_causal` gave, or a
            transformers model (a ...ForSequenceClassification or a causal language model), which is put into eval mode
            and is the server's until `close()`.
        adapters: name -> folder of a PEFT adapter of the kind BEFT, written by this package or by PEFT.
        tokenizer: of the model; by default what came with `model`, or lies beside an adapter.
        dtype: "float32", "bfloat16" or "float16", of the model and all adapters; by default the model's own.
        device: where to compute, such as "cpu" or "cuda"; by default where a model is that was given loaded, else a GPU
            where there is one.
        sites: as of `anatomy.describe`, for a model whose architecture it does not know.
        offline: never ask the hub for a model by name.

    Raises BeftError: a model that cannot be served or is in use; two adapters of one name; what `Served.add` raises.
    """
    given = list(adapters.items()) if isinstance(adapters, Mapping) else list(adapters)
    if not all(isinstance(item, tuple) and len(item) == 2 for item in given):
        raise BeftError(f"adapters is {brief(adapters)}: give names with folders, {{'name': 'folder', ...}}")
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    loaded, own = _loaded(model, [folder for _, folder in given], offline)
    check_free(loaded)
    if device is not None or isinstance(model, str):
        _move(loaded, device or default_device())
    if dtype is not None:
        _cast(loaded, getattr(torch, dtype))
    tokenizer = tokenizer if tokenizer is not None else own
    served = Served(loaded, tokenizer, sites)
    try:
        for name, folder in given:
            served.add(name, folder)
        if served.tokenizer is None:
            served.tokenizer = tokenizer_in(Path(loaded.config.name_or_path or "."))
    except BaseException:
        served.close()
        raise
    return served


def _loaded(model: Any, folders: list[Any], offline: bool) -> tuple[Any, Any]:
    """The model, and the tokenizer that came with it or None."""
    if isinstance(model, models.Loaded):
        return model.model, model.tokenizer
    if isinstance(model, str | Path):
        if not folders:
            raise BeftError(
                f"there is no adapter that says what kind of model {brief(str(model))} is served as: give one, or give "
                "the model loaded, beft.models.load(...) or load_causal(...)"
            )
        files = open_folder(folders[0])
        if files.config.get("task_type") == "CAUSAL_LM":
            loaded = models.load_causal(str(model), offline=offline)
        else:
            loaded = models.load(str(model), labels=outputs_of(files) or 2, offline=offline)
        return loaded.model, loaded.tokenizer
    if hasattr(model, "peft_config"):
        raise BeftError(f"this {type(model).__name__} has an adapter on it already: load the base model anew")
    if not isinstance(model, PreTrainedModel):
        raise BeftError(
            f"serve takes a model of transformers or the name of one, not a {type(model).__name__}: give one"
        )
    return model, None


def _move(model: Any, device: str) -> None:
    try:
        model.to(torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise BeftError(f"cannot serve on the device {brief(device)} ({reason_of(error)}): give cpu or cuda") from error


def _cast(model: Any, dtype: torch.dtype) -> None:
    """Parameters alone: a cast of the whole model would round rotary frequencies, which are buffers."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
