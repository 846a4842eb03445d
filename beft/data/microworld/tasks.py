"""Further tasks of the micro-world, all by stated rules; the last two are for decoders.

    entailment      premise: an opinion sentence; hypothesis: the narrator's view of an aspect ("The narrator liked the
                    ending"). It follows from the premise or it does not: the other verdict, or another aspect.
    claims          a bare claim about an aspect, with up to two negations; its verdict. Of the words and labels of the
                    sentiment task, in another and simpler form: a domain to score its runs on.
    acceptability   an opinion sentence as it is, or with one word moved, doubled, dropped or in a wrong form.
    similarity      two claims; the score is 1 for the same thing, 1 for the same aspect, 2 for the same verdict after
                    negation and 1 for the same opinion word: 0 to 5.
    choices         which of two clauses is the cause, or the effect, of a premise; the wrong one belongs to another
                    premise. The premise names a person, the clauses use he or she. Columns as in COPA.
    questions       a story of who has how many of what, and who is where; a question with an answer of one or two
                    words. Columns as in DROP.

Splits are disjoint by construction (`sentences.split_of`): a claim pairs an aspect with an opinion word, a choice a
premise with a wrong clause, a question a person with a thing or a place. No row occurs twice.
"""

import random
from collections.abc import Callable, Hashable
from functools import partial
from operator import itemgetter
from typing import Any

from . import sentences
from .sentences import ASPECTS, PEOPLE, PLACES, WORDS, WORLD, SplitName, as_sentence, pick, split_of

Pair = tuple[tuple[str, str], int | float]  # two texts with their label or score
Row = dict[str, Any]
Splits = tuple[list[Any], list[Any]]  # the rows of the training and of the validation split
Make = Callable[[random.Random, SplitName, int], Any]
Key = Callable[[Any], Hashable]

ELSEWHERE = 0.6  # share of the pairs that do not follow whose hypothesis is about another aspect
LIKED: list[str] = WORLD["conclusions"]["liked"]
DISLIKED: list[str] = WORLD["conclusions"]["disliked"]
# Replacing one of these words by its neighbour here, or dropping it, makes a sentence unacceptable.
SPOILED: dict[str, str] = WORLD["spoiled"]
MOVABLE = ("the", "of", "that", "to")  # cannot swap with the next word nor stand twice
CAUSES: list[list[str]] = WORLD["causes"]  # (cause, effect): {p} is a person, {he} the pronoun
HELD: list[str] = WORLD["held"]
CHOICE = ("premise", "choice1", "choice2", "question")  # the columns of its texts
_PEOPLE = tuple(PEOPLE)


def _entailment(rng: random.Random, split: SplitName, label: int) -> Pair:
    """(premise, hypothesis); 0: it follows, 1: it does not."""
    verdict = int(rng.random() < 0.5)
    premise = sentences.make_opinion(rng, split, verdict)
    mentioned = [aspect for aspect, _ in premise.pairs]
    named = {f"{name} of the {thing}": name for thing, name in ASPECTS}
    name = named[mentioned[-1]]  # the last claim carries the verdict
    # the first claim of a contrast is about another aspect, with the other verdict
    if premise.construction == "contrasted" and rng.random() < 0.5:
        name, verdict = named[mentioned[0]], 1 - verdict
    if label and rng.random() < ELSEWHERE:
        name = pick(rng, [n for t, n in ASPECTS if f"{n} of the {t}" not in mentioned])
        verdict = int(rng.random() < 0.5)
    elif label:
        verdict = 1 - verdict
    hypothesis = pick(rng, LIKED if verdict else DISLIKED).format(s=f"the {name}")
    return (premise.text, as_sentence(hypothesis)), label


def _claim(rng: random.Random, split: SplitName, label: int) -> tuple[str, int]:
    """A claim as a sentence; 1: the verdict is positive."""
    aspect, negations = pick(rng, range(len(ASPECTS))), pick(rng, (0, 0, 1, 2))
    return as_sentence(sentences.make_claim(rng, split, aspect, label, negations)[0]), label


def _acceptability(rng: random.Random, split: SplitName, label: int) -> tuple[str, int]:
    """A sentence; 1: acceptable, 0: made unacceptable in one place behind the first word."""
    text = sentences.make_opinion(rng, split, int(rng.random() < 0.5)).text
    if label:
        return text, 1
    words = text.split()
    movable, spoiled = ([i for i, word in enumerate(words) if word in group] for group in (MOVABLE, SPOILED))
    places = {"move": [i for i in movable if i < len(words) - 1], "double": movable, "number": spoiled, "drop": spoiled}
    kind = pick(rng, [name for name, indices in places.items() if indices])
    place = pick(rng, places[kind])
    if kind == "number":
        words[place] = SPOILED[words[place]]
    elif kind == "move":
        words[place], words[place + 1] = words[place + 1].rstrip(",."), words[place]
    elif kind == "double":
        words.insert(place, words[place])
    else:
        del words[place]
    return " ".join(words), 0


