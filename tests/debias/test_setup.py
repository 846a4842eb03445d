"""Notebook 05's settings become texts, sentences, patches and tasks; what cannot be had says why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from beft.data.microworld.biographies import expected_gap
from beft.debias import setup as debiasing
from beft.errors import BeftError
from beft.settings import profiles as settings


def load(**given):
    return settings.load("05_debiasing", {"profile": "smoke", **given})


def test_texts_have_both_sides_and_the_held_out_ones_are_others():
    data, both = debiasing.corpus(load(), "gender")
    assert data.train.rows == tuple((t,) for t in both.texts) and both.changed == 24 and len(both.texts) == 48
    assert not set(data.train.rows) & set(data.validation.rows) and data.substitute
    other, _ = debiasing.corpus(load(), "origin")
    assert other.fingerprint != data.fingerprint and "southern" in " ".join(t for (t,) in other.train.rows)


def test_texts_of_a_file_are_used_as_they_are(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"text": f"She wrote book {n}." if n % 2 else f"The sky was grey on day {n}."} for n in range(80)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data, both = debiasing.corpus(load(corpus=str(path)), "gender")
    assert (data.task.name, data.substitute, both.changed) == ("mine", False, 12)
    assert {t.split()[0] for (t,) in data.train.rows} == {"She", "He"}
    path.write_text("\n".join(json.dumps({"words": row["text"]}) for row in rows))
    with pytest.raises(BeftError, match="mine.jsonl lacks the column 'text': rename or add it"):
        debiasing.corpus(load(corpus=str(path)), "gender")


def test_a_word_list_of_ones_own_and_first_names_decide_what_changes_places(tmp_path):
    path, words = tmp_path / "texts.jsonl", tmp_path / "words.json"
    path.write_text("\n".join(json.dumps({"text": f"Peter saw cat {n}."}) for n in range(40)))
    words.write_text(json.dumps({"axes": {"pets": {"groups": ["cat", "dog"], "words": [["cat", "dog"]]}}}))
    given = {"corpus": str(path), "corpus_rows": 10}
    with pytest.raises(BeftError, match="has a word of the axis gender"):
        debiasing.corpus(load(**given), "gender")
    named, _ = debiasing.corpus(load(**given, names=True), "gender")
    assert {t.split()[0] for (t,) in named.train.rows} == {"Peter", "Margaret"}
    pets, _ = debiasing.corpus(load(**given, axis="pets", word_list=str(words)), "pets")
    assert {t.split()[2] for (t,) in pets.train.rows} == {"cat", "dog"}
    with pytest.raises(BeftError, match="nowhere.json is no list of words by axis"):
        debiasing.corpus(load(**given, word_list="nowhere.json"), "gender")


def test_a_corpus_without_a_word_of_the_axis_is_refused():
    with pytest.raises(BeftError, match="has a word of the axis religion .* there is nothing to augment"):
        debiasing.corpus(load(), "religion")


def test_sentences_of_the_micro_world_measure_both_axes():
    pairs, triples, absent = debiasing.probes(load())
    assert {n: len(p) for n, p in pairs.items()} == {"gender": 12, "origin": 12} and absent == {}
    assert all(len(t) == 8 for t in triples.values())


def test_other_texts_are_measured_by_crows_pairs_and_what_is_not_there_says_why(tmp_path, monkeypatch):
    home = tmp_path / "crows_pairs"
    home.mkdir()
    rows = [
        {"sent_more": f"She is {kind}.", "sent_less": f"He is {kind}.", "bias_type": kind}
        for kind in ("gender", "gender", "race-color", "age")
    ]
    (home / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    pairs, triples, absent = debiasing.probes(load(corpus="bias_in_bios"))
    assert {n: len(p) for n, p in pairs.items()} == {"gender": 2, "race": 1} and triples == {}
    assert absent["StereoSet"].startswith("not run: ") and set(absent) == {"StereoSet"}


def test_every_patch_has_every_seed_at_its_own_rate():
    runs = debiasing.patch_runs(load(seeds=[3, 5]), ["b_v", "lora"])
    assert [(r.method, r.seed, r.rate) for r in runs] == [
        ("b_v", 3, 0.1), ("b_v", 5, 0.1), ("lora", 3, 0.01), ("lora", 5, 0.01),
    ]  # fmt: skip


def test_biographies_are_measured_on_both_axes_among_people_of_even_groups():
    s = load(test_rows=400)
    tuning = debiasing.biographies(s)
    labels = tuning.data.validation.labels
    assert tuning.measure(labels) == {"accuracy": 1.0, "gap gender": 0.0, "gap origin": 0.0}
    assert len(labels) == 400 and len(tuning.data.train) == 4 * s["regime"]
    assert debiasing.biographies(s, 0.2).data.fingerprint != tuning.data.fingerprint


def test_the_best_classifiers_gap_on_the_test_rows_is_near_the_expected_one():
    s = load(test_rows=6000)
    found = debiasing.best_gap(s, 0.8)
    assert found == pytest.approx(expected_gap(0.8, s["origin_strength"], even=True), abs=0.05)


def test_identity_phrases_are_predicted_behind_the_posts():
    tuning = debiasing.posts(load())
    labels = tuning.data.validation.labels
    assert len(labels) > 64 and tuning.measure(labels) == {"f1": 1.0, "fprd": 0.0, "fprd iptts": 0.0}
    wrong = np.concatenate([labels[:64], np.ones(len(labels) - 64, dtype=int)])
    assert tuning.measure(wrong)["f1"] == 1.0  # the phrases are not counted as posts


def test_pairs_of_bias_nli_are_predicted_behind_those_of_the_task(tmp_path):
    rows = [{"premise": f"A man saw {n} dogs.", "hypothesis": "A man saw dogs.", "label": n % 3} for n in range(12)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    tuning = debiasing.nli(load(nli=str(tmp_path)), count=50)
    labels = tuning.data.validation.labels
    assert len(labels) == 12 + 50
    assert tuning.measure(labels) == {"accuracy": 1.0, "fraction neutral": 1.0}
    assert tuning.measure(np.zeros_like(labels)) == {
        "accuracy": pytest.approx(1 / 3),
        "fraction neutral": 0.0,
    }
    with pytest.raises(BeftError, match="0 predictions for 50 pairs of Bias-NLI"):
        tuning.measure(labels[:12])


def test_what_measures_and_what_is_trained_on_decide_what_a_record_is():
    s = load()
    sentences = debiasing.probes(s)
    one = debiasing.phase(s, "gender", sentences)
    (run,) = debiasing.patch_runs(load(seeds=[0]), ["b_v"])
    fewer = debiasing.phase(load(pairs=6), "gender", debiasing.probes(load(pairs=6)))
    longer = replace(one, study=replace(one.study, epochs=2))
    other = debiasing.phase(s, "origin", sentences)
    found = [str(p.settings(run)) for p in (one, fewer, longer, other)]
    assert len(set(found)) == 4
    assert one.settings(None) == other.settings(None)  # the untouched model has no axis


def test_who_is_of_which_group_decides_what_a_record_is(tmp_path):
    def tuning(genders):
        folder = tmp_path / "".join(map(str, genders))
        folder.mkdir()
        rows = [{"text": f"I {n}", "label": "ab"[n % 2], "gender": g} for n, g in enumerate(genders)]
        for split in ("train", "test"):
            (folder / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        return debiasing.biographies(load(task=str(folder), regime=4)).settings("none", "none", 0, 0.1)

    one, other = tuning([0, 1, 0, 1, 1, 0]), tuning([1, 1, 0, 1, 0, 0])
    assert one["data_fingerprint"] == other["data_fingerprint"] and one != other


def test_a_regime_by_name_is_a_number_of_generated_rows():
    assert len(debiasing.biographies(load(regime="low")).data.train) == 4000
    with pytest.raises(BeftError, match="regime 'all' of generated text has no size: give low, medium, high"):
        debiasing.posts(load(regime="all"))


def test_everything_is_looked_for_before_anything_is_trained(tmp_path):
    assert set(debiasing.tasks(load())) == {"biographies", "posts"}
    assert set(debiasing.tasks(load(second_axis="none"))) == {"biographies"}
    with pytest.raises(BeftError, match="second_axis is gender, as axis is: give another one, or none"):
        debiasing.tasks(load(second_axis="gender"))
    with pytest.raises(
        BeftError, match="axis is pets, and the sentences of microworld_people measure gender and origin"
    ):
        debiasing.tasks(load(axis="pets", word_list="words.json"))
    assert debiasing.tasks(load(axis="pets", word_list="words.json", corpus="mine.csv"))
    with pytest.raises(BeftError, match="is no folder, and no file that ends in"):
        debiasing.tasks(load(nli=str(tmp_path / "nowhere")))


def test_a_file_that_is_too_small_or_has_gaps_is_named(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(json.dumps({"text": "She said so."}) for _ in range(15)))
    with pytest.raises(BeftError, match="few.jsonl has 15 rows and 20 are held out"):
        debiasing.corpus(load(corpus=str(path)), "gender")
    path.write_text("\n".join(json.dumps({"text": "" if n == 3 else "She said so."}) for n in range(40)))
    with pytest.raises(BeftError, match="row 4 of few.jsonl has an empty 'text'"):
        debiasing.corpus(load(corpus=str(path)), "gender")


def test_real_texts_are_not_shown():
    data, both = debiasing.corpus(load(), "gender")
    assert debiasing.example(data, both).splitlines() == list(both.texts[:2])
    assert debiasing.example(replace(data, substitute=False), both) == "(real texts are not shown)"


@pytest.mark.parametrize("model", ["tiny-gpt2", "all-MiniLM-L6-v2", "tiny-random-bert"])
def test_a_model_without_a_head_for_masked_tokens_is_refused_in_one_sentence(model):
    with pytest.raises(BeftError, match="head for masked tokens.* such as tiny-bert"):
        debiasing.phase(load(model=model), "gender", debiasing.probes(load()))


def test_the_planted_link_has_rows_and_epochs_of_its_own():
    s = load(link_rows=60, link_epochs=2)
    link, main = debiasing.linked(s, 0.4), debiasing.biographies(s)
    assert (link.study.regime, link.study.epochs) == (60, 2) != (main.study.regime, main.study.epochs)
    assert link.data.fingerprint != main.data.fingerprint


def test_every_tried_rate_has_every_seed():
    s = load(tried_rates={"lora": [0.01, 0.1], "b_v": [0.1]}, tried_seeds=[0, 3])
    runs = [(run.method, run.rate, run.seed) for run in debiasing.tried_runs(s)]
    assert runs == [
        ("lora", 0.01, 0), ("lora", 0.01, 3), ("lora", 0.1, 0), ("lora", 0.1, 3), ("b_v", 0.1, 0), ("b_v", 0.1, 3),
    ]  # fmt: skip
    assert debiasing.rates_used(s)["lora"] == 0.01 and debiasing.rates_used(s)["b_v"] == 0.1


@pytest.mark.parametrize("given", ["{lora: []}", "{lora: [0]}", "{lora: [0.1, 0.1]}", "{loar: [0.1]}", "[0.1]"])
def test_tried_rates_that_are_none_are_refused(given):
    with pytest.raises(BeftError, match="tried_rates"):
        load(tried_rates=given)
