"""Cells of a profile: what they inherit, what they expand to, and what is refused."""

from __future__ import annotations

import pytest

from beft.errors import BeftError
from beft.experiments import sweep
from beft.experiments.grid import at_chosen_rates, at_hand, cells, jobs, not_run, rate_trials
from beft.settings import profiles as settings
from beft.study import Run

NOTEBOOK = "03_fine_tuning"


def load(**given):
    return settings.load(NOTEBOOK, {"profile": "smoke", **given})


def test_a_cell_inherits_what_it_does_not_say():
    (cell,) = cells(load(cells=[{"task": "microworld_similarity"}]))
    s = load()
    study = cell.study
    assert (study.task, study.model, study.regime) == ("microworld_similarity", s["model"], s["regime"])
    assert (study.epochs, study.batch_size, study.tuning) == (s["epochs"], s["batch_size"], s["held_out"])
    assert (cell.seeds, cell.rate, study.validate) == (tuple(s["seeds"]), s["rate"], "last")
    assert cell.exact().dtype == "float32"
    assert str(cell) == f"microworld_similarity, {s['regime']}, {s['model']}"  # in captions


def test_a_cell_may_have_a_precision_and_a_tuning_split_of_its_own():
    own, usual = cells(load(cells=[{"regime": 8, "dtype": "bfloat16", "held_out": 0.5}, {"regime": 9}]))
    assert (own.study.dtype, own.study.tuning) == ("bfloat16", 0.5)
    assert (usual.study.dtype, usual.study.tuning) == (load()["dtype"], load()["held_out"]) == ("float32", 0.25)


def test_a_cell_may_have_rates_by_method_and_fewer_validation_rows():
    own, usual = cells(load(cells="[{rate: 0.01, rates: {b_q: 0.03}, evaluated: 8}, {rate: 0.01, regime: 9}]"))
    assert [run.rate for run in own.runs(["b_q", "b_v"]) if run.seed == 0] == [0.03, 0.01]
    assert [run.rate for run in usual.runs(["b_q", "b_v"]) if run.seed == 0] == [0.01, 0.01]
    assert own.study.evaluated == 8 and usual.study.evaluated == load().study().evaluated
    with pytest.raises(BeftError, match="unknown method 'b_w'"):
        load(cells="[{rates: {b_w: 0.1}}]")
    with pytest.raises(BeftError, match="evaluated in a cell must be a whole number of at least 1"):
        load(cells="[{evaluated: 0}]")


def test_lists_of_models_tasks_and_regimes_are_every_combination():
    text = "[{task: [rte, cola], regime: [low, 50], model: [a, b], seeds: [3], rate: 1e-2, epochs: 4}]"
    found = cells(load(cells=text))
    assert len(found) == 8
    assert {(c.study.model, c.study.task, c.study.regime) for c in found} == {
        (m, t, r) for m in "ab" for t in ("rte", "cola") for r in ("low", 50)
    }
    assert {(c.seeds, c.rate, c.study.epochs) for c in found} == {((3,), 0.01, 4)}


def test_a_cell_may_leave_out_methods_of_the_notebook_trials_of_rates_included():
    text = "[{regime: 8, rate: chosen, methods: [b_v, head]}, {regime: 9, rate: chosen}]"
    s = load(cells=text, rates=[0.1], rate_seeds=[0], rate_methods=["head", "b_q", "b_v"])
    some, every = cells(s)
    methods = ["head", "b_q", "b_v"]
    assert [list(dict.fromkeys(r.method for r in c.runs(methods))) for c in (some, every)] == [["head", "b_v"], methods]
    (_, few), (_, all_of_them) = rate_trials(s, [some, every], methods)
    assert [[r.method for r in runs] for runs in (few, all_of_them)] == [["head", "b_v"], methods]
    with pytest.raises(BeftError, match="unknown method 'b_w'"):
        load(cells="[{methods: [b_w]}]")


def test_a_task_regime_and_model_that_are_there_twice_are_refused():
    text = "[{regime: [8, 9]}, {regime: 9, seeds: [7], evaluated: 5}]"
    with pytest.raises(BeftError, match="cells has .*, 9, .* twice: one entry per task, regime and model"):
        cells(load(cells=text))  # seeds scored on other rows would be in the same mean


def test_cells_that_are_not_run_have_no_study_and_a_row_with_the_reason():
    s = load(cells='[{task: sst2}, {task: [rte, cola], model: a/b, regime: 50, not_run: "an hour each"}]')
    assert [cell.study.task for cell in cells(s)] == ["sst2"]
    assert not_run(s) == [
        {"model": "a/b", "task": task, "regime": "50", "reason": "an hour each"} for task in ("rte", "cola")
    ]
    assert not_run(load(task="microworld_similarity", rate=0.5)) == []
    with pytest.raises(BeftError, match="every cell of cells says not_run"):
        cells(load(cells=[{"not_run": "no time"}]))


