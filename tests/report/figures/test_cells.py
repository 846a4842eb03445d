"""Figures over cells draw what they were given, survive gaps and never warn."""

import matplotlib as mpl
import numpy as np
import pytest
from fake_records import ranking, run

mpl.use("Agg")

from beft.report import comparisons, style
from beft.report.dataframes import frame
from beft.report.figures import cells

LEVEL = {"head": 0.55, "b_v": 0.75, "b_q": 0.7, "b_k": 0.56, "all_biases": 0.76, "lora": 0.77, "full": 0.78}
SIZES = {"low": 300, "medium": 900, "high": 1200}

pytestmark = pytest.mark.usefixtures("quiet_figures")


def _runs(tasks=("rte",), seeds=(0, 1, 2), methods=tuple(LEVEL), sizes=tuple(SIZES), **settings):
    return [
        run(
            m,
            s,
            final=LEVEL[m] + 0.003 * s * len(m) + SIZES[r] / 30000,
            task=t,
            regime=r,
            train_size=SIZES[r],
            **settings,
        )
        for t in tasks
        for r in sizes
        for m in methods
        for s in seeds
    ]


def _taus(tasks, seeds=(0, 1)):
    ranked = []
    for task in tasks:
        for regime in SIZES:
            for seed in seeds:
                ranked.append(ranking(seed))
                ranked[-1]["settings"] |= {"model": "all-MiniLM-L6-v2", "task": task, "regime": regime}
    return comparisons.tau_by_cell(ranked, frame(_runs(tasks, seeds, ("b_q", "b_k", "b_v"))))


def _compared(*args, **kwargs):
    return comparisons.compare(frame(_runs(*args, **kwargs)), [("b_v", "b_q"), ("b_v", "full")])


def _texts(fig):
    return [t.get_text() for ax in fig.axes for t in ax.texts]


@pytest.mark.parametrize("seeds", [(0, 1, 2), (0,)], ids=["three seeds", "one seed"])
@pytest.mark.parametrize("tasks", [("rte",), ("rte", "sst2", "cola", "stsb", "mrpc")], ids=["one", "five"])
def test_every_figure_is_drawn(tmp_path, tasks, seeds):
    figures = {
        "sizes": cells.by_size(frame(_runs(tasks, seeds))),
        "taus": cells.tau_cells(_taus(tasks, seeds)),
        "differences": cells.differences(_compared(tasks, seeds), "b_v", "b_q"),
    }
    for name, fig in figures.items():
        fig.savefig(tmp_path / f"{name}.png")
        assert 5_000 < (tmp_path / f"{name}.png").stat().st_size < 300_000


def test_nothing_to_draw_says_not_run(tmp_path):
    for fig in (
        cells.by_size(frame([])),
        cells.tau_cells(comparisons.tau_by_cell([], frame([]))),
        cells.differences(comparisons.compare(frame([]), [("b_v", "b_q")]), "b_v", "b_q"),
        cells.differences(_compared(), "b_v", "mask"),
    ):
        fig.savefig(tmp_path / "f.png")
        assert _texts(fig) == ["not run"]


def test_sizes_are_on_a_log_axis_in_percent_with_one_legend():
    rows = _runs(("rte", "sst2"), methods=("b_v", "full"))
    for r in rows:
        r["data"]["metric"] = "accuracy" if r["settings"]["task"] == "rte" else "f1"
    fig = cells.by_size(frame(rows))
    assert len(fig.legends) == 1
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["$b_v$", "full"]
    ax = fig.axes[0]
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["300\n× 3", "900\n× 3", "1,200\n× 3"]
    assert [a.get_ylabel() for a in fig.axes] == ["validation accuracy (%)", "validation f1 (%)"]
    assert [a.get_title() for a in fig.axes] == ["rte", "sst2"]
    means = next(line for line in ax.lines if line.get_marker() == "^").get_ydata()
    assert means[0] == pytest.approx(100 * (0.75 + 0.003 * 3 + 0.01))


def test_models_have_panels_of_their_own():
    rows = [*_runs(methods=("b_v",)), *_runs(methods=("b_v",), model="roberta-base")]
    assert [a.get_title() for a in cells.by_size(frame(rows)).axes] == [
        "rte\nall-MiniLM-L6-v2",
        "rte\nroberta-base",
    ]


