"""The benchmark of prompting compares equal scores and reports pass and miss; no time is asserted."""

from __future__ import annotations

import pytest

from beft.records.store import Store
from benchmarks import prompting as bench_prompting

FEW = ["--examples", "4", "--shown", "2", "--demonstrations", "3", "--repeats", "1"]


def test_the_command_writes_a_record_of_both_ways_with_equal_scores(tmp_path, capsys):
    assert bench_prompting.main([*FEW, "--out", str(tmp_path)]) == 0
    (record,) = Store(tmp_path).all("bench")
    assert {t["examples"] for t in record["times"].values()} == {4, 2} and record["demonstrations"] == 3
    assert all(t["gap"] <= bench_prompting.SAME and t["together"] > 0 < t["apart"] for t in record["times"].values())
    assert record["tokens"]["in context"] > 2 * record["tokens"]["zero-shot"]
    (text,) = tmp_path.glob("*.md")
    assert text.read_text() in capsys.readouterr().out


def test_a_target_is_met_by_speed_with_equal_scores_alone():
    times = {"apart": 40.0, "together": 2.0, "gap": 1e-6, "examples": 60}
    record = {
        "times": {"zero-shot": times, "in context": times},
        "targets": bench_prompting.TARGETS,
        "tokens": {"zero-shot": 40.0, "in context": 900.0},
        "demonstrations": 32,
        "device": {"name": "chip", "threads": 2},
        "versions": {"torch": "2"},
        "model": {"name": "m"},
        "code": {"commit": "abcdefghi", "dirty": False},
    }
    assert bench_prompting.report(record).count("pass") == 2
    slow = record | {"times": {"zero-shot": times | {"apart": 5.0}, "in context": times | {"gap": 1e-3}}}
    assert bench_prompting.report(slow).count("MISS") == 2


@pytest.mark.parametrize("given", [["--examples", "0"], ["--model", "no-such-model"]])
def test_bad_options_are_one_sentence(given, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # without a network the hub is asked several times, half a minute
    assert bench_prompting.main([*FEW, *given, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
