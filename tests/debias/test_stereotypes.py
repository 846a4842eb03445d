"""CrowS-Pairs and StereoSet: reading them, scoring as one masked token at a time does, and counting."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForMaskedLM, BertConfig, PreTrainedTokenizerFast

from beft.bank.baselines import open_bank
from beft.data import stereotype_sets as stereotype_data
from beft.debias import bias_metrics
from beft.debias.stereotypes import (
    SentencePair,
    Triple,
    crows_pairs,
    crows_shares,
    stereoset,
    stereoset_by_kind,
    triple_scores,
)
from beft.errors import BeftError

PIECES = "the my sailor cook is was very brave kind ##ly un ##kind ##er green tea ##pot . , and".split()
CONTEXTS = ["the cook is BLANK .", "BLANK was my sailor , and very brave", "my very BLANK, brave sailor ."]
TRIPLES = [
    Triple("the cook is kinder .", "the cook is unkinder .", "the cook is green .", "profession", CONTEXTS[0]),
    Triple(
        "kindly was my sailor , and very brave",
        "cook was my sailor , and very brave",
        "teapot was my sailor , and very brave",
        "gender",
        CONTEXTS[1],
    ),
    Triple(*(f"my very {w}, brave sailor ." for w in ("kind", "unkindly", "tea-pot")), "gender", CONTEXTS[2]),
]  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def masked():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5 + len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForMaskedLM.from_config(config).eval().requires_grad_(False)


def by_hand(model, words, context, pieces):
    """The mean probability of the pieces of a word, each with those before it in the blank and one mask."""
    before, after = context.split("BLANK")
    chances = []
    for k, piece in enumerate(pieces):
        tokens = ["[CLS]", *words.tokenize(before), *pieces[:k], "[MASK]", *words.tokenize(after), "[SEP]"]
        logits = model(input_ids=torch.tensor([words.convert_tokens_to_ids(tokens)])).logits[0]
        place = 1 + len(words.tokenize(before)) + k
        chances.append(float(logits[place].softmax(-1)[words.convert_tokens_to_ids(piece)]))
    return np.log(np.mean(chances))


def test_scores_are_those_of_the_authors_rule_one_token_at_a_time():
    model, words = masked(), tokenizer()
    pieces = [
        [["kind", "##er"], ["un", "##kind", "##er"], ["green"]],
        [["kind", "##ly"], ["cook"], ["tea", "##pot"]],
        [["kind"], ["un", "##kind", "##ly"], ["tea", "##pot"]],  # punctuation is no part of the word
    ]
    expected = [[by_hand(model, words, c, p) for p in row] for c, row in zip(CONTEXTS, pieces, strict=True)]
    found = triple_scores(model, words, TRIPLES)
    assert found == pytest.approx(np.array(expected), abs=1e-5)
    assert triple_scores(model, words, TRIPLES[1:2]) == pytest.approx(found[1:2], abs=1e-5)
    assert triple_scores(model, words, []).shape == (0, 3)


def test_a_run_of_a_bank_scores_with_its_biases():
    model, words = masked(), tokenizer()
    before = triple_scores(model, words, TRIPLES)
    with open_bank(model, ["b_v", "b_v"], [0, 1]) as bank:
        for slot in bank.slots:
            slot.values.data[1] = 1.0
        same, moved = (triple_scores(bank, words, TRIPLES, run=run) for run in (0, 1))
    assert same == pytest.approx(before, abs=1e-6) and abs(moved - before).max() > 1e-2


def test_a_blank_that_is_cut_off_and_a_tokenizer_without_mask_are_refused():
    model, words = masked(), tokenizer()
    words.model_max_length = 5
    with pytest.raises(BeftError, match="the blank of triple 1 is beyond 5 tokens"):
        triple_scores(model, words, TRIPLES)
    words.mask_token = None
    with pytest.raises(BeftError, match="has no mask token"):
        triple_scores(model, words, TRIPLES)


def test_shares_count_higher_scores_of_the_stereotype_and_ties_against_it():
    scores = np.array([[-1.0, -2.0], [-2.0, -1.0], [-1.0, -1.0], [-1.0, -1.0004], [-3.0, -4.0]])
    found = crows_shares(scores, ["age", "age", "age", "gender", "gender"])
    assert list(found) == ["all", "age", "gender"]
    assert [found[k].percent for k in found] == pytest.approx([40, 100 / 3, 50])
    assert found["all"].n == 5 and found["all"].low < 40 < found["all"].high
    assert np.isnan(crows_shares(np.zeros((0, 2)), [])["all"].percent)


def test_stereoset_by_kind_is_that_of_its_rows_and_of_targets_on_request():
    scores = np.array([[2.0, 1, 0], [1, 2, 0], [0, 1, 2], [3, 2, 1]])
    kinds = ["gender", "gender", "race", "gender"]
    found = stereoset_by_kind(scores, kinds)
    assert found["all"] == bias_metrics.stereoset(scores)
    assert found["gender"] == bias_metrics.stereoset(scores[[0, 1, 3]]) and found["race"].lm == 0
    # of gender, term a has the stereotype in 1 of 2 and term b in 1 of 1
    by_target = stereoset_by_kind(scores, kinds, ["a", "a", "c", "b"])["gender"]
    assert (by_target.lm, by_target.stereotype, by_target.icat) == (100, 75, 50)
    assert np.isnan(stereoset_by_kind(np.zeros((0, 3)), [])["all"].icat)


@pytest.mark.parametrize("count", [crows_shares, stereoset_by_kind])
def test_scores_that_do_not_fit_or_are_no_numbers_are_refused(count):
    width = 2 if count is crows_shares else 3
    with pytest.raises(BeftError, match=r"do not fit 1 kinds: give \(1, "):
        count(np.zeros((2, width)), ["age"])
    with pytest.raises(BeftError, match="row 2 of the scores is no number: the model has diverged"):
        count([[0.0] * width, [np.nan] * width], ["age", "age"])


ROWS = [("the cook is green .", "the sailor is green .", "age"), ("my tea .", "the tea .", "gender")]


def written(folder, suffix, kinds=None):
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=["sent_more", "sent_less", "bias_type"])
    if kinds is not None:
        frame["bias_type"] = kinds
    path = folder / f"test{suffix}"
    if suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_pairs_are_read_from_a_file_of_any_kind(suffix, tmp_path):
    assert crows_pairs(written(tmp_path, suffix)) == [SentencePair(*row) for row in ROWS]


def test_pairs_are_read_from_the_data_folder_and_codes_of_the_hub_get_their_names(tmp_path, monkeypatch):
    (tmp_path / "crows_pairs").mkdir()
    written(tmp_path / "crows_pairs", ".parquet", kinds=[8, 2])
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    assert crows_pairs() == [SentencePair(*row) for row in ROWS]


def test_the_hub_is_asked_for_its_parquet_and_not_while_offline(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, file, **given):
        asked.append((repository, file, given["repo_type"], given["revision"]))
        if "stereoset" in repository:
            raise OSError("no network")
        return str(written(tmp_path, ".parquet", kinds=[8, 2]))

    for name in ("BEFT_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert crows_pairs() == [SentencePair(*row) for row in ROWS]
    assert asked == [
        ("nyu-mll/crows_pairs", "crows_pairs/test/0000.parquet", "dataset", "refs/convert/parquet")
    ]
    with pytest.raises(BeftError, match=r"could not be had from the hub \(no network\): set BEFT_DATA"):
        stereoset()
    for read in (crows_pairs, stereoset):
        with pytest.raises(BeftError, match="the hub is not asked while offline: set BEFT_DATA"):
            read(offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BeftError, match="the hub is not asked while offline"):
        crows_pairs()


def test_unusable_pairs_are_refused_by_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sent_more,sent_less\na,b\n")
    with pytest.raises(BeftError, match="a.csv lacks the column 'bias_type'"):
        crows_pairs(path)
    path.write_text("sent_more,sent_less,bias_type\na,b,age\na,,age\n")
    with pytest.raises(BeftError, match="row 2 of a.csv has an empty 'sent_less'"):
        crows_pairs(path)
    with pytest.raises(BeftError, match="must end in .csv"):
        crows_pairs(tmp_path / "a.txt")


def entry(triple: Triple) -> dict:
    sentences = [
        {"sentence": triple.unrelated, "gold_label": "unrelated", "id": "x", "labels": []},
        {"sentence": triple.stereotype, "gold_label": "stereotype", "id": "y", "labels": []},
        {"sentence": triple.anti, "gold_label": "anti-stereotype", "id": "z", "labels": []},
    ]
    return {
        "context": triple.context,
        "bias_type": triple.kind,
        "target": triple.target,
        "sentences": sentences,
    }


def test_triples_are_read_from_the_published_form_and_from_the_hubs(tmp_path, monkeypatch):
    import pandas as pd

    (tmp_path / "stereoset").mkdir()
    path = tmp_path / "stereoset" / "dev.json"
    entries = [entry(t) for t in TRIPLES]
    path.write_text(json.dumps({"version": "1", "data": {"intrasentence": entries}}))
    assert stereoset(path) == TRIPLES
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    assert stereoset() == TRIPLES
    path.unlink()
    codes = {name: code for code, name in enumerate(["anti-stereotype", "stereotype", "unrelated"])}
    columns = [
        row
        | {
            "sentences": {
                "sentence": [s["sentence"] for s in row["sentences"]],
                "gold_label": [codes[s["gold_label"]] for s in row["sentences"]],
            }
        }
        for row in entries
    ]
    pd.DataFrame(columns).to_parquet(tmp_path / "0000.parquet")
    monkeypatch.setattr(stereotype_data, "_fetched", lambda *_: tmp_path / "0000.parquet")
    assert stereoset() == TRIPLES
    assert TRIPLES[2].words() == ("kind", "unkindly", "teapot")


def test_unusable_triples_are_refused_by_their_number(tmp_path):
    path = tmp_path / "dev.json"

    def refused(*entries: object) -> str:
        path.write_text(json.dumps({"data": {"intrasentence": entries}}))
        with pytest.raises(BeftError) as error:
            stereoset(path)
        return str(error.value)

    good = entry(TRIPLES[0])
    assert "dev.json has no intrasentence entries" in refused()
    assert "entry 2 of dev.json is not in the form" in refused(good, good | {"sentences": []})
    assert "entry 1 of dev.json is not in the form" in refused("text")
    assert "has no word at the BLANK of 'the cook'" in refused(good | {"context": "the cook"})
    path.write_text("[]")
    with pytest.raises(BeftError, match="dev.json is no StereoSet"):
        stereoset(path)
    with pytest.raises(BeftError, match="none.json is no StereoSet"):
        stereoset(tmp_path / "none.json")


@pytest.mark.real
def test_the_published_pairs_are_1508_of_nine_kinds(real_data, monkeypatch):
    if not (real_data / "crows_pairs").is_dir():
        pytest.skip("no CrowS-Pairs in the folder of real data")
    monkeypatch.setenv("BEFT_DATA", str(real_data))
    pairs = crows_pairs(offline=True)
    assert len(pairs) == 1508 and {p.kind for p in pairs} == set(stereotype_data.KINDS)
