"""Running text of the micro-world, to pre-train a small language model on: the world is in it, the tasks are not.

Documents say what the tasks ask for in other words than the tasks do: opinions with the narrator's verdict, causes with
their effects, stories with a question answered in passing, conclusions that follow and that do not. Only claims, pairs
and facts of the training split occur. Deterministic from a seed; a smaller number of documents is a prefix of a larger.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from .microworld import OPINIONS, PEOPLE, make_opinion, pick
from .microworld_pairs import DISLIKED, LIKED
from .microworld_stories import CAUSES, facts

VERDICTS = {
    1: (
        "I loved it.",
        "What a joy.",
        "I would go back at once.",
        "It was {w}.",
        "All in all, {w}.",
        "So {w}!",
    ),
    0: ("I hated it.", "What a waste.", "Never again.", "It was {w}.", "All in all, {w}.", "So {w}!"),
}
LINKED = (
    "Since {c}, {e}.",
    "{E}, for {c}.",
    "{C}. That is why {e}.",
    "{C}, and in the end {e}.",
    "Why? {E}, so they say, because {c}.",
)
ANSWERED = ("{q} {a}.", "Tell me: {q} {a}, of course.", "{q} I think {a}.", "{q} It is {a}.")
TALK = ("Is that so? Yes.", "Is that so? No.", "Yes or no? Yes.", "Yes or no? No.", "Maybe. Maybe not.")


def documents(seed: int = 0) -> Iterator[str]:
    """Documents of one to four sentences, without end."""
    rng = random.Random(f"corpus {seed}")
    makers = (_opinion, _cause, _story, _story, _conclusion)
    while True:
        text = pick(rng, makers)(rng)
        yield f"{text} {pick(rng, TALK)}" if rng.random() < 0.1 else text


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _opinion(rng: random.Random) -> str:
    label = int(rng.random() < 0.5)
    opinion = make_opinion(rng, "train", label)
    verdict = pick(rng, VERDICTS[label]).format(w=pick(rng, OPINIONS[label]))
    return f"{opinion.text} {verdict}"


def _cause(rng: random.Random) -> str:
    person = pick(rng, tuple(PEOPLE))
    cause, effect = (
        clause.format(p=person, he=PEOPLE[person]) for clause in CAUSES[int(rng.random() * len(CAUSES))]
    )
    return pick(rng, LINKED).format(c=cause, e=effect, C=_capital(cause), E=_capital(effect))


def _story(rng: random.Random) -> str:
    while True:
        told, asked = facts(rng, "train")
        if asked:
            answered = [
                pick(rng, ANSWERED).format(q=q, a=a) for q, a in sorted(asked, key=lambda _: rng.random())[:3]
            ]
            return " ".join([told, *answered])


def _conclusion(rng: random.Random) -> str:
    label = int(rng.random() < 0.5)
    opinion = make_opinion(rng, "train", label)
    part = opinion.pairs[-1][0].split(" of the ")[0]
    follows = rng.random() < 0.5
    liked = bool(label) is follows
    said = pick(rng, LIKED if liked else DISLIKED).format(s=f"the {part}")
    return f"{opinion.text} {'It follows that' if follows else 'It does not follow that'} {said}."
