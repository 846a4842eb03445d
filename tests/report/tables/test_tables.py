"""Tables on disk and the sentences computed from records."""

import json

import numpy as np
import pandas as pd
from fake_records import fake_settings, grid, ranking, run

from beft.report import intervals as statistics
from beft.report.dataframes import frame
from beft.report.tables import tables


def test_missing_values_are_written_as_not_run(tmp_path):
    table = pd.DataFrame({"a": [1, None], "b": [np.nan, "x"]})
    shown = tables.save(table, fake_settings(tmp_path), "t", "A table.")
    assert shown.iloc[1, 0] == "not run" and shown.iloc[0, 1] == "not run"
    for ending in ("csv", "md", "tex"):
        assert (tmp_path / f"figures/t.{ending}").read_text(encoding="utf-8").count("not run") == 2


def test_csv_reads_back(tmp_path):
    tables.save(pd.DataFrame({"n": [2304], "x, y": ["a|b"]}), fake_settings(tmp_path), "t", "c")
    back = pd.read_csv(tmp_path / "figures/t.csv")
    assert list(back.columns) == ["n", "x, y"] and back.iloc[0, 1] == "a|b"


def test_markdown_and_tex_escape_their_own_signs():
    shown = tables.display(pd.DataFrame({"50 %": ["b_v | b_q"]}))
    assert "b_v \\| b_q" in tables.markdown(shown)
    assert r"50 \%" in tables.tex(shown, "c", "t") and r"b\_v | b\_q" in tables.tex(shown, "c", "t")


def test_index_ties_each_table_to_command_and_records(tmp_path):
    s = fake_settings(tmp_path, note="Model tiny-random-bert has random weights.")
    made = grid(seeds=(0,))
    tables.save(tables.fine_tuning(made), s, "b", "Second.", made)
    tables.save(tables.fine_tuning(made), s, "a", "First.", ["k1"])
    tables.save(tables.fine_tuning(made), s, "b", "Second, again.", made)
    index = json.loads((tmp_path / "figures/index.json").read_text(encoding="utf-8"))
    assert [e["name"] for e in index] == ["a", "b"]
    assert index[1]["records"] == sorted(r["key"] for r in made) and index[0]["records"] == ["k1"]
    assert index[1]["caption"] == "Second, again. Model tiny-random-bert has random weights."
    assert index[1]["files"] == ["b.csv", "b.md", "b.tex"] and index[1]["command"] == "make"
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        *("a.csv", "a.md", "a.tex", "b.csv", "b.md", "b.tex", "index.json")
    ]


def test_fine_tuning_tells_final_from_best_and_counts_lost_runs():
    made = [run(seed=0, final=0.8), run(seed=1, final=0.9), run(seed=2, outcome="diverged: loss is nan")]
    made[0]["best"] = {"epoch": 2, "validation": 0.85, "tuning": None, "chosen_on": "validation"}
    row = tables.fine_tuning(made).iloc[0]
    assert (
        row["last epoch, % accuracy"].startswith("85.0 [")
        and "1 of 3 diverged" in row["last epoch, % accuracy"]
    )
    assert row["best epoch, % accuracy"].startswith("87.5 [")
    assert row["best epoch, % accuracy"].endswith("(chosen on validation)")
    assert row["paper, last epoch, %"] == "not comparable: other model"


def test_parameter_counts_split_trained_from_frozen():
    table = tables.parameter_counts(grid(seeds=(0, 1)), total=1_000_000).set_index("method")
    assert table.loc["b_v", "trained"] == 2304 + 770 + 384
    assert (table["trained"] + table["frozen"] == 1_000_000).all()
    assert table.loc["head only", "bias"] == 0


