"""Pre-train the small language models of `data/models` on the micro-world's text.

    python data/models/pretrain.py tiny-llama --out data/models/tiny-llama

The folder receives weights (safetensors), config, tokenizer and `training.json` (command, seed, loss curve, versions,
hash of the weights). The same command with the same build of torch and number of threads gives the same weights.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import documents
from small_models import CAUSAL, MASKED, MODELS, VOCABULARY, config_for, tokenizer_for
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, get_cosine_schedule_with_warmup

from beft.data.batching import ChunkCost, chunks, padded
from beft.data.microworld import people
from beft.errors import BeftError, exit_status, unknown
from beft.models.files import weight_hash
from beft.records.provenance import provenance
from beft.training.language_modelling import Rule, rule_of

# When rows hold many documents one after another -> share of the steps before the first such rows.
APART = {"last": 0.85, "throughout": 0.15}


def blocks(tokenizer: Any, seed: int, length: int) -> Iterator[list[int]]:
    """Rows of `length` ids: documents with an end token behind each, one after another, cut where a row is full."""
    kept: list[int] = []
    for ids in apart(tokenizer, seed):
        kept += ids
        while len(kept) >= length:
            yield kept[:length]
            kept = kept[length:]


def masked_batches(tokenizer: Any, seed: int, steps: int, batch: int) -> Iterator[list[list[int]]]:
    """The rows of each step of a masked language model: `batch` texts."""
    texts = people.documents(seed)
    for _ in range(steps):
        yield tokenizer(list(itertools.islice(texts, batch)))["input_ids"]


def apart(tokenizer: Any, seed: int) -> Iterator[list[int]]:
    """Rows of one document each, with an end token behind it."""
    for text in documents(seed):
        yield [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def batches(
    tokenizer: Any, seed: int, steps: int, batch: int, length: int, joined: str = "last"
) -> Iterator[list[list[int]]]:
    """The rows of each step, of about `batch` x `length` tokens.

    At first each row is one document: while attention is still uniform, the word that another depends on is one of
    twenty and not of hundreds. Later rows hold documents one after another, for long contexts: in all of the last
    steps, or in every fifth step ("throughout"), so that learned positions are not trained at a rate near 0 only.
    """
    single, blocked = apart(tokenizer, seed), blocks(tokenizer, seed + 1, length)
    for step in range(steps):
        if step >= APART[joined] * steps and (joined == "last" or step % 5 == 4):
            yield list(itertools.islice(blocked, batch))
            continue
        rows: list[list[int]] = []
        while sum(map(len, rows)) < batch * length:
            rows.append(next(single))
        yield rows


def pretrain(
    kind: str,
    folder: Path,
    seed: int = 0,
    steps: int = 6000,
    batch: int = 32,
    length: int = 128,
    rate: float = 2e-3,
    joined: str = "last",
) -> dict[str, Any]:
    """Train a model of `kind` from random weights and write it; returns the content of `training.json`.

    AdamW (weight decay 0.1), cosine schedule with 5% warm-up, gradient norm clipped to 1; losses are means over up to
    100 steps, in nats per token.

    Raises:
        BeftError: an unknown kind or way of joining, joining for a masked kind, or a number that is not positive.
    """
    if joined not in APART:
        raise unknown("way of joining", joined, APART)
    for name, value in {"steps": steps, "batch": batch, "length": length, "rate": rate}.items():
        if value <= 0:
            raise BeftError(f"{name} {value} is too small: give a positive number")
    began = time.perf_counter()
    config_for(kind, VOCABULARY)  # raises for a wrong kind
    tokenizer = tokenizer_for(kind)
    torch.manual_seed(seed)
    masked = kind in MASKED
    if masked and joined != "last":
        raise BeftError(f"{kind} reads one text a row: --joined {joined} is for {', '.join(CAUSAL)}")
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = auto.from_config(config_for(kind, len(tokenizer)), trust_remote_code=False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, steps // 20), steps)
    rows = (
        masked_batches(tokenizer, seed + 1, steps, batch)
        if masked
        else batches(tokenizer, seed + 1, steps, batch, length, joined)
    )
    rule, drawn = rule_of(tokenizer) if masked else None, np.random.default_rng(seed)
    curve, recent, tokens = [], [], 0
    model.train()
    for step in tqdm(range(1, steps + 1), desc=kind, unit="step", mininterval=1.0):
        row = next(rows)
        tokens += sum(map(len, row))
        loss = _backward(model, row) if rule is None else _backward_masked(model, row, rule, drawn)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(loss)
        if step % 100 == 0 or step == steps:
            curve.append({"step": step, "loss": round(sum(recent) / len(recent), 4)})
            recent = []
    made_by = provenance("cpu")  # before a file of the repository is overwritten
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "kind": kind,
        "command": f"python data/models/pretrain.py {kind} --out data/models/{folder.name} --seed {seed} "
        f"--steps {steps} --batch {batch} --length {length} --rate {rate:g}"
        + ("" if masked else f" --joined {joined}"),
        "seed": seed,
        "tokens": tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "text": f"generated by {'beft.data.microworld.people' if masked else 'data/models/corpus.py'}",
        "curve": curve,
        "seconds": round(time.perf_counter() - began),
        "sha256": weight_hash(folder),
        **made_by,
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _backward(model: Any, rows: list[list[int]]) -> float:
    """Gradients of the mean cross-entropy of the next tokens of all rows; returns it, in nats."""
    lengths = np.array([len(row) for row in rows])
    count, total = int((lengths - 1).sum()), 0.0
    for chunk in chunks(lengths, ChunkCost(4096, 128)):
        ids, mask = padded([rows[i] for i in chunk], -100)
        logits = model(input_ids=ids.clamp_min(0), attention_mask=mask).logits[:, :-1]
        targets = ids[:, 1:].flatten()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    return total


def _backward_masked(model: Any, rows: list[list[int]], rule: Rule, drawn: np.random.Generator) -> float:
    """Gradients of the mean cross-entropy of the masked tokens of all rows; returns it, in nats."""
    corrupted, places = zip(*(rule.apply(np.array(row), drawn) for row in rows), strict=True)
    ids, mask = padded(corrupted)
    targets = torch.full_like(ids, -100)
    for n, row in enumerate(rows):
        targets[n, places[n]] = torch.tensor(row)[places[n]]
    loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
    loss.backward()
    return float(loss.detach())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 2 for bad input, 130 where interrupted."""
    parser = argparse.ArgumentParser(prog="python data/models/pretrain.py", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kind", help=", ".join(MODELS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    for name, value in {"seed": 0, "steps": 6000, "batch": 32, "length": 128, "rate": 2e-3}.items():
        parser.add_argument(f"--{name}", default=value, type=type(value))
    parser.add_argument("--joined", default="last", help=f"joined documents of a causal model: {', '.join(APART)}")
    given = vars(parser.parse_args(arguments))

    def work() -> None:
        record = pretrain(given.pop("kind"), given.pop("out"), **given)
        print(f"loss {record['curve'][-1]['loss']} after {record['tokens']:,} tokens, {record['seconds']} s")

    return exit_status(work, "nothing is written")


if __name__ == "__main__":
    sys.exit(main())
