"""Tables of domain transfer: scores beside the majority class, and who loses less on the way."""

from fake_records import run, transferred

from beft.report import write
from beft.report.dataframes import by_trained_numbers, transfers
from beft.report.tables import transfer

LEVEL = {"full": (0.84, 0.70), "b_v": (0.80, 0.76), "head": (0.70, 0.48)}  # on films, on tweets
TRAINED = {"full": 22_700_000, "b_v": 3458, "head": 770}


def records(seeds=8, **outcomes):
    """Every method on films and tweets; seeds differ by the same in all."""
    return [
        transferred(m, s, a + 0.001 * s, outcomes.get(f"{m}{s}", "ok"), TRAINED[m], tweets=b + 0.002 * s)
        for m, (a, b) in LEVEL.items()
        for s in range(seeds)
    ]


def test_rows_are_by_trained_numbers_below_the_majority_class():
    made = transfers([*records(3), run("b_v", 0)])
    assert len(made) == 9 and by_trained_numbers(made) == ["head", "b_v", "full"]
    table = transfer.scores(made).set_index("method")
    assert list(table.index) == ["majority", "head only", "b_v", "full"]
    assert table.loc["majority", ["its own task", "tweets"]].tolist() == ["50.0", "50.0"]
    assert table.loc["full", "trained numbers"] == "22,700,000" and set(table["trained on"]) == {"films"}
    assert table.loc["b_v", "its own task"].startswith("80.1 [") and table.loc["b_v", "tweets"].startswith("76.2 [")
    assert table.loc["head only", "tweets"].endswith("not learned")
    assert not table.loc["head only", "its own task"].endswith("not learned")


def test_a_lost_run_is_counted_and_enters_no_mean():
    table = transfer.scores(transfers(records(3, full0="diverged: loss is nan"))).set_index("method")
    assert "1 of 3 diverged" in table.loc["full", "tweets"] and table.loc["full", "tweets"].startswith("70.3 [")
    row = transfer.losses(transfers(records(3, full0="diverged: loss is nan")), others=["full"]).iloc[0]
    assert row["seeds"] == 2


def test_who_loses_less_is_ahead_seed_by_seed():
    row = transfer.losses(transfers(records()), others=["full"]).iloc[0]
    assert row["comparison"] == "b_v - full" and row["target"] == "tweets"
    assert row["difference"].startswith("-10.0 [")  # 4 points lost against 14
    assert row["verdict"] == "ahead"
    row = transfer.losses(transfers(records()), base="full", others=["b_v"]).iloc[0]
    assert row["difference"].startswith("+10.0 [") and row["verdict"] == "behind"
    assert transfer.on_targets(transfers(records()), others=["full"]).iloc[0]["verdict"] == "ahead"
    few = transfer.losses(transfers(records(3)), others=["full"]).iloc[0]
    assert few["verdict"] == "cannot be told with 3 seeds"


def test_a_loss_is_judged_where_both_have_learned_their_own_task():
    made = transfers(records())
    assert transfer.losses(made, others=["head"]).iloc[0]["verdict"] == "ahead"  # 22 points of the head's
    assert transfer.on_targets(made, others=["head"]).iloc[0]["verdict"] == "not learned: head only"
    chance = transfers([transferred(m, s, 0.5, tweets=0.5 - 0.01 * (m == "b_v")) for m in LEVEL for s in range(8)])
    assert transfer.losses(chance, others=["full"]).iloc[0]["verdict"] == "not learned: b_v, full"


def test_what_was_not_run_says_so():
    nothing = transfers([])
    for table in (transfer.scores(nothing), transfer.losses(nothing), transfer.on_targets(nothing)):
        assert set(write.as_text(table).iloc[0]) == {"not run"}
    missing = transfer.losses(transfers(records())).set_index("comparison")
    assert missing.loc["b_v - LoRA (q, v)", "verdict"] == "not run"
