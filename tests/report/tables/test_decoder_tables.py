"""Tables 5 and 6, their sentences and figures: what stands beside what."""

from __future__ import annotations

import pytest
from fake_records import run
from matplotlib import pyplot as plt

from beft import paper
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.experiments import memory
from beft.records.schema import key
from beft.report import comparisons, readings_prompted
from beft.report.figures import decoders as plots_prompted
from beft.report.tables import decoders as tables_prompted
from beft.theory import null_key_bias as zoo

LLAMA = {"model": "meta-llama/Llama-2-7b-hf", "prompted": True, "epochs": 5, "rate": 1e-3}
LEVEL = {"b_q": 0.7, "b_k": 0.6, "b_v": 0.8, "lora": 0.85}
TERMS = ("b_q", "b_k", "b_v")


def runs(model="tiny-llama", task="sst2", seeds=(0, 1, 2), **settings):
    return [
        run(m, seed, final=level + 0.01 * seed, model=model, task=task, **({"prompted": True} | settings))
        for m, level in LEVEL.items()
        for seed in seeds
    ]


def untuned(model="tiny-llama", task="sst2", demonstrations=0, seed=0, value=0.55, shown=None):
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
        "demonstrations": demonstrations if shown is None else shown,
        "validation": value,
        "outcome": "ok",
    }


PLAIN = [untuned(), *(untuned(demonstrations=8, seed=s, value=0.6 + 0.01 * s, shown=5) for s in (0, 1, 2))]


def test_the_untuned_model_stands_before_the_methods():
    table = tables_prompted.table5(runs(), PLAIN)
    assert list(table)[-7:] == ["zero-shot", "in context", "b_k", "b_q", "b_v", "LoRA (q, v)", "paper"]
    row = table.iloc[0]
    assert row["zero-shot"] == "55.0" and row["in context"] == "61.0 [58.5, 63.5], 5 shown"
    assert row["b_v"].startswith("81.0 [") and row["paper"] == "not comparable: other model"


def test_a_model_without_untuned_scores_says_not_run():
    row = tables_prompted.table5(runs(), [untuned(task="copa")]).iloc[0]
    assert (row["zero-shot"], row["in context"]) == ("not run", "not run")


def test_demonstrations_of_which_none_fitted_are_shown_as_none():
    plain = [untuned(), *(untuned(demonstrations=8, seed=s, value=0.6, shown=0) for s in (0, 1))]
    table = tables_prompted.table5(runs(), plain)
    assert table["in context"].iloc[0].endswith(", 0 shown")


def test_demonstrations_of_another_regime_are_not_this_cells():
    row = tables_prompted.table5(runs(regime=100), PLAIN).iloc[0]
    assert row["zero-shot"] == "55.0" and row["in context"] == "not run"


def test_the_papers_numbers_stand_beside_its_own_models_and_prompts_alone():
    row = tables_prompted.table5(runs(**LLAMA)).iloc[0]
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
    table = tables_prompted.table6(runs(), PLAIN).set_index("model")
    assert list(table.index)[0] == "tiny-llama" and len(table) == 4 and "paper" not in table
    assert table.loc["tiny-llama", "b_v: paper, %"] == "not comparable: other model"
    llama = table.loc["meta-llama/Llama-2-7b-hf"]
    assert (llama["b_v"], llama["zero-shot"], llama["b_v: paper, %"], llama["rows"]) == (
        "not run",
        "not run",
        "94.9",
        "1000",
    )
    own = tables_prompted.table6(runs(**LLAMA)).set_index("model")
    assert len(own) == 3 and own.loc["meta-llama/Llama-2-7b-hf", "b_v: ours - paper"] == "-13.9"
    assert own.loc["EleutherAI/gpt-j-6b", "b_v: ours - paper"] == "not run"


def test_zero_shot_is_compared_with_every_seed():
    scores = tables_prompted.scores(runs(), PLAIN)
    assert scores["method"].value_counts()[["zero_shot", "in_context", "b_v"]].tolist() == [3, 3, 3]
    compared = comparisons.compare(scores, [("b_v", "zero_shot"), ("b_k", "zero_shot")])
    assert compared["mean"].tolist() == pytest.approx([0.26, 0.06]) and compared["n"].tolist() == [3, 3]


def test_models_without_runs_add_no_rows():
    assert set(tables_prompted.scores(runs(), [untuned("other")])["model"]) == {"tiny-llama"}
    assert len(tables_prompted.scores(runs(), [])) == 12


