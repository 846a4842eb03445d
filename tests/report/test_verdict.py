"""The one rule: too few seeds or tasks, Holm's correction over the table, the boundary, and the direction."""

import pandas as pd
import pytest
from fake_records import run

from beft.report import comparisons, verdict
from beft.report.dataframes import frame


def _pair(gaps, first="b_v", second="b_q", **cell):
    """`first` ahead of `second` by `gaps`, one per seed, in one cell."""
    rows = [run(second, s, final=0.5, **cell) for s in range(len(gaps))]
    return [*rows, *(run(first, s, final=0.5 + g, **cell) for s, g in enumerate(gaps))]


def _verdicts(rows, pairs=(("b_v", "b_q"),)):
    return verdict.over_seeds(comparisons.compare(frame(rows), pairs))["verdict"].tolist()


def _compared(p, n=10, mean=0.1):
    """One row per p, as `over_seeds` takes them."""
    return pd.DataFrame({"n": n, "mean": mean, "p": p})


SIX = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
LEVEL = (0.05, -0.05, 0.04, -0.04, 0.03, -0.03)


@pytest.mark.parametrize(
    ("gaps", "words"),
    [
        (SIX, "ahead"),
        ([-g for g in SIX], "behind"),
        (LEVEL, "no difference shown"),
        ((0.0,) * 6, "no difference shown"),
        (SIX[:5], "cannot be told with 5 seeds"),  # at best 2 / 32
        ((0.1,), "cannot be told with 1 seed"),
    ],
)
def test_one_pair_in_one_cell(gaps, words):
    assert _verdicts(_pair(gaps)) == [words]


def test_no_common_seed_is_not_run():
    rows = [run("b_v", 0), run("b_q", 1)]
    assert _verdicts(rows) == ["not run"]
    views = comparisons.compare_views({"own": frame([]), "one": frame(_pair(SIX))}, [("b_v", "b_q")])
    assert verdict.over_seeds(views)["verdict"].tolist() == ["not run", "ahead"]


def test_the_correction_is_over_the_table_that_is_given():
    rows = [*_pair(SIX), *_pair(SIX, task="rte")]
    assert _verdicts(rows) == ["cannot be told with 6 seeds"] * 2  # 2 x 2 / 64 is above 0.05
    compared = comparisons.compare(frame(rows), [("b_v", "b_q")])
    alone = verdict.over_seeds(compared[compared["task"] == "rte"])
    assert alone["verdict"].tolist() == ["ahead"] and alone["p_holm"].tolist() == [2 / 64]


@pytest.mark.parametrize(("rows", "decided"), [(12, True), (13, False)])
def test_how_many_comparisons_nine_seeds_allow(rows, decided):
    judged = verdict.over_seeds(_compared([2 / 512] * rows, n=9))  # 12 x 2 / 512 = 0.047, 13 x 2 / 512 = 0.051
    assert set(judged["verdict"]) == {"ahead" if decided else "cannot be told with 9 seeds"}


def test_holm_steps_down_and_the_boundary_counts_as_shown():
    judged = verdict.over_seeds(_compared([0.01, 0.05, 0.02, 0.06]))
    assert judged["p_holm"].tolist() == pytest.approx([0.04, 0.1, 0.06, 0.1])
    assert judged["verdict"].tolist() == ["ahead", *["no difference shown"] * 3]
    assert verdict.over_seeds(_compared([0.05]))["verdict"].tolist() == ["ahead"]
    assert verdict.over_seeds(_compared([0.0501]))["verdict"].tolist() == ["no difference shown"]


def test_rows_without_a_test_count_for_nothing():
    table = _compared([0.03, float("nan")]).assign(n=[6, 0])
    assert verdict.over_seeds(table)["verdict"].tolist() == ["ahead", "not run"]


def test_a_row_of_few_seeds_takes_nothing_from_one_of_many():
    table = _compared([0.004, 0.25]).assign(n=[10, 3])
    assert verdict.over_seeds(table)["verdict"].tolist() == ["ahead", "cannot be told with 3 seeds"]


def test_where_less_is_better_a_negative_difference_is_ahead():
    table = _compared([0.002, 0.002], mean=-0.1).assign(lower=[True, False])
    assert verdict.over_seeds(table)["verdict"].tolist() == ["ahead", "behind"]


def _over(gaps_by_task):
    rows = [r for task, gaps in gaps_by_task.items() for r in _pair(gaps, task=task)]
    return verdict.over_tasks(comparisons.overall(comparisons.compare(frame(rows), [("b_v", "b_q")])))


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([(0.10, 0.11)] * 6, "ahead"),
        ([(-0.10, -0.11)] * 6, "behind"),
        ([(0.1, 0.11), (-0.1, -0.11)] * 3, "no difference shown"),
        ([(0.10, 0.11)] * 5, "cannot be told with 5 tasks"),  # all on one side, and still not enough
        ([(0.10, 0.11)], "cannot be told with 1 task"),
    ],
)
def test_over_cells_tasks_are_what_counts(tasks, words):
    assert _over({f"t{n}": gaps for n, gaps in enumerate(tasks)})["verdict"].tolist() == [words]


def test_many_cells_of_few_tasks_tell_nothing():
    rows = [r for size in range(8) for task in ("rte", "sst2") for r in _pair((0.1, 0.2), task=task, regime=size)]
    overall = comparisons.overall(comparisons.compare(frame(rows), [("b_v", "b_q")]))
    assert overall["p"].iloc[0] < 0.001
    assert verdict.over_tasks(overall)["verdict"].tolist() == ["cannot be told with 2 tasks"]


def test_nothing_to_judge_is_an_empty_table():
    for judged in (verdict.over_seeds(comparisons.compare(frame([]), [])), _over({})):
        assert judged.empty and "verdict" in judged
