"""What a step needs and what this machine can do: operations of a model, matrix and copy rates, and a profile."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from beft.anatomy.projections import classifier
from beft.training.device import default_device

# Which operators of a profile belong together, by the beginning of their names; what no group names is "other".
GROUPS = {
    "matrix products": ("addmm", "mm", "linear", "mkldnn_linear", "_addmm_activation"),
    "attention": ("bmm", "baddbmm", "_softmax", "softmax", "_scaled_dot_product", "scaled_dot_product"),
    "activations and norms": ("gelu", "silu", "relu", "tanh", "native_layer_norm", "layer_norm", "rsqrt", "pow"),
    "copies": ("copy_", "_to_copy", "cat", "clone", "contiguous", "index", "gather", "embedding"),
    "dropout": ("bitwise", "ge", "sub", "__r", "__l", "native_dropout", "bernoulli", "remainder"),
}

# The same of a GPU's kernels, by parts of their names.
KERNELS = {
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "splitk"),
    "attention": ("softmax", "fmha", "flash", "_attention", "_of_queries", "_of_keys"),
    "activations and norms": ("gelu", "silu", "relu", "tanh", "layer_norm", "layernorm", "_norm_", "rsqrt"),
    "dropout": ("_drop", "philox"),
    "copies": ("copy", "memcpy", "memset", "cat", "index", "gather", "embedding", "fill", "segment"),
}


def rate_of_products(
    width: int, dtype: torch.dtype, device: torch.device, tokens: int = 1024, repeats: int = 40
) -> float:
    """Operations a second of (tokens, width) by (width, 4 width), the largest product of a layer; the best of three."""
    x = torch.randn(tokens, width, device=device).to(dtype)
    weight = torch.randn(4 * width, width, device=device).to(dtype)
    best = min(_seconds(lambda: nn.functional.linear(x, weight), repeats, device) for _ in range(3))
    return 2.0 * tokens * width * 4 * width / best


def rate_of_copies(device: torch.device, size: int = 64 * 2**20, repeats: int = 10) -> float:
    """Bytes a second, read and written, of copying a block that no cache holds; the best of three."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2.0 * size / min(_seconds(lambda: target.copy_(source), repeats, device) for _ in range(3))


def _seconds(call: Callable[[], Any], repeats: int, device: torch.device) -> float:
    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    with torch.no_grad():
        call()
        began = now()
        for _ in range(repeats):
            call()
        return (now() - began) / repeats


def weights_in_products(model: Any) -> int:
    """Weights of the linear layers but for head, pooler and vocabulary: each multiplies every token once."""
    head = classifier(model)
    apart = {*head.modules, head.pooler}
    output = model.get_output_embeddings()
    linear = (m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in apart)
    return sum(m.weight.numel() for m in linear if m is not output)


def breakdown(call: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a call by kind of operator; "other" is what no kind names.

    On the CPU's own clock, Python included; where there is a GPU, on that of its kernels, and "idle" is when none ran.
    """
    if default_device() == "cuda":
        return _of_kernels(call)
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    whole = time.perf_counter() - began
    seconds = dict.fromkeys((*GROUPS, "other"), 0.0)
    for event in profiled.key_averages():
        if not event.key.startswith("aten::"):
            continue
        name = event.key.removeprefix("aten::")
        kind = next((k for k, starts in GROUPS.items() if name.startswith(starts)), "other")
        seconds[kind] += event.self_cpu_time_total / 1e6
    seconds["other"] += max(0.0, whole - sum(seconds.values()))
    return seconds


def _of_kernels(call: Callable[[], Any]) -> dict[str, float]:
    torch.cuda.synchronize()
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
        whole = time.perf_counter() - began
    seconds = dict.fromkeys((*KERNELS, "other", "idle"), 0.0)
    for event in profiled.key_averages():
        name = event.key.lower()
        kind = next((k for k, parts in KERNELS.items() if any(part in name for part in parts)), "other")
        seconds[kind] += event.self_device_time_total / 1e6
    seconds["idle"] = max(0.0, whole - sum(seconds.values()))
    return seconds
