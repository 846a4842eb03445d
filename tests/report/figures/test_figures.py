"""Figures from made-up records: they draw what they were given, survive gaps, and save without dates."""

import json

import matplotlib as mpl
import numpy as np
import pytest
from fake_records import fake_settings, grid, ranking, run
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.container import ErrorbarContainer

mpl.use("Agg")

from beft.report import dataframes, intervals, save_figure, style
from beft.report.dataframes import curves, frame
from beft.report.figures import cells, expressiveness, fine_tuning
from beft.report.figures import ranking as of_ranking
from beft.report.names import FORM_NAMES

SWAP = {"q": "v", "v": "q", "k": "k"}
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
        "accuracy_by_method": fine_tuning.accuracy_by_method(frame(equal)),
        "learning_curves": fine_tuning.learning_curves(curves(equal)),
        "coincidence": fine_tuning.coincidence(curves(equal)),
        "rate_sweep": fine_tuning.rate_sweep(swept, own, 1e-3),
        "two_views": fine_tuning.two_views(frame(equal), swept[swept["rate"] == swept["method"].map(own)]),
        "overview": fine_tuning.overview(frame(equal)),
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


def _of(finals):
    return frame([run("b_v", s, final=f, task="films") for s, f in enumerate(finals)])


def test_intervals_are_drawn_no_further_than_the_metric_goes():
    ax = fine_tuning.accuracy_by_method(_of((0.1, 0.99, 0.99, 0.99, 0.1))).axes[0]
    bar = ax.collections[-1].get_segments()[0]
    assert bar[:, 1].tolist() == pytest.approx([2.87, 100], abs=0.01)


def test_a_lost_run_is_named_in_the_figure():
    ax = fine_tuning.accuracy_by_method(frame([run(seed=0), run(seed=1, outcome="diverged: loss is nan")])).axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["$b_v$\n1 lost"]


def test_method_that_only_diverged_has_no_mean():
    fig = fine_tuning.accuracy_by_method(
        frame([run("b_q", task="films"), run("b_v", task="films", outcome="diverged")])
    )
    ax = fig.axes[0]
    assert [t.get_text() for t in ax.texts] == ["80.0", "", "mean"] and ax.get_xticklabels()[1].get_text().endswith(
        "1 lost"
    )


def test_learning_curves_of_a_study_that_validates_last_only():
    made = grid(("b_v",))
    for r in made:
        for e in r["epochs"][:-1]:
            e["validation"] = None
    ax = fine_tuning.learning_curves(curves(made)).axes[1]
    assert list(ax.lines[0].get_xdata()) == [3]


def test_learning_curves_draw_no_lost_run_and_count_them_in_the_legend():
    lost = [run("b_v", 1, epochs=1, final=0.1, outcome="diverged: x"), run("b_k", outcome="diverged: x")]
    fig = fine_tuning.learning_curves(curves([run("b_v"), run("b_q"), *lost]))
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["$b_q$", "$b_k$ (1 lost)", "$b_v$ (1 lost)"]
    drawn = [np.round(line.get_ydata(), 6).tolist() for line in fig.axes[1].lines]
    assert drawn == [[76, 78, 80], [], [76, 78, 80]]


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


def test_deep_model_heat_map_has_the_numbers_of_the_average_alone():
    for layers, numbers in ((24, 3), (6, 21)):
        scores = dataframes.scores([ranking(0, layers=layers)])
        fig = of_ranking.heatmaps(scores, frame(grid()), ["magnitude"])
        assert len(fig.axes[0].texts) == numbers


@pytest.mark.parametrize("score", ["magnitude", "fisher", "reach"])
def test_the_colours_of_a_heat_map_reach_all_its_values_and_its_numbers_can_be_read(score):
    scores = dataframes.scores([ranking(0)])
    ax = of_ranking.heatmaps(scores, frame(grid()), [score]).axes[0]
    values = scores[(scores["score"] == score) & (scores["value"] > 0)]["value"]
    for mesh in ax.collections:
        assert mesh.norm.vmin <= values.min() and values.max() <= mesh.norm.vmax
    for text in ax.texts:
        x, y = text.get_position()
        mesh = ax.collections[int(x > 6)]
        row = mesh.get_array()[int(y)]
        ground = mesh.to_rgba(row)[int(x) if x < 6 else 0]
        assert _contrast(ground, mpl.colors.to_rgba(text.get_color())) > 4.5


