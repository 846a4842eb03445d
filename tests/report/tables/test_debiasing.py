"""Tables and figures of debiasing, from records made by hand whose answers are known."""

from __future__ import annotations

import numpy as np
from fake_records import patch, tuned_model
from matplotlib.figure import Figure

from beft import paper
from beft.report.figures import debiasing as figures
from beft.report.tables import debiasing


def test_table_1_has_a_row_for_every_patch_here_and_in_the_paper(patches):
    table = debiasing.table1(patches, "gender", 10_000).set_index("patch")
    assert list(table.index) == [
        "no patch", "full", "adapter (PEFT's nearest)", "prompt", "LoRA (q, v)", "sparse", "b_q", "b_v",
    ]  # fmt: skip
    assert table.loc["b_v", "nats: gender"].startswith("1.60 [") and table.loc["b_v", "numbers"] == 64
    assert table.loc["b_v", "of the model, %"] == "0.64"
    assert table.loc["prompt", "nats: gender"] == "not run" and table.loc["no patch", "nats: gender"] == "2.00"
    printed = paper.data()["peftdebias"]["upstream"]["gender_biasbios"]
    assert table.loc["prompt", "paper (BERT-base), CrowS-Pairs, %: gender"] == str(printed["prompt"][2])
    # The paper's patches against race, measured on race, are nothing like these measured on origin.
    assert not [column for column in table if "race" in column]
    origin = patches.assign(axis=patches["axis"].replace("gender", "origin"))
    assert not [column for column in debiasing.table1(origin, "origin", 10_000) if "paper" in column]


def test_what_could_not_be_measured_says_why(patches):
    table = debiasing.table1(patches, "gender", 10_000, {"StereoSet": "not run: no such file"})
    assert set(table["StereoSet"]) == {"not run: no such file"}


def test_table_2_has_every_printed_set_and_says_what_was_not_run(tuned):
    why = {"ghc": "not run: no posts", "biasbios_to_mnli": "not run: needs MNLI"}
    table = debiasing.table2({"biasbios": tuned}, why).set_index("patch")
    assert table.loc["no patch", "BiasBios-like: gap gender, x 100"].startswith("32.0 [")
    assert table.loc["no patch", "BiasBios-like: gap origin, x 100"] == "undefined"  # a group is absent: not zero
    assert table.loc["sparse", "BiasBios-like: accuracy, x 100"] == "not run"
    assert set(table["GHC-like: f1, x 100"]) == {"not run: no posts"}
    assert table.loc["prompt", "paper (BERT-base), BiasBios: TPR-GAP"] == "11.98"
    assert table.loc["prompt", "paper (BERT-base), MNLI: fraction neutral"] == "0.21"


def test_specificity_has_a_column_for_each_axis(patches):
    other = debiasing.upstream([patch("none", 0, 2.0), patch("b_v", 0, 1.9, "origin"), patch("b_v", 1, 1.9, "gender")])
    table = debiasing.specificity(other)
    assert list(table["trained against"]) == ["nothing", "origin", "gender"]
    assert list(table.columns[2:]) == ["nats: gender", "nats: origin"]


def test_side_effects_are_of_the_links_that_a_patch_was_not_trained_against():
    def of(method, seed, gender, origin, axis):
        record = patch(method, seed, gender, axis)
        record["measures"]["crows"]["origin"] = {"percent": 60.0, "nats": origin}
        return record

    records = [of("none", 0, 2.0, -1.0, "none")]
    records += [of("b_v", n, 0.5, x, "gender") for n, x in enumerate((-0.6, 0.8))]
    records += [of("b_q", n, 2.5, 0.1, "origin") for n in (0, 1)]
    table = debiasing.side_effects(debiasing.upstream(records))
    assert table[["patch", "trained against", "link of"]].to_numpy().tolist() == [
        ["b_v", "gender", "origin"],
        ["b_q", "origin", "gender"],
    ]
    assert table["before, nats"].tolist() == ["1.00", "2.00"] and table["after, nats"].tolist() == ["0.70", "2.50"]
    assert [text.split()[0] for text in table["difference"]] == ["-0.30", "+0.50"]


