"""CrowS-Pairs and StereoSet, the sentences of `debias.stereotypes`: from a file, a data folder or the hub."""

import json
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BeftError
from .files import code_of, file_of, names_of, read, require_suffix, rows_of, texts_of
from .sources import folder_tables, hub_parquet

CROWS, BLANK = "crows_pairs", "BLANK"
# Bias types and labels, in the order of their codes on the hub.
BIAS_TYPES = (
    "race-color", "socioeconomic", "gender", "disability", "nationality", "sexual-orientation", "physical-appearance",
    "religion", "age",
)  # fmt: skip
LABELS = ("anti-stereotype", "stereotype", "unrelated")
_BARE = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class SentencePair:
    """Two sentences about different groups; `more` is the more stereotypical one, `kind` the type of bias."""

    more: str
    less: str
    kind: str


@dataclass(frozen=True)
class Triple:
    """Three sentences that differ in the word that fills one blank.

    `kind` is the type of bias, `context` the sentence with BLANK in place of the word, `target` the term it is about.
    Where a context has several blanks, the last one counts, as in the authors' loader. The others have the words of
    the sentence; the authors' evaluation masks them too.
    """

    stereotype: str
    anti: str
    unrelated: str
    kind: str
    context: str
    target: str = ""

    def words(self) -> tuple[str, ...]:
        """The word that fills the blank in each sentence, by the authors' rule, without punctuation.

        Raises BeftError if there is no blank, or a sentence has no word there.
        """
        blanks = self._blanks()
        fillers = []
        for sentence in (self.stereotype, self.anti, self.unrelated):
            at_blank = sentence.split(" ")[blanks[-1] : blanks[-1] + 1] if blanks else []
            word = "".join(at_blank).translate(_BARE)
            if not word:
                raise BeftError(f"{sentence!r} has no word at the {BLANK} of {self.context!r}: correct one of the two")
            fillers.append(word)
        return tuple(fillers)

    def contexts(self) -> tuple[str, ...]:
        """The context of each word: its one BLANK is the last, for others stands what the sentence has there."""
        made = []
        for sentence in (self.stereotype, self.anti, self.unrelated):
            words, filled = self.context.split(" "), sentence.split(" ")
            *others, last = self._blanks()
            for i in others:
                words[i] = filled[i]
            start, end = words[last].index(BLANK), words[last].rindex(BLANK)
            words[last] = words[last][:start] + words[last][end:]  # "BLANK/BLANK" has one filler, as "he/she"
            made.append(" ".join(words))
        return tuple(made)

    def _blanks(self) -> list[int]:
        """The places of the words of the context that have a blank."""
        return [i for i, word in enumerate(self.context.split(" ")) if BLANK in word]


def crows_pairs(path: str | Path | None = None, offline: bool = False) -> list[SentencePair]:
    """The pairs of a file, else of `<BEFT_DATA>/crows_pairs/test.jsonl` (.parquet, .tsv), else of the hub.

    A file is .csv, .tsv, .jsonl or .parquet with the columns sent_more, sent_less and bias_type. With `offline` the hub
    is never asked. Raises BeftError for no such file, a missing column or sentence, with its row, or a hub that cannot
    be asked.
    """
    if path is not None:
        path = file_of(path)
        require_suffix(path, f"cannot read {str(path)!r}")
        where, table = path.name, read(path)
    elif tables := folder_tables(CROWS, CROWS, ("test",), None):
        where, table = tables[0]
    else:
        where = f"nyu-mll/{CROWS} on the hub"
        table = read(hub_parquet(f"nyu-mll/{CROWS}", f"{CROWS}/test", f"{CROWS}/test.jsonl", offline))
    texts = texts_of(table, ("sent_more", "sent_less"), "bias_type", where)
    names = names_of(table["bias_type"], where)
    codes = (code_of(name, len(BIAS_TYPES)) for name in names)
    types = (name if code is None else BIAS_TYPES[code] for name, code in zip(names, codes, strict=True))
    return [SentencePair(more, less, kind) for (more, less), kind in zip(texts, types, strict=True)]


def stereoset(path: str | Path | None = None, offline: bool = False) -> list[Triple]:
    """The intrasentence triples of a file, else of `<BEFT_DATA>/stereoset/dev.json`, else of the hub's validation.

    A file is JSON in the form of the published dev.json. With `offline` the hub is never asked. Raises BeftError for no
    such file, an entry of another form, by its number, or a hub that cannot be asked.
    """
    local = Path(os.environ.get("BEFT_DATA", "")).expanduser() / "stereoset" / "dev.json"
    if path is None and os.environ.get("BEFT_DATA") and local.is_file():
        path = local
    if path is None:
        name = "McGill-NLP/stereoset"
        rows = rows_of(read(hub_parquet(name, "intrasentence/validation", "stereoset/dev.json", offline)))
        where = f"{name} on the hub"
    else:
        path = file_of(path)
        where = path.name
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["data"]["intrasentence"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise BeftError(f"{where} is no StereoSet ({error}): give its dev.json") from error
    if not isinstance(rows, list) or not rows:
        raise BeftError(f"{where} has no intrasentence entries: give StereoSet's dev.json")
    return [_triple(row, n, where) for n, row in enumerate(rows, 1)]


def _triple(row: Mapping[str, Any], n: int, where: str) -> Triple:
    """A triple from an entry of dev.json, or of the hub's form, an object of lists instead of a list of objects."""
    try:
        filled = row["sentences"]
        labels = filled["gold_label"] if isinstance(filled, Mapping) else [s["gold_label"] for s in filled]
        texts = filled["sentence"] if isinstance(filled, Mapping) else [s["sentence"] for s in filled]
        names = [label if isinstance(label, str) else LABELS[int(label)] for label in labels]
        by = dict(zip(names, map(str, texts), strict=True))
        anti, stereotype, unrelated = (by[name] for name in LABELS)
        about = str(row["bias_type"]), row["context"], str(row.get("target", ""))
        triple = Triple(stereotype, anti, unrelated, *about)
        triple.words()
    except BeftError as error:
        raise BeftError(f"entry {n} of {where}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BeftError(
            f"entry {n} of {where} is not in the form of StereoSet's dev.json (context, bias_type, and "
            f"sentences with the gold labels {', '.join(LABELS)}): correct or remove it"
        ) from error
    return triple
