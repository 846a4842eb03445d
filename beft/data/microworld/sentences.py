"""The micro-world: generated text whose label follows from a stated grammar, without a download.

The world consists of a few lists (`PEOPLE`, `PLACES`, `THINGS` with their aspects, `OCCASIONS`, `OPINIONS`) that all
generated text shares. The label of its sentiment task is the **narrator's verdict**, by one compositional rule:

    claim     "the plot was dull"                        the verdict of its opinion word
    negation  "the plot was never dull"                  inverts the verdict; two of them cancel out
    contrast  "although <claim>, <claim>", "<claim>, but <claim>"   the main clause, or the one after "but", decides
    report    "Nora said that <claim>, but she was wrong"           kept or inverted by the narrator's stance

Intensifiers, places, people and occasions vary the surface and do not affect the label.

**Splits are disjoint by construction.** A claim pairs an aspect with an opinion word. The pair (i, j), by position in
`ASPECTS` and in the opinion list, belongs to the validation split if (i + j) is a multiple of `FOLDS`, else to the
training split. A sentence draws all its pairs from its own split, so validation sentences contain only pairs that no
training sentence has, whatever the seeds. Every word occurs in training, its combinations do not.

**Deterministic.** Only `random.Random.random()` is used, whose stream Python guarantees for a given seed. Each split
has its own stream: the size of one does not affect the other, and fewer rows are a prefix of more.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ...errors import BeftError

T = TypeVar("T")
SplitName = Literal["train", "validation"]
FOLDS = 5

# --- the world, shared by all generated text ----------------------------------------------------------------
PEOPLE: dict[str, str] = {  # name -> pronoun
    "Nora": "she", "Alice": "she", "Ruth": "she", "Maria": "she", "Helen": "she", "Clara": "she", "Anna": "she",
    "Omar": "he", "David": "he", "Peter": "he", "Hugo": "he", "Martin": "he", "Victor": "he", "Simon": "he",
}  # fmt: skip
PLACES = (
    "Leeds", "Lisbon", "Oslo", "Bristol", "Vienna", "Porto", "Dublin", "Turin", "the suburbs",
    "the old town", "the village",
)  # fmt: skip
THINGS: dict[str, tuple[str, ...]] = {  # thing -> its aspects
    "film": ("plot", "ending", "dialogue", "camera work", "opening scene", "soundtrack"),
    "novel": ("first chapter", "prose", "hero", "cover", "translation"),
    "restaurant": ("soup", "dessert", "waiter", "menu", "bread", "coffee"),
    "hotel": ("lobby", "breakfast", "bed", "view", "bathroom", "garden"),
    "concert": ("singer", "violin solo", "second half", "sound", "lighting"),
    "museum": ("main hall", "guide", "gift shop", "collection", "audio tour"),
    "phone": ("screen", "keyboard", "battery", "packaging", "design"),
}  # fmt: skip
OCCASIONS = (
    "on Monday", "last winter", "after the storm", "during the festival", "that evening",
    "on our second visit", "in June",
)  # fmt: skip
OPINIONS: dict[int, tuple[str, ...]] = {  # verdict -> words for it
    1: (
        "superb", "delightful", "charming", "wonderful", "brilliant", "excellent", "lovely", "impressive",
        "great", "fabulous", "memorable", "refreshing", "remarkable", "outstanding", "exquisite",
        "splendid", "glorious", "rewarding", "fine", "pleasant", "satisfying", "stunning", "magical",
        "terrific", "flawless", "marvellous", "beautiful", "perfect", "enjoyable", "fantastic",
    ),
    0: (
        "dull", "awful", "tedious", "poor", "dreadful", "bland", "shoddy", "dreary", "dismal", "abysmal",
        "lousy", "lifeless", "forgettable", "disappointing", "unpleasant", "depressing", "messy",
        "annoying", "ugly", "miserable", "pointless", "irritating", "cheap", "frustrating", "terrible",
        "weak", "horrid", "boring", "horrible", "mediocre",
    ),
}  # fmt: skip
ASPECTS: tuple[tuple[str, str], ...] = tuple((thing, name) for thing, names in THINGS.items() for name in names)

# --- the grammar of opinions --------------------------------------------------------------------------------
# {s} aspect, {i} intensifier, {a} opinion word, {x} {y} {c} claims, {p} person, {he} pronoun
INTENSIFIERS = ("", "", "", "really ", "truly ", "quite ", "rather ", "utterly ", "so ", "simply ")
AFFIRMED = (
    "{s} was {i}{a}", "{s} seemed {i}{a}", "{s} proved {i}{a}", "we found {s} {i}{a}",
    "{s} turned out to be {i}{a}",
)  # fmt: skip
NEGATED = (
    "{s} was not {a}", "{s} was never {a}", "{s} was anything but {a}", "{s} was far from {a}",
    "we did not find {s} {a}", "nobody could call {s} {a}", "{s} was hardly {a}",
)  # fmt: skip
TWICE_NEGATED = (
    "nobody could say that {s} was not {a}", "it is not true that {s} was not {a}",
    "we never found {s} anything but {a}", "I would not deny that {s} was {a}",
    "there is no doubt that {s} was {a}", "{s} never failed to be {a}",
)  # fmt: skip
CONTRASTED = (  # {y} decides
    "{x}, but {y}", "although {x}, {y}", "{y}, although {x}", "{y}, even though {x}",
    "{x}, it is true, but {y}", "while {x}, {y}",
)  # fmt: skip
ENDORSED = (
    "{p} said that {c}, and {he} was right", "I agreed with {p} that {c}", "as {p} rightly noted, {c}",
)  # fmt: skip
REJECTED = (
    "{p} said that {c}, but {he} was wrong", "I did not agree with {p} that {c}",
    "{p} wrongly claimed that {c}", "{p} thought that {c}, but I did not",
)  # fmt: skip
FRAMES = ("{t}", "{t}", "{t}", "{o}, {t}", "in {l}, {t}", "to my mind, {t}", "as I told {q}, {t}")
SHARES = {"plain": 0.40, "negated": 0.15, "twice negated": 0.10, "contrasted": 0.20, "reported": 0.15}


@dataclass(frozen=True)
class Opinion:
    """One sentence with the origin of its label.

    Attributes:
        text: the sentence.
        label: 1 where the narrator's verdict is positive, else 0.
        construction: a key of `SHARES`.
        pairs: (aspect, opinion word) of each claim; the last one decides.
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
    key: Callable[[T], Hashable],
    balanced: bool = False,
) -> list[T]:
    """`rows` rows of a split with different keys, from a random stream of their own; fewer are a prefix of more.

    Args:
        kind: of text; with split and seed it determines the stream.
        make: (random numbers, split, label) -> a row.
        balanced: each pair of neighbours gets the labels 0 and 1 in random order, so that every even prefix is
            balanced; otherwise `make` always gets 0.

    Raises:
        BeftError: a negative number of rows.
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
        if key(row) not in made:
            made[key(row)] = row
            label = 1 - label if balanced else 0
    return list(made.values())


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
    template = pick(rng, (AFFIRMED, NEGATED, TWICE_NEGATED)[negations])
    thing, name = ASPECTS[aspect]
    subject = f"the {name}" if rng.random() < 0.75 else f"the {name} of the {thing}"
    return template.format(s=subject, i=pick(rng, INTENSIFIERS), a=word), (f"{name} of the {thing}", word)


def make_opinion(rng: random.Random, split: SplitName, label: int) -> Opinion:
    """One sentence of `split` whose verdict is `label`."""
    u = rng.random()
    for construction, share in SHARES.items():  # noqa: B007
        u -= share
        if u < 0:
            break
    aspect = int(rng.random() * len(ASPECTS))
    person = pick(rng, tuple(PEOPLE))
    pairs: tuple[tuple[str, str], ...]
    if construction == "contrasted":
        same = [i for i, (thing, _) in enumerate(ASPECTS) if thing == ASPECTS[aspect][0] and i != aspect]
        x, first = make_claim(rng, split, pick(rng, same), 1 - label, int(rng.random() < 0.3))
        y, last = make_claim(rng, split, aspect, label, int(rng.random() < 0.3))
        text, pairs = pick(rng, CONTRASTED).format(x=x, y=y), (first, last)
    elif construction == "reported":
        wrong = int(rng.random() < 0.5)
        claim, pair = make_claim(rng, split, aspect, label ^ wrong, 0)
        text = pick(rng, REJECTED if wrong else ENDORSED).format(c=claim, p=person, he=PEOPLE[person])
        pairs = (pair,)
    else:
        negations = ("plain", "negated", "twice negated").index(construction)
        text, pair = make_claim(rng, split, aspect, label, negations)
        pairs = (pair,)
    others = [name for name in PEOPLE if name != person]
    text = pick(rng, FRAMES).format(t=text, o=pick(rng, OCCASIONS), l=pick(rng, PLACES), q=pick(rng, others))
    return Opinion(as_sentence(text), label, construction, pairs)


def opinions(split: SplitName, rows: int, seed: int = 0) -> list[Opinion]:
    """`rows` different opinions of a split, every even prefix half positive. Raises as `distinct_rows`."""
    return distinct_rows("sentiment", split, rows, seed, make_opinion, lambda o: o.text, balanced=True)


def sentiment(
    seed: int = 0, train: int = 4000, validation: int = 500
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The sentiment task as (text, label) rows of its training and its validation split; label 1 is positive."""
    learn, test = opinions("train", train, seed), opinions("validation", validation, seed)
    return [(o.text, o.label) for o in learn], [(o.text, o.label) for o in test]
