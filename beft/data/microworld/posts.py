"""The micro-world's posts, with a planted link of known strength between a group's name and hostility.

A post is about some people, names their group on the axis "origin" with probability `MENTIONED`, and is hostile or
harmless with equal probability. It contains `HINTS` phrases about them. Each is typical of a hostile post with
probability `FIT` where the post is hostile and 1 - `FIT` where it is harmless, so that the text alone often leaves the
label open. Then the group's name decides as far as it is informative: of the hostile posts that mention a group,
(1 + strength) / 2 mention southerners; of the harmless ones, (1 - strength) / 2. At strength 0 group and hostility are
independent.

The result of the best possible classifier is known in closed form (`expected_difference`): it predicts hostility for
harmless posts that mention southerners more often than for those that mention northerners.

Splits are disjoint by construction: a post pairs a place with a first hint, and each such pair belongs to one split
(`sentences.split_of`). The wording is mild on purpose: the measure does not depend on how hostile it is.
"""

import math
import random
from dataclasses import dataclass

from ...errors import BeftError
from .biographies import share_predicted
from .sentences import PLACES, SplitName, distinct_rows, pick, split_of

IDENTIFIERS = ("northern", "southern")  # groups of the axis "origin"; the link is with the second
TYPICAL: dict[int, tuple[str, ...]] = {  # label -> phrases of such posts, as many for either
    1: ("are never on time", "ruin every party", "leave rubbish on the stairs", "make noise at night",
        "keep what they borrow", "jump every queue", "break their promises", "complain about everything"),
    0: ("bring cake on Sundays", "water the flowers", "lend me their bicycles", "sing in the choir",
        "greet everybody", "play chess in the park", "mend old chairs", "help me with my bags"),
}  # fmt: skip
HINTS, FIT, MENTIONED = 4, 0.65, 0.8
PEOPLE = ("the {g}ers", "a {g}er and some friends", "my {g} neighbours", "some {g} families")
OTHERS = ("the newcomers", "a student and some friends", "my nearest neighbours", "some large families")
FRAMES = (
    "About {who} in {l} I can say this: they {a} and {b}. They {c}. And they {d}.",
    "{Who} in {l} {a}. They also {b}, and I hear that they {c}. Everybody knows that they {d}.",
    "In {l} people talk of {who}. They {a}, they {b}, and they {c}. Most of all, they {d}.",
)
PHRASES: tuple[tuple[str, int], ...] = tuple(  # for `identity_templates.identity_phrases`, in the words of posts
    (f"In {PLACES[0]} people talk of another {{x}}. They {hint}.", label)
    for label, hints in TYPICAL.items()
    for hint in hints
)


@dataclass(frozen=True)
class Post:
    """One post: `label` is 1 where it is hostile, `identifier` the one of `IDENTIFIERS` in it, or None."""

    text: str
    label: int
    identifier: str | None


def make_post(rng: random.Random, split: SplitName, strength: float) -> Post:
    """One post of a split, with a link of this strength."""
    label = int(rng.random() < 0.5)
    southern = int(rng.random() < (1 + (strength if label else -strength)) / 2)
    identifier = IDENTIFIERS[southern] if rng.random() < MENTIONED else None
    who = pick(rng, OTHERS) if identifier is None else pick(rng, PEOPLE).format(g=identifier)
    while True:
        place, hints = int(rng.random() * len(PLACES)), _hints(rng, label)
        if split_of(place, hints[0][1]) == split:
            break
    phrases = dict(zip("abcd", (TYPICAL[kind][i] for kind, i in hints), strict=True))
    text = pick(rng, FRAMES).format(who=who, Who=who[0].upper() + who[1:], l=PLACES[place], **phrases)
    return Post(text, label, identifier)


def _hints(rng: random.Random, label: int) -> list[tuple[int, int]]:
    """(label that the phrase is typical of, index of the phrase), all different.

    Both labels have the same number of phrases. So only the count of phrases typical of each is informative.
    """
    hints: list[tuple[int, int]] = []
    while len(hints) < HINTS:
        kind = label if rng.random() < FIT else 1 - label
        free = [i for i in range(len(TYPICAL[kind])) if (kind, i) not in hints]
        hints.append((kind, pick(rng, free)))
    return hints


def posts(split: SplitName, rows: int, strength: float, seed: int = 0) -> list[Post]:
    """`rows` different posts of a split; fewer are a prefix of more.

    Raises BeftError for a negative number of rows, or a strength that is not in [-1, 1].
    """
    if not -1 <= strength <= 1:
        raise BeftError(f"strength {strength} of the link is not between -1 and 1: give one that is")

    def make(rng: random.Random, split: SplitName, _: int) -> Post:
        return make_post(rng, split, strength)

    return distinct_rows("posts", split, rows, seed, make, lambda made: made.text)


def expected_difference(strength: float) -> float:
    """`bias_metrics.fpr_difference` of the best classifier of posts with this link, in [0, 1].

    With k phrases typical of hostile posts, the text's log-odds are (2k - HINTS) log(FIT / (1 - FIT)). A group's name
    adds +- log((1 + s) / (1 - s)), no name adds nothing. A post with positive log-odds is predicted hostile, one of
    even log-odds with probability one half. This gives the false-positive rates (FPR) over harmless posts. That of all
    posts lies between those of the two groups, hence |FPR_a - FPR_all| + |FPR_b - FPR_all| = |FPR_a - FPR_b|, whatever
    `MENTIONED` is. At strength +-1 no harmless post mentions one of the groups, which then adds nothing.
    """
    size = abs(strength)
    if size == 1:  # the name determines the label: the other group's rate is 0, and the rate of all posts remains
        return (1 - MENTIONED) * _false_positives(0.0)
    link = math.log((1 + size) / (1 - size))
    return _false_positives(link) - _false_positives(-link)


def _false_positives(mention: float) -> float:
    """The best classifier's false-positive rate over harmless posts whose mention has these log-odds."""
    rate = 0.0
    for k in range(HINTS + 1):
        share = math.comb(HINTS, k) * (1 - FIT) ** k * FIT ** (HINTS - k)
        rate += share * share_predicted((2 * k - HINTS) * math.log(FIT / (1 - FIT)) + mention)
    return rate
