"""Every row of a batch has the logits, scores and texts that its adapter gives alone, loaded by PEFT."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from small_adapters import TEXTS, WORDS, alone, by_peft, classifier, decoder, logits_alone, ours, tokenizer_of

import beft
from beft.bank.saved import About
from beft.data.batching import encode_options
from beft.data.own_prompt import parse, wording
from beft.data.prompts import Example
from beft.errors import BeftError
from beft.models import loading
from beft.training import prompting

ENCODERS = ["BERT", "RoBERTa", "DistilBERT", "ELECTRA", "MPNet", "ALBERT", "ModernBERT with biases"]
SHARING = ["DeBERTa-v2 (c2p)", "DeBERTa-v2 (c2p, p2c)"]
# A projection for each term, injected biases, fused projections, a row per token in OPT, windows, sinks, several norms.
DECODERS = ["OPT", "LLaMA", "Qwen2", "Phi-3", "GPT-NeoX", "Falcon (grouped)", "BLOOM", "GPT-J", "Gemma 3", "gpt-oss"]
METHODS = {"v": "b_v", "q": "b_q", "k": "b_k", "form": "b_v:lora", "all": "all_biases"}
SHIPPED = "tiny-bert"  # its backbone is the same for any number of classes
SHUFFLED = np.random.default_rng(0)


def adapters_of(tmp_path, name, methods=METHODS):
    """Name -> (folder, outputs) of adapters with two, three and one outputs, of ours and of PEFT's own."""
    made = {}
    for i, (key, method) in enumerate(methods.items()):
        outputs = (2, 3, 1)[i % 3]
        made[key] = (ours(tmp_path / key, classifier(name, outputs), method, seed=i), outputs)
    sites = beft.describe(classifier(name)).sites
    targets = sorted({site.module for site in sites})
    made["peft"] = (by_peft(tmp_path / "peft", classifier(name, 4), "SEQ_CLS", 9, target_modules=targets), 4)
    return made


def check_rows(served, name, made, texts, which):
    models = {key: alone(classifier(name, outputs), folder) for key, (folder, outputs) in made.items()}
    models[None] = classifier(name)
    for text, key, own in zip(texts, which, served.logits(texts, which), strict=True):
        expected = logits_alone(models[key], text)
        assert own.shape == expected.shape
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ENCODERS + SHARING)
def test_a_row_of_an_encoder_has_the_logits_of_its_adapter_alone(tmp_path, name):
    made = adapters_of(tmp_path, name)
    model = classifier(name)
    served = beft.serve(model, {key: folder for key, (folder, _) in made.items()}, tokenizer=tokenizer_of(model))
    which = [*made, None] * 3
    texts = [TEXTS[i % len(TEXTS)] for i in range(len(which))]
    order = SHUFFLED.permutation(len(which))
    check_rows(served, name, made, [texts[i] for i in order], [which[i] for i in order])
    check_rows(served, name, made, TEXTS[:3], ["v"] * 3)  # one adapter for all


def test_adapters_that_change_what_a_batch_shares_are_computed_by_themselves(tmp_path):
    """With `share_att_key` DeBERTa projects the embeddings of distances with the query's and key's layers, once."""

    def deberta(outputs=2):
        return classifier("DeBERTa-v2 (c2p, p2c)", outputs, share_att_key=True)

    methods = {"q": "b_q", "k": "b_k", "v": "b_v", "w": "b_v"}
    folders = {key: ours(tmp_path / key, deberta(), method, i) for i, (key, method) in enumerate(methods.items())}
    model, seen = deberta(), []
    served = beft.serve(model, folders, tokenizer=tokenizer_of(model))
    model.register_forward_pre_hook(lambda m, a, kw: seen.append(len(kw["input_ids"])), with_kwargs=True)
    which = ["q", "v", "k", None, "w", "q", "v", None]
    for text, key, own in zip(TEXTS, which, served.logits(TEXTS, which), strict=True):
        expected = logits_alone(alone(deberta(), folders.get(key)), text)
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)
    assert sum(seen) == 8 and max(seen) > 2  # those of b_v are computed together