def _similarity(rng: random.Random, split: SplitName, label: int) -> Pair:
    """Two claims and their score; with `label` 1 about the same thing, with 0 about any."""
    first = pick(rng, range(len(ASPECTS)))
    same_thing = [i for i, (thing, _) in enumerate(ASPECTS) if thing == ASPECTS[first][0]]
    second = first if label and rng.random() < 0.5 else pick(rng, same_thing if label else range(len(ASPECTS)))
    negations = [pick(rng, (0, 0, 1, 2)) for _ in range(2)]
    verdicts = [int(rng.random() < 0.5) for _ in range(2)]
    text_a, pair_a = sentences.make_claim(rng, split, first, verdicts[0], negations[0])
    polarity, word = verdicts[0] ^ (negations[0] % 2), None
    if rng.random() < 0.5 and pair_a[1] in WORDS[split, second, polarity]:
        word, verdicts[1] = pair_a[1], polarity ^ (negations[1] % 2)
    text_b, pair_b = sentences.make_claim(rng, split, second, verdicts[1], negations[1], word)
    score = (ASPECTS[first][0] == ASPECTS[second][0]) + (first == second)
    score += 2 * (verdicts[0] == verdicts[1]) + (pair_a[1] == pair_b[1])
    return (as_sentence(text_a), as_sentence(text_b)), float(score)


def _choice(rng: random.Random, split: SplitName, _: int) -> Row:
    """A premise, two clauses, the question ("cause" or "effect") and the index of the right clause."""
    wanted = int(rng.random() < 0.5)  # 0: the cause, 1: the effect
    right = int(rng.random() * len(CAUSES))
    wrong = pick(rng, [j for j in range(len(CAUSES)) if j != right and split_of(right, j) == split])
    person = pick(rng, _PEOPLE)
    # Only the premise has the name: COPA's prompt lowers the first letter of a choice, and "nora" is no word.
    premise = CAUSES[right][1 - wanted].format(p=person, he=person)
    he = {"p": PEOPLE[person], "he": PEOPLE[person]}
    clauses = [as_sentence(CAUSES[i][wanted].format(**he)) for i in (right, wrong)]
    label = int(rng.random() < 0.5)
    if label:
        clauses.reverse()
    texts = dict(zip(CHOICE, (as_sentence(premise), *clauses, ("cause", "effect")[wanted]), strict=True))
    return texts | {"label": label}


def facts(rng: random.Random, split: SplitName, least: int = 3) -> tuple[str, list[tuple[str, str]]]:
    """A story of `least` to five facts, and (question, answer) pairs about those of `split`."""
    people = sorted(_PEOPLE, key=lambda _: rng.random())[: least + int(rng.random() * (6 - least))]
    things = sorted(HELD, key=lambda _: rng.random())
    places = sorted(PLACES, key=lambda _: rng.random())
    numbers = sorted(WORLD["numbers"], key=lambda _: rng.random())
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


def _question(rng: random.Random, split: SplitName, _: int) -> Row:
    while True:
        story, questions = facts(rng, split)
        if questions:
            question, answer = pick(rng, questions)
            return {"context": story, "question": question, "answers": [answer]}


def entailment(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The entailment task as ((premise, hypothesis), label) rows of both splits; label 0 is entailment."""
    return _splits("entailment", _entailment, seed, train, validation)


def claims(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The task of bare claims as (text, label) rows of both splits; label 1 is positive."""
    return _splits("claims", _claim, seed, train, validation)


def acceptability(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The acceptability task as (text, label) rows of both splits; label 1 is acceptable."""
    return _splits("acceptability", _acceptability, seed, train, validation)


def similarity(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The similarity task as ((text_a, text_b), score) rows of both splits; scores are 0.0 to 5.0."""
    return _splits("similarity", _similarity, seed, train, validation)


def choices(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The choice task: rows with COPA's columns, of both splits."""
    return _splits("choices", _choice, seed, train, validation, itemgetter(*CHOICE), balanced=False)


def questions(seed: int = 0, train: int = 4000, validation: int = 500) -> Splits:
    """The question task: rows with the columns context, question, answers, of both splits."""
    return _splits("questions", _question, seed, train, validation, itemgetter("context", "question"), balanced=False)


def _splits(
    kind: str, make: Make, seed: int, train: int, validation: int, key: Key = itemgetter(0), balanced: bool = True
) -> Splits:
    rows = partial(sentences.distinct_rows, kind, seed=seed, make=make, key=key, balanced=balanced)
    return rows("train", train), rows("validation", validation)
