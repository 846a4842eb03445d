"""Runs are scored on other tasks as they are after training, and nothing is trained or scored twice."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from small_files import write
from small_sweep import timeless

from beft.errors import BeftError
from beft.experiments import cluster, sweep, transfer
from beft.experiments.context import Context
from beft.models.files import TINY
from beft.records.store import Store
from beft.study import Run, Study

RUNS = [Run("head", 0, 1e-2), Run("b_v", 0, 0.3), Run("b_v", 1, 0.3), Run("full", 0, 1e-2)]
WORDS = {"good": ("superb", "charming", "lovely"), "bad": ("dull", "awful", "tedious")}


def rows(aspects, flip=False, negative=1.0):
    """Sentences of both classes about some aspects, of the negative ones a share."""
    other = {"good": "bad", "bad": "good"}
    made = [
        {"text": f"the {aspect} was {word}", "label": other[label] if flip else label}
        for label, words in WORDS.items()
        for aspect in aspects
        for word in words
    ]
    kept = int(len(made) / 2 * (1 + negative))
    return made[:kept]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of tasks: `films`; its validation rows again as `same`, and with the labels changed as `opposite`."""
    folder = tmp_path_factory.mktemp("tasks")
    train, held_out = rows(("plot", "ending", "cover", "menu")), ("soup", "bed", "view", "guide")
    for name, flip in (("films", False), ("same", False), ("opposite", True)):
        write(folder / name / "train.csv", train)
        write(folder / name / "validation.csv", rows(held_out, flip, negative=0.5))
    write(folder / "others" / "train.csv", [row | {"label": row["label"] + "!"} for row in train])
    write(folder / "others" / "validation.csv", [row | {"label": row["label"] + "!"} for row in rows(held_out)])
    pairs = [{"text_a": row["text"], "text_b": row["text"], "label": row["label"]} for row in train]
    write(folder / "pairs.csv", pairs)
    write(folder / "elsewhere" / "same.csv", train)
    write(folder / "values.csv", [{"text": row["text"], "label": i + 0.5} for i, row in enumerate(train)])
    return folder


@pytest.fixture(scope="module")
def study(tasks):
    return Study(
        TINY, str(tasks / "films"), "all", epochs=4, batch_size=8, max_length=16, validate="last", offline=True
    )


@pytest.fixture(scope="module")
def targets(tasks):
    return [str(tasks / "same"), str(tasks / "opposite")]


def noted(patch):
    """{(method, seed): logits} of the last target that is scored."""
    seen, logits = {}, transfer.logits

    def note(bank, *rest):
        values = logits(bank, *rest)
        seen.update(zip(zip(bank.methods, bank.seeds.tolist()), values))
        return values

    patch.setattr(transfer, "logits", note)
    return seen


@pytest.fixture(scope="module")
def trained(study, targets, tmp_path_factory):
    """The runs trained and scored, in a store of their own: (store, records, logits)."""
    store = Store(tmp_path_factory.mktemp("results"))
    with pytest.MonkeyPatch.context() as patch:
        seen = noted(patch)
        return store, transfer.transfer_all([(study, RUNS)], targets, store, progress=False)[0], seen


@pytest.fixture
def scored(trained):
    return trained[:2]


@pytest.fixture(scope="module")
def swept(study, tmp_path_factory):
    """The same runs trained by a sweep: (store, records)."""
    store = Store(tmp_path_factory.mktemp("swept"))
    return store, sweep.run(study, RUNS, store, progress=False)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


@pytest.fixture
def banks(monkeypatch):
    """The methods of every bank that is trained, and a way to break off."""
    seen, fit = [], sweep.fit

    def counted(loaded, data, study, runs, **more):
        seen.append([run.method for run in runs])
        return fit(loaded, data, study, runs, **more)

    monkeypatch.setattr(sweep, "fit", counted)
    return seen


def go(study, targets, store, runs=RUNS):
    return transfer.transfer_all([(study, runs)], targets, store, progress=False)[0]


def untimed(records):
    return [{k: v for k, v in r.items() if k not in ("seconds", "checksum")} for r in records]


def test_a_run_is_scored_on_other_tasks_as_it_is_after_its_last_epoch(scored):
    _, records = scored
    assert [(r["settings"]["method"], r["settings"]["seed"]) for r in records] == [(r.method, r.seed) for r in RUNS]
    for r in records:
        own, same, opposite = r["source"], r["targets"]["same"], r["targets"]["opposite"]
        assert own["classes"] == same["classes"] == [6, 12] and opposite["classes"] == [12, 6]
        assert own["majority"] == same["majority"] == opposite["majority"] == pytest.approx(12 / 18)
        right = [n * recall for n, recall in zip(same["classes"], same["recalls"], strict=True)]
        assert sum(right) / 18 == pytest.approx(own["score"])
        assert same["score"] == own["score"] and opposite["score"] == pytest.approx(1 - own["score"])
        assert sum(r["parameters"].values()) > 0 and r["outcome"] == "ok"
    assert records[3]["source"]["score"] > 0.9 and len({r["source"]["score"] for r in records}) > 1
    assert records[0]["settings"]["targets"].keys() == {"same", "opposite"}


