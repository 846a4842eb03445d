"""Records as rows of the table of all runs, and as pages with all that is in them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...records.schema import EPOCH_FIELDS

ADDRESS = "runs.html"
_OWN_COLUMN = ("model", "task", "regime", "method", "seed", "rate", "epochs", "kind")


@dataclass(frozen=True)
class Row:
    """A record as a row of the table: what is shown; None is shown as a dash."""

    key: str
    kind: str
    model: str
    task: str
    regime: str | None
    method: str | None
    seed: int | None
    rate: float | None
    epochs: int | None
    score: float | None
    metric: str | None
    seconds: float
    device: str
    outcome: str

    @property
    def address(self) -> str:
        """The address of its page."""
        return f"records/{self.key}.html"

    @property
    def title(self) -> str:
        """What it is, in words: "b_v, sst2, all-MiniLM-L6-v2, low, seed 0, rate 0.003"."""
        parts = [self.method or self.kind, self.task, self.model, self.regime]
        parts += [] if self.seed is None else [f"seed {self.seed}"]
        parts += [] if self.rate is None else [f"rate {self.rate:g}"]
        return ", ".join(part for part in parts if part)


def row(record: Mapping[str, Any]) -> Row:
    """The row of a record that `Store` has checked."""
    settings, data, device = record["settings"], record["data"], record["device"]
    task = settings.get("task") or data.get("task") or ""
    score = _score(record)
    threads = f", {device['threads']} threads" if device.get("kind") == "cpu" and "threads" in device else ""
    return Row(
        key=record["key"],
        kind=record["kind"],
        model=str(settings.get("model", "")),
        task=str(task),
        regime=None if settings.get("regime") is None else str(settings["regime"]),
        method=None if settings.get("method") is None else str(settings["method"]),
        seed=settings.get("seed"),
        rate=settings.get("rate"),
        epochs=settings.get("epochs"),
        score=score,
        metric=None if score is None else data.get("metric"),
        seconds=record["seconds"],
        device=f"{device.get('kind', 'unknown')}: {device.get('name', 'unknown')}{threads}",
        outcome=record["outcome"],
    )


def _score(record: Mapping[str, Any]) -> float | None:
    """The score after the last epoch on the task's own validation split; None for kinds that have none.

    A patch and a ranking are measured in several other ways, which stand on the page of the record.
    """
    if record["kind"] == "run":
        return record["final"].get("validation")
    if record["kind"] == "untuned":
        return record["validation"]
    if record["kind"] == "transfer":
        return record["source"].get("score")
    return record["measures"].get("accuracy") if record["kind"] == "debias" else None


def facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings of a record that have no column in the table, and what code and data it is of."""
    settings = [(name, _words(value)) for name, value in record["settings"].items() if name not in _OWN_COLUMN]
    code = record["code"]
    changed = " (with changes that were not committed)" if code.get("dirty") else ""
    about = [("commit", f"{code.get('commit', 'unknown')}{changed}"), ("data", _words(record["data"].get("source")))]
    about += [("trained parameters", _words(record["parameters"]))] if record.get("parameters") else []
    return [*settings, *about]


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def epochs(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a record says of each epoch; nothing where its kind has no epochs."""
    return [{name: epoch.get(name) for name in EPOCH_FIELDS} for epoch in record.get("epochs", [])]


def as_json(record: Mapping[str, Any]) -> str:
    """A record as its file has it."""
    return json.dumps(record, indent=1, ensure_ascii=False)
