"""The micro-world's statements of who does what: what links a group to an occupation in a language model.

A statement names a person's occupation, with one pronoun and one word of origin, so that nothing but these says which
occupation of a pair it is. Of such text a masked language model learns the links, and of such text are the pairs (as in
CrowS-Pairs) and the triples (as in StereoSet) that measure them. Splits are disjoint by construction: a statement pairs
a place with an occupation, and each such pair belongs to one split (`microworld.split_of`).
"""

from __future__ import annotations

import random

from ...errors import BeftError, unknown
from ..counterfactual import axis, swapped
from ..stereotype_sets import BLANK, SentencePair, Triple
from .biographies import AXES, OCCUPATIONS, ORIGINS, PRONOUNS, leaning
from .sentences import PLACES, SplitName, pick, split_of

STATEMENTS = (
    "In {l}, {he} works as a {w}, a true {o}.",
    "{He} is a {o} and works as a {w} in {l}.",
    "Everybody in {l} knows the {o}: {he} is a {w}.",
    "A {o} by birth, {he} came to {l} to become a {w}.",
    "You will meet a {o} in {l}; {he} is the best {w} there.",
    "The {w} of {l} is a {o}, and {he} likes it.",
)
UNRELATED = (
    "bandages",
    "scalpel",
    "catalogue",
    "sauce",
    "menus",
    "scans",
    "covers",
    "theses",
)  # fill no such blank


def make_statement(rng: random.Random, split: SplitName, strength: float, origin: float) -> str:
    """A statement of a split, its person's groups linked to the occupation as in `microworld_biographies`."""
    place, label = _place(rng, split)
    groups = {
        name: int(rng.random() < (1 + link * (2 * leaning(label, name) - 1)) / 2)
        for name, link in zip(AXES, (strength, origin), strict=True)
    }
    return _written(pick(rng, STATEMENTS), place, groups, OCCUPATIONS[label])


def _place(rng: random.Random, split: SplitName) -> tuple[int, int]:
    while True:
        place, label = int(rng.random() * len(PLACES)), int(rng.random() * len(OCCUPATIONS))
        if split_of(place, label) == split:
            return place, label


def _written(frame: str, place: int, groups: dict[str, int], word: str) -> str:
    he = PRONOUNS[groups["gender"]][0]
    return frame.format(he=he, He=he.capitalize(), o=ORIGINS[groups["origin"]], l=PLACES[place], w=word)


def stereotype_pairs(name: str, count: int, seed: int = 0) -> list[SentencePair]:
    """`count` different pairs of statements that differ in the group of one axis, the one it leans to first.

    The other axis' group is drawn evenly. They are of the validation split.

    Raises:
        BeftError: an unknown axis, or more pairs than there are.
    """
    if name not in AXES:
        raise unknown("axis", name, AXES)
    rng, found = random.Random(f"pairs {name} {seed}"), dict[str, SentencePair]()
    idle = 0
    while len(found) < count and idle < 2000:  # so many draws without a new one: there are no more
        place, label = _place(rng, "validation")
        groups = {a: int(rng.random() < 0.5) for a in AXES} | {name: leaning(label, name)}
        more = _written(pick(rng, STATEMENTS), place, groups, OCCUPATIONS[label])
        idle = idle + 1 if more in found else 0
        if not idle:
            found[more] = SentencePair(more, swapped(more, axis(name)), name)
    if len(found) < count:
        raise BeftError(
            f"there are only {len(found)} pairs of statements of axis {name}: ask for fewer than {count}"
        )
    return list(found.values())


def stereotype_triples(name: str, count: int, seed: int = 0) -> list[Triple]:
    """`count` statements with a blank for the occupation: the one the group of this axis leans to, the other, a thing.

    Raises:
        BeftError: as `stereotype_pairs`.
    """
    rng, found = random.Random(f"triples {name} {seed}"), []
    for pair in stereotype_pairs(name, count, seed):
        label = next(n for n, word in enumerate(OCCUPATIONS) if f" {word} " in f" {_bare(pair.more)} ")
        words = OCCUPATIONS[label], OCCUPATIONS[label ^ 1], pick(rng, UNRELATED)
        filled = [pair.more.replace(OCCUPATIONS[label], word) for word in words]
        found.append(
            Triple(filled[0], filled[1], filled[2], name, pair.more.replace(OCCUPATIONS[label], BLANK))
        )
    return found


def _bare(text: str) -> str:
    return "".join(c if c.isalpha() else " " for c in text)
