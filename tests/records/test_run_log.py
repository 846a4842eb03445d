"""The log of runs: written where somebody reads it, counted over all sweeps, and read past half a line."""

from __future__ import annotations

from beft.records.store import RUN_LOG, count_runs, log_runs


def test_what_sweeps_log_is_counted_past_half_a_line(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setenv(RUN_LOG, str(path))
    log_runs(done=2, reused=1, failed=0)
    log_runs(done=1, reused=0, failed=1)
    path.write_text(path.read_text() + '{"done": 1')
    assert count_runs(path) == {"done": 3, "reused": 1, "failed": 1}


def test_without_a_log_nothing_is_written_or_counted(tmp_path, monkeypatch):
    monkeypatch.setenv(RUN_LOG, "")
    monkeypatch.chdir(tmp_path)
    log_runs(done=1, reused=0, failed=0)
    assert list(tmp_path.iterdir()) == [] and count_runs(tmp_path / "log") == {
        "done": 0,
        "reused": 0,
        "failed": 0,
    }
