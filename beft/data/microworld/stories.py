"""Two tasks of the micro-world for decoders: causes and effects, and questions about a story.

    choices     which of two clauses is the cause, or the effect, of a premise; the wrong one belongs to another
                premise. The premise names a person, the clauses use he or she.
    questions   a story of who has how many of what, and who is where; a question with an answer of one or two words.

Rows have the columns of COPA and of DROP. Splits are disjoint by construction: a choice pairs a premise with a wrong
clause, a question a person with a thing or a place, and every such pair belongs to one split (`sentences.split_of`).
Streams are deterministic and prefixes of longer ones, and no row occurs twice.
"""

import random
from collections.abc import Callable
from typing import Any

from .sentences import PEOPLE, PLACES, SplitName, as_sentence, distinct_rows, pick, split_of

Row = dict[str, Any]

# (cause, effect): {p} is a person, {he} the pronoun
CAUSES: tuple[tuple[str, str], ...] = (
    ("it rained all night", "the path was wet"), ("the power failed", "the room went dark"),
    ("{p} forgot the umbrella", "{he} got soaked"), ("{p} missed the train", "{he} came home late"),
    ("the milk was left in the sun", "it turned sour"), ("{p} studied every evening", "{he} passed the exam"),
    ("the cup fell from the table", "it broke"), ("{p} ran up the stairs", "{he} was out of breath"),
    ("the oven was far too hot", "the bread burned"), ("{p} watered the plants", "they grew tall"),
    ("nobody fed the cat", "it was hungry"), ("{p} skipped breakfast", "{he} was hungry by noon"),
    ("the door was left open", "the room grew cold"), ("{p} lost the key", "{he} could not get in"),
    ("the road was icy", "the cars went slowly"), ("{p} told a joke", "everybody laughed"),
    ("the battery was empty", "the phone went off"), ("{p} worked all night", "{he} was tired"),
    ("the wind blew hard", "the tree fell down"), ("{p} lit the fire", "the hut grew warm"),
    ("the soup had too much salt", "nobody finished it"), ("{p} won the race", "{he} was given a medal"),
    ("the alarm did not ring", "{p} overslept"), ("{p} dropped the phone", "its screen cracked"),
    ("the shop was closed", "{p} went home with nothing"),
    ("{p} broke a leg", "{he} could not walk for weeks"), ("the snow melted", "the river rose"),
    ("{p} whispered", "hardly anybody heard it"), ("the bridge was closed", "the buses took another road"),
    ("{p} bought a present", "the child was happy"), ("the film was long", "{p} fell asleep"),
    ("{p} cut the rope", "the boat drifted away"),
)  # fmt: skip
HELD = ("pears", "plums", "coins", "books", "keys", "stamps", "eggs", "candles", "shells", "tickets", "maps")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_PEOPLE = tuple(PEOPLE)


def _choice(rng: random.Random, split: SplitName) -> Row:
    """A premise, two clauses, the question ("cause" or "effect") and the index of the right clause."""
    wanted = int(rng.random() < 0.5)  # 0: the cause, 1: the effect
    right = int(rng.random() * len(CAUSES))
    others = [j for j in range(len(CAUSES)) if j != right and split_of(right, j) == split]
    wrong = pick(rng, others)
    person = pick(rng, _PEOPLE)
    # Only the premise has the name: COPA's prompt lowers the first letter of a choice, and "nora" is no word.
    premise = CAUSES[right][1 - wanted].format(p=person, he=person)
    he = {"p": PEOPLE[person], "he": PEOPLE[person]}
    clauses = [as_sentence(CAUSES[i][wanted].format(**he)) for i in (right, wrong)]
    label = int(rng.random() < 0.5)
    if label:
        clauses.reverse()
    question = ("cause", "effect")[wanted]
    texts = {
        "premise": as_sentence(premise),
        "choice1": clauses[0],
        "choice2": clauses[1],
        "question": question,
    }
    return texts | {"label": label}


def facts(rng: random.Random, split: SplitName, least: int = 3) -> tuple[str, list[tuple[str, str]]]:
    """A story of `least` to five facts, and (question, answer) pairs about those of `split`."""
    people = sorted(_PEOPLE, key=lambda _: rng.random())[: least + int(rng.random() * (6 - least))]
    things = sorted(HELD, key=lambda _: rng.random())
    places = sorted(PLACES, key=lambda _: rng.random())
    numbers = sorted(NUMBERS, key=lambda _: rng.random())
    story, questions = [], []
    for i, person in enumerate(people):
        who = _PEOPLE.index(person)
        if rng.random() < 0.65:
            story.append(f"{person} has {numbers[i]} {things[i]}.")
            if split_of(who, HELD.index(things[i])) == split:
                questions += [
                    (f"Who has {numbers[i]} {things[i]}?", person),
                    (f"How many {things[i]} does {person} have?", numbers[i]),
                    (f"What does {person} have?", f"{numbers[i]} {things[i]}"),
                ]
        else:
            story.append(f"{person} is in {places[i]}.")
            if split_of(who, PLACES.index(places[i])) == split:
                questions += [(f"Where is {person}?", places[i]), (f"Who is in {places[i]}?", person)]
    return " ".join(story), questions


def _question(rng: random.Random, split: SplitName) -> Row:
    while True:
        story, questions = facts(rng, split)
        if questions:
            question, answer = pick(rng, questions)
            return {"context": story, "question": question, "answers": [answer]}


def choices(seed: int = 0, train: int = 4000, validation: int = 500) -> tuple[list[Row], list[Row]]:
    """The choice task: rows with COPA's columns, of the training and the validation split."""
    return _splits("choices", _choice, seed, train, validation)


def questions(seed: int = 0, train: int = 4000, validation: int = 500) -> tuple[list[Row], list[Row]]:
    """The question task: rows with the columns context, question, answers, of both splits."""
    return _splits("questions", _question, seed, train, validation)


def _splits(
    kind: str, make: Callable[[random.Random, SplitName], Row], seed: int, train: int, validation: int
) -> tuple[list[Row], list[Row]]:
    def key(row: Row) -> str:
        return repr({name: value for name, value in row.items() if name not in ("label", "answers")})

    def rows(split: SplitName, count: int) -> list[Row]:
        return distinct_rows(kind, split, count, seed, lambda rng, split, _: make(rng, split), key)

    return rows("train", train), rows("validation", validation)
