"""The tables over cells: what a row says, and what it says where something is missing."""

import pandas as pd
import pytest
from fake_records import grid, ranking, run
from small_files import write as write_rows

from beft import paper
from beft.data.sources import load
from beft.errors import BeftError
from beft.report import dataframes, names, write
from beft.report.tables import cells

BERT = {"model": "bert-base-cased", "train_size": 1000, "rate": 4e-4, "epochs": 16}
TERMS = ("b_q", "b_k", "b_v")


def _ranked(seed=0, null=True, task="sst2", **scores):
    """A ranking of a cell; `scores`: score -> layer values by term that replace the made-up ones."""
    record = ranking(seed, null=null)
    record["settings"] |= {"model": "all-MiniLM-L6-v2", "task": task, "regime": "low"}
    for name, by_term in scores.items():
        record["scores"][name] = {t: [v] for t, v in by_term.items()}
    return record


# --- Table 1 ----------------------------------------------------------------------------------------------


def test_table1_sets_each_scores_order_beside_the_accuracies():
    wrong = {"q": 3.0, "k": 2.0, "v": 1.0}
    ranked = [_ranked(s, magnitude=wrong) for s in (0, 1, 2)]
    row = cells.table1(ranked, grid(), names=["magnitude", "reach"]).iloc[0]
    assert row["order of accuracies"] == "v > q > k" and row["b_k null"] == "yes"
    assert row["b_v"].startswith("79.5 [") and row["seeds"] == "3" and row["rows"] == "1000"
    assert row["magnitude"] == "q > k > v"
    assert row["magnitude: top, tau"] == "wrong, -0.33 (without b_k -1.00)"
    assert row["reach"] == "v > q > k" and row["reach: top, tau"] == "right, +1.00 (without b_k +1.00)"
    assert "fisher" not in row


def test_table1_shows_every_score_and_no_second_tau_where_b_k_is_not_null():
    table = cells.table1([_ranked(null=False)], grid(seeds=(0,)))
    assert {"magnitude", "mag_angle", "fisher", "fisher_batch", "reach"} <= set(table) and "norms" not in table
    assert table.loc[0, "b_k null"] == "no" and table.loc[0, "reach: top, tau"] == "right, +1.00"
    assert table.loc[0, "b_v"] == "78.5 (one seed)"


def test_table1_ties_in_a_score_have_no_top():
    row = cells.table1([_ranked(reach={"q": 1.0, "k": 0.0, "v": 1.0})], grid(seeds=(0,))).iloc[0]
    assert row["reach"] == "q = v > k" and row["reach: top, tau"].startswith("tie, +0.82")


def test_table1_equal_accuracies_leave_tau_undefined():
    rows = [run(m, final=0.5) for m in TERMS]
    row = cells.table1([_ranked()], rows).iloc[0]
    assert row["order of accuracies"] in ("q = k = v", "q = v = k", "k = q = v", "k = v = q")
    assert row["reach: top, tau"] == "right, undefined (without b_k undefined)"


def test_table1_without_a_ranking_or_a_term_says_so():
    row = cells.table1([_ranked(task="rte")], grid(), names=["reach"]).iloc[0]
    assert (row["reach"], row["reach: top, tau"], row["b_k null"]) == ("not run",) * 3
    lost = [run("b_q"), run("b_v"), run("b_k", outcome="diverged: loss is nan")]
    row = cells.table1([_ranked()], lost, names=["reach"]).iloc[0]
    assert row["b_k"] == "1 of 1 diverged or failed" and row["reach: top, tau"] == "a term has no accuracy"
    row = cells.table1([_ranked()], lost[:2], names=["reach"]).iloc[0]
    assert row["b_k"] == "not run"


def test_table1_of_nothing_is_shown_as_not_run():
    table = cells.table1([], [])
    assert table.empty and write.as_text(table).iloc[0, 0] == "not run"


# --- Table 2 ----------------------------------------------------------------------------------------------


def _banked(method, seed, runs, peak, **kwargs):
    record = run(method, seed, **kwargs)
    record["bank"] = {
        "runs": runs,
        "seconds": 1.0 * runs,
        "peak_memory_bytes": peak,
        "padding_efficiency": 0.9,
    }
    return record


