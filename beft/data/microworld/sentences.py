"""The micro-world: generated text whose label follows from a stated grammar, without a download.

The words and the forms of all generated text are in `world.json`. In the forms of sentences, {s} is an aspect, {i} an
intensifier, {a} an opinion word, {x}, {y} and {c} are claims ({y} decides), {t} is a sentence, {p} and {q} are people,
{he} is a pronoun, {l} a place and {o} an occasion. The label of the sentiment task is the **narrator's verdict**, by
one compositional rule:

    claim     "the plot was dull"                        the verdict of its opinion word
    negation  "the plot was never dull"                  inverts the verdict; two of them cancel out
    contrast  "although <claim>, <claim>", "<claim>, but <claim>"   the main clause, or the one after "but", decides
    report    "Nora said that <claim>, but she was wrong"           kept or inverted by the narrator's stance

Intensifiers, places, people and occasions vary the surface and do not affect the label.

**Splits are disjoint by construction.** A claim pairs an aspect with an opinion word. The pair (i, j), by position in
`ASPECTS` and in the opinion list, belongs to one split (`split_of`). A sentence draws all its pairs from its own split,
so validation sentences contain only pairs that no training sentence has, whatever the seeds. Every word occurs in
training, its combinations do not. Other texts pair other items in the same way.

**Deterministic.** Only `random.Random.random()` is used, whose stream Python guarantees for a given seed. Each split
has its own stream: the size of one does not affect the other, and fewer rows are a prefix of more.
"""

import json
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from operator import attrgetter
from typing import Any, Literal, TypeVar

from ...errors import BeftError

T = TypeVar("T")
SplitName = Literal["train", "validation"]
FOLDS = 5

WORLD: dict[str, Any] = json.loads(files(__package__).joinpath("world.json").read_text(encoding="utf-8"))
PEOPLE: dict[str, str] = WORLD["people"]  # name -> pronoun
PLACES: tuple[str, ...] = tuple(WORLD["places"])
ASPECTS = tuple((thing, name) for thing, names in WORLD["things"].items() for name in names)
# verdict -> words for it
OPINIONS = {1: tuple(WORLD["opinions"]["positive"]), 0: tuple(WORLD["opinions"]["negative"])}
FORMS: dict[str, list[str]] = WORLD["sentences"]
SHARES = {"plain": 0.40, "negated": 0.15, "twice negated": 0.10, "contrasted": 0.20, "reported": 0.15}


@dataclass(frozen=True)
class Opinion:
    """One sentence with the origin of its label, which is 1 where the narrator's verdict is positive, else 0.

    `construction` is a key of `SHARES`, `pairs` are (aspect, opinion word) of each claim; the last one decides.
    """

    text: str
    label: int
    construction: str
    pairs: tuple[tuple[str, str], ...]


