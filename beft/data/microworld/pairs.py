"""Three more tasks of the micro-world (`microworld`): entailment, acceptability, similarity. All follow stated rules.

    entailment      premise: an opinion sentence; hypothesis: what its narrator thinks of a part ("The narrator liked
                    the ending"). It follows from the premise or it does not: the other verdict, or another part.
    acceptability   an opinion sentence as it is, or with one word moved, doubled, dropped or in a wrong form.
    similarity      two claims; the score is 1 for the same thing, 1 for the same part, 2 for the same verdict (negation
                    and all) and 1 for the same opinion word: 0 to 5.

As in the sentiment task the splits are disjoint by construction: each claim of a sentence pairs a part with an opinion
word, and every such pair belongs to one split (`microworld.split_of`). Streams are deterministic and prefixes of longer
ones, classes alternate, and no text occurs twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import TypeVar

from ...errors import BeftError
from .sentences import PARTS, WORDS, SplitName, make_claim, make_opinion, pick

Text = TypeVar("Text", bound=Hashable)
Row = tuple[Text, int | float]
Rows = tuple[list[Row[Text]], list[Row[Text]]]  # the training and the validation split
Make = Callable[[random.Random, SplitName, int], Row[Text]]

ELSEWHERE = 0.6  # share of the pairs that do not follow whose hypothesis is about another part
LIKED = ("the narrator liked {s}", "{s} pleased the narrator", "the narrator had nothing against {s}")
DISLIKED = ("the narrator disliked {s}", "{s} let the narrator down", "the narrator did not care for {s}")
# Words that leave no sentence behind if they are turned into their neighbour, or taken out.
SPOILED = {
    "was": "were", "is": "are", "seemed": "seeming", "proved": "proving", "turned": "turning", "found": "finding",
}  # fmt: skip
MOVABLE = (
    "the",
    "of",
    "that",
    "to",
)  # words that can neither change places with the next one nor stand twice


def _rows(kind: str, split: SplitName, rows: int, seed: int, make: Make[Text]) -> list[Row[Text]]:
    """`rows` different ones; `make` is given 0 and 1 in random order, so that every even prefix is balanced."""
    if rows < 0:
        raise BeftError(f"cannot generate {rows} rows: give a number from 0 on")
    rng = random.Random(f"{kind} {split} {seed}")
    made: dict[Text, int | float] = {}
    which = 0
    while len(made) < rows:
        if len(made) % 2 == 0:
            which = int(rng.random() < 0.5)
        text, label = make(rng, split, which)
        if text not in made:
            made[text] = label
            which = 1 - which
    return list(made.items())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _entailment(rng: random.Random, split: SplitName, label: int) -> Row[tuple[str, str]]:
    """(premise, hypothesis); 0: it follows, 1: it does not."""
    verdict = int(rng.random() < 0.5)
    premise = make_opinion(rng, split, verdict)
    mentioned = [part for part, _ in premise.pairs]
    named = {f"{name} of the {thing}": name for thing, name in PARTS}
    name = named[mentioned[-1]]  # the last claim is the one that the verdict is about
    # a contrast has a claim of its own about another part, with the other verdict
    if premise.construction == "contrasted" and rng.random() < 0.5:
        name, verdict = named[mentioned[0]], 1 - verdict
    if label and rng.random() < ELSEWHERE:
        name = pick(rng, [n for t, n in PARTS if f"{n} of the {t}" not in mentioned])
        verdict = int(rng.random() < 0.5)
    elif label:
        verdict = 1 - verdict
    hypothesis = pick(rng, LIKED if verdict else DISLIKED).format(s=f"the {name}")
    return (premise.text, _sentence(hypothesis)), label


def _acceptability(rng: random.Random, split: SplitName, label: int) -> Row[str]:
    """A sentence; 1: acceptable, 0: spoiled in one place behind the first word."""
    text = make_opinion(rng, split, int(rng.random() < 0.5)).text
    if label:
        return text, 1
    words = text.split()
    places = {
        "move": [i for i, word in enumerate(words[:-1]) if word in MOVABLE],
        "double": [i for i, word in enumerate(words) if word in MOVABLE],
        "number": [i for i, word in enumerate(words) if word in SPOILED],
        "drop": [i for i, word in enumerate(words) if word in SPOILED],
    }
    kind = pick(rng, [name for name, found in places.items() if found])
    place = pick(rng, places[kind])
    if kind == "number":
        words[place] = SPOILED[words[place]]
    elif kind == "move":
        words[place], words[place + 1] = words[place + 1].rstrip(",."), words[place]
    elif kind == "double":
        words.insert(place, words[place])
    else:
        del words[place]
    return " ".join(words), 0


def _similarity(rng: random.Random, split: SplitName, label: int) -> Row[tuple[str, str]]:
    """Two claims and their score; `label` 1 has them about one thing, 0 about any two."""
    first = pick(rng, range(len(PARTS)))
    same_thing = [i for i, (thing, _) in enumerate(PARTS) if thing == PARTS[first][0]]
    second = first if label and rng.random() < 0.5 else pick(rng, same_thing if label else range(len(PARTS)))
    negations = [pick(rng, (0, 0, 1, 2)) for _ in range(2)]
    verdicts = [int(rng.random() < 0.5) for _ in range(2)]
    text_a, pair_a = make_claim(rng, split, first, verdicts[0], negations[0])
    polarity, word = verdicts[0] ^ (negations[0] % 2), None
    if rng.random() < 0.5 and pair_a[1] in WORDS[split, second, polarity]:
        word, verdicts[1] = pair_a[1], polarity ^ (negations[1] % 2)
    text_b, pair_b = make_claim(rng, split, second, verdicts[1], negations[1], word)
    score = (PARTS[first][0] == PARTS[second][0]) + (first == second)
    score += 2 * (verdicts[0] == verdicts[1]) + (pair_a[1] == pair_b[1])
    return (_sentence(text_a), _sentence(text_b)), float(score)


def entailment(seed: int = 0, train: int = 4000, validation: int = 500) -> Rows[tuple[str, str]]:
    """The entailment task as ((premise, hypothesis), label) rows of both splits; label 0 is entailment."""
    return _splits("entailment", _entailment, seed, train, validation)


def acceptability(seed: int = 0, train: int = 4000, validation: int = 500) -> Rows[str]:
    """The acceptability task as (text, label) rows of both splits; label 1 is acceptable."""
    return _splits("acceptability", _acceptability, seed, train, validation)


def similarity(seed: int = 0, train: int = 4000, validation: int = 500) -> Rows[tuple[str, str]]:
    """The similarity task as ((text_a, text_b), score) rows of both splits; scores are 0.0 to 5.0."""
    return _splits("similarity", _similarity, seed, train, validation)


def _splits(kind: str, make: Make[Text], seed: int, train: int, validation: int) -> Rows[Text]:
    return _rows(kind, "train", train, seed, make), _rows(kind, "validation", validation, seed, make)
