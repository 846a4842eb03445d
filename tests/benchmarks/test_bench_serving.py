"""The benchmark of serving compares equal logits and reports pass and miss; no time is asserted."""

from __future__ import annotations

import pytest

from beft.records.store import Store
from benchmarks import serving as bench_serving


def test_the_command_writes_a_record_of_all_ways_with_equal_logits(tmp_path, capsys):
    assert bench_serving.main(["--small", "--out", str(tmp_path)]) == 0
    (record,) = Store(tmp_path).all("bench")
    one, three = record["results"]
    assert [one["adapters"], three["adapters"]] == [1, 3] and one["rows"] == 24
    assert set(one["repeats"]) == set(bench_serving.WAYS) and one["copies built"]
    assert set(three["repeats"]) == set(bench_serving.WAYS) - {"copies"} and not three["copies built"]
    for result in record["results"]:
        assert result["gap"] <= bench_serving.SAME["float32"] and all(
            t > 0 for own in result["repeats"].values() for t in own
        )
    sizes = three["bytes"]
    assert sizes["served"] - sizes["model"] == 4 * sizes["adapter"]  # three rows, and one of zeros
    assert sizes["copies"] == 3 * sizes["model"] > max(sizes["PEFT"], sizes["served"])
    (text,) = tmp_path.glob("*.md")
    shown = text.read_text()
    assert shown in capsys.readouterr().out
    assert "not built" in shown and "(computed)" in shown and "64 adapters, those of the target, were not" in shown


def test_a_target_is_met_by_speed_with_equal_logits_alone():
    def record(seconds, gap):
        result = {
            "adapters": 64,
            "dtype": "float32",
            "rows": 512,
            "repeats": {"served": [1.0, 1.0, 9.0], "switching": [seconds] * 3, "grouped": [3.0] * 3},
            "loading": {"served": 0.5, "PEFT": 2.0},
            "bytes": {"model": 9e7, "adapter": 14e3, "served": 9.1e7, "PEFT": 9.2e7, "copies": 64 * 9e7},
            "copies built": False,
            "gap": gap,
        }
        return {
            "results": [result],
            "tokens": 24.0,
            "targets": bench_serving.TARGETS,
            "settings": {"copies": 8},
            "device": {"name": "chip", "threads": 2},
            "versions": {"torch": "2"},
            "model": {"name": "m"},
            "code": {"commit": "abcdefghi", "dirty": False},
        }

    assert "at 64 adapters, float32: 12.0; target at least 10: pass" in bench_serving.report(record(12.0, 1e-6))
    assert "MISS" in bench_serving.report(record(9.0, 1e-6))
    assert "MISS" in bench_serving.report(record(12.0, 1e-3))


@pytest.mark.parametrize(
    "given",
    [
        ["--rows", "0"],
        ["--adapters", "1,x"],
        ["--rows", "99999"],
        ["--model", "no-such-model"],
        ["--dtypes", "int8"],
    ],
)
def test_bad_options_are_one_sentence(given, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # without a network the hub is asked several times, half a minute
    assert bench_serving.main(["--small", *given, "--out", str(tmp_path)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
