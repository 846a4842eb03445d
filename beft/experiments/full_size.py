"""Training a bias of a model at its full size without its weights: random ones of the same shapes."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ..bank.bank import bank_on
from ..errors import BeftError
from ..models.loading import empty
from ..records.provenance import provenance
from ..records.store import Store
from ..training.loop import default_device, forget_peak, peak_memory
from .memory import config_of, estimate, free_memory, loss, with_layers


def measured(
    shape: str, store: Store, runs: int = 1, tokens: int = 1024, rows: int = 8, dtype: str = "bfloat16"
) -> dict[str, Any]:
    """The record of one training step of a bank of b_v on random weights of a shape; made where `store` has none.

    `expected_bytes` is `memory.estimate`'s, `peak_bytes` what the device had at most while it ran (on a CPU the growth
    of the process, temporaries of the backward pass included), `seconds` those of the step.

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
    found = store.find(settings)
    if found is not None:
        return found
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
    with bank_on(model, ["b_v"] * runs, list(range(runs))) as bank:
        began = time.perf_counter()
        loss(bank, ids).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    record: dict[str, Any] = {
        "kind": "memory",
        "settings": settings,
        "model": {"name": shape, "source": "random weights"},
        "data": {},
    }
    record |= {"expected_bytes": expected, "peak_bytes": peak_memory(device) - before, "seconds": seconds}
    store.write(record | {"outcome": "ok"} | provenance(device.type))
    found = store.find(settings)
    assert found is not None
    return found


def random_model(config: Any, dtype: str, device: torch.device) -> Any:
    """A frozen causal language model of random weights, for what needs a model of its size and not what it knows."""
    model = empty(config, dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=0.02, generator=generator)
        # what a model computes when it is made, such as rotary frequencies, is the same with one layer
        made = dict(AutoModelForCausalLM.from_config(with_layers(config, 1)).named_buffers())
        for name, buffer in model.named_buffers():
            first = ".".join("0" if part.isdecimal() else part for part in name.split("."))
            buffer.copy_(made[first].to(device))
    return model
