import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_files import write as _write
from small_files import write_text

from beft.data import sources as data
from beft.data.datasets import draw
from beft.errors import BeftError

REAL = Path(os.environ.get("BEFT_DATA") or Path(__file__).parents[3] / "shared" / "data")


@pytest.fixture(autouse=True)
def _no_folder_and_no_hub(monkeypatch):
    monkeypatch.delenv("BEFT_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def _rows(n=20, labels=("good", "bad")):
    return [{"text": f"sentence {i}", "label": labels[i % len(labels)]} for i in range(n)]


def _sst2(folder, train, validation, suffix=".jsonl"):
    home = folder / "glue" / "sst2"
    home.mkdir(parents=True)
    for split, rows in (("train", train), ("validation", validation)):
        _write(home / f"{split}{suffix}", rows)
    return folder


def _sentences(n=8, labels=(0, 1)):
    return [{"sentence": f"sentence {i}", "label": labels[i % len(labels)], "idx": i} for i in range(n)]


# --- a user's file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_user_file_of_each_kind_gives_the_same_rows(tmp_path, suffix):
    rows = [{"text": f'a "quoted", naïve NA {i}', "label": "ja" if i % 2 else "nein"} for i in range(20)]
    got = data.load(_write(tmp_path / f"reviews{suffix}", rows))
    assert got.task.name == "reviews" and got.task.labels == ("ja", "nein") and got.task.metric == "accuracy"
    texts = dict(zip((t for (t,) in got.train.rows), got.train.labels, strict=True))
    texts |= dict(zip((t for (t,) in got.validation.rows), got.validation.labels, strict=True))
    assert texts == {row["text"]: ("ja", "nein").index(row["label"]) for row in rows}
    assert got.train.labels.dtype == np.int64 and not got.substitute
    assert "20% cut" in got.source and str(tmp_path) not in got.source


def test_user_validation_is_a_fixed_stratified_fifth(tmp_path):
    path = _write(tmp_path / "a.csv", _rows(100, labels=("x", "x", "x", "y")))
    got, again = data.load(path), data.load(path)
    assert np.bincount(got.validation.labels).tolist() == [15, 5]
    assert np.bincount(got.train.labels).tolist() == [60, 20]
    assert not set(got.train.rows) & set(got.validation.rows)
    assert got.validation.rows == again.validation.rows and got.fingerprint == again.fingerprint


def test_fewer_validation_rows_of_a_users_file_are_other_rows_by_their_fingerprint(tmp_path):
    path = _write(tmp_path / "a.csv", _rows(50))
    whole, some, all_of_them = data.load(path), data.load(path, evaluated=4), data.load(path, evaluated=10)
    assert len(some.validation) == 4 and some.fingerprint != whole.fingerprint == all_of_them.fingerprint
    assert some.train.rows == whole.train.rows and some.summary == whole.summary + ", of which 4 are scored"
    assert whole.summary == all_of_them.summary


def test_smallest_user_file_has_every_class_in_both_splits(tmp_path):
    got = data.load(_write(tmp_path / "a.csv", _rows(4)))
    assert sorted(got.train.labels) == sorted(got.validation.labels) == [0, 1]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_whole_number_labels_are_coded_in_numeric_order(tmp_path, suffix):
    got = data.load(_write(tmp_path / f"a{suffix}", _rows(30, labels=(10, 2, -1))))
    assert got.task.labels == ("-1", "2", "10")


def test_small_user_file_uses_all_its_rows_under_every_named_regime(tmp_path):
    got = data.load(_write(tmp_path / "a.csv", _rows(50)))
    assert set(got.task.regimes.values()) == {40}
    assert sorted(draw(got, "low", 0).train) == list(range(40))
    with pytest.raises(BeftError, match="asks for 41 training rows but a has 40"):
        draw(got, 41, 0)


def test_text_that_looks_like_a_number_or_a_missing_value_stays_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(["007", "NA", "null", "1e3"])))
    got = data.load(str(path))
    assert {t for (t,) in got.train.rows + got.validation.rows} == {"007", "NA", "null", "1e3"}


