"""What a run costs in a bank, with PEFT and the Trainer and under the authors' protocol, beside what it has to cost.

    python -m benchmarks.efficiency            every part on this machine's device
    python -m benchmarks.efficiency --parts encoder growth

Each part is measured in one process, its ways in turns, so that what else the machine does falls on all of them alike;
medians are shown. Peak memory is that of fresh processes. Notebook 06 shows the records.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, BertConfig

from beft import paths
from beft.bank.bank import BiasBank
from beft.bank.baselines import open_bank
from beft.bank.dropout import example_keys
from beft.bank.optimizer import StackedAdam
from beft.data.batching import CHUNKS, Encoded, chunks
from beft.data.datasets import Dataset, Split
from beft.data.tasks import score
from beft.errors import BeftError, exit_status
from beft.experiments.context import MODEL_AND_DATA, Context
from beft.experiments.memory import config_of, random_model, step_loss
from beft.models.loading import Loaded
from beft.paths import ROOT
from beft.records.provenance import build_record
from beft.records.store import Store
from beft.study import Run, Study
from beft.training.classification import losses, predictions
from beft.training.device import forget_peak, peak_memory, repeatable
from beft.training.graphs import Passes
from beft.training.loop import fit
from benchmarks import reference, usual, work
from benchmarks.timing import no_bfloat16, resident, where

ENCODER, BASE, LANGUAGE_MODEL = "all-MiniLM-L6-v2", "all-mpnet-base-v2", "SmolLM2-135M-Instruct-Q4_1"
RATES = {"b_v": 3e-3, "all_biases": 1e-3, "lora": 1e-3, "full": 1e-4}
# What grows in the part of that name, and what the sizes are where they do not.
START = {"layers": 4, "width": 256, "length": 64, "R": 4}
GROWN = {
    "R": (1, 4, 16, 64),
    "length": (32, 64, 128, 256, 512),
    "layers": (2, 4, 8, 16),
    "width": (128, 256, 512, 1024),
}
PARTS = ("encoder", "base", "prompts", "growth", "shapes", "profile")
GPU_PARTS = ("card", "encoder", "prompts", "shapes", "growth", "profile")  # nothing that is not fetched anyway
RANDOM = {  # parts without a model of files: what a record names in its place
    "card": "BERT-base's shape, random weights",
    "growth": "encoders of several sizes, random weights",
    "shapes": "shapes of published models, random weights",
}
Measured = dict[str, Any]
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """The task, rows, epochs and repeats of the parts that train on text."""

    task: str = "sst2"
    rows: int = 500
    validation: int = 400
    epochs: int = 2
    batch_size: int = 16
    repeats: int = 3


ONCE_WITH = {"prompts": (1,), "card": (1, 16, 30)}  # runs of the banks that are timed in turns; else 1 and 9


def in_the_shape_of_bert_base(loaded: Loaded) -> Loaded:
    """BERT-base with random weights, behind another encoder's tokenizer."""
    config = bert(12, 768, 512)
    config.vocab_size = len(loaded.tokenizer)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    return replace(loaded, name=RANDOM["card"], model=model.eval().requires_grad_(False))


def data_of(study: Study, sizes: Sizes, seed: int = 0) -> tuple[Context, Dataset]:
    """The study's rows with a validation split of at most `sizes.validation` of them."""
    context = Context(study)
    data = context.data
    held_out = np.random.default_rng(seed).permutation(len(data.validation))[: sizes.validation]
    rows = tuple(data.validation.rows[i] for i in held_out)
    return context, replace(data, validation=Split(rows, data.validation.labels[held_out]))


def in_a_bank(loaded: Loaded, data: Dataset, study: Study, runs: Sequence[Run]) -> Measured:
    """Seconds of a bank, whole and of its last epoch but one (training alone), with the tokens of that epoch."""
    began = time.perf_counter()
    at, tokens = [], []
    for epoch in fit(loaded, data, replace(study, validate="last"), runs):
        at.append(time.perf_counter())
        tokens.append((epoch.objective.padding.real, epoch.objective.padding.computed))
    scores = [result.final["validation"] for result in epoch.results]
    n = max(1, study.epochs - 1)  # of epochs 0 to `study.epochs`; the counts go on from epoch to epoch
    real, computed = (x - y for x, y in zip(tokens[n], tokens[n - 1], strict=True))
    alone = {"training_seconds": at[n] - at[n - 1], "real_tokens": real, "computed_tokens": computed}
    return {"seconds": at[-1] - began, "score": statistics.fmean(scores)} | alone


