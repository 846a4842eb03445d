"""Where the sentences of `stereotypes` come from: CrowS-Pairs and StereoSet, from a file, a data folder or the hub."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BeftError
from .files import USER_SUFFIXES, class_of, is_whole, read, texts_of
from .sources import folder_tables

CROWS, BLANK = "crows_pairs", "BLANK"
# The hub's codes of bias types and of labels, in the order of their names there.
KINDS = (
    "race-color", "socioeconomic", "gender", "disability", "nationality", "sexual-orientation", "physical-appearance",
    "religion", "age",
)  # fmt: skip
LABELS = ("anti-stereotype", "stereotype", "unrelated")
_BARE = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class SentencePair:
    """Two sentences that differ in whom they speak of; `more` is the more stereotyped one, `kind` the type of bias."""

    more: str
    less: str
    kind: str


@dataclass(frozen=True)
class Triple:
    """Three sentences that differ in the word that fills one blank.

    Attributes:
        kind: the type of bias.
        context: the sentence with BLANK in the word's place.
        target: the term that it is about.
    """

    stereotype: str
    anti: str
    unrelated: str
    kind: str
    context: str
    target: str = ""

    def words(self) -> tuple[str, ...]:
        """What fills the blank in each: one word, by the authors' rule, without punctuation.

        Raises:
            BeftError: no blank, or a sentence that has no word there.
        """
        places = [i for i, word in enumerate(self.context.split(" ")) if BLANK in word]
        found = []
        for sentence in (self.stereotype, self.anti, self.unrelated):
            parts = sentence.split(" ")
            word = parts[places[0]].translate(_BARE) if places and places[0] < len(parts) else ""
            if not word:
                raise BeftError(
                    f"{sentence!r} has no word at the {BLANK} of {self.context!r}: correct one of the two"
                )
            found.append(word)
        return tuple(found)


def crows_pairs(path: str | Path | None = None, offline: bool = False) -> list[SentencePair]:
    """The pairs of a file, else of `<BEFT_DATA>/crows_pairs/test.jsonl` (.parquet, .tsv), else of the hub.

    Args:
        path: .csv, .tsv, .jsonl or .parquet with the columns sent_more, sent_less and bias_type.
        offline: never ask the hub.

    Raises:
        BeftError: no such file, a column or sentence that is missing, by its row, or a hub that cannot be asked.
    """
    if path is not None:
        if Path(path).suffix.lower() not in USER_SUFFIXES:
            raise BeftError(f"cannot read {str(path)!r}: a data file must end in {', '.join(USER_SUFFIXES)}")
        where, table = Path(path).name, read(Path(path).expanduser())
    elif found := folder_tables(CROWS, CROWS, ("test",), None):
        where, table = found[0]
    else:
        where = f"nyu-mll/{CROWS} on the hub"
        table = read(_fetched(f"nyu-mll/{CROWS}", f"{CROWS}/test", f"{CROWS}/test.jsonl", offline))
    texts = texts_of(table, ("sent_more", "sent_less"), "bias_type", where)
    kinds = [class_of(value, row, where) for row, value in enumerate(table["bias_type"], 1)]
    return [SentencePair(more, less, _kind(kind)) for (more, less), kind in zip(texts, kinds, strict=True)]


def _kind(name: str) -> str:
    return KINDS[int(name)] if is_whole(name) and 0 <= int(name) < len(KINDS) else name


def stereoset(path: str | Path | None = None, offline: bool = False) -> list[Triple]:
    """The intrasentence triples of a file, else of `<BEFT_DATA>/stereoset/dev.json`, else of the hub's validation.

    Args:
        path: JSON in the form of the published dev.json.
        offline: never ask the hub.

    Raises:
        BeftError: no such file, not of that form, by the entry's number, or a hub that cannot be asked.
    """
    local = Path(os.environ.get("BEFT_DATA", "")).expanduser() / "stereoset" / "dev.json"
    if path is None and os.environ.get("BEFT_DATA") and local.is_file():
        path = local
    if path is None:
        name = "McGill-NLP/stereoset"
        table = read(_fetched(name, "intrasentence/validation", "stereoset/dev.json", offline))
        rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        where = f"{name} on the hub"
    else:
        where = Path(path).name
        try:
            rows = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))["data"]["intrasentence"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BeftError(f"{where} is no StereoSet ({error}): give its dev.json") from error
    if not rows:
        raise BeftError(f"{where} has no intrasentence entries: give StereoSet's dev.json")
    return [_triple(row, n, where) for n, row in enumerate(rows, 1)]


def _triple(row: Mapping[str, Any], n: int, where: str) -> Triple:
    """A triple from an entry of dev.json, or from the hub's, where lists stand in the place of objects."""
    try:
        said = row["sentences"]
        labels = said["gold_label"] if isinstance(said, Mapping) else [s["gold_label"] for s in said]
        texts = said["sentence"] if isinstance(said, Mapping) else [s["sentence"] for s in said]
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


def _fetched(repository: str, folder: str, local: str, offline: bool) -> Path:
    """The hub's Parquet copy of a split, which it makes of data sets that come as a program too."""
    remedy = f"set BEFT_DATA to a folder with {local}, give a path, or be online with HF_HUB_OFFLINE unset"
    if offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise BeftError(f"{repository} is not here, and the hub is not asked while offline: {remedy}")
    from huggingface_hub import hf_hub_download

    try:
        file = f"{folder}/0000.parquet"
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision="refs/convert/parquet"))
    except Exception as error:  # the hub, the network and the cache each raise their own kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".: ")
        raise BeftError(f"{repository} could not be had from the hub ({reason}): {remedy}") from error
