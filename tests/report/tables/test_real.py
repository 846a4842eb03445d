"""Tables and figures of notebook 05's real model, from records made by hand whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from beft.report.figures import real as figures
from beft.report.tables import real

pytestmark = pytest.mark.usefixtures("quiet_figures")
BY = {f"work{n}": float(n - 30) / 20 for n in range(61)}


def a_record(method, seed, scale, nats, percent, **more):
    by = {name: scale * value for name, value in BY.items()}
    link = {"spread": scale, "spread_low": scale - 0.1, "spread_high": scale + 0.1, "mean": -0.2, "n": 61, "by": by}
    link |= {"mean_low": -0.3, "mean_high": -0.1}
    crows = {kind: {"percent": percent, "n": 40, "nats": 0.1} for kind in ("all", "gender")}
    measures = {"occupations": link, "text": {"film": {"nats": nats, "tokens": 9}}, "crows": crows} | more
    own = {} if method == "none" and not more else {"seed": seed, "rate": 0.01}
    size = {"none": 0, "b_v": 60, "lora": 600}[method]
    return {"settings": {"method": method} | own, "parameters": {"patch": size}, "patch": {}, "outcome": "ok",
            "measures": measures}  # fmt: skip


RECORDS = [a_record("none", None, 1.0, 4.0, 60.0)]
RECORDS += [a_record("b_v", n, 0.5 + 0.01 * n, 4.1, 100.0) for n in range(9)]
RECORDS += [a_record("lora", n, 1.0, 3.9 + 0.001 * n, 50.0) for n in range(9)]


def test_a_patch_is_shown_with_what_it_leaves_and_what_it_costs():
    table = real.patches(real.measures(RECORDS), 6000).set_index("patch")
    assert list(table.index) == ["no patch", "LoRA (q, v)", "b_v"]
    assert table.loc["no patch", "spread, nats"] == "1.00 [0.90, 1.10]" and table.loc["no patch", "rate"] == "-"
    assert table.loc["b_v", "spread, nats"].startswith("0.54 [0.5") and table.loc["b_v", "of the model, %"] == "1"
    assert table.loc["b_v", "film: nats per token"].startswith("4.100")


def test_an_interval_of_a_share_never_leaves_its_range():
    table = real.crows(real.measures(RECORDS)).set_index("type")
    assert table.loc["all", "b_v"].endswith(", 100.0]") and table.loc["gender", "pairs"] == 40
    low, high = stats.binomtest(24, 40).proportion_ci(0.95, "wilson")
    assert table.loc["gender", "no patch"] == f"60.0 [{100 * low:.1f}, {100 * high:.1f}]"
    assert real.wilson(0.0, 40)[0] == 0 and real.wilson(1.0, 40)[1] == 1


def test_what_a_patch_changes_is_judged_wanted_or_not():
    table = real.changes(real.measures(RECORDS)).set_index(["patch", "measure"])
    verdicts = table["verdict"]
    assert verdicts["b_v", "spread over occupations, nats"] == "ahead"
    assert verdicts["b_v", "film, nats per token"] == "behind"
    assert verdicts["LoRA (q, v)", "CrowS-Pairs, points from 50%"] == "ahead"
    assert verdicts["LoRA (q, v)", "spread over occupations, nats"] == "no difference shown"
    few = real.changes(real.measures([r for r in RECORDS if r["settings"].get("seed", 0) in (None, 0, 1)]))
    assert set(few["verdict"]) == {"cannot be told with 2 seeds"}


def test_occupations_that_came_nearer_to_each_other_are_judged_over_occupations():
    table = real.removed(real.occupations(RECORDS)).set_index("patch")
    assert table.loc["b_v", "verdict"] == "ahead" and table.loc["b_v", "nearer"] == "98%"  # one is the mean itself
    assert table.loc["LoRA (q, v)", "verdict"] == "no difference shown" and set(table["occupations"]) == {61}
    assert len(real.removed(real.occupations(RECORDS[1:]))) == 0


def test_a_run_that_diverged_is_counted_and_leaves_no_number():
    lost = a_record("b_v", 9, 9.0, 9.0, 9.0) | {"measures": {}, "outcome": "diverged: at once"}
    table = real.patches(real.measures([*RECORDS, lost]), 6000)
    assert "b_v (1 of 10 seeds lost)" in set(table["patch"]) and len(real.occupations([*RECORDS, lost])) == 61


def test_after_fine_tuning_a_patch_is_set_against_plain_fine_tuning_of_the_same_seed():
    tuned = [a_record("none", n, 1.0, 4.0, 60.0, accuracy=0.8) for n in range(7)]
    tuned += [a_record("b_v", n, 0.5, 4.0, 60.0, accuracy=0.79 + 0.001 * n) for n in range(7)]
    table = real.after(real.measures(tuned), "film_sentiment").set_index("measure")
    assert table.loc["spread over occupations, nats", ["with", "without"]].tolist() == ["0.50 [0.50, 0.50]",
                                                                                      "1.00 [1.00, 1.00]"]  # fmt: skip
    assert table.loc["spread over occupations, nats", "verdict"] == "ahead"
    assert table.loc["CrowS-Pairs, points from 50%", "verdict"] == "no difference shown"


def test_figures_have_every_occupation_by_name_before_and_after():
    odds = real.occupations(RECORDS)
    assert list(odds["none"]) == sorted(odds["none"]) and list(odds.columns) == ["occupation", "none", "lora", "b_v"]
    fig = figures.before_and_after(odds, "b_v")
    names = [label.get_text() for ax in fig.axes for label in ax.get_yticklabels()]
    assert names == list(odds["occupation"]) and len(fig.axes) == 3
    drawn = np.concatenate([ax.lines[2].get_xdata() for ax in fig.axes])  # behind the zero line and those without
    assert drawn == pytest.approx(odds["b_v"].to_numpy())
    assert [ax.get_title() for ax in figures.every_patch(odds).axes if ax.get_visible()] == ["LoRA (q, v)", "$b_v$"]
    assert figures.every_patch(odds[["occupation", "none"]]) and figures.before_and_after(odds, "b_q")
