import hashlib
import json
import re

import pytest

from beft.data.microworld import sentences as microworld
from beft.data.microworld import tasks

TASKS = (tasks.entailment, tasks.claims, tasks.acceptability, tasks.similarity)
WORDS = {word: verdict for verdict, words in microworld.OPINIONS.items() for word in words}


@pytest.mark.parametrize("kind", TASKS)
def test_rows_are_deterministic_prefixes_and_never_shared_between_splits(kind):
    train, validation = kind(0, 600, 100)
    again, more = kind(0, 600, 200)
    assert train == again and more[:100] == validation
    assert train != kind(1, 600, 100)[0]
    texts = [text for text, _ in train + more]
    assert len(texts) == len(set(texts)) == 800


@pytest.mark.parametrize(
    ("kind", "digest"),
    [
        (tasks.entailment, "217312643158d835"),
        (tasks.claims, "8c5f6b5d46ed6dbe"),
        (tasks.acceptability, "02ccb91e6343adf8"),
        (tasks.similarity, "59cab5115bf40f8c"),
    ],
)
def test_rows_are_those_that_records_were_made_with(kind, digest):
    # a change of the grammar changes this value: then records on this text have to be made anew
    assert hashlib.sha256(json.dumps(kind()).encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("kind", [tasks.entailment, tasks.claims, tasks.acceptability])
def test_classes_are_balanced_in_every_even_prefix(kind):
    train, _ = kind(0, 100, 10)
    assert all(sum(label for _, label in train[:n]) == n / 2 for n in range(2, 101, 2))


def claimed(text):
    """(aspect, opinion word) pairs that a text may contain: every word with every aspect."""
    names = [name for _, name in microworld.ASPECTS if re.search(rf"\b{name}\b", text.lower())]
    return {(name, word) for name in names for word in WORDS if re.search(rf"\b{word}\b", text.lower())}


def test_validation_claims_pair_aspects_with_words_as_training_never_does():
    position = {name: i for i, (_, name) in enumerate(microworld.ASPECTS)}
    place = {word: j for words in microworld.OPINIONS.values() for j, word in enumerate(words)}
    for split, rows in zip(("train", "validation"), tasks.similarity(0, 500, 200), strict=True):
        for texts, _ in rows:
            for text in texts:
                claims = claimed(text)
                assert len(claims) == 1, text
                ((name, word),) = claims
                assert microworld.split_of(position[name], place[word]) == split


def verdict_of(text):
    """The verdict of a claim, from its words alone."""
    ((_, word),) = claimed(text)
    negations = sum(len(re.findall(rf"\b{n}\b", text.lower())) for n in (
        "not", "never", "nobody", "anything but", "far from", "hardly", "no doubt", "deny", "failed",
    ))  # fmt: skip
    # "no doubt" is no negation; "never failed", "not deny", "never found anything but" are pairs
    return WORDS[word] ^ ((negations - ("no doubt" in text.lower())) % 2)


def test_similarity_is_the_stated_sum():
    thing = {name: thing for thing, name in microworld.ASPECTS}
    for (a, b), score in tasks.similarity(0, 500, 100)[0]:
        ((aspect_a, word_a),), ((aspect_b, word_b),) = claimed(a), claimed(b)
        want = (thing[aspect_a] == thing[aspect_b]) + (aspect_a == aspect_b) + (word_a == word_b)
        assert score == want + 2 * (verdict_of(a) == verdict_of(b)), (a, b)


def test_simple_premises_entail_the_narrators_view_of_their_aspect_alone():
    counts = {0: 0, 1: 0}
    for (premise, hypothesis), label in tasks.entailment(0, 1500, 10)[0]:
        claims = claimed(premise)
        if len(claims) != 1 or re.search(
            r"\b(not|never|nobody|but|far|hardly|doubt|deny|that|noted|failed)\b", premise.lower()
        ):
            continue
        ((aspect, word),) = claims
        liked = not re.search("disliked|let the narrator down|did not care", hypothesis)
        follows = aspect in hypothesis and bool(WORDS[word]) == liked
        assert label == int(not follows), (premise, hypothesis)
        counts[label] += 1
    assert min(counts.values()) > 50


def test_spoiled_sentences_differ_from_every_acceptable_one():
    train, validation = tasks.acceptability(0, 2000, 200)
    good = {text for text, label in train + validation if label}
    bad = [text for text, label in train + validation if not label]
    assert not good & set(bad)
    wrong = r"\b(the the|of of|that that|to to|were|are|seeming|proving|turning|finding)\b"
    assert not any(re.search(wrong, text) for text in good)
    assert 0.3 < sum(bool(re.search(wrong, text)) for text in bad) / len(bad) < 0.8


@pytest.mark.parametrize("kind", TASKS)
def test_no_rows_are_none_and_fewer_are_refused(kind):
    assert kind(0, 0, 0) == ([], [])
    with pytest.raises(Exception, match="cannot generate -1 rows"):
        kind(0, -1, 0)