def test_paper_means_the_papers_rate_and_epochs_for_task_and_model():
    text = "[{task: [rte, sst2], model: [bert-base-cased, roberta-base], rate: paper, epochs: paper}]"
    found = {(c.study.task, c.study.model): (c.rate, c.study.epochs) for c in cells(load(cells=text))}
    assert found == {
        ("rte", "bert-base-cased"): (1e-3, 30),
        ("rte", "roberta-base"): (1e-3, 30),
        ("sst2", "bert-base-cased"): (4e-4, 16),
        ("sst2", "roberta-base"): (4e-4, 30),
    }


def test_of_ones_own_file_paper_means_the_notebooks_values():
    (cell,) = cells(load(cells=[{"task": "mine.csv", "rate": "paper", "epochs": "paper"}]))
    assert (cell.rate, cell.study.epochs) == (load()["rate"], load()["epochs"])


def test_cells_of_language_models_have_the_papers_rate_of_the_prompted_task():
    given = {"cells": "[{task: [sst2, cb, copa], rate: paper, epochs: paper}]"}
    s = settings.load("04_bias_free_injection", {"profile": "smoke", **given})
    found = cells(s, prompted=True)
    assert [(c.study.task, c.rate, c.study.epochs) for c in found] == [
        ("sst2", 1e-3, 5),
        ("cb", 1e-2, 5),
        ("copa", 1e-4, 5),
    ]
    assert {(c.study.prompted, c.study.schedule, c.study.validate) for c in found} == {(True, "linear", "last")}


@pytest.mark.parametrize(
    "given",
    [{"validation": "dev.csv"}, {"template": "{text} {label}"}, {"labels": "{pos: good}", "template": "{a}{label}"}],
)
def test_a_prompt_of_ones_own_leaves_one_cell_of_it(given):
    s = settings.load("04_bias_free_injection", {"profile": "smoke", "task": "mine.csv", "cells": None, **given})
    (cell,) = cells(s, prompted=True)
    assert (cell.study.validation, cell.study.template) == (given.get("validation"), given.get("template"))
    assert cell.study.labels == ({"pos": "good"} if "labels" in given else None)


def test_what_belongs_to_one_file_is_not_given_to_another():
    given = {"task": "mine.csv", "template": "{text} {label}", "validation": "dev.csv"}
    text = '[{}, {task: [copa, cb]}, {task: b.csv, template: "{a} {label}", labels: {1: good}, validation: none}]'
    s = settings.load("04_bias_free_injection", {"profile": "smoke", "cells": text} | given)
    found = [(c.study.task, c.study.template, c.study.labels, c.study.validation) for c in cells(s, prompted=True)]
    assert found == [
        ("mine.csv", "{text} {label}", None, "dev.csv"),
        ("copa", None, None, None),
        ("cb", None, None, None),
        ("b.csv", "{a} {label}", {"1": "good"}, None),
    ]


def test_methods_may_have_rates_of_their_own():
    s = load(cells=[{"task": "rte", "seeds": [0, 1]}], method_rates="{full: 1e-5}", rate=1e-2)
    (job,) = jobs(cells(s), ["b_v", "full"])
    assert job[1] == [Run("b_v", 0, 1e-2), Run("b_v", 1, 1e-2), Run("full", 0, 1e-5), Run("full", 1, 1e-5)]


@pytest.mark.parametrize("given", [{"task": "mine.csv"}, {"rate": 0.5}, {"seeds": [7]}, {"epochs": 9}])
def test_other_main_settings_leave_one_cell_of_those_settings(given):
    s = load(**given)
    for name in ("cells", "size_cells", "baseline_cells"):
        (cell,) = cells(s, name)
        assert cell.study == s.study(tuning=s["held_out"], validate="last")
        assert (cell.seeds, cell.rate) == (tuple(s["seeds"]), s["rate"])
    assert len(cells(load(**given, cells=[{"regime": [10, 20]}]))) == 2


def test_other_main_settings_leave_no_transfer_unless_targets_are_given():
    mine = {"task": "mine.csv", "rate": 0.5}
    assert [cell.study.task for cell in cells(load(), "transfer_cells")] == ["microworld_sentiment"]
    assert cells(load(**mine), "transfer_cells") == [] == cells(load(**mine), "long_cells")
    assert [cell.study.epochs for cell in cells(load(), "long_cells")] == [3]
    (cell,) = cells(load(**mine, transfer_targets="[tweets.csv]"), "transfer_cells")
    assert (cell.study.task, cell.rate) == ("mine.csv", 0.5)
    assert [cell.rate for cell in cells(load(**mine, transfer_cells=[{"rate": 0.25}]), "transfer_cells")] == [0.25]


