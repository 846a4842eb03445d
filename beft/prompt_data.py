"""Examples of a decoder task: from a folder of data sets or the hub, as many as the paper takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .data import folder_tables, hub_tables
from .errors import BeftError
from .files import Table
from .prompted import PromptData, prompt_data
from .prompts import Example, Prompt, get_prompt

EVALUATED = 1000  # rows of the validation split that are reported on (PROTOCOL, decoders)


def load_prompts(
    task: str, *, offline: bool = False, folder: str | Path | None = None, evaluated: int = EVALUATED
) -> PromptData:
    """The examples of a task of `prompts.PROMPTS`, from `<folder>/<suite>/<task>/<split>.jsonl` (or .parquet) or hub.

    The validation examples are the first `evaluated` of the permutation of `RandomState(0)`, or all in their order
    where there are no more; they are the same for every seed of a run.

    Args:
        task: its name.
        offline: never ask the hub.
        folder: of data sets; by default the environment's BEFT_DATA.

    Raises:
        BeftError: an unknown task, one that cannot be found, or rows that cannot be used, by their number.
    """
    prompt = get_prompt(task)
    tables = folder_tables(prompt.suite, task, ("train", "validation"), folder)
    source = f"data folder, {prompt.suite}/{task}"
    if tables is None:
        found = hub_tables(prompt.suite, task, ("train", "validation"), offline)
        source = f"hub, {prompt.suite} {task}"
        tables = [(f"{task} on the hub", table) for table in found]
    train, validation = (examples(prompt, table, where) for where, table in tables)
    if len(validation) > evaluated:
        chosen = np.random.RandomState(0).permutation(len(validation))[:evaluated]
        validation = [validation[i] for i in chosen]
    return prompt_data(prompt, train, validation, source)


def examples(prompt: Prompt, table: Table, where: str) -> list[Example]:
    """The rows of a table as examples. Raises BeftError for a column or a label that is missing or wrong, by row."""
    missing = [name for name in prompt.columns if name not in table]
    if prompt.task == "drop" and {"passage", "answers_spans"} <= set(table):  # as the hub has it
        missing = []
    if missing or not table:
        found = ", ".join(map(repr, table)) or "none"
        raise BeftError(
            f"{where} lacks the column {' and '.join(map(repr, missing))} (it has {found}): rename or add it"
        )
    names = list(table)
    rows = zip(*table.values(), strict=True)
    made = [_example(prompt, dict(zip(names, row, strict=True)), n, where) for n, row in enumerate(rows, 1)]
    if not made:
        raise BeftError(f"{where} has no rows: add some to it")
    return made


def _example(prompt: Prompt, row: Mapping[str, Any], number: int, where: str) -> Example:
    plain = {name: _plain(value) for name, value in row.items()}
    empty = [n for n in prompt.columns if n in plain and (plain[n] is None or plain[n] == "")]
    if empty:
        raise BeftError(f"row {number} of {where} has an empty {empty[0]!r}: fill it in or remove the row")
    try:
        found = prompt.write(plain)
    except (KeyError, TypeError, AttributeError) as error:
        raise BeftError(
            f"row {number} of {where} is not as the hub's {prompt.task} has it ({type(error).__name__}: {error}): "
            "correct the row"
        ) from error
    right = bool(found.answers) if prompt.form == "answer" else _is_place(found.label, len(found.options))
    if not right:
        said = "no answer" if prompt.form == "answer" else f"the label {plain.get('label', found.label)!r}"
        valid = "" if prompt.form == "answer" else f", with labels 0 to {len(found.options) - 1}"
        raise BeftError(f"row {number} of {where} has {said}: use a labelled split{valid}")
    return found


def _is_place(label: object, count: int) -> bool:
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < count


def _plain(value: Any) -> Any:
    """Arrays (of Parquet files) as lists, NumPy's numbers as Python's, also inside of a dictionary."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
