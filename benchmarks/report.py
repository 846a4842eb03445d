"""The benchmark's record (`benchmarks.steps`) as Markdown: tables, and a line with pass or miss for every target."""

from collections.abc import Mapping, Sequence
from typing import Any

LABELS = {
    "plain": "1. plain: one by one, padded to 128",
    "longest": "2. + padded to the longest of a batch",
    "unscored": "3. + training set not scored",
    "stacked": "4. + stacked in banks, sorted by length",
    "bfloat16": "5. + bfloat16",
}
MB = 2**20


def totals(record: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the whole grid after each step that was measured."""
    return {step: sum(t["seconds"] for t in per.values()) for step, per in record["times"].items()}


def targets(record: Mapping[str, Any]) -> list[tuple[str, float | None, str, bool | None]]:
    """(what, measured, target in words, met) of each target; None where it was not measured."""
    total, wanted, memory = totals(record), record["targets"], record["memory"]
    lines: list[tuple[str, float | None, str, bool | None]] = []
    for step, dtype in (("stacked", "float32"), ("bfloat16", "bfloat16")):
        ratio = total["plain"] / total[step] if step in total else None
        met = None if ratio is None else ratio >= wanted[dtype]
        lines.append((f"times faster than plain, {dtype}", ratio, f"at least {wanted[dtype]:g}", met))
    value = training_efficiency(record)
    limit = wanted["efficiency"]
    lines.append(("padding efficiency, training", value, f"at least {limit:g}", value >= limit))
    one, many = (memory[count]["peak"] for count in sorted(memory, key=int))
    limit = wanted["memory"]
    what = f"peak memory of {max(map(int, memory))} runs over that of one"
    lines.append((what, many / one, f"at most {limit:g}", many / one <= limit))
    return lines


def training_efficiency(record: Mapping[str, Any]) -> float:
    """Real over computed tokens in training, over the grid: every run has as many rows, so banks weigh by runs."""
    banks = record["banks"]
    return sum(b["runs"] for b in banks) / sum(b["runs"] / b["training"] for b in banks)


def summary(record: Mapping[str, Any]) -> str:
    """The seconds after each step and the targets, for README."""
    methods = list(record["times"]["plain"])
    return "\n".join([*_steps(record, methods, each=False), "", *_targets(record), "", _setting(record, methods), ""])


def _setting(record: Mapping[str, Any], methods: Sequence[str]) -> str:
    """What was measured, where, and by which code."""
    s, data, device, versions = (record[n] for n in ("settings", "data", "device", "versions"))
    return (
        f"{record['model']['name']} on {data['task']} ({data['source']}): {', '.join(methods)}; "
        f"{_some(s['seeds'], 'seed')}, {_some(s['epochs'], 'epoch')}, {data['rows']['train']:,} training and "
        f"{data['rows']['validation']:,} validation rows, batch 16. {device['name']}, "
        f"{_some(device['threads'], 'thread')}, torch {versions['torch']}, commit {record['code']['commit'][:7]}"
        f"{' and changes' if record['code']['dirty'] else ''}."
    )


def report(record: Mapping[str, Any]) -> str:
    """The whole report."""
    s, data = record["settings"], record["data"]
    methods = list(record["times"]["plain"])
    lines = ["# Stacked runs against the plain protocol", ""]
    if data["note"]:
        lines += [f"**{data['note']}**", ""]
    lines += [
        _setting(record, methods),
        "",
        "## Seconds for the grid",
        "",
        *_steps(record, methods),
        "",
        _how(record),
        "",
    ]
    if not s["full"]:
        lines += ["## Milliseconds per batch of the plain protocol", "", *_batches(record, methods), ""]
    lines += [
        f"## Validation {data['metric']} after the last epoch, mean over seeds",
        "",
        *_scores(record, methods),
        "",
    ]
    lines += ["## Padding and memory", "", *_memory(record), "", "## Targets", "", *_targets(record)]
    return "\n".join([*lines, "", f"Measured in {record['seconds'] / 60:.1f} minutes.", ""])


def _targets(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for what, value, target, met in targets(record):
        if value is None:
            lines.append(f"- {what}: not measured, {record['skipped']['bfloat16']}; target {target}")
        else:
            lines.append(f"- {what}: {value:.2f}; target {target}: {'pass' if met else 'MISS'}")
    return lines


def _steps(record: Mapping[str, Any], methods: Sequence[str], each: bool = True) -> list[str]:
    """Seconds after each step: of `each` method, and of the grid."""
    total, rows, before, shown = totals(record), [], None, methods if each else ()
    for step, label in LABELS.items():
        if step not in total:
            rows.append([f"{label} (skipped: {record['skipped'][step]})", *[""] * (len(shown) + 3)])
            continue
        seconds = [record["times"][step][m]["seconds"] for m in shown]
        brings = "" if before is None else f"x {before / total[step]:.2f}"
        cells = [f"{value:.1f}" for value in (*seconds, total[step])]
        rows.append([label, *cells, f"{total['plain'] / total[step]:.2f}", brings])
        before = total[step]
    return table(["step", *shown, "total" if each else "seconds", "times faster", "step brings"], rows)


def _how(record: Mapping[str, Any]) -> str:
    s = record["settings"]
    median = f" (median of {s['repeats']})" if s["repeats"] > 1 else ""
    sizes = " and ".join(str(b["runs"]) for b in record["banks"])
    banks = (
        f"Steps 4 and 5 are whole runs of `training.fit`{median}, with tokenising and scoring, in the banks that a "
        f"sweep makes ({sizes} runs); a method has its runs' shares of them."
    )
    if s["full"]:
        return f"Steps 1 to 3 were run whole. {banks}"
    return (
        "Steps 1 to 3 are scaled from a sample, linearly in batches, tokenising left out: the median of "
        f"{s['samples']} training and as many scoring batches per method where all are padded to 128 and so cost the "
        f"same; where they are not, the mean of {4 * s['samples']} batches spread evenly over an epoch's lengths "
        f"(fewer where an epoch has fewer). {banks}"
    )


def _batches(record: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    batches = [
        ("train", "train"),
        ("score_training", "score training set"),
        ("score_validation", "score validation set"),
    ]
    names = {"plain": "padded to 128", "longest": "padded to the longest"}
    rows = []
    for step, name in names.items():
        for kind, label in batches:
            cells = [f"{1000 * record['batches'][step][m][kind]:.1f}" for m in methods]
            rows.append([f"{label}, {name}", *cells])
    return table(["batch of 16", *methods], rows)


def _scores(record: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    rows = []
    for step, per in record["times"].items():
        values = [per[m]["score"] for m in methods]
        if any(v is not None for v in values):
            rows.append([LABELS[step][3:].removeprefix("+ "), *["-" if v is None else f"{v:.4f}" for v in values]])
    return table(["", *methods], rows)


def _memory(record: Mapping[str, Any]) -> list[str]:
    memory, banks = record["memory"], record["banks"]
    padding = [[f"bank of {b['runs']}", f"{b['training']:.3f}", f"{b['scoring']:.3f}"] for b in banks]
    peaks = [
        [f"bank of {count}", *[f"{memory[count][n] / MB:,.0f}" for n in ("before", "peak")]]
        for count in sorted(memory, key=int)
    ]
    return [
        "Real over computed tokens:",
        "",
        *table(["", "training", "scoring"], padding),
        "",
        "Peak MiB of a fresh process that trains all biases, before (model and data loaded) and at the end:",
        "",
        *table(["", "before", "peak"], peaks),
    ]


def _some(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose columns line up as plain text too; all but the first to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = ["-" * widths[0], *["-" * (w - 1) + ":" for w in widths[1:]]]
    lines = [[c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))] for r in (header, *rows)]
    return [f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:])]
