"""Tables of the ranking scores: orders of the terms, agreement with the accuracies, seed by seed and over cells."""

from fake_records import grid, ranking, run

from beft.report import comparisons, dataframes, intervals
from beft.report.tables import ranking as table


def test_orders_are_read_from_the_runs():
    averages = intervals.term_scores(dataframes.scores([ranking(s, "bfloat16") for s in range(3)]))
    orders = table.orders(averages, dataframes.frame(grid())).set_index("score")
    assert orders.loc["mag_angle"].iloc[0].startswith("b_k")  # a null b_k, lifted by bfloat16's rounding
    assert orders.loc["mag_angle", "accuracies in that order, all terms"] == "0 of 3 seeds"
    assert orders.loc["mag_angle", "accuracies in that order, null b_k excluded"] == "3 of 3 seeds"
    assert "norms" not in orders.index


def test_tau_table_says_when_there_is_one_seed():
    averages = intervals.term_scores(dataframes.scores([ranking(0)]))
    rows = table.tau_by_seed(intervals.agreement(averages, dataframes.frame(grid(seeds=(0,)))))
    assert set(rows["Kendall's tau"]) == {"+1.00 in one seed"}


def test_tau_table_claims_no_interval_where_all_seeds_are_equal():
    averages = intervals.term_scores(dataframes.scores([ranking(s) for s in range(3)]))
    rows = table.tau_by_seed(intervals.agreement(averages, dataframes.frame(grid()))).set_index(["score", "terms"])
    assert rows.loc[("reach", "all terms"), "Kendall's tau"] == "+1.00 in each of 3 seeds"


def test_the_accuracies_order_is_affirmed_denied_or_undefined():
    runs = dataframes.frame(grid())
    for dtype, misplaced in (("float32", "no"), ("bfloat16", "yes")):
        averages = intervals.term_scores(dataframes.scores([ranking(s, dtype) for s in range(3)]))
        row = table.against_accuracies(averages, runs).set_index("score").loc["mag_angle"]
        assert row["null b_k above another term"] == misplaced
        assert row["order of the mean accuracies"] == ("no" if misplaced == "yes" else "yes")


def test_equal_accuracies_leave_tau_undefined_and_are_not_called_wrong():
    runs = dataframes.frame([run(m, final=0.5) for m in ("b_q", "b_k", "b_v")])
    rows = table.against_accuracies(intervals.term_scores(dataframes.scores([ranking(0)])), runs)
    assert set(rows["order of the mean accuracies"]) == {"undefined"}
    assert set(rows["tau, all terms"]) == {"undefined, equal accuracies"}


def test_terms_without_accuracies_leave_the_order_undefined():
    runs = dataframes.frame([run("b_v"), run("head")])
    rows = table.against_accuracies(intervals.term_scores(dataframes.scores([ranking(0)])), runs)
    assert set(rows["order of the mean accuracies"]) == {"undefined"} and "tau, all terms" not in rows


def test_taus_are_text_and_an_interval_needs_three_tasks():
    tasks, accuracies = ("sst2", "rte", "cola"), {"b_q": 0.7, "b_k": 0.5, "b_v": 0.8}
    runs = [run(m, 0, final=x, task=t) for t in tasks for m, x in accuracies.items()]
    ranked = [ranking() for _ in tasks]
    for record, task in zip(ranked, tasks):
        record["settings"] |= {"model": "all-MiniLM-L6-v2", "task": task, "regime": "low"}
    taus = comparisons.tau_by_cell(ranked, dataframes.frame(runs))
    rows = table.tau_over_cells(comparisons.tau_overall(taus)).set_index(["score", "terms"])
    assert rows.loc[("reach", "all terms"), "Kendall's tau"] == "+1.00 [+1.00, +1.00]"
    for count, why in ((2, "2 tasks: no interval"), (1, "one task: no interval")):
        few = taus[taus["task"].isin(tasks[:count])]
        rows = table.tau_over_cells(comparisons.tau_overall(few)).set_index(["score", "terms"])
        assert rows.loc[("reach", "all terms"), "Kendall's tau"] == f"+1.00 ({why})"
    assert table.tau_over_cells(comparisons.tau_overall(taus.head(0))).empty


def test_a_cell_with_fewer_than_two_learned_terms_says_so():
    runs = dataframes.frame([run(m, final=x, majority=0.5) for m, x in (("b_q", 0.4), ("b_k", 0.5), ("b_v", 0.8))])
    averages = intervals.term_scores(dataframes.scores([ranking(0)]))
    why = {"fewer than two terms learned"}
    assert set(table.tau_by_seed(intervals.agreement(averages, runs))["Kendall's tau"]) == why
    assert set(table.orders(averages, runs)["accuracies in that order, all terms"]) == why
    against = table.against_accuracies(averages, runs)
    assert set(against["order of the mean accuracies"]) == set(against["tau, all terms"]) == why