def test_methods_that_only_diverged_have_a_cross_and_no_legend_entry(tmp_path):
    rows = [*_runs(methods=("b_v",)), *_runs(methods=("full",), seeds=(0,), outcome="diverged: loss is nan")]
    fig = cells.by_size(frame(rows))
    fig.savefig(tmp_path / "f.png")
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["$b_v$"]
    crosses = [line for line in fig.axes[0].lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert len(crosses) == 1 and len(crosses[0].get_xdata()) == 3


def _lines(fig):
    """Line style of the segments between two sizes."""
    return [line.get_linestyle() for line in fig.axes[0].lines if line.get_marker() in ("None", "")]


def _legend(fig):
    return [t.get_text() for t in fig.legends[0].get_texts()]


def test_sizes_that_were_trained_for_other_epochs_say_so_and_are_joined_by_dots():
    rows = [
        *_runs(methods=("b_v",), sizes=("low", "medium"), epochs=16),
        *_runs(methods=("b_v",), sizes=("high",), epochs=2),
    ]
    fig = cells.by_size(frame(rows))
    assert [t.get_text() for t in fig.axes[0].get_xticklabels()] == ["300\n× 16", "900\n× 16", "1,200\n× 2"]
    assert _lines(fig) == ["-", ":"] and "dotted: other epochs and steps" in _legend(fig)
    assert _lines(cells.by_size(frame(_runs(methods=("b_v",))))) == ["-", "-"]


def test_sizes_that_were_trained_for_as_many_steps_are_joined_by_lines():
    rows = [
        *_runs(methods=("b_v",), sizes=("low",), epochs=12),
        *_runs(methods=("b_v",), sizes=("medium",), epochs=4),
        *_runs(methods=("b_v",), sizes=("high",), epochs=3),
    ]
    fig = cells.by_size(frame(rows))  # 3,600 rows are seen of each
    assert _lines(fig) == ["-", "-"] and not any("dotted" in text for text in _legend(fig))


def test_tasks_look_different_and_like_no_method():
    tasks = cells.task_looks([f"task{n}" for n in range(10)]).values()
    assert len({(t["color"], t["marker"]) for t in tasks}) == 10
    assert not {t["marker"] for t in tasks} & {*style.MARKERS.values()}


def test_scores_that_agree_in_every_cell_share_a_column():
    taus = _taus(("rte", "sst2"))
    other = taus.assign(tau=taus["tau"].where((taus["score"] != "reach") | (taus["task"] != "rte"), -1.0))
    alike = "Magnitude\nMag+Angle\nFisher (per example)\nFisher (batch)"
    for table, columns in ((taus, [f"{alike}\nReach"]), (other, [alike, "Reach"])):
        assert [t.get_text() for t in cells.tau_cells(table).axes[0].get_xticklabels()] == columns


def test_taus_have_a_panel_per_view_and_say_where_there_is_no_interval():
    fig = cells.tau_cells(_taus(("rte", "sst2")))
    assert [a.get_title() for a in fig.axes] == ["all terms", "null $b_k$ excluded"]
    labels = [t.get_text() for t in fig.legends[0].get_texts()]
    assert labels[:2] == ["rte", "sst2"] and "2 tasks" in labels[2] and "no interval" in labels[2]
    assert "95% over tasks" in cells.tau_cells(_taus(("rte", "sst2", "cola"))).legends[0].get_texts()[3].get_text()


def test_forest_names_cells_p_and_the_mean_over_them():
    ax = cells.differences(_compared(("rte", "sst2", "cola")), "b_v", "b_q").axes[0]
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[0] == "rte, low" and labels[-1] == "mean of 9 cells" and len(labels) == 10
    assert ax.texts[-1].get_text().endswith(", p over tasks 0.25") and ", p " in ax.texts[0].get_text()
    ax = cells.differences(_compared(seeds=(0,), sizes=("low",)), "b_v", "b_q").axes[0]
    assert [t.get_text().partition(", ")[2] for t in ax.texts] == ["one seed", "one task: no interval"]
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "mean of 1 cell"


def test_a_cell_without_a_common_seed_keeps_its_place():
    rows = [
        *_runs(methods=("b_v", "b_q"), sizes=("low",)),
        run("b_v", 0, task="cola"),
        run("b_q", 1, task="cola"),
    ]
    compared = comparisons.compare(frame(rows), [("b_v", "b_q")])
    assert np.isnan(compared["mean"].iloc[1])
    assert _texts(cells.differences(compared, "b_v", "b_q"))[1] == "not run"


def test_a_difference_of_what_is_not_learned_is_pale_and_in_no_mean():
    level = {"rte": 0.4, "sst2": 0.7}
    rows = [
        run(m, s, final=x + gap + 0.01 * s, majority=0.5, task=task)
        for task, x in level.items()
        for m, gap in (("b_v", 0.02), ("b_q", 0.0))
        for s in (0, 1)
    ]
    ax = cells.differences(comparisons.compare(frame(rows), [("b_v", "b_q")]), "b_v", "b_q").axes[0]
    assert [t.get_text() for t in ax.texts][:2] == ["+2.0, p 0.5, not learned", "+2.0, p 0.5, Holm 0.5"]
    assert [t.get_text() for t in ax.get_yticklabels()][-1] == "mean of 1 cell"
    assert [line.get_alpha() for line in ax.lines if line.get_markersize() > 10] == [0.5, None, None]


def test_a_task_on_another_scale_has_a_panel_of_its_own():
    level = {"sst2": 0.01, "rte": 0.02, "stsb": 0.3}
    rows = [
        run(m, s, final=0.5 + (gap if m == "b_v" else 0) + 0.001 * s * len(m), task=task)
        for task, gap in level.items()
        for m in ("b_v", "b_q")
        for s in (0, 1, 2)
    ]
    compared = comparisons.compare(frame(rows), [("b_v", "b_q")])
    axes = cells.differences(compared, "b_v", "b_q").axes
    names = [[t.get_text() for t in ax.get_yticklabels()] for ax in axes]
    assert names == [["sst2, low", "rte, low"], ["stsb, low"], ["mean of 3 cells"]]
    assert axes[0].get_xlim()[1] < 5 < axes[1].get_xlim()[1]
    assert len(cells.differences(compared[compared["task"] != "stsb"], "b_v", "b_q").axes) == 1


def test_models_and_tasks_are_named_as_what_they_are():
    rows = [run(m, s, task="film_sentiment", model="all-mpnet-base-v2") for m in ("b_v", "b_q") for s in (0, 1)]
    assert cells.by_size(frame(rows)).axes[0].get_title() == "film sentences"
    assert cells.by_task(frame(rows)).axes[0].get_title() == "MPNet-base\nfilm sentences"
