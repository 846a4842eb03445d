"""CrowS-Pairs and StereoSet are read from files, the data folder and the hub; unusable rows are refused."""

from __future__ import annotations

import json

import pytest

from beft.data import stereotype_sets
from beft.data.stereotype_sets import BIAS_TYPES, SentencePair, Triple, crows_pairs, stereoset
from beft.errors import BeftError

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
ROWS = [("the cook is green .", "the sailor is green .", "age"), ("my tea .", "the tea .", "gender")]


def written(folder, suffix, types=None):
    import pandas as pd

    frame = pd.DataFrame(ROWS, columns=["sent_more", "sent_less", "bias_type"])
    if types is not None:
        frame["bias_type"] = types
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
    written(tmp_path / "crows_pairs", ".parquet", types=[8, 2])
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    assert crows_pairs() == [SentencePair(*row) for row in ROWS]


def test_the_hubs_parquet_is_fetched_and_not_while_offline(tmp_path, monkeypatch):
    import huggingface_hub

    requests = []

    def download(repository, file, **given):
        requests.append((repository, file, given["repo_type"], given["revision"]))
        if "stereoset" in repository:
            raise OSError("no network")
        return str(written(tmp_path, ".parquet", types=[8, 2]))

    for name in ("BEFT_DATA", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert crows_pairs() == [SentencePair(*row) for row in ROWS]
    assert requests == [("nyu-mll/crows_pairs", "crows_pairs/test/0000.parquet", "dataset", "refs/convert/parquet")]
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
    monkeypatch.setattr(stereotype_sets, "hub_parquet", lambda *_: tmp_path / "0000.parquet")
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
def test_the_published_pairs_are_1508_of_nine_types(real_data, monkeypatch):
    if not (real_data / "crows_pairs").is_dir():
        pytest.skip("no CrowS-Pairs in the folder of real data")
    monkeypatch.setenv("BEFT_DATA", str(real_data))
    pairs = crows_pairs(offline=True)
    assert len(pairs) == 1508 and {p.kind for p in pairs} == set(BIAS_TYPES)
