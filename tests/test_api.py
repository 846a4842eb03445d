"""One's own data in five lines."""

import numpy as np
import pandas as pd
import pytest
import small_gguf
from transformers import AutoModelForSequenceClassification

import beft
from beft import api
from beft.bank import peft_adapter as adapters
from beft.data import sources
from beft.models import loading as models
from beft.training.prompting import option_probabilities


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


PROMPT = {"prompted": True, "template": "{title}: {text}\nAll in all, {label}", "labels": {"pos": "good", "neg": "bad"}}


@pytest.fixture
def titled(tmp_path, sentiment):
    lines = [f'tale {i},"{text[0]}",{"pos" if i % 2 else "neg"}\n' for i, text in enumerate(sentiment.train.rows[:40])]
    (tmp_path / "titled.csv").write_text("title,text,label\n" + "".join(lines), encoding="utf-8")
    return str(tmp_path / "titled.csv")


def test_a_prompts_numbers_are_read_in_prediction_as_in_tuning(tmp_path):
    rows = [{"stars": i % 5, "text": f"the film was number {i}", "label": ("neg", "pos")[i % 2]} for i in range(20)]
    pd.DataFrame(rows).to_json(tmp_path / "rated.jsonl", orient="records", lines=True)
    given = {"model": "tiny-llama", "epochs": 1, "offline": True, "prompted": True, "progress": False}
    tuned = beft.tune(tmp_path / "rated.jsonl", template="{stars} stars: {text} {label}", **given)
    table = pd.read_json(tmp_path / "rated.jsonl", lines=True)
    expected = tuned.probabilities([(str(row["stars"]), row["text"]) for row in rows])
    for same in (table, table.astype({"stars": float}), [(row["stars"], row["text"]) for row in rows]):
        np.testing.assert_array_equal(tuned.probabilities(same), expected)
    with pytest.raises(beft.BeftError, match=r"a part of text 1 of 1 is missing \(nan\)"):
        tuned.predict([(float("nan"), "the film")])


@pytest.mark.parametrize("method", ["b_v", "lora"])
def test_a_language_model_answers_a_prompt_of_ones_own_with_the_files_labels(titled, tmp_path, method):
    given = {"model": "tiny-llama", "method": method, "rate": 1e-2, "epochs": 2, "offline": True, **PROMPT}
    tuned = beft.tune(titled, adapter=tmp_path / "a", progress=False, **given)
    assert tuned.labels == ("neg", "pos") and tuned.columns == ("title", "text") and tuned.majority == 0.5
    data = sources.load_prompts(titled, template=PROMPT["template"], labels=PROMPT["labels"])
    table = pd.read_csv(titled).set_index("title")
    held_out = [example.prompt.partition(":")[0] for example in data.validation.rows]
    answers = tuned.predict(table.loc[held_out].reset_index())
    assert np.mean(np.array(answers) == table.loc[held_out, "label"]) == pytest.approx(tuned.score)
    rows = [("tale 1", "the clock was slow"), ("tale 2", "nobody liked it")]
    expected = tuned.probabilities(rows)
    assert expected.shape == (2, 2) and expected.sum(1) == pytest.approx([1, 1], abs=1e-6)
    assert tuned.predict(rows[0]) == tuned.labels[expected[0].argmax()]
    tuned.save(tmp_path / "plain")
    for folder in ("a", "plain"):
        again = beft.Tuned.load(tmp_path / folder, offline=True)
        assert (again.labels, again.columns, again.max_length) == (tuned.labels, tuned.columns, 128)
        assert again.probabilities(rows) == pytest.approx(expected, abs=1e-5)
    base = models.load_causal("tiny-llama")
    peft = adapters.load_tuned(base.model, tmp_path / "a").get_base_model()
    examples = [tuned.wording.example(row) for row in rows]
    assert option_probabilities(peft, base.tokenizer, examples, 128) == pytest.approx(expected, abs=1e-5)
    untuned = option_probabilities(models.load_causal("tiny-llama").model, base.tokenizer, examples, 128)
    assert not np.allclose(untuned, expected, atol=1e-3)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "AutoPeftModelForCausalLM" in card and "    All in all, {label}" in card and "| pos | good |" in card


def test_a_table_under_its_own_names_is_read_in_tuning_and_in_predicting(titled, tmp_path):
    renamed = pd.read_csv(titled).rename(columns={"text": "review", "label": "stars"})
    options = PROMPT | {"template": "{text}\nAll in all, {label}"}
    columns = {"text": "review", "label": "stars"}
    tuned = beft.tune(renamed, columns=columns, model="tiny-llama", epochs=1, offline=True, progress=False, **options)
    assert tuned.columns == ("review",) and len(tuned.predict(renamed[["review"]])) == len(renamed)
    assert tuned.predict("a dull evening") in tuned.labels
    with pytest.raises(beft.BeftError, match="lacks the column 'review'"):
        tuned.predict(pd.DataFrame({"text": ["a dull evening"]}))


def test_the_readme_of_an_adapter_on_a_gguf_file_names_the_file(titled, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    path = small_gguf.write(tmp_path / "mine" / "small-F32.gguf", small_gguf.small_llama(), "F32")
    options = {"prompted": True, "template": "{title}:{label}", "labels": {"pos": "!", "neg": "?"}}
    tuned = beft.tune(titled, model=str(path), adapter=tmp_path / "a", epochs=1, offline=True, **options)
    card, printed = (tmp_path / "a" / "README.md").read_text(), capsys.readouterr().out
    for text, folder in ((card, '"this folder"'), (printed, repr(str(tmp_path / "a")))):
        assert (
            f'gguf_file="small-F32.gguf", dtype="float32")\nmodel = PeftModel.from_pretrained(base, {folder})' in text
        )
    assert "\n    {title}:{label}\n" in card and "AutoPeftModel" not in card
    again = beft.Tuned.load(tmp_path / "a", offline=True)
    assert again.probabilities(["tale 1"]) == pytest.approx(tuned.probabilities(["tale 1"]), abs=1e-5)


def test_an_encoder_is_no_model_for_a_prompt(titled):
    with pytest.raises(beft.BeftError, match="looks both ways: give a causal language model"):
        beft.tune(titled, model="tiny-bert", offline=True, progress=False, **PROMPT)


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
        ({"prompted": True}, "tune with prompted=True takes rows of one's own with template="),
        ({"template": "{text} {label}"}, "a template is for a language model .*: give prompted=True too"),
        ({"template": "{text} {label}", "prompted": True, "method": "prefix"}, "tune hands over no prefix"),
        ({"template": "{text} {label}", "prompted": True, "method": "head"}, "unknown method 'head'"),
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