def test_table2_says_what_a_method_trains_needs_and_reaches():
    rows = [_banked("b_v", s, 5, 2_061_000_000 + s, task="rte", final=0.6) for s in (0, 1)]
    rows += [_banked("full", 0, 1, 0, task="rte", rate=1e-4)]
    rows[2]["parameters"] = {"bias": 0, "pooler": 0, "head": 770, "weights": 22_000_000}
    table = cells.table2(rows).set_index("method")
    assert table.loc["b_v", "bias parameters"] == "2,304" and table.loc["b_v", "weights parameters"] == "0"
    assert table.loc["full", "weights parameters"] == "22,000,000" and table.loc["full", "rate"] == "0.0001"
    assert table.loc["b_v", "last epoch, % accuracy"].startswith("60.0 [")
    assert table.loc["b_v", ["runs in the bank", "bank memory, MB", "seconds per run"]].tolist() == [
        "5",
        "2,061",
        "1",
    ]
    assert table.loc["full", "bank memory, MB"] == "not recorded"
    assert (table["paper, %"] == "not comparable: other model").all() and "ours - paper" not in table


def test_table2_keeps_what_runs_cost_on_two_devices_apart():
    rows = [_banked("b_v", s, 5, 2_000_000_000, task="rte") for s in (0, 1, 2)]
    for record, device, seconds in zip(rows, ("a CPU", "a GPU", "a CPU"), (100.0, 2.0, 300.0), strict=True):
        record["device"], record["seconds"] = {"kind": "cpu", "name": device, "threads": 2}, seconds
    (row,) = cells.table2(rows).to_dict("records")
    assert (row["device"], row["seconds per run"], row["runs in the bank"]) == ("a CPU; a GPU", "200; 2", "5; 5")


def test_table2_stands_beside_the_papers_number_where_it_is_the_same_run():
    table = cells.table2([run("b_v", 0, final=0.87, **BERT), run("head", 0, **BERT)]).set_index("method")
    assert table.loc["b_v", ["paper, %", "ours - paper"]].tolist() == ["85.8", "+1.2"]
    assert table.loc["head only", ["paper, %", "ours - paper"]].tolist() == ["not printed", "not comparable"]
    assert table.loc["b_v", "runs in the bank"] == "not recorded"


def test_table2_is_of_one_cell():
    with pytest.raises(BeftError, match="one cell"):
        cells.table2([run(task="rte"), run(task="sst2")])
    assert cells.table2([]).empty


# --- Table 3 ----------------------------------------------------------------------------------------------


def test_table3_collapses_what_is_not_comparable_to_one_column():
    rows = [
        *grid(),
        *(run(m, task="rte", rate=r, train_size=300) for m, r in (("b_v", 3e-3), ("full", 1e-4))),
    ]
    table = cells.table3(rows).set_index("task")
    assert (table["paper"] == "not comparable: other model").all() and not [c for c in table if "ours" in c]
    assert table.loc["sst2", "b_v"].startswith("79.5 [") and table.loc["sst2", "full"] == "not run"
    assert table.loc["sst2", "rate"] == "0.001" and table.loc["rte", "rate"] == "b_v 0.003; full 0.0001"
    assert table.loc["rte", "b_v"] == "80.0 (one seed)"


def test_table3_gives_the_difference_to_the_paper_in_signed_points():
    rows = [run(m, s, final=f, **BERT) for m, f in (("b_v", 0.85), ("b_q", 0.83), ("head", 0.7)) for s in (0, 1)]
    rows += [run("b_v", 0, **BERT | {"task": "rte", "train_size": 300})]
    table = cells.table3(rows).set_index("task")
    assert table.loc["sst2", ["b_v: paper, %", "b_v: ours - paper"]].tolist() == ["85.8", "-0.8"]
    assert table.loc["sst2", "b_q: ours - paper"] == "+3.0"
    assert table.loc["rte", ["b_v: paper, %", "b_v: ours - paper"]].tolist() == [
        "not comparable: other task",
        "not comparable",
    ]
    assert "paper" not in table and "head only: paper, %" not in table


def test_table3_lost_runs_are_counted_and_have_no_difference():
    row = cells.table3([run("b_v", 0, outcome="diverged: loss is nan", **BERT)]).iloc[0]
    assert row["b_v"] == "1 of 1 diverged or failed" and row["b_v: ours - paper"] == "not run"