def test_sentences_name_the_order_of_every_cell_and_both_kinds_of_models():
    records = [
        r for task in ("sst2", "copa", "rte") for m in ("tiny-llama", "tiny-opt") for r in runs(m, task)
    ]
    scores = tables_prompted.scores(records, PLAIN)
    compared = comparisons.compare(scores, [("b_v", "b_q"), ("b_v", "zero_shot")])
    text = readings_prompted.terms(scores, compared, ["tiny-llama"])
    assert "tiny-llama, sst2: LoRA (q, v) (86.0) > b_v (81.0) > b_q (71.0)" in text
    assert "biases of their own: b_v - b_q: ahead in 3 of 3 cells, mean +10.0" in text
    assert "though the interval excludes 0: it is too narrow for few tasks (p over tasks 0.25" in text
    assert (
        "injected biases: b_v - zero-shot: ahead in 1 of 1 cell, mean +26.0 points over one task; one task"
        in text
    )
    whole = readings_prompted.summary(scores, compared, ["tiny-llama"], MOVES)
    assert "tiny-llama (injected biases), the best term: b_v in 3 of 3 tasks." in whole
    assert "Runs that diverged or failed: 0 of" in whole


MOVES = [
    {"model": model, "term": f"b_{term}", "relative": value}
    for model, by in {"tiny-opt": (0.2, 1e-16, 0.4), "tiny-llama": (0.2, 0.1, 0.4)}.items()
    for term, value in zip("qkv", by, strict=True)
]


def test_a_null_b_k_is_told_from_one_that_rotary_positions_give_a_grip():
    first, second = readings_prompted.rotary(MOVES).splitlines()
    assert first == "tiny-opt: b_k changes nothing (1e-16, rounding)"
    assert second == "tiny-llama: b_k changes the logits by 0.1, 0.25 of what b_v does"


@pytest.mark.parametrize(
    ("name", "flag"), [("LLaMA", "attention_bias: False -> True"), ("OPT", "no flag was needed")]
)
def test_what_an_export_switched_on_is_read_from_config_and_sites(name, flag):
    model = zoo.build(name, auto="AutoModelForCausalLM").requires_grad_(False)
    for parameter in (p for n, p in model.named_parameters() if n.endswith("_proj.bias")):
        parameter.data.zero_()
    with open_bank(model, ["b_v"], [0]) as bank:
        next(s for s in bank.slots if s.module.endswith("1.self_attn.v_proj")).values.data.fill_(1.0)
        exported = merge(bank, 0)
    said = readings_prompted.switched(model.config, exported)
    assert flag in said and said.endswith("not zero: b_q in 0, b_k in 0, b_v in 1 of 2 layers")


def test_scores_before_tuning_name_model_task_and_metric():
    assert readings_prompted.before(PLAIN) == (
        "tiny-llama, sst2 (accuracy, %): zero-shot 55.0, behind 5 demonstrations 61.0 [58.5, 63.5]"
    )


def test_figures_are_drawn_for_several_models_and_tasks():
    records = [r for task in ("sst2", "copa") for m in ("tiny-llama", "tiny-opt") for r in runs(m, task)]
    fig = plots_prompted.by_task(tables_prompted.scores(records, PLAIN))
    assert len(fig.axes) == 4 and fig.axes[0].get_title() == "tiny-llama\nsst2 (accuracy)"
    assert [line.get_ydata()[0] for line in fig.axes[0].lines if line.get_linestyle() == ":"] == [
        pytest.approx(55.0)
    ]
    shown = plots_prompted.perturbations(MOVES)
    assert shown.axes[0].get_yscale() == "log" and len(shown.axes[0].lines) == 4
    plt.close("all")


def test_biases_are_counted_on_models_without_numbers():
    empty = {name: zoo.build(name, auto="AutoModelForCausalLM").to("meta") for name in ("OPT", "LLaMA")}
    table = tables_prompted.anatomies(empty).set_index("model")
    assert table.loc["OPT", "has q, k, v biases"] == "yes, yes, yes"
    assert table.loc["LLaMA", "has q, k, v biases"] == "no, no, no"
    assert table.loc["OPT", "b_k is null"].startswith("yes") and table.loc["LLaMA", "b_k is null"].startswith(
        "no"
    )
    llama = table.loc["LLaMA"]
    assert llama["b_k, b_v, a layer"] == llama["kv-heads"] * llama["head size"] < llama["b_q, a layer"]


def test_memory_names_what_was_not_measured():
    e = memory.Estimate(10**9, 2 * 10**9, 10**6, 3 * 10**9, 10**9, 1024)
    record = {
        "settings": {"model": "a", "device": "cpu"},
        "device": {"name": "a chip"},
        "peak_bytes": 4 * 10**9,
    }
    table = tables_prompted.memory({"a": e, "b": e}, [record], runs=10)
    assert table["measured, 1 run, GB"].tolist() == ["4.0 (a chip)", "not run"]
    assert table["in all, 10 runs, GB"].tolist() == ["5.0", "5.0"]
