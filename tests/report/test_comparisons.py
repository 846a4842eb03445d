"""Comparisons over cells against hand-worked values, and what must hold of them for any input."""

import numpy as np
import pandas as pd
import pytest
from fake_records import ranking, run
from hypothesis import given, settings
from hypothesis import strategies as st

from beft.errors import BeftError
from beft.report import comparisons, intervals
from beft.report.dataframes import frame
from beft.report.tables import cells

P = st.lists(st.floats(0, 1), min_size=1, max_size=8)
SMALL = st.lists(st.tuples(st.integers(-50, 50), st.sampled_from("abcd")), min_size=3, max_size=12)


def _runs(gaps, first="b_v", second="b_q", **cell):
    """`first` ahead of `second` by `gaps`, one per seed, in one cell."""
    rows = [run(second, s, final=0.5, **cell) for s in range(len(gaps))]
    return [*rows, *(run(first, s, final=0.5 + g, **cell) for s, g in enumerate(gaps))]


def _ranked(seed=0, task="sst2", **kwargs):
    record = ranking(seed, **kwargs)
    record["settings"] |= {"model": "all-MiniLM-L6-v2", "task": task, "regime": "low"}
    return record


def _terms(task, q, k, v, seeds=(0, 1)):
    return [run(m, s, final=x, task=task) for m, x in (("b_q", q), ("b_k", k), ("b_v", v)) for s in seeds]


def _compared(means):
    """A frame like that of `compare` with the columns `overall` reads: (task, mean) per cell."""
    rows = [
        {"model": "m", "task": t, "regime": n, "first": "b_v", "second": "b_q", "mean": d}
        for n, (t, d) in enumerate(means)
    ]
    return pd.DataFrame(rows)


# --- corrections and intervals ----------------------------------------------------------------------------


def test_holm_as_worked_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04 and never falling
    assert comparisons.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert comparisons.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert comparisons.holm([]).tolist() == []


def test_holm_leaves_out_what_is_undefined():
    found = comparisons.holm([0.01, np.nan, 0.04])
    assert np.isnan(found[1]) and found[[0, 2]] == pytest.approx([0.02, 0.04])


@given(P)
def test_holm_keeps_the_order_lowers_nothing_and_stays_a_probability(p):
    found = comparisons.holm(p)
    assert (found >= np.asarray(p) - 1e-12).all() and (found <= 1).all()
    assert (np.diff(found[np.argsort(p, kind="stable")]) >= 0).all()
    assert found == pytest.approx(comparisons.holm(p[::-1])[::-1])


def test_bootstrap_interval_needs_three_values_and_takes_equal_ones():
    assert np.isnan(comparisons.bootstrap_interval([0.1, 0.2])).all()
    assert comparisons.bootstrap_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)
    low, high = comparisons.bootstrap_interval([0.0, 0.1, 0.2, 0.3])
    assert 0 < low < 0.15 < high < 0.3
    assert (low, high) == comparisons.bootstrap_interval([0.0, 0.1, 0.2, 0.3])


def test_cluster_interval_draws_whole_tasks():
    # three tasks: a draw of one task alone has probability 1/27, beyond the 2.5% of each tail
    values, tasks = [0.0, 0.2, 0.4, 0.4, 1.0], ["a", "a", "b", "b", "c"]
    assert comparisons.cluster_interval(values, tasks) == pytest.approx((0.1, 1.0))
    assert np.isnan(comparisons.cluster_interval(values, ["a", "a", "b", "b", "b"])).all()
    assert np.isnan(comparisons.cluster_interval([], [])).all()


def test_copies_of_cells_within_tasks_narrow_nothing():
    values, tasks = np.random.default_rng(0).normal(size=6), list("abcdef")
    once = comparisons.cluster_interval(values, tasks)
    assert comparisons.cluster_interval(np.repeat(values, 5), list(np.repeat(tasks, 5))) == pytest.approx(once)
    alone = comparisons.cluster_interval(np.repeat(values, 5), list(range(30)))
    assert alone[1] - alone[0] < 0.7 * (once[1] - once[0])


@settings(max_examples=25, deadline=None)
@given(SMALL, st.integers(-5, 5))
def test_cluster_interval_lies_within_the_tasks_means_and_moves_with_them(cells, shift):
    values, tasks = np.array([v for v, _ in cells], dtype=float), [t for _, t in cells]
    low, high = comparisons.cluster_interval(values, tasks)
    if len(set(tasks)) < 3:
        assert np.isnan([low, high]).all()
        return
    means = pd.Series(values).groupby(tasks).mean()
    assert means.min() - 1e-9 <= low <= high <= means.max() + 1e-9
    assert comparisons.cluster_interval(values + shift, tasks) == pytest.approx((low + shift, high + shift))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_smallest_p_is_that_of_differences_of_one_sign(n):
    assert comparisons.least_p(n) == intervals.sign_flip_p(list(range(1, n + 1)))


