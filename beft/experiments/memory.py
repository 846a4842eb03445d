"""How much memory a bank needs, estimated from the model's config before any weight is read; `measured` measures it.

What a forward pass keeps for its gradient follows from sizes: every layer keeps some multiples of its width, of its
feed-forward width and of the attention's for each token. The multiples of a family are in `KEPT`. Where a bank needs
more after all, `sweep` goes on with banks of half the size; each record has the chunk that was used.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from ..bank.bank import BiasBank
from ..bank.baselines import open_bank
from ..bank.slots import places
from ..data.batching import CHUNKS
from ..errors import BeftError, unknown
from ..models.files import read_config
from ..models.loading import empty, use_working_experts
from ..records.provenance import build_record
from ..records.store import Store
from ..study import parse_method
from ..training.device import default_device, forget_peak, free_memory, peak_memory

BANK = 24  # runs on a CPU: enough sentences a step for chunks of nearly equal lengths
GPU_BANK = 96  # runs on a GPU, which is not busy with fewer sentences
# Of the free memory: the rest is for what is not estimated, such as temporaries of a backward pass.
SHARE = 0.7
ADAM = 4  # numbers per trained number: its value, gradient and two moments
READ = 8  # positions of a sequence whose logits are read, where options are short
FULL = 16  # bytes a weight under full fine-tuning in float32: itself, its gradient and Adam's two moments


def largest_bank() -> int:
    """Most runs that share a bank on the default device, where memory does."""
    return BANK if default_device() == "cpu" else GPU_BANK


@dataclass(frozen=True)
class Kept:
    """What a layer keeps of one token for the backward pass of a bias, in numbers per entry of each width.

    Attributes:
        hidden: of the model's width, in the precision of the weights; `hidden32` in float32 (norms).
        inner: of the feed-forward width.
        values: of the width of all key-value heads.
        scores: of the attention's scores, where they are written out, in the precision of the weights; `scores32` in
            float32, the same numbers where that is the precision of the weights.
        rotary: of a head's size for each position, cosines and sines.
        masks: of the width, two bytes each: which units dropout keeps; `score_masks` the same of the scores.
        parallel: the feed-forward part stands beside the attention, so that the lowest layer keeps none of it.
    """

    hidden: int
    inner: int
    values: int = 0
    hidden32: int = 0
    scores: int = 0
    scores32: int = 0
    rotary: int = 0
    masks: int = 0
    score_masks: int = 0
    parallel: bool = False


_LLAMA = Kept(4, 3, hidden32=2, rotary=2)
_BERT = Kept(3, 1, hidden32=2, scores=1, scores32=1, masks=2, score_masks=1)  # see `bank.attention` and `bank.fused`
# By `config.model_type`, as counted with torch.autograd.graph.saved_tensors_hooks (tests/experiments/test_memory.py).
KEPT = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "mpnet": _BERT,
    "albert": Kept(4, 4, hidden32=2, scores=3),
    "modernbert": Kept(5, 1, hidden32=2, scores=3),
    "distilbert": Kept(2, 1, hidden32=2, scores=3),
    "opt": Kept(3, 1, 3),
    "gpt2": Kept(3, 4, 3),
    "gpt_bigcode": Kept(3, 1, 3),
    "gptj": Kept(2, 4, hidden32=2, scores=1, scores32=1, rotary=2, parallel=True),
    "gpt_neox": Kept(4, 1, 3, parallel=True),
    "bloom": Kept(1, 2, scores=1, scores32=1),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "gemma": _LLAMA,
    "phi3": _LLAMA,
    "stablelm": Kept(6, 3, rotary=1),
    "phi": Kept(5, 4, rotary=1, parallel=True),
    "qwen3": Kept(4, 3, 2, hidden32=3, rotary=2),
    "gemma2": Kept(3, 3, hidden32=4, scores32=2, rotary=2),
    "gemma3_text": Kept(4, 3, 2, hidden32=5, rotary=2),
}
OTHER = Kept(7, 4, 4, hidden32=5, scores=1, scores32=2)  # of a family that is not listed, more than most that are


@dataclass(frozen=True)
class Estimate:
    """Bytes of one model and bank.

    Attributes:
        parameters: of the model.
        weights: what it takes, in its precision.
        run: what a run keeps: its values, their gradients and moments.
        kept: what a chunk of `tokens` keeps for its backward pass.
        recomputed: the same where layers are computed again in the backward pass and keep their inputs alone.
        tokens: of the chunk.
    """

    parameters: int
    weights: int
    run: int
    kept: int
    recomputed: int
    tokens: int

    def total(self, runs: int = 1, recompute: bool = False) -> int:
        """Bytes of the model, a bank of so many runs and one chunk."""
        return self.weights + runs * self.run + (self.recomputed if recompute else self.kept)

    @property
    def full(self) -> int:
        """Bytes of weights, gradients and moments under full fine-tuning, without activations."""
        return FULL * self.parameters


@dataclass(frozen=True)
class Plan:
    """How a bank is to be trained: whether layers are computed again, at how many tokens a chunk, and in words why."""

    recompute: bool
    tokens: int
    message: str = field(default="", compare=False)


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """Sizes of the paper's models by name, from `shapes.json`."""
    text = files(__package__).joinpath("shapes.json").read_text(encoding="utf-8")
    return json.loads(text)["shapes"]  # type: ignore[no-any-return]