def test_the_planted_link_stands_beside_the_measured_one():
    frames = {
        s: debiasing.downstream(
            [tuned_model("none", n, {"accuracy": 0.7, "gap gender": g}) for n, g in enumerate(gaps)]
        )
        for s, gaps in {0.4: [0.14, 0.16, 0.15], 0.8: [0.60, 0.61, 0.62]}.items()
    }
    table = debiasing.planted(frames, {0.4: 0.15, 0.8: 0.4})
    assert table["best classifier's gap, x 100"].tolist() == ["15.0", "40.0"]
    assert [text.split()[0] for text in table["measured gap, x 100"]] == ["15.0", "61.0"]
    assert isinstance(figures.planted_and_measured(frames, {x: x / 2 for x in np.linspace(0, 1, 5)}), Figure)


def test_figures_draw_a_mark_for_every_patch_with_a_size(patches, tuned):
    fig = figures.size_against_bias(patches, tuned, "gender")
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert names == ["$b_q$: 64", "$b_v$: 64", "LoRA (q, v): 800", "full: 5,000"]
    drawn = [{line.get_marker() for line in ax.lines if line.get_ls() == "None"} - {"o"} for ax in fig.axes]
    assert drawn[0] == {"v", "X", "^"} and drawn[1] == {"X", "^"}
    assert {ax.get_xscale() for ax in fig.axes} == {"linear"}
    assert len(figures.axes_of_patches(patches).axes) == 2


def test_an_axis_without_sentences_has_its_rows_and_panels(patches, tuned):
    other = patches.assign(axis=patches["axis"].replace("gender", "religion"))
    assert len(figures.size_against_bias(other, tuned, "religion").axes) == 3
    assert debiasing.table1(other, "religion", 10_000)["patch"].tolist()[0] == "no patch"
    assert figures.axes_of_patches(debiasing.upstream([patch("none", 0, 2.0)]).iloc[:, :5]).axes


def test_runs_that_diverged_are_counted_and_give_no_size():
    lost = patch("b_v", 0, 1.0) | {"outcome": "diverged", "measures": {}, "parameters": {}}
    frame = debiasing.upstream([patch("none", 0, 2.0), lost, patch("b_v", 1, 1.0), patch("b_v", 2, 1.2)])
    table = debiasing.table1(frame, "gender", 10_000).set_index("patch")
    assert table.loc["b_v", "numbers"] == 64 and table.loc["b_v", "nats: gender"].endswith("(2 of 3 seeds)")


def test_patches_that_diverged_before_any_fine_tuning_are_counted_after_it():
    lost = [patch(m, seed, 1.0) | {"outcome": "diverged"} for m, seed in (("b_v", 2), ("lora", 0), ("lora", 1))]
    measures = {"accuracy": 0.8, "gap gender": 0.2}
    done = [tuned_model(m, seed, measures) for m, seed in (("none", 0), ("none", 1), ("b_v", 0), ("b_v", 1))]
    frame = debiasing.downstream(done, [*lost, patch("b_v", 0, 1.0)])
    why = dict.fromkeys(("ghc", "biasbios_to_mnli"), "not run")
    table = debiasing.table2({"biasbios": frame}, why).set_index("patch")["BiasBios-like: accuracy, x 100"]
    assert table["no patch"] == "80.0 [80.0, 80.0]" and table["b_v"] == "80.0 [80.0, 80.0] (2 of 3 seeds)"
    assert table["LoRA (q, v)"] == "2 of 2 seeds lost" and table["full"] == "not run"
    assert debiasing.after(frame, "gender").set_index(["patch", "measure"])["seeds"].tolist() == [0, 0, 2, 2]