def test_smallest_p_of_sampled_flips_is_no_smaller_than_one_in_the_sample():
    assert comparisons.least_p(30) == pytest.approx(intervals.sign_flip_p([0.1 * n for n in range(1, 31)]))
    assert np.isnan(comparisons.least_p(0))


# --- methods ----------------------------------------------------------------------------------------------


def test_each_cell_and_pair_has_one_row_in_order_of_appearance():
    rows = [*_runs([0.1, 0.2, 0.3], task="rte", regime="low"), *_runs([0.1] * 3, task="rte", regime=250)]
    rows += _runs([-0.1, -0.1, -0.2], task="cola")
    table = comparisons.compare(frame(rows), [("b_v", "b_q"), ("b_v", "full")])
    assert table[["task", "regime"]].to_numpy().tolist() == [["rte", "low"], ["rte", 250], ["cola", "low"]]
    row = table.iloc[0]
    assert row["mean"] == pytest.approx(0.2) and row["n"] == 3
    assert (row["p"], row["p_least"]) == (0.25, 0.25)
    assert row["low"] < row["boot_low"] < 0.2 < row["boot_high"] < row["high"]
    assert table["p_holm"].tolist() == pytest.approx([0.75, 0.75, 0.75])


def test_lost_runs_and_missing_values_leave_the_other_seeds():
    rows = _runs([0.1, 0.2, 0.3, 0.4])
    rows[4]["outcome"] = "diverged: loss is nan"
    rows[6]["final"]["validation"] = None
    row = comparisons.compare(frame(rows), [("b_v", "b_q")]).iloc[0]
    assert row["n"] == 2 and row["mean"] == pytest.approx(0.3) and np.isnan(row["boot_low"])


def test_methods_without_a_common_seed_have_a_row_without_numbers():
    table = comparisons.compare(frame([run("b_v", 0), run("b_q", 1)]), [("b_v", "b_q")])
    row = table.iloc[0]
    assert row["n"] == 0 and row[["mean", "low", "boot_low", "p", "p_least", "p_holm"]].isna().all()
    assert comparisons.overall(table).iloc[0][["cells", "tasks", "higher"]].tolist() == [0, 0, 0]


def test_one_seed_shows_nothing():
    row = comparisons.compare(frame(_runs([0.1])), [("b_v", "b_q")]).iloc[0]
    assert (row["p"], row["p_least"], row["p_holm"]) == (1, 1, 1) and np.isnan(row["low"])


def test_no_runs_or_only_lost_ones_give_an_empty_table():
    for rows in ([], [run("b_v", outcome="diverged: x"), run("b_q")]):
        table = comparisons.compare(frame(rows), [("b_v", "b_q")])
        assert table.empty and "p_holm" in table and comparisons.overall(table).empty


def test_equal_differences_have_intervals_of_no_width():
    row = comparisons.compare(frame(_runs([0.0] * 3)), [("b_v", "b_q")]).iloc[0]
    assert row[["mean", "low", "high", "boot_low", "boot_high"]].tolist() == [0] * 5 and row["p"] == 1


def test_several_rates_for_a_seed_are_refused():
    rows = [run("b_v", 0, rate) for rate in (1e-3, 1e-2)]
    with pytest.raises(BeftError, match="one rate"):
        comparisons.compare(frame([*rows, run("b_q", 0)]), [("b_v", "b_q")])
    with pytest.raises(BeftError, match="several runs for seed 0 in sst2, low, all-MiniLM-L6-v2"):
        comparisons.one_run_each(frame(rows))


def test_overall_counts_cells_and_flips_tasks_together():
    means = [("a", 0.1), ("a", 0.2), ("b", 0.3), ("c", 0.4), ("c", -0.1)]
    row = comparisons.overall(_compared(means)).iloc[0]
    assert (row["cells"], row["tasks"], row["higher"]) == (5, 3, 4)
    assert row["mean"] == pytest.approx(0.18)
    assert row["low"] == pytest.approx(0.15) and row["high"] == pytest.approx(0.3)  # the tasks' means
    assert row["p_tasks"] == 0.25 and row["p"] == intervals.sign_flip_p([d for _, d in means])


def test_overall_of_two_tasks_has_no_interval_and_leaves_out_undefined_cells():
    row = comparisons.overall(_compared([("a", 0.1), ("b", 0.2), ("c", np.nan)])).iloc[0]
    assert (row["cells"], row["tasks"]) == (2, 2) and np.isnan(row["low"]) and row["p_tasks"] == 0.5


