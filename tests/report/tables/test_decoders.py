"""Tables of language models: what stands beside what, and what is counted."""

from __future__ import annotations

import pytest
from fake_records import run
from matplotlib import pyplot as plt

from beft import paper
from beft.experiments import memory
from beft.records.schema import key
from beft.report import comparisons
from beft.report.figures import cells, expressiveness
from beft.report.tables import decoders

LLAMA = {"model": "meta-llama/Llama-2-7b-hf", "prompted": True, "epochs": 5, "rate": 1e-3}
LEVEL = {"b_q": 0.7, "b_k": 0.6, "b_v": 0.8, "lora": 0.85}
TERMS = ("b_q", "b_k", "b_v")


def runs(model="tiny-llama", task="sst2", seeds=(0, 1, 2), **settings):
    return [
        run(m, seed, final=level + 0.01 * seed, model=model, task=task, **({"prompted": True} | settings))
        for m, level in LEVEL.items()
        for seed in seeds
    ]


def untuned(model="tiny-llama", task="sst2", demonstrations=0, seed=0, value=0.55, fitted=None):
    settings = {
        "kind": "untuned",
        "model": model,
        "task": task,
        "demonstrations": demonstrations,
        "seed": seed,
    }
    settings |= {"regime": "low"} if demonstrations else {}
    return {
        "kind": "untuned",
        "key": key(settings),
        "settings": settings,
        "data": {"metric": "accuracy", "substitute": False},
        "demonstrations": demonstrations if fitted is None else fitted,
        "validation": value,
        "outcome": "ok",
    }


SCORED = [untuned(), *(untuned(demonstrations=8, seed=s, value=0.6 + 0.01 * s, fitted=5) for s in (0, 1, 2))]


def test_the_untuned_model_stands_before_the_methods():
    table = decoders.table5(runs(), SCORED)
    assert list(table)[-7:] == ["zero-shot", "in context", "b_q", "b_k", "b_v", "LoRA (q, v)", "paper"]
    row = table.iloc[0]
    assert row["zero-shot"] == "55.0" and row["in context"] == "61.0 [58.5, 63.5], 5 shown"
    assert row["b_v"].startswith("81.0 [") and row["paper"] == "not comparable: other model"


def test_tables_of_no_runs_keep_the_untuned_models_columns():
    assert list(decoders.table5([]))[-2:] == ["zero-shot", "in context"]
    assert set(decoders.table6([])["zero-shot"]) == {"not run"}


def test_a_model_without_untuned_scores_says_not_run():
    row = decoders.table5(runs(), [untuned(task="copa")]).iloc[0]
    assert (row["zero-shot"], row["in context"]) == ("not run", "not run")


def test_demonstrations_of_which_none_fitted_are_no_measurement():
    scored = [untuned(), *(untuned(demonstrations=8, seed=s, value=0.6, fitted=0) for s in (0, 1))]
    assert decoders.table5(runs(), scored)["in context"].iloc[0] == "does not fit"
    row = decoders.before_tuning(scored).iloc[0]
    assert row[["zero-shot, %", "demonstrations", "in context, %"]].tolist() == ["55.0", *["does not fit"] * 2]
    scores = decoders.scores(runs(), scored)
    assert scores[scores["method"] == "in_context"]["final"].isna().all()
    assert comparisons.compare(scores, [("b_v", "in_context")]).empty
    assert "in context" not in decoders.method_orders(scores)["methods by score, %"].iloc[0]
    panel = cells.by_task(scores).axes[0]
    assert panel.get_xticklabels()[0].get_text() == "in\ncontext\ndoes not fit"
    plt.close("all")


def test_seeds_without_room_and_how_many_had_it_are_counted():
    fitted = {0: 5, 1: 3, 2: 0}
    scored = [untuned(demonstrations=8, seed=s, value=0.6, fitted=n) for s, n in fitted.items()]
    row = decoders.table5(runs(), scored).iloc[0]
    assert row["in context"] == "60.0 [60.0, 60.0], 1 of 3: does not fit, 3 to 5 shown"
    assert decoders.before_tuning(scored)["demonstrations"].iloc[0] == "3 to 5"


def test_untuned_scores_at_the_majority_are_marked():
    scored = [untuned(value=0.5), untuned(demonstrations=8, value=0.56), untuned("tiny-opt")]
    for r in scored[:2]:
        r["data"] |= {"majority": {"accuracy": 0.5}, "fingerprint": "x"}
    table = decoders.before_tuning(scored)
    assert table["majority"].tolist() == ["50.0", "unknown"]
    assert table["zero-shot, %"].tolist() == ["50.0, not learned", "55.0"]
    made = runs()
    for r in made:  # older records of the same rows
        r["data"]["fingerprint"] = "x"
    row = decoders.table5(made, scored).iloc[0]
    assert row[["majority", "zero-shot"]].tolist() == ["50.0", "50.0, not learned"]
    assert row["in context"] == "56.0 (one seed), 8 shown"


