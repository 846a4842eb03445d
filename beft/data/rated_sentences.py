"""Sentences that people rated from -4 (negative) to 4 (positive): of film reviews, product reviews, editorials, tweets.

They come with the package vaderSentiment 3.3.2 (MIT; Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for
Sentiment Analysis of Social Media Text", ICWSM 2014), whose files `carriers` has; a rating is the mean of 15 people or
more for films and of 20 or more for the rest.

*Reading.* Lines are an ID, a rating and a text between tabs, where a quotation mark is text. Of a text, HTML's entities
are resolved ("&amp;", in 4% of the tweets and fewer of the rest) and runs of spaces become one. Left out are texts
without a letter or digit, and repeats of a text; the source of a task counts them, and what else it leaves out.

*Splits.* A product's review or an editorial ("12_3" is the third sentence of text 12) is held out as a whole, a film
sentence or tweet by itself: nothing says which review a film sentence is from. Which, is decided by a hash of the text
in lower case without spaces and punctuation, so that it depends on no order. Of the training split, sentences are
left out that are in the validation split too, with other case, spaces or punctuation, or but for a few words.

*SST-2* was made of the same film reviews. Compared without case, spaces and punctuation, 6,368 of the 10,603 film
sentences are rows of SST-2 (49 when compared without case alone), 5,636 of its training split and 732 of its validation
split, and each of the 872 rows of the latter is at least a part of a film sentence. A model trained on one must not be
reported on the other.
"""

import hashlib
import html
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from .. import carriers
from ..errors import BeftError, unknown
from .files import Table

SUITE = "rated_sentences"
CARRIER = "rated-sentences"
SOURCE = "vaderSentiment 3.3.2, Hutto and Gilbert, ICWSM 2014"
NEUTRAL = 1.0  # a sentence rated nearer than this to 0 is neither negative nor positive
ALIKE = 0.6  # sentences that share this much of their word triples (Jaccard) are nearly one
_SPLITS = ("train", "validation")
# Sentences of -> their file, and the share of texts that is held out.
KINDS = {
    "film": ("movieReviewSnippets_GroundTruth.txt", 0.11),
    "product": ("amazonReviewSnippets_GroundTruth.txt", 0.25),
    "tweet": ("tweets_GroundTruth.txt", 0.25),
    "editorial": ("nytEditorialSnippets_GroundTruth.txt", 0.25),
}


@dataclass(frozen=True)
class Sentence:
    """A text with its mean rating in -4..4, and the longer text that it is a sentence of ("" where that is unknown)."""

    text: str
    rating: float
    part_of: str = ""

    @cached_property
    def key(self) -> str:
        """What sentences have in common that differ in case, spaces and punctuation alone; of punctuation, ""."""
        return re.sub(r"[\W_]+", "", self.text.lower())

    @cached_property
    def triples(self) -> frozenset[tuple[str, ...]]:
        """Every three words that follow each other."""
        words = re.findall(r"\w+", self.text.lower())
        return frozenset(zip(words, words[1:], words[2:]))


@dataclass(frozen=True)
class Rated:
    """Sentences of both splits, in the order of the file, and what was left out: how many, by why."""

    train: list[Sentence]
    validation: list[Sentence]
    left_out: dict[str, int]


def load(kind: str) -> Rated:
    """The sentences of a kind of KINDS, whatever their rating.

    Raises BeftError: an unknown kind; the files were not fetched, or are damaged.
    """
    if kind not in KINDS:
        raise unknown("kind of rated sentences", kind, KINDS)
    name, share = KINDS[kind]
    path = carriers.folder(CARRIER) / name
    with suppress(OSError):
        about = path.stat()
        return _parted(path, share, about.st_mtime_ns, about.st_size)
    return _parted(path, share)


@lru_cache(maxsize=8)
def _parted(path: Path, share: float, *stamp: int) -> Rated:
    """The sentences of a file in two splits; read once in a process while the file stays as it is."""
    read = _read(path)
    usable = [s for s in read if s.key]
    different = list({s.text: s for s in reversed(usable)}.values())[::-1]  # the first of each text
    held_out = _held_out(different, share)
    validation = [s for s, held in zip(different, held_out, strict=True) if held]
    others = [s for s, held in zip(different, held_out, strict=True) if not held]
    near = _near(others, validation)
    train = [s for s, straddles in zip(others, near, strict=True) if not straddles]
    counts = {
        "without a letter or digit": len(read) - len(usable),
        "repeated": len(usable) - len(different),
        "nearly a held-out one": sum(near),
    }
    return Rated(train, validation, {why: count for why, count in counts.items() if count})


