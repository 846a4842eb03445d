"""What a run of the notebooks shows: the plan, the files, and a bar that moves with the work of a cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_notebooks import Make

from beft.errors import BeftError
from beft.progress import RUN_LOG, Bar, events, tell
from beft.reproduce import progress as shown_progress
from beft.reproduce.__main__ import main
from beft.reproduce.notebooks import read
from beft.reproduce.progress import Progress


def test_an_event_reaches_the_log_and_a_line_that_is_not_whole_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    tell(file="nowhere")  # no log is named
    assert events(log) == ([], 0)
    monkeypatch.setenv(RUN_LOG, str(log))
    tell(file="a.png")
    with log.open("a") as file:
        file.write("no event\n[1]\n" + '{"work": 0.')
    found, at = events(log)
    assert found == [{"file": "a.png"}]
    with log.open("a") as file:
        file.write("5}\n")
    assert events(log, at)[0] == [{"work": 0.5}]


def test_the_outermost_bar_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(RUN_LOG, str(log))
    monkeypatch.setattr("beft.progress.EVERY", 0.0)
    silent = {"file": open("/dev/null", "w")}  # noqa: SIM115
    with Bar(total=4, **silent) as outer:
        for _ in range(2):
            outer.update()
            with Bar(total=10, **silent) as inner:
                inner.update(5)
    with Bar(total=2, disable=True) as hidden:
        hidden.update()
    assert [event["work"] for event in events(log)[0]] == [0.25, 0.5]


def _bar(progress: Progress) -> float:
    progress._look()
    return float(progress._bar.n)


def test_the_bar_counts_the_seconds_of_cells_and_moves_inside_one(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make("a", ["1", "2"])
    first, second = [c.id for c in read(source).cells if c.cell_type == "code"][-2:]
    seconds = {"smoke": {"a": {first: 10.0, second: 30.0}}}
    shown_progress.seconds_file().write_text(json.dumps(seconds))
    monkeypatch.setattr(shown_progress, "POLL", 100.0)
    log = tmp_path / "log"
    with Progress("smoke", [source]) as progress, progress.of("a", log):
        assert progress._bar.total == 40  # and no start of the kernel, which was not timed
        progress.started(first)
        progress.started(second)
        assert _bar(progress) == 10
        log.write_text('{"work": 0.5}\n')
        assert _bar(progress) == pytest.approx(10 + 30 * 0.4)
        log.write_text('{"work": 0.5}\n{"work": 1.0}\n{"work": 0.0}\n{"work": 0.5}\n')
        assert _bar(progress) == pytest.approx(10 + 30 * (0.8 + 0.2 * 0.4)), "a second bar fills what the first left"
        progress.started("a cell that was never timed")
        assert _bar(progress) == 40
    assert progress._bar.n == 40


def test_the_plan_comes_first_and_each_file_is_named_as_it_appears(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", ["1"])
    make("03_fine_tuning", ["from beft.progress import tell\ntell(file='figures/smoke/overview.png')"])
    assert main(["--profile", "smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "profile smoke: 2 notebooks", "without times where it was never timed"
    assert [line.split()[0] for line in lines[1:3]] == ["03_fine_tuning", "a"], "the main figure first"
    assert "  figures/smoke/overview.png" in lines[3:]


def test_times_are_kept_of_whole_runs_only(tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    source = make("a", ["import time\ntime.sleep(0.2)"])
    with pytest.raises(BeftError):
        shown_progress.write_seconds("smoke")
    assert main(["--profile", "smoke"]) == 0
    assert main(["times", "--profile", "smoke"]) == 0
    kept = json.loads(shown_progress.seconds_file().read_text())["smoke"]["a"]
    slept = read(source).cells[-1].id
    assert 0.2 <= kept[slept] < 5
    capsys.readouterr()
    assert main(["--profile", "smoke"]) == 0
    assert "1 notebook, about" in capsys.readouterr().out
