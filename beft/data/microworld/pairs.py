"""Three more tasks of the micro-world: entailment, acceptability and similarity, all by stated rules.

    entailment      premise: an opinion sentence; hypothesis: the narrator's view of an aspect ("The narrator liked the
                    ending"). It follows from the premise or it does not: the other verdict, or another aspect.
    acceptability   an opinion sentence as it is, or with one word moved, doubled, dropped or in a wrong form.
    similarity      two claims; the score is 1 for the same thing, 1 for the same aspect, 2 for the same verdict after
                    negation and 1 for the same opinion word: 0 to 5.

As in the sentiment task the splits are disjoint by construction: each claim of a sentence pairs an aspect with an
opinion word, and every such pair belongs to one split (`sentences.split_of`). Streams are deterministic and prefixes of
longer ones, classes alternate, and no text occurs twice.
"""

import random
from collections.abc import Callable, Hashable
from operator import itemgetter
from typing import TypeVar

from .sentences import ASPECTS, WORDS, SplitName, as_sentence, distinct_rows, make_claim, make_opinion, pick

Text = TypeVar("Text", bound=Hashable)
Row = tuple[Text, int | float]
Rows = tuple[list[Row[Text]], list[Row[Text]]]  # the training and the validation split
Make = Callable[[random.Random, SplitName, int], Row[Text]]

ELSEWHERE = 0.6  # share of the pairs that do not follow whose hypothesis is about another aspect
LIKED = ("the narrator liked {s}", "{s} pleased the narrator", "the narrator had nothing against {s}")
DISLIKED = ("the narrator disliked {s}", "{s} let the narrator down", "the narrator did not care for {s}")
# Replacing one of these words by its neighbour here, or dropping it, makes a sentence unacceptable.
SPOILED = {
    "was": "were", "is": "are", "seemed": "seeming", "proved": "proving", "turned": "turning", "found": "finding",
}  # fmt: skip
MOVABLE = ("the", "of", "that", "to")  # cannot swap with the next word nor stand twice


def _entailment(rng: random.Random, split: SplitName, label: int) -> Row[tuple[str, str]]:
    """(premise, hypothesis); 0: it follows, 1: it does not."""
    verdict = int(rng.random() < 0.5)
    premise = make_opinion(rng, split, verdict)
    mentioned = [aspect for aspect, _ in premise.pairs]
    named = {f"{name} of the {thing}": name for thing, name in ASPECTS}
    name = named[mentioned[-1]]  # the last claim carries the verdict
    # the first claim of a contrast is about another aspect, with the other verdict
    if premise.construction == "contrasted" and rng.random() < 0.5:
        name, verdict = named[mentioned[0]], 1 - verdict
    if label and rng.random() < ELSEWHERE:
        name = pick(rng, [n for t, n in ASPECTS if f"{n} of the {t}" not in mentioned])
        verdict = int(rng.random() < 0.5)
    elif label:
        verdict = 1 - verdict
    hypothesis = pick(rng, LIKED if verdict else DISLIKED).format(s=f"the {name}")
    return (premise.text, as_sentence(hypothesis)), label


def _acceptability(rng: random.Random, split: SplitName, label: int) -> Row[str]:
    """A sentence; 1: acceptable, 0: made unacceptable in one place behind the first word."""
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
    kind = pick(rng, [name for name, indices in places.items() if indices])
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
    """Two claims and their score; with `label` 1 about the same thing, with 0 about any."""
    first = pick(rng, range(len(ASPECTS)))
    same_thing = [i for i, (thing, _) in enumerate(ASPECTS) if thing == ASPECTS[first][0]]
    second = first if label and rng.random() < 0.5 else pick(rng, same_thing if label else range(len(ASPECTS)))
    negations = [pick(rng, (0, 0, 1, 2)) for _ in range(2)]
    verdicts = [int(rng.random() < 0.5) for _ in range(2)]
    text_a, pair_a = make_claim(rng, split, first, verdicts[0], negations[0])
    polarity, word = verdicts[0] ^ (negations[0] % 2), None
    if rng.random() < 0.5 and pair_a[1] in WORDS[split, second, polarity]:
        word, verdicts[1] = pair_a[1], polarity ^ (negations[1] % 2)
    text_b, pair_b = make_claim(rng, split, second, verdicts[1], negations[1], word)
    score = (ASPECTS[first][0] == ASPECTS[second][0]) + (first == second)
    score += 2 * (verdicts[0] == verdicts[1]) + (pair_a[1] == pair_b[1])
    return (as_sentence(text_a), as_sentence(text_b)), float(score)


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
    def rows(split: SplitName, count: int) -> list[Row[Text]]:
        return distinct_rows(kind, split, count, seed, make, itemgetter(0), balanced=True)

    return rows("train", train), rows("validation", validation)
