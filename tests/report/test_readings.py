"""The sentences follow the numbers: change the records, and they change."""

import numpy as np
import pytest
from fake_records import grid, ranking, run

from beft.report import intervals as statistics
from beft.report import readings
from beft.report.dataframes import curves, frame


def _pair(gaps, rate=1e-3):
    """b_v ahead of b_q by `gaps`, one per seed."""
    rows = [run("b_q", s, rate, 0.7) for s in range(len(gaps))]
    return frame([*rows, *(run("b_v", s, rate, 0.7 + g) for s, g in enumerate(gaps))])


AHEAD, LEVEL, BEHIND = (0.10, 0.11, 0.12), (0.05, -0.05, 0.0), (-0.10, -0.11, -0.12)


@pytest.mark.parametrize(
    ("equal", "own", "words"),
    [
        (AHEAD, AHEAD, "better, not only faster"),
        (AHEAD, LEVEL, "faster, not shown to be better"),
        (AHEAD, BEHIND, "faster, not better"),
        (LEVEL, LEVEL, "no difference between b_v and b_q is shown in either view"),
        (BEHIND, BEHIND, "b_q is ahead in both views"),
    ],
)
def test_better_or_faster_follows_both_intervals(equal, own, words):
    assert words in readings.better_or_faster(_pair(equal), _pair(own))


def test_one_seed_answers_nothing():
    assert "at least two finished seeds" in readings.better_or_faster(_pair((0.1,)), _pair((0.1,)))


def test_the_papers_order_is_affirmed_denied_or_left_open():
    assert "this is the paper's order" in readings.paper_order(frame(grid()))
    other = frame([run("b_v", final=0.6), run("b_q", final=0.7), run("b_k", final=0.5)])
    assert "this is NOT the paper's order" in readings.paper_order(other)
    assert "cannot be checked" in readings.paper_order(frame(grid(("b_v", "b_q"))))


def test_fine_tuning_counts_lost_runs():
    made = [*grid(), run("b_v", 9, outcome="diverged: loss is nan")]
    text = readings.fine_tuning(frame(made), frame(grid()), frame([]), statistics.coincidence(curves(made)))
    assert "Runs that diverged or failed: 1 of 16." in text
    assert "differ by at most 0 in training loss" in text


def test_fine_tuning_without_own_rates_or_a_common_seed_says_not_run():
    made = grid(("head", "b_v"), seeds=(0,))
    text = readings.fine_tuning(frame(made), frame([]), frame([]), statistics.coincidence(curves(made)))
    assert "Each at its own rate: not run." in text and "b_k and the head alone: not run" in text


def test_ranking_names_a_null_key_bias_ranked_too_high():
    runs = frame(grid())
    for dtype, found in (("float32", False), ("bfloat16", True)):
        averages = statistics.term_scores(statistics.scores([ranking(s, dtype) for s in range(3)]))
        line = next(x for x in readings.ranking(averages, runs).splitlines() if x.startswith("mag_angle"))
        assert ("provably null b_k above" in line) is found
        assert ("NOT as the mean accuracies" in line) is found


@pytest.mark.parametrize(
    ("means", "text"),
    [
        ({"a": 1.0, "b": 2.0}, "b (2) > a (1)"),
        ({"b": 1.0, "a": 1.0}, "a (1) = b (1)"),
        ({"a": np.nan}, "not run"),
    ],
)
def test_order_of_names(means, text):
    assert readings.order(means) == text


def test_accuracies_are_ordered_in_percent():
    runs = frame(grid(seeds=(0,)))
    assert readings.accuracy_order(runs, ["b_q", "b_v"]).startswith("b_v (78.5) > b_q (68.5)")


def test_equal_accuracies_leave_tau_undefined_and_are_not_called_wrong():
    runs = frame([run(m, final=0.5) for m in ("b_q", "b_k", "b_v")])
    text = readings.ranking(statistics.term_scores(statistics.scores([ranking(0)])), runs)
    assert "tau undefined, equal accuracies" in text and "NOT as" not in text