# --- scores -----------------------------------------------------------------------------------------------


def test_tau_of_each_cell_is_that_of_its_own_runs_and_rankings():
    rows = [*_terms("sst2", 0.7, 0.5, 0.8), *_terms("rte", 0.8, 0.5, 0.7), *_terms("cola", 0.7, 0.6, 0.8)]
    ranked = [_ranked(s, task) for task in ("sst2", "rte") for s in (0, 1)]
    taus = comparisons.tau_by_cell(ranked, frame(rows)).set_index(["task", "score", "view", "seed"])["tau"]
    assert set(taus.index.get_level_values("task")) == {"sst2", "rte"}  # cola has no ranking
    assert taus["sst2", "reach", "all terms", 1] == 1
    assert taus["rte", "reach", "all terms", 1] == pytest.approx(1 / 3)
    assert taus["rte", "reach", "null b_k excluded", 0] == -1


def test_tau_of_means_is_not_the_mean_of_taus():
    rows = _terms("sst2", 0.7, 0.5, 0.8, seeds=(0,)) + _terms("sst2", 0.72, 0.5, 0.71, seeds=(1,))
    ranked, view = [_ranked(0), _ranked(1)], "all terms"
    means = cells.table1(ranked, rows)["reach: top, tau"]
    seeds = comparisons.cell_taus(comparisons.tau_by_cell(ranked, frame(rows)))
    assert means[0].startswith("right, +1.00")
    assert seeds.set_index(["score", "view"])["tau"]["reach", view] == pytest.approx(2 / 3)


def test_lost_rankings_and_lost_terms_take_no_part():
    rows = _terms("sst2", 0.7, 0.5, 0.8)
    ranked = [_ranked(0), _ranked(1, outcome="diverged: x")]
    assert set(comparisons.tau_by_cell(ranked, frame(rows))["seed"]) == {0}
    for r in rows:
        r["outcome"] = "diverged: x" if r["settings"]["method"] == "b_k" else "ok"
    left = comparisons.tau_by_cell(ranked, frame(rows))
    assert set(left["view"]) == {"null b_k excluded"}  # b_q against b_v needs no b_k
    none = comparisons.tau_by_cell([], frame([]))
    assert none.empty and comparisons.tau_overall(none).empty and comparisons.tau_differences(none).empty


def test_several_rankings_or_runs_of_a_seed_are_refused():
    rows = _terms("sst2", 0.7, 0.5, 0.8)
    with pytest.raises(BeftError, match="one precision"):
        comparisons.tau_by_cell([_ranked(0), _ranked(0, dtype="bfloat16")], frame(rows))
    with pytest.raises(BeftError, match="several runs"):
        comparisons.tau_by_cell([_ranked(0)], frame([*rows, run("b_v", 0, 1e-2)]))


def _taus(values, view="all terms"):
    """(task, score, seed, tau) rows of one regime."""
    rows = [
        {"model": "m", "task": t, "regime": "low", "score": s, "view": view, "seed": n, "tau": x}
        for t, s, n, x in values
    ]
    return pd.DataFrame(rows)


def test_seeds_are_averaged_in_a_cell_before_cells_are():
    values = [
        ("a", "reach", 0, 1.0),
        ("a", "reach", 1, 0.0),
        ("b", "reach", 0, 1.0),
        ("b", "reach", 1, np.nan),
    ]
    row = comparisons.tau_overall(_taus(values)).iloc[0]
    assert row["mean"] == pytest.approx(0.75) and (row["cells"], row["tasks"]) == (2, 2) and np.isnan(row["low"])


def test_differences_of_taus_pair_seeds_and_resample_tasks():
    values = [("a", "mag_angle", 0, 1.0), ("a", "reach", 0, 0.0), ("a", "mag_angle", 1, -1.0)]
    values += [(t, s, 0, x) for t in "bc" for s, x in (("mag_angle", 1.0), ("reach", 0.5))]
    row = comparisons.tau_differences(_taus(values)).iloc[0]
    assert (row["first"], row["second"], row["cells"], row["higher"]) == ("mag_angle", "reach", 3, 3)
    assert row["mean"] == pytest.approx(2 / 3)  # seed 1 of task a has one tau only
    assert row["low"] == pytest.approx(0.5) and row["high"] == pytest.approx(1.0) and row["p_tasks"] == 0.25
    back = comparisons.tau_differences(_taus(values), first="reach").iloc[0]
    assert back["mean"] == pytest.approx(-row["mean"]) and back["higher"] == 0
    assert comparisons.tau_differences(_taus(values), first="fisher").empty