def pick(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options, each with the same probability."""
    # not rng.choice: Python guarantees the stream of random() only
    return options[int(rng.random() * len(options))]


def as_sentence(text: str) -> str:
    """A clause with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def split_of(first: int, second: int) -> SplitName:
    """The split that owns a pair of two items, such as an aspect and an opinion word, by their positions in lists."""
    return "train" if (first + second) % FOLDS else "validation"


def distinct_rows(
    kind: str,
    split: SplitName,
    rows: int,
    seed: int,
    make: Callable[[random.Random, SplitName, int], T],
    key: Callable[[T], Hashable] = attrgetter("text"),
    balanced: bool = False,
) -> list[T]:
    """`rows` rows of a split with different keys, from a random stream of their own; fewer are a prefix of more.

    Args:
        kind: of text; with split and seed it determines the stream.
        make: (random numbers, split, label) -> a row.
        balanced: each pair of neighbours gets the labels 0 and 1 in random order, so that every even prefix is
            balanced; otherwise `make` always gets 0.

    Raises BeftError for a negative number of rows.
    """
    if rows < 0:
        raise BeftError(f"cannot generate {rows} rows: give a number from 0 on")
    rng = random.Random(f"{kind} {split} {seed}")
    made: dict[Hashable, T] = {}
    label = 0
    while len(made) < rows:
        if balanced and len(made) % 2 == 0:
            label = int(rng.random() < 0.5)
        row = make(rng, split, label)
        if made.setdefault(key(row), row) is row:
            label = 1 - label if balanced else 0
    return list(made.values())


def with_place(
    rng: random.Random, split: SplitName, make: Callable[[], T], position: Callable[[T], int]
) -> tuple[int, T]:
    """The position of a place and something made, whose pair is of the split."""
    while True:
        place, made = int(rng.random() * len(PLACES)), make()
        if split_of(place, position(made)) == split:
            return place, made


# (split, aspect, verdict) -> opinion words that may be paired with the aspect
WORDS: dict[tuple[SplitName, int, int], tuple[str, ...]] = {
    (split, i, verdict): tuple(w for j, w in enumerate(words) if split_of(i, j) == split)
    for split in ("train", "validation")
    for i in range(len(ASPECTS))
    for verdict, words in OPINIONS.items()
}


def make_claim(
    rng: random.Random, split: SplitName, aspect: int, verdict: int, negations: int, word: str | None = None
) -> tuple[str, tuple[str, str]]:
    """A claim about an aspect with this verdict after 0, 1 or 2 negations, and its (aspect, opinion word) pair."""
    word = word or pick(rng, WORDS[split, aspect, verdict ^ (negations % 2)])
    form = pick(rng, FORMS[("affirmed", "negated", "twice_negated")[negations]])
    thing, name = ASPECTS[aspect]
    subject = f"the {name}" if rng.random() < 0.75 else f"the {name} of the {thing}"
    return form.format(s=subject, i=pick(rng, FORMS["intensifiers"]), a=word), (f"{name} of the {thing}", word)


def make_opinion(rng: random.Random, split: SplitName, label: int) -> Opinion:
    """One sentence of `split` whose verdict is `label`."""
    u = rng.random()
    for construction, share in SHARES.items():  # noqa: B007
        u -= share
        if u < 0:
            break
    aspect = int(rng.random() * len(ASPECTS))
    person = pick(rng, tuple(PEOPLE))
    first = []
    if construction == "contrasted":
        same = [i for i, (thing, _) in enumerate(ASPECTS) if thing == ASPECTS[aspect][0] and i != aspect]
        x, other = make_claim(rng, split, pick(rng, same), 1 - label, int(rng.random() < 0.3))
        y, last = make_claim(rng, split, aspect, label, int(rng.random() < 0.3))
        text, first = pick(rng, FORMS["contrasted"]).format(x=x, y=y), [other]
    elif construction == "reported":
        wrong = int(rng.random() < 0.5)
        claim, last = make_claim(rng, split, aspect, label ^ wrong, 0)
        text = pick(rng, FORMS["rejected" if wrong else "endorsed"]).format(c=claim, p=person, he=PEOPLE[person])
    else:
        negations = ("plain", "negated", "twice negated").index(construction)
        text, last = make_claim(rng, split, aspect, label, negations)
    others = [name for name in PEOPLE if name != person]
    frame = pick(rng, FORMS["frames"])
    text = frame.format(t=text, o=pick(rng, WORLD["occasions"]), l=pick(rng, PLACES), q=pick(rng, others))
    return Opinion(as_sentence(text), label, construction, (*first, last))


def opinions(split: SplitName, rows: int, seed: int = 0) -> list[Opinion]:
    """`rows` different opinions of a split, every even prefix half positive. Raises as `distinct_rows`."""
    return distinct_rows("sentiment", split, rows, seed, make_opinion, balanced=True)


def sentiment(
    seed: int = 0, train: int = 4000, validation: int = 500
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The sentiment task as (text, label) rows of its training and its validation split; label 1 is positive."""
    learn, test = opinions("train", train, seed), opinions("validation", validation, seed)
    return [(o.text, o.label) for o in learn], [(o.text, o.label) for o in test]
