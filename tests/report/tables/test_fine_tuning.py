"""Tables of fine-tuning: what a row says, and what it says where something is missing."""

import numpy as np
from fake_records import grid, run

from beft.data.tasks import get_task
from beft.report import write
from beft.report.dataframes import frame
from beft.report.tables import fine_tuning


def test_fine_tuning_tells_final_from_best_and_counts_lost_runs():
    made = [run(seed=0, final=0.8), run(seed=1, final=0.9), run(seed=2, outcome="diverged: loss is nan")]
    made[0]["best"] = {"epoch": 2, "validation": 0.85, "tuning": None, "chosen_on": "validation"}
    row = fine_tuning.by_method(made).iloc[0]
    assert row["last epoch, % accuracy"].startswith("85.0 [") and "1 of 3 diverged" in row["last epoch, % accuracy"]
    assert row["best epoch, % accuracy"].startswith("87.5 [")
    assert row["best epoch, % accuracy"].endswith("(chosen on validation)")
    assert row["paper, last epoch, %"] == "not comparable: other model"


def test_weights_are_counted_where_a_run_trains_some():
    full = run("full", 0)
    full["parameters"] = {"bias": 0, "head": 770, "pooler": 0, "weights": 999_230}
    table = fine_tuning.by_method([run("b_v", 0), full]).set_index("method")
    assert table["weights parameters"].to_dict() == {"b_v": 0, "full": 999_230}
    assert "weights parameters" in fine_tuning.by_method([run("b_v", 0), full])
    assert "weights parameters" not in fine_tuning.by_method([run("b_v", 0)])


def test_forms_stand_beside_the_plain_term_of_the_same_seeds_and_the_papers_number():
    paper = {"model": "bert-base-cased", "rate": 4e-4, "epochs": 16}
    records = [run(m, seed, final=0.7, **paper) for m in ("head", "b_q", "b_v") for seed in (0, 1, 2)]
    formed = [run(f"b_v:{form}", seed, final=0.6, **paper) for form in ("lora", "vera1d") for seed in (0, 1)]
    table = fine_tuning.forms(records, formed).set_index("term")
    assert list(table.index) == ["b_v", "b_v, LoRA", "b_v, VeRA-1D"]
    assert table["seeds"].tolist() == [2, 2, 2]
    assert table["paper, last epoch, %"].tolist() == ["85.8", "85.0", "not printed"]


def test_rate_grid_and_two_views_say_not_run():
    made = frame([*grid(("b_v",), rates=(1e-3, 1e-2)), *grid(("b_q",), rates=(1e-3,))])
    table = write.as_text(fine_tuning.rate_grid(made)).set_index("method")
    assert table.loc["b_q", "0.01"] == "not run" and table.loc["b_v", "0.01"] != "not run"
    views = fine_tuning.two_views(made[made["rate"] == 1e-3], made[made["rate"] == 1e-2]).set_index("method")
    assert views.loc["b_q", "own rate"] == "not run" and views.loc["b_v", "own rate"] == "0.01"


def test_a_chosen_rate_that_does_worse_than_the_common_one_is_seen_in_the_table():
    equal = frame([run("b_v", n, final=x) for n, x in enumerate((0.7, 0.8, 0.9))])
    own = frame([run(m, n, rate=1e-2, final=x) for m in ("b_v", "lora") for n, x in enumerate((0.6, 0.75))])
    views = fine_tuning.two_views(equal, own).set_index("method")
    assert views["own - equal"].to_dict() == {"b_v": "-7.5", "LoRA (q, v)": "not run"}
    assert views.loc["LoRA (q, v)", "equal rate"] == "not run"


def test_accuracies_are_ordered_in_percent():
    runs = frame(grid(seeds=(0,)))
    assert fine_tuning.accuracy_order(runs, ["b_q", "b_v"]).startswith("b_v (78.5) > b_q (68.5)")
    assert fine_tuning.accuracy_order(frame([])) == "not run"


def test_methods_that_are_not_learned_stand_behind_the_order():
    runs = frame([run(m, final=x, majority=0.5) for m, x in (("head", 0.4), ("b_q", 0.7), ("b_v", 0.6))])
    assert fine_tuning.accuracy_order(runs) == "b_q (70.0) > b_v (60.0); not learned: head only (40.0)"
    assert fine_tuning.accuracy_order(runs, ["head"]) == "not learned: head only (40.0)"


def test_every_table_of_scores_has_the_majority():
    made = [run("b_v", final=0.6, majority=0.6), run("b_q", majority=0.6)]
    runs, marked = frame(made), "60.0 (one seed), not learned"
    tables = [fine_tuning.by_method(made), fine_tuning.rate_grid(runs), fine_tuning.two_views(runs, runs)]
    tables.append(fine_tuning.forms(made[:1], [run("b_v:lora", majority=0.6)]))
    for table in tables:
        assert set(table["majority"]) == {"60.0"} and marked in set(table.iloc[0].astype(str))


def test_lost_runs_are_counted_once():
    made = [*grid(), run("b_v", 9, outcome="diverged: loss is nan")]
    assert fine_tuning.lost(frame(made), frame(grid()), frame([])) == "1 of 16"


def test_labels_and_what_one_answer_for_all_rows_reaches():
    task, values = get_task("sst2"), np.array([0, 1, 1, 1])
    assert fine_tuning.labels(task, values)["rows"].tolist() == [1, 3]
    assert fine_tuning.before_tuning(task, values, 0.76)["accuracy, %"].tolist() == ["76.0", "75.0"]
    assert fine_tuning.before_tuning(task, values, 0.5)["accuracy, %"].tolist() == ["50.0, not learned", "75.0"]
    similarity = get_task("stsb")
    assert fine_tuning.labels(similarity, np.array([0.0, 5.0])).iloc[0].tolist() == [0, 5, 2.5]
    before = fine_tuning.before_tuning(similarity, np.array([0.0, 5.0]), 0.1)
    assert before["spearman, %"].tolist() == ["10.0", "0.0"]


def test_predictions_are_classes_with_their_probability_or_values():
    table = fine_tuning.predictions(["a", "b"], np.array([[0.25, 0.75], [0.9, 0.1]]), ("no", "yes"))
    assert table.to_numpy().tolist() == [["a", "yes", "0.75"], ["b", "no", "0.90"]]
    assert fine_tuning.predictions(["a"], np.array([[2.345]]), ()).iloc[0].tolist() == ["a", "2.35"]
