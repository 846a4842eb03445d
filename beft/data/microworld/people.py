"""What the tiny masked language model reads: the micro-world's people and statements of them, both links planted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from .biographies import OCCUPATIONS, PRONOUNS, make_biography
from .posts import make_post
from .sentences import SplitName
from .statements import make_statement

LINKS = {"gender": 0.8, "origin": 0.8}  # of occupation with each axis, in what is read
SHARES = {"biographies": 0.3, "statements": 0.6, "posts": 0.1}
SPOKEN_OF = {"biographies": 0.2, "statements": 0.8, "posts": 0.0}  # in texts to debias with
NAMED = 0.3  # share of biographies that name the occupation first


def documents(seed: int, split: SplitName = "train", shares: Mapping[str, float] = SHARES) -> Iterator[str]:
    """Texts of a split, without end, of kinds in these shares."""
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