def test_cells_whose_rows_are_not_at_hand_are_not_run_and_say_why():
    absent = [{"model": "SmolLM2-135M-Instruct-Q4_1", "task": "wsc", "regime": "low", "reason": "no rows at hand"}]
    table = decoders.table5(runs(), SCORED, absent)
    assert table["reason"].tolist() == ["", "no rows at hand"]
    assert table.loc[1, "model"] == "SmolLM2-135M-Instruct, 4-bit weights"
    assert table.loc[1, ["b_v", "zero-shot"]].tolist() == ["not run", "not run"]
    assert decoders.table6(runs(), SCORED, absent)["reason"].tolist() == ["", "no rows at hand", "", "", ""]
    assert "reason" not in decoders.table5(runs(), SCORED)


def test_demonstrations_of_another_regime_are_not_this_cells():
    row = decoders.table5(runs(regime=100), SCORED).iloc[0]
    assert row["zero-shot"] == "55.0" and row["in context"] == "not run"


def test_the_papers_numbers_stand_beside_its_own_models_and_prompts_alone():
    row = decoders.table5(runs(**LLAMA)).iloc[0]
    assert (row["b_v: paper, %"], row["b_q: paper, %"], row["b_k: paper, %"]) == ("94.9", "90.0", "68.0")
    assert row["b_v: ours - paper"] == "-13.9"
    assert paper.column(run(**LLAMA)["settings"] | {"prompted": False}) == "not comparable: other task"
    bert = {
        "model": "bert-base-cased",
        "task": "sst2",
        "train_size": 1000,
        "rate": 4e-4,
        "epochs": 16,
        "method": "b_v",
    }
    assert paper.column(bert) == "85.8" and paper.column(bert | {"prompted": True}) != "85.8"


def test_table6_has_the_papers_models_below_ours_and_its_numbers_never_beside_a_substitute():
    table = decoders.table6(runs(), SCORED).set_index("model")
    assert list(table.index)[0] == "tiny-llama" and len(table) == 4 and "paper" not in table
    assert table.loc["tiny-llama", "b_v: paper, %"] == "not comparable: other model"
    llama = table.loc["meta-llama/Llama-2-7b-hf"]
    assert (llama["b_v"], llama["zero-shot"], llama["b_v: paper, %"], llama["rows"]) == (
        "not run",
        "not run",
        "94.9",
        "1000",
    )
    of_a_file = runs(**LLAMA)
    for record in of_a_file:
        record["data"]["source"] = "file sst2.csv; validation: a fixed stratified 20% cut of it"
    assert len(decoders.table6(of_a_file)) == 4
    own = decoders.table6(runs(**LLAMA)).set_index("model")
    assert len(own) == 3 and own.loc["meta-llama/Llama-2-7b-hf", "b_v: ours - paper"] == "-13.9"
    assert own.loc["EleutherAI/gpt-j-6b", "b_v: ours - paper"] == "not run"


def test_zero_shot_is_compared_with_every_seed():
    scores = decoders.scores(runs(), SCORED)
    assert scores["method"].value_counts()[["zero_shot", "in_context", "b_v"]].tolist() == [3, 3, 3]
    compared = comparisons.compare(scores, [("b_v", "zero_shot"), ("b_k", "zero_shot")])
    assert compared["mean"].tolist() == pytest.approx([0.26, 0.06]) and compared["n"].tolist() == [3, 3]


def test_models_without_runs_add_no_rows():
    assert set(decoders.scores(runs(), [untuned("other")])["model"]) == {"tiny-llama"}
    assert len(decoders.scores(runs(), [])) == 12


def test_the_order_of_every_cell_and_the_best_terms_of_every_model():
    records = [r for task in ("sst2", "copa", "rte") for m in ("tiny-llama", "tiny-opt") for r in runs(m, task)]
    scores = decoders.scores(records, SCORED)
    orders = decoders.method_orders(scores).set_index(["model", "task"])["methods by score, %"]
    assert orders["tiny-llama", "sst2"].startswith("LoRA (q, v) (86.0) > b_v (81.0) > b_q (71.0)")
    best = decoders.best_terms(scores).set_index("model")
    assert best.loc["tiny-llama"].tolist() == [3, 0, 0, 3, 0]
    ties = [run(m, final=0.5) for m in TERMS]
    assert decoders.best_terms(decoders.scores(ties))[list(TERMS)].iloc[0].tolist() == [1, 1, 1]
    by_term = {"b_q": (0.6, 0.61, 0.695), "b_k": (0.5,) * 3, "b_v": (0.635,) * 3}  # means that differ by rounding
    ties = [run(m, s, final=x) for m, own in by_term.items() for s, x in enumerate(own)]
    assert decoders.best_terms(decoders.scores(ties))[list(TERMS)].iloc[0].tolist() == [1, 0, 1]
    below = [run(m, final=x, majority=0.6) for m, x in zip(TERMS, (0.7, 0.5, 0.6))]
    none = [run(m, final=0.5, majority=0.6, task="rte") for m in TERMS]
    counts = decoders.best_terms(decoders.scores([*below, *none])).iloc[0]
    assert counts[[*TERMS, "cells", "no term learned"]].tolist() == [1, 0, 0, 2, 1]
    lost = [run(m, outcome="diverged: x") for m in TERMS]
    assert decoders.best_terms(decoders.scores(lost))[list(TERMS)].iloc[0].tolist() == [0, 0, 0]


