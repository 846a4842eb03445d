"""Intervals, paired differences, rank agreement and the choice of a rate, against hand-worked values."""

import itertools

import numpy as np
import pytest
from fake_records import grid, ranking, run
from hypothesis import given
from hypothesis import strategies as st

from beft import paper
from beft.data.tasks import METRICS
from beft.errors import BeftError
from beft.report import comparisons, dataframes, intervals, names, tables


def test_interval_of_three_values_is_student_t():
    i = intervals.mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / np.sqrt(3)  # t quantile for two degrees of freedom, standard deviation 1
    assert (i.mean, i.n) == (2.0, 3)
    assert i.low == pytest.approx(2 - half) and i.high == pytest.approx(2 + half)


def test_one_seed_has_a_mean_and_no_interval():
    i = intervals.mean_interval([0.7])
    assert i.mean == 0.7 and np.isnan(i.low) and np.isnan(i.high)
    assert intervals.mean_interval([None, float("nan")]).n == 0


def test_intervals_of_scores_end_where_the_metric_does_and_verdicts_keep_the_uncut_ones():
    spread = [0.62, 0.695, 0.77]
    wide = intervals.mean_interval([0.62, 0.77])
    assert wide.low < 0 and wide.high > 1
    cut = intervals.cut_interval([0.62, 0.77], "accuracy")
    assert (cut.low, cut.high, cut.n) == (0.0, 1.0, 2) and cut.mean == wide.mean
    assert intervals.cut_interval(spread, "f1 (second split)") == intervals.mean_interval(spread)
    assert intervals.cut_interval([-0.2, 0.3], "matthews").low == -1.0
    assert intervals.cut_interval([62.0, 77.0], "crows gender").high == 100.0
    assert intervals.cut_interval([0.62, 0.77], "nats gender") == wide
    assert intervals.cut_interval([1.0, 1.0], "accuracy") == intervals.Interval(1.0, 1.0, 1.0, 2)
    assert np.isnan(intervals.cut_interval([0.9], "accuracy").high)
    runs = dataframes.frame([run(m, s, final=f + 0.15 * s) for m, f in (("b_v", 0.62), ("b_q", 0.5)) for s in (0, 1)])
    assert names.runs_text(runs[runs["method"] == "b_v"]) == "69.5 [0.0, 100.0]"
    assert intervals.summary(runs).loc[0, ["low", "high"]].tolist() == [0.0, 1.0]
    uneven = dataframes.frame([run("b_v", 0, final=0.9), run("b_v", 1, final=0.2), run("b_q", 0), run("b_q", 1)])
    assert comparisons.compare(uneven, [("b_v", "b_q")])["low"].item() < -1


def test_every_metric_of_a_task_has_its_range():
    assert set(METRICS) <= set(intervals.RANGES)


def test_sign_flip_counts_all_patterns():
    assert intervals.sign_flip_p([1, 1, 1, 1, 1]) == 2 / 32  # only all plus and all minus reach the sum
    assert intervals.sign_flip_p([1, -1]) == 1.0
    d = [0.3, -0.1, 0.5]
    sums = [abs(sum(s * v for s, v in zip(signs, d, strict=True))) for signs in itertools.product((1, -1), repeat=3)]
    assert intervals.sign_flip_p(d) == sum(s >= abs(sum(d)) - 1e-12 for s in sums) / 8


@given(st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=7))
def test_sign_flip_is_a_probability_that_ignores_the_common_sign(d):
    p = intervals.sign_flip_p(d)
    assert 2 / 2 ** len(d) <= p <= 1
    assert intervals.sign_flip_p([-x for x in d]) == p


def test_many_seeds_are_sampled_and_repeatable():
    d = [0.1] * 20
    assert intervals.sign_flip_p(d) == intervals.sign_flip_p(d)
    assert 0 < intervals.sign_flip_p(d) < 1e-3


def test_paired_uses_only_seeds_that_both_finished():
    rows = [
        run("b_v", 0, final=0.80),
        run("b_v", 1, final=0.90),
        run("b_v", 2, outcome="diverged: loss is nan"),
    ]
    rows += [run("b_q", s, final=f) for s, f in ((0, 0.75), (1, 0.80), (2, 0.10))]
    differences = intervals.paired_differences(dataframes.frame(rows), "b_v", "b_q")
    assert differences.to_dict() == pytest.approx({0: 0.05, 1: 0.1})


def test_paired_refuses_several_rates():
    frame = dataframes.frame(grid(rates=(1e-3, 1e-2)))
    with pytest.raises(BeftError, match="one rate per method"):
        intervals.paired_differences(frame, "b_v", "b_q")


def test_paired_without_a_common_seed_has_no_differences():
    frame = dataframes.frame([run("b_v", 0), run("b_q", 1)])
    assert intervals.paired_differences(frame, "b_v", "b_q").empty
    assert intervals.paired_differences(frame, "b_v", "head").empty


def test_lost_runs_are_counted_and_do_not_enter_the_mean():
    frame = dataframes.frame([run(seed=0, final=0.8), run(seed=1, final=0.1, outcome="diverged: loss is nan")])
    row = intervals.summary(frame).iloc[0]
    assert (row["mean"], row["n"], row["lost"]) == (0.8, 1, 1)


def test_rate_is_chosen_on_the_tuning_split():
    rows = [run(rate=1e-3, final=0.9, tuning=0.5), run(rate=1e-2, final=0.1, tuning=0.6)]
    assert intervals.choose_rate(dataframes.frame(rows)) == {"b_v": 1e-2}
    assert intervals.choose_rate(dataframes.frame(rows), on="validation") == {"b_v": 1e-3}
    with pytest.raises(BeftError, match="test"):
        intervals.choose_rate(dataframes.frame(rows), on="test")


