"""Records as frames: which rows there are, and that what is missing stays a number."""

import pytest
from fake_records import ranking, run, transferred

from beft.errors import BeftError
from beft.report import dataframes


def test_scores_are_one_row_per_layer_and_skip_lost_runs():
    frame = dataframes.scores([ranking(0), ranking(1, outcome="diverged: loss is nan")])
    assert set(frame["seed"]) == {0}
    assert len(frame) == 6 * 3 * 6  # scores x terms x layers
    by_epoch = dataframes.scores([ranking(0)], by_epoch=True)
    assert sorted(by_epoch["epoch"].unique()) == [1, 2, 3] and set(by_epoch["score"]) == {
        "magnitude",
        "mag_angle",
    }


def test_score_that_is_not_defined_has_no_rows_and_nothing_left_is_an_error():
    record = ranking(0)
    record["scores"]["reach"] = None
    assert "reach" not in set(dataframes.scores([record])["score"])
    with pytest.raises(BeftError, match="smaller rate"):
        dataframes.scores([ranking(0, outcome="diverged: loss is nan")])


def test_scores_that_were_not_taken_are_numbers_all_the_same():
    frame = dataframes.frame([run(tuning=None)])
    assert frame["final_tuning"].dtype == "float64" and frame["final_tuning"].isna().all()
    assert dataframes.curves([run(tuning=None)])["tuning"].dtype == "float64"
    assert dataframes.frame([])["final"].dtype == "float64"


def test_other_records_of_the_same_rows_tell_the_majority_and_add_no_row():
    old, knows, other = run(), run("head", majority=0.6), run("head", majority=0.7)
    for record, rows in ((old, "f1"), (knows, "f1"), (other, "f2")):
        record["data"]["fingerprint"] = rows
    frame = dataframes.frame([old], [knows, other])
    assert frame["majority"].tolist() == [0.6] and frame["method"].tolist() == ["b_v"]
    assert dataframes.frame([old], [other])["majority"].isna().all()


def test_majority_of_a_correlation_is_known_without_a_record():
    old = run(task="stsb")
    old["data"]["metric"] = "spearman"
    assert dataframes.frame([old])["majority"].tolist() == [0.0]


def test_accuracy_on_a_target_is_that_at_the_class_shares_of_the_task_trained_on():
    record = transferred(source=0.6, tweets=0.75)
    record["targets"]["tweets"] |= {"recalls": [0.0, 1.0], "majority": 0.75, "classes": [25, 75]}
    row = dataframes.transfers([record]).iloc[0]
    assert (row["final"], row["majority"], row["raw"]) == (0.5, 0.5, 0.75)  # one answer for all rows
    assert row["change"] == pytest.approx(-0.1)
    record["data"] = record["data"] | {"metric": "matthews"}
    assert dataframes.transfers([record]).iloc[0]["final"] == 0.75