MOVES = [
    {"model": model, "term": f"b_{term}", "relative": value}
    for model, by in {"tiny-opt": (0.2, 1e-16, 0.4), "tiny-llama": (0.2, 0.1, 0.4)}.items()
    for term, value in zip("qkv", by, strict=True)
]


def test_a_null_b_k_differs_from_one_that_rotary_positions_give_an_effect():
    table = decoders.perturbations(MOVES)
    assert table["model"].tolist() == ["tiny-opt", "tiny-llama"]
    assert table["b_k is rounding"].tolist() == [True, False]
    assert table.iloc[0]["b_k"] == "1e-16" and table.iloc[1][["b_k", "b_k / b_v"]].tolist() == ["0.1", "0.25"]


def test_scores_before_tuning_name_model_task_regime_and_metric():
    row = ["tiny-llama", "sst2", "low", "accuracy", "unknown", "55.0", "5", "61.0 [58.5, 63.5]"]
    assert decoders.before_tuning(SCORED).to_numpy().tolist() == [row]
    assert decoders.before_tuning(SCORED[:1]).iloc[0].tolist()[2:] == [
        "-",
        "accuracy",
        "unknown",
        "55.0",
        "not run",
        "not run",
    ]
    assert decoders.before_tuning(SCORED[1:]).iloc[0]["zero-shot, %"] == "not run"


def test_demonstrations_of_several_regimes_are_rows_of_their_own_beside_the_one_zero_shot_score():
    others = [untuned(demonstrations=8, seed=s, value=0.7) for s in (0, 1)]
    for r in others:
        r["settings"]["regime"] = 100
    table = decoders.before_tuning([*SCORED, *others])
    assert table["regime"].tolist() == ["low", "100"] and table["zero-shot, %"].tolist() == ["55.0", "55.0"]
    assert table["in context, %"].tolist() == ["61.0 [58.5, 63.5]", "70.0 [70.0, 70.0]"]


def test_figures_are_drawn_for_several_models_and_tasks():
    records = [r for task in ("sst2", "copa") for m in ("tiny-llama", "tiny-opt") for r in runs(m, task)]
    fig = cells.by_task(decoders.scores(records, SCORED))
    assert len(fig.axes) == 4 and fig.axes[0].get_title() == "tiny-llama\nsst2"
    assert [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_linestyle() == ":"] == [pytest.approx(55.0)]
    fig = expressiveness.perturbation_by_model(MOVES)
    assert fig.axes[0].get_yscale() == "log" and [t.get_text() for t in fig.legends[0].get_texts()][-1] == "rounding"
    plt.close("all")


def test_biases_of_a_model_are_a_row():
    summary = {"model": "m", "family": "llama", "has_bias": {"q": True, "k": False, "v": False}}
    summary |= {"heads": 4, "kv_heads": 2, "head_size": 8, "query_size": 32, "value_size": 16}
    summary |= {"value_total": 32, "parameters": 1000, "key_bias_null": False, "reason": "RoPE"}
    row = decoders.anatomies([summary]).iloc[0]
    assert row["has q, k, v biases"] == "yes, no, no" and row["share of the model, %"] == "3.200"
    assert row["b_k is null"] == "no: RoPE" and row["b_k, b_v, a layer"] == 16


def test_memory_names_what_was_not_measured():
    e = memory.Estimate(10**9, 2 * 10**9, 10**6, 3 * 10**9, 10**9, 1024)
    record = {
        "settings": {"model": "a", "device": "cpu"},
        "device": {"name": "a chip"},
        "peak_bytes": 4 * 10**9,
        "expected_bytes": 2 * 10**9,
    }
    table = decoders.memory({"a": e, "b": e}, [record], runs=10)
    assert table["measured, 1 run, GB"].tolist() == ["4.0 (a chip)", "not run"]
    assert table["measured / estimated"].tolist() == ["2.00", "not run"]
    assert table["in all, 10 runs, GB"].tolist() == ["5.0", "5.0"]