def test_equal_tuning_accuracy_chooses_the_smaller_rate():
    rows = [run(rate=r, tuning=0.5) for r in (1e-2, 1e-3, 1e-1)]
    assert intervals.choose_rate(dataframes.frame(rows)) == {"b_v": 1e-3}


def test_means_that_differ_by_rounding_alone_choose_the_smaller_rate():
    scores = {1e-3: (0.6, 0.61, 0.695), 1e-2: (0.635,) * 3}
    assert np.mean(scores[1e-2]) > np.mean(scores[1e-3])  # by the last bit
    rows = [run(seed=s, rate=rate, tuning=x) for rate, own in scores.items() for s, x in enumerate(own)]
    assert intervals.choose_rate(dataframes.frame(rows)) == {"b_v": 1e-3}


def test_rate_that_lost_a_run_is_not_chosen_for_its_survivors():
    rows = [run(seed=s, rate=1e-3, tuning=0.6) for s in (0, 1)]
    rows += [run(seed=0, rate=1e-1, tuning=0.9), run(seed=1, rate=1e-1, outcome="diverged: loss is nan")]
    assert intervals.choose_rate(dataframes.frame(rows)) == {"b_v": 1e-3}
    assert intervals.choose_rate(dataframes.frame(rows[2:])) == {"b_v": 1e-1}  # nothing else to choose
    assert intervals.choose_rate(dataframes.frame(rows[3:])) == {}


def test_a_run_without_a_score_is_lost_where_the_split_was_scored_for_others():
    rows = [run(seed=s, rate=1e-3, tuning=0.6) for s in (0, 1)] + [run(seed=s, rate=1e-1, tuning=0.9) for s in (0, 1)]
    rows[3]["final"]["tuning"] = None  # constant predictions have no correlation
    frame = dataframes.frame(rows)
    assert intervals.summary(frame, ("method", "rate"), "final_tuning")["lost"].tolist() == [0, 1]
    assert intervals.choose_rate(frame) == {"b_v": 1e-3}
    rows[2]["final"]["validation"] = rows[3]["final"]["validation"] = None
    assert intervals.summary(dataframes.frame(rows), ("rate",))[["n", "lost"]].to_numpy().tolist() == [[2, 0], [0, 2]]
    without = dataframes.frame([run(seed=s) for s in (0, 1)])
    assert intervals.summary(without, value="final_tuning")["lost"].tolist() == [0]


def test_coincidence_is_zero_for_equal_curves_and_finds_a_difference():
    made = grid(("head", "b_k"), seeds=(0, 1))
    table = intervals.coincidence(dataframes.curves(made))
    assert len(table) == 2 and (table["epochs"] == 3).all()
    assert (table[["train_loss", "validation"]] == 0).all().all()
    made[0]["epochs"][1]["validation"] += 0.25
    assert intervals.coincidence(dataframes.curves(made))["validation"].max() == pytest.approx(0.25)
    assert intervals.coincidence(dataframes.curves(made[:2])).empty


def test_agreement_with_and_without_a_null_key_bias():
    runs = dataframes.frame(grid(seeds=(0, 1)))  # b_v > b_q > b_k
    averages = intervals.term_scores(dataframes.scores([ranking(s, "bfloat16") for s in (0, 1)]))
    taus = intervals.agreement(averages, runs).set_index(["score", "view", "seed"])["tau"]
    assert taus["mag_angle", "all terms", 0] == pytest.approx(-1 / 3)  # k > v > q against v > q > k
    assert taus["mag_angle", "null b_k excluded", 0] == 1
    assert taus["reach", "all terms", 1] == 1


def test_runs_of_several_cells_are_refused_and_not_averaged():
    averages = intervals.term_scores(dataframes.scores([ranking(0)]))
    both = [*grid(seeds=(0,)), *(run(m, 0, final=0.5, regime="medium") for m in ("b_q", "b_v"))]
    for read in (intervals.agreement, tables.ranking.orders, tables.ranking.against_accuracies):
        with pytest.raises(BeftError, match="b_q has several runs for seed 0 here: give those of one cell at one rate"):
            read(averages, dataframes.frame(both))
    others = [*grid(seeds=(0,)), run("head", 0, rate=0.1), run("b_v", 0, rate=0.1, outcome="diverged: x")]
    assert len(intervals.agreement(averages, dataframes.frame(others)))


def test_agreement_leaves_out_seeds_without_all_accuracies():
    averages = intervals.term_scores(dataframes.scores([ranking(0), ranking(7)]))
    assert set(intervals.agreement(averages, dataframes.frame(grid(seeds=(0,))))["seed"]) == {0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": "bert-base-cased", "rate": 4e-4, "epochs": 16}, "85.8"),
        ({"model": "google-bert/bert-base-cased", "rate": 1e-3, "epochs": 16}, "85.8 (at another rate)"),
        ({"model": "all-MiniLM-L6-v2"}, "not comparable: other model"),
        ({"model": "bert-base-cased", "task": "rte"}, "not comparable: other task"),
        ({"model": "bert-base-cased", "train_size": 5000}, "not comparable: other training size"),
        ({"model": "bert-base-cased", "method": "head"}, "not printed"),
    ],
)
def test_paper_number_only_beside_the_same_model_and_task(change, text):
    settings = {"model": "x", "task": "sst2", "train_size": 1000, "rate": 1e-3, "epochs": 3, "method": "b_v"}
    assert paper.column(settings | change) == text


def test_every_printed_number_names_its_source():
    assert all(r["source"] and r["settings"]["train_size"] for r in paper.data()["results"])
    assert paper.data()["encoder_settings"]["source"]
