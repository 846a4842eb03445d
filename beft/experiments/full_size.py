"""One training step of a model at its full size without its weights: random ones of the same shapes, measured."""

import copy
import time
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from ..bank.bank import BiasBank
from ..errors import BeftError
from ..models.loading import empty
from ..records.provenance import build_record
from ..records.store import Store
from ..training.device import default_device, forget_peak, free_memory, peak_memory
from .memory import READ, config_of, estimate


def measured(
    shape: str, store: Store, runs: int = 1, tokens: int = 1024, rows: int = 8, dtype: str = "bfloat16"
) -> dict[str, Any]:
    """The record of one training step of a bank of b_v on random weights of a shape; made where `store` has none.

    `expected_bytes` is `estimate`'s, `peak_bytes` what the device had at most while it ran (on a CPU the growth of the
    process, temporaries of the backward pass included), `seconds` those of the step.

    Raises:
        BeftError: an unknown shape, or one that does not fit into the memory that is free.
    """
    device = torch.device(default_device())
    settings = {
        "kind": "memory",
        "model": shape,
        "runs": runs,
        "tokens": tokens,
        "rows": rows,
        "dtype": dtype,
    }
    settings |= {"device": device.type}
    record = store.find(settings)
    if record is not None:
        return record
    config = config_of(shape)
    expected = estimate(config, ["b_v"] * runs, tokens, rows, dtype).total(runs)
    free = free_memory(device)
    if expected > free:
        raise BeftError(
            f"{shape} needs {expected / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on {device.type}: use a smaller "
            "shape"
        )
    forget_peak(device)
    before = peak_memory(device)
    model = random_model(config, dtype, device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (rows, tokens // rows), generator=generator).to(device)
    with BiasBank(model, ["b_v"] * runs, list(range(runs))) as bank:
        began = time.perf_counter()
        loss(bank, ids).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    origin = {"model": {"name": shape, "source": "random weights"}, "data": {}}
    sizes: dict[str, Any] = {"expected_bytes": expected, "peak_bytes": peak_memory(device) - before}
    store.write(build_record("memory", settings, origin, device.type, **sizes, seconds=seconds))
    return store.read(store.name(settings))


def loss(bank: BiasBank, ids: Tensor) -> Tensor:
    """A loss that reads as many positions as options do."""
    run_ids = torch.arange(len(ids), device=ids.device) % bank.R
    logits = bank(run_ids, None, input_ids=ids, use_cache=False, logits_to_keep=READ)
    return -logits.log_softmax(-1)[..., 0].mean()


def random_model(config: Any, dtype: str, device: torch.device) -> Any:
    """A frozen causal language model of random weights, for what needs a model of its size and not what it knows."""
    model = empty(config, dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    one_layer = copy.deepcopy(config)
    one_layer.num_hidden_layers = 1
    if getattr(one_layer, "layer_types", None):
        one_layer.layer_types = one_layer.layer_types[:1]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02, generator=generator)
        # what a model computes when it is made, such as rotary frequencies, is the same with one layer
        made = dict(AutoModelForCausalLM.from_config(one_layer).named_buffers())
        for name, buffer in model.named_buffers():
            first = ".".join("0" if part.isdecimal() else part for part in name.split("."))
            buffer.copy_(made[first].to(device))
    return model