def test_rates_of_a_cell_are_named_by_method_where_they_differ():
    rates = {"head": 1e-3, "b_k": 1e-3, "b_q": 1e-2, "b_v": 3e-3}
    table = cells.table3([run(m, s, rate) for m, rate in rates.items() for s in (0, 1)])
    assert table.loc[0, "rate"] == "head only, b_k 0.001; b_q 0.01; b_v 0.003"


def test_scores_at_the_majority_are_marked_in_the_table_and_take_no_part_in_its_ranking():
    finals = {"b_q": 0.6, "b_k": 0.5, "b_v": 0.7, "head": 0.45}
    rows = [run(m, final=x, majority=0.5) for m, x in finals.items()]
    row = cells.table3(rows).iloc[0]
    assert row[["majority", "b_k", "head only", "b_v"]].tolist() == [
        "50.0",
        "50.0 (one seed), not learned",
        "45.0 (one seed), not learned",
        "70.0 (one seed)",
    ]
    row = cells.table1([_ranked(reach={"q": 1.0, "k": 2.0, "v": 3.0})], rows[:3], names=["reach"]).iloc[0]
    assert row["order of accuracies"] == "v > q; not learned: k"
    assert row["reach: top, tau"] == "right, +1.00 (without b_k +1.00)"
    row = cells.table1([_ranked(reach={"q": 1.0, "k": 2.0, "v": 0.0})], rows[:3], names=["reach"]).iloc[0]
    assert row["reach: top, tau"].startswith("wrong, -1.00")  # its top term is not learned


def test_a_cell_with_one_learned_term_has_no_ranking():
    rows = [run(m, final=x, majority=0.5) for m, x in (("b_q", 0.4), ("b_k", 0.5), ("b_v", 0.7))]
    row = cells.table1([_ranked()], rows, names=["reach"]).iloc[0]
    assert row["order of accuracies"] == "v; not learned: q, k"
    assert row["reach: top, tau"] == "fewer than two terms learned"
    row = cells.table1([_ranked()], [run(m, final=0.4, majority=0.5) for m in TERMS], names=["reach"]).iloc[0]
    assert row["order of accuracies"] == "not learned: q, k, v"


def test_table2_has_the_majority_beside_every_method():
    table = cells.table2([run("b_v", final=0.5, majority=0.6), run("head", majority=0.6)])
    assert table["majority"].tolist() == ["60.0", "60.0"]
    assert table["last epoch, % accuracy"].tolist() == ["80.0 (one seed)", "50.0 (one seed), not learned"]


def test_further_metrics_have_a_majority_of_their_own():
    record = run("b_v", task="mrpc", final=0.7)
    record["final"]["metrics"] = {"accuracy": 0.7, "f1": 0.8}
    record["data"]["majority"] = {"accuracy": 0.68, "f1": 0.81}
    row = cells.further_metrics([record]).iloc[0]
    assert (row["metric"], row["majority"], row["b_v"]) == ("f1", "81.0", "80.0 (one seed), not learned")


MPNET = {"model": "all-mpnet-base-v2", "epochs": 8}
PRINTED = "b_q 80.0, b_v 85.8 (BERT-base: 1,000 rows, 16 epochs, seed 0, as printed)"


def test_the_papers_numbers_stand_beside_another_real_model_as_those_of_bert_base():
    rows = [run(m, **MPNET) for m in ("b_q", "b_v", "all_biases")] + [run("b_v", task="rte", train_size=300, **MPNET)]
    table = cells.table3(rows).set_index("task")
    assert table["paper (BERT-base)"].tolist() == [PRINTED, "none printed"]
    assert table.loc["sst2", "model"] == "MPNet-base (all-mpnet-base-v2)"


@pytest.mark.parametrize(
    "changed", [{"model": "tiny-bert"}, {"train_size": 800}, {"prompted": True}, {"model": "bert-base-cased"}]
)
def test_and_nowhere_else(changed):
    assert "paper (BERT-base)" not in cells.table3([run("b_v", **MPNET | changed)])


def test_nor_beside_generated_data():
    record = run("b_v", **MPNET)
    record["data"]["substitute"] = True
    assert "paper (BERT-base)" not in cells.table3([record])


@pytest.mark.parametrize(
    ("task", "epochs", "text"),
    [("sst2", 3, "3 (paper: 5)"), ("copa", 5, "5"), ("microworld_choices", 2, "2"), ("boolq", 16, "16")],
)
def test_the_papers_epochs_of_a_language_model_are_five(task, epochs, text):
    record = run(task=task, model="tiny-llama", epochs=epochs, prompted=True)
    assert cells.table3([record]).loc[0, "epochs"] == text