def test_every_profile_lists_cells_that_are_studies_of_known_tasks():
    from beft.data.tasks import TASKS

    for profile in settings.profile_names():
        for notebook in ("02_ranking", NOTEBOOK):
            found = cells(settings.load(notebook, {"profile": profile}))
            assert found and all(c.study.task in TASKS and c.seeds for c in found)


@pytest.mark.parametrize("notebook", [NOTEBOOK, "04_bias_free_injection"])
def test_confirming_cells_have_rates_of_their_own_and_no_seed_of_a_cell_that_chooses(notebook):
    prompted = notebook != NOTEBOOK
    for profile in settings.profile_names():
        s = settings.load(notebook, {"profile": profile})
        confirming = cells(s, "confirming_cells", prompted)
        assert bool(confirming) == (profile in ("smoke", "laptop"))
        for again in confirming:
            place = (again.study.model, again.study.task)
            before = [c for c in cells(s, prompted=prompted) if (c.study.model, c.study.task) == place]
            chose = {seed for c in before for seed in (*c.seeds, *(c.rate_seeds or s["rate_seeds"]))}
            assert before and not again.chosen and not chose & {*again.seeds}
    mine = settings.load(notebook, {"profile": "smoke", "rate": 0.5})
    assert cells(mine, "confirming_cells", prompted) == []  # those of the profile belong to its own cells


@pytest.mark.parametrize("name", ["long_cells", "step_cells", "form_cells", "confirming_cells"])
def test_rates_to_be_chosen_are_refused_in_lists_where_none_are(name):
    with pytest.raises(BeftError, match=f"no rates are chosen for {name}: give rate as a number or `paper`"):
        cells(load(**{name: "[{regime: 8, rate: chosen}]"}), name)
    for other in ("cells", "transfer_cells", "baseline_cells", "size_cells"):
        assert cells(load(**{other: "[{regime: 8, rate: chosen}]"}), other)[0].chosen


@pytest.mark.parametrize("seed", [3, 5, 7])  # of the cell, of its choice of rates, of the notebook's
def test_confirming_cells_with_a_seed_that_chose_something_are_refused(seed):
    before = "[{task: rte, rate: chosen, seeds: [3], rate_seeds: [5]}, {task: cola, seeds: [4, 6]}]"
    given = {"cells": before, "rate_seeds": [7]}
    (again,) = cells(load(**given, confirming_cells="[{task: rte, seeds: [4, 6, 8]}]"), "confirming_cells")
    assert again.seeds == (4, 6, 8)
    with pytest.raises(BeftError, match=f"confirming_cells, rte, .*: seeds {seed} are in cells or chose rates"):
        cells(load(**given, confirming_cells=f"[{{task: rte, seeds: [{seed}, 8]}}]"), "confirming_cells")


@pytest.mark.parametrize(
    "given, says",
    [
        ("[{tasks: rte}]", "unknown setting of a cell 'tasks': did you mean task"),
        ("[]", "cells in the parameters must be a list of cells"),
        ("rte", "cells in the parameters must be a list of cells"),
        ("[{epochs: 0}]", "epochs in a cell must be a whole number of at least 1 or `paper`, not 0"),
        ("[{rate: fast}]", "rate in a cell must be a positive number, `paper` or `chosen`, not 'fast'"),
        ("[{regime: -3}]", "regime in a cell must be a regime"),
        ("[{task: rte, not_run: }]", "not_run in a cell must be the reason in words"),
        ("[{task: }]", "task in a cell must be a name"),
        ("[{", "cells in the parameters must be a list of cells"),
    ],
)
def test_a_bad_cell_is_one_sentence(given, says):
    with pytest.raises(BeftError, match=says):
        load(cells=given)


@pytest.mark.parametrize("given", ["{ful: 1e-5}", "{full: -1}", "full"])
def test_bad_rates_by_method_are_refused(given):
    with pytest.raises(BeftError, match="method_rates in the parameters|unknown method"):
        load(method_rates=given)


def test_cells_and_rates_are_told_in_a_command_that_gives_them_again():
    import shlex

    text = "[{task: [rte], regime: [low, 9], rate: 0.5}]"
    s = load(cells=text, method_rates="{full: 0.25}")
    words = shlex.split(s.command)
    given = {words[i + 1]: words[i + 2] for i, w in enumerate(words) if w == "-p"}
    again = load(**given)
    assert again.values == s.values and again.figures == s.figures
    assert "{task: rte, regime: low, 9, rate: 0.5}" in repr(s)