def config_of(name: str | Path) -> Any:
    """The config of a named shape, or of a model's folder. Raises BeftError for an unknown name."""
    if Path(name, "config.json").is_file():
        read_config(Path(name))
        try:
            return AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # JSON's errors, transformers' own of several kinds
            reason = str(error).strip().split("\n")[0]
            raise BeftError(f"{name} has no config.json that transformers knows ({reason}): fetch it again") from error
    if str(name) not in shapes():
        raise unknown("shape", str(name), shapes())
    return AutoConfig.for_model(**shapes()[str(name)])


def kept_by_layers(config: Any, tokens: int, rows: int, element: int) -> tuple[int, int]:
    """Bytes that the lowest layer, and every other, keeps of a chunk for its backward pass.

    Args:
        tokens: of the chunk with padding, in `rows` sequences.
        element: bytes of a number in the precision of the weights.
    """
    kept = KEPT.get(config.model_type, OTHER)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    values = size * (getattr(config, "num_key_value_heads", None) or heads)
    names = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
    inner = next((x for name in names if (x := getattr(config, name, None))), 4 * config.hidden_size)
    copies = 0 if element == 4 and kept.scores32 and not kept.score_masks else kept.scores
    scores = tokens * heads * (tokens // rows) * (4 * kept.scores32 + element * copies + 2 * kept.score_masks)
    hidden = tokens * config.hidden_size * (element * kept.hidden + 4 * kept.hidden32 + 2 * kept.masks)
    attention = scores + tokens * (element * kept.values * values + 4 * heads)
    attention += hidden + element * kept.rotary * size * (tokens // rows)
    layer = attention + tokens * (element * kept.inner * inner + 8)  # and the scale of two norms
    if not kept.parallel:
        return layer, layer
    return scores or attention, layer  # nothing but the attention is behind the lowest value bias


def estimate(
    config: Any, methods: Sequence[str] = ("b_v",), tokens: int = 1024, rows: int = 8, dtype: str = "bfloat16"
) -> Estimate:
    """What a bank of these methods needs on a language model of this config.

    Args:
        tokens: of a chunk with padding, in `rows` sequences.
        dtype: of the weights.
    """
    model = empty(config, dtype)
    element = next(model.parameters()).element_size()
    with open_bank(model, methods, [0] * len(methods)) as bank:
        run = ADAM * bank.bytes_per_run()
    lowest, layer = kept_by_layers(config, tokens, rows, element)
    lowest += rows * READ * (4 * config.vocab_size + element * config.hidden_size)  # log-probabilities
    layers, parameters = config.num_hidden_layers, sum(p.numel() for p in model.parameters())
    inputs = layers * tokens * config.hidden_size * element
    kept = lowest + (layers - 1) * layer
    return Estimate(parameters, parameters * element, run, kept, lowest + inputs, tokens)


def plan(config: Any, runs: int, longest: int, free: int | None = None, dtype: str = "bfloat16") -> Plan:
    """The largest chunks that fit beside a language model and a bank of b_v, without recomputing where that fits too.

    Args:
        longest: tokens of the longest example: a chunk holds one at least.
        free: bytes, instead of those of the default device.

    Raises BeftError: the model does not fit even so, with the GB it needs.
    """
    device = torch.device(default_device())
    free = free_memory(device) if free is None else free
    needed = estimate(config, tokens=longest, rows=1, dtype=dtype)
    held = needed.weights + runs * needed.run
    room = SHARE * (free - held)
    for recompute, kept in ((False, needed.kept), (True, needed.recomputed)):
        if kept <= room:
            tokens = int(min(CHUNKS[device.type].tokens, room // kept * longest))
            message = (
                f"{held / 1e9:.1f} GB for weights and runs, {free / 1e9:.1f} GB free on {device.type}: chunks of "
                f"{tokens:,} tokens {'with' if recompute else 'without'} gradient checkpointing"
            )
            return Plan(recompute, tokens, message)
    raise BeftError(
        f"a {config.model_type} model of {needed.parameters / 1e9:.1f} billion parameters needs "
        f"{(held + needed.recomputed / SHARE) / 1e9:.1f} GB for {runs} runs at {longest} tokens, and {free / 1e9:.1f} "
        f"GB are free on {device.type}: use a smaller model, fewer runs or a smaller max_length"
    )


def bank_size(model: Any, methods: Sequence[str], longest: int, dtype: str, free: int | None = None) -> int:
    """Most runs of a bank on a classifier: `largest_bank()`, or as many as fit into the memory that is free now.

    Args:
        model: the frozen classifier.
        methods: of the runs; a run keeps a row in every place that any of them trains.
        longest: tokens of the longest text.
        free: bytes, instead of those of the default device.
    """
    device = torch.device(default_device())
    free = free_memory(device) if free is None else free
    with BiasBank(model, ["head"], [0]) as bank:
        head = bank.bytes_per_run()
    biases = {(*place, parse_method(m).form): place[1].size for m in methods for place in places(model, m)}
    tokens, element = CHUNKS[device.type].tokens, 2 if dtype == "bfloat16" else 4
    _, layer = kept_by_layers(model.config, tokens, max(1, tokens // longest), element)
    chunk = model.config.num_hidden_layers * layer if biases else 0
    return max(1, min(largest_bank(), int((SHARE * free - chunk) // (ADAM * (head + 4 * sum(biases.values()))))))


def measured(
    shape: str, store: Store, runs: int = 1, tokens: int = 1024, rows: int = 8, dtype: str = "bfloat16"
) -> dict[str, Any]:
    """The record of one training step of a bank of b_v on random weights of a shape; made where `store` has none.

    `expected_bytes` is `estimate`'s, `peak_bytes` what the device had at most while it ran (on a CPU the growth of the
    process, temporaries of the backward pass included), `seconds` those of the step. Raises BeftError: an unknown
    shape, or one that does not fit into the memory that is free.
    """
    device = torch.device(default_device())
    settings = {"kind": "memory", "model": shape, "runs": runs, "tokens": tokens, "rows": rows, "dtype": dtype}
    settings |= {"device": device.type}
    record = store.find(settings)
    if record is not None:
        return record
    store.check_writable()
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
        step_loss(bank, ids).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    origin = {"model": {"name": shape, "source": "random weights"}, "data": {}}
    sizes: dict[str, Any] = {"expected_bytes": expected, "peak_bytes": peak_memory(device) - before}
    store.write(build_record("memory", settings, origin, device.type, **sizes, seconds=seconds))
    return store.read(store.name(settings))


def step_loss(bank: BiasBank, ids: Tensor) -> Tensor:
    """A loss that reads as many positions as options do."""
    run_ids = torch.arange(len(ids), device=ids.device) % bank.R
    logits = bank(run_ids, None, input_ids=ids, use_cache=False, logits_to_keep=READ)
    return -logits.log_softmax(-1)[..., 0].mean()


def random_model(config: Any, dtype: str, device: torch.device) -> Any:
    """A frozen causal language model of random weights, for what needs a model of its size and not what it knows."""
    with torch.device(device), torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), trust_remote_code=False)
    use_working_experts(model)
    return model.requires_grad_(False).eval()