def test_byte_order_mark_and_spaces_around_labels_do_no_harm(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb, x\nc,y \nd,y\n", encoding="utf-8-sig")
    assert data.load(str(path)).task.labels == ("x", "y")


BAD_ROWS = {
    "columns missing": (
        [{"review": "a", "stars": 1}, {"review": "b", "stars": 2}],
        "lacks the column 'text' and 'label' \\(it has 'review', 'stars'\\)",
    ),
    "label missing": ([*_rows(4), {"text": "e", "label": None}], "row 5 of bad.* has an empty label"),
    "label blank": ([*_rows(4), {"text": "e", "label": " "}], "row 5 of bad.* has an empty label"),
    "text missing": ([{"text": None, "label": "good"}, *_rows(4)], "row 1 of bad.* has an empty 'text'"),
    "text blank": ([*_rows(2), {"text": "  ", "label": "good"}], "row 3 of bad.* has an empty 'text'"),
    "one class": (
        _rows(4, labels=("good",)),
        "all rows of bad.* have the label 'good'.*at least two classes",
    ),
    "class of one": ([*_rows(4), {"text": "e", "label": "odd"}], "label 'odd' of bad.* has a single row"),
}


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named_in_one_sentence(tmp_path, case, suffix):
    rows, message = BAD_ROWS[case]
    with pytest.raises(BeftError, match=message) as caught:
        data.load(_write(tmp_path / f"bad{suffix}", rows))
    assert "\n" not in str(caught.value) and f"bad{suffix}" in str(caught.value)


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_file_without_rows_is_refused(tmp_path, suffix):
    path = tmp_path / f"none{suffix}"
    empty = {"csv": "text,label\n", "tsv": "text\tlabel\n", "jsonl": "\n", "json": "[]"}
    if suffix == ".parquet":
        pd.DataFrame({"text": [], "label": []}).to_parquet(path)
    else:
        write_text(path, empty[suffix.split(".")[1]])
    with pytest.raises(BeftError, match=f"none{suffix} has no rows"):
        data.load(str(path))


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_empty_file_is_refused(tmp_path, suffix):
    (tmp_path / f"none{suffix}").touch()
    with pytest.raises(BeftError, match=f"none{suffix}"):
        data.load(str(tmp_path / f"none{suffix}"))


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_missing_file_is_named(tmp_path, suffix):
    with pytest.raises(BeftError, match=f"there is no file '.*nowhere{suffix}'"):
        data.load(str(tmp_path / f"nowhere{suffix}"))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_file_in_another_encoding_is_refused(tmp_path, suffix):
    path = tmp_path / f"latin{suffix}"
    line = '{"text": "é", "label": 1}\n' if suffix == ".jsonl" else "text,label\né,1\n"
    path.write_bytes(line.encode("latin-1"))
    with pytest.raises(BeftError, match=f"latin{suffix} is not UTF-8"):
        data.load(str(path))


def test_corrupt_files_are_refused(tmp_path):
    parquet, lines, number = tmp_path / "a.parquet", tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    _write(parquet, _rows())
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(BeftError, match="a.parquet cannot be read"):
        data.load(str(parquet))
    lines.write_text('{"text": "a", "label": 1}\n{"text": "b", "la\n')
    with pytest.raises(BeftError, match="line 2 of a.jsonl is not JSON"):
        data.load(str(lines))
    number.write_text('{"text": "a", "label": 1}\n\n[1]\n')
    with pytest.raises(BeftError, match="line 3 of b.jsonl is no JSON object"):
        data.load(str(number))


@pytest.mark.parametrize("body", ["good, really,1\nbad,0\n", "good, really,1\nbad, really,0\n", "a,1\nb, c,0\n"])
def test_comma_in_an_unquoted_text_is_refused_not_cut(tmp_path, body):
    (tmp_path / "a.csv").write_text("text,label\n" + body)
    with pytest.raises(BeftError, match="a.csv cannot be read"):
        data.load(str(tmp_path / "a.csv"))


def test_label_or_text_of_another_kind_is_refused(tmp_path):
    with pytest.raises(BeftError, match="rows 2 and 4 of a.jsonl have the label 'good' where others are numbers"):
        data.load(_write(tmp_path / "a.jsonl", _rows(4, labels=(0.5, "good"))))
    with pytest.raises(BeftError, match="row 1 of b.jsonl has a int as 'text'"):
        data.load(_write(tmp_path / "b.jsonl", [{"text": 5, "label": 1}]))


def test_half_a_character_is_refused_before_a_tokenizer_meets_it(tmp_path):
    with pytest.raises(BeftError, match="row 3 of a.jsonl has half a character"):
        data.load(_write(tmp_path / "a.jsonl", [*_rows(2), {"text": "\ud83d", "label": "good"}]))


def test_file_of_an_unknown_kind_is_refused():
    with pytest.raises(BeftError, match="'reviews.xlsx' as a task: a data file must end in .csv, .tsv"):
        data.load("reviews.xlsx")


@pytest.mark.parametrize("suffix", data.USER_SUFFIXES)
def test_pairs_and_values_are_read_from_a_users_file(tmp_path, suffix):
    rows = [{"text_a": f"a {i}", "text_b": f"b {i}", "label": i / 2} for i in range(20)]
    got = data.load(_write(tmp_path / f"pairs{suffix}", rows))
    assert got.task.regression and got.task.metrics == ("spearman", "pearson") and got.task.outputs == 1
    values = dict(zip(got.train.rows + got.validation.rows, [*got.train.labels, *got.validation.labels], strict=True))
    assert values == {(f"a {i}", f"b {i}"): i / 2 for i in range(20)}
    assert (len(got.train), len(got.validation)) == (16, 4) and got.train.labels.dtype == np.float64


def test_whole_numbers_alone_stay_classes(tmp_path):
    got = data.load(_write(tmp_path / "a.jsonl", _rows(20, labels=(1.0, 2.0, 3.0))))
    assert got.task.labels == ("1", "2", "3")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text_a": "a", "label": i} for i in range(4)], "a.jsonl lacks the column 'text_b'"),
        ([{"text": "a", "label": v} for v in (0.5, 1.5, None, 2.0)], "row 3 of a.jsonl has an empty label"),
        ([{"text": "a", "label": v} for v in (0.5, 1.5, "nan", 2.0)], "row 3 of a.jsonl has the label 'nan'"),
        ([{"text": "a", "label": v} for v in (0.5, 0.5, 0.5, 0.5)], "a.jsonl has too few different labels"),
    ],
)
def test_unusable_pairs_and_values_are_refused(tmp_path, rows, message):
    with pytest.raises(BeftError, match=message):
        data.load(_write(tmp_path / "a.jsonl", rows))