def test_rates_are_tried_on_a_held_out_share_for_as_many_epochs_as_are_reported():
    given = {"rates": [0.1, 0.2], "rate_grids": "{lora: [1e-3]}", "rate_seeds": [5], "tuning": 0.3}
    cell_list = "[{task: rte, rate: chosen, epochs: 7}, {task: cola}]"
    s = load(cells=cell_list, rate_methods=["head", "b_v", "lora"], **given)
    found = cells(s)
    assert [cell.chosen for cell in found] == [True, False] and found[0].rate == s["rate"]
    (study, runs), (_, none) = rate_trials(s, found, ["head", "b_k", "b_v", "lora"])
    assert (study.task, study.epochs, study.tuning, study.validate) == ("rte", 7, 0.3, "last")
    assert runs == [Run(m, 5, r) for m in ("head", "b_v") for r in (0.1, 0.2)] + [Run("lora", 5, 1e-3)]
    assert none == []


def test_a_cell_may_let_seeds_of_its_own_choose_its_rates():
    text = "[{regime: 8, rate: chosen, rate_seeds: [1, 2]}, {regime: 9, rate: chosen}]"
    s = load(cells=text, rates=[0.1, 0.2], rate_seeds=[5], rate_methods=["b_v"])
    (_, own), (_, usual) = rate_trials(s, cells(s), ["b_v"])
    assert own == [Run("b_v", seed, rate) for rate in (0.1, 0.2) for seed in (1, 2)]
    assert usual == [Run("b_v", 5, rate) for rate in (0.1, 0.2)]


def test_each_method_is_reported_at_its_chosen_rate_and_an_untried_key_bias_at_that_of_the_head(monkeypatch):
    asked = []
    monkeypatch.setattr(sweep, "run_all", lambda jobs, store: asked.append(jobs) or [["r0"], []])
    s = load(cells="[{task: [rte, cola], rate: chosen, seeds: [1]}]", method_rates="{full: 1e-5}", rate=0.5)
    methods = ["head", "b_k", "b_v", "b_q", "full"]
    choices = [{"head": 0.1, "b_v": 0.2}, {"head": 0.1, "b_k": 0.3}]
    found, trials = at_chosen_rates(s, cells(s), methods, lambda records: choices if records == [["r0"], []] else None)
    assert trials == ["r0"] and asked == [rate_trials(s, cells(s), methods)]
    rates = {run.method: run.rate for run in found[0].runs(methods)}
    assert rates == {"head": 0.1, "b_k": 0.1, "b_v": 0.2, "b_q": 0.5, "full": 1e-5}
    assert found[1].runs(["b_k"]) == [Run("b_k", 1, 0.3)]


@pytest.mark.parametrize("notebook, rows", [("04_bias_free_injection", 200), (NOTEBOOK, 500)])
def test_cells_score_as_many_validation_rows_as_are_asked_for(notebook, rows):
    from beft.experiments.context import Context

    found = {}
    for evaluated in ("paper", 50):
        s = settings.load(notebook, {"profile": "smoke", "evaluated": evaluated})
        found[evaluated] = Context(cells(s, prompted=rows == 200)[0].study)
    assert [len(context.data.validation) for context in found.values()] == [rows, 50]
    names = [set(context.common()) for context in found.values()]
    assert names[1] - names[0] == {"evaluated"}  # records of before keep their keys
    assert set(found[50].data.validation.rows) <= set(found["paper"].data.validation.rows)


def test_cells_without_rows_are_told_apart_with_the_reason_and_without_a_path(monkeypatch, tmp_path):
    (tmp_path / "glue" / "rte").mkdir(parents=True)  # there is a folder: what is in it is read when it is run
    monkeypatch.setenv("BEFT_DATA", str(tmp_path))
    given = {"cells": "[{task: [rte, wsc, microworld_choices], regime: low}]", "offline": True}
    listed = cells(settings.load("04_bias_free_injection", {"profile": "smoke", **given}), prompted=True)
    found, absent = at_hand(listed)
    assert [cell.study.task for cell in found] == ["rte", "microworld_choices"]
    reason = "no rows of super_glue/wsc.fixed at hand"
    assert absent == [{"model": "tiny-llama", "task": "wsc", "regime": "low", "reason": reason}]
    assert at_hand(listed[1:2]) == (listed[1:2], [])  # of nothing at hand, the run says what to do
