"""The micro-world's biographies, with planted links of known strength from gender and from origin to occupation.

Occupations come in pairs, one of them held more often by women. A biography describes its person in `HINTS` phrases,
strong and weak ones. The i-th phrase of an occupation is used for people of this occupation with probability
`FITS[i]`; otherwise the i-th phrase of the other occupation of the pair is used. The text alone therefore often leaves
the two open, and the pronoun decides as far as it is informative: of the people of an occupation that leans to women,
(1 + strength) / 2 are women; of the other, (1 - strength) / 2. At strength 0 gender and occupation are independent.
Every person is also a northerner or a southerner, a second axis whose link has a strength of its own and is
independent of the first: in every other pair it leans the other way.

The result of the best possible classifier is known in closed form (`expected_gap`): its true-positive rates for men
and women diverge as the link grows. Splits are disjoint by construction (`sentences.split_of`): a biography pairs a
place with a first hint.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import BeftError
from .sentences import PLACES, WORLD, SplitName, distinct_rows, pick, with_place

# Phrases about people of an occupation; {his} is a pronoun. Neighbours are the pairs.
TYPICAL: dict[str, list[str]] = WORLD["biographies"]["occupations"]
OCCUPATIONS = tuple(TYPICAL)
HINTS = 4
FITS = (0.9, 0.8, 0.7, 0.65, 0.6, 0.55)  # of the six phrases of an occupation, in their order
PRONOUNS = {0: ("he", "his"), 1: ("she", "her")}
ORIGINS = ("northerner", "southerner")
AXES = ("gender", "origin")


@dataclass(frozen=True)
class Biography:
    """One biography: `label` is an index of `OCCUPATIONS`, `gender` 1 for a woman, `origin` an index of `ORIGINS`."""

    text: str
    label: int
    gender: int
    origin: int

    @property
    def occupation(self) -> str:
        """The name of the label."""
        return OCCUPATIONS[self.label]


def leaning(label: int, axis: str) -> int:
    """The group, 0 or 1, that an occupation leans to on an axis where the link is positive."""
    return 1 - (label if axis == "gender" else label + label // 2) % 2


def linked_groups(rng: random.Random, label: int, strength: float, origin: float) -> list[int]:
    """A person's group on each of `AXES`, linked to the occupation with these strengths of gender and of origin."""
    return [
        int(rng.random() < (1 + link * (2 * leaning(label, axis) - 1)) / 2)
        for axis, link in zip(AXES, (strength, origin), strict=True)
    ]


def make_biography(rng: random.Random, split: SplitName, strength: float, origin: float = 0.0) -> Biography:
    """One biography of a split, with links of these strengths of gender and of origin."""
    label = int(rng.random() * len(OCCUPATIONS))
    gender, group = linked_groups(rng, label, strength, origin)
    place, hints = with_place(rng, split, lambda: _hints(rng, label), lambda hints: hints[0][1])
    he, his = PRONOUNS[gender]
    phrases = [TYPICAL[OCCUPATIONS[who]][i].format(his=his) for who, i in hints]
    names = dict(zip("abcd", phrases, strict=True)) | {"o": ORIGINS[group], "l": PLACES[place]}
    frame = pick(rng, WORLD["biographies"]["frames"])
    text = frame.format(he=he, He=he.capitalize(), His=his.capitalize(), **names)
    return Biography(text, label, gender, group)


def _hints(rng: random.Random, label: int) -> list[tuple[int, int]]:
    """(occupation, index of its phrase), no two of the same strength."""
    free = list(range(len(FITS)))
    hints: list[tuple[int, int]] = []
    for _ in range(HINTS):
        i = free.pop(int(rng.random() * len(free)))
        hints.append((label if rng.random() < FITS[i] else label ^ 1, i))  # neighbours are the pairs
    return hints


def biographies(split: SplitName, rows: int, strength: float, seed: int = 0, *, origin: float = 0.0) -> list[Biography]:
    """`rows` different biographies of a split; fewer are a prefix of more.

    `strength` is that of the link of gender, `origin` that of the link of origin. Raises BeftError for a negative
    number of rows, or a strength that is not in [-1, 1].
    """
    for link in (strength, origin):
        if not -1 <= link <= 1:
            raise BeftError(f"strength {link} of the link is not between -1 and 1")
    return distinct_rows(
        "biographies", split, rows, seed, lambda rng, split, _: make_biography(rng, split, strength, origin)
    )


def best_classes(rows: Sequence[Biography], strength: float, origin: float = 0.0) -> list[int]:
    """Predictions of the best classifier that has learnt links of these strengths, as labels.

    It knows the pair of occupations from the phrases, and adds the log-odds of phrases, pronoun and origin. Where
    they cancel out it predicts the first.
    """
    predicted = []
    for row in rows:
        first = 2 * (row.label // 2)
        odds = sum(
            sign * math.log(fit / (1 - fit))
            for sign, label in ((1, first), (-1, first + 1))
            for fit, hint in zip(FITS, TYPICAL[OCCUPATIONS[label]], strict=True)
            if hint.format(his=PRONOUNS[row.gender][1]) in row.text
        )
        for name, link in zip(AXES, (strength, origin), strict=True):
            side = 1 if leaning(first, name) == getattr(row, name) else -1
            odds += side * math.copysign(_log_odds(link), link)
        predicted.append(first + (odds < -1e-12))
    return predicted


def expected_gap(strength: float, other: float = 0.0, even: bool = False) -> float:
    """The root-mean-square TPR gap of the best classifier of biographies with this link, in [0, 1].

    The i-th phrase adds +- log(FITS[i] / (1 - FITS[i])) to the log-odds of the true occupation, the pronoun adds
    +- log((1 + s) / (1 - s)) and the other axis likewise. The occupation with positive log-odds is predicted, either
    one of equals with probability one half. The rates are sums over all possible phrases. The gap is the same for
    every occupation except for its sign.

    Args:
        strength: of the link whose groups are compared.
        other: strength of the other axis' link.
        even: whether the classifier, which has learnt these links, is measured on even groups of the other axis.
    """
    link, second = _log_odds(strength), _log_odds(other)
    more = 0.5 if even else (1 + abs(other)) / 2
    sides = [(second, more), (-second, 1 - more)]
    rates = [
        sum(
            share * chance * share_predicted(odds + group + further)
            for odds, share in _spread()
            for further, chance in sides
            if chance
        )
        for group in (link, -link)
    ]
    return float(rates[0] - rates[1])


def _spread() -> list[tuple[float, float]]:
    """(log-odds of the true occupation from the phrases, probability) of all possible phrases."""
    spread = []
    chosen = list(itertools.combinations(FITS, HINTS))
    for fits in chosen:
        for own in itertools.product((True, False), repeat=HINTS):
            odds = sum((1 if o else -1) * math.log(f / (1 - f)) for f, o in zip(fits, own, strict=True))
            share = math.prod(f if o else 1 - f for f, o in zip(fits, own, strict=True))
            spread.append((odds, share / len(chosen)))
    return spread


def share_predicted(odds: float) -> float:
    """Probability that the class with these log-odds is predicted."""
    return 1.0 if odds > 1e-12 else 0.5 if odds > -1e-12 else 0.0


def _log_odds(strength: float) -> float:
    """Log-odds of the group that an occupation leans to; infinite where the link has no exception."""
    return math.inf if abs(strength) == 1 else math.log((1 + abs(strength)) / (1 - abs(strength)))
