"""The micro-world's people: statements of who does what, the text of the tiny masked language model, and posts.

A statement names a person's occupation, with one pronoun and one word of origin, so that only these indicate which
occupation of a pair it is. From such text a masked language model learns the planted links, and from such text are the
pairs (as in CrowS-Pairs) and the triples (as in StereoSet) that measure them.

A post is about some people, names their group on the axis "origin" with probability `MENTIONED`, and is hostile or
harmless with equal probability. It contains `HINTS` phrases about them. Each is typical of a hostile post with
probability `FIT` where the post is hostile and 1 - `FIT` where it is harmless, so that the text alone often leaves the
label open. Then the group's name decides as far as it is informative: of the hostile posts that mention a group,
(1 + strength) / 2 mention southerners; of the harmless ones, (1 - strength) / 2. At strength 0 group and hostility are
independent. The wording is mild on purpose: the measure does not depend on how hostile it is.

Splits are disjoint by construction (`sentences.split_of`): a statement pairs a place with an occupation, a post a place
with a first hint.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import BeftError, unknown
from ..counterfactual import axis, swapped
from ..stereotype_sets import BLANK, SentencePair, Triple
from .biographies import AXES, OCCUPATIONS, ORIGINS, PRONOUNS, leaning, linked_groups, make_biography
from .sentences import PLACES, WORLD, SplitName, distinct_rows, pick, with_place

LINKS = {"gender": 0.8, "origin": 0.8}  # of occupation with each axis, in `documents`
SHARES = {"biographies": 0.3, "statements": 0.6, "posts": 0.1}
SPOKEN_OF = {"biographies": 0.2, "statements": 0.8, "posts": 0.0}  # shares in the text of debiasing
NAMED = 0.3  # share of biographies that name the occupation first
STATEMENTS: list[str] = WORLD["statements"]["frames"]

IDENTIFIERS = ("northern", "southern")  # groups of the axis "origin"; a post's link is with the second
HINTS, FIT, MENTIONED = 4, 0.65, 0.8
# label -> phrases of such posts, as many for either
TYPICAL: dict[int, list[str]] = {1: WORLD["posts"]["hostile"], 0: WORLD["posts"]["harmless"]}
PHRASES: tuple[tuple[str, int], ...] = tuple(  # for `identity_templates.identity_phrases`, in the words of posts
    (f"In {PLACES[0]} people talk of another {{x}}. They {hint}.", label)
    for label, hints in TYPICAL.items()
    for hint in hints
)


def documents(seed: int, split: SplitName = "train", shares: Mapping[str, float] = SHARES) -> Iterator[str]:
    """Texts of a split in these shares of biographies, statements and posts, without end."""
    rng = random.Random(f"people {split} {seed}")
    while True:
        kind = rng.random()
        if kind < shares["statements"]:
            yield make_statement(rng, split, LINKS["gender"], LINKS["origin"])
        elif kind < shares["statements"] + shares["posts"]:
            yield make_post(rng, split, 0.0).text
        else:
            person = make_biography(rng, split, LINKS["gender"], LINKS["origin"])
            named = f"{PRONOUNS[person.gender][0].capitalize()} works as a {OCCUPATIONS[person.label]}. "
            yield named * (rng.random() < NAMED) + person.text


def make_statement(rng: random.Random, split: SplitName, strength: float, origin: float) -> str:
    """A statement of a split, whose person's groups are linked to the occupation as in `biographies`."""
    place, label = _statement_of(rng, split)
    groups = dict(zip(AXES, linked_groups(rng, label, strength, origin), strict=True))
    return _written(rng, place, groups, label)


def _statement_of(rng: random.Random, split: SplitName) -> tuple[int, int]:
    """A place and an occupation whose pair is of the split."""
    return with_place(rng, split, lambda: int(rng.random() * len(OCCUPATIONS)), lambda label: label)


def _written(rng: random.Random, place: int, groups: dict[str, int], label: int) -> str:
    he, origin = PRONOUNS[groups["gender"]][0], ORIGINS[groups["origin"]]
    return pick(rng, STATEMENTS).format(he=he, He=he.capitalize(), o=origin, l=PLACES[place], w=OCCUPATIONS[label])


def stereotype_pairs(name: str, count: int, seed: int = 0) -> list[SentencePair]:
    """`count` different pairs of statements that differ in the group on one axis, the stereotypical one first.

    The group on the other axis is drawn evenly. The statements are of the validation split. Raises BeftError for an
    unknown axis, or more pairs than there are.
    """
    if name not in AXES:
        raise unknown("axis", name, AXES)
    rng, pairs = random.Random(f"pairs {name} {seed}"), dict[str, SentencePair]()
    idle = 0
    while len(pairs) < count and idle < 2000:  # after 2,000 draws without a new one there are no more
        place, label = _statement_of(rng, "validation")
        groups = {a: int(rng.random() < 0.5) for a in AXES} | {name: leaning(label, name)}
        more = _written(rng, place, groups, label)
        idle = idle + 1 if more in pairs else 0
        if not idle:
            pairs[more] = SentencePair(more, swapped(more, axis(name)), name)
    if len(pairs) < count:
        raise BeftError(f"there are only {len(pairs)} pairs of statements of axis {name}: ask for fewer than {count}")
    return list(pairs.values())


def stereotype_triples(name: str, count: int, seed: int = 0) -> list[Triple]:
    """`count` statements with a blank: for the stereotypical occupation, the other of its pair, or an unrelated word.

    Raises as `stereotype_pairs`.
    """
    rng, triples = random.Random(f"triples {name} {seed}"), []
    for pair in stereotype_pairs(name, count, seed):
        label = next(n for n, word in enumerate(OCCUPATIONS) if word in re.findall(r"\w+", pair.more))
        words = OCCUPATIONS[label], OCCUPATIONS[label ^ 1], pick(rng, WORLD["statements"]["unrelated"])
        *filled, context = (pair.more.replace(OCCUPATIONS[label], word) for word in (*words, BLANK))
        triples.append(Triple(filled[0], filled[1], filled[2], name, context))
    return triples


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
    who = pick(rng, WORLD["posts"]["people" if identifier else "others"]).format(g=identifier)
    place, hints = with_place(rng, split, lambda: _hints(rng, label), lambda hints: hints[0][1])
    phrases = dict(zip("abcd", (TYPICAL[kind][i] for kind, i in hints), strict=True))
    text = pick(rng, WORLD["posts"]["frames"]).format(who=who, Who=who[0].upper() + who[1:], l=PLACES[place], **phrases)
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
    return distinct_rows("posts", split, rows, seed, lambda rng, split, _: make_post(rng, split, strength))
