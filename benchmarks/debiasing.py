"""What batched CrowS-Pairs scoring brings over one masked position at a time, with equal scores.

    python -m benchmarks.debiasing      all 1,508 pairs with a random BERT of 22 million parameters

Both are timed in turns in one process, on a sample of the pairs; batched scoring on all of them, too. A target counts
where the scores agree.
"""

import hashlib
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig

from beft.data.counterfactual import axis, swapped
from beft.data.microworld.biographies import biographies
from beft.data.stereotype_sets import crows_pairs
from beft.debias.pair_scores import pair_places, pair_scores
from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import loading as models
from beft.records.provenance import build_record
from beft.training.device import default_device
from benchmarks.report import table
from benchmarks.steps import check_sizes, parser_of, run

TASK, ALL = "crows_pairs", 1508
TARGETS = {"seconds": 240.0, "faster": 4.0}
SAME = 1e-4  # nats
NAME = "BERT of MiniLM's shape, random weights"
Pair = tuple[str, str]


@dataclass(frozen=True)
class Options:
    """What to time. `sample`: pairs that are scored both ways, `repeats` times; medians are shown."""

    pairs: int = ALL
    sample: int = 60
    repeats: int = 3

    def __post_init__(self) -> None:
        check_sizes(self, "pairs", "sample", "repeats")
        if self.sample > self.pairs:
            raise BeftError(f"a sample of {self.sample} pairs is more than the {self.pairs} to time: lower it")


