"""WSC is the corrected `wsc.fixed` that the paper's code uses, wherever its rows come from, and its source says so.

Of a StereoSet item with several blanks the last one is measured, as in its authors' loader; the others are filled.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from beft.data.sources import load_prompts
from beft.data.stereotype_sets import stereoset
from beft.debias.stereotypes import triple_scores
from beft.models import loading as models

ROW = {"text": "Ann fed her cat.", "span1_index": 0, "span1_text": "Ann", "span2_index": 2, "span2_text": "her"}


def folder_with(root, *names):
    """A data folder with WSC under these names, each row telling which."""
    for name in names:
        home = root / "super_glue" / name
        home.mkdir(parents=True)
        for split in ("train", "validation"):
            rows = [ROW | {"text": f"{name} {ROW['text']}", "label": label} for label in (0, 1)]
            (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_the_hub_is_asked_for_the_corrected_wsc(monkeypatch):
    import datasets

    asked = []

    class Rows:
        def to_pandas(self):
            return pd.DataFrame([ROW | {"label": label} for label in (0, 1)])

    def hub(*names):
        asked.append(names)
        return {"train": Rows(), "validation": Rows()}

    for name in ("BEFT_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    found = load_prompts("wsc")
    assert asked == [("aps/super_glue", "wsc.fixed")]
    assert found.source == "hub, aps/super_glue wsc.fixed" and found.task.name == "wsc"


@pytest.mark.parametrize(
    ("names", "used"), [(["wsc"], "wsc"), (["wsc.fixed"], "wsc.fixed"), (["wsc", "wsc.fixed"], "wsc.fixed")]
)
def test_a_data_folder_may_have_either_name_and_the_corrected_one_is_preferred(tmp_path, names, used):
    found = load_prompts("wsc", folder=folder_with(tmp_path, *names))
    assert found.source == f"data folder, super_glue/{used}"
    assert found.train.rows[0].prompt.startswith(f"{used} Ann fed her cat.")


def test_where_wsc_is_nowhere_the_corrected_one_is_what_is_wanted(tmp_path, monkeypatch):
    with pytest.raises(Exception, match="a folder that holds super_glue/wsc.fixed/train.jsonl"):
        load_prompts("wsc", folder=tmp_path, offline=True)


def triples(tmp_path, context, *fillings):
    """The items of a StereoSet file with one context, and the words for its blanks in the order of its labels."""
    labels = ("stereotype", "anti-stereotype", "unrelated")
    sentences = []
    for label, words in zip(labels, fillings, strict=True):
        sentence = context
        for word in words:
            sentence = sentence.replace("BLANK", word, 1)
        sentences.append({"sentence": sentence, "gold_label": label})
    entry = {"context": context, "bias_type": "gender", "target": "cook", "sentences": sentences}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps({"data": {"intrasentence": [entry]}}))
    return stereoset(path)


@pytest.fixture(scope="module")
def tiny():
    return models.load_masked("tiny-bert")


def test_the_last_of_two_blanks_is_measured_with_the_first_filled(tmp_path, tiny):
    two = triples(tmp_path, "The BLANK was very BLANK .", ("soup", "good"), ("cake", "bad"), ("bread", "old"))
    assert two[0].words() == ("good", "bad", "old")
    each = [
        triples(tmp_path, f"The {first} was very BLANK .", ("good",), ("bad",), ("old",))
        for first in ("soup", "cake", "bread")
    ]
    expected = [triple_scores(tiny.model, tiny.tokenizer, one)[0][n] for n, one in enumerate(each)]
    assert triple_scores(tiny.model, tiny.tokenizer, two)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_two_blanks_in_one_word_are_one(tmp_path, tiny):
    joint = triples(tmp_path, "BLANK/BLANK was here .", ("he", "she"), ("she", "he"), ("tea", "pot"))
    assert joint[0].words() == ("heshe", "shehe", "teapot")
    one = triples(tmp_path, "BLANK was here .", ("heshe",), ("shehe",), ("teapot",))
    expected = triple_scores(tiny.model, tiny.tokenizer, one)
    assert triple_scores(tiny.model, tiny.tokenizer, joint) == pytest.approx(expected, abs=1e-6)