def with_the_trainer(loaded: Loaded, data: Dataset, study: Study, run: Run, best: bool) -> Measured:
    """Seconds of a run with PEFT and the Trainer, its data made ready included."""
    began = time.perf_counter()
    how = usual.prompt if study.prompted else usual.classify
    out, labels = how(loaded, data, study, run, best)
    seconds = time.perf_counter() - began
    # by the task's own metric, as a bank scores
    return {"seconds": seconds, "score": score(data.task.metric, labels, predictions(torch.from_numpy(out)).numpy())}


def by_the_protocol(loaded: Loaded, data: Dataset, study: Study, run: Run) -> Measured:
    """Seconds of a run under the authors' protocol: padded to `max_length`, all rows scored after each epoch."""
    began = time.perf_counter()
    end = reference.fit(loaded, data, study, run)[-1]
    return {"seconds": time.perf_counter() - began, "score": end["validation"]}


def rows_part(name: str, model: str, sizes: Sizes, tick: Tick, prompted: bool = False) -> Iterator[Measured]:
    """Whole runs on SST-2 through the bank and through what people use instead."""
    study = Study(
        model,
        sizes.task,
        sizes.rows,
        sizes.epochs,
        sizes.batch_size,
        prompted=prompted,
        max_length=512 if prompted else 128,
        schedule="linear" if prompted else "constant",
    )
    context, data = data_of(study, sizes)
    loaded = in_the_shape_of_bert_base(context.loaded) if name == "card" else context.loaded
    bf16 = no_bfloat16(where()) is None
    ways: list[tuple[Measured, Callable[[], Measured]]] = []

    def bank(method: str, R: int, dtype: str) -> None:
        its = replace(study, dtype=dtype)
        runs = [Run(method, seed, RATES[method]) for seed in range(R)]
        about = {"way": "bank", "method": method, "runs": R, "dtype": dtype}
        ways.append((about, lambda: in_a_bank(loaded, data, its, runs)))

    def trainer(method: str, best: bool) -> None:
        about = {"way": "Trainer", "method": method, "runs": 1, "dtype": "bfloat16" if best else "float32"}
        run = Run(method, 0, RATES[method])
        ways.append((about | {"best": best}, lambda: with_the_trainer(loaded, data, study, run, best)))

    def protocol() -> None:
        about = {"way": "authors' protocol", "method": "b_v", "runs": 1, "dtype": "float32"}
        ways.append((about, lambda: by_the_protocol(loaded, data, study, Run("b_v", 0, RATES["b_v"]))))

    if name == "encoder":
        for R in (1, 9):
            bank("b_v", R, "float32")
        trainer("b_v", False)
    if bf16:
        for R in ONCE_WITH.get(name, (1, 9)):
            bank("b_v", R, "bfloat16")
        trainer("b_v", True)
    if name == "card":
        protocol()
    once = len(ways)
    if bf16 and not prompted:
        for method in ("all_biases", "lora", "full"):
            bank(method, 1, "bfloat16")
            trainer(method, True)
        for R in (4, 16) if name != "card" else (96,):
            bank("b_v", R, "bfloat16")
    if name == "encoder":
        protocol()
    taken: list[list[Measured]] = [[] for _ in ways]
    for turn in range(sizes.repeats):
        for i, (about, call) in enumerate(ways):
            if i < once or not turn:
                tick(f"{about['way']}, {about['method']} x {about['runs']}, {about['dtype']}")
                taken[i].append(call())
    weights = work.weights_in_products(loaded.model)
    for (about, _), repeats in zip(ways, taken, strict=True):
        middle = sorted(repeats, key=lambda m: m["seconds"])[len(repeats) // 2]
        spread = [m["seconds"] for m in repeats]
        yield about | middle | {"repeats": spread, "weights": weights}


# --- steps of random models and random tokens -----------------------------------------------------------------


def steps(bank: BiasBank, ids: torch.Tensor, count: int = 3) -> list[float]:
    """Seconds of training steps in which each run of a bank sees `ids` (B, T), the first not counted."""
    R, device = bank.R, bank.device
    optimizer = StackedAdam(bank.slots, torch.full((R,), 1e-3, device=device), 1.0, 1e-6)
    index, owner = np.tile(np.arange(len(ids)), R), np.repeat(np.arange(R), len(ids))
    rows = Encoded({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, np.full(len(ids), ids.shape[1]))
    labels = torch.zeros(len(ids), dtype=torch.long)
    passes = None
    if device.type == "cuda" and bank.padded < 1:
        passes = Passes(bank, rows, labels, CHUNKS[device.type].tokens)
    taken = []
    per = 10 if device.type == "cuda" else 1  # the host of a GPU is ahead of it, so several are timed as one
    for step in range((count + 1) * per):
        if step % per == 0:
            _finished(device)
            began = time.perf_counter()
        keys = example_keys(bank.seeds.cpu()[torch.from_numpy(owner)], step, torch.from_numpy(index))
        if passes is not None:
            passes.step(index, keys)
        else:
            for part in chunks(rows.lengths[index], CHUNKS[device.type]):
                run_ids, mine = torch.from_numpy(owner[part]).to(device), ids[index[part]].to(device)
                if bank.language_model:
                    loss = step_loss(bank, mine)
                else:
                    logits = bank(run_ids, keys[part].to(device), input_ids=mine)
                    loss = losses(logits, labels[index[part]].to(device)).sum()
                loss.backward()
        optimizer.step(1.0)
        if step % per == per - 1:
            _finished(device)
            taken.append((time.perf_counter() - began) / per)
    return taken[1:]


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def bert(layers: int, width: int, length: int) -> BertConfig:
    """The config of an encoder in BERT's shape."""
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    return BertConfig(**sizes, num_attention_heads=max(1, width // 64), max_position_embeddings=max(512, length))


def step_of(config: Any, method: str, R: int, rows: int, length: int, dtype: str) -> Measured:
    """The cost of training steps of a model with random weights on random tokens."""
    device = where()
    causal = config.model_type != "bert"
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0  # of what was measured earlier
    torch.manual_seed(0)
    model = (
        random_model(config, dtype, device)
        if causal
        else AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    )
    model = model.eval().requires_grad_(False).to(device)
    ids = torch.randint(1000, 20000, (rows, length), generator=torch.Generator().manual_seed(0))
    forget_peak(device)
    with open_bank(model, [method] * R, list(range(R)), dtype) as bank, repeatable(device):
        taken = steps(bank, ids)
    weights = work.weights_in_products(model)
    about = {"layers": config.num_hidden_layers, "width": config.hidden_size, "length": length, "rows": rows}
    about |= {"method": method, "runs": R, "dtype": dtype, "weights": weights}
    about |= {"inner": getattr(config, "intermediate_size", None), "peak": peak_memory(device) - before}
    about |= {"model_bytes": sum(p.numel() * p.element_size() for p in model.parameters())}
    return about | {"seconds": statistics.median(taken), "repeats": taken, "tokens": R * rows * length}


def growth_part(tick: Tick) -> Iterator[Measured]:
    """Steps of b_v as one size grows and the others stay: runs, length, layers, width."""
    for name, values in GROWN.items():
        for value in values:
            s = START | {name: value}
            tick(f"{name} {value}")
            config = bert(s["layers"], s["width"], s["length"])
            yield {"grown": name} | step_of(config, "b_v", s["R"], 4, s["length"], "float32")


def shapes_part(tick: Tick) -> Iterator[Measured]:
    """Steps of b_v in the shapes of published models, with random weights."""
    dtype = "float32" if no_bfloat16(where()) else "bfloat16"
    cases: list[tuple[str, Any, int, int, int]] = []
    for name, layers, width in (("BERT-base", 12, 768), ("BERT-large", 24, 1024)):
        for length in (32, 128, 512):
            for R in (1, 4, 16) if where().type == "cuda" else (1, 4):
                if name == "BERT-base" or length < 512 or R == 1:
                    cases.append((name, bert(layers, width, length), R, 4, length))
    cases.append(("OPT-1.3B", config_of("opt-1.3b"), 1, 1, 128))
    if where().type == "cuda":
        cases.append(("LLaMA2-7B", config_of("llama2-7b"), 1, 4, 128))
    for name, config, R, rows, length in cases:
        tick(f"{name}, {R} runs, {length} tokens")
        yield {"shape": name} | step_of(config, "b_v", R, rows, length, dtype)


def profile_part(sizes: Sizes, tick: Tick) -> Iterator[Measured]:
    """Where the time of a bank of nine goes in an epoch of training."""
    for dtype in ("float32", "bfloat16")[: 1 if no_bfloat16(where()) else 2]:
        tick(f"profile, {dtype}")
        study = Study(ENCODER, sizes.task, sizes.rows // 2, 1, sizes.batch_size, dtype=dtype, validate="last")
        context, data = data_of(study, replace(sizes, validation=16))
        runs = [Run("b_v", seed, RATES["b_v"]) for seed in range(9)]
        in_a_bank(context.loaded, data, study, runs[:1])
        kinds = work.breakdown(partial(in_a_bank, context.loaded, data, study, runs))
        yield {"method": "b_v", "runs": 9, "dtype": dtype, "breakdown": kinds}


def rates() -> Measured:
    """What this machine does in this process: operations of products a second by width and precision, bytes copied."""
    device, dtypes = where(), {"float32": torch.float32}
    if no_bfloat16(device) is None:
        dtypes["bfloat16"] = torch.bfloat16
    tokens = CHUNKS[device.type].tokens  # a GPU is not busy with fewer
    products = {n: {str(w): work.rate_of_products(w, d, device, tokens) for w in (384, 768)} for n, d in dtypes.items()}
    return {"products": products, "copies": work.rate_of_copies(device)}


def memory_of(runs: int, dtype: str, task: str) -> Measured:
    """Peak bytes of a fresh process that trained a bank of b_v, and before it did; of a GPU's, of this process."""
    if where().type == "cuda":
        return {"way": "bank", "runs": runs, "dtype": dtype} | _memory(runs, dtype, task)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "benchmarks.efficiency", "--memory", str(runs), dtype, "--task", task]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BeftError(f"the memory of a bank of {runs} could not be measured: {reason}")
    return {"way": "bank", "runs": runs, "dtype": dtype} | dict(json.loads(done.stdout.splitlines()[-1]))


def _memory(runs: int, dtype: str, task: str) -> Measured:
    sizes = Sizes(task, rows=160, validation=160)
    study = Study(ENCODER, sizes.task, sizes.rows, 1, sizes.batch_size, dtype=dtype, validate="last")
    context, data = data_of(study, sizes)
    _ = context.loaded
    if where().type == "cuda":
        forget_peak(where())
    before = resident()
    in_a_bank(context.loaded, data, study, [Run("b_v", seed, RATES["b_v"]) for seed in range(runs)])
    return {"before": before, "peak": resident()}


def measure(part: str, sizes: Sizes, tick: Tick) -> Measured:
    """One part as a record of kind "bench"."""
    began, before = time.perf_counter(), rates()
    models = {"encoder": ENCODER, "base": BASE, "prompts": LANGUAGE_MODEL, "profile": ENCODER}
    small = replace(sizes, rows=sizes.rows // 8, validation=sizes.validation // 4, batch_size=8)
    if part in ("encoder", "base", "card"):
        its = sizes if part != "base" else replace(sizes, rows=sizes.rows // 2, validation=sizes.validation // 2)
        results = list(
            rows_part(
                part, models.get(part, ENCODER), replace(its, repeats=sizes.repeats if part != "base" else 1), tick
            )
        )
    elif part == "prompts":
        results = list(rows_part(part, models[part], small, tick, prompted=True))
    else:
        parts = {"growth": growth_part, "shapes": shapes_part, "profile": lambda t: profile_part(sizes, t)}
        results = list(parts[part](tick))
    memory = []
    if part == "encoder":
        for dtype in ("float32", "bfloat16")[: 1 if no_bfloat16(where()) else 2]:
            for runs in (1, 9):
                tick(f"memory of {runs}, {dtype}")
                memory.append(memory_of(runs, dtype, sizes.task))
    study = Study(
        models.get(part, ENCODER), sizes.task, prompted=part == "prompts", max_length=512 if part == "prompts" else 128
    )
    context = Context(study)
    subject = context.subject()
    if part in RANDOM:
        subject["model"] = {"name": RANDOM[part], "source": "random, seed 0", "revision": "none", "sha256": "none"}
    identity = {name: value for name, value in context.common().items() if name in MODEL_AND_DATA}
    return build_record(
        "bench",
        {"kind": "bench", "bench": "efficiency", "part": part, "device": where().type} | asdict(sizes) | identity,
        subject,
        where().type,
        rates=[before, rates()],
        results=results,
        memory=memory,
        seconds=time.perf_counter() - began,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the targets are met, 2 (nothing measured), 130 (interrupted)."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m benchmarks.efficiency", None, __doc__, allow_abbrev=False, formatter_class=form
    )
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, "card"), help="default: all of this device")
    parser.add_argument("--out", type=Path, help="default: data/results/bench")
    parser.add_argument("--gpu", action="store_true", help="stop where there is no GPU")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    given = vars(parser.parse_args(arguments))
    out, parts, memory, gpu = (given.pop(name) for name in ("out", "parts", "memory", "gpu"))
    if memory:
        print(json.dumps(_memory(int(memory[0]), memory[1], given["task"])))
        return 0

    def act() -> None:
        if gpu and where().type != "cuda":
            raise BeftError("there is no GPU here that torch can use: run make bench-efficiency for the CPU")
        store = Store(out or paths.home() / "data" / "results" / "bench")
        for part in parts or (GPU_PARTS if where().type == "cuda" else PARTS):
            with tqdm(desc=part, unit="measurement", bar_format="{desc}: {n} measured, {elapsed}{postfix}") as bar:

                def tick(what: str, bar: tqdm = bar) -> None:
                    bar.update()
                    bar.set_postfix_str(what)

                path = store.write(measure(part, Sizes(**given), tick))
            print(f"record: {path}")

    return exit_status(act, "the parts that were measured have their records")


if __name__ == "__main__":
    sys.exit(main())
