"""How often counterfactual swaps err on real sentences, and the record of it that README quotes.

    python -m tests.swap_errors      needs BEFT_DATA; prints the table and writes tests/data/swap_errors.json

`data/swap_labels.csv` has 500 addresses of sentences (data set, split, row, column, the first twelve digits of the
SHA-256 of the sentence without outer blanks) and what a reader of them would exchange: "3=his 7=Ms" for the words
three and seven, counted from 0, a word being a run of letters. The sentences themselves are in the data folder only.
They were drawn by hash from those of at most 32 words that have a listed word, half of those with "her" behind a verb
that can take both. Of 200 ("seen") the reader knew the sentences while the rules were written; another 200
("unseen") were labelled after that, and what they showed was mended; the last 100 ("blind") were labelled after the
last change of the rules, in ignorance of what they do.
"""

import csv
import hashlib
import json
import os
import re
import sys
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from beft.data.counterfactual import Axis, axis, replacements
from beft.debias.bias_metrics import share

HERE = Path(__file__).parent / "data"
LABELS, RECORD = HERE / "swap_labels.csv", HERE / "swap_errors.json"
WORD = re.compile(r"[^\W\d_]+")
PARTS = ("seen", "unseen", "blind")


def labelled(folder: Path) -> list[tuple[dict[str, str], str]]:
    """Rows of labels, each with its sentence from a folder of data sets.

    Raises ValueError where a sentence is not the one that was labelled.
    """
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [_lines(folder / row["set"] / f"{row['split']}.jsonl") for row in rows]
    found = [(row, json.loads(lines[int(row["row"]) - 1])[row["column"]].strip()) for row, lines in zip(rows, texts)]
    for row, text in found:
        if hashlib.sha256(text.encode()).hexdigest()[:12] != row["sha256"]:
            raise ValueError(f"row {row['row']} of {row['set']} {row['split']} is not the sentence that was labelled")
    return found


@lru_cache
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@lru_cache
def _axis(name: str, names: bool) -> Axis:
    return axis(name, names=names)


def decisions(row: dict[str, str], text: str) -> list[tuple[str, bool]]:
    """(kind, whether it is right) of each word of a sentence that is listed, labelled or exchanged."""
    words = _axis(row["axis"], row["names"] == "1")
    group = words.groups.index(row["group"]) if row["group"] else None
    wanted = {int(n): new.replace("_", " ") for n, new in (pair.split("=") for pair in row["swaps"].split())}
    got = {change.start: change.new for change in replacements(text, words, group)}
    listed = {*words.places, "her", "his", "him", "hers"} if words.pronouns else set(words.places)
    made = []
    for n, match in enumerate(WORD.finditer(text)):
        low = match.group().lower()
        if low in listed or n in wanted or match.start() in got:
            made.append((_kind(low, words), wanted.get(n) == got.get(match.start())))
    return made


def _kind(low: str, words: Axis) -> str:
    """The kind of a word, for the table."""
    if words.name != "gender":
        return "colours" if {low} & {"black", "white", "blacks", "whites"} else f"other words of {words.name}"
    if low in {"her", "his", "him", "hers"}:
        return "her" if low == "her" else "his, him, hers"
    return "first names" if low in words.names else "other words of gender"


def measure(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Errors, words, and the share in percent with its Wilson 95% interval, by part and kind, and of sentences."""
    wrong: dict[str, dict[str, list[bool]]] = {part: defaultdict(list) for part in PARTS}
    for row, text in labelled(folder):
        made, kinds = decisions(row, text), wrong[row["part"]]
        for kind, right in made:
            kinds[kind].append(not right)
            kinds["all words"].append(not right)
        kinds["sentences"].append(not all(right for _, right in made))
    return {part: {kind: _rate(kinds[kind]) for kind in sorted(kinds)} for part, kinds in wrong.items()}


def _rate(wrong: list[bool]) -> dict[str, float]:
    rate = share(wrong)
    low, high = round(rate.low, 1), round(rate.high, 1)
    return {"errors": sum(wrong), "of": rate.n, "percent": round(rate.percent, 1), "low": low, "high": high}


def main() -> None:
    """Print the table and write the record."""
    given = os.environ.get("BEFT_DATA")
    if not given:
        sys.exit("the sentences are in the data folder: set BEFT_DATA to it")
    measured = measure(Path(given))
    RECORD.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    for part, kinds in measured.items():
        print(part)
        for kind, r in kinds.items():
            print(
                f"  {kind:24} {r['errors']:3} of {r['of']:3}  {r['percent']:4.1f}%  [{r['low']:.1f}, {r['high']:.1f}]"
            )


if __name__ == "__main__":
    main()
