"""Rows with groups: the same from a file, a folder and the hub; what the measures need is there or named as missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_files import write as _write

from beft.data import grouped as g
from beft.data import sources as data
from beft.data import tasks
from beft.data.datasets import draw
from beft.data.microworld.biographies import OCCUPATIONS, biographies
from beft.data.microworld.people import posts
from beft.debias.bias_metrics import fpr_difference, tpr_gap
from beft.errors import BeftError


@pytest.fixture(autouse=True)
def _no_folder_and_no_hub(monkeypatch):
    monkeypatch.delenv("BEFT_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _folder(folder, train, test, suffix=".jsonl", name="test"):
    _write(folder / f"train{suffix}", train)
    _write(folder / f"{name}{suffix}", test)
    return folder


def _bios(n=12, jobs=("nurse", "surgeon"), **changes):
    rows = [{"text": f"bio {i}", "label": jobs[i % len(jobs)], "gender": (i // 2) % 2} for i in range(n)]
    return [row | changes for row in rows]


def _posts(n=12):
    return [{"text": f"{('Jews', 'women', 'cats')[i % 3]} again {i}", "label": i % 2} for i in range(n)]


def _pairs(n=12, labels=(0, 1, 2)):
    return [{"premise": f"p {i}", "hypothesis": f"h {i}", "label": labels[i % len(labels)]} for i in range(n)]


# --- biographies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["test", "validation"])
def test_biographies_come_from_a_folder_row_by_row_with_their_gender(tmp_path, suffix, name):
    got = g.biographies(_folder(tmp_path / "bios", _bios(12), _bios(6), suffix, name))
    assert got.data.task.labels == ("nurse", "surgeon") and got.data.task.metric == "accuracy"
    assert got.data.train.rows[:2] == (("bio 0",), ("bio 1",))
    assert got.data.train.labels.tolist() == [0, 1] * 6 and got.groups["train"].tolist() == [0, 0, 1, 1] * 3
    assert got.groups["validation"].tolist() == [0, 0, 1, 1, 0, 0]
    assert got.groups["train"].dtype == got.data.train.labels.dtype == np.int64
    assert not got.data.substitute and str(tmp_path) not in got.data.source


def test_a_test_split_goes_before_one_named_validation(tmp_path):
    folder = _folder(tmp_path, _bios(12), _bios(6))
    _write(tmp_path / "validation.jsonl", _bios(10))
    assert len(g.biographies(folder).data.validation) == 6


def test_genders_may_be_numbers_or_words_in_any_case(tmp_path):
    written = [0, 1, "0", "1", "male", "Female", "m", " F ", 0.0, 1.0, "man", "WOMAN"]
    rows = [row | {"gender": value} for row, value in zip(_bios(12), written, strict=True)]
    got = g.biographies(_folder(tmp_path, rows, rows))
    assert got.groups["train"].tolist() == [0, 1] * 6


def test_the_hubs_columns_and_numbers_mean_the_same_as_names(tmp_path):
    numbers = [
        {
            "hard_text": r["text"],
            "profession": {"nurse": 13, "surgeon": 25}[r["label"]],
            "gender": r["gender"],
        }
        for r in _bios(12)
    ]
    named = g.biographies(_folder(tmp_path / "a", _bios(12), _bios(12)))
    coded = g.biographies(_folder(tmp_path / "b", numbers, numbers))
    assert coded.data.task.labels == named.data.task.labels
    assert coded.data.fingerprint == named.data.fingerprint
    with pytest.raises(BeftError, match="row 1 of b/train.jsonl has the profession 28: use names, or numbers from 0"):
        numbers[0]["profession"] = 28
        g.biographies(_folder(tmp_path / "b", numbers, numbers))


def test_professions_are_in_the_order_in_which_names_are_coded():
    assert len(g.PROFESSIONS) == 28 and sorted(g.PROFESSIONS) == list(g.PROFESSIONS)


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_a_single_file_is_cut_as_data_load_cuts_it_and_groups_go_with_their_rows(tmp_path, suffix):
    rows = _bios(40, jobs=("nurse", "surgeon", "nurse", "nurse"))
    path = _write(tmp_path / f"bios{suffix}", rows)
    got, whole = g.biographies(path), data.load(str(path))
    assert got.data.fingerprint == whole.fingerprint and got.data.task.labels == whole.task.labels
    gender = {row["text"]: row["gender"] for row in rows}
    for split, part in (("train", got.data.train), ("validation", got.data.validation)):
        assert got.groups[split].tolist() == [gender[text] for (text,) in part.rows]
    assert "20% cut" in got.data.source


def test_regimes_are_no_larger_than_the_rows_and_can_be_drawn(tmp_path):
    got = g.biographies(_folder(tmp_path, _bios(12), _bios(6)))
    assert len(draw(got.data, "low", 0).train) == 12
    assert len(draw(got.data, 8, 0, tuning=0.25).train) == 6


def test_the_data_folder_goes_before_the_hub_and_the_hub_gets_the_known_name(tmp_path, monkeypatch):
    import datasets

    requests = []
    rows = [{"hard_text": r["text"], "profession": 13 + i % 2, "gender": r["gender"]} for i, r in enumerate(_bios(12))]

    def hub(*names):
        requests.append(names)
        return datasets.DatasetDict({s: datasets.Dataset.from_list(rows) for s in ("train", "dev", "test")})

    monkeypatch.setattr(datasets, "load_dataset", hub)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    got = g.biographies()
    assert requests == [("LabHC/bias_in_bios",)] and "hub" in got.data.source
    assert got.data.task.labels == ("nurse", "painter")
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    _folder(tmp_path / "bias_in_bios", _bios(12), _bios(6))
    assert len(g.biographies().data.validation) == 6 and len(requests) == 1


def test_biographies_that_are_nowhere_name_the_remedies(tmp_path, monkeypatch):
    with pytest.raises(BeftError, match="set BEFT_DATA to a folder that holds bias_in_bios/train.jsonl and test.jsonl"):
        g.biographies(offline=True)
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    _write(tmp_path / "bias_in_bios" / "train.jsonl", _bios())
    with pytest.raises(BeftError, match="bias_in_bios in the data folder has no test split"):
        g.biographies()


def _without(rows, column):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


BAD_BIOS = {
    "no gender": (
        _without(_bios(), "gender"),
        _bios(),
        "train.jsonl lacks the column 'gender' .*TPR gap needs.*add it",
    ),
    "no gender in test": (_bios(), _without(_bios(), "gender"), "test.jsonl lacks the column 'gender'"),
    "no text": (_without(_bios(), "text"), _bios(), "train.jsonl lacks the column 'text'"),
    "no label": (_without(_bios(), "label"), _bios(), "train.jsonl lacks the column 'label'"),
    "a third gender": (
        [*_bios(), _bios(1, gender=2)[0]],
        _bios(),
        "row 13 of .*train.jsonl has the gender 2, .*two",
    ),
    "an empty gender": ([*_bios(), _bios(1, gender=None)[0]], _bios(), "row 13 of .* has the gender None"),
    "half a gender": ([*_bios(), _bios(1, gender=0.5)[0]], _bios(), "row 13 of .* has the gender 0.5"),
    "empty text": ([*_bios(), _bios(1, text=" ")[0]], _bios(), "row 13 of .* has an empty 'text'"),
    "empty label": ([*_bios(), _bios(1, label="")[0]], _bios(), "row 13 of .* has an empty label"),
    "a label of test alone": (
        _bios(),
        _bios(6, label="dj"),
        "row 1 of .*test.jsonl has the label 'dj': use those of tr",
    ),
    "one class": (_bios(label="dj"), _bios(6, label="dj"), "no training row of .* has another label than dj"),
    "one gender in test": (_bios(), _bios(gender=1), "all test rows of .* are of one gender"),
    "no rows": (_bios(), [], "test.jsonl has no rows"),
}


@pytest.mark.parametrize("case", BAD_BIOS)
def test_unusable_biographies_are_refused_in_one_sentence(tmp_path, case):
    train, test, message = BAD_BIOS[case]
    with pytest.raises(BeftError, match=message) as caught:
        g.biographies(_folder(tmp_path, train, test))
    assert "\n" not in str(caught.value)


def test_bad_rows_of_a_single_file_are_named_by_their_place_in_it(tmp_path):
    rows = _bios(40)
    rows[33]["gender"] = "unknown"
    with pytest.raises(BeftError, match="row 34 of bios.csv has the gender 'unknown'"):
        g.biographies(_write(tmp_path / "bios.csv", rows))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "'nowhere' is no folder, and no file that ends in a known way: a data file must end in .csv"),
        ("nowhere.csv", "there is no file 'nowhere.csv'"),
    ],
)
def test_sources_that_do_not_exist_are_named(source, message):
    with pytest.raises(BeftError, match=message):
        g.biographies(source)


def test_a_folder_without_a_split_is_refused(tmp_path):
    _write(tmp_path / "train.csv", _bios())
    with pytest.raises(BeftError, match="has no test or validation split: add test.jsonl"):
        g.biographies(tmp_path)


# --- hate speech --------------------------------------------------------------------------------------------


def test_sentences_come_with_the_identifiers_that_they_mention(tmp_path):
    got = g.hate_speech(_folder(tmp_path, _posts(12), _posts(6)), ["jews", "women"])
    assert got.groups["validation"] == (("jews",), ("women",), (), ("jews",), ("women",), ())
    assert len(got.groups["train"]) == len(got.data.train) == 12
    assert got.data.task.labels == ("harmless", "hate") and got.data.task.metrics == ("f1", "accuracy")
    assert got.data.validation.labels.tolist() == [0, 1] * 3
    labels = got.data.validation.labels
    assert fpr_difference(labels, labels, got.groups["validation"]) == 0


def test_labels_by_name_are_those_by_number(tmp_path):
    named = [row | {"label": g.HATE[row["label"]]} for row in _posts()]
    one = g.hate_speech(_folder(tmp_path / "a", named, named), ["jews"])
    other = g.hate_speech(_folder(tmp_path / "b", _posts(), _posts()), ["jews"])
    assert one.data.fingerprint == other.data.fingerprint


def test_a_single_file_of_sentences_keeps_mentions_with_their_rows(tmp_path):
    got = g.hate_speech(_write(tmp_path / "ghc.tsv", _posts(60)), ["jews", "women"])
    for split, part in (("train", got.data.train), ("validation", got.data.validation)):
        assert got.groups[split] == g.mentions([text for (text,) in part.rows], ["jews", "women"])
    assert (len(got.data.train), len(got.data.validation)) == (48, 12)


def test_mentions_are_whole_words_in_any_case():
    texts = [
        "The JEWS, and women.",
        "Jewson, superwomen and a womens' club",
        "anti-gay",
        "African American art",
        "",
    ]
    mentioned = g.mentions(texts, ["women", "jews", "gay", "african american", "C++"])
    assert mentioned == (("women", "jews"), (), ("gay",), ("african american",), ())
    assert g.mentions(["I write C++ daily"], ["c++"]) == (("c++",),)


@given(st.lists(st.sampled_from(["women", "jews", "womens", "x", "Jews"])), st.booleans())
def test_a_sentence_mentions_an_identifier_exactly_if_it_is_one_of_its_words(words, upper):
    text = " ".join(words)
    (mentioned,) = g.mentions([text.upper() if upper else text], ["women", "jews"])
    assert mentioned == tuple(w for w in ("women", "jews") if w in [word.lower() for word in words])


@pytest.mark.parametrize(
    ("train", "test", "identifiers", "message"),
    [
        (
            _posts(),
            _posts(),
            ["dogs", "birds"],
            "no test row of folder .* mentions dogs, birds: give identifiers that",
        ),
        (_posts(), [row for row in _posts() if "cats" in row["text"]], ["jews"], "no test row of folder"),
        (_posts(), _posts(), [], "one or more identifiers are needed"),
        (_posts(), _posts(), ["jews", ""], "none of them empty"),
        (_posts(), _posts(), "jews", "give a list of words"),
        (
            [*_posts(), {"text": "x", "label": 2}],
            _posts(),
            ["jews"],
            "row 13 of .* has the label '2': use harmless, ha",
        ),
        (
            [row | {"label": 0} for row in _posts()],
            _posts(),
            ["jews"],
            "no training row of .* has the label hate",
        ),
        (_without(_posts(), "label"), _posts(), ["jews"], "lacks the column 'label'"),
    ],
)
def test_unusable_sentences_are_refused(tmp_path, train, test, identifiers, message):
    with pytest.raises(BeftError, match=message):
        g.hate_speech(_folder(tmp_path, train, test), identifiers)


def test_hate_speech_is_looked_for_in_the_data_folder_alone(tmp_path, monkeypatch):
    with pytest.raises(BeftError, match="the hub has no such set: set BEFT_DATA to .* hate_speech/train.jsonl"):
        g.hate_speech(None, ["jews"])
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    _folder(tmp_path / "hate_speech", _posts(12), _posts(6))
    assert len(g.hate_speech(None, ["jews"], offline=True).data.validation) == 6


# --- natural language inference -----------------------------------------------------------------------------


def test_pairs_keep_mnlis_codes_whether_written_as_numbers_or_names(tmp_path):
    names = ("entailment", "neutral", "contradiction")
    one = g.nli(_folder(tmp_path / "a", _pairs(), _pairs(6)))
    other = g.nli(_folder(tmp_path / "b", _pairs(labels=names), _pairs(6, labels=names)))
    assert one.fingerprint == other.fingerprint and one.task.labels == names == tasks.TASKS["mnli"].labels
    assert one.train.rows[0] == ("p 0", "h 0") and one.validation.labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_pairs_of_a_single_file_keep_the_codes_too(tmp_path):
    got = g.nli(_write(tmp_path / "nli.csv", _pairs(30, labels=("neutral", "contradiction", "entailment"))))
    codes = {f"p {i}": (1, 2, 0)[i % 3] for i in range(30)}
    for part in (got.train, got.validation):
        assert [codes[p] for p, _ in part.rows] == part.labels.tolist()
    assert (len(got.train), len(got.validation)) == (24, 6)


def test_without_a_source_it_is_mnli_as_it_is_loaded_elsewhere(tmp_path, monkeypatch):
    for split in ("train", "validation_matched", "validation_mismatched"):
        _write(tmp_path / "glue" / "mnli" / f"{split}.jsonl", _pairs())
    with pytest.raises(BeftError, match="glue/mnli/train.jsonl"):
        g.nli(offline=True)
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    assert g.nli().fingerprint == data.load("mnli").fingerprint


def test_pairs_without_one_of_the_three_classes_are_refused(tmp_path):
    with pytest.raises(BeftError, match="no training row of .* has the label contradiction"):
        g.nli(_folder(tmp_path, _pairs(labels=(0, 1)), _pairs()))
    with pytest.raises(BeftError, match="row 3 of .*test.jsonl has the label '-1': use entailment, neutral"):
        g.nli(_folder(tmp_path, _pairs(), _pairs(labels=(0, 1, -1))))


# --- the micro-world ----------------------------------------------------------------------------------------


def test_generated_biographies_are_those_of_the_micro_world_with_their_gender():
    got = g.micro_biographies(200, 60, 0.8, 3, origin=0.4)
    for split, part, rows in (
        ("train", got.data.train, biographies("train", 200, 0.8, 3, origin=0.4)),
        ("validation", got.data.validation, biographies("validation", 60, 0.0, 3)),  # no link: even groups
    ):
        assert part.rows == tuple((b.text,) for b in rows) and part.labels.tolist() == [b.label for b in rows]
        assert got.groups[split].tolist() == [b.gender for b in rows]
    assert got.data.task.labels == OCCUPATIONS and got.data.task.name == "microworld_biographies"
    assert got.data.substitute and "strengths 0.8 and 0.4, seed 3" in got.data.source
    other = g.micro_biographies(200, 60, 0.8, 3, origin=0.4, axis="origin")
    assert other.data.fingerprint == got.data.fingerprint
    assert other.groups["train"].tolist() == [b.origin for b in biographies("train", 200, 0.8, 3, origin=0.4)]
    with pytest.raises(BeftError, match="unknown axis 'orign': did you mean origin"):
        g.micro_biographies(10, 10, 0.5, axis="orign")
    assert tpr_gap(got.data.validation.labels, got.data.validation.labels, got.groups["validation"]).rms == 0


def test_generated_posts_are_those_of_the_micro_world_with_their_group():
    got = g.micro_posts(200, 60, 0.5)
    rows = posts("validation", 60, 0.0)  # no link: even groups
    assert got.data.validation.rows == tuple((p.text,) for p in rows)
    assert got.groups["validation"] == tuple((p.identifier,) if p.identifier else () for p in rows)
    assert len(got.groups["train"]) == 200 and {w for words in got.groups["train"] for w in words} == {
        "northern",
        "southern",
    }
    assert got.data.task.metric == "f1" and got.data.substitute


@pytest.mark.parametrize("make", [g.micro_biographies, g.micro_posts])
def test_generated_tasks_can_be_drawn_and_differ_by_strength_and_seed(make):
    base = make(1500, 20, 0.5)
    assert base.data.task.regimes == {"low": 1000, "medium": 1500, "high": 1500}
    assert len(draw(base.data, "low", 0).train) == 1000
    prints = {made.data.fingerprint for made in (base, make(1500, 20, 0.6), make(1500, 20, 0.5, 1))}
    assert len(prints) == 3 and make(1500, 20, 0.5).data.fingerprint == base.data.fingerprint


@pytest.mark.parametrize("made", [g.micro_biographies(10, 10, 0.5), g.micro_posts(10, 10, 0.5)])
def test_every_metric_of_a_grouped_task_is_one_that_can_be_scored(made):
    labels = made.data.validation.labels
    assert all(tasks.score(metric, labels, labels) == 1 for metric in made.data.task.metrics)
