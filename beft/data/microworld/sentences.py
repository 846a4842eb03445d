"""A generated micro-world: text for which the label follows from a stated grammar, with no download.

The world is a few lists (`PEOPLE`, `PLACES`, `THINGS` with their parts, `OCCASIONS`, `OPINIONS`) that every kind of
generated text shares. Its sentiment task asks for the **narrator's verdict**, by one compositional rule:

    claim     "the plot was dull"                        the verdict of its opinion word
    negation  "the plot was never dull"                  turns the verdict round; two of them cancel out
    contrast  "although <claim>, <claim>", "<claim>, but <claim>"   the main clause, or the one after "but", decides
    report    "Nora said that <claim>, but she was wrong"           kept or turned round by the narrator's stance

Intensifiers, places, people and occasions vary the surface and decide nothing.

**Splits are disjoint by construction.** A claim pairs a part with an opinion word. The pair (i, j), by position in
`PARTS` and in the opinion list, belongs to the validation split if (i + j) is a multiple of `FOLDS`, else to the
training split; a sentence draws all its pairs from its own split. So every validation sentence holds only pairs
that no training sentence has, whatever the seeds. Every word is seen in training, its combinations are not.

**Deterministic.** Only `random.Random.random()` is drawn from, whose stream Python guarantees for a given seed;
the splits have streams of their own, so that the size of one changes nothing in the other and a smaller size is a
prefix of a larger.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ...errors import BeftError

T = TypeVar("T")
SplitName = Literal["train", "validation"]
FOLDS = 5

# --- the world: shared by everything generated from it ------------------------------------------------------
PEOPLE: dict[str, str] = {  # name -> pronoun
    "Nora": "she", "Alice": "she", "Ruth": "she", "Maria": "she", "Helen": "she", "Clara": "she", "Anna": "she",
    "Omar": "he", "David": "he", "Peter": "he", "Hugo": "he", "Martin": "he", "Victor": "he", "Simon": "he",
}  # fmt: skip
PLACES = (
    "Leeds", "Lisbon", "Oslo", "Bristol", "Vienna", "Porto", "Dublin", "Turin", "the suburbs",
    "the old town", "the village",
)  # fmt: skip
THINGS: dict[str, tuple[str, ...]] = {  # thing -> its parts
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
PARTS: tuple[tuple[str, str], ...] = tuple((thing, part) for thing, parts in THINGS.items() for part in parts)

# --- the grammar of opinions: {s} part, {i} intensifier, {a} opinion word, {x} {y} {c} claims, {p} person, {he} pronoun
INTENSIFIERS = ("", "", "", "really ", "truly ", "quite ", "rather ", "utterly ", "so ", "simply ")
PLAIN = (
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
    """One sentence with what its label follows from.

    text: the sentence. label: 1 where the narrator's verdict is positive, else 0. construction: a key of `SHARES`.
    pairs: (part, opinion word) of each claim; the last one decides.
    """

    text: str
    label: int
    construction: str
    pairs: tuple[tuple[str, str], ...]


def pick(rng: random.Random, options: Sequence[T]) -> T:
    # not rng.choice: only the stream of random() is guaranteed from one Python to the next
    return options[int(rng.random() * len(options))]


def split_of(part: int, word: int) -> SplitName:
    """The split that owns the pair of `PARTS[part]` and the opinion word at position `word` of its list."""
    return "train" if (part + word) % FOLDS else "validation"


WORDS: dict[
    tuple[SplitName, int, int], tuple[str, ...]
] = {  # (split, part, verdict) -> words it may be paired with
    (split, i, verdict): tuple(w for j, w in enumerate(words) if split_of(i, j) == split)
    for split in ("train", "validation")
    for i in range(len(PARTS))
    for verdict, words in OPINIONS.items()
}


def make_claim(
    rng: random.Random, split: SplitName, part: int, verdict: int, negations: int, word: str | None = None
) -> tuple[str, tuple[str, str]]:
    """A claim about a part that comes to `verdict` after 0, 1 or 2 negations, and its (part, word) pair."""
    word = word or pick(rng, WORDS[split, part, verdict ^ (negations % 2)])
    template = pick(rng, (PLAIN, NEGATED, TWICE_NEGATED)[negations])
    thing, name = PARTS[part]
    subject = f"the {name}" if rng.random() < 0.75 else f"the {name} of the {thing}"
    return template.format(s=subject, i=pick(rng, INTENSIFIERS), a=word), (f"{name} of the {thing}", word)


def make_opinion(rng: random.Random, split: SplitName, label: int) -> Opinion:
    """One sentence of `split` whose verdict is `label`."""
    u = rng.random()
    for construction, share in SHARES.items():  # noqa: B007
        u -= share
        if u < 0:
            break
    part = int(rng.random() * len(PARTS))
    person = pick(rng, tuple(PEOPLE))
    pairs: tuple[tuple[str, str], ...]
    if construction == "contrasted":
        same = [i for i, (thing, _) in enumerate(PARTS) if thing == PARTS[part][0] and i != part]
        x, first = make_claim(rng, split, pick(rng, same), 1 - label, int(rng.random() < 0.3))
        y, last = make_claim(rng, split, part, label, int(rng.random() < 0.3))
        text, pairs = pick(rng, CONTRASTED).format(x=x, y=y), (first, last)
    elif construction == "reported":
        wrong = int(rng.random() < 0.5)
        claim, pair = make_claim(rng, split, part, label ^ wrong, 0)
        text = pick(rng, REJECTED if wrong else ENDORSED).format(c=claim, p=person, he=PEOPLE[person])
        pairs = (pair,)
    else:
        text, pair = make_claim(
            rng, split, part, label, ("plain", "negated", "twice negated").index(construction)
        )
        pairs = (pair,)
    others = [name for name in PEOPLE if name != person]
    text = pick(rng, FRAMES).format(t=text, o=pick(rng, OCCASIONS), l=pick(rng, PLACES), q=pick(rng, others))
    return Opinion(text[0].upper() + text[1:] + ".", label, construction, pairs)


def opinions(split: SplitName, rows: int, seed: int = 0) -> list[Opinion]:
    """`rows` different opinions of a split, half of them positive (an odd last one is of either kind).

    Each pair of neighbours holds one of each label in random order, so that every even prefix is balanced.
    """
    if rows < 0:
        raise BeftError(f"cannot generate {rows} rows: give a number from 0 on")
    rng = random.Random(f"sentiment {split} {seed}")
    made: dict[str, Opinion] = {}
    label = 0
    while len(made) < rows:
        if len(made) % 2 == 0:
            label = int(rng.random() < 0.5)
        opinion = make_opinion(rng, split, label)
        if opinion.text not in made:
            made[opinion.text] = opinion
            label = 1 - label
    return list(made.values())


def sentiment(
    seed: int = 0, train: int = 4000, validation: int = 500
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The sentiment task as (text, label) rows of its training and its validation split; label 1 is positive."""
    learn, test = opinions("train", train, seed), opinions("validation", validation, seed)
    return [(o.text, o.label) for o in learn], [(o.text, o.label) for o in test]
