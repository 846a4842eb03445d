"""One's own data in five lines."""

import pytest
from transformers import AutoModelForSequenceClassification

import beft
from beft.bank import peft_adapter as adapters
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


def test_a_run_that_diverges_says_so(reviews):
    with pytest.raises(beft.BeftError, match="smaller rate"):
        beft.tune(reviews, model=models.TINY, epochs=1, rate=1e9, offline=True, progress=False)


def test_every_public_name_is_there():
    for name in beft.__all__:
        assert getattr(beft, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = beft.nothing
