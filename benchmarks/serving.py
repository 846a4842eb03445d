"""What serving many biases on one model brings over PEFT's switching and over a model for each, with equal logits.

    python -m benchmarks.serving            1, 8, 64 and 512 adapters of b_v on all-MiniLM-L6-v2
    python -m benchmarks.serving --small    a random model, two numbers of adapters: whether it runs

The rows of a batch name their adapters in no order. The ways are timed in turns in one process:

- served: `beft.serve`, texts in, logits out, tokenizing included.
- switching: PEFT's `set_adapter` for every row, and the row alone; its tokens are ready.
- grouped: PEFT's `set_adapter` once for each adapter, whose rows are computed together in chunks of like length.
- copies: a merged model for each adapter, its rows together; as many as `--copies` and half the free memory allow. For
  more their bytes are computed, and they are not timed.
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from beft import serve
from beft.bank.bank import BiasBank
from beft.bank.peft_adapter import load_tuned, save_adapter
from beft.data import sources
from beft.data.batching import CHUNKS, Encoded, chunks, encode
from beft.errors import BeftError, unknown
from beft.models import loading as models
from beft.models.files import TINY
from beft.records.provenance import build_record, origin
from beft.training.device import default_device, free_memory
from benchmarks.report import MB, table
from benchmarks.steps import check_sizes, parser_of, run
from benchmarks.timing import no_bfloat16

TARGETS = {"adapters": 64, "switching": 10.0}
SAME = {"float32": 1e-5, "bfloat16": 0.1}  # of logits, which in bfloat16 have two or three digits
LENGTH = 128
WAYS = {"served": "served", "switching": "PEFT, a switch a row", "grouped": "PEFT, grouped", "copies": "a model each"}


@dataclass(frozen=True)
class Options:
    """What to time. `adapters`: how many, `dtypes`: in which precisions, by commas; `repeats`: medians are shown."""

    model: str = "all-MiniLM-L6-v2"
    task: str = "film_sentiment"
    rows: int = 512
    adapters: str = "1,8,64,512"
    repeats: int = 3
    copies: int = 8
    dtypes: str = "float32,bfloat16"

    def __post_init__(self) -> None:
        check_sizes(self, "rows", "repeats", "copies")
        _ = self.counts
        for dtype in self.dtypes.split(","):
            if dtype not in SAME:
                raise unknown("dtype", dtype, SAME)

    @property
    def counts(self) -> list[int]:
        """The numbers of adapters."""
        counts = self.adapters.split(",")
        if not all(count.strip().isdecimal() and int(count) > 0 for count in counts):
            raise BeftError(f"adapters is {self.adapters!r}: give whole numbers from 1 on with commas, such as 1,8,64")
        return [int(count) for count in counts]


SMALL = Options(TINY, "microworld_sentiment", 24, "1,3", 1, 2, "float32")


def write_adapters(model: Any, count: int, folder: Path) -> dict[str, Path]:
    """Adapters of b_v with random numbers, by name."""
    generator = torch.Generator().manual_seed(0)
    with BiasBank(model, ["b_v"] * count, list(range(count))) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.copy_(torch.randn(slot.values.shape, generator=generator) * 0.1)
        return {f"a{run}": save_adapter(bank, run, folder / str(run)) for run in range(count)}


class Opponents:
    """The other ways to compute the same rows, with PEFT and with merged models."""

    def __init__(self, base: Any, folders: dict[str, Path], encoded: Encoded, which: Sequence[str], fit: int) -> None:
        self.encoded, self.which = encoded, np.array(which)
        self.device, self.cost = base.device, CHUNKS[base.device.type]
        self.own = {name: np.flatnonzero(self.which == name) for name in folders}
        began = time.perf_counter()
        names = list(folders)
        self.model = PeftModel.from_pretrained(copy.deepcopy(base), str(folders[names[0]]), adapter_name=names[0])
        for name in names[1:]:
            self.model.load_adapter(str(folders[name]), adapter_name=name)
        self.model.eval()
        self.loading = time.perf_counter() - began
        self.copies: dict[str, Any] = {}
        if len(folders) <= fit:
            for name, folder in folders.items():
                self.copies[name] = load_tuned(copy.deepcopy(base), folder).merge_and_unload().eval()

    def switching(self) -> np.ndarray:
        """Logits (N, C): a switch for every row, and the row by itself."""
        out = []
        for i, name in enumerate(self.which):
            self.model.set_adapter(str(name))
            out.append(self._logits(self.model, np.array([i])))
        return np.concatenate(out)

    def grouped(self) -> np.ndarray:
        """Logits (N, C): a switch for every adapter, and its rows together."""

        def switched(name: str) -> Any:
            self.model.set_adapter(name)
            return self.model

        return self._by_adapter(switched)

    def each(self) -> np.ndarray:
        """Logits (N, C): every adapter's rows by a model of its own."""
        return self._by_adapter(lambda name: self.copies[name])

    def _by_adapter(self, model_of: Callable[[str], Any]) -> np.ndarray:
        out: dict[int, np.ndarray] = {}
        for name, index in self.own.items():
            if not len(index):
                continue
            model = model_of(name)
            for part in chunks(self.encoded.lengths[index], self.cost):
                out.update(zip(index[part].tolist(), self._logits(model, index[part]), strict=True))
        return np.stack([out[i] for i in range(len(self.which))])

    def _logits(self, model: Any, index: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(**self.encoded.rows(index, self.device)).logits.float().cpu().numpy()


def measure(options: Options, tick: Callable[[str], None] = print) -> dict[str, Any]:
    """All measurements as a record of kind "bench". Raises BeftError: a model or a task that is not there."""
    began = time.perf_counter()
    device = torch.device(default_device())
    loaded = models.load(options.model, labels=2)
    data = sources.load(options.task)
    rows = [row[:1] for row in (*data.validation.rows, *data.train.rows)[: options.rows]]
    if len(rows) < options.rows:
        raise BeftError(f"{options.task} has {len(rows)} texts and {options.rows} rows were asked for: lower --rows")
    encoded = encode(loaded.tokenizer, rows, LENGTH)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        folders = write_adapters(loaded.model, max(options.counts), Path(folder))
        loaded.model.to(device)
        for dtype in options.dtypes.split(","):
            if dtype == "bfloat16" and (reason := no_bfloat16(device)):
                tick(f"bfloat16 is not timed: {reason}")
                continue
            for parameter in loaded.model.parameters():
                parameter.data = parameter.data.to(getattr(torch, dtype))
            for count in options.counts:
                tick(f"{count} adapters, {dtype}")
                some = {name: folders[name] for name in list(folders)[:count]}
                results.append(_of_count(loaded, some, rows, encoded, options))
    return build_record(
        "bench",
        asdict(options) | {"kind": "bench", "what": "serving"},
        origin(loaded.name, loaded, data, {}),
        device.type,
        results=results,
        tokens=float(encoded.lengths.mean()),
        targets=TARGETS,
        seconds=time.perf_counter() - began,
    )


def _of_count(
    loaded: models.Loaded, folders: dict[str, Path], rows: list[tuple[str, ...]], encoded: Encoded, options: Options
) -> dict[str, Any]:
    """One number of adapters: seconds of each way in turns, bytes, and how far logits are apart."""
    names = list(folders)
    which = np.random.default_rng(0).permutation([names[i % len(names)] for i in range(len(rows))]).tolist()
    texts = [text for (text,) in rows]
    base = sum(p.nbytes for p in loaded.model.parameters())
    fit = min(options.copies, int(free_memory(loaded.model.device) / 2 / base))
    others = Opponents(loaded.model, folders, encoded, which, fit)
    began = time.perf_counter()
    with serve(loaded, folders) as served:
        loading = time.perf_counter() - began
        ways: dict[str, Callable[[], Any]] = {
            "served": lambda: np.stack(served.logits(texts, which)),
            "switching": others.switching,
            "grouped": others.grouped,
        }
        if others.copies:
            ways["copies"] = others.each
        out = {name: way() for name, way in ways.items()}  # none is charged for what is prepared once
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                taken[name].append(time.perf_counter() - start)
        in_stacks, memory = served.allocated, served.memory[names[0]]
    built = [sum(p.nbytes for p in model.parameters()) for model in others.copies.values()]
    return {
        "adapters": len(names),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "rows": len(rows),
        "repeats": taken,
        "loading": {"served": loading, "PEFT": others.loading},
        "bytes": {
            "model": base,
            "adapter": memory,
            "served": base + in_stacks,
            "PEFT": sum(p.nbytes for p in others.model.parameters()),
            "copies": sum(built) if built else len(names) * base,
        },
        "copies built": bool(built),
        "gap": max(float(np.abs(out["served"] - own).max()) for own in out.values()),
    }


def report(record: dict[str, Any]) -> str:
    """The record as Markdown, with pass or miss for the target in each precision."""
    results, device, settings = record["results"], record["device"], record["settings"]
    heads = ["precision", "adapters"]
    speed = [*heads, *WAYS.values(), "times switching", "times grouped", "largest difference"]
    memory = [*heads, "served, MB", "PEFT, MB", "a model each, MB", "loading, s", "loading PEFT, s"]
    targets = [_target(r, record["targets"]) for r in results if r["adapters"] == record["targets"]["adapters"]]
    changes = " and changes" if record["code"]["dirty"] else ""
    setting = (
        f"{record['model']['name']}: {results[0]['rows']} rows of {record['tokens']:.0f} tokens on average, shuffled "
        f"over adapters of b_v with {results[0]['bytes']['adapter'] / 1e3:.1f} kB each in {results[0]['dtype']}, head "
        f"included. Bytes are those of parameters; of more than {settings['copies']} copies they are computed. "
        f"{device['name']}, {device['threads']} threads, torch {record['versions']['torch']}, commit "
        f"{record['code']['commit'][:7]}{changes}."
    )
    lines = [*table(speed, [_speed(r) for r in results]), "", "Rows a second; differences of logits.", ""]
    lines += [*table(memory, [_memory(r) for r in results]), ""]
    missing = f"- {record['targets']['adapters']} adapters, those of the target, were not measured"
    return "\n".join([*lines, *(targets or [missing]), "", setting, ""])


def _seconds(result: dict[str, Any]) -> dict[str, float]:
    return {name: statistics.median(taken) for name, taken in result["repeats"].items()}


def _speed(result: dict[str, Any]) -> list[str]:
    seconds = _seconds(result)
    rates = [f"{result['rows'] / seconds[name]:.0f}" if name in seconds else "not built" for name in WAYS]
    ratios = [f"{seconds[name] / seconds['served']:.1f}" for name in ("switching", "grouped")]
    return [result["dtype"], str(result["adapters"]), *rates, *ratios, f"{result['gap']:.1e}"]


def _memory(result: dict[str, Any]) -> list[str]:
    sizes = [f"{result['bytes'][name] / MB:.1f}" for name in ("served", "PEFT", "copies")]
    sizes[2] += "" if result["copies built"] else " (computed)"
    return [result["dtype"], str(result["adapters"]), *sizes, *(f"{s:.2f}" for s in result["loading"].values())]


def _target(result: dict[str, Any], targets: dict[str, float]) -> str:
    """A line with pass or miss; a ratio counts where logits agree."""
    seconds, wanted, dtype = _seconds(result), targets["switching"], result["dtype"]
    ratio = seconds["switching"] / seconds["served"]
    met = ratio >= wanted and result["gap"] <= SAME[dtype]
    return (
        f"- times faster than PEFT's switching at {result['adapters']} adapters, {dtype}: {ratio:.1f}; "
        f"target at least {wanted:g}: {'pass' if met else 'MISS'}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0 whether or not the target is met, 2 (nothing measured), 130 (interrupted)."""
    parser = parser_of(Options(), "serving", __doc__)
    parser.add_argument("--small", action="store_true", help="a random model and few rows: whether it runs")

    def measured(given: dict[str, Any]) -> dict[str, Any]:
        small = given.pop("small")
        changed = {name: value for name, value in given.items() if value != getattr(Options(), name)}
        return measure(
            replace(SMALL, **changed) if small else Options(**given), lambda what: print(what, file=sys.stderr)
        )

    return run(parser, arguments, measured, report, "serving", report)


if __name__ == "__main__":
    sys.exit(main())
