"""Tables, figures and sentences of debiasing, from records made by hand whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from beft import paper
from beft.report import readings_debias
from beft.report.figures import debiasing as plots_debias
from beft.report.tables import debiasing as tables_debias

NATS = {"none": [2.0], "full": [0.2, 0.4], "lora": [0.5, 0.7], "b_q": [1.0, 1.2], "b_v": [1.4, 1.8]}
SIZES = {"full": 5000, "adapter": 900, "lora": 800, "b_q": 64, "b_v": 64}
GAPS = {"none": [0.30, 0.34], "lora": [0.20, 0.25], "b_v": [0.31, 0.33]}


def patch(method, seed, nats, axis="gender"):
    crows = {"gender": {"percent": 90.0, "nats": nats}, "origin": {"percent": 70.0, "nats": 1.0}}
    stereo = {"gender": {"lm": 99.0, "stereotype": 80.0, "icat": 39.6}}
    own = {} if method == "none" else {"axis": axis, "seed": seed}
    return {
        "settings": {"method": method} | own,
        "parameters": {"patch": SIZES.get(method, 0)},
        "measures": {"crows": crows, "stereoset": stereo},
        "outcome": "ok",
    }


@pytest.fixture
def patches():
    return tables_debias.upstream(
        [patch(m, seed, nats) for m, values in NATS.items() for seed, nats in enumerate(values)]
    )


@pytest.fixture
def tuned():
    return tables_debias.downstream(
        [
            {
                "settings": {"method": m, "seed": seed},
                "patch": {"size": SIZES[m]} if m != "none" else {},
                "measures": {"accuracy": 0.8, "gap gender": gap, "gap origin": None},
                "outcome": "ok",
            }
            for m, values in GAPS.items()
            for seed, gap in enumerate(values)
        ]
    )


def test_table_1_has_a_row_for_every_patch_here_and_in_the_paper(patches):
    table = tables_debias.table1(patches, "gender", 10_000).set_index("patch")
    assert list(table.index) == [
        "no patch", "full", "adapter (PEFT's nearest)", "prompt", "LoRA (q, v)", "sparse", "b_q", "b_v",
    ]  # fmt: skip
    assert table.loc["b_v", "nats: gender"].startswith("1.60 [") and table.loc["b_v", "numbers"] == 64
    assert table.loc["b_v", "of the model, %"] == "0.64"
    assert (
        table.loc["prompt", "nats: gender"] == "not run" and table.loc["no patch", "nats: gender"] == "2.00"
    )
    printed = paper.data()["peftdebias"]["upstream"]["gender_biasbios"]
    assert table.loc["prompt", "paper (BERT-base), CrowS-Pairs, %: gender"] == str(printed["prompt"][2])
    assert table.loc["b_v", "paper (BERT-base), CrowS-Pairs, %: race"] == "not printed"


def test_what_could_not_be_measured_says_why(patches):
    table = tables_debias.table1(patches, "gender", 10_000, {"StereoSet": "not run: no such file"})
    assert set(table["StereoSet"]) == {"not run: no such file"}


def test_table_2_has_every_printed_set_and_says_what_was_not_run(tuned):
    why = {"ghc": "not run: no posts", "biasbios_to_mnli": "not run: needs MNLI"}
    table = tables_debias.table2({"biasbios": tuned}, why).set_index("patch")
    assert table.loc["no patch", "BiasBios-like: gap gender, x 100"].startswith("32.0 [")
    assert (
        table.loc["no patch", "BiasBios-like: gap origin, x 100"] == "undefined"
    )  # a group is absent: not zero
    assert table.loc["sparse", "BiasBios-like: accuracy, x 100"] == "not run"
    assert set(table["GHC-like: f1, x 100"]) == {"not run: no posts"}
    assert table.loc["prompt", "paper (BERT-base), BiasBios: TPR-GAP"] == "11.98"
    assert table.loc["prompt", "paper (BERT-base), MNLI: fraction neutral"] == "0.21"


def test_a_sentence_says_what_each_patch_removes(patches):
    lines = readings_debias.removed(patches, "gender").splitlines()
    assert lines[0] == "without a patch the stereotype is likelier by 2.00 nats"
    assert "b_v (64 numbers): 1.60" in lines[-1] and "removes 20%" in lines[-1]


def test_a_patch_without_effect_removes_zero_and_not_minus_zero(patches):
    before = patches.loc[patches["method"] == "none", "nats gender"].mean()
    patches = patches.assign(**{"nats gender": before * (1 + 1e-7)})
    assert "removes 0% [0%, 0%]" in readings_debias.removed(patches, "gender")


def test_differences_are_paired_by_seed(tuned):
    found = readings_debias.change(tuned, "lora", "gap gender")
    assert found.mean == pytest.approx(-0.095) and found.n == 2
    text = readings_debias.after(tuned, "gender")
    assert (
        "LoRA (q, v): TPR gap -9.5 [-15.9, -3.1]: less bias; accuracy +0.0 [+0.0, +0.0]: no difference"
        in text
    )
    assert "b_v: TPR gap +0.0" in text and "no difference shown" in text


@pytest.mark.parametrize(
    ("values", "verdict"),
    [([1.0, 1.1, 1.2], "it works"), ([2.5, 2.6, 2.7], "it does not work"), ([1.0, 3.0, 2.1], "it is open")],
)
def test_whether_it_works_follows_from_the_interval(tuned, values, verdict):
    records = [patch("none", 0, 2.0), *(patch("b_v", seed, v) for seed, v in enumerate(values))]
    text = readings_debias.works(tables_debias.upstream(records), tuned, "gender")
    assert f"In the language model {verdict}" in text
    assert "the classifier is not shown to be less biased: TPR gap +0.0 points" in text


def test_a_patch_that_was_not_trained_is_not_judged(patches, tuned):
    assert readings_debias.works(patches, tuned, "gender", "b_k") == "b_k: not run"
    text = readings_debias.works(patches, tuned, "gender", "b_q")
    assert (
        "Patches that remove more of it: full, LoRA (q, v)." in text and "the classifier is not known" in text
    )


def test_specificity_has_a_column_for_each_axis(patches):
    other = tables_debias.upstream(
        [patch("none", 0, 2.0), patch("b_v", 0, 1.9, "origin"), patch("b_v", 1, 1.9, "gender")]
    )
    table = tables_debias.specificity(other)
    assert list(table["trained against"]) == ["nothing", "origin", "gender"]
    assert list(table.columns[2:]) == ["nats: gender", "nats: origin"]


def test_the_planted_link_is_inside_the_interval_or_not():
    frames = {
        s: tables_debias.downstream(
            [
                {"settings": {"method": "none", "seed": n}, "patch": {}, "outcome": "ok"}
                | {"measures": {"accuracy": 0.7, "gap gender": g}}
                for n, g in enumerate(gaps)
            ]
        )
        for s, gaps in {0.4: [0.14, 0.16, 0.15], 0.8: [0.60, 0.61, 0.62]}.items()
    }
    table = tables_debias.planted(frames, {0.4: 0.15, 0.8: 0.4})
    assert list(table["expected is in the interval"]) == ["yes", "no"]
    assert isinstance(
        plots_debias.planted_and_measured(frames, {x: x / 2 for x in np.linspace(0, 1, 5)}), Figure
    )


def test_figures_draw_a_mark_for_every_patch_with_a_size(patches, tuned):
    fig = plots_debias.size_against_bias(patches, tuned, "gender")
    drawn = [{c.get_label() for c in ax.containers} for ax in fig.axes]
    assert drawn[0] == {"full", "LoRA (q, v)", "b_q", "b_v"} and drawn[1] == {"LoRA (q, v)", "b_v"}
    assert len(plots_debias.axes_of_patches(patches).axes) == 2


def test_an_axis_without_sentences_is_said_to_be_not_measured(patches, tuned):
    said = "not measured: there are no pairs of sentences for religion"
    other = patches.assign(axis=patches["axis"].replace("gender", "religion"))
    assert (
        readings_debias.removed(other, "religion") == readings_debias.works(other, tuned, "religion") == said
    )
    assert len(plots_debias.size_against_bias(other, tuned, "religion").axes) == 3
    assert tables_debias.table1(other, "religion", 10_000)["patch"].tolist()[0] == "no patch"


def test_a_patch_that_overshoots_has_not_removed_more_than_all(tuned):
    records = [patch("none", 0, 2.0), patch("b_v", 0, -2.0), patch("b_v", 1, -2.1), patch("b_v", 2, -2.2)]
    text = readings_debias.works(tables_debias.upstream(records), tuned, "gender")
    assert "it is open: it removes -5%" in text


def test_runs_that_diverged_are_counted_and_give_no_size(tuned):
    lost = patch("b_v", 0, 1.0) | {"outcome": "diverged", "measures": {}, "parameters": {}}
    frame = tables_debias.upstream([patch("none", 0, 2.0), lost, patch("b_v", 1, 1.0), patch("b_v", 2, 1.2)])
    table = tables_debias.table1(frame, "gender", 10_000).set_index("patch")
    assert table.loc["b_v", "numbers"] == 64 and table.loc["b_v", "nats: gender"].endswith("(2 of 3 seeds)")
    assert "b_v holds 64 numbers" in readings_debias.works(frame, tuned, "gender")


def test_the_planted_link_needs_two_seeds_for_an_interval():
    frame = tables_debias.downstream(
        [
            {"settings": {"method": "none", "seed": 0}, "patch": {}, "outcome": "ok"}
            | {"measures": {"accuracy": 0.7, "gap gender": 0.15}}
        ]
    )
    assert tables_debias.planted({0.4: frame}, {0.4: 0.15}).iloc[0, -1] == "no interval of one seed"
    none = frame.assign(**{"gap gender": float("nan")})
    assert tables_debias.planted({0.4: none}, {0.4: 0.15}).iloc[0, 2] == "undefined"
    assert isinstance(plots_debias.planted_and_measured({0.4: none}, {0.0: 0.0, 0.5: 0.2}), Figure)


def test_false_positive_differences_are_scaled_as_printed():
    posts = tables_debias.downstream(
        [
            {"settings": {"method": "none", "seed": n}, "patch": {}, "outcome": "ok"}
            | {"measures": {"f1": 0.7, "fprd": 0.3, "fprd iptts": 0.1}}
            for n in (0, 1)
        ]
    )
    table = tables_debias.table2({"ghc": posts}, {"biasbios": "not run", "biasbios_to_mnli": "not run"})
    assert table["GHC-like: fprd"].iloc[0] == "0.30 [0.30, 0.30]"
    assert table["GHC-like: f1, x 100"].iloc[0] == "70.0 [70.0, 70.0]"
    assert table["GHC-like: fprd"].iloc[1] == "not run: not carried over"


def test_a_task_without_a_gap_of_the_axis_has_no_verdict(tuned):
    assert "b_v: TPR gap not known from fewer than two seeds" in readings_debias.after(tuned, "religion")
    assert plots_debias.axes_of_patches(tables_debias.upstream([patch("none", 0, 2.0)]).iloc[:, :5]).axes


def tried(method, rate, seed, told, outcome="ok"):
    return {
        "settings": {"method": method, "rate": rate, "seed": seed},
        "measures": {"held-out nats": told},
        "outcome": outcome,
    }


def test_rates_are_judged_by_what_they_tell_of_held_out_text():
    records = [
        *(tried("lora", 0.01, seed, told) for seed, told in enumerate((0.42, 0.40))),
        *(tried("lora", 0.1, seed, told) for seed, told in enumerate((0.36, 0.34))),
        tried("lora", 1.0, 0, 0.1),
        tried("lora", 1.0, 1, None, "diverged"),
        *(tried("b_v", rate, 0, told) for rate, told in ((0.01, 0.5), (0.1, 0.3), (1.0, 0.4))),
    ]
    frame = tables_debias.rates_tried(records, {"lora": 0.01, "b_v": 0.1})
    best = frame[frame["best"]].set_index("patch")["rate"].to_dict()
    assert best == {"lora": 0.1, "b_v": 0.1}  # 1.0 would be, but for the seed that is lost
    assert readings_debias.rates(frame) == "LoRA (q, v): best at 0.1, used at 0.01"
    told = tables_debias.rates_told(frame)
    assert list(told["held-out loss, nats"])[0].startswith("0.410 [")
    assert "1 of 2 seeds lost" in set(told["held-out loss, nats"])
    assert list(told["used"]) == ["yes", "", "", "", "yes", ""]


def test_rates_that_are_all_best_are_said_to_be():
    records = [tried("b_v", rate, 0, told) for rate, told in ((0.01, 0.5), (0.1, 0.3), (1.0, 0.4))]
    frame = tables_debias.rates_tried(records, {"b_v": 0.1})
    assert readings_debias.rates(frame) == "Each patch is used at the best of its rates."


def test_an_end_of_the_rates_is_said_where_it_is_best():
    records = [tried("b_v", rate, 0, told) for rate, told in ((0.01, 0.5), (0.1, 0.3))]
    frame = tables_debias.rates_tried(records, {"b_v": 0.1})
    assert readings_debias.rates(frame) == "best at an end of what was tried: b_v"


def test_a_rate_whose_records_have_no_loss_on_held_out_text_is_never_best():
    old = tried("b_v", 0.01, 0, 0.1)
    del old["measures"]["held-out nats"]
    frame = tables_debias.rates_tried([old, tried("b_v", 0.1, 0, 0.3)], {"b_v": 0.1})
    assert list(frame["best"]) == [False, True] and list(frame["told"]) == ["undefined", "0.300"]


def test_no_rates_tried_is_a_sentence():
    assert readings_debias.rates(tables_debias.rates_tried([], {})) == "No rates are tried in this profile."
