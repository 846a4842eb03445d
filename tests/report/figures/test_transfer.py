"""The figure of domain transfer draws what it was given, survives gaps and never warns."""

import matplotlib as mpl
import pytest
from fake_records import transferred

mpl.use("Agg")

from beft.report.dataframes import transfers
from beft.report.figures import transfer

pytestmark = pytest.mark.usefixtures("quiet_figures")


def texts(ax):
    return [t.get_text() for t in ax.texts]


def test_a_panel_per_target_has_every_method_with_its_mean_change():
    made = [
        transferred(m, s, a + 0.01 * s, trained=n, tweets=a - 0.04 + 0.01 * s, products=a - 0.02 + 0.01 * s)
        for m, a, n in (("full", 0.84, 22_700_000), ("b_v", 0.80, 3458), ("head", 0.53, 770))
        for s in (0, 1)
    ]
    tweets, products = transfer.own_and_target(transfers(made)).axes
    assert [ax.get_title() for ax in (tweets, products)] == ["films\nto tweets", "films\nto products"]
    assert [t.get_text() for t in tweets.get_xticklabels()] == ["head\nonly\n770", "$b_v$\n\n3.46 k", "full\n\n22.7 M"]
    assert [t for t in texts(tweets) if t.startswith("-")] == ["-4.0"] * 3
    assert [t for t in texts(products) if t.startswith("-")] == ["-2.0"] * 3
    open_marks = [line for line in tweets.lines if line.get_markerfacecolor() == "white"]
    assert len(open_marks) == 1 and open_marks[0].get_xdata()[0] < 0.5  # the head is not learned there


def test_one_seed_lost_runs_and_nothing_at_all_are_drawn(tmp_path):
    made = [
        transferred("b_v", 0, tweets=0.7),
        transferred("lora", 0, outcome="diverged", tweets=0.7, trained=9000),
        transferred("b_v", 0, task="others", train_size=50, tweets=0.6),
    ]
    figure = transfer.own_and_target(transfers(made))
    first, second = figure.axes
    assert [t.get_text().endswith("1 lost") for t in first.get_xticklabels()] == [False, True]
    assert "not run" in texts(second)
    assert second.get_title().endswith(", 50 rows")
    figure.savefig(tmp_path / "some.png")
    (empty,) = transfer.own_and_target(transfers([])).axes
    assert texts(empty) == ["not run"]