def test_the_runs_get_the_records_of_a_sweep(scored, swept):
    ordinary = {r["key"]: timeless(r) for r in scored[0].all("run")}
    assert ordinary == {r["key"]: timeless(r) for r in swept[1]}


def test_nothing_is_trained_or_scored_again(scored, study, targets, banks):
    kept, records = scored
    before = {p.name: p.stat().st_mtime_ns for p in kept.folder.glob("*.json")}
    assert go(study, targets, kept) == records
    assert banks == [] and before == {p.name: p.stat().st_mtime_ns for p in kept.folder.glob("*.json")}


def test_a_run_whose_adapter_is_kept_is_loaded_and_scores_the_same(trained, swept, study, targets, banks, monkeypatch):
    seen = noted(monkeypatch)
    assert untimed(go(study, targets, swept[0])) == untimed(trained[1])
    assert banks == [["full"]]
    assert seen.keys() == trained[2].keys() == {(run.method, run.seed) for run in RUNS}
    for run, logits in trained[2].items():
        assert torch.allclose(seen[run], logits, atol=1e-6)
    head, tuned = trained[2]["head", 0], trained[2]["b_v", 0]
    assert not torch.allclose(head, tuned, atol=0.02)


def test_an_interrupt_while_scoring_costs_an_epoch_and_the_rest_goes_on(scored, study, targets, store, monkeypatch):
    runs, train_epoch, epochs = RUNS[1:3], sweep.fit.__globals__["train_epoch"], []

    def interrupted(*_):
        raise KeyboardInterrupt

    def counted(*args):
        epochs.append(args[4])
        return train_epoch(*args)

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "score_targets", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go(study, targets, store, runs)
    assert len(store.all("run")) == 2 and not store.all("transfer")
    for name in store.folder.glob("adapters/*"):  # not even by these
        name.rename(store.folder / name.name)
    monkeypatch.setitem(sweep.fit.__globals__, "train_epoch", counted)
    assert untimed(go(study, targets, store, runs)) == untimed(scored[1][1:3])
    assert epochs == [4]


def test_a_run_that_was_lost_has_no_scores_and_is_not_trained_for_them(study, targets, store, banks):
    runs = [Run("full", 0, 1e30)]
    (record,) = go(study, targets, store, runs)
    assert record["outcome"].startswith("diverged") and record["source"]["score"] is None
    assert record["targets"]["same"]["score"] is None
    banks.clear()
    (record,) = go(study, targets[:1], store, runs)
    assert record["outcome"].startswith("diverged") and banks == []


def test_workers_write_the_same_records(scored, study, targets, store, monkeypatch):
    cloudpickle = pytest.importorskip("cloudpickle")

    def run_each(address, work, tasks, location):
        for i, task in enumerate(tasks):
            work = pickle.loads(cloudpickle.dumps(work))
            assert work.__name__ == "_score_on_worker"  # in the names of Dask's tasks
            yield i, work(*task, location, torch.get_num_threads())

    monkeypatch.setattr(cluster, "run_each", run_each)
    (there,) = transfer.transfer_all([(study, RUNS[:3])], targets, store, progress=False, scheduler="local:1")
    assert untimed(there) == untimed(scored[1][:3])


@pytest.mark.parametrize(
    ("source", "wanted", "says"),
    [
        ("films", ["same", "others"], "target others has the classes bad!, good!, and films bad, good"),
        ("films", ["values.csv"], "target values has values and no classes, and films bad, good"),
        ("films", ["pairs.csv"], "a row of target pairs has 2 texts, and one of films 1"),
        ("films", ["films"], "target films is what the runs are trained on"),
        ("films", ["same", "elsewhere/same.csv"], "target same is given twice"),
        ("films", [], "targets .* are no list of tasks"),
        ("values.csv", ["same"], "values has values and no classes: give a task with classes"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(source, wanted, says, study, tasks, store):
    with pytest.raises(BeftError, match=says):
        go(replace(study, task=str(tasks / source)), [str(tasks / name) for name in wanted], store)
    assert not store.folder.exists()


def test_the_validation_file_of_the_source_is_not_that_of_the_targets(tasks, study):
    films = {name: str(tasks / "films" / f"{name}.csv") for name in ("train", "validation")}
    source = Context(replace(study, task=films["train"], validation=films["validation"]))
    target = transfer.targets_of(source, [str(tasks / "same")])["same"]
    assert target.validation.rows == source.data.validation.rows and "same/validation.csv" in target.source


def test_an_unknown_target_and_a_prompted_source_are_refused(study, targets, store):
    with pytest.raises(BeftError, match="unknown task 'tweet_sentimen'"):
        go(study, ["tweet_sentimen"], store)
    with pytest.raises(BeftError, match="are no list of tasks"):
        go(study, targets[0], store)
    prompted = replace(study, model="tiny-llama", task="microworld_sentiment", prompted=True, regime=8)
    with pytest.raises(BeftError, match="is prompted here"):
        go(prompted, targets, store)