def _task_folder(folder, task, **splits):
    home = folder / task
    home.mkdir(parents=True)
    for split, rows in splits.items():
        _write(home / f"{split}.jsonl", rows)
    return folder


def test_further_validation_splits_are_read_and_fingerprinted(tmp_path):
    def rows(n, word):
        return [{"premise": f"{word} {i}", "hypothesis": "it is", "label": i % 3} for i in range(n)]

    splits = {
        "train": rows(9, "x"),
        "validation_matched": rows(6, "y"),
        "validation_mismatched": rows(3, "z"),
    }
    got = data.load("mnli", folder=_task_folder(tmp_path / "one", "glue/mnli", **splits))
    assert list(got.further) == ["validation_mismatched"] and len(got.further["validation_mismatched"]) == 3
    assert got.validation.rows[0] == ("y 0", "it is")
    splits["validation_mismatched"] = rows(3, "w")
    other = data.load("mnli", folder=_task_folder(tmp_path / "two", "glue/mnli", **splits))
    assert other.fingerprint != got.fingerprint
    with pytest.raises(BeftError, match="glue/mnli/train.jsonl and validation_matched.jsonl"):
        data.load("mnli", offline=True)


def test_columns_named_together_are_joined_into_one_text(tmp_path):
    rows = [{"word": "bank", "sentence1": f"s {i}", "sentence2": "t", "label": i % 2} for i in range(4)]
    got = data.load("wic", folder=_task_folder(tmp_path, "super_glue/wic", train=rows, validation=rows))
    assert got.train.rows[0] == ("bank: s 0", "t")


def test_values_of_a_known_regression_may_be_whole_and_those_of_a_classification_may_not(tmp_path):
    rows = [{"sentence1": "a", "sentence2": f"b {i}", "label": float(i)} for i in range(4)]
    got = data.load("stsb", folder=_task_folder(tmp_path, "glue/stsb", train=rows, validation=rows))
    assert got.train.labels.tolist() == [0.0, 1.0, 2.0, 3.0]
    halves = [row | {"label": row["label"] / 2} for row in rows]
    with pytest.raises(BeftError, match="rows 2 and 4 of glue/rte/train.jsonl have the label 0.5"):
        data.load("rte", folder=_task_folder(tmp_path, "glue/rte", train=halves, validation=rows))
    same = [row | {"label": 2.5} for row in rows]
    with pytest.raises(BeftError, match="all rows of glue/stsb/validation.jsonl have the label 2.5"):
        data.load("stsb", folder=_task_folder(tmp_path / "b", "glue/stsb", train=rows, validation=same))


