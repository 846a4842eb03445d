"""What patches remove and change, and the verdict on it."""

from __future__ import annotations

import pandas as pd
import pytest
from fake_records import patch, tuned_model

from beft.report.tables import debiasing


def test_what_each_patch_removes_and_leaves(patches):
    table = debiasing.removed(patches, "gender")
    assert table["patch"].tolist() == ["full", "LoRA (q, v)", "b_q", "b_v"]
    row = table.iloc[-1]
    assert row["numbers"] == "64" and row["link left, nats"].startswith("1.60 [")
    assert row["removed"].startswith("20% [") and row["difference"].startswith("-0.40 [")
    assert row["verdict"] == "cannot be told with 2 seeds"


def test_a_patch_without_effect_removes_zero_and_not_minus_zero(patches):
    before = patches.loc[patches["method"] == "none", "nats gender"].mean()
    patches = patches.assign(**{"nats gender": before * (1 + 1e-7)})
    assert set(debiasing.removed(patches, "gender")["removed"]) == {"0% [0%, 0%]"}


def test_a_patch_whose_changes_are_rounding_has_changed_nothing(patches):
    noise = {"nats gender": [2.0 + n * 3e-8 for n in range(1, 6)], "nats origin": [1.0 - n * 3e-8 for n in range(1, 6)]}
    null = pd.DataFrame({"axis": "gender", "method": "b_k", "seed": range(5), "size": 64, "outcome": "ok", **noise})
    frame = pd.concat([patches, null], ignore_index=True)
    for table in (debiasing.removed(frame, "gender"), debiasing.side_effects(frame)):
        row = table.set_index("patch").loc["b_k"]
        assert (row["difference"], row["p"], row["seeds"]) == ("+0.00 [+0.00, +0.00]", "1", 5)


def test_differences_are_paired_by_seed(tuned):
    table = debiasing.after(tuned, "gender").set_index(["patch", "measure"])
    row = table.loc[("LoRA (q, v)", "TPR gap, points")]
    assert row["difference"] == "-9.5 [-15.9, -3.1]" and row["seeds"] == 2
    assert table.loc[("LoRA (q, v)", "accuracy, points"), "difference"] == "+0.0 [+0.0, +0.0]"
    assert table.loc[("b_v", "TPR gap, points"), "difference"].startswith("+0.0 [")
    assert set(table["verdict"]) == {"cannot be told with 2 seeds"}


def _tuned(gaps, accuracies):
    """Models without a patch and with b_v, whose gap and accuracy differ by so much, seed by seed."""
    return debiasing.downstream(
        [
            tuned_model(m, n, {"gap gender": 0.3 + sign * gap, "accuracy": 0.8 + sign * accuracy})
            for m, sign in (("none", 0), ("b_v", 1))
            for n, (gap, accuracy) in enumerate(zip(gaps, accuracies, strict=True))
        ]
    )


def test_less_bias_and_more_accuracy_are_ahead():
    steps = [0.01 * n for n in range(1, 9)]
    tuned = _tuned([-x for x in steps], steps)
    assert debiasing.after(tuned, "gender")["verdict"].tolist() == ["ahead", "ahead"]
    tuned = _tuned(steps, [-x for x in steps])
    assert debiasing.after(tuned, "gender")["verdict"].tolist() == ["behind", "behind"]
    tuned = _tuned([0.01, -0.01] * 4, [0.0] * 8)
    assert set(debiasing.after(tuned, "gender")["verdict"]) == {"no difference shown"}


SPREAD = [0.01 * n for n in range(8)]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0 + x for x in SPREAD], "ahead"),
        ([2.5 + x for x in SPREAD], "behind"),
        ([1.0, 3.0] * 4, "no difference shown"),
        ([1.0, 1.1, 1.2], "cannot be told with 3 seeds"),
    ],
)
def test_whether_it_works_follows_from_the_test(tuned, values, verdict):
    records = [patch("none", 0, 2.0), *(patch("b_v", seed, v) for seed, v in enumerate(values))]
    table = debiasing.works(debiasing.upstream(records), tuned, "gender", ("b_v",))
    assert table["measure"].tolist() == ["link in the language model, nats", "TPR gap, points"]
    assert table["verdict"].tolist() == [verdict, "cannot be told with 2 seeds"]
    assert table["difference"].iloc[1].startswith("+0.00 [")


def test_a_patch_that_was_not_trained_is_not_judged(patches, tuned):
    table = debiasing.works(patches, tuned, "gender", ("b_k", "b_q"))
    assert table["numbers"].tolist() == ["not run", "not run", "64", "64"]
    assert table["more removed by"].tolist() == [*["not run"] * 2, *["full, LoRA (q, v)"] * 2]
    assert table["verdict"].tolist() == ["not run", "not run", "cannot be told with 2 seeds", "not run"]


def test_an_axis_without_sentences_is_said_to_be_not_measured(patches, tuned):
    other = patches.assign(axis=patches["axis"].replace("gender", "religion"))
    columns = ["link left, nats", "removed", "difference", "verdict"]
    assert set(debiasing.removed(other, "religion")[columns].to_numpy().flat) == {"not measured"}
    assert set(debiasing.works(other, tuned, "religion", ("b_v", "b_q"))["verdict"]) == {"not measured"}


def test_a_patch_that_overshoots_has_not_removed_more_than_all(tuned):
    records = [patch("none", 0, 2.0), patch("b_v", 0, -2.0), patch("b_v", 1, -2.1), patch("b_v", 2, -2.2)]
    row = debiasing.removed(debiasing.upstream(records), "gender").iloc[0]
    assert row["removed"].startswith("-5%") and row["difference"].startswith("+0.10")


def test_a_task_without_a_gap_of_the_axis_has_no_verdict(tuned):
    table = debiasing.after(tuned, "religion").set_index("measure")
    assert set(table.loc["TPR gap, points", "verdict"]) == {"not measured"}


def test_runs_that_diverged_take_no_part(tuned):
    lost = patch("b_v", 0, 1.0) | {"outcome": "diverged", "measures": {}, "parameters": {}}
    frame = debiasing.upstream([patch("none", 0, 2.0), lost, patch("b_v", 1, 1.0), patch("b_v", 2, 1.2)])
    row = debiasing.works(frame, tuned, "gender", ("b_v",)).iloc[0]
    assert row["numbers"] == "64" and row["seeds"] == 2
