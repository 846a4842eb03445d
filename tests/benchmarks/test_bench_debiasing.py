"""The benchmark of CrowS-Pairs scoring compares equal scores and reports pass and miss; no time is asserted."""

from __future__ import annotations

import pytest

from beft.errors import BeftError
from beft.records.store import Store
from benchmarks import debiasing as bench_debiasing

FEW = ["--pairs", "4", "--sample", "2", "--repeats", "1"]


@pytest.fixture
def without_data(monkeypatch):
    """No folder of data sets and no hub."""
    monkeypatch.delenv("BEFT_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_the_command_writes_a_record_of_both_ways_with_equal_scores(without_data, tmp_path, capsys):
    assert bench_debiasing.main([*FEW, "--out", str(tmp_path)]) == 0
    (record,) = Store(tmp_path).all("bench")
    times, passes = record["times"], record["passes"]
    assert times["gap"] <= bench_debiasing.SAME and all(times[n] > 0 for n in ("together", "apart", "all"))
    assert 0 < passes["sample"] < passes["all"] and 22e6 < record["parameters"] < 23e6
    (text,) = tmp_path.glob("*.md")
    shown = text.read_text()
    assert shown in capsys.readouterr().out
    assert "a substitute for CrowS-Pairs" in record["data"]["note"] and record["data"]["note"] in shown
    assert "not measured, fewer pairs were timed" in shown and "both pronouns" in record["data"]["source"]


def test_generated_pairs_differ_in_words_of_gender_alone(without_data):
    pairs, _, _ = bench_debiasing.find_pairs(20)
    swaps = {"he": "she", "she": "he", "his": "her", "her": "his"}
    for one, other in pairs:
        words = one.lower().split()
        assert one != other and [swaps.get(w, w) for w in words] == other.lower().split()


def test_a_data_folder_without_the_pairs_is_no_reason_to_generate_some(tmp_path, monkeypatch):
    (tmp_path / "crows_pairs").mkdir()
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    with pytest.raises(BeftError, match="has no test split"):
        bench_debiasing.find_pairs(4)


def test_pairs_of_a_file_are_taken_evenly_and_never_twice(tmp_path, monkeypatch):
    (tmp_path / "crows_pairs").mkdir()
    rows = [f'{{"sent_more": "more {n}", "sent_less": "less {n}", "bias_type": "age"}}' for n in range(6)]
    (tmp_path / "crows_pairs" / "test.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    pairs, source, note = bench_debiasing.find_pairs(3)
    assert pairs == [(f"more {n}", f"less {n}") for n in (0, 2, 4)] and (source, note) == ("CrowS-Pairs", "")
    with pytest.raises(BeftError, match="there are 6 pairs and 7 were asked for"):
        bench_debiasing.find_pairs(7)


def test_a_target_is_met_by_speed_with_equal_scores_alone():
    record = {
        "settings": {"pairs": 1508, "sample": 60, "repeats": 3},
        "times": {"apart": 40.0, "together": 8.0, "all": 200.0, "gap": 1e-6},
        "passes": {"sample": 1000, "all": 30000},
        "targets": bench_debiasing.TARGETS,
        "tokens": 17.0,
        "parameters": 22_000_000,
        "data": {"source": "CrowS-Pairs", "note": ""},
        "device": {"name": "chip", "threads": 2},
        "versions": {"torch": "2"},
        "model": {"name": "m"},
        "code": {"commit": "abcdefghi", "dirty": False},
    }
    shown = bench_debiasing.report(record)
    assert shown.count("pass") == 3 and "1200 (scaled)" in shown and "MISS" not in shown
    slow = record | {"times": record["times"] | {"apart": 20.0, "all": 300.0}}
    assert bench_debiasing.report(slow).count("MISS") == 2
    apart = record | {"times": record["times"] | {"gap": 1e-3}}
    assert bench_debiasing.report(apart).count("MISS") == 3


@pytest.mark.parametrize("given", [["--repeats", "0"], ["--sample", "5"]])
def test_bad_options_are_one_sentence(given, capsys, tmp_path):
    assert bench_debiasing.main([*FEW, *given, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