def one_at_a_time(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> np.ndarray:
    """What `pair_scores` gives (N, 2), every masked position in a pass of its own."""
    totals = []
    for sentence, scored in (s for pair in pair_places(tokenizer, pairs) for s in pair):
        total = 0.0
        for place in scored:
            ids = torch.tensor([sentence])
            ids[0, place] = tokenizer.mask_token_id
            with torch.inference_mode():
                log_probs = model(input_ids=ids.to(model.device)).logits[0, place].float().log_softmax(-1)
            total += float(log_probs[sentence[place]])
        totals.append(total)
    return np.array(totals).reshape(-1, 2)


def find_pairs(count: int) -> tuple[list[Pair], str, str]:
    """So many pairs, evenly spread; where they come from; what to say where they stand in for CrowS-Pairs.

    Raises:
        BeftError: BEFT_DATA is set and its CrowS-Pairs cannot be used, or there are fewer pairs.
    """
    source, note = "CrowS-Pairs", ""
    try:
        pairs = [(p.more, p.less) for p in crows_pairs()]
    except BeftError as error:
        if os.environ.get("BEFT_DATA"):
            raise
        # first sentences: about as long as those of CrowS-Pairs
        texts = [b.text.split(". ")[0] + "." for b in biographies("validation", count, 0.0)]
        pairs = [(text, swapped(text, axis("gender"))) for text in texts]
        source = "generated biographies, both pronouns"
        note = f"Generated sentences, a substitute for CrowS-Pairs: {error}."
    if len(pairs) < count:
        raise BeftError(f"there are {len(pairs)} pairs and {count} were asked for: give at most {len(pairs)}")
    return _spread(pairs, count), source, note


def _spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    return [pairs[i * len(pairs) // count] for i in range(count)]


def measure(options: Options) -> dict[str, Any]:
    """All measurements as a record of kind "bench".

    Raises:
        BeftError: as `find_pairs`; no tokenizer; sizes that are too small.
    """
    began = time.perf_counter()
    pairs, source, note = find_pairs(options.pairs)
    loaded = _random()
    loaded.model.to(default_device())
    sample = _spread(pairs, options.sample)
    times = _times(loaded, sample, options.repeats)
    start = time.perf_counter()
    pair_scores(loaded.model, loaded.tokenizer, pairs)
    times["all"] = time.perf_counter() - start
    digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
    every, sampled = ([s for p in pair_places(loaded.tokenizer, of) for s in p] for of in (pairs, sample))
    model = {
        "name": loaded.name,
        "source": loaded.source,
        "revision": loaded.revision,
        "sha256": loaded.sha256,
    }
    data = {"task": TASK, "source": source, "note": note, "fingerprint": digest}
    identity = {"kind": "bench", "what": "debiasing", "task": TASK, "data": source, "model": loaded.name}
    return build_record(
        "bench",
        asdict(options) | identity,
        {"model": model, "data": data},
        default_device(),
        times=times,
        passes={"sample": sum(len(scored) for _, scored in sampled), "all": sum(len(scored) for _, scored in every)},
        tokens=statistics.fmean(len(ids) for ids, _ in every),
        parameters=sum(p.numel() for p in loaded.model.parameters()),
        targets=TARGETS,
        seconds=time.perf_counter() - began,
    )


def _random() -> models.Loaded:
    """A BERT with a masked language model's head, as many layers and as wide as all-MiniLM-L6-v2, and its tokenizer."""
    folder = model_files.find(model_files.DEFAULT).folder
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    size = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(BertConfig(**size), trust_remote_code=False)
    return models.Loaded(model.eval().requires_grad_(False), tokenizer, NAME, "random, seed 0", "none", "none")


def _times(loaded: models.Loaded, pairs: list[Pair], repeats: int) -> dict[str, float]:
    """Median seconds of both ways on these pairs, in turns, and how far their scores are apart."""
    model, tokenizer = loaded.model, loaded.tokenizer
    pair_scores(model, tokenizer, pairs)  # neither way is charged for what is prepared once
    one_at_a_time(model, tokenizer, pairs[:1])
    seconds: list[tuple[float, float]] = []
    for _ in range(repeats):
        start = time.perf_counter()
        batched = pair_scores(model, tokenizer, pairs)
        middle = time.perf_counter()
        alone = one_at_a_time(model, tokenizer, pairs)
        seconds.append((middle - start, time.perf_counter() - middle))
    together, apart = map(statistics.median, zip(*seconds, strict=True))
    return {"together": together, "apart": apart, "gap": float(np.abs(batched - alone).max())}


def report(record: dict[str, Any]) -> str:
    """The record as Markdown, with pass or miss for every target."""
    times, passes, wanted, s = (record[n] for n in ("times", "passes", "targets", "settings"))
    device, note, code = record["device"], record["data"]["note"], record["code"]
    ratio, same = times["apart"] / times["together"], times["gap"] <= SAME
    scaled = times["apart"] * passes["all"] / passes["sample"]
    sized = [
        (s["sample"], passes["sample"], f"{times['apart']:.1f}", times["together"], ratio),
        (s["pairs"], passes["all"], f"{scaled:.0f} (scaled)", times["all"], scaled / times["all"]),
    ]
    rows = [[f"{n:,} pairs", f"{p:,}", one, f"{batched:.1f}", f"{x:.1f}"] for n, p, one, batched, x in sized]
    met = {True: "pass", False: "MISS"}
    fast, faster = met[same and times["all"] < wanted["seconds"]], met[same and ratio >= wanted["faster"]]
    lines = [
        *([f"**{note}**", ""] if note else []),
        *table([record["data"]["source"], "places", "one by one, s", "batched, s", "times faster"], rows),
        "",
        f"- seconds for all {ALL:,} pairs: target under {wanted['seconds']:g}: "
        f"{fast if s['pairs'] >= ALL else 'not measured, fewer pairs were timed'}",
        f"- times faster on the sample: target at least {wanted['faster']:g}: {faster}",
        f"- largest difference of a score: {times['gap']:.1e} nats; target at most {SAME:g}: {met[same]}",
        "",
        f"{record['model']['name']}: {record['parameters'] / 1e6:.1f} million parameters; sentences of "
        f"{record['tokens']:.1f} tokens. The sample is evenly spread, its times are medians of {s['repeats']}; those "
        "of all pairs one by one are scaled from it linearly in masked places. "
        f"{device['name']}, {device['threads']} threads, torch {record['versions']['torch']}, commit "
        f"{code['commit'][:7]}{' and changes' if code['dirty'] else ''}.",
        "",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the targets are met, 2 (nothing measured), 130 (interrupted)."""
    parser = parser_of(Options(), "debiasing", __doc__)
    return run(parser, arguments, lambda given: measure(Options(**given)), report, "debiasing", report)


if __name__ == "__main__":
    sys.exit(main())
