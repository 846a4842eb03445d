"""Running text of the micro-world for pre-training a small language model: it has the world, but not the tasks.

Documents express the content of the tasks in other words: opinions with the narrator's verdict, causes with their
effects, stories with a question and its answer, conclusions that follow and that do not. Only claims, pairs and facts
of the training split occur. Deterministic given a seed; fewer documents are a prefix of more.
"""

import random
from collections.abc import Iterator

from beft.data.microworld.sentences import (
    ASPECTS,
    OPINIONS,
    PEOPLE,
    as_sentence,
    make_claim,
    make_opinion,
    pick,
)
from beft.data.microworld.tasks import CAUSES, DISLIKED, LIKED, facts

BEFORE = {
    1: ("I was pleased:", "Good news:", "I loved it:"),
    0: ("I was annoyed:", "Bad news:", "I hated it:"),
}
VERDICTS = {
    1: ("I loved it.", "What a joy.", "I would go back.", "All in all, {w}.", "It was {w}.", "It was {w}."),
    0: ("I hated it.", "What a waste.", "Never again.", "All in all, {w}.", "It was {w}.", "It was {w}."),
}
LINKED = (
    "Since {c}, {e}.",
    "{E}, for {c}.",
    "{C}. That is why {e}.",
    "{C}, and in the end {e}.",
    "Why? {E}, so they say, because {c}.",
)
ANSWERED = ("{q} {a}.", "Tell me: {q} {a}, of course.", "{q} I think {a}.", "{q} It is {a}.")
WORDS = {  # the meaning of an opinion word
    1: ("{W} means good.", "What is {w} is good.", "{W}? I love that.", "If it was {w}, it was {v}."),
    0: ("{W} means bad.", "What is {w} is bad.", "{W}? I hate that.", "If it was {w}, it was {v}."),
}
FOLLOWS = (  # a conclusion {s} that follows, and one that does not
    ("It follows that {s}.", "It does not follow that {s}."),
    ("So {s}? Yes.", "So {s}? No."),
    ("Is it so that {s}? Yes, it is.", "Is it so that {s}? No, it is not."),
    ("Yes, {s}.", "No, nobody said that {s}."),
)
BREAK = 0.25  # share of the documents whose last sentence stands on a line of its own


def documents(seed: int = 0) -> Iterator[str]:
    """Documents of one to four sentences, without end."""
    rng = random.Random(f"corpus {seed}")
    while True:
        yield pick(rng, MAKERS)(rng)


def _joined(rng: random.Random, *texts: str) -> str:
    """Texts one after another, sometimes with the last on a line of its own."""
    between = "\n" if rng.random() < BREAK else " "
    return f"{' '.join(texts[:-1])}{between}{texts[-1]}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _opinion(rng: random.Random) -> str:
    label = int(rng.random() < 0.5)
    return _judged(rng, label, make_opinion(rng, "train", label).text)


def _claim(rng: random.Random) -> str:
    """As `_opinion` with a single claim, from which the meaning of the words is easier to learn."""
    label, aspect = int(rng.random() < 0.5), int(rng.random() * len(ASPECTS))
    claim, _ = make_claim(rng, "train", aspect, label, int(rng.random() < 0.15))
    return _judged(rng, label, as_sentence(claim))


def _judged(rng: random.Random, label: int, text: str) -> str:
    """A text with its verdict in front or behind."""
    if rng.random() < 0.15:
        return f"{pick(rng, BEFORE[label])} {text}"
    return _joined(rng, text, pick(rng, VERDICTS[label]).format(w=pick(rng, OPINIONS[label])))


def _word(rng: random.Random) -> str:
    label = int(rng.random() < 0.5)
    word, other = (pick(rng, OPINIONS[label]) for _ in range(2))
    return pick(rng, WORDS[label]).format(w=word, W=_capital(word), v=other)


def _cause(rng: random.Random) -> str:
    person = pick(rng, tuple(PEOPLE))
    cause, effect = (clause.format(p=person, he=PEOPLE[person]) for clause in CAUSES[int(rng.random() * len(CAUSES))])
    return pick(rng, LINKED).format(c=cause, e=effect, C=_capital(cause), E=_capital(effect))


def _story(rng: random.Random) -> str:
    while True:
        story, questions = facts(rng, "train", least=1)
        if questions:
            some = sorted(questions, key=lambda _: rng.random())[:3]
            return _joined(rng, story, *(pick(rng, ANSWERED).format(q=q, a=a) for q, a in some))


def _conclusion(rng: random.Random) -> str:
    """A narrator's view of an aspect, and a conclusion that follows or has the other verdict or another aspect."""
    label = int(rng.random() < 0.5)
    if rng.random() < 0.5:
        opinion = make_opinion(rng, "train", label)
        text, aspect = opinion.text, opinion.pairs[-1][0].split(" of the ")[0]
    else:
        place = int(rng.random() * len(ASPECTS))
        claim, _ = make_claim(rng, "train", place, label, int(rng.random() < 0.3))
        text, aspect = as_sentence(claim), ASPECTS[place][1]
    follows, elsewhere = rng.random() < 0.5, rng.random() < 0.5
    if not follows and elsewhere:
        aspect = pick(rng, [name for _, name in ASPECTS if name not in text])
    views = LIKED if bool(label) is (follows or elsewhere) else DISLIKED
    conclusion = pick(rng, views).format(s=f"the {aspect}")
    return _joined(rng, text, _capital(pick(rng, FOLLOWS)[not follows].format(s=conclusion)))


# In shares of the documents. A story is three times as long as the others and would otherwise be most of the text.
MAKERS = (*[_word] * 3, *[_opinion] * 5, *[_claim] * 6, *[_cause] * 3, *[_conclusion] * 6, *[_story] * 4)
