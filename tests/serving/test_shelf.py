"""Adapters come and go while the model is served, in little memory, and the model is given back as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from small_adapters import TEXTS, classifier, ours, tokenizer_of
from transformers import BertConfig, BertForSequenceClassification

import beft
from beft.bank.bank import BiasBank
from beft.bank.saved import About
from beft.errors import BeftError
from beft.serving.shelf import Shelf


@pytest.fixture
def folders(tmp_path, tiny):
    """Twelve adapters of the tiny model."""
    methods = ("b_v", "b_q", "b_k")
    return [ours(tmp_path / str(i), tiny.model, methods[i % 3], seed=i) for i in range(12)]


def test_adapters_are_added_and_removed_and_the_others_answer_as_before(tiny, folders):
    served = beft.serve(tiny, {str(i): folder for i, folder in enumerate(folders)})
    texts = ["the film was good", "a bad and slow plot"] * 6
    which = list(map(str, range(12)))
    before = served.logits(texts, which)
    assert len({row.tobytes() for row in before}) == 12
    size = served.allocated
    for name in ("3", "0", "7"):
        served.remove(name)
    assert served.names == ["1", "2", "4", "5", "6", "8", "9", "10", "11"] and "3" not in served and len(served) == 9
    with pytest.raises(BeftError, match="unknown adapter '3'"):
        served.predict(texts, "3")
    for name in ("7", "3", "0"):
        served.add(name, folders[int(name)])
    for a, b in zip(served.logits(texts, which), before, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert served.allocated == size  # the rows of what was removed were used again


def test_a_model_without_its_last_adapter_and_a_closed_one_are_the_plain_model(tiny, folders):
    inputs = dict(tiny.tokenizer(["a film", "the plot was bad"], padding=True, return_tensors="pt"))
    with torch.no_grad():
        plain = tiny.model(**inputs).logits
    served = beft.serve(tiny, {"a": folders[0], "b": folders[1]})
    with torch.no_grad():
        assert torch.equal(tiny.model(**inputs).logits, plain)  # between calls
    served.remove("a")
    served.remove("b")
    assert served.allocated == 0 and not served._places
    np.testing.assert_allclose(np.stack(served.logits(["a film", "the plot was bad"], None)), plain, atol=1e-6)
    assert served.close() is tiny.model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny.model.modules())
    with pytest.raises(BeftError, match="served no more, close"):
        served.predict("a film", None)
    with pytest.raises(BeftError, match="served no more"):
        served.add("a", folders[0])
    with beft.serve(tiny.model, tokenizer=tiny.tokenizer):  # free again
        pass
    with BiasBank(tiny.model, ["b_v"], [0]):
        pass


def test_a_model_has_one_server_or_one_bank(tiny):
    with beft.serve(tiny):
        with pytest.raises(BeftError, match="is served already: call close"):
            beft.serve(tiny)
        with pytest.raises(BeftError, match="is served already: call close"):
            BiasBank(tiny.model, ["b_v"], [0])
    with (
        BiasBank(tiny.model, ["b_v"], [0]),
        pytest.raises(BeftError, match="already has a bank on it"),
    ):
        beft.serve(tiny)


def test_memory_is_that_of_the_numbers_an_adapter_holds(tmp_path, tiny):
    folder, other = ours(tmp_path / "v", tiny.model, "b_v"), ours(tmp_path / "q", tiny.model, "b_q")
    served = beft.serve(tiny, {"films": folder})
    layers, width, outputs = 2, 32, 2
    numbers = layers * width + width + outputs * width + outputs  # b_v, the pooler's bias, the head
    assert served.memory == {"films": 4 * numbers}
    assert served.allocated == 4 * 2 * numbers  # a row for each place, and one of zeros
    served.add("mails", other)
    assert served.allocated == 4 * (2 * layers * width * 2 + 4 * (width + outputs * width + outputs))
    shown = str(served)
    assert shown.startswith("2 adapters on BertForSequenceClassification in float32:")
    assert f"films: {4 * numbers / 1e3:.1f} kB" in shown and "mails" in shown


def test_a_b_v_of_bert_base_takes_eighteen_kilobytes_in_half_precision(tmp_path):
    """12 layers of 768 numbers; the head and the pooler's bias come to 5 kB more."""
    shape = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 8, "num_hidden_layers": 12}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, **shape)).eval()
    folder = ours(tmp_path / "v", model.requires_grad_(False), "b_v")
    served = beft.serve(model, {"v": folder}, dtype="float16")
    assert served.memory["v"] - 2 * (768 + 2 * 768 + 2) == 2 * 12 * 768 == 18432


