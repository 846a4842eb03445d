import hashlib
import itertools
import json
import re

import pytest

from beft.data.microworld import sentences as microworld
from beft.errors import BeftError


@pytest.fixture(scope="module")
def train():
    return microworld.opinions("train", 4000)


@pytest.fixture(scope="module")
def validation():
    return microworld.opinions("validation", 500)


def test_same_seed_gives_the_same_rows_and_another_seed_others():
    assert microworld.sentiment(3, 50, 20) == microworld.sentiment(3, 50, 20)
    assert microworld.sentiment(3, 50, 20) != microworld.sentiment(4, 50, 20)


def test_rows_are_those_that_committed_records_were_made_with():
    # A change of the grammar changes this value: then every record on generated text has to be made anew.
    rows = json.dumps(microworld.sentiment()).encode()
    assert hashlib.sha256(rows).hexdigest()[:16] == "9e733631125391c9"


def test_size_of_a_split_changes_neither_its_first_rows_nor_the_other_split():
    small, large = microworld.sentiment(0, 100, 40), microworld.sentiment(0, 200, 40)
    assert large[0][:100] == small[0] and large[1] == small[1]
    assert microworld.sentiment(0, 100, 80)[1][:40] == small[1]


def test_no_text_occurs_twice_in_or_across_splits(train, validation):
    texts = [o.text for o in train + validation]
    assert len(texts) == len(set(texts)) == 4500


def test_splits_share_no_combination_of_aspect_and_word_for_any_seeds(train):
    learned = {pair for o in train for pair in o.pairs}
    for seed in range(3):
        held_out = {pair for o in microworld.opinions("validation", 500, seed) for pair in o.pairs}
        assert held_out and not held_out & learned


def test_held_out_combinations_are_made_of_words_and_aspects_of_training(train, validation):
    for place in (0, 1):
        assert {p[place] for o in validation for p in o.pairs} <= {p[place] for o in train for p in o.pairs}


def test_pairs_can_be_read_off_the_text(train):
    # else "no shared pair" would not imply "no shared text": names of aspects must differ between things
    names = [name for _, name in microworld.ASPECTS]
    words = [word for group in microworld.OPINIONS.values() for word in group]
    assert len(names) == len(set(names)) and len(words) == len(set(words))
    for o in train:
        for part, word in o.pairs:
            assert f"the {part.split(' of the ')[0]}" in o.text.lower() and word in o.text


def test_labels_are_balanced_in_every_even_prefix(train, validation):
    for rows in (train, validation):
        sums = list(itertools.accumulate(o.label for o in rows))
        assert all(2 * total == n for n, total in enumerate(sums, 1) if n % 2 == 0)


def test_order_of_labels_is_not_a_pattern(train):
    assert 0.4 < sum(o.label for o in train[::2]) / 2000 < 0.6


def test_constructions_come_in_their_shares_and_tell_no_label(train):
    assert sum(microworld.SHARES.values()) == pytest.approx(1)
    for construction, share in microworld.SHARES.items():
        labels = [o.label for o in train if o.construction == construction]
        assert len(labels) / len(train) == pytest.approx(share, abs=0.03)
        assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.08)


def test_label_follows_the_stated_rule(train):
    """The rule again, on its own terms: read from the surface of the sentence alone."""
    verdict = {word: label for label, words in microworld.OPINIONS.items() for word in words}
    constructions = set()
    for o in train:
        text, word = o.text.lower(), o.pairs[-1][1]
        if o.construction == "plain":
            expected = verdict[word]
        elif o.construction == "negated":
            expected = 1 - verdict[word]
        elif o.construction == "twice negated":
            expected = verdict[word]
        elif o.construction == "reported":
            rejected = any(sign in text for sign in ("was wrong", "did not agree", "wrongly", "but i did not"))
            expected = verdict[word] ^ rejected
        else:
            first, last = (p[1] for p in o.pairs)
            if ", but " in text:
                decisive = text.rsplit(", but ", 1)[1]
            else:  # claims hold no comma: one after the conjunction's clause starts the main clause
                before, after = re.split("(?:even though|although|while) ", text)
                decisive = after.split(", ")[1] if ", " in after else before
            assert last in decisive and (first == last or first not in decisive)
            negated = any(
                sign in decisive for sign in (" not ", " never ", "anything but", "far from", "nobody", "hardly")
            )
            expected = verdict[last] ^ negated
        constructions.add(o.construction)
        assert o.label == expected, o
    assert constructions == set(microworld.SHARES)


def test_words_alone_do_not_tell_the_label(train, validation):
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000))
    model.fit([o.text for o in train[:1000]], [o.label for o in train[:1000]])
    accuracy = model.score([o.text for o in validation], [o.label for o in validation])
    assert accuracy < 0.75


def test_sentences_are_short_and_varied(train):
    lengths = [len(o.text.split()) for o in train]
    assert 10 < sum(lengths) / len(lengths) < 13 and min(lengths) >= 4 and max(lengths) <= 30
    assert all(o.text[0].isupper() and o.text.endswith(".") and "{" not in o.text for o in train)


def test_negative_size_is_refused():
    with pytest.raises(BeftError, match="cannot generate -1 rows"):
        microworld.opinions("train", -1)
