"""How numbers are written in tables and figures."""

import numpy as np
import pandas as pd
import pytest
from fake_records import run

from beft.report import names, style, write
from beft.report.dataframes import frame
from beft.report.intervals import mean_interval


@pytest.mark.parametrize(
    ("means", "text"),
    [
        ({"a": 1.0, "b": 2.0}, "b (2) > a (1)"),
        ({"b": 1.0, "a": 1.0}, "a (1) = b (1)"),
        ({"a": np.nan}, "not run"),
    ],
)
def test_order_of_names(means, text):
    assert names.order(means, ".3g") == text


def test_order_without_values_leaves_out_what_is_no_number():
    assert names.order({"k": 1.0, "v": 2.0, "q": 1.0, "x": np.nan, "y": None}) == "v > k = q"


def test_one_seed_has_a_mean_and_no_interval():
    assert names.percent_text(mean_interval([0.7])) == "70.0 (one seed)"
    assert names.percent_text(mean_interval([None, float("nan")])) == "not run"
    assert names.percent_text(mean_interval([0.7, 0.7])) == "70.0 [70.0, 70.0]"


def test_intervals_are_signed_points_or_as_the_form_says():
    assert names.interval_text(0.013, 0.002, 0.024) == "+1.3 [+0.2, +2.4]"
    assert names.interval_text(0.013, np.nan, np.nan) == "+1.3"
    assert names.interval_text(np.nan, np.nan, np.nan, missing="undefined") == "undefined"
    assert names.mean_text(mean_interval([0.25, 0.25]), ".1f", 100) == "25.0 [25.0, 25.0]"
    assert names.mean_text(mean_interval([])) == "undefined"
    assert names.interval_text(-0.0001, -0.0001, 0.0, "z.0%", 1) == "0% [0%, 0%]"


def test_runs_that_are_all_lost_are_not_called_not_run():
    assert names.runs_text(frame([run(outcome="diverged: x")])) == "1 of 1 diverged or failed"
    assert names.runs_text(frame([])) == "not run"
    assert names.runs_text(frame([run(seed=0), run(seed=1, outcome="diverged: x")])) == (
        "80.0 (one seed), 1 of 2 diverged or failed"
    )


def test_runs_that_ended_well_without_a_score_are_counted():
    made = [run(seed=0), run(seed=1), run(seed=2, outcome="diverged: x")]
    made[1]["final"]["validation"] = None
    assert names.runs_text(frame(made)) == "80.0 (one seed), 1 of 3 diverged or failed, 1 of 3 without a score"
    assert names.runs_text(frame(made[1:2])) == "1 of 1 without a score" and names.lost_runs(frame(made)) == 2
    assert style.lost_note(frame(made)) == "\n2 lost"


def test_tau_says_what_stands_in_the_way_of_an_interval():
    assert names.tau_text(pd.Series([1.0])) == "+1.00 in one seed"
    assert names.tau_text(pd.Series([1.0, 1.0])) == "+1.00 in each of 2 seeds"
    assert names.tau_text(pd.Series([np.nan])) == "undefined, equal accuracies"
    assert names.tau_text(pd.Series([])) == "not run"


def test_an_interval_over_tasks_needs_three():
    assert [names.no_interval(n) for n in (1, 2, 3)] == ["one task: no interval", "2 tasks: no interval", ""]
    assert [names.counted(n, "cell") for n in (1, 4)] == ["1 cell", "4 cells"]


def test_models_and_tasks_have_names_that_say_what_they_are():
    assert names.model_name("all-mpnet-base-v2") == "MPNet-base (all-mpnet-base-v2)"
    assert names.model_name("SmolLM2-135M-Instruct-Q4_1") == "SmolLM2-135M-Instruct, 4-bit weights"
    assert names.short_name("SmolLM2-135M-Instruct-Q4_1") == "SmolLM2-135M-Instruct, 4-bit weights"
    assert [names.task_name(t) for t in ("film_sentiment", "sst2")] == ["film sentences", "sst2"]


def test_runs_are_described_beside_those_of_the_paper():
    runs = frame([run("b_v", s, model="all-mpnet-base-v2", epochs=8) for s in range(6)])
    assert names.described(runs) == "MPNet-base: 1,000 rows, 8 epochs, 6 seeds"
    note = names.paper_note(runs)
    assert "BERT-base: 1,000 rows, 16 epochs, seed 0, as printed" in note and names.described(runs) in note
    assert names.paper_note(frame([run("head")])) == names.paper_note(frame([])) == ""  # none printed for the head


def test_a_model_of_four_bits_is_called_so_in_captions_and_cells():
    words = "SmolLM2-135M-Instruct, 4-bit weights"
    assert names.model_names("b_v of SmolLM2-135M-Instruct-Q4_1 on sst2.") == f"b_v of {words} on sst2."
    cells = pd.DataFrame({"model": ["SmolLM2-135M-Instruct-Q4_1", "all-MiniLM-L6-v2"]})
    assert write.as_text(cells)["model"].tolist() == [words, "all-MiniLM-L6-v2"]
