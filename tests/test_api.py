"""One's own data in five lines."""

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForSequenceClassification

import beft
from beft import api
from beft.bank import peft_adapter as adapters
from beft.data import sources
from beft.models import loading as models


def write(path, rows):
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def reviews(tmp_path, sentiment):
    names = ["bad", "good", "mixed"]
    rows = [(f'"{text[0]}"', names[i % 3]) for i, text in enumerate(sentiment.train.rows[:60])]
    return write(tmp_path / "reviews.csv", rows)


def test_a_file_becomes_a_model_an_adapter_and_predictions(reviews, tmp_path):
    tuned = beft.tune(
        reviews, model=models.TINY, epochs=2, rate=1e-2, adapter=tmp_path / "a", offline=True, progress=False
    )
    assert tuned.labels == ("bad", "good", "mixed")
    assert 0 <= tuned.score <= 1
    texts = ["the clock was slow", "nobody liked it"]
    answers = tuned.predict(texts)
    assert set(answers) <= set(tuned.labels)
    tuned.save(tmp_path / "plain")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    expected = beft.predict(tuned.model, tuned.tokenizer, texts)
    assert beft.predict(again, tuned.tokenizer, texts) == pytest.approx(expected, abs=1e-6)
    base = models.load(models.TINY, labels=3)
    peft = adapters.load_tuned(base.model, tmp_path / "a")
    assert beft.predict(peft, base.tokenizer, texts) == pytest.approx(expected, abs=1e-5)


def test_pairs_with_values_become_a_regression_that_predicts_values(tmp_path):
    lines = [f"the door was shut {i},the door was open,{i / 4}" for i in range(24)]
    path = tmp_path / "pairs.csv"
    path.write_text("text_a,text_b,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    tuned = beft.tune(
        str(path),
        model=models.TINY,
        epochs=2,
        rate=1e-2,
        adapter=tmp_path / "a",
        offline=True,
        progress=False,
    )
    assert tuned.labels == () and (tuned.score is None or -1 <= tuned.score <= 1)
    pairs = [("the door was shut", "it was open"), ("a", "b")]
    values = tuned.predict(pairs)
    assert len(values) == 2 and all(isinstance(value, float) for value in values)
    tuned.save(tmp_path / "plain")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain").eval()
    assert beft.predict(again, tuned.tokenizer, pairs)[:, 0].tolist() == pytest.approx(values, abs=1e-5)
    base = models.load(models.TINY, labels=1)
    peft = adapters.load_tuned(base.model, tmp_path / "a")
    assert beft.predict(peft, base.tokenizer, pairs)[:, 0].tolist() == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize("kind", ["a checkpoint", "an adapter"])
def test_what_was_saved_is_loaded_to_the_same_predictions(reviews, tmp_path, kind):
    folder = tmp_path / "a"
    keep = {"adapter": folder} if kind == "an adapter" else {}
    tuned = beft.tune(
        reviews, model=models.TINY, epochs=1, rate=1e-2, max_length=np.int64(40), offline=True, progress=False, **keep
    )
    if not keep:
        tuned.save(folder)
    again = beft.Tuned.load(folder, offline=True)
    assert (again.labels, again.columns, again.max_length) == (tuned.labels, ("text",), 40) and again.score is None
    texts = ["the clock was slow", "nobody liked it"]
    assert again.probabilities(texts) == pytest.approx(tuned.probabilities(texts), abs=1e-6)
    assert again.model.config.id2label == dict(enumerate(tuned.labels))


def test_the_largest_class_of_the_validation_rows_is_known(reviews):
    tuned = beft.tune(reviews, model=models.TINY, epochs=1, offline=True, progress=False)
    assert tuned.metric == "accuracy" and tuned.majority == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"learning_rate": 1e-3}, "unknown setting of tune 'learning_rate': learning_rate is called rate here"),
        ({"n_epochs": 3}, "n_epochs is called epochs here"),
        ({"model_name": "x"}, "model_name is called model here"),
        ({"output_dir": "x"}, "output_dir is called adapter here"),
        ({"adaptor": "x"}, "unknown setting of tune 'adaptor': did you mean adapter"),
        ({"prompted": True}, "takes no prompted=: run Study"),
        ({"rate": "fast"}, "rate 'fast' is not a positive number"),
        ({"epochs": 0}, "epochs 0 is not a whole number"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_is_read(named, says):
    with pytest.raises(beft.BeftError, match=says):
        beft.tune("no such file.csv", **named)


@pytest.mark.parametrize("task", [None, 3, ["a"], b"reviews.csv"])
def test_what_is_no_task_is_refused(task):
    with pytest.raises(beft.BeftError, match=f"cannot tune on {type(task).__name__}"):
        beft.tune(task)


def test_how_a_file_is_read_is_handed_on_where_it_is_given_and_what_was_read_is_printed(reviews, monkeypatch, capsys):
    asked, real = [], sources.load

    def load(task, **given):
        asked.append((task, given))
        rows = real(task, offline=True)
        object.__setattr__(rows, "summary", "reviews: 60 rows")
        return rows

    monkeypatch.setattr(api.data_module, "load", load)
    more = {"kind": "classes", "drop": ["blank"], "validation": pd.DataFrame(), "columns": {"text": "review"}}
    beft.tune(reviews, model=models.TINY, epochs=1, **more)
    assert "reviews: 60 rows" in capsys.readouterr().out
    beft.tune(reviews, model=models.TINY, epochs=1, progress=False)
    assert asked[0][0] == reviews and asked[0][1]["validation"] is more["validation"]
    assert asked[0][1].keys() == {"offline", *more} and asked[1] == (reviews, {"offline": False})
    assert capsys.readouterr().out == ""


def test_no_more_validation_rows_are_scored_than_asked_for(reviews):
    tuned = beft.tune(reviews, model=models.TINY, epochs=1, evaluated=5, offline=True, progress=False)
    assert tuned.result.rows["validation"] == 5


def test_what_is_printed_says_where_the_adapter_is_and_how_it_is_loaded(reviews, tmp_path, capsys):
    beft.tune(reviews, model=models.TINY, epochs=1, offline=True, adapter=tmp_path / "a")
    read, where, *code = capsys.readouterr().out.splitlines()
    assert read.startswith("reviews.csv: 60 rows, 3 classes")
    assert where == f"the adapter is in {tmp_path / 'a'}, and loaded by" and "beft.load_tuned(" in code[-1]


def test_an_interrupt_is_a_sentence_without_what_was_interrupted(reviews, tmp_path, monkeypatch):
    def interrupt(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("beft.training.loop.train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt, match="beft.tune was interrupted before its end: call it again") as caught:
        beft.tune(reviews, model=models.TINY, adapter=tmp_path / "a", offline=True, progress=False)
    assert len(caught.traceback) == 2 and caught.value.__context__ is None and not (tmp_path / "a").exists()


def test_a_folder_that_is_a_file_is_refused(reviews, tmp_path):
    tuned = beft.tune(reviews, model=models.TINY, epochs=1, offline=True, progress=False)
    with pytest.raises(beft.BeftError, match="reviews.csv is not a folder: give another"):
        tuned.save(reviews)


def test_a_run_that_diverges_says_so(reviews):
    with pytest.raises(beft.BeftError, match="smaller rate"):
        beft.tune(reviews, model=models.TINY, epochs=1, rate=1e9, offline=True, progress=False)


def test_every_public_name_is_there():
    for name in beft.__all__:
        assert getattr(beft, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = beft.nothing
