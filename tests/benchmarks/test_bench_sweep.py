"""The benchmark of sweeps times what it says, scales as it says, and reports pass and miss; no time is asserted."""

from __future__ import annotations

import importlib.util

import pytest
from bench_arguments import TINY

from beft.records.store import Store
from beft.study import METHODS
from benchmarks import sweep as bench_sweep

FEW = [*TINY, "--rates", "2", "--singles", "1", "--cells", "2", "--workers", "1"]


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is not installed")
def test_the_command_writes_a_record_and_a_table_with_every_target(tmp_path, capsys, monkeypatch):
    timed = []
    monkeypatch.setattr(bench_sweep, "_timed", lambda context, runs: (timed.append(runs), 0.5 * len(runs))[1])
    assert bench_sweep.main([*FEW, "--out", str(tmp_path)]) == 0
    (record,) = Store(tmp_path).all("bench")
    grid = record["grid"]
    assert grid["runs"] == sum(grid["banks"]) == len(METHODS) * 2 * 2
    assert sum(len(runs) for runs in timed) == grid["runs"] + len(METHODS)  # the grid, and one of each method alone
    assert grid["stacked"] == grid["one_by_one"] == 0.5 * grid["runs"]
    assert record["overhead"]["cells"] == 2 and record["dask"]["banks"] == 2
    printed = capsys.readouterr().out
    assert printed.startswith("**Generated") is False and "MISS" in printed  # one time faster is not two
    (text,) = tmp_path.glob("*.md")
    assert text.read_text() in printed


def test_a_target_is_met_by_more_of_a_ratio_and_less_of_a_cost():
    record = {
        "grid": {"one_by_one": 30.0, "stacked": 10.0, "runs": 125, "banks": [25, 100]},
        "overhead": {"per_cell": 0.01, "reread": 0.002, "once": 1.5},
        "dask": {"workers": 2, "banks": 4, "here": 10.0, "there": 12.0},
        "targets": bench_sweep.TARGETS,
        "settings": {"singles": 3, "rows": 200, "epochs": 2, "dtype": "bfloat16"},
        "device": {"kind": "cpu", "name": "chip", "threads": 2},
        "versions": {"torch": "2"},
        "model": {"name": "m"},
        "data": {"task": "sst2", "source": "folder", "note": ""},
        "code": {"commit": "abcdefghi", "dirty": False},
    }
    assert bench_sweep.report(record).count("pass") == 3
    assert "Reading a cell back: 2 ms" in bench_sweep.report(record)
    noise = record | {"overhead": record["overhead"] | {"reread": -0.005}}
    assert "Reading a cell back: too little to measure" in bench_sweep.report(noise)
    slow = record | {"dask": record["dask"] | {"there": 13.0}}
    slow["overhead"] = record["overhead"] | {"per_cell": 0.1}
    slow["grid"] = record["grid"] | {"one_by_one": 15.0}
    assert bench_sweep.report(slow).count("MISS") == 3
    fast = record | {"device": record["device"] | {"kind": "cuda"}}
    assert bench_sweep.report(fast).count("MISS") == 1  # eight times on a GPU


@pytest.mark.parametrize(
    "given", [["--rates", "9"], ["--cells", "0"], ["--cells", "1"], ["--rows", "3"], ["--task", "nothing"]]
)
def test_bad_options_are_one_sentence(given, capsys, tmp_path):
    assert bench_sweep.main([*FEW, *given, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
