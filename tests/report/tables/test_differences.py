"""Differences as text: what a row says, where something is missing, and the verdict on it."""

import pandas as pd
import pytest
from fake_records import run

from beft.report import comparisons
from beft.report.dataframes import frame
from beft.report.tables import cells, ranking

AHEAD, LEVEL, BEHIND = (0.10, 0.11, 0.12), (0.05, -0.05, 0.0), (-0.10, -0.11, -0.12)


def _pair(gaps, rate=1e-3):
    """b_v ahead of b_q by `gaps`, one per seed."""
    rows = [run("b_q", s, rate, 0.7) for s in range(len(gaps))]
    return frame([*rows, *(run("b_v", s, rate, 0.7 + g) for s, g in enumerate(gaps))])


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
    return cells.over_cells(comparisons.compare(frame(rows), [("b_v", "b_q")]))


def _scores(values, firsts=("mag_angle", "reach")):
    """Differences of taus, {score: tau per task}."""
    columns = ["model", "task", "regime", "score", "view", "seed", "tau"]
    rows = [("m", f"t{n}", "low", s, "all terms", 0, x) for s, taus in values.items() for n, x in enumerate(taus)]
    return ranking.tau_differences(pd.DataFrame(rows, columns=columns), firsts).set_index("comparison")


# --- one cell ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equal", "own", "verdicts"),
    [
        (AHEAD, AHEAD, ["ahead", "ahead"]),
        (AHEAD, LEVEL, ["ahead", "no difference shown"]),
        (AHEAD, BEHIND, ["ahead", "behind"]),
        (LEVEL, LEVEL, ["no difference shown"] * 2),
        (BEHIND, BEHIND, ["behind", "behind"]),
    ],
)
def test_better_or_faster_has_a_verdict_in_both_views(equal, own, verdicts):
    views = {"one rate": _pair(equal * 3), "own rates": _pair(own * 3)}
    table = cells.within(views, [("b_v", "b_q")])
    assert table["runs"].tolist() == ["one rate", "own rates"] and table["verdict"].tolist() == verdicts
    assert table["smallest possible p"].tolist() == ["0.0039"] * 2 and table["seeds"].tolist() == [9, 9]


def test_few_seeds_tell_nothing_whatever_their_interval():
    row = cells.within({"one rate": _pair(AHEAD)}, [("b_v", "b_q")]).iloc[0]
    assert row["difference"] == "+11.0 [+8.5, +13.5]" and row["verdict"] == "cannot be told with 3 seeds"
    row = cells.within({"one rate": _pair((0.1,))}, [("b_v", "b_q")]).iloc[0]
    assert row["difference"] == "+10.0" and row["verdict"] == "cannot be told with 1 seed"


def test_a_view_that_was_not_run_keeps_its_row():
    table = cells.within({"one rate": _pair(AHEAD), "own rates": frame([])}, [("b_v", "b_q")])
    assert table.iloc[1][["difference", "p", "verdict"]].tolist() == ["not run", "undefined", "not run"]


# --- training sizes ---------------------------------------------------------------------------------------


def test_sizes_have_a_row_each_in_order():
    table = cells.by_size(frame(_sized({1200: AHEAD, 300: BEHIND, 900: AHEAD})), methods=("full",))
    assert table["rows"].tolist() == [300, 900, 1200] and set(table["comparison"]) == {"full - b_v"}
    gap = "+11.0 [+8.5, +13.5]"
    assert table["difference"].tolist() == ["-11.0 [-13.5, -8.5]", gap, gap]


def test_the_verdict_by_size_is_corrected_for_the_sizes():
    table = cells.by_size(frame(_sized({300: AHEAD * 3, 1200: LEVEL * 3})), methods=("full",))
    assert table["verdict"].tolist() == ["ahead", "no difference shown"]
    assert table["p, Holm"].iloc[0] == "0.0078"
    table = cells.by_size(frame(_sized({300: AHEAD * 2, 1200: LEVEL * 2})), methods=("full",))
    assert set(table["verdict"]) == {"cannot be told with 6 seeds"}


def test_a_method_that_was_not_run_or_shares_no_seed_is_named():
    table = cells.by_size(frame(_sized({300: AHEAD}))).set_index("comparison")
    assert table.loc["LoRA (q, v) - b_v", ["difference", "verdict"]].tolist() == ["not run", "not run"]
    assert cells.by_size(frame([])).empty


def test_one_seed_answers_nothing():
    table = cells.by_size(frame(_sized({300: (0.1,), 900: (0.2,)})), methods=("full",))
    assert set(table["verdict"]) == {"cannot be told with 1 seed"} and table["difference"].iloc[0] == "+10.0"


def test_lost_runs_take_no_part():
    rows = _sized({300: AHEAD})
    for r in rows:
        if r["settings"]["method"] == "full":
            r["outcome"] = "diverged: loss is nan"
    assert set(cells.by_size(frame(rows))["verdict"]) == {"not run"}


