"""The sentences over cells follow the numbers: change the records, and they change."""

import pandas as pd
import pytest
from fake_records import run

from beft.report import comparisons, readings_grid
from beft.report.dataframes import frame

AHEAD, LEVEL, BEHIND = (0.10, 0.11, 0.12), (0.05, -0.05, 0.0), (-0.10, -0.11, -0.12)


def _sized(gaps_by_size, method="full", task="rte", **settings):
    """`method` ahead of b_v by the gaps (one per seed) at each training size."""
    rows = []
    for size, gaps in gaps_by_size.items():
        cell = {"task": task, "regime": str(size), "train_size": size, **settings}
        rows += [run("b_v", s, final=0.6, **cell) for s in range(len(gaps))]
        rows += [run(method, s, final=0.6 + g, **cell) for s, g in enumerate(gaps)]
    return rows


def _over(gaps_by_task):
    rows = []
    for task, gaps in gaps_by_task.items():
        rows += [run("b_q", s, final=0.5, task=task) for s in range(len(gaps))]
        rows += [run("b_v", s, final=0.5 + g, task=task) for s, g in enumerate(gaps)]
    return comparisons.overall(comparisons.compare(frame(rows), [("b_v", "b_q")]))


def _taus(values):
    """{score: tau per task} as a frame like that of `tau_by_cell`."""
    rows = [
        {"model": "m", "task": f"t{n}", "regime": "low", "score": s, "view": "all terms", "seed": 0, "tau": x}
        for s, found in values.items()
        for n, x in enumerate(found)
    ]
    return pd.DataFrame(rows, columns=["model", "task", "regime", "score", "view", "seed", "tau"])


def _scores(values, first="mag_angle"):
    taus = _taus(values)
    return readings_grid.scores_over_cells(
        comparisons.tau_overall(taus), comparisons.tau_differences(taus, first)
    )


# --- training sizes ---------------------------------------------------------------------------------------


def test_the_smallest_size_with_an_interval_above_zero_is_named():
    text = readings_grid.by_size(frame(_sized({1200: AHEAD, 300: BEHIND, 900: AHEAD})), methods=("full",))
    gap = "+11.0 [+8.5, +13.5]"
    assert text == f"rte: full is first ahead of b_v at 900 rows ({gap} points; at 1,200 {gap})."


def test_a_lead_that_is_gone_at_the_largest_size_is_seen():
    text = readings_grid.by_size(frame(_sized({300: AHEAD, 1200: LEVEL})), methods=("full",))
    assert "first ahead of b_v at 300 rows" in text and "; at 1,200 +0.0 [-" in text


def test_no_size_is_said_with_what_was_tried():
    text = readings_grid.by_size(frame(_sized({300: BEHIND, 1200: LEVEL})), methods=("full",))
    assert "at no size tried (300 to 1,200 rows; at the largest +0.0 [" in text


def test_a_method_that_was_not_run_or_shares_no_seed_is_named():
    text = readings_grid.by_size(frame(_sized({300: AHEAD})))
    assert "full is first ahead" in text and "LoRA (q, v) against b_v: not run" in text
    assert readings_grid.by_size(frame([])) == "Training sizes: not run."


def test_one_seed_answers_nothing():
    text = readings_grid.by_size(frame(_sized({300: (0.1,), 900: (0.2,)})), methods=("full",))
    assert text == "rte: full against b_v: one seed at each size, so no interval."


def test_lost_runs_take_no_part():
    rows = _sized({300: AHEAD})
    for r in rows:
        if r["settings"]["method"] == "full":
            r["outcome"] = "diverged: loss is nan"
    assert "full against b_v: not run" in readings_grid.by_size(frame(rows))


def test_tasks_and_models_have_a_line_each():
    rows = [*_sized({300: AHEAD}), *_sized({300: BEHIND}, task="cola", model="roberta-base")]
    lines = readings_grid.by_size(frame(rows), methods=("full",)).splitlines()
    assert lines[0].startswith("rte, all-MiniLM-L6-v2: full is first") and lines[1].startswith(
        "cola, roberta-base"
    )


# --- terms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (
            (AHEAD,) * 6,
            "ahead in 6 of 6 cells, mean +11.0 [+11.0, +11.0] points over 6 tasks; b_v is ahead",
        ),
        ((BEHIND,) * 6, "b_q is ahead (p over tasks 0.031, smallest possible 0.031)"),
        (
            (AHEAD,) * 3,
            "no difference is shown, though the interval excludes 0: it is too narrow for few tasks "
            "(p over tasks 0.25, smallest possible 0.25)",
        ),
        ((AHEAD, LEVEL, BEHIND), "no difference is shown (p over tasks 1,"),
        ((AHEAD,), "ahead in 1 of 1 cell, mean +11.0 points over one task; one task: no interval."),
        ((AHEAD, AHEAD), "2 tasks: no interval."),
    ],
)
def test_terms_over_cells_follow_the_interval_over_tasks(gaps, words):
    assert words in readings_grid.terms_over_cells(_over({f"t{n}": g for n, g in enumerate(gaps)}))


def test_terms_without_a_common_seed_or_without_runs():
    compared = comparisons.compare(frame([run("b_v", 0), run("b_q", 1)]), [("b_v", "b_q")])
    assert (
        readings_grid.terms_over_cells(comparisons.overall(compared))
        == "b_v - b_q: not run with a common seed."
    )
    assert readings_grid.terms_over_cells(_over({})) == "Pairs of terms: not run."


# --- scores -----------------------------------------------------------------------------------------------


def test_the_better_guide_is_affirmed_denied_or_left_open():
    values = {
        "mag_angle": (0.5, 0.5, 0.6) * 2,
        "reach": (1.0, 1.0, 1.0) * 2,
        "magnitude": (0.0, 0.1, 0.0) * 2,
        "fisher": (0, 1, 0.6) * 2,
    }
    text = _scores(values)
    assert text.splitlines()[0].startswith(
        "Mean tau, all terms: Reach +1.00 [+1.00, +1.00], Mag+Angle +0.53 ["
    )
    assert "Is Mag+Angle the better guide?" in text
    assert ": yes (p over tasks 0.031, smallest possible 0.031)." in text
    assert "against Reach -0.47 [-0.50, -0.43]: no, it is the worse one (p over tasks 0.031" in text
    assert "]: not shown (p over tasks 1," in text.split("Fisher (per example)")[-1]
    assert "Is Reach the better guide?\n    against Mag+Angle +0.47 [+0.43, +0.50]: yes" in _scores(
        values, "reach"
    )


def test_three_tasks_on_one_side_are_not_enough_to_affirm():
    text = _scores({"mag_angle": (1.0, 1.0, 1.0), "magnitude": (0.0, 0.1, 0.0)})
    assert "against Magnitude +0.97 [+0.90, +1.00]: not shown, though the interval excludes 0" in text


def test_scores_of_one_task_have_no_interval():
    text = _scores({"mag_angle": (1.0,), "reach": (0.5,)})
    assert "(1 cell, one task: no interval)" in text and "against Reach +0.50: one task: no interval." in text


def test_scores_without_rankings_or_without_a_rival():
    assert _scores({}) == "Scores over cells: not run."
    assert _scores({"reach": (1.0, 1.0, 0.5)}).count("\n") == 0