def test_training_split_without_one_of_the_classes_is_refused(tmp_path):
    rows = [{"premise": "a", "hypothesis": f"b {i}", "label": i % 2} for i in range(4)]
    with pytest.raises(BeftError, match="no training row of cb .* has the label neutral"):
        data.load("cb", folder=_task_folder(tmp_path, "super_glue/cb", train=rows, validation=rows))


# --- known tasks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", data.FOLDER_SUFFIXES)
def test_task_is_read_from_the_folder(tmp_path, suffix, monkeypatch):
    folder = _sst2(tmp_path, _sentences(8), _sentences(4), suffix)
    got = data.load("sst2", folder=folder)
    assert got.train.rows[1] == ("sentence 1",) and got.train.labels.tolist() == [0, 1] * 4
    assert (len(got.train), len(got.validation)) == (8, 4) and not got.substitute
    monkeypatch.setenv("BEFT_DATA", str(folder))
    assert data.load("sst2").fingerprint == got.fingerprint


def test_quotation_mark_in_a_glue_tsv_is_text(tmp_path):
    folder = _sst2(tmp_path, _sentences(), _sentences())
    (tmp_path / "glue" / "sst2" / "train.jsonl").unlink()
    (tmp_path / "glue" / "sst2" / "train.tsv").write_text('sentence\tlabel\n"good\t1\nbad"\t0\n')
    assert data.load("sst2", folder=folder).train.rows == (('"good',), ('bad"',))


def test_fingerprint_sees_texts_labels_and_splits(tmp_path):
    base = data.load("sst2", folder=_sst2(tmp_path / "a", _sentences(8), _sentences(4)))
    other = _sentences(8)
    other[0]["sentence"] += "!"
    text = data.load("sst2", folder=_sst2(tmp_path / "b", other, _sentences(4)))
    label = data.load("sst2", folder=_sst2(tmp_path / "c", _sentences(8, labels=(1, 0)), _sentences(4)))
    split = data.load("sst2", folder=_sst2(tmp_path / "d", _sentences(4), _sentences(8)))
    assert len({d.fingerprint for d in (base, text, label, split)}) == 4 and len(base.fingerprint) == 16


def test_task_that_is_nowhere_names_both_remedies(tmp_path, monkeypatch):
    for options in ({"folder": tmp_path}, {}, {"offline": True}):
        with pytest.raises(BeftError, match="set BEFT_DATA to a folder .*glue/sst2/train.jsonl.* or be online"):
            data.load("sst2", **options)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(BeftError, match="not asked while offline"):
        data.load("sst2", offline=True)


def test_unknown_task_names_the_nearest():
    with pytest.raises(BeftError, match="unknown task 'microworld_sentimet': did you mean microworld_sentiment"):
        data.load("microworld_sentimet")


def test_folder_that_does_not_exist_is_an_error_even_if_the_hub_could_help(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(BeftError, match="nowhere' .BEFT_DATA. does not exist"):
        data.load("sst2")


def test_folder_with_half_a_task_is_an_error(tmp_path):
    folder = _sst2(tmp_path, _sentences(), _sentences())
    (folder / "glue" / "sst2" / "validation.jsonl").unlink()
    with pytest.raises(BeftError, match="glue/sst2 in the data folder has no validation split"):
        data.load("sst2", folder=folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            _sentences(4, labels=(-1,)),
            r"row 1 of glue/sst2/validation.jsonl has the label '-1': .*0 \(negative\), 1",
        ),
        (_sentences(4, labels=(0, 2)), "row 2 of glue/sst2/validation.jsonl has the label '2'"),
        (_sentences(4, labels=("positive",)), "has the label 'positive'"),
        (_sentences(4, labels=(1,)), "all rows of glue/sst2/validation.jsonl have the label 1"),
        (_rows(4), "glue/sst2/validation.jsonl lacks the column 'sentence' .it has 'text', 'label'"),
        ([], "glue/sst2/validation.jsonl has no rows"),
    ],
)
def test_unusable_task_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(BeftError, match=message):
        data.load("sst2", folder=_sst2(tmp_path, _sentences(), rows))