def test_tasks_and_models_have_rows_of_their_own():
    rows = [*_sized({300: AHEAD}), *_sized({300: BEHIND}, task="cola", model="roberta-base")]
    table = cells.by_size(frame(rows), methods=("full",))
    assert table[["model", "task"]].to_numpy().tolist() == [
        ["all-MiniLM-L6-v2", "rte"],
        ["roberta-base", "cola"],
    ]


# --- terms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gaps", "row"),
    [
        ((AHEAD,) * 6, ["6 of 6 cells", 6, "+11.0 [+11.0, +11.0]", "0.031", "ahead"]),
        ((BEHIND,) * 6, ["0 of 6 cells", 6, "-11.0 [-11.0, -11.0]", "0.031", "behind"]),
        ((AHEAD,) * 3, ["3 of 3 cells", 3, "+11.0 [+11.0, +11.0]", "0.25", "cannot be told with 3 tasks"]),
        ((AHEAD,), ["1 of 1 cell", 1, "+11.0", "1", "cannot be told with 1 task"]),
        ((AHEAD, AHEAD), ["2 of 2 cells", 2, "+11.0", "0.5", "cannot be told with 2 tasks"]),
    ],
)
def test_terms_over_cells_are_judged_over_tasks(gaps, row):
    table = _over({f"t{n}": g for n, g in enumerate(gaps)})
    assert table[["higher in", "tasks", "difference", "p", "verdict"]].iloc[0].tolist() == row


def test_terms_on_both_sides_show_no_difference():
    table = _over({f"t{n}": g for n, g in enumerate((AHEAD, LEVEL, BEHIND) * 2)})
    assert table["verdict"].tolist() == ["no difference shown"]


def test_terms_without_a_common_seed_or_without_runs():
    compared = comparisons.compare(frame([run("b_v", 0), run("b_q", 1)]), [("b_v", "b_q")])
    row = cells.over_cells(compared).iloc[0]
    assert row[["comparison", "difference", "verdict"]].tolist() == ["b_v - b_q", "not run", "not run"]
    assert _over({}).empty


# --- scores -----------------------------------------------------------------------------------------------


def test_the_better_guide_is_affirmed_denied_or_left_open():
    values = {"mag_angle": (0.5, 0.5, 0.6) * 3, "reach": (1.0,) * 9}
    values |= {"magnitude": (0.0, 0.1, 0.0) * 3, "fisher": (0, 1, 0.6) * 3}
    table = _scores(values)
    assert list(table.index) == [
        *("Mag+Angle - Reach", "Mag+Angle - Magnitude", "Mag+Angle - Fisher (per example)"),
        *("Reach - Magnitude", "Reach - Fisher (per example)"),
    ]  # a pair once
    assert table.loc["Mag+Angle - Magnitude", "verdict"] == "ahead"
    row = table.loc["Mag+Angle - Reach"]
    assert row["difference"].startswith("-0.47 [-0.50, -0.") and row["verdict"] == "behind"
    assert table.loc["Mag+Angle - Fisher (per example)", "verdict"] == "no difference shown"
    assert _scores(values, ("reach",)).loc["Reach - Mag+Angle", "verdict"] == "ahead"


def test_three_tasks_on_one_side_are_not_enough_to_affirm():
    row = _scores({"mag_angle": (1.0, 1.0, 1.0), "magnitude": (0.0, 0.1, 0.0)}).iloc[0]
    assert row["difference"] == "+0.97 [+0.90, +1.00]" and row["verdict"] == "cannot be told with 3 tasks"


def test_scores_of_one_task_have_no_interval():
    row = _scores({"mag_angle": (1.0,), "reach": (0.5,)}).iloc[0]
    assert row["difference"] == "+0.50" and row["verdict"] == "cannot be told with 1 task"


def test_scores_without_rankings_or_without_a_rival():
    assert _scores({}).empty and _scores({"reach": (1.0, 1.0, 0.5)}).empty


# --- over the cells of a table ----------------------------------------------------------------------------


def _compared(tasks=("sst2", "rte", "cola")):
    rows = [
        run(m, s, final=0.5 + x + 0.01 * n, task=t)
        for t in tasks
        for m, x, n in (("b_v", 0.1, 1), ("b_q", 0.0, 0))
        for s in (0, 1, 2)
    ]
    return comparisons.compare(frame(rows), [("b_v", "b_q")])


def test_comparisons_are_in_points_with_every_p():
    row = cells.comparison_table(_compared()).iloc[0]
    assert row["comparison"] == "b_v - b_q" and row["difference, points"] == "+11.0 [+11.0, +11.0]"
    assert row[["seeds", "p", "smallest possible p", "p, Holm"]].tolist() == ["3", "0.25", "0.25", "0.75"]


def test_a_comparison_without_a_common_seed_is_not_run():
    compared = comparisons.compare(frame([run("b_v", 0), run("b_q", 1)]), [("b_v", "b_q")])
    row = cells.comparison_table(compared).iloc[0]
    assert row["difference, points"] == "not run" and row["p"] == "undefined" and "nan" not in " ".join(row)