@pytest.mark.parametrize(
    ("task", "model", "epochs", "text"),
    [
        ("rte", "all-MiniLM-L6-v2", 6, "6 (paper: 30)"),
        ("sst2", "roberta-base", 16, "16 (paper: 30)"),
        ("sst2", "bert-base-cased", 16, "16"),
        ("microworld_sentiment", "all-MiniLM-L6-v2", 2, "2"),
        ("reviews.csv", "all-MiniLM-L6-v2", 2, "2"),
    ],
)
def test_fewer_epochs_than_the_papers_are_said(task, model, epochs, text):
    assert cells.table3([run(task=task, model=model, epochs=epochs)]).loc[0, "epochs"] == text


def test_table3_refuses_to_mix_settings_and_takes_no_records():
    with pytest.raises(BeftError, match="several runs"):
        cells.table3([run(epochs=3), run(epochs=6)])
    assert cells.table3([]).empty and "task" in cells.table3([])


def test_methods_have_one_order_whatever_that_of_the_records():
    rows = [run(m, rate=r) for m, r in (("full", 1e-4), ("b_v", 1e-2), ("b_v", 1e-3), ("head", 1e-3))]
    table = cells.table2(rows)
    assert table["method"].tolist() == ["head only", "b_v", "b_v", "full"]
    assert table["rate"].tolist() == ["0.001", "0.001", "0.01", "0.0001"]
    assert list(cells.table3([rows[0], rows[1], rows[3]]))[9:13] == ["head only", "b_v", "full", "paper"]


def test_further_metrics_have_a_row_each_and_repeat_none():
    rows = [run("b_v", s, task="mrpc", final=0.7) for s in (0, 1)] + [run("head", 0, task="mrpc"), run("b_v")]
    rows[0]["final"]["metrics"] = {"accuracy": 0.7, "f1": 0.8}
    rows[1]["final"]["metrics"] = {"accuracy": 0.7, "f1": 0.8, "accuracy (validation_mismatched)": None}
    table = cells.further_metrics(rows)
    assert table["metric"].tolist() == ["f1", "accuracy (validation_mismatched)"]
    assert table.loc[0, "b_v"] == "80.0 [80.0, 80.0]" and table.loc[0, "head only"] == "not run"
    assert table.loc[1, "b_v"] == "not run"
    assert cells.further_metrics([]).empty


def test_correlations_are_shown_times_a_hundred_with_their_sign():
    assert cells.table3([run("b_v", 0, final=-0.123, task="cola")]).loc[0, "b_v"] == "-12.3 (one seed)"


# --- the paper's numbers ----------------------------------------------------------------------------------


def test_rows_of_ones_own_are_not_the_papers_whatever_their_file_is_called(tmp_path):
    rows = [{"text": f"sentence {i}", "label": i % 2} for i in range(20)]
    for name, part in (("sst2.csv", rows), ("cola/train.csv", rows[:16]), ("cola/dev.csv", rows[16:])):
        write_rows(tmp_path / name, part)
    frame = pd.DataFrame(rows)
    given = (tmp_path / "sst2.csv", tmp_path / "cola", frame, {"train": frame[:16], "validation": frame[16:]})
    own, printed = run("b_v", **BERT), run("b_v", **BERT)
    for rows_of in given:
        own["data"]["source"] = load(rows_of).source
        table = cells.table3([own])
        assert table["paper"].tolist() == ["not comparable: own rows"] and "(paper" not in table["epochs"].iloc[0]
        assert names.paper_results(dataframes.frame([own])) == [] and "ours - paper" not in cells.table2([own])
    printed["data"]["source"] = "data folder, glue/sst2"
    assert cells.table3([printed]).loc[0, "b_v: paper, %"] == "85.8"
    assert names.paper_results(dataframes.frame([printed]))


def test_difference_needs_a_printed_number_and_one_of_ours():
    settings = run("b_v", **BERT)["settings"]
    assert paper.difference(settings, 86.0) == pytest.approx(0.2)
    assert paper.difference(settings, float("nan")) is None
    assert paper.difference(settings | {"model": "other"}, 86.0) is None
