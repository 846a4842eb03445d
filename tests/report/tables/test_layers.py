"""Single layers in tables and figures: orders by score and by runs, and what a few layers keep."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from beft.report import figures, layer_orders, tables

DEPTH, SEEDS = 4, 6
SCORES = {"mag_angle": [4.0, 3.0, 2.0, 1.0], "fisher": [1.0, 2.0, 3.0, 4.0]}  # of layers 1 to 4, in every seed


def run(method, seed, final, tuning):
    row = {"key": f"{method} {seed}", "model": "m", "task": "sst2", "regime": 300, "method": method, "seed": seed}
    row |= {"rate": 0.003, "train_size": 240, "epochs": 4, "metric": "accuracy", "substitute": None, "majority": 0.5}
    return row | {"final": final, "final_tuning": tuning, "bias": 8, "outcome": "ok"}


@pytest.fixture
def runs():
    """Layer 3 alone is the best of b_v on the tuning split, layer 4 on the reported one; the head has 60%, all 80%."""
    reached = {"head": (0.6, 0.6), "b_v": (0.8, 0.8)}
    reached |= {f"b_v[{layer}]": (0.62 + 0.02 * layer, tuning) for layer, tuning in enumerate((0.5, 0.6, 0.9, 0.7))}
    reached |= {"b_v[2:4]": (0.78, 0.7), "b_v[0:2]": (0.62, 0.7)}
    return pd.DataFrame([run(m, s, a + 0.001 * s, t) for m, (a, t) in reached.items() for s in range(SEEDS)])


@pytest.fixture
def scores():
    rows = [
        {"seed": s, "score": name, "term": term, "layer": layer, "value": value}
        for s in range(SEEDS)
        for name, values in SCORES.items()
        for term in "qkv"
        for layer, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows)


def test_layers_are_ordered_by_score_and_by_runs_on_the_tuning_split(scores, runs):
    assert layer_orders.orders(scores, runs) == {
        "b_v": {"mag_angle": [0, 1, 2, 3], "fisher": [3, 2, 1, 0], layer_orders.ALONE: [2, 3, 1, 0]}
    }
    without = runs.assign(final_tuning=float("nan"))
    assert layer_orders.orders(scores, without) == {"b_v": {"mag_angle": [0, 1, 2, 3], "fisher": [3, 2, 1, 0]}}


def test_the_reported_split_never_orders_layers(scores, runs):
    changed = runs.assign(final=1 - runs["final"])
    assert layer_orders.orders(scores, runs) == layer_orders.orders(scores, changed)


def test_picks_name_the_first_layers_of_each_order_and_end_with_all():
    picked = layer_orders.picks({"b_v": {"fisher": [3, 2, 1, 0]}}, [1, 2, 4])
    assert list(picked["method"]) == ["b_v[3]", "b_v[2:4]", "b_v"] and list(picked["layers"]) == [1, 2, 4]


def test_a_forward_search_is_one_more_order_and_changes_no_other():
    found = {"b_v": {"fisher": [1, 0]}}
    both = layer_orders.with_forward(found, {"b_v": [0, 1], "b_q": [1, 0]})
    assert both == {"b_v": {"fisher": [1, 0], layer_orders.FORWARD: [0, 1]}, "b_q": {layer_orders.FORWARD: [1, 0]}}
    assert found == {"b_v": {"fisher": [1, 0]}} and layer_orders.with_forward(found) == found


def test_the_first_layer_of_an_order_is_compared_with_the_mean_of_all(scores, runs):
    table = tables.layers.agreement(scores, runs, layer_orders.orders(scores, runs)).set_index("layers ordered by")
    assert list(table["first layer"].str[0]) == ["1", "4", "3"]
    assert set(table["best layer, known afterwards"].str[0]) == {"4"}
    assert table.loc["Mag+Angle", "Spearman's rho"] == "-1.00 in each of 6 seeds"
    assert table.loc["Fisher (per example)", "Spearman's rho"] == "+1.00 in each of 6 seeds"
    assert table.loc[layer_orders.ALONE, "Spearman's rho"] == "-"
    assert table.loc["Fisher (per example)", "first - mean of all, points"] == "+3.0 [+3.0, +3.0]"
    assert list(table["verdict"]) == ["cannot be told with 6 seeds"] * 3, "three tests, corrected, need seven seeds"


def test_what_few_layers_keep_is_a_share_of_the_gain_over_the_head(scores, runs):
    found = layer_orders.orders(scores, runs)
    table = tables.layers.few(runs, layer_orders.picks(found, [1, 2])).set_index("method")
    assert table.loc["b_v[2:4]", "of the gain, %"] == "90" and table.loc["b_v", "of the gain, %"] == "100"
    assert table.loc["b_v[2:4]", "chosen by"] == f"Fisher (per example), {layer_orders.ALONE}"
    assert table.loc["b_v[2:4]", "few - all, points"] == "-2.0 [-2.0, -2.0]"
    assert table.loc["b_v", "chosen by"] == "all" and table.loc["b_v", "verdict"] == "-"
    assert list(table["layers"]) == [1, 1, 1, 2, 2, 4]


def test_what_is_not_learned_in_all_layers_has_no_gain_to_share_and_open_marks(scores, runs):
    low = runs.assign(majority=0.95)
    found = layer_orders.orders(scores, low)
    table = tables.layers.few(low, layer_orders.picks(found, [1]))
    assert set(table["of the gain, %"]) == {"not learned"}
    for frame, filled in ((low, False), (runs, True)):
        fig = figures.layers.by_layer(scores, frame, "accuracy", ["fisher"])
        marks = [line for line in fig.axes[0].lines if line.get_marker() == "^"]
        assert marks and {line.get_markerfacecolor() != "white" for line in marks} == {filled}
        plt.close(fig)


def test_no_cell_gives_empty_tables_and_figures_that_say_so(scores, runs):
    none, no_scores = runs.iloc[:0], layer_orders.scores_of([])
    found = layer_orders.orders(scores, runs)
    for empty, full in (
        (tables.layers.agreement(no_scores, none, {}), tables.layers.agreement(scores, runs, found)),
        (tables.layers.few(none, layer_orders.picks({}, [1])), tables.layers.few(runs, layer_orders.picks(found, [1]))),
    ):
        assert not len(empty) and set(empty) == set(full), "a notebook shows some of the columns"
    for fig in (
        figures.layers.by_layer(no_scores, none, "accuracy", ["fisher"]),
        figures.layers.few_layers(none, layer_orders.picks({}, [1]), "accuracy"),
    ):
        assert "not run" in {text.get_text() for ax in fig.axes for text in ax.texts}
        plt.close(fig)


def test_figures_show_every_layer_and_every_order(scores, runs):
    found = layer_orders.orders(scores, runs)
    fig = figures.layers.by_layer(scores, runs, "accuracy", ["mag_angle", "fisher", "reach"])
    top, below = fig.axes
    assert [t.get_text() for t in top.get_xticklabels()] == ["1", "2", "3", "4", "all"]
    assert len(below.get_yticks()) == 2, "a score that the model does not have has no row"
    few = figures.layers.few_layers(runs, layer_orders.picks(found, [1, 2]), "accuracy")
    assert len(few.axes) == 1 and {len(line.get_xdata()) for line in few.axes[0].lines} >= {3}
    plt.close("all")


def test_what_has_more_seeds_is_drawn_over_those_of_the_single_layers(scores, runs):
    more = runs[runs["method"].isin(["head", "b_v"])].assign(seed=99, final=0.0)
    drawn = []
    for frame in (runs, pd.concat([runs, more], ignore_index=True)):
        top = figures.layers.by_layer(scores, frame, "accuracy", ["fisher"]).axes[0]
        drawn.append([list(map(float, line.get_ydata())) for line in top.lines])
    assert drawn[0] == drawn[1], "another seed's head is not compared with these layers"
    plt.close("all")


def test_a_language_models_gain_is_counted_from_zero_shot(scores, runs):
    found = layer_orders.orders(scores, runs)
    picked = layer_orders.picks(found, [1])
    without_head = runs.assign(method=runs["method"].replace("head", "zero_shot"))
    assert layer_orders.untuned_of(without_head) == "zero_shot" and layer_orders.untuned_of(runs) == "head"
    own = tables.layers.few(without_head, picked)
    assert list(own["of the gain, %"]) == list(tables.layers.few(runs, picked)["of the gain, %"])
    assert "no gain" not in own["of the gain, %"].iloc[0] and own["of the gain, %"].iloc[0] != "-"
    fig = figures.layers.by_layer(scores, without_head, "accuracy", ["fisher"])
    assert "zero-shot" in [text.get_text() for text in fig.legends[0].get_texts()]
