"""What sharing prompts brings: options scored together, and every option's whole text by itself, with equal results.

    python -m beft.bench_prompting      a small random LLaMA, three options, with and without demonstrations

Both are timed in turns in one process on one machine, on the same examples; a target counts where the scores agree.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from . import models, small_models
from .bench import check_sizes, parser_of, run
from .bench_report import table
from .options import Encoded, encode
from .prompt_data import load_prompts
from .prompting import Scored, option_scores
from .provenance import provenance
from .training import default_device
from .untuned import fitting

TASK = "microworld_entailment"
OPTIONS = ("Yes", "No", "Maybe")
TARGETS = {"zero-shot": 3.0, "in context": 10.0}
SAME = 1e-4  # nats


@dataclass(frozen=True)
class Options:
    """What to time. `model`: a folder or hub name, by default random weights; `repeats`: of each, medians are shown."""

    model: str | None = None
    examples: int = 60
    demonstrations: int = 32
    shown: int = 40
    repeats: int = 5

    def __post_init__(self) -> None:
        check_sizes(self, "examples", "demonstrations", "shown", "repeats")


def one_at_a_time(model: Any, examples: Sequence[Encoded]) -> list[Scored]:
    """What `option_scores` gives, every option's whole text in a pass of its own."""
    found = []
    for e in examples:
        totals = []
        for ids, start in zip(e.sequences, e.starts, strict=True):
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0]
                chances = logits[start - 1 : -1].float().log_softmax(-1)
                totals.append(float(chances[np.arange(len(ids) - start), ids[start:]].sum()))
        found.append(Scored(np.array(totals), np.array([len(s) for s in e.sequences]) - np.array(e.starts)))
    return found


def measure(options: Options) -> dict[str, Any]:
    """All measurements as a record of kind "bench".

    Raises:
        BeftError: a model that is not there or no causal language model, or sizes that are too small.
    """
    began = time.perf_counter()
    loaded = _random() if options.model is None else models.load_causal(options.model)
    loaded.model.to(default_device())
    data = load_prompts(TASK, offline=True)
    asked = [replace(e, options=OPTIONS) for e in data.validation.examples]
    longest = min(2048, getattr(loaded.model.config, "max_position_embeddings", 2048))
    before, used = fitting(
        loaded.tokenizer, data.train.examples[: options.demonstrations], asked[: options.shown], longest
    )
    cases = {
        "zero-shot": [encode(loaded.tokenizer, e, longest) for e in asked[: options.examples]],
        "in context": [encode(loaded.tokenizer, e, longest, before) for e in asked[: options.shown]],
    }
    times = {name: _times(loaded.model, examples, options.repeats) for name, examples in cases.items()}
    return {
        "kind": "bench",
        "settings": asdict(options) | {"kind": "bench", "what": "prompting", "task": TASK, "model": loaded.name},
        "model": {"name": loaded.name, "source": loaded.source, "revision": loaded.revision, "sha256": loaded.sha256},
        "data": {"task": TASK, "source": data.source, "fingerprint": data.fingerprint},
        **provenance(default_device()),
        "times": times,
        "demonstrations": used,
        "tokens": {name: sum(map(len, examples[0].sequences)) / len(OPTIONS) for name, examples in cases.items()},
        "targets": TARGETS,
        "seconds": time.perf_counter() - began,
        "outcome": "ok",
    }  # fmt: skip


def _random() -> models.Loaded:
    """A LLaMA of the size of `data/models`, its context long enough for the demonstrations."""
    tokenizer = small_models.tokenizer_for("tiny-llama")
    tokenizer.model_max_length = 2048
    config = small_models.config_for("tiny-llama", len(tokenizer))
    config.max_position_embeddings = 2048
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return models.Loaded(model, tokenizer, "tiny-llama, random weights", "random, seed 0", "none", "none")


def _times(model: Any, examples: list[Encoded], repeats: int) -> dict[str, Any]:
    """Median seconds of both ways, in turns, and how far their scores are apart."""
    option_scores(model, examples)  # neither way is charged for what is prepared once
    one_at_a_time(model, examples[:1])
    together: list[float] = []
    apart: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        shared = option_scores(model, examples)
        middle = time.perf_counter()
        alone = one_at_a_time(model, examples)
        together.append(middle - start)
        apart.append(time.perf_counter() - middle)
    gap = max(float(np.abs(a.total - b.total).max()) for a, b in zip(shared, alone, strict=True))
    return {
        "together": statistics.median(together),
        "apart": statistics.median(apart),
        "gap": gap,
        "examples": len(examples),
    }


def report(record: dict[str, Any]) -> str:
    """The record as Markdown, with pass or miss for every target."""
    rows = []
    for name, t in record["times"].items():
        ratio, wanted = t["apart"] / t["together"], record["targets"][name]
        met = ratio >= wanted and t["gap"] <= SAME
        rows.append(
            [name, str(t["examples"]), f"{t['apart']:.2f}", f"{t['together']:.2f}", f"{ratio:.1f}"]
            + [f"at least {wanted:g}", f"{t['gap']:.1e}", "pass" if met else "MISS"]
        )
    heads = [
        "prompts",
        "examples",
        "one by one, s",
        "together, s",
        "times faster",
        "target",
        "largest difference",
    ]
    tokens, device = record["tokens"], record["device"]
    lines = [
        *table([*heads, ""], rows),
        "",
        f"{record['model']['name']}: {len(OPTIONS)} options, of {tokens['zero-shot']:.0f} tokens with the prompt "
        f"zero-shot and {tokens['in context']:.0f} behind {record['demonstrations']} demonstrations (generated text); "
        f"differences in nats. {device['name']}, {device['threads']} threads, torch {record['versions']['torch']}, "
        f"commit {record['code']['commit'][:7]}{' and changes' if record['code']['dirty'] else ''}.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the targets are met, 2 (nothing measured), 130 (interrupted)."""
    parser = parser_of(Options(), "bench_prompting", __doc__)
    return run(parser, arguments, lambda given: measure(Options(**given)), report, "prompting", report)


if __name__ == "__main__":
    sys.exit(main())
