"""What an adapter holds, read from its folder and checked against the model that it is to be served on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.architectures import text_positions
from ..bank import adapter_files
from ..bank.adapter_files import AdapterFiles, folder_of
from ..bank.bias_as_lora import as_vectors
from ..bank.labels import names_in
from ..bank.peft_adapter import check_same_base, task_type
from ..bank.saved import LENGTH, About, read_about
from ..data.own_prompt import Wording
from ..errors import BeftError

VECTOR = "beft_bias"  # PEFT's name of the vector of a linear layer


@dataclass(frozen=True)
class Layer:
    """A linear layer: weight (C, d), and bias (C,) where it has one."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Contents:
    """An adapter, ready to be served.

    Attributes:
        folder: where it is.
        vectors: module -> what is added to its output (width,).
        layers: module -> the linear layer that takes its place.
        outputs: logits of a row; None of a language model.
        labels: names of the classes, in the order of the logits or options; none for a regression, or a language model
            without a prompt of its own.
        columns: the columns of texts that it was tuned on, one or two but of a prompt; empty where not known.
        max_length: tokens that its texts are cut to; None where nothing says how many.
        wording: the prompt of a language model with an option for each label; None where it has none.
    """

    folder: Path
    vectors: dict[str, Tensor]
    layers: dict[str, Layer]
    outputs: int | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    max_length: int | None
    wording: Wording | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All its numbers."""
        own = [x for layer in self.layers.values() for x in (layer.weight, layer.bias) if x is not None]
        return [*self.vectors.values(), *own]


def open_folder(folder: str | Path) -> AdapterFiles:
    """The files of an adapter, not yet checked against a model; a bias that is written as LoRA as the bias it is.

    Raises BeftError: no adapter there, or damaged files; an adapter that holds anything but biases.
    """
    files = as_vectors(adapter_files.read(folder_of(folder)))
    _check_kind(files)
    return files


def read(files: AdapterFiles, model: Any) -> Contents:
    """The contents of an adapter for a plain model, in float32 and on the CPU.

    A module that is saved whole with the model's own weight, as layer norms are and the pooler may be, comes down to
    what it adds to the bias.

    Raises BeftError: an adapter of another base model or kind of model, with numbers that are none, or with a module
    that is neither a linear layer nor a bias.
    """
    adapter_files.check_fits(files, model, task_type(model), any_outputs=True)
    check_same_base(files, model)
    for name, tensor in files.tensors.items():
        if not torch.isfinite(tensor).all():
            raise BeftError(f"adapter {files.folder}: {name} has entries that are NaN or infinite: save it again")
    whole = {name.rpartition(".")[0] for name in files.tensors if not name.endswith(f".{VECTOR}")}
    vectors = {
        name.rpartition(".")[0]: tensor.float().flatten()
        for name, tensor in files.tensors.items()
        if name.endswith(f".{VECTOR}")
    }
    layers: dict[str, Layer] = {}
    for module in sorted(whole):
        _read_whole(files, model, module, vectors, layers)
    if model.get_output_embeddings() is not None:
        own = read_about(files.folder)
        if own is None or own.wording is None:
            return Contents(files.folder, vectors, layers, None, (), (), None)
        return Contents(files.folder, vectors, layers, None, own.labels, own.columns, own.max_length, own.wording)
    most = min(LENGTH, text_positions(model.config) or LENGTH)
    about = read_about(files.folder) or About((), (), most)
    outputs = _outputs(model, layers)
    labels = about.labels or own_labels(model.config, outputs)
    if (len(labels) or 1) != outputs:
        raise BeftError(
            f"{files.folder / adapter_files.ABOUT} has {len(labels)} labels for {outputs} outputs: save the adapter "
            "again"
        )
    return Contents(files.folder, vectors, layers, outputs, labels, about.columns, about.max_length)


def _check_kind(files: AdapterFiles) -> None:
    """Raise BeftError for an adapter that holds anything but biases."""
    if files.kind != "BEFT":
        raise BeftError(
            f"adapter {files.folder} is of PEFT's kind {files.kind}, and serve takes biases (BEFT), such as "
            "beft.tune(..., method='b_v', adapter=...) writes: leave it out, or merge it into a model of its own"
        )


def _read_whole(
    files: AdapterFiles, model: Any, module: str, vectors: dict[str, Tensor], layers: dict[str, Layer]
) -> None:
    """Put a module that an adapter holds whole among the vectors or the layers."""
    own = model.get_submodule(module)
    names = {name.rpartition(".")[2] for name in files.tensors if name.rpartition(".")[0] == module}
    given = {name: files.tensors[f"{module}.{name}"] for name in names}
    bias = getattr(own, "bias", None)
    if not isinstance(own, nn.Linear | nn.LayerNorm) or names != {"weight"} | ({"bias"} if bias is not None else set()):
        raise BeftError(
            f"adapter {files.folder} holds {module} ({type(own).__name__}) whole, and serve takes whole linear layers "
            "and biases alone: merge it into a model of its own with beft.load_tuned(...).merge_and_unload()"
        )
    if torch.equal(given["weight"].to(own.weight.dtype), own.weight.detach().cpu()):
        if bias is not None:
            added = given["bias"].float() - bias.detach().float().cpu()
            vectors[module] = vectors.get(module, 0) + added
    elif isinstance(own, nn.Linear):
        layers[module] = Layer(given["weight"].float(), given["bias"].float() if bias is not None else None)
    else:
        raise BeftError(
            f"adapter {files.folder} has another weight of {module} than this model, and serve adds biases to layer "
            "norms alone: load the base model that it was tuned on, or merge it into a model of its own"
        )


def _outputs(model: Any, layers: dict[str, Layer]) -> int:
    """How many logits a row of an adapter has: those of the layer in its head whose number is not the model's own."""
    for module, layer in layers.items():
        if len(layer.weight) != model.get_submodule(module).out_features:
            return len(layer.weight)
    return int(model.config.num_labels)


def own_labels(config: Any, outputs: int) -> tuple[str, ...]:
    """Names of the classes of so many outputs where an adapter has none: the model's, else by number.

    One output is a value, which has no name.
    """
    if outputs == 1:
        return ()
    names = names_in(config)
    return names if len(names) == outputs else tuple(f"LABEL_{code}" for code in range(outputs))