def test_false_positive_differences_are_scaled_as_printed():
    posts = debiasing.downstream([tuned_model("none", n, {"f1": 0.7, "fprd": 0.3, "fprd iptts": 0.1}) for n in (0, 1)])
    table = debiasing.table2({"ghc": posts}, {"biasbios": "not run", "biasbios_to_mnli": "not run"})
    assert table["GHC-like: fprd"].iloc[0] == "0.30 [0.30, 0.30]"
    assert table["GHC-like: f1, x 100"].iloc[0] == "70.0 [70.0, 70.0]"
    assert table["GHC-like: fprd"].iloc[1] == "not run: not carried over"


def tried(method, rate, seed, loss, outcome="ok"):
    return {
        "settings": {"method": method, "rate": rate, "seed": seed},
        "measures": {"held-out nats": loss},
        "outcome": outcome,
    }


def test_rates_are_judged_by_what_they_tell_of_held_out_text():
    records = [
        *(tried("lora", 0.01, seed, loss) for seed, loss in enumerate((0.42, 0.40))),
        *(tried("lora", 0.1, seed, loss) for seed, loss in enumerate((0.36, 0.34))),
        tried("lora", 1.0, 0, 0.1),
        tried("lora", 1.0, 1, None, "diverged"),
        *(tried("b_v", rate, 0, loss) for rate, loss in ((0.01, 0.5), (0.1, 0.3), (1.0, 0.4))),
    ]
    frame = debiasing.rates_tried(records, {"lora": 0.01, "b_v": 0.1})
    best = frame[frame["best"]].set_index("patch")["rate"].to_dict()
    assert best == {"lora": 0.1, "b_v": 0.1}  # 1.0 would be, but for the seed that is lost
    chosen = debiasing.rates_chosen(frame).set_index("patch")
    assert chosen.loc["LoRA (q, v)", ["best", "used", "used is best"]].tolist() == ["0.1", "0.01", "no"]
    table = debiasing.rates_table(frame)
    assert list(table["held-out loss, nats"])[0].startswith("0.410 [")
    assert "1 of 2 seeds lost" in set(table["held-out loss, nats"])
    assert list(table["used"]) == ["yes", "", "", "", "yes", ""]


def test_rates_that_are_all_best_are_said_to_be():
    records = [tried("b_v", rate, 0, loss) for rate, loss in ((0.01, 0.5), (0.1, 0.3), (1.0, 0.4))]
    frame = debiasing.rates_tried(records, {"b_v": 0.1})
    assert debiasing.rates_chosen(frame).iloc[0].tolist() == ["b_v", "0.1", "0.1", "yes", "no"]


def test_an_end_of_the_rates_is_said_where_it_is_best():
    records = [tried("b_v", rate, 0, loss) for rate, loss in ((0.01, 0.5), (0.1, 0.3))]
    frame = debiasing.rates_tried(records, {"b_v": 0.1})
    assert debiasing.rates_chosen(frame)["best at an end"].tolist() == ["yes"]


def test_a_rate_whose_records_have_no_loss_on_held_out_text_is_never_best():
    old = tried("b_v", 0.01, 0, 0.1)
    del old["measures"]["held-out nats"]
    frame = debiasing.rates_tried([old, tried("b_v", 0.1, 0, 0.3)], {"b_v": 0.1})
    assert list(frame["best"]) == [False, True] and list(frame["text"]) == ["undefined", "0.300"]


def test_a_patch_that_lost_a_seed_at_every_rate_has_no_best_one():
    frame = debiasing.rates_tried([tried("b_v", rate, 0, None, "diverged") for rate in (0.1, 1.0)], {})
    row = debiasing.rates_chosen(frame).iloc[0].tolist()
    assert row == ["b_v", "every rate lost a seed", "another", "no", "no"]


def test_no_rates_tried_is_an_empty_table():
    assert debiasing.rates_chosen(debiasing.rates_tried([], {})).empty
