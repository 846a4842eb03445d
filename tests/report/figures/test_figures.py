"""Figures from made-up records: they draw what they were given, survive gaps, and save without dates."""

import json

import matplotlib as mpl
import pytest
from fake_records import fake_settings, grid, ranking, run

mpl.use("Agg")

from beft.report import dataframes, intervals, save_figure, style
from beft.report.dataframes import curves, frame
from beft.report.figures import fine_tuning
from beft.report.figures import ranking as of_ranking

RATES = (1e-4, 1e-3, 1e-2)

pytestmark = pytest.mark.usefixtures("quiet_figures")


def _averages(seeds=(0, 1, 2), dtypes=("float32",), by_epoch=False):
    return intervals.term_scores(dataframes.scores([ranking(s, d) for d in dtypes for s in seeds], by_epoch))


def _figures(seeds, lost=()):
    """Every figure of the package from the same made-up runs."""
    equal = [*grid(seeds=seeds), *lost]
    swept = frame(grid(("head", "b_q", "b_v"), seeds, RATES, tuning=True))
    own = intervals.choose_rate(swept)
    scores = dataframes.scores([ranking(s) for s in seeds])
    taus = intervals.agreement(_averages(seeds), frame(equal))
    return {
        "accuracy_by_method": fine_tuning.accuracy_by_method(frame(equal), before=0.5),
        "learning_curves": fine_tuning.learning_curves(curves(equal)),
        "coincidence": fine_tuning.coincidence(curves(equal)),
        "rate_sweep": fine_tuning.rate_sweep(swept, own, 1e-3),
        "two_views": fine_tuning.two_views(frame(equal), swept[swept["rate"] == swept["method"].map(own)]),
        "overview": fine_tuning.overview(frame(equal), swept, own, 1e-3),
        "heatmaps": of_ranking.heatmaps(scores, frame(equal), ["magnitude", "fisher", "mag_angle", "reach"]),
        "rank_vs_accuracy": of_ranking.rank_vs_accuracy(_averages(seeds), frame(equal)),
        "agreement": of_ranking.agreement(taus),
        "norms": of_ranking.norms(scores),
        "ranking_by_precision": of_ranking.ranking_by_precision(_averages(seeds, ("float32", "bfloat16"))),
        "scores_over_epochs": of_ranking.scores_over_epochs(_averages(seeds, by_epoch=True)),
    }


def test_every_figure_is_drawn_and_small(tmp_path):
    lost = [run("b_v", 9, outcome="diverged: loss is nan")]
    s = fake_settings(tmp_path)
    for name, fig in _figures((0, 1, 2), lost).items():
        save_figure(fig, s, name, "Made up.")
        assert 5_000 < (s.figures / f"{name}.png").stat().st_size < 200_000
    assert len(json.loads((s.figures / "index.json").read_text(encoding="utf-8"))) == 12


def test_every_figure_is_drawn_of_one_seed_without_intervals(tmp_path):
    for name, fig in _figures((0,), [run("b_v", 9, outcome="diverged: loss is nan")]).items():
        fig.savefig(tmp_path / f"{name}.png")
        assert 5_000 < (tmp_path / f"{name}.png").stat().st_size < 200_000


def test_saved_files_are_the_same_bytes_for_the_same_records(tmp_path):
    for folder in ("a", "b"):
        save_figure(
            fine_tuning.accuracy_by_method(frame(grid())),
            fake_settings(tmp_path / folder),
            "f",
            "Made up.",
        )
    for file in ("f.png", "f.pdf", "index.json"):
        assert (tmp_path / "a/figures" / file).read_bytes() == (tmp_path / "b/figures" / file).read_bytes()
    assert b"CreationDate" not in (tmp_path / "a/figures/f.pdf").read_bytes()


def test_caption_names_a_stand_in(tmp_path):
    s = fake_settings(tmp_path, note="Generated text, random model.")
    save_figure(fine_tuning.accuracy_by_method(frame(grid())), s, "f", "Accuracy.")
    entry = json.loads((s.figures / "index.json").read_text(encoding="utf-8"))[0]
    assert entry["kind"] == "figure" and entry["caption"].endswith("Generated text, random model.")


def test_means_are_drawn_in_percent():
    ax = fine_tuning.accuracy_by_method(frame([run(seed=0, final=0.80), run(seed=1, final=0.82)])).axes[0]
    assert "81.0" in [t.get_text() for t in ax.texts]


def test_intervals_are_drawn_no_further_than_the_metric_goes():
    runs = frame([run("b_v", s, final=f, task="films") for s, f in ((0, 0.62), (1, 0.77))])
    bar = fine_tuning.accuracy_by_method(runs).axes[0].collections[-1].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([0, 100])


def test_a_lost_run_is_named_in_the_figure():
    ax = fine_tuning.accuracy_by_method(frame([run(seed=0), run(seed=1, outcome="diverged: loss is nan")])).axes[0]
    assert "1 lost" in [t.get_text() for t in ax.texts]


def test_method_that_only_diverged_has_no_mean():
    fig = fine_tuning.accuracy_by_method(frame([run("b_q"), run("b_v", outcome="diverged: loss is nan")]))
    assert [t.get_text() for t in fig.axes[0].texts][:2] == ["80.0", "1 lost"]


def test_learning_curves_of_a_study_that_validates_last_only():
    made = grid(("b_v",))
    for r in made:
        for e in r["epochs"][:-1]:
            e["validation"] = None
    ax = fine_tuning.learning_curves(curves(made)).axes[1]
    assert list(ax.lines[0].get_xdata()) == [3]