def test_weights_are_counted_where_a_run_trains_some():
    full = run("full", 0)
    full["parameters"] = {"bias": 0, "head": 770, "pooler": 0, "weights": 999_230}
    table = tables.parameter_counts([run("b_v", 0), full], total=1_000_000).set_index("method")
    assert table.loc["full"].tolist() == [0, 770, 0, 999_230, 1_000_000, 0, "0.0000 %"]
    assert table.loc["b_v", "weights"] == 0
    assert "weights parameters" in tables.fine_tuning([run("b_v", 0), full])
    assert "weights parameters" not in tables.fine_tuning([run("b_v", 0)])


def test_forms_stand_beside_the_plain_term_of_the_same_seeds_and_the_papers_number():
    paper = {"model": "bert-base-cased", "rate": 4e-4, "epochs": 16}
    plain = [run(m, seed, final=0.7, **paper) for m in ("head", "b_q", "b_v") for seed in (0, 1, 2)]
    formed = [run(f"b_v:{form}", seed, final=0.6, **paper) for form in ("lora", "vera1d") for seed in (0, 1)]
    table = tables.forms(plain, formed).set_index("term")
    assert list(table.index) == ["b_v", "b_v, LoRA", "b_v, VeRA-1D"]
    assert table["seeds"].tolist() == [2, 2, 2]
    assert table["paper, last epoch, %"].tolist() == ["85.8", "85.0", "not printed"]


def test_rate_grid_and_two_views_say_not_run():
    made = frame([*grid(("b_v",), rates=(1e-3, 1e-2)), *grid(("b_q",), rates=(1e-3,))])
    shown = tables.display(tables.rate_grid(made)).set_index("method")
    assert shown.loc["b_q", "0.01"] == "not run" and shown.loc["b_v", "0.01"] != "not run"
    views = tables.two_views(made[made["rate"] == 1e-3], made[made["rate"] == 1e-2]).set_index("method")
    assert views.loc["b_q", "own rate"] == "not run" and views.loc["b_v", "own rate"] == "0.01"


def test_orders_are_read_from_the_runs():
    averages = statistics.term_scores(statistics.scores([ranking(s, "bfloat16") for s in range(3)]))
    orders = tables.ranking_orders(averages, frame(grid())).set_index("score")
    assert orders.loc["mag_angle"].iloc[0].startswith("b_k")  # a null b_k, lifted by bfloat16's rounding
    assert orders.loc["mag_angle", "accuracies in that order, all terms"] == "0 of 3 seeds"
    assert orders.loc["mag_angle", "accuracies in that order, null b_k excluded"] == "3 of 3 seeds"
    assert "norms" not in orders.index


def test_tau_table_says_when_there_is_one_seed():
    averages = statistics.term_scores(statistics.scores([ranking(0)]))
    table = tables.tau_table(statistics.agreement(averages, frame(grid(seeds=(0,)))))
    assert set(table["Kendall's tau"]) == {"+1.00 in one seed"}


def test_tau_table_claims_no_interval_where_all_seeds_are_equal():
    averages = statistics.term_scores(statistics.scores([ranking(s) for s in range(3)]))
    table = tables.tau_table(statistics.agreement(averages, frame(grid()))).set_index(["score", "terms"])
    assert table.loc[("reach", "all terms"), "Kendall's tau"] == "+1.00 in each of 3 seeds"


def test_empty_table_says_not_run_and_all_lost_is_not_called_not_run(tmp_path):
    shown = tables.save(pd.DataFrame(columns=["seed", "gap"]), fake_settings(tmp_path), "t", "Gaps.")
    assert shown.to_numpy().tolist() == [["not run", "not run"]]
    assert tables.percent(frame([run(outcome="diverged: x")]), "final") == "1 of 1 diverged or failed"


def test_a_table_over_cells_names_generated_text_even_beside_a_real_main_task(tmp_path):
    real, generated = run("b_v", 0), run("b_v", 1)
    generated["data"]["substitute"] = True
    s = fake_settings(tmp_path)
    assert tables.full_caption("Numbers.", s, True, [real]) == "Numbers."
    note = "Numbers. (Substitute: some of it is generated micro-world text.)"
    assert tables.full_caption("Numbers.", s, True, [real, generated]) == note