@pytest.mark.parametrize("name", ["LLaMA", "OPT", "Qwen2"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_decoder_that_classifies_reads_the_last_token_whatever_the_padding(tmp_path, name, side):
    heads = {"modules_to_save": ["score"], "target_modules": ["q_proj", "v_proj"]}
    made = {
        "two": (by_peft(tmp_path / "two", classifier(name), "SEQ_CLS", 1), 2),
        "three": (by_peft(tmp_path / "three", classifier(name, 3), "SEQ_CLS", 2, **heads), 3),
    }
    model = classifier(name)
    served = beft.serve(model, {key: folder for key, (folder, _) in made.items()}, tokenizer=tokenizer_of(model))
    which = ["two", "three", None, "three", "two", "two", None, "three"]
    for text, key, own in zip(TEXTS, which, served.logits(TEXTS, which), strict=True):
        folder, outputs = made.get(key, (None, 2))
        expected = logits_alone(alone(classifier(name, outputs), folder), text, side=side, padding=5)
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-5)


def decoders_served(tmp_path, name):
    methods = {key: method for key, method in METHODS.items() if key != "all"}
    made = {key: ours(tmp_path / key, decoder(name), method, i) for i, (key, method) in enumerate(methods.items())}
    targets = sorted({site.module for site in beft.describe(decoder(name)).sites})
    made["peft"] = by_peft(tmp_path / "peft", decoder(name), "CAUSAL_LM", 9, target_modules=targets)
    model = decoder(name)
    return beft.serve(model, made, tokenizer=tokenizer_of(model)), made


OPTIONS = [" good", " bad", " very slow film"]


@pytest.mark.parametrize("name", DECODERS)
def test_options_of_a_prompt_are_scored_under_its_adapter(tmp_path, name):
    served, made = decoders_served(tmp_path, name)
    which = [*made, None, "v", "q"]
    prompts = [TEXTS[i % len(TEXTS)] for i in range(len(which))]
    scores, chosen = served.option_scores(prompts, OPTIONS, which), served.choose(prompts, OPTIONS, which)
    for prompt, key, own, best in zip(prompts, which, scores, chosen, strict=True):
        model = alone(decoder(name), made.get(key))
        for option, total in zip(OPTIONS, own.total, strict=True):
            e = encode_options(served.tokenizer, Example(prompt, (option,)), 60)
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor(e.sequences)).logits[0].log_softmax(-1)
            ids, start = e.sequences[0], e.starts[0]
            expected = float(logits[np.arange(start - 1, len(ids) - 1), ids[start:]].sum())
            assert total == pytest.approx(expected, abs=5e-5)
        assert best == OPTIONS[int(own.mean.argmax())]


@pytest.mark.parametrize("name", DECODERS)
def test_a_prompt_is_continued_by_its_adapter_in_every_cached_step(tmp_path, name):
    served, made = decoders_served(tmp_path, name)
    which = [*made, None, "v", "q"]
    prompts = [TEXTS[i % len(TEXTS)] for i in range(len(which))]
    written = served.generate(prompts, which, max_new_tokens=8)
    for prompt, key, own in zip(prompts, which, written, strict=True):
        model = alone(decoder(name), made.get(key))
        ids = served.tokenizer(prompt, return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        with torch.inference_mode():
            for _ in range(8):  # without a cache, so that the bias acts on all tokens anew
                ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], dim=1)
        ids = ids[0, start:].tolist()
        end = model.generation_config.eos_token_id
        ids = ids[: ids.index(end)] if end in ids else ids
        assert own == served.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert len(set(written)) > 3


def test_padding_is_that_of_texts_of_like_length_and_the_order_is_that_given(tmp_path, tiny, monkeypatch):
    folder = ours(tmp_path / "a", tiny.model, "b_v")
    served = beft.serve(tiny, {"a": folder})
    seen = []
    tiny.model.register_forward_pre_hook(lambda m, a, kw: seen.append(kw["input_ids"].shape), with_kwargs=True)
    texts = ["film", "film " * 90] * 40
    both = served.logits(texts, ["a", None] * 40)
    assert min(shape[1] for shape in seen) == 3  # short ones were not padded to the long ones
    assert sum(b * t for b, t in seen) < 1.1 * 40 * (92 + 3)
    np.testing.assert_allclose(both[0], served.logits("film", "a"), atol=1e-6)
    np.testing.assert_allclose(both[1], served.logits("film " * 90, None), atol=1e-6)