def _contrast(*colors):
    linear = [[c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]] for color in colors]
    light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in linear)
    return (light[1] + 0.05) / (light[0] + 0.05)


def test_colours_and_markers_tell_the_methods_apart():
    forms = [f"b_v:{form}" for form in FORM_NAMES]
    methods = [*style.MARKERS, *forms, "a method without an entry"]
    assert len({style.color_of(m) for m in style.MARKERS}) == len(style.MARKERS)
    assert len({(style.color_of(m), style.marker_of(m)) for m in methods}) == len(methods)
    assert len({style.marker_of(m) for m in [*style.MARKERS, *forms]}) == len(methods) - 1
    assert not {style.GREY, style.PALE_GREY} & {style.color_of(m) for m in methods}


def test_every_figure_of_the_terms_has_them_in_one_order_with_one_look():
    looks = {(style.COLORS[t], style.MARKERS[f"b_{t}"], f"$b_{t}$") for t in "qkv"}
    rows = [{"model": "m", "precision": "float64", "term": f"b_{t}", "relative": 0.1} for t in "vkq"]
    figures = _figures((0, 1)) | {
        "by_size": cells.by_size(frame(grid(("b_v", "b_k", "b_q")))),
        "perturbation": expressiveness.perturbation_by_model(rows),
        "perturbation_by_precision": expressiveness.perturbation_by_precision(rows),
    }
    for name, fig in figures.items():
        entries = [h for legend in fig.legends for h in legend.legend_handles]
        entries += [h for ax in fig.axes if ax.get_legend() for h in ax.get_legend().legend_handles]
        terms = [h for h in entries if h.get_label().startswith("$b_")]
        assert [h.get_label() for h in terms] == sorted((h.get_label() for h in terms), key="$b_q$ $b_k$ $b_v$".index)
        for h in terms:
            assert name == "coincidence" or (h.get_color(), h.get_marker(), h.get_label()) in looks, name
        ticks = [t.get_text() for ax in fig.axes for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        assert not [t for t in ticks if t.startswith("b_")], name
        for ax in fig.axes:
            own = [line for line in ax.lines if line.get_color() in {style.COLORS[t] for t in "qkv"}]
            assert all(
                (line.get_color(), line.get_marker(), "") in {(c, m, "") for c, m, _ in looks}
                for line in own
                if _is_mean(line)
            ), name


def _is_mean(line):
    return line.get_marker() not in ("None", "", "o", "x") and line.get_markersize() > style.SEED_SIZE


def _bars(fig):
    """The intervals of a figure: vertical or level lines of error bars, by their containers."""
    return [c for ax in fig.axes for c in ax.containers if isinstance(c, ErrorbarContainer)]


@pytest.mark.parametrize(("seeds", "drawn"), [(1, False), (2, False), (4, False), (5, True)])
def test_fewer_than_five_seeds_are_points_and_no_interval(seeds, drawn):
    for name, fig in _figures(tuple(range(seeds))).items():
        lone = {"coincidence", "norms", "ranking_by_precision", "scores_over_epochs", "rank_vs_accuracy"}
        bands = [c for ax in fig.axes for c in ax.collections if isinstance(c, FillBetweenPolyCollection)]
        if name not in lone:
            assert bool(_bars(fig) or bands) is drawn, name
        if name in ("accuracy_by_method", "overview", "two_views", "rate_sweep", "heatmaps"):
            points = [n for ax in fig.axes for n in ax.lines if n.get_markersize() == style.SEED_SIZE]
            assert {len(p.get_xdata()) for p in points} == ({seeds} if seeds > 1 else set()), name


def test_axes_in_percent_stay_within_what_the_metric_can_be():
    sure = frame([run(m, s, final=x) for m, x in (("b_q", 1.0), ("b_k", 0.0), ("b_v", 0.999)) for s in range(5)])
    figures = [
        fine_tuning.accuracy_by_method(sure),
        fine_tuning.overview(sure),
        fine_tuning.two_views(sure, sure),
        fine_tuning.rate_sweep(sure, {}),
        cells.by_size(sure),
        cells.by_task(sure),
    ]
    for fig in figures:
        for ax in [a for a in fig.axes if "%" in a.get_ylabel()]:
            assert ax.get_ylim()[0] >= 0 and ax.get_ylim()[1] <= 100
    _, ax = style.plt.subplots()
    ax.set_ylim(-130, 130)
    style.percent_axis(ax, "spearman")
    assert ax.get_ylim() == (-100, 100)


def test_no_text_is_small_and_none_lies_on_a_mark():
    for name, fig in _figures((0, 1, 2)).items():
        fig.canvas.draw()
        for ax in fig.axes:
            texts = [t for t in ax.texts if t.get_text() and t.get_visible()]
            ticks = [t for t in (*ax.get_xticklabels(), *ax.get_yticklabels()) if t.get_text()]
            assert all(t.get_fontsize() >= style.SMALL for t in [*texts, *ticks]), name
            places = [ax.transData.transform(line.get_xydata()) for line in ax.lines if _is_mean(line)]
            for text in texts:
                box = text.get_window_extent()
                assert not [1 for points in places for x, y in points if box.contains(x, y)], (name, text)


def test_files_have_a_light_ground_of_their_own(tmp_path):
    s = fake_settings(tmp_path)
    save_figure(fine_tuning.overview(frame(grid())), s, "f", "Made up.")
    image = style.plt.imread(s.figures / "f.png")
    assert (image[..., 3] == 1).all() and (image[0, 0] == 1).all() and (image[-1, -1] == 1).all()


MPNET = {"model": "all-mpnet-base-v2", "epochs": 8}
PRINTED = {"b_q": 80.0, "b_k": 77.2, "b_v": 85.8}


def _runs(methods=("head", *PRINTED), **changed):
    return frame([run(m, s, final=0.8 + 0.01 * s, **MPNET | changed) for m in methods for s in (0, 1)])


def _black_lines(ax):
    """The heights of the short black lines."""
    black = [c for c in ax.collections if tuple(c.get_color()[0]) == (0, 0, 0, 1)]
    return sorted(c.get_segments()[0][0][1] for c in black if len(c.get_segments()) == 1)


def test_the_papers_numbers_are_drawn_with_the_model_rows_epochs_and_seeds_of_both():
    runs = _runs()
    for fig in (fine_tuning.accuracy_by_method(runs), fine_tuning.two_views(runs, runs)):
        assert _black_lines(fig.axes[0]) == sorted(PRINTED.values())
        texts = [t.get_text() for legend in fig.legends for t in legend.get_texts()]
        assert texts == [
            "paper: BERT-base: 1,000 rows, 16 epochs, seed 0, as printed",
            "coloured: MPNet-base: 1,000 rows, 8 epochs, 2 seeds",
            "points: seeds",
        ]


def test_the_overview_has_the_terms_beside_the_papers_each_under_its_model_rows_epochs_and_seeds():
    ours, printed = fine_tuning.overview(_runs()).axes
    assert ours.get_title() == "Measured here: MPNet-base\n1,000 rows, 8 epochs, 2 seeds, rate 0.001"
    assert printed.get_title() == "Printed in the paper: BERT-base\n1,000 rows, 16 epochs, seed 0"
    assert [t.get_text() for t in ours.get_xticklabels()] == ["$b_q$", "$b_k$", "$b_v$"]
    assert _black_lines(printed) == sorted(PRINTED.values()) and not _black_lines(ours)
    assert ours.get_ylim() == printed.get_ylim()
    assert [t.get_text() for t in printed.texts] == ["80.0", "77.2", "85.8", "printed"]
    assert len(fine_tuning.overview(_runs(task="rte")).axes) == 1
    assert [t.get_text() for t in fine_tuning.overview(_runs(("head",))).axes[0].texts] == ["not run"]


def test_they_are_drawn_beside_no_stand_in_and_no_other_task_or_size():
    others = [_runs(**c) for c in ({"model": "tiny-bert"}, {"train_size": 800}, {"task": "rte"}, {"prompted": True})]
    for runs in (*others, _runs().assign(substitute=True)):
        _, ax = style.plt.subplots()
        assert fine_tuning.paper_marks(ax, runs, ["head", *PRINTED]) == [] and not ax.collections


def test_means_at_the_majority_are_open_marks_in_brackets():
    _, ax = style.plt.subplots()
    rows = frame([run("head", final=0.5, majority=0.5), run("b_v", final=0.6, majority=0.5)])
    style.methods_as_points(ax, rows, ["head", "b_v"])
    (line,) = style.majority_line(ax, rows)
    assert [t.get_text() for t in ax.texts] == ["(50.0)", "60.0", "mean"] and line.get_label() == "majority"
    filled = {line.get_marker(): line.get_markerfacecolor() for line in ax.lines if line.get_marker() in ("s", "^")}
    assert filled == {"s": "white", "^": style.COLORS["b_v"]}


def test_a_majority_far_below_is_a_note_and_squeezes_nothing():
    _, ax = style.plt.subplots()
    rows = frame([run(m, final=x, majority=0.5) for m, x in (("head", 0.85), ("b_v", 0.88))])
    style.methods_as_points(ax, rows, ["head", "b_v"])
    (line,) = style.majority_line(ax, rows)
    assert line.get_label() == "majority 50.0: below the axis" and ax.get_ylim()[0] > 80


def test_terms_that_are_not_learned_are_off_the_line_and_the_agreement_says_so():
    rows = frame([run(m, final=x, majority=0.6) for m, x in (("b_q", 0.7), ("b_k", 0.5), ("b_v", 0.55))])
    averages = _averages((0,))
    averages = averages[averages["score"] == "reach"]
    fig = of_ranking.rank_vs_accuracy(averages, rows)
    joined = next(
        line for line in fig.axes[0].lines if line.get_color() == style.PALE_GREY and line.get_linestyle() == "-"
    )
    assert list(joined.get_ydata()) == [pytest.approx(70.0)]
    panels = of_ranking.agreement(intervals.agreement(averages, rows)).axes
    assert {ax.get_title().partition(":\n")[2] for ax in panels} == {"fewer than two terms learned"}


def test_scores_that_rank_alike_share_a_panel_and_a_column():
    rows = frame(grid(("b_q", "b_k", "b_v"), (0, 1)))
    averages = _averages((0, 1))
    titles = [ax.get_title() for ax in of_ranking.rank_vs_accuracy(averages, rows).axes]
    assert titles == ["Magnitude\nMag+Angle\nFisher (per example)\nFisher (batch)\nReach"]
    swapped = averages.assign(term=averages["term"].where(averages["score"] != "magnitude", averages["term"].map(SWAP)))
    titles = [ax.get_title() for ax in of_ranking.rank_vs_accuracy(swapped, rows).axes]
    assert titles == ["Magnitude", "Mag+Angle\nFisher (per example)\nFisher (batch)\nReach"]
    columns = of_ranking.agreement(intervals.agreement(swapped, rows)).axes[0].get_xticklabels()
    assert [t.get_text() for t in columns] == titles


def test_one_scored_epoch_is_a_point_of_either_method_and_no_line_that_nobody_sees():
    frame_ = curves([run(method, seed=0) for method in ("head", "b_k")])
    last = frame_["epoch"] == frame_["epoch"].max()
    ax = fine_tuning.coincidence(frame_.assign(validation=frame_["validation"].where(last))).axes[1]
    assert [(line.get_marker(), len(line.get_xdata())) for line in ax.get_lines()] == [("o", 1), ("o", 1)]
