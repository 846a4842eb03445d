"""Choices and questions of the micro-world: right by their rules, disjoint by construction, the same every time."""

import hashlib
import itertools
import json
import random
import re

import pytest

from beft.data.microworld import tasks
from beft.data.microworld.sentences import PEOPLE, PLACES, split_of
from beft.errors import BeftError

TASKS = (tasks.choices, tasks.questions)


def content(row):
    return json.dumps({k: v for k, v in row.items() if k not in ("label", "answers")})


@pytest.mark.parametrize("kind", TASKS)
def test_rows_are_deterministic_prefixes_and_never_shared_between_splits(kind):
    train, validation = kind(0, 400, 100)
    again, more = kind(0, 400, 200)
    assert train == again and more[:100] == validation and train != kind(1, 400, 100)[0]
    assert len({content(row) for row in train + more}) == 600


@pytest.mark.parametrize(
    ("kind", "digest"), [(tasks.choices, "52a1c92006933ed6"), (tasks.questions, "e1ed0b9ff12737a5")]
)
def test_rows_are_those_that_models_and_records_were_made_with(kind, digest):
    assert hashlib.sha256(json.dumps(kind()).encode()).hexdigest()[:16] == digest


def place_of(clause, side, who):
    """Which pair of `CAUSES` a clause is from, about somebody of whom `who` is the name or pronoun, as a pattern."""
    for i, pair in enumerate(tasks.CAUSES):
        pattern = re.escape(pair[side]).replace(r"\{p\}", who).replace(r"\{he\}", who)
        if re.fullmatch(pattern, clause.rstrip("."), re.IGNORECASE):
            return i
    raise AssertionError(clause)


def test_the_right_choice_belongs_to_the_premise_and_the_wrong_one_to_another():
    for split, rows in zip(("train", "validation"), tasks.choices(0, 500, 300), strict=True):
        for row in rows:
            side = 0 if row["question"] == "cause" else 1
            premise = place_of(row["premise"], 1 - side, f"({'|'.join(PEOPLE)})")
            named = set(re.findall(r"\w+", row["premise"])) & set(PEOPLE)
            he = PEOPLE[named.pop()] if named else "(he|she)"
            places = [place_of(row[name], side, he) for name in ("choice1", "choice2")]
            assert places[row["label"]] == premise != places[1 - row["label"]]
            assert split_of(premise, places[1 - row["label"]]) == split
    labels = [row["label"] for row in tasks.choices(0, 500, 0)[0]]
    assert 200 < sum(labels) < 300


def test_a_choice_keeps_its_words_when_its_first_letter_is_lowered():
    for row in itertools.chain(*tasks.choices(0, 500, 300)):
        for name in ("choice1", "choice2"):
            assert not set(re.findall(r"\w+", row[name])) & set(PEOPLE)  # "nora" would be no word


def test_answers_are_what_the_story_says_and_of_their_split():
    for split, rows in zip(("train", "validation"), tasks.questions(0, 500, 300), strict=True):
        for row in rows:
            (answer,) = row["answers"]
            has = {(p, n, t) for p, n, t in re.findall(r"(\w+) has (\w+) (\w+)\.", row["context"])}
            at = {(p, place) for p, place in re.findall(r"(\w+) is in ([^.]+)\.", row["context"])}
            possible = {
                **{f"Who has {n} {t}?": (p, p, t) for p, n, t in has},
                **{f"How many {t} does {p} have?": (n, p, t) for p, n, t in has},
                **{f"What does {p} have?": (f"{n} {t}", p, t) for p, n, t in has},
                **{f"Where is {p}?": (place, p, place) for p, place in at},
                **{f"Who is in {place}?": (p, p, place) for p, place in at},
            }
            expected, person, item = possible[row["question"]]
            assert answer == expected
            where = tasks.HELD.index(item) if item in tasks.HELD else PLACES.index(item)
            assert split_of(tuple(PEOPLE).index(person), where) == split


def test_every_question_occurs_in_both_splits():
    rng = random.Random(0)
    for split in ("train", "validation"):
        words = {question.split()[0] for _ in range(200) for question, _ in tasks.facts(rng, split)[1]}
        assert words == {"Who", "How", "What", "Where"}


@pytest.mark.parametrize("kind", TASKS)
def test_a_negative_number_of_rows_is_refused(kind):
    with pytest.raises(BeftError, match="cannot generate -1 rows"):
        kind(0, -1, 0)
