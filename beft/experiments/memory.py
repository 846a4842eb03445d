"""How much memory a bank on a language model needs, told before any weight is read.

The model is built on torch's `meta` device, where tensors have shapes and no numbers: its weights are counted, and what
autograd would keep of a chunk is what the bank's own forward pass saves there. `full_size` measures the same for real.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from transformers import AutoConfig, AutoModelForCausalLM

from ..bank.bank import BiasBank, bank_on
from ..data.batching import CHUNKS
from ..errors import BeftError, unknown
from ..models.loading import empty
from ..training.loop import default_device

BANK = 24  # runs: enough sentences a step for chunks of nearly equal lengths
# Of the free memory: the rest is for what is not measured, such as temporaries of a backward pass.
SHARE = 0.7
ADAM = 4  # numbers per trained number: its value, gradient and two moments
READ = 8  # places of a sequence whose logits are read, where options are short
FULL = 16  # bytes a weight under full fine-tuning in float32: itself, its gradient and Adam's two moments


class NoEstimate(BeftError):
    """What a model computes depends on the numbers it is given, so its memory cannot be told from shapes."""


@dataclass(frozen=True)
class Estimate:
    """Bytes of one model and bank.

    Attributes:
        parameters: of the model.
        weights: what it takes, in its precision.
        run: what a run keeps: its values, their gradients and moments.
        kept: what a chunk of `tokens` keeps for its backward pass.
        recomputed: the same under gradient checkpointing, where layers keep their inputs alone.
        tokens: of the chunk.
    """

    parameters: int
    weights: int
    run: int
    kept: int
    recomputed: int
    tokens: int

    def total(self, runs: int = 1, checkpointing: bool = False) -> int:
        """Bytes of the model, a bank of so many runs and one chunk."""
        return self.weights + runs * self.run + (self.recomputed if checkpointing else self.kept)

    @property
    def full(self) -> int:
        """Bytes of weights, gradients and moments under full fine-tuning, without activations."""
        return FULL * self.parameters


@dataclass(frozen=True)
class Plan:
    """How a bank is to be trained: with gradient checkpointing or not, at how many tokens a chunk, and in words why."""

    checkpointing: bool
    tokens: int
    said: str = field(default="", compare=False)


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """Sizes of the paper's models by name, from `shapes.json`."""
    text = files(__package__).joinpath("shapes.json").read_text(encoding="utf-8")
    return json.loads(text)["shapes"]  # type: ignore[no-any-return]


def config_of(name: str | Path) -> Any:
    """The config of a named shape, or of a model's folder. Raises BeftError for an unknown name."""
    if Path(name, "config.json").is_file():
        try:
            return AutoConfig.from_pretrained(name, local_files_only=True)
        except Exception as error:  # JSON's errors, transformers' own of several kinds
            reason = str(error).strip().split("\n")[0]
            raise BeftError(
                f"{name} has no config.json that transformers knows ({reason}): fetch it again"
            ) from error
    if str(name) not in shapes():
        raise unknown("shape", str(name), shapes())
    return AutoConfig.for_model(**shapes()[str(name)])


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU, or available to a process on a CPU."""
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


def estimate(
    config: Any, methods: Sequence[str] = ("b_v",), tokens: int = 1024, rows: int = 8, dtype: str = "bfloat16"
) -> Estimate:
    """What a bank of these methods needs on a model of this config.

    Layers are alike, so what a chunk keeps is measured with one layer and with two.

    Args:
        tokens: of a chunk with padding, in `rows` sequences.
        dtype: of the weights.

    Raises:
        NoEstimate: a model whose computation depends on its numbers, such as a mixture of experts.
    """
    whole = empty(config, dtype)
    element = next(whole.parameters()).element_size()
    first, second = (_kept(with_layers(config, n), methods, tokens, rows, dtype) for n in (1, 2))
    layer, layers = second - first, config.num_hidden_layers
    with bank_on(whole, methods, [0] * len(methods)) as bank:
        run = ADAM * sum(s.values.numel() * s.values.element_size() for s in bank.slots) // bank.R
    parameters = sum(p.numel() for p in whole.parameters())
    inputs = layers * tokens * config.hidden_size * element
    return Estimate(
        parameters, parameters * element, run, first + (layers - 1) * layer, first + inputs, tokens
    )


def plan(config: Any, runs: int, longest: int, free: int | None = None, dtype: str = "bfloat16") -> Plan:
    """The largest chunks that fit beside the model and a bank of b_v, without checkpointing where that fits too.

    Args:
        longest: tokens of the longest example: a chunk holds one at least.
        free: bytes, instead of those of the default device.

    Raises:
        BeftError: the model does not fit even so, with the GB it needs.
    """
    device = torch.device(default_device())
    free = free_memory(device) if free is None else free
    try:
        found = estimate(config, tokens=longest, rows=1, dtype=dtype)
    except NoEstimate as error:
        return Plan(False, CHUNKS[device.type].tokens, str(error))
    gb = f"{(found.weights + runs * found.run) / 1e9:.1f} GB for weights and runs, {free / 1e9:.1f} GB free"
    room = SHARE * (free - found.weights - runs * found.run)
    for checkpointing, kept in ((False, found.kept), (True, found.recomputed)):
        if kept <= room:
            tokens = int(min(CHUNKS[device.type].tokens, room // kept * longest))
            how = "with" if checkpointing else "without"
            said = f"{gb} on {device.type}: chunks of {tokens:,} tokens {how} gradient checkpointing"
            return Plan(checkpointing, tokens, said)
    need = found.weights + runs * found.run + found.recomputed / SHARE
    raise BeftError(
        f"a {config.model_type} model of {found.parameters / 1e9:.1f} billion parameters needs {need / 1e9:.1f} GB for "
        f"{runs} runs at {longest} tokens, and {free / 1e9:.1f} GB are free on {device.type}: use a smaller model, "
        "fewer runs or a smaller max_length"
    )


def with_layers(config: Any, layers: int) -> Any:
    """The same config with so many layers."""
    fewer = copy.deepcopy(config)
    fewer.num_hidden_layers = layers
    if getattr(fewer, "layer_types", None):
        fewer.layer_types = fewer.layer_types[:layers]
    return fewer


def _kept(config: Any, methods: Sequence[str], tokens: int, rows: int, dtype: str) -> int:
    """Bytes that autograd keeps of a chunk on a model of this config, without the model's own tensors."""
    mode, kept = FakeTensorMode(allow_non_fake_inputs=True), []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with mode:  # as on `meta`, and models that look at their mask's numbers see that there are none
        model = (
            AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval().requires_grad_(False)
        )
        ids = torch.zeros(rows, tokens // rows, dtype=torch.long)
    with bank_on(model, methods, [0] * len(methods)) as bank:
        with mode, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            try:
                loss(bank, ids)
            except (DataDependentOutputException, DynamicOutputShapeException) as error:
                raise NoEstimate(
                    f"the memory of a {config.model_type} model is not known before it runs: what it computes depends "
                    "on its numbers"
                ) from error
        owned = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in kept}
    return sum(size for place, size in storages.items() if place not in owned)


def loss(bank: BiasBank, ids: Tensor) -> Tensor:
    """A loss that reads as many places as options do."""
    owner = torch.arange(len(ids), device=ids.device) % bank.R
    logits = bank(owner, None, input_ids=ids, use_cache=False, logits_to_keep=READ)
    return -logits.log_softmax(-1)[..., 0].mean()
