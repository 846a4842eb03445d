"""Texts from templates that test whether the mention of a group alone changes the prediction of a classifier.

An identity phrase template test set (IPTTS; Dixon et al. 2018, Measuring and Mitigating Unintended Bias in Text
Classification) inserts every identifier into the same hostile and harmless sentences. Bias-NLI (Dev et al. 2020, On
Measuring and Mitigating Biased Inferences of Word Embeddings) pairs a person of an occupation with one of a gender:
neither sentence follows from the other. The templates are this package's own, and mild.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from ..errors import BeftError
from .counterfactual import axis

_LISTS = json.loads(files(__package__).joinpath("identity_templates.json").read_text(encoding="utf-8"))
IDENTIFIERS: tuple[str, ...] = tuple(_LISTS["identifiers"])
# (text, label); no "a" before {x}: it would be "an" before some identifiers
TEMPLATES: tuple[tuple[str, int], ...] = tuple(
    (text, label) for label, name in ((1, "hostile"), (0, "harmless")) for text in _LISTS[name]
)
NOUN_ENDINGS = ("er", "or", "man", "woman", "boy", "girl")
NOT_NOUNS = frozenset(_LISTS["not_nouns"])  # adjectives that end so
GENDERED: tuple[str, ...] = tuple(_LISTS["gendered"])
OCCUPATIONS: tuple[str, ...] = tuple(_LISTS["occupations"])
DEEDS: dict[str, list[str]] = _LISTS["deeds"]  # verb -> objects it goes with


@dataclass(frozen=True)
class Phrase:
    """One phrase of a test set: `label` is 1 if it is hostile, 0 if harmless, for every identifier."""

    text: str
    label: int
    identifier: str


def identity_phrases(
    identifiers: Sequence[str] = IDENTIFIERS,
    nouns: bool | None = None,
    templates: Sequence[tuple[str, int]] = TEMPLATES,
) -> list[Phrase]:
    """Every identifier in every template, half of them hostile; identifier by identifier.

    Args:
        identifiers: adjectives ("deaf", which becomes "deaf person"), or nouns in the singular ("southerner").
        nouns: whether they are nouns; by default `is_noun` decides for each, and apparent plurals are refused.
        templates: (text with {x} once, label); hostile and harmless ones in equal number. None has "a" before {x}.

    Raises BeftError for no identifier, an empty one, one that looks like a plural, or templates that are not of that
    form.
    """
    words = list(dict.fromkeys(word.strip() for word in identifiers))
    if isinstance(identifiers, str) or not words or not all(words):
        raise BeftError("identity phrases need one or more identifiers, none of them empty: give a list of words")
    labels = [label for _, label in templates]
    if not labels or labels.count(1) * 2 != len(labels) or labels.count(0) * 2 != len(labels):
        raise BeftError(
            f"{labels.count(1)} hostile and {labels.count(0)} harmless templates of {len(labels)}: "
            "give as many of either, labelled 1 and 0"
        )
    for text, _ in templates:
        if text.count("{x}") != 1:
            raise BeftError(f"the template {text!r} must hold {{x}} once, in the place of the identifier")
    made = []
    for word in words:
        low = word.lower()
        plural = low.endswith(("men", "people")) or (low.endswith("s") and not low.endswith(("ss", "us", "is")))
        if nouns is None and plural:
            raise BeftError(f"the identifier {word!r} looks like a plural: give the singular, or say nouns")
        noun = is_noun(word) if nouns is None else nouns
        person = word if noun else f"{word} person"
        made += [Phrase(text.replace("{x}", person), label, word) for text, label in templates]
    return made


def is_noun(word: str) -> bool:
    """Whether a word counts as a noun: it ends like "southerner", "sailor" or "Frenchwoman", with known exceptions.

    Other nouns ("immigrant") can stand in front of "person".
    """
    low = word.lower()
    return low.endswith(NOUN_ENDINGS) and low not in NOT_NOUNS


@dataclass(frozen=True)
class NliPair:
    """A premise and a hypothesis, neither of which follows from or contradicts the other."""

    premise: str
    hypothesis: str


def bias_nli(
    words: Sequence[str] = GENDERED, occupations: Sequence[str] = OCCUPATIONS, count: int | None = None, seed: int = 0
) -> list[NliPair]:
    """Pairs such as "The nurse bought a coat." / "The woman bought a coat."; the right answer is always neutral.

    Args:
        words: nouns for people of a group, in the singular.
        occupations: nouns for people of an occupation; none may express the gender itself ("actress").
        count: number of pairs, drawn without repetition; by default all, ordered by deed, object, occupation and word.
        seed: of the draw, the first `count` of `RandomState(seed).permutation`, so that fewer are a prefix of more.

    Raises BeftError for no words or occupations, one that is in both lists or has a gender, or an impossible count.
    """
    people, jobs = (list(dict.fromkeys(word.strip() for word in given)) for given in (words, occupations))
    if not all(people) or not all(jobs) or not people or not jobs:
        raise BeftError("Bias-NLI needs one or more words for a group and occupations, none of them empty: give some")
    gender = axis("gender")
    for job in jobs:
        if job in people or (gender.words_in(job) and any(gender.words_in(word) for word in people)):
            raise BeftError(
                f"the occupation {job!r} says the group itself, so that neutral would not be right: leave it out"
            )
    deeds = [f"{verb} {thing}" for verb, things in DEEDS.items() for thing in things]
    shape = (len(deeds), len(jobs), len(people))
    total = int(np.prod(shape))
    if count is not None and not 1 <= count <= total:
        raise BeftError(f"cannot draw {count} of {total} Bias-NLI pairs: give a number from 1 to {total}")
    order = np.arange(total) if count is None else np.random.RandomState(seed).permutation(total)[:count]
    places = zip(*(index.tolist() for index in np.unravel_index(order, shape)), strict=True)
    return [NliPair(f"The {jobs[j]} {deeds[d]}.", f"The {people[p]} {deeds[d]}.") for d, j, p in places]