def tables(task: str, splits: Sequence[str] = _SPLITS) -> tuple[list[tuple[str, Table]], str]:
    """(name for messages, columns `sentence` and `label`) of splits of a task of this suite; and the source in words.

    "<kind>_sentiment" has the labels 0 and 1 of sentences rated -1 or less, and 1 or more; "<kind>_rating" has the
    ratings of all. Raises BeftError as `load`, and for another split than train and validation.
    """
    kind, _, what = task.rpartition("_")
    rated = load(kind)
    left_out = dict(rated.left_out)
    made = []
    for split in splits:
        sentences = _split(rated, split)
        if what == "sentiment":
            clear = [s for s in sentences if abs(s.rating) >= NEUTRAL]
            why = f"rated within {NEUTRAL:g} of neutral"
            left_out[why] = left_out.get(why, 0) + len(sentences) - len(clear)
            table: Table = {"sentence": [s.text for s in clear], "label": [int(s.rating > 0) for s in clear]}
        else:
            table = {"sentence": [s.text for s in sentences], "label": [s.rating for s in sentences]}
        made.append((f"{split} split of {task}", table))
    told = ", ".join(f"{count:,} {why}" for why, count in left_out.items() if count)
    return made, f"{SOURCE}: {kind} sentences" + (f"; left out: {told}" if told else "")


def texts(kinds: str | Iterable[str], split: str = "train") -> list[str]:
    """The plain texts of one kind or several, in this order, whatever their rating: text for language models.

    Held out ("validation") are the sentences that the tasks hold out. Raises BeftError as `tables`.
    """
    chosen = [kinds] if isinstance(kinds, str) else list(kinds)
    return [s.text for kind in chosen for s in _split(load(kind), split)]


def _split(rated: Rated, split: str) -> list[Sentence]:
    if split not in _SPLITS:
        raise unknown("split of rated sentences", split, _SPLITS)
    return rated.train if split == "train" else rated.validation


def _read(path: Path) -> list[Sentence]:
    """All lines of a file. Raises BeftError for one that is not there or not in this form."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "it is not there" if isinstance(error, OSError) else "it is not UTF-8") from None
    sentences = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        try:
            identity, rating, text = fields[0], float(fields[1]), fields[2]
        except (IndexError, ValueError):
            raise _damaged(path, f"line {number} is no ID, rating and text") from None
        if len(fields) > 3 or not -4 <= rating <= 4:
            raise _damaged(path, f"line {number} has more than three fields, or a rating outside -4 to 4")
        longer, _, sentence = identity.partition("_")
        sentences.append(Sentence(" ".join(html.unescape(text).split()), rating, longer if sentence else ""))
    if not sentences:
        raise _damaged(path, "it is empty")
    return sentences


def _damaged(path: Path, fault: str) -> BeftError:
    remedy = f"delete the folder {path.parent} and run `python -m beft fetch {CARRIER}`"
    return BeftError(f"{path.name}, a file of rated sentences, is damaged ({fault}): {remedy}")


def _held_out(sentences: Sequence[Sentence], share: float) -> list[bool]:
    """Whether each sentence is held out, with all others of the text that it is a part of."""
    texts: dict[str, set[str]] = defaultdict(set)
    of = [f"{s.part_of}_" if s.part_of else s.key for s in sentences]
    for text, sentence in zip(of, sentences, strict=True):
        texts[text].add(sentence.key)
    held = {text: _place("\n".join(sorted(keys))) < share for text, keys in texts.items()}
    return [held[text] for text in of]


def _place(content: str) -> float:
    """A number in [0, 1) that a text has for good."""
    return int(hashlib.sha256(content.encode()).hexdigest()[:8], 16) / 2**32


def _near(sentences: Sequence[Sentence], validation: Sequence[Sentence]) -> list[bool]:
    """Whether each sentence is one of the validation split, or nearly so: same key, or ALIKE in their word triples."""
    keys = {s.key for s in validation}
    having: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, other in enumerate(validation):
        for triple in other.triples:
            having[triple].append(i)

    def straddles(s: Sentence) -> bool:
        shared = Counter(i for triple in s.triples for i in having.get(triple, ()))
        both = {i: len(s.triples) + len(validation[i].triples) - n for i, n in shared.items()}
        return s.key in keys or any(n >= ALIKE * both[i] for i, n in shared.items())

    return list(map(straddles, sentences))
