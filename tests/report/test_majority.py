"""What counts as learned, in marks, agreements and verdicts: at or below the majority is not."""

import numpy as np
import pandas as pd
import pytest
from fake_records import ranking, run

from beft.report import comparisons, intervals, majority, names, verdict
from beft.report.dataframes import frame
from beft.report.tables import cells

TERMS = ("b_q", "b_k", "b_v")


def _runs(finals, majority=0.5, **cell):
    """Runs of methods by their scores, one per seed."""
    return [run(m, s, final=x, majority=majority, **cell) for m, xs in finals.items() for s, x in enumerate(xs)]


@pytest.mark.parametrize(
    ("scores", "learned"),
    [
        ((0.51, 0.52), True),
        ((0.5, 0.5), False),  # at the majority
        ((0.49, 0.505), False),  # the mean decides,
        ((0.3, 0.71), True),  # however wide its interval
        ((0.1 + 0.2 + 0.2, 0.5, 0.5), False),  # 0.5 but for rounding
    ],
)
def test_the_mean_must_be_above_the_majority(scores, learned):
    assert majority.is_learned(frame(_runs({"b_v": scores}))) is learned


def test_nothing_is_marked_where_the_majority_or_the_score_is_unknown():
    assert majority.is_learned(frame([run(final=0.01)])) and majority.is_learned(pd.DataFrame(frame([])))
    assert majority.is_learned(frame([run(final=0.01, majority=0.5, outcome="diverged: loss is nan")]))
    assert np.isnan(majority.majority_of(frame([run()]))) and majority.majority_text(np.nan) == "unknown"


def test_lost_runs_do_not_decide():
    rows = [run(seed=0, final=0.6, majority=0.5), run(seed=1, final=0.0, majority=0.5, outcome="diverged: x")]
    assert majority.is_learned(frame(rows))


def test_a_record_without_it_takes_that_of_another_of_the_same_rows():
    old, new, other = run("b_q"), run("b_v", majority=0.5), run("b_k")
    for r, fingerprint in ((old, "x"), (new, "x"), (other, "y")):
        r["data"]["fingerprint"] = fingerprint
    assert frame([old, new, other])["majority"].fillna(-1).tolist() == [0.5, 0.5, -1]


def test_the_mark_stands_behind_the_score():
    assert names.runs_text(frame(_runs({"b_v": (0.5, 0.5)}))) == "50.0 [50.0, 50.0], not learned"
    assert names.runs_text(frame(_runs({"b_v": (0.6,)}))) == "60.0 (one seed)"
    rows = [run(final=0.4, majority=0.5), run(seed=1, majority=0.5, outcome="diverged: x")]
    assert names.runs_text(frame(rows)) == "40.0 (one seed), not learned, 1 of 2 diverged or failed"


# --- agreements -------------------------------------------------------------------------------------------


def _taus(q, k, v, null=False):
    averages = intervals.term_scores(pd.DataFrame(_scored(null)))
    taus = intervals.agreement(averages, frame(_runs({"b_q": (q,), "b_k": (k,), "b_v": (v,)})))
    return taus[taus["score"] == "reach"].set_index("view")


def _scored(null):
    """v above q above k under one score, in one layer and seed."""
    base = {"seed": 0, "rate": 1e-3, "dtype": "float32", "key_null": null, "epoch": 3, "score": "reach", "layer": 1}
    return [base | {"term": t, "value": x} for t, x in (("q", 2.0), ("k", 1.0), ("v", 3.0))]


def test_a_term_that_is_not_learned_has_no_rank():
    taus = _taus(0.7, 0.5, 0.6)
    assert taus["tau"].tolist() == [-1, -1] and taus["learned"].tolist() == [2, 2]  # q above v, k takes no part
    assert _taus(0.7, 0.51, 0.6)["tau"]["all terms"] == pytest.approx(1 / 3)


def test_fewer_than_two_learned_terms_have_no_tau():
    taus = _taus(0.5, 0.6, 0.7, null=True)
    assert taus.loc["all terms", "tau"] == 1 and np.isnan(taus.loc["null b_k excluded", "tau"])
    assert taus["learned"].tolist() == [2, 1]
    assert _taus(0.5, 0.4, 0.3)["tau"].isna().all()


def test_a_cell_without_learned_terms_is_no_cell_of_the_mean_tau():
    ranked = [ranking() for _ in range(2)]
    for record, task in zip(ranked, ("sst2", "rte")):
        record["settings"] |= {"model": "all-MiniLM-L6-v2", "task": task, "regime": "low"}
    rows = _runs({"b_q": (0.7,), "b_k": (0.6,), "b_v": (0.8,)}) + _runs(dict.fromkeys(TERMS, (0.4,)), task="rte")
    over = comparisons.tau_overall(comparisons.tau_by_cell(ranked, frame(rows)))
    assert set(over["cells"]) == {1}


# --- verdicts ---------------------------------------------------------------------------------------------

UP = tuple(0.6 + 0.01 * s for s in range(6))
LOW = tuple(0.49 + 0.001 * s for s in range(6))
PAIRS = [("b_v", "b_q"), ("b_v", "b_k")]


def test_a_difference_to_what_is_not_learned_has_no_verdict_and_is_no_test():
    rows = _runs({"b_v": UP, "b_q": tuple(x - 0.05 - 0.001 * n for n, x in enumerate(UP)), "b_k": LOW})
    compared = comparisons.compare(frame(rows), PAIRS)
    judged = verdict.over_seeds(compared)
    assert judged["verdict"].tolist() == ["ahead", "not learned: b_k"]  # of two tests six seeds could tell nothing
    assert judged["p_holm"].iloc[0] == compared["p_holm"].iloc[0] == 2 / 64 and np.isnan(judged["p_holm"].iloc[1])
    assert cells.comparison_table(compared)["p, Holm"].tolist() == ["0.031", "not learned: b_k"]


def test_both_are_named_where_neither_is_learned_and_not_run_comes_first():
    compared = comparisons.compare(frame(_runs({"b_v": LOW, "b_q": LOW})), [("b_v", "b_q")])
    assert verdict.over_seeds(compared)["verdict"].tolist() == ["not learned: b_v, b_q"]
    rows = [run("b_v", 0, final=0.4, majority=0.5), run("b_q", 1, majority=0.5)]
    assert verdict.over_seeds(comparisons.compare(frame(rows), [("b_v", "b_q")]))["verdict"].tolist() == ["not run"]


def _over(learned, unlearned):
    """So many tasks in which b_v is ahead and both are learned, and so many in which neither is."""
    rows = []
    for n in range(learned + unlearned):
        level = 0.7 if n < learned else 0.3
        rows += _runs({"b_v": (level + 0.1,), "b_q": (level,)}, task=f"t{n}")
    return comparisons.overall(comparisons.compare(frame(rows), [("b_v", "b_q")]))


def test_over_tasks_such_cells_are_left_out_and_counted():
    over = _over(6, 2)
    assert over.iloc[0][["left_out", "cells", "tasks", "higher"]].tolist() == [2, 6, 6, 6]
    assert verdict.over_tasks(over)["verdict"].tolist() == ["ahead"]
    assert verdict.over_tasks(_over(0, 3))["verdict"].tolist() == ["not learned"]
    assert cells.over_tasks(["first"], over)["higher in"].tolist() == ["6 of 6 cells (2 not learned)"]
