"""A user's own rows are read as they were meant, or refused with the remedy: no row, mark or class is lost or made up.

What was read, merged and left out is said in one line, and no text is both learned from and tested on.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
from small_files import write, write_text

from beft.data.sources import load, load_prompts
from beft.errors import BeftError


def texts_of(data):
    return [row[0] for row in data.train.rows + data.validation.rows]


def named(data):
    """Text -> name of its class."""
    labels = np.concatenate([data.train.labels, data.validation.labels])
    return {text: data.task.labels[code] for text, code in zip(texts_of(data), labels, strict=True)}


def rows_with(labels):
    return [{"text": f"sentence {i}", "label": label} for i, label in enumerate(labels)]


# --- quotation marks, separators, encodings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        [f'"Great {i}' for i in range(8)],
        [f'"Great" {i}' for i in range(8)],
        [f'"begins {i}' if i % 2 else f'ends {i}"' for i in range(8)],
        [f'ends {i}"' if i % 2 else f'"begins {i}' for i in range(8)],
        [f'{i} is 5" long' for i in range(8)],
    ],
)
@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_a_tsv_whose_texts_have_bare_quotation_marks_keeps_every_row_and_mark(tmp_path, texts, suffix):
    lines = [f"{text}\t{'good' if i % 4 < 2 else 'bad'}\n" for i, text in enumerate(texts)]
    data = load(write_text(tmp_path / f"a{suffix}", "text\tlabel\n" + "".join(lines)))
    assert sorted(texts_of(data)) == sorted(texts)


def test_backslash_escaped_quotation_marks_are_marks_and_other_backslashes_stay(tmp_path):
    lines = [rf'"He said \"no {i}\", and left C:\new \\ here",{"ab"[i % 2]}' for i in range(6)]
    data = load(write_text(tmp_path / "a.csv", "text,label\n" + "\n".join(lines) + "\n"))
    assert sorted(texts_of(data)) == [rf'He said "no {i}", and left C:\new \ here' for i in range(6)]
    assert "backslashes" in data.summary


def test_quotation_marks_that_no_rule_explains_are_refused_with_the_line(tmp_path):
    body = "".join(f'"Hello, world {i}",good\n"Bye, world {i}",bad\n' for i in range(3))
    path = write_text(tmp_path / "a.csv", f'text,label\n{body}"Hel"lo, you",good\n')
    with pytest.raises(BeftError, match="a quotation mark in the row that begins in line 8 neither ends a field"):
        load(path)


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "vertical bar")])
def test_another_separator_is_seen_and_told(tmp_path, separator, name):
    frame = pd.DataFrame(rows_with(["a", "b"] * 4)).assign(text=[f'one, two "{i}"' for i in range(8)])
    data = load(write_text(tmp_path / "a.csv", frame.to_csv(index=False, sep=separator)))
    assert sorted(texts_of(data)) == [f'one, two "{i}"' for i in range(8)]
    assert f"in a.csv a {name} separates the columns" in data.summary


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv.gz", ".jsonl", ".json.gz"])
def test_encodings_with_a_byte_order_mark_are_read(tmp_path, encoding, suffix):
    plain = write(tmp_path / f"plain{suffix.removesuffix('.gz')}", rows_with(["gut", "böse"] * 4))
    text = (tmp_path / plain).read_text(encoding="utf-8")
    data = load(write_text(tmp_path / f"a{suffix}", text, encoding))
    assert data.task.labels == ("böse", "gut") and data.fingerprint == load(plain).fingerprint


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_read(tmp_path, ends):
    text = "".join(f"{line}{ends}" for line in ["text,label", "a,x", "b,y", "c,x", "d,y"])
    assert named(load(write_text(tmp_path / "a.csv", text))) == {"a": "x", "b": "y", "c": "x", "d": "y"}


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    rows = rows_with(["ja", "nein"] * 5)
    kinds = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".json.gz")
    data = [load(write(tmp_path / f"a{kind}", rows)) for kind in kinds] + [load(pd.DataFrame(rows))]
    assert len({(one.fingerprint, one.task.labels) for one in data}) == 1
    assert {one.task.name for one in data} == {"a", "data frame"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"", "save the sheet as .csv"),
        ("a.zip", b"", "unpack it first"),
        ("a.pkl", b"", "to_parquet"),
        ("a.txt", b"", "write its rows as .csv or .jsonl"),
        ("a.csv", "text,label\na,b\n".encode("utf-16-le"), "UTF-16 without a byte order mark: save it as UTF-8"),
        ("a.csv", b"text,label\na,b\nc\0,d\n", "zero byte in line 3: save it as UTF-8"),
        ("a.csv", b"\x1f\x8b\x08\0", "packed with gzip: let its name end in .gz"),
        ("a.csv.gz", b"text,label\n", "is not packed: leave .gz out"),
        ("a.csv.gz", b"\x1f\x8b\x08\0\0", "cannot be read"),
        ("a.json", b'{"text": "a", "label": 1}', r"is no list of JSON objects: write it as \[\{column: value\}"),
    ],
)
def test_what_is_not_read_is_refused_with_the_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BeftError, match=message) as caught:
        load(str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", "frame"])
def test_two_columns_of_one_name_are_refused(tmp_path, suffix):
    frame = pd.DataFrame([["a", 1, 2], ["b", 2, 1]], columns=["text", "label", "label"])
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        path.write_text('{"text": "a", "label": 1, "label": 2}\n')
    elif suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        columns = [pa.array(["a", "b"]), pa.array([1, 2]), pa.array([2, 1])]
        parquet.write_table(pa.Table.from_arrays(columns, names=["text", "label", "label"]), path)
    elif suffix != "frame":
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    with pytest.raises(BeftError, match="more than one column 'label': rename or remove all but one"):
        load(frame if suffix == "frame" else str(path))


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "told"),
    [
        (["1", "0"] * 5 + ["1.0", "0"], ("0", "1"), "1.0 (1) counted as 1"),
        (
            ["Positive", "negative"] * 5 + ["positive", " negative "],
            ("Positive", "negative"),
            "positive (1) counted as Positive",
        ),
        (["True", "False"] * 4 + ["true", "FALSE"], ("False", "True"), "true (1) counted as True"),
        (["good", "bad"] * 4 + ["Good", "GOOD"], ("bad", "good"), "Good (1) and GOOD (1) counted as good"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_that_mean_the_same_are_one_class_and_that_is_told(tmp_path, labels, classes, told, suffix):
    data = load(write(tmp_path / f"a{suffix}", rows_with(labels)))
    assert data.task.labels == classes and told in data.summary and told in data.source
    counts = np.bincount(np.concatenate([data.train.labels, data.validation.labels])).tolist()
    assert sum(counts) == len(labels) and f"{classes[0]} ({counts[0]}), {classes[1]} ({counts[1]})" in data.summary


def test_booleans_and_their_names_are_one_class(tmp_path):
    data = load(write(tmp_path / "a.jsonl", rows_with([True, False] * 4 + ["true", "false"])))
    assert data.task.labels == ("False", "True")


@pytest.mark.parametrize("marker", ["NaN", "nan", "None", "null", "NA", "N/A", ""])
def test_texts_that_stand_for_a_missing_label_are_no_class(tmp_path, marker):
    path = write_text(tmp_path / "a.csv", "text,label\n" + "".join(f"t{i},{'xy'[i % 2]}\n" for i in range(6)))
    with open(path, "a") as file:
        file.write("".join(f"t{i},{marker}\n" for i in range(6, 18)))
    with pytest.raises(BeftError, match=r"rows 7, 8, .*, 16 and 2 more \(12 in all\) of a.csv have .*drop='blank'"):
        load(path)
    data = load(path, drop="blank")
    assert data.task.labels == ("x", "y") and len(texts_of(data)) == 6
    assert "12 blank rows left out (rows 7, 8" in data.summary and "a.csv: 18 rows" in data.summary
    if marker:
        assert load(path, kind="classes").task.labels == tuple(sorted(["x", "y", marker]))


def test_none_is_a_class(tmp_path):
    assert load(write(tmp_path / "a.csv", rows_with(["none", "some"] * 4))).task.labels == ("none", "some")


def test_decimal_commas_are_refused_until_the_kind_is_said(tmp_path):
    path = write(tmp_path / "a.csv", rows_with(["3,5", "2", "4,25", "1,5", "2", "0,5", "7,5", "1", "2,5", "9,5"]))
    with pytest.raises(BeftError, match="rows 1, 3, 4, 6, .* with a decimal comma: .*kind='values' or kind='classes'"):
        load(path)
    data = load(path, kind="values")
    assert sorted([*data.train.labels, *data.validation.labels]) == [0.5, 1, 1.5, 2, 2, 2.5, 3.5, 4.25, 7.5, 9.5]
    thousands = write(tmp_path / "b.csv", rows_with(["1,000", "2,500", "3", "4"]))
    with pytest.raises(BeftError, match="whose comma may stand for thousands"):
        load(thousands, kind="values")


def test_one_half_among_whole_numbers_does_not_make_a_regression(tmp_path):
    labels = [1, 2, 3, 4] * 6 + [4.5, 4.5]
    for many in (labels, labels[:-1]):
        path = write(tmp_path / "a.csv", rows_with(many))
        with pytest.raises(BeftError, match=r"rows? 25 .*'4.5' where nearly all are whole.*kind='values' or kind='cl"):
            load(path)
    path = write(tmp_path / "a.jsonl", rows_with(labels))
    assert load(path, kind="values").task.regression
    assert load(path, kind="classes").task.labels == ("1", "2", "3", "4", "4.5")
    whole = write(tmp_path / "b.csv", rows_with(range(20)))
    with pytest.raises(BeftError, match="'0', '1', .* and 10 more of b.csv has a single row each.* kind='values'"):
        load(whole)
    assert load(whole, kind="values").task.regression


def test_classes_of_one_row_can_be_left_out(tmp_path):
    path = write(tmp_path / "a.csv", rows_with(["x", "y"] * 4 + ["odd", "other"]))
    with pytest.raises(BeftError, match="label 'odd', 'other' of a.csv has a single row each.*drop='rare'"):
        load(path)
    data = load(path, drop=["rare"])
    assert data.task.labels == ("x", "y") and "2 classes of one text left out (odd, other; 2 rows)" in data.summary


def test_all_bad_rows_are_named_at_once(tmp_path):
    rows = rows_with(["x", "y"] * 8)
    for i in (1, 4, 5):
        rows[i]["text"] = " "
    for i in (3, 5):
        rows[i]["label"] = None
    with pytest.raises(BeftError, match="rows 2, 5 and 6 of a.* an empty 'text', and rows 4 and 6 of a.* an empty lab"):
        load(write(tmp_path / "a.jsonl", rows))
    assert len(texts_of(load(str(tmp_path / "a.jsonl"), drop=("blank",)))) == 12


# --- repeated texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [False, True])
def test_a_repeated_text_is_never_on_both_sides(tmp_path, pairs):
    texts = [f"t {i % 30}" for i in range(90)]
    rows = [{"text": text, "label": "xy"[int(text[2:]) % 2]} for text in texts]
    if pairs:
        rows = [{"text_a": row["text"], "text_b": "same", "label": row["label"]} for row in rows]
    data = load(write(tmp_path / "a.csv", rows))
    assert (len(data.train), len(data.validation)) == (72, 18)
    assert not set(data.train.rows) & set(data.validation.rows)
    assert "60 rows with the text of another" in data.summary
    once = load(str(tmp_path / "a.csv"), drop="duplicates")
    assert (len(once.train), len(once.validation)) == (24, 6) and "60 duplicate rows left out" in once.summary
    assert once.fingerprint != data.fingerprint


def test_texts_with_two_labels_are_told(tmp_path):
    rows = [*rows_with(["x", "y"] * 6), {"text": "sentence 3", "label": "x"}]
    data = load(write(tmp_path / "a.csv", rows))
    assert "1 text with different labels (rows 4 and 13 of a.csv)" in data.summary
    assert not set(data.train.rows) & set(data.validation.rows)


# --- given validation rows ----------------------------------------------------------------------------------------


def _splits():
    return rows_with(["good", "bad"] * 6), [{"text": f"new {i}", "label": ("Bad", "good")[i % 2]} for i in range(4)]


def test_a_validation_file_folder_frame_or_mapping_is_the_validation_split(tmp_path):
    train, test = _splits()
    file, other = write(tmp_path / "reviews.csv", train), write(tmp_path / "held.jsonl", test)
    folder = tmp_path / "reviews"
    write(folder / "train.tsv", train)
    write(folder / "dev.csv.gz", test)
    frames = {"train": pd.DataFrame(train), "validation": pd.DataFrame(test)}
    made = [
        load(file, validation=other),
        load(file, validation=frames["validation"]),
        load(str(folder)),
        load(frames),
        load(frames["train"], validation=other),
    ]
    assert len({one.fingerprint for one in made}) == 1 and [one.task.name for one in made[:3]] == ["reviews"] * 3
    data = made[0]
    assert [text for (text,) in data.validation.rows] == [f"new {i}" for i in range(4)]
    assert data.task.labels == ("bad", "good") and data.validation.labels.tolist() == [0, 1, 0, 1]
    assert len(data.train) == 12 and "12 rows to train on, 4 to validate (as in held.jsonl)" in data.summary


def test_training_rows_that_are_validation_rows_are_left_out_of_training(tmp_path):
    train, test = _splits()
    with pytest.warns(UserWarning, match="a.csv and b.csv overlap: 2 training rows that the validation rows have too"):
        data = load(write(tmp_path / "a.csv", train), validation=write(tmp_path / "b.csv", [*test, train[0], train[5]]))
    assert (len(data.train), len(data.validation)) == (10, 6) and not set(data.train.rows) & set(data.validation.rows)
    assert "2 training rows that the validation rows have too left out of training" in data.summary


def test_columns_that_are_not_read_may_hold_anything_in_training_and_validation_rows():
    train, test = (pd.DataFrame(rows) for rows in _splits())
    for frame in (train, test):
        frame["tokens"] = [np.arange(3) for _ in frame["text"]]
    assert len(load(train, validation=test).validation) == 4
    with pytest.raises(BeftError, match="hold the same rows: give validation rows that are not trained on"):
        load(train, validation=train.assign(tokens=[np.arange(2) for _ in train["text"]]))


def test_unusable_validation_rows_are_refused(tmp_path):
    train, test = _splits()
    file = write(tmp_path / "a.csv", train)
    with pytest.raises(BeftError, match="rows 5 and 6 of b.csv have the label 'new', which no training row has"):
        load(file, validation=write(tmp_path / "b.csv", test + [{"text": f"u{i}", "label": "new"} for i in (1, 2)]))
    with pytest.raises(
        BeftError, match="a.csv and c.csv hold the same rows: give validation rows that are not trained"
    ):
        load(file, validation=write(tmp_path / "c.csv", train))
    with pytest.raises(BeftError, match="every training row is among the validation rows"):
        load(file, validation=write(tmp_path / "d.csv", train[::-1]))
    with pytest.raises(BeftError, match="b.csv lacks the column 'text'"):
        load(file, validation=write(tmp_path / "b.csv", [{"review": "a", "label": "good"}]))
    write(tmp_path / "half" / "train.csv", train)
    with pytest.raises(BeftError, match="folder half has no validation split: add validation.csv"):
        load(str(tmp_path / "half"))
    for name in ("validation.csv", "dev.csv"):
        write(tmp_path / "half" / name, test)
    with pytest.raises(BeftError, match="folder half has validation.csv and dev.csv: remove all but one"):
        load(str(tmp_path / "half"))


# --- what is no file ----------------------------------------------------------------------------------------------


def test_a_data_set_of_the_datasets_package_keeps_the_names_of_its_classes():
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(8)]
    made = datasets.Dataset.from_list(rows, features=features)
    assert load(made).task.labels == ("no", "yes")
    both = datasets.DatasetDict({"train": made, "validation": made.map(lambda row: {"text": row["text"] + "!"})})
    assert [len(split) for split in (load(both).train, load(both).validation)] == [8, 8]


def test_other_names_of_columns_can_be_given(tmp_path):
    rows = [{"review": f"t{i}", "stars": i % 2, "text_a": "id"} for i in range(8)]
    data = load(write(tmp_path / "a.csv", rows), columns={"text": "review", "label": "stars"})
    assert sorted(texts_of(data)) == [f"t{i}" for i in range(8)] and data.task.labels == ("0", "1")
    with pytest.raises(BeftError, match="lacks the column 'title'"):
        load(str(tmp_path / "a.csv"), columns={"text": "title"})


@pytest.mark.parametrize("task", ["https://host/reviews.csv", "hf://datasets/me/reviews", "s3://b/reviews.parquet"])
def test_a_url_is_refused_as_one(task):
    with pytest.raises(BeftError, match="is a URL: download the file and give its path"):
        load(task)


@pytest.mark.parametrize("task", ["reviews.csv", pd.DataFrame(rows_with(["x", "y"] * 3))])
def test_rows_of_ones_own_cannot_be_prompted_without_a_prompt(task):
    with pytest.raises(BeftError, match=r"cannot be prompted without a prompt: give template='\{text\}"):
        load_prompts(task)


@pytest.mark.parametrize("task", [None, 5, b"a.csv", ["a", "b"], {"a": 1}, {}])
def test_anything_else_is_refused_in_one_sentence(task):
    with pytest.raises(BeftError):
        load(task)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "regression"}, "unknown kind 'regression'"),
        ({"drop": "duplicate"}, "did you mean duplicates"),
        ({"drop": 5}, "unknown kind of rows to drop '5'"),
        ({"columns": "review"}, "is no mapping"),
        ({"columns": {"txt": "review"}}, "did you mean text"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(BeftError, match=message):
        load(pd.DataFrame(rows_with(["x", "y"] * 3)), **options)


def test_options_of_ones_own_rows_are_refused_for_a_known_task():
    with pytest.raises(BeftError, match="kind and drop can be given for rows of one's own, not for the task 'sst2'"):
        load("sst2", kind="classes", drop="blank")


def test_the_summary_is_one_line_that_goes_wherever_the_rows_go(tmp_path):
    data = load(write(tmp_path / "reviews.csv", rows_with(["good", "bad"] * 10)))
    assert pickle.loads(pickle.dumps(data)).summary == data.summary
    assert data.summary == (
        "reviews.csv: 20 rows, 2 classes: bad (10), good (10); 16 rows to train on, 4 to validate (a fixed fifth)"
    )
    odd = load(write(tmp_path / "odd.jsonl", rows_with(["a\nb", "c, d"] * 4)))
    assert "\n" not in odd.summary and r"'a\nb' (4), 'c, d' (4)" in odd.summary
