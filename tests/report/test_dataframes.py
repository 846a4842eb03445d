"""Records as frames: which rows there are, and that what is missing stays a number."""

import pytest
from fake_records import ranking, run

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
