"""Two more kinds of the micro-world's text, for models that write: causes and effects, and questions about a story.

    choices     which of two clauses is the cause, or the effect, of a premise; the wrong one is of another premise.
                The premise names a person, the clauses say he or she.
    questions   a story of who has how many of what, and who is where; a question with an answer of one or two words.

Rows have the columns of COPA and of DROP. Splits are disjoint by construction: a choice pairs a premise with a wrong
clause, a question a person with a thing or a place, and every such pair belongs to one split (`microworld.split_of`).
Streams are deterministic and prefixes of longer ones, and no row occurs twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ...errors import BeftError
from .sentences import PEOPLE, PLACES, SplitName, pick, split_of

Row = dict[str, Any]

# (cause, effect): {p} is a person, {he} the pronoun
CAUSES: tuple[tuple[str, str], ...] = (
    ("it rained all night", "the path was wet"),
    ("the power failed", "the room went dark"),
    ("{p} forgot the umbrella", "{he} got soaked"),
    ("{p} missed the train", "{he} came home late"),
    ("the milk was left in the sun", "it turned sour"),
    ("{p} studied every evening", "{he} passed the exam"),
    ("the cup fell from the table", "it broke"),
    ("{p} ran up the stairs", "{he} was out of breath"),
    ("the oven was far too hot", "the bread burned"),
    ("{p} watered the plants", "they grew tall"),
    ("nobody fed the cat", "it was hungry"),
    ("{p} skipped breakfast", "{he} was hungry by noon"),
    ("the door was left open", "the room grew cold"),
    ("{p} lost the key", "{he} could not get in"),
    ("the road was icy", "the cars went slowly"),
    ("{p} told a joke", "everybody laughed"),
    ("the battery was empty", "the phone went off"),
    ("{p} worked all night", "{he} was tired"),
    ("the wind blew hard", "the tree fell down"),
    ("{p} lit the fire", "the hut grew warm"),
    ("the soup had too much salt", "nobody finished it"),
    ("{p} won the race", "{he} was given a medal"),
    ("the alarm did not ring", "{p} overslept"),
    ("{p} dropped the phone", "its screen cracked"),
    ("the shop was closed", "{p} went home with nothing"),
    ("{p} broke a leg", "{he} could not walk for weeks"),
    ("the snow melted", "the river rose"),
    ("{p} whispered", "hardly anybody heard it"),
    ("the bridge was closed", "the buses took another road"),
    ("{p} bought a present", "the child was happy"),
    ("the film was long", "{p} fell asleep"),
    ("{p} cut the rope", "the boat drifted away"),
)
HELD = ("pears", "plums", "coins", "books", "keys", "stamps", "eggs", "candles", "shells", "tickets", "maps")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
_PEOPLE = tuple(PEOPLE)


def _choice(rng: random.Random, split: SplitName) -> Row:
    """A premise, two clauses, which one is asked for ("cause" or "effect") and the place of the right one."""
    asked = int(rng.random() < 0.5)  # 0: the cause, 1: the effect
    right = int(rng.random() * len(CAUSES))
    others = [j for j in range(len(CAUSES)) if j != right and split_of(right, j) == split]
    wrong = pick(rng, others)
    person = pick(rng, _PEOPLE)
    # The name stands in the premise alone: COPA's prompt lowers the first letter of a choice, and "nora" is no word.
    premise = CAUSES[right][1 - asked].format(p=person, he=person)
    he = {"p": PEOPLE[person], "he": PEOPLE[person]}
    clauses = [CAUSES[right][asked].format(**he), CAUSES[wrong][asked].format(**he)]
    label = int(rng.random() < 0.5)
    if label:
        clauses.reverse()
    return {
        "premise": f"{premise[0].upper()}{premise[1:]}.",
        "choice1": _sentence(clauses[0]),
        "choice2": _sentence(clauses[1]),
        "question": ("cause", "effect")[asked],
        "label": label,
    }


def _sentence(clause: str) -> str:
    return f"{clause[0].upper()}{clause[1:]}."


def facts(rng: random.Random, split: SplitName, least: int = 3) -> tuple[str, list[tuple[str, str]]]:
    """A story of `least` to five facts, and (question, answer) pairs about those of `split`."""
    people = sorted(_PEOPLE, key=lambda _: rng.random())[: least + int(rng.random() * (6 - least))]
    things = sorted(HELD, key=lambda _: rng.random())
    places = sorted(PLACES, key=lambda _: rng.random())
    numbers = sorted(NUMBERS, key=lambda _: rng.random())
    told, asked = [], []
    for i, person in enumerate(people):
        who = _PEOPLE.index(person)
        if rng.random() < 0.65:
            told.append(f"{person} has {numbers[i]} {things[i]}.")
            if split_of(who, HELD.index(things[i])) == split:
                asked += [
                    (f"Who has {numbers[i]} {things[i]}?", person),
                    (f"How many {things[i]} does {person} have?", numbers[i]),
                    (f"What does {person} have?", f"{numbers[i]} {things[i]}"),
                ]
        else:
            told.append(f"{person} is in {places[i]}.")
            if split_of(who, PLACES.index(places[i])) == split:
                asked += [(f"Where is {person}?", places[i]), (f"Who is in {places[i]}?", person)]
    return " ".join(told), asked


def _question(rng: random.Random, split: SplitName) -> Row:
    while True:
        story, asked = facts(rng, split)
        if asked:
            question, answer = pick(rng, asked)
            return {"context": story, "question": question, "answers": [answer]}


def _rows(
    kind: str, split: SplitName, rows: int, seed: int, make: Callable[[random.Random, SplitName], Row]
) -> list[Row]:
    if rows < 0:
        raise BeftError(f"cannot generate {rows} rows: give a number from 0 on")
    rng = random.Random(f"{kind} {split} {seed}")
    made: dict[str, Row] = {}
    while len(made) < rows:
        row = make(rng, split)
        made.setdefault(repr({k: v for k, v in row.items() if k not in ("label", "answers")}), row)
    return list(made.values())


def choices(seed: int = 0, train: int = 4000, validation: int = 500) -> tuple[list[Row], list[Row]]:
    """The choice task: rows with COPA's columns, of the training and the validation split."""
    return _rows("choices", "train", train, seed, _choice), _rows(
        "choices", "validation", validation, seed, _choice
    )


def questions(seed: int = 0, train: int = 4000, validation: int = 500) -> tuple[list[Row], list[Row]]:
    """The question task: rows with the columns context, question, answers, of both splits."""
    return (
        _rows("questions", "train", train, seed, _question),
        _rows("questions", "validation", validation, seed, _question),
    )