def test_bars_are_as_long_as_each_bias_moved_and_those_that_did_not_have_none():
    rows = [{"term": f"b_{t}", "layer": n, "size": 1.0, "change": n * (t == "v")} for t in "qkv" for n in (1, 2, 3)]
    changes, sizes = fine_tuning.moved_biases(rows).axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in changes.patches]
    assert bars == [(1, 1), (2, 2), (3, 3)]
    assert [list(line.get_ydata()) for line in sizes.lines] == [[1, 1, 1]] * 3
    still = fine_tuning.moved_biases([{**row, "change": 0.0, "size": 0.0} for row in rows])
    assert [text.get_text() for text in still.axes[0].texts] == ["no bias moved"] and not still.axes[0].patches


def test_heat_map_has_layers_and_average_for_each_term():
    table = of_ranking._layer_table(dataframes.scores([ranking(0), ranking(1)]), "reach")
    assert list(table.index) == ["q", "k", "v"] and list(table.columns) == [1, 2, 3, 4, 5, 6, "avg"]
    assert table.loc["v", "avg"] == pytest.approx(table.loc["v", [1, 2, 3, 4, 5, 6]].mean())


def test_deep_model_heat_map_without_numbers():
    scores = dataframes.scores([ranking(0, layers=24)])
    fig = of_ranking.heatmaps(scores, frame(grid()), ["magnitude"])
    assert len(fig.axes[0].texts) == 0


def test_colours_and_markers_tell_the_methods_apart():
    methods = list(style.MARKERS)
    assert len({style.COLORS[m] for m in methods}) == len({style.MARKERS[m] for m in methods}) == len(methods)


MPNET = {"model": "all-mpnet-base-v2", "epochs": 8}
PRINTED = {"b_q": 80.0, "b_k": 77.2, "b_v": 85.8}


def _runs(methods=("head", *PRINTED), **changed):
    return frame([run(m, s, final=0.8 + 0.01 * s, **MPNET | changed) for m in methods for s in (0, 1)])


def _black_lines(ax):
    """The heights of the short black lines."""
    black = [c for c in ax.collections if tuple(c.get_color()[0]) == (0, 0, 0, 1)]
    return sorted(c.get_segments()[0][0][1] for c in black if len(c.get_segments()) == 1)


def test_the_papers_numbers_are_drawn_with_the_model_rows_epochs_and_seeds_of_both():
    runs, swept = _runs(), frame(grid(("b_v",), rates=(1e-3,), tuning=True))
    for fig in (
        fine_tuning.accuracy_by_method(runs),
        fine_tuning.overview(runs, swept, {"b_v": 1e-3}, 1e-3),
        fine_tuning.two_views(runs, runs),
    ):
        assert _black_lines(fig.axes[0]) == sorted(PRINTED.values())
        texts = [t.get_text() for legend in fig.legends for t in legend.get_texts()]
        assert texts[-2:] == [
            "BERT-base: 1,000 rows, 16 epochs, seed 0, as printed",
            "MPNet-base: 1,000 rows, 8 epochs, 2 seeds (points: seeds)",
        ]


def test_they_are_drawn_beside_no_stand_in_and_no_other_task_or_size():
    others = [_runs(**c) for c in ({"model": "tiny-bert"}, {"train_size": 800}, {"task": "rte"}, {"prompted": True})]
    for runs in (*others, _runs().assign(substitute=True)):
        _, ax = style.plt.subplots()
        assert fine_tuning.paper_marks(ax, runs, ["head", *PRINTED]) == [] and not ax.collections


def test_means_at_the_majority_are_open_marks_in_brackets():
    _, ax = style.plt.subplots()
    rows = frame([run("head", final=0.5, majority=0.5), run("b_v", final=0.6, majority=0.5)])
    style.methods_as_points(ax, rows, ["head", "b_v"])
    style.majority_line(ax, rows)
    assert [t.get_text() for t in ax.texts] == ["(50.0)", "60.0", "majority"]
    filled = {line.get_marker(): line.get_markerfacecolor() for line in ax.lines if line.get_marker() in ("s", "^")}
    assert filled == {"s": "white", "^": style.COLORS["b_v"]}


def test_a_majority_far_below_is_a_note_and_squeezes_nothing():
    _, ax = style.plt.subplots()
    rows = frame([run(m, final=x, majority=0.5) for m, x in (("head", 0.85), ("b_v", 0.88))])
    style.methods_as_points(ax, rows, ["head", "b_v"])
    style.majority_line(ax, rows)
    assert ax.texts[-1].get_text() == "majority 50.0, below" and ax.get_ylim()[0] > 80


def test_terms_that_are_not_learned_are_off_the_line_and_the_agreement_says_so():
    rows = frame([run(m, final=x, majority=0.6) for m, x in (("b_q", 0.7), ("b_k", 0.5), ("b_v", 0.55))])
    averages = _averages((0,))
    averages = averages[averages["score"] == "reach"]
    fig = of_ranking.rank_vs_accuracy(averages, rows)
    joined = next(line for line in fig.axes[0].lines if line.get_color() == "#999999" and line.get_linestyle() == "-")
    assert list(joined.get_ydata()) == [pytest.approx(70.0)]
    legend = of_ranking.agreement(intervals.agreement(averages, rows)).legends[0]
    assert {t.get_text().partition(":\n")[2] for t in legend.get_texts()} == {"fewer than two terms learned"}
