"""Pre-train the small language models of `data/models` on the micro-world's text.

    python -m beft.pretrain tiny-llama --out data/models/tiny-llama

Weights (safetensors), config, tokenizer and `training.json` (command, seed, loss curve, versions, hash of the weights)
go to the folder. The same command on the same build of torch gives the same file.
"""

from __future__ import annotations

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
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    get_cosine_schedule_with_warmup,
)

from .batches import ChunkCost, chunks
from .errors import BeftError, exit_status, unknown
from .microworld_corpus import documents
from .models import weight_hash
from .provenance import provenance

VOCABULARY = 1024
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
# What the tasks' prompts say besides, so that its words have tokens.
PROMPTED = (
    "Passage: Title: Context:\nQuestion: Answer:",
    "Does this mean that",
    "is true? Yes or No?\nYes\nNo",
)
WIDTH, LAYERS, HEADS, CONTEXT = 128, 4, 4, 512
APART = 0.85  # share of the steps whose rows are single documents
KINDS = ("tiny-opt", "tiny-llama", "tiny-gpt2")


def tokenizer_for(kind: str, seed: int = 0, count: int = 5000) -> PreTrainedTokenizerFast:
    """A tokenizer of the family's kind, trained on the corpus: byte-level BPE, for LLaMA as SentencePiece does it."""
    texts = [*itertools.islice(documents(seed), count), "\n", *"0123456789", *PROMPTED]
    pieces = kind == "tiny-llama"
    backend = _pieces(texts) if pieces else _bytes(texts)
    first = {"tiny-llama": "<s>", "tiny-opt": "</s>"}.get(kind)
    if first:
        backend.post_processor = processors.TemplateProcessing(
            f"{first} $A", special_tokens=[(first, backend.token_to_id(first))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=first or "</s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        **({} if kind == "tiny-gpt2" else {"pad_token": "<pad>"}),  # GPT-2 has none
    )


def _bytes(texts: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return backend


def _pieces(texts: list[str]) -> Tokenizer:
    """Pieces with their space in front, and a token for each byte of what no piece holds."""
    backend = Tokenizer(models.BPE())
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(Regex("[.,?!:\n]"), "isolated")]
    )
    backend.normalizer, backend.pre_tokenizer = spaces, words
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    trained = json.loads(backend.to_str())["model"]
    learnt = sorted(set(trained["vocab"]) - set(SPECIAL), key=trained["vocab"].get)
    names = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256)), *learnt]
    merges = [tuple(merge) for merge in trained["merges"]]
    whole = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    whole.normalizer, whole.pre_tokenizer = spaces, words
    whole.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    whole.add_special_tokens(SPECIAL)
    return whole


def config_for(kind: str, vocabulary: int) -> Any:
    """A config of four layers of width 128. Raises BeftError for an unknown kind."""
    # the usual 0.02 is for models ten times as wide: here it leaves what attention passes on too small to learn from
    ends = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": WIDTH**-0.5}
    if kind == "tiny-opt":
        return OPTConfig(
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            pad_token_id=0,
            **(ends | {"bos_token_id": 2, "init_std": ends["initializer_range"]}),
        )
    if kind == "tiny-llama":
        return LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=352,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=0,
            **ends,
        )
    if kind == "tiny-gpt2":
        return GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT, **(ends | {"bos_token_id": 2})
        )
    raise unknown("kind of model", kind, KINDS)


def blocks(tokenizer: Any, seed: int, length: int) -> Iterator[list[int]]:
    """Rows of `length` ids: documents with an end token behind each, one after another, cut where a row is full."""
    kept: list[int] = []
    for ids in apart(tokenizer, seed):
        kept += ids
        while len(kept) >= length:
            yield kept[:length]
            kept = kept[length:]


def apart(tokenizer: Any, seed: int) -> Iterator[list[int]]:
    """Rows of one document each, with an end token behind it."""
    for text in documents(seed):
        yield [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def batches(tokenizer: Any, seed: int, steps: int, batch: int, length: int) -> Iterator[list[list[int]]]:
    """The rows of each step, of about `batch` x `length` tokens.

    Documents stand apart at first: attention that is uniform yet then finds the word that another depends on among
    twenty and not among hundreds. The last steps have them one after another, for long contexts.
    """
    single, joined = apart(tokenizer, seed), blocks(tokenizer, seed + 1, length)
    for step in range(steps):
        if step >= APART * steps:
            yield list(itertools.islice(joined, batch))
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
) -> dict[str, Any]:
    """Train a model of `kind` from random weights and write it; returns what `training.json` holds.

    AdamW (weight decay 0.1), cosine schedule with 5% warm-up, gradient norm clipped to 1; losses are means over up to
    100 steps, in nats per token.

    Raises:
        BeftError: an unknown kind, or a number that is not positive.
    """
    for name, value in {"steps": steps, "batch": batch, "length": length, "rate": rate}.items():
        if value <= 0:
            raise BeftError(f"{name} {value} is too small: give a positive number")
    began = time.perf_counter()
    config_for(kind, VOCABULARY)  # a wrong kind is told at once
    tokenizer = tokenizer_for(kind)
    torch.manual_seed(seed)
    model = Auto.from_config(config_for(kind, len(tokenizer)))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.1, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, steps // 20), steps)
    rows = batches(tokenizer, seed + 1, steps, batch, length)
    curve, recent = [], []
    model.train()
    for step in tqdm(range(1, steps + 1), desc=kind, unit="step", mininterval=1.0):
        loss = _backward(model, next(rows))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        recent.append(loss)
        if step % 100 == 0 or step == steps:
            curve.append({"step": step, "loss": round(sum(recent) / len(recent), 4)})
            recent = []
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "kind": kind,
        "command": f"python -m beft.pretrain {kind} --out data/models/{folder.name} --seed {seed} --steps {steps} "
        f"--batch {batch} --length {length} --rate {rate:g}",
        "seed": seed,
        "tokens": steps * batch * length,
        "parameters": sum(p.numel() for p in model.parameters()),
        "text": "generated by beft.microworld_corpus",
        "curve": curve,
        "seconds": round(time.perf_counter() - began),
        "sha256": weight_hash(folder),
        **provenance("cpu"),
    }
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _backward(model: Any, rows: list[list[int]]) -> float:
    """Gradients of the mean cross-entropy of the next tokens of all rows; returns it, in nats."""
    lengths = np.array([len(row) for row in rows])
    count, total = int((lengths - 1).sum()), 0.0
    for part in chunks(lengths, ChunkCost(4096, 128)):
        ids = torch.full((len(part), int(lengths[part].max())), -100)
        for n, i in enumerate(part):
            ids[n, : len(rows[i])] = torch.tensor(rows[i])
        logits = model(input_ids=ids.clamp_min(0), attention_mask=(ids >= 0).long()).logits[:, :-1]
        loss = (
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
            / count
        )
        loss.backward()
        total += float(loss.detach())
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0, 2 for bad input, 130 where interrupted."""
    parser = argparse.ArgumentParser(prog="python -m beft.pretrain", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kind", help=", ".join(KINDS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    for name, value in {"seed": 0, "steps": 6000, "batch": 32, "length": 128, "rate": 2e-3}.items():
        parser.add_argument(f"--{name}", default=value, type=type(value))
    given = vars(parser.parse_args(arguments))

    def work() -> None:
        record = pretrain(given.pop("kind"), given.pop("out"), **given)
        print(f"loss {record['curve'][-1]['loss']} after {record['tokens']:,} tokens, {record['seconds']} s")

    return exit_status(work, "nothing is written")


if __name__ == "__main__":
    sys.exit(main())