def test_labels_values_pairs_and_lengths_are_each_adapters_own(tmp_path):
    tiny = loading.load(SHIPPED, labels=2)
    three = loading.load(SHIPPED, labels=3).model
    one = loading.load(SHIPPED, labels=1).model
    moods = ours(tmp_path / "m", tiny.model, "b_v", 1, About(("sad", "glad"), ("text",), 8))
    kinds = ours(tmp_path / "k", three, "b_q", 2, About(("no", "maybe", "yes"), ("text_a", "text_b"), 30))
    stars = ours(tmp_path / "s", one, "b_v", 3, About((), ("review",), 128))
    bare = ours(tmp_path / "b", tiny.model, "b_v", 4)
    served = beft.serve(tiny, {"moods": moods, "kinds": kinds, "stars": stars, "bare": bare})
    long = "the film was good and the plot was bad and the ending was weak " * 3
    pair = ("the film was good", long)
    answers = served.predict([long, pair, long, long, long], ["moods", "kinds", "stars", "bare", None])
    for key, text, answer in zip(["moods", "kinds", "stars"], [long, pair, long], answers):
        tuned = {"moods": moods, "kinds": kinds, "stars": stars}[key]
        about = {"moods": About(("sad", "glad"), ("text",), 8), "kinds": About(("no", "maybe", "yes"), ("a", "b"), 30)}
        outputs = {"moods": 2, "kinds": 3, "stars": 1}[key]
        loaded = loading.load(SHIPPED, labels=outputs)
        model = beft.load_tuned(loaded.model, tuned)
        cut = about[key].max_length if key in about else 128
        expected = beft.predict(model, loaded.tokenizer, [text], cut)[0]
        if key == "stars":
            assert isinstance(answer, float) and answer == pytest.approx(float(expected[0]), abs=1e-5)
        else:
            assert answer == about[key].labels[int(expected.argmax())]
            np.testing.assert_allclose(served.probabilities([text], [key])[0], expected, atol=1e-5)
    assert answers[3] in ("LABEL_0", "LABEL_1") and answers[4] in ("LABEL_0", "LABEL_1")
    assert served.labels("kinds") == ("no", "maybe", "yes") and served.labels("stars") == ()
    # one name for all: one answer for one text or one pair
    assert served.predict(long, "moods") == answers[0] and served.predict(pair, "kinds") == answers[1]
    named = served.by_label([long, long], ["moods", "stars"])
    assert list(named[0]) == ["sad", "glad"] and max(named[0], key=named[0].get) == answers[0]
    assert sum(named[0].values()) == pytest.approx(1) and named[1] == pytest.approx(answers[2], abs=1e-5)
    assert served.predict([long], "moods") == [answers[0]] and served.predict(long, ["moods"]) == [answers[0]]
    with pytest.raises(BeftError, match=r"text 2 of 2 is a single text, and the model reads pairs"):
        served.predict([pair, long], ["kinds", "kinds"])