def test_hub_comes_last_and_its_failure_is_one_sentence(tmp_path, monkeypatch):
    import datasets

    monkeypatch.delenv("HF_HUB_OFFLINE")
    requests = []

    def hub(*names):
        requests.append(names)
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(_sentences(n)) for split, n in (("train", 8), ("validation", 4))}
        )

    monkeypatch.setattr(datasets, "load_dataset", hub)
    from_hub = data.load("sst2", folder=tmp_path)
    assert requests == [("nyu-mll/glue", "sst2")] and "hub" in from_hub.source
    from_folder = data.load("sst2", folder=_sst2(tmp_path, _sentences(8), _sentences(4)))
    assert len(requests) == 1 and from_folder.fingerprint == from_hub.fingerprint

    def broken(*names):
        raise ConnectionError("no route to the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    with pytest.raises(BeftError, match="could not be had from the hub .no route to the hub.: set BEFT_DATA") as caught:
        data.load("sst2")
    assert "\n" not in str(caught.value)


def test_generated_task_needs_nothing_and_says_what_it_is():
    got = data.load("microworld_sentiment", offline=True)
    assert got.substitute and "generated" in got.source
    assert (len(got.train), len(got.validation)) == (4000, 500)
    assert not set(got.train.rows) & set(got.validation.rows)
    assert got.fingerprint == data.load("microworld_sentiment").fingerprint


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "glue" / "sst2").is_dir(), reason="no real SST-2: BEFT_DATA is not set")
def test_real_sst2_is_complete():
    got = data.load("sst2", folder=REAL)
    assert (len(got.train), len(got.validation)) == (67349, 872)
    assert np.bincount(got.validation.labels).tolist() == [428, 444]


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "glue" / "rte").is_dir(), reason="no real GLUE: BEFT_DATA is not set")
@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("rte", (2490, 277)),
        ("cola", (8551, 1043)),
        ("mrpc", (3576, 500)),
        ("stsb", (5749, 1500)),
        ("cb", (250, 56)),
        ("wic", (5228, 200)),
    ],
)
def test_real_tasks_are_read_whole(task, rows):
    got = data.load(task, folder=REAL)
    assert (len(got.train), len(got.validation)) == rows
    assert not got.task.regression or (got.train.labels.min(), got.train.labels.max()) == (0.0, 5.0)


# --- drawing ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return data.load("microworld_sentiment")


@pytest.mark.parametrize(("regime", "n"), [("low", 1000), ("medium", 2000), ("all", 4000), (37, 37)])
def test_draw_is_the_first_n_of_numpys_permutation(world, regime, n):
    for seed in (0, 7):
        drawn = draw(world, regime, seed)
        np.testing.assert_array_equal(drawn.train, np.random.RandomState(seed).permutation(4000)[:n])
        assert drawn.tuning.size == 0


def test_tuning_part_is_cut_from_the_regime(world):
    whole, cut = draw(world, 130, 3), draw(world, 130, 3, tuning=0.2)
    assert (len(cut.train), len(cut.tuning)) == (104, 26)
    np.testing.assert_array_equal(np.concatenate([cut.train, cut.tuning]), whole.train)


@pytest.mark.parametrize(
    ("regime", "seed", "tuning", "message"),
    [
        ("lo", 0, 0.0, "unknown regime of microworld_sentiment 'lo': did you mean low"),
        (4001, 0, 0.0, "asks for 4001 training rows but microworld_sentiment has 4000"),
        (0, 0, 0.0, "regime 0 is no number of rows"),
        (True, 0, 0.0, "regime True is no number of rows"),
        (0.5, 0, 0.0, "regime 0.5 is no number of rows"),
        (100, 0, 0.6, "tuning share 0.6 is out of range"),
        (100, 0, -0.1, "tuning share -0.1 is out of range"),
        (100, 0, float("nan"), "tuning share nan is out of range"),
        (3, 0, 0.1, "a tuning share of 0.1 of 3 rows is no row at all"),
        (1, 0, 0.0, "are all of one class"),
        (100, -1, 0.0, "seed -1 cannot be used"),
    ],
)
def test_bad_draws_are_refused(world, regime, seed, tuning, message):
    with pytest.raises(BeftError, match=message):
        draw(world, regime, seed, tuning)


def test_named_regime_larger_than_the_data_is_refused(tmp_path):
    got = data.load("sst2", folder=_sst2(tmp_path, _sentences(8), _sentences(4)))
    with pytest.raises(BeftError, match="regime 'low' asks for 1000 training rows but sst2 has 8"):
        draw(got, "low", 0)


@pytest.mark.parametrize("value", ["1", "on", "ON", "yes", "Yes", "true", "TRUE"])
def test_the_environment_switches_the_hub_off(value, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert data.hub_is_offline(False)


@pytest.mark.parametrize("value", [None, "", "0", "no", "off"])
def test_otherwise_the_argument_decides(value, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert data.hub_is_offline(True) and not data.hub_is_offline(False)