def test_threads_that_predict_add_and_remove_never_meet_half_an_adapter(tiny, folders):
    served = beft.serve(tiny, {"stays": folders[0]})
    text = "the film was good"
    alone = served.logits(text, "stays"), served.logits(text, None)
    served.add("comes", folders[1])
    other = served.logits(text, "comes")
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                rows = served.logits([text] * 4, ["stays", None, "comes", "stays"])
            except BeftError as error:
                if "unknown adapter" not in str(error):
                    wrong.append(error)
                continue
            for row, expected in zip(rows, (*alone, other, alone[0]), strict=True):
                if not np.allclose(row, expected, atol=1e-5):
                    wrong.append((row, expected))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for round in range(20):
        served.remove("comes")
        served.add(f"other {round}", folders[2 + round % 8])
        served.add("comes", folders[1])
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and len(served) == 22


def test_an_adapter_that_cannot_be_put_whole_leaves_nothing(tiny, folders, monkeypatch):
    served = beft.serve(tiny, {"a": folders[0]})
    before, size, real, count = served.logits("a film", "a"), served.allocated, Shelf._hook, []

    def fails(self, module, what, place):
        count.append(module)
        if len(count) == 2:
            raise torch.OutOfMemoryError("no memory")
        real(self, module, what, place)

    monkeypatch.setattr(Shelf, "_hook", fails)
    with pytest.raises(torch.OutOfMemoryError):
        served.add("b", folders[1])  # b_q, of which there is none yet
    monkeypatch.setattr(Shelf, "_hook", real)
    assert served.names == ["a"] and served.allocated == size
    served.add("b", folders[1])
    np.testing.assert_array_equal(served.logits("a film", "a"), before)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a", "an adapter is served as 'a' already: give another name, or remove it first"),
        ("", "'' is no name of an adapter: give a text"),
        (None, "None is no name of an adapter"),
        (7, "7 is no name of an adapter"),
    ],
)
def test_names_are_texts_and_taken_once(tiny, folders, name, says):
    served = beft.serve(tiny, {"a": folders[0]})
    with pytest.raises(BeftError, match=says):
        served.add(name, folders[1])
    assert served.names == ["a"]


def test_of_many_names_a_message_lists_the_nearest_and_some(tmp_path, tiny):
    folder = ours(tmp_path / "v", tiny.model, "b_v")
    served = beft.serve(tiny, {f"customer {i}": folder for i in range(25)})
    with pytest.raises(BeftError) as error:
        served.predict(["a film"], ["custommer 23"])
    assert "of row 1 'custommer 23': did you mean customer 23" in str(error.value)
    assert "and 5 more, see names" in str(error.value) and "customer 19" in str(error.value)
    with pytest.raises(BeftError, match="unknown adapter 'a'.*none: add one"):
        beft.serve(classifier("BERT")).remove("a")
    with pytest.raises(BeftError, match="None is the model itself"):
        served.remove(None)


def test_the_tokenizer_of_the_first_adapter_is_used_and_another_one_refused(tmp_path):
    bert, about = classifier("BERT"), About(("a", "b"), ("text",), 20)
    first = ours(tmp_path / "first", classifier("BERT"), "b_v", about=about, with_tokenizer=True)
    served = beft.serve(bert)
    with pytest.raises(BeftError, match=r"no tokenizer beside the adapters: give one, beft.serve\(..., tokenizer"):
        served.predict("film", None)
    served.add("first", first)
    assert served.predict(TEXTS[:2], "first")[0] in ("a", "b")
    served.add("same", ours(tmp_path / "same", classifier("BERT"), "b_q", about=about, with_tokenizer=True))
    other = ours(tmp_path / "other", classifier("BERT"), "b_q", about=about)
    strange = tokenizer_of(bert)
    strange.add_tokens(["strange"])
    strange.save_pretrained(str(other))
    with pytest.raises(BeftError, match="has other tokens than the one that is served"):
        served.add("other", other)
    assert served.names == ["first", "same"]