def test_what_tune_wrote_is_served_as_tuned_predicts(tmp_path):
    texts = [f"the {word} was {mood}" for word in ("film", "plot", "cast", "end", "start") for mood in ("good", "bad")]
    rows = pd.DataFrame({"text": texts, "label": ["fine", "poor"] * 5})
    settings = {"model": SHIPPED, "epochs": 1, "progress": False}
    mood = beft.tune(rows, adapter=tmp_path / "mood", **settings)
    values = pd.DataFrame({"text": texts, "label": [0.35 * i for i in range(10)]})
    value = beft.tune(values, adapter=tmp_path / "value", method="b_q", **settings)
    served = beft.serve(SHIPPED, {"mood": tmp_path / "mood", "value": tmp_path / "value"})
    texts = ["good film", "a bad plot with a weak ending"]
    assert served.predict(texts, "mood") == mood.predict(texts)
    np.testing.assert_allclose(served.predict(texts, "value"), value.predict(texts), atol=1e-5)
    np.testing.assert_allclose(served.probabilities(texts, "mood"), mood.probabilities(texts), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_takes_half_the_memory_and_rounds_alone(tmp_path, dtype):
    made = adapters_of(tmp_path, "BERT")
    folders = {key: folder for key, (folder, _) in made.items()}
    exact = beft.serve(classifier("BERT"), folders, tokenizer=tokenizer_of(classifier("BERT")))
    half = beft.serve(classifier("BERT"), folders, tokenizer=tokenizer_of(classifier("BERT")), dtype=dtype)
    assert {name: size // 2 for name, size in exact.memory.items()} == half.memory
    which = [*made, None]
    for a, b in zip(exact.logits(TEXTS[: len(which)], which), half.logits(TEXTS[: len(which)], which), strict=True):
        assert np.isfinite(b).all() and 0 < np.abs(a - b).max() < 0.2


def test_many_adapters_share_a_prompt_without_a_copy_of_it_for_each(tmp_path, monkeypatch):
    model = decoder("LLaMA")
    folders = {f"a{i}": ours(tmp_path / str(i), decoder("LLaMA"), "b_v", i) for i in range(5)}
    served = beft.serve(model, folders, tokenizer=tokenizer_of(model))
    prompts, which = [f"the film was w{i}" for i in range(10)], [f"a{i % 5}" for i in range(10)]
    together = served.option_scores(prompts, OPTIONS, which)
    calls = []
    real = prompting.option_scores
    monkeypatch.setattr("beft.serving.served.TOGETHER", 2)
    monkeypatch.setattr(prompting, "option_scores", lambda m, e, r: (calls.append(int(max(r))), real(m, e, r))[1])
    apart = served.option_scores(prompts, OPTIONS, which)
    assert calls == [1, 1, 0]
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_allclose(a.total, b.total, atol=1e-5)


def test_a_stop_ends_an_answer_and_one_prompt_has_one(tmp_path):
    loaded = loading.load_causal("tiny-llama")
    served = beft.serve(loaded, {"v": ours(tmp_path / "v", loaded.model, "b_v")})
    whole = served.generate("the film", "v", max_new_tokens=12)
    assert isinstance(whole, str) and len(whole.split()) > 3
    word = whole.split()[2]
    assert (
        served.generate("the film", "v", max_new_tokens=12, stop=f" {word}") == whole.partition(f" {word}")[0].strip()
    )
    assert served.choose("the film was", OPTIONS, "v") in OPTIONS
    chosen = served.choose(["the film was"], [OPTIONS[:2]], ["v"])
    assert chosen[0] in OPTIONS[:2] and served.choose("the film was", [OPTIONS[:2]], "v") == chosen[0]


@pytest.mark.parametrize(
    ("texts", "which", "says"),
    [
        ([], "a", "there are no texts to predict: give at least one"),
        ([], [], "there are no texts to predict: give at least one"),
        (["good", " "], ["a", "a"], "text 2 of 2 is empty: fill it in or leave it out"),
        (["good", "bad"], ["a"], "there are 2 texts and 1 names in which: give one for each"),
        (["good", "bad"], ["a", "aa"], "unknown adapter of row 2 'aa': did you mean a"),
        (["good"], "films", "unknown adapter 'films'.*valid: a"),
        (["good"], 3, "which is 3: give the name of an adapter, or one for each of the texts"),
    ],
)
def test_bad_requests_are_one_sentence_with_the_remedy(tmp_path, tiny, texts, which, says):
    served = beft.serve(tiny, {"a": ours(tmp_path / "a", tiny.model, "b_v")})
    with pytest.raises(BeftError, match=says):
        served.predict(texts, which)


@pytest.mark.parametrize(
    ("prompts", "options", "says"),
    [
        (["the film"], " good", "options is ' good': give a list of texts"),
        (["the film"], [" good"], "the options of prompt 1 are .*: give two or more texts"),
        (["the film"], [" good", ""], "the options of prompt 1 are .*: give two or more texts that are not empty"),
        (["the film", "a"], [[" good", " bad"]], "there are 2 prompts and 1 lists of options"),
        (["the film", ""], [" good", " bad"], "prompt 2 of 2 is empty"),
    ],
)
def test_options_that_are_none_are_refused(prompts, options, says):
    with beft.serve(decoder("LLaMA"), tokenizer=tokenizer_of(decoder("LLaMA"))) as served:
        with pytest.raises(BeftError, match=says):
            served.choose(prompts, options, None)


def test_a_classifier_does_not_write_and_a_writer_has_no_classes(tiny):
    with pytest.raises(BeftError, match=r"BertForSequenceClassification classifies and does not write: use predict"):
        beft.serve(tiny).generate("a film", None)
    model = decoder("LLaMA")
    served = beft.serve(model, tokenizer=tokenizer_of(model))
    with pytest.raises(
        BeftError, match=r"LlamaForCausalLM writes and has no classes, and None comes with no prompt of its own"
    ):
        served.predict("a film", None)
    with pytest.raises(BeftError, match="max_new_tokens 5000 is not between 1 and"):
        served.generate("a film", None, max_new_tokens=5000)


def test_adapters_of_a_language_model_put_rows_into_the_prompt_that_they_were_tuned_on(tmp_path):
    first = wording(parse("it was {text} and the film was {label}"), ("no", "yes"), {"no": "bad", "yes": "good"}, "a")
    second = wording(parse("{title} plot {text} the {label}"), ("a", "b", "c"), dict(zip("abc", WORDS)), "b")
    folders = {
        name: ours(tmp_path / name, decoder("LLaMA"), "b_v", seed, About(own.labels, own.template.columns, 40, own))
        for seed, (name, own) in enumerate({"films": first, "plots": second}.items())
    }
    folders["bare"] = ours(tmp_path / "bare", decoder("LLaMA"), "b_q", 7)
    model = decoder("LLaMA")
    with beft.serve(model, folders, tokenizer=tokenizer_of(model)) as served:
        rows, which = ["very slow", ("the film", "not bad"), "a good plot"], ["films", "plots", "films"]
        prompts = [
            "it was very slow and the film was",
            "the film plot not bad the",
            "it was a good plot and the film was",
        ]
        options = [[" bad", " good"], [f" {word}" for word in WORDS[:3]], [" bad", " good"]]
        scored = served.option_scores(prompts, options, which)
        for own, row in zip(scored, served.logits(rows, which), strict=True):
            np.testing.assert_allclose(row, own.mean, atol=1e-6)
        labels = [served.labels(name)[int(one.mean.argmax())] for name, one in zip(which, scored, strict=True)]
        assert served.predict(rows, which) == labels and served.predict("very slow", "films") == labels[0]
        assert served.predict(pd.DataFrame({"text": ["not bad"], "title": ["the film"]}), "plots") == [labels[1]]
        assert served.predict([7], ["films"]) == served.predict([7], "films") == [served.predict("7", "films")]
        assert served.by_label("very slow", "films").keys() == {"no", "yes"}
        with pytest.raises(BeftError, match="'bare' comes with no prompt of its own: use choose"):
            served.predict(["very slow"], ["bare"])
        with pytest.raises(BeftError, match="text 1 of 1 has 3 of the prompt's 2|a pair|3 parts"):
            served.predict([("a", "film", "plot")], ["plots"])


def test_a_tokenizer_that_pads_otherwise_than_a_decoder_reads_is_refused(tmp_path):
    model = classifier("LLaMA")
    tokenizer = tokenizer_of(model)
    model.config.pad_token_id = None
    with pytest.raises(BeftError, match=r"finds the last token of a text by the pad_token_id .*None.*pads with 0: set"):
        beft.serve(model, tokenizer=tokenizer).predict("a film", None)


def test_a_decoder_that_classifies_without_a_padding_token_takes_one_text_and_refuses_several():
    model = classifier("GPT-2")
    model.config.pad_token_id = None
    tokenizer = tokenizer_of(model)
    tokenizer.pad_token = None
    served = beft.serve(model, tokenizer=tokenizer)
    assert served.predict("a film", None) in served.labels(None)
    with pytest.raises(BeftError, match=r"config \(None\), and the tokenizer pads with None: set tokenizer.pad_token"):
        served.predict(["a film", "a good film"], None)
