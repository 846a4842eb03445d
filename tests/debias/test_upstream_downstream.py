"""PEFTDebias, both phases, on a small random model: patches of one bank, records, resuming, frozen patches."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_models import folder_of, small
from peft import PeftModel

from beft.data.counterfactual import augment, axis
from beft.data.datasets import text_dataset
from beft.data.grouped import micro_biographies
from beft.data.microworld.biographies import biographies
from beft.data.microworld.people import AXES, stereotype_pairs, stereotype_triples
from beft.debias import downstream, upstream
from beft.debias.bias_metrics import of_biographies, of_posts
from beft.debias.patches import FILE
from beft.debias.stereotypes import intrinsic
from beft.errors import BeftError
from beft.models import loading as models
from beft.records.schema import key
from beft.records.store import Store
from beft.study import PATCHES, Run, Study

STUDY = Study(model="small", task="people", regime="all", epochs=1, batch_size=8, max_length=32, validate="last")
RATES = {"full": 0.003, "sparse": 0.003}
RUNS = [Run(m, 0, RATES.get(m, 0.03)) for m in PATCHES if m not in ("b_k", "prefix")]  # a prefix is a decoder's


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a masked language model."""
    return folder_of(small(), tmp_path_factory.mktemp("model") / "small")


def phase_of(base, **changes):
    loaded = models.load_masked(str(base))
    texts = [b.text for b in biographies("train", 12, 0.5)]
    corpus = text_dataset("people", augment(texts, axis("gender")).texts, texts[:4], "generated", True)
    measure, measured = intrinsic(
        loaded.tokenizer,
        {name: stereotype_pairs(name, 6) for name in AXES},
        {"gender": stereotype_triples("gender", 4)},
    )
    return upstream.Phase(loaded, corpus, "gender", replace(STUDY, **changes), measure, measured)


def tuning_of(base):
    rows = micro_biographies(40, 30, 0.8)
    measure = of_biographies(rows.data.validation.labels, {"gender": rows.groups["validation"]})
    loaded = models.load(str(base), labels=len(rows.data.task.labels))
    study = replace(STUDY, task="microworld_biographies", regime=24, max_length=48)
    return downstream.Tuning(loaded, rows.data, study, measure, "gap of gender")


def test_every_patch_has_a_record_with_its_measures_and_its_file(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    records = upstream.train_patches(phase, RUNS, store, progress=False)
    assert [r["settings"]["method"] for r in records] == [r.method for r in RUNS]
    for run, record in zip(RUNS, records, strict=True):
        assert record["outcome"] == "ok" and set(record["measures"]["crows"]) == set(AXES)
        assert 0 <= record["measures"]["stereoset"]["gender"]["lm"] <= 100
        assert record["measures"]["held-out nats"] > 0
        patch = upstream.patch(phase, run, store)
        assert patch.sha256() == record["patch"]["sha256"] and patch.size == record["parameters"]["patch"]
    size = {r["settings"]["method"]: r["parameters"]["patch"] for r in records}
    assert size["b_v"] == size["b_q"] == 2 * 32 and size["sparse"] == size["lora"] == 2 * 2 * 8 * (32 + 32)
    assert size["full"] == sum(p.numel() for p in phase.loaded.model.parameters()) > size["all_biases"]
    assert len(store.all("patch")) == len(RUNS)


def test_what_is_recorded_is_not_trained_again_and_a_lost_file_is(base, tmp_path, monkeypatch):
    phase, store = phase_of(base), Store(tmp_path)
    first = upstream.train_patches(phase, RUNS[:2], store, progress=False)
    monkeypatch.setattr(upstream, "fit", lambda *a, **k: pytest.fail("it was trained again"))
    assert upstream.train_patches(phase, RUNS[:2], store, progress=False) == first
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "adapters")
    again = upstream.patch(phase, RUNS[0], store)
    assert again.sha256() == first[0]["patch"]["sha256"]  # trained in the company it had, to the last bit
    assert again.method == RUNS[0].method and upstream.train_patches(phase, RUNS[:2], store) == first
    for file in (tmp_path / "adapters").rglob(FILE):
        file.write_bytes(file.read_bytes()[:-8])  # cut short is as good as lost
    assert upstream.patch(phase, RUNS[0], store).sha256() == first[0]["patch"]["sha256"]


def test_the_file_of_a_patch_has_pefts_form_beside_it(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    run = Run("b_v", 0, 0.03)
    upstream.train_patches(phase, [run], store, progress=False)
    folder = store.fetch(key(phase.settings(run)))
    inputs = phase.loaded.tokenizer("the engineer said that she", return_tensors="pt")
    with torch.no_grad():
        wrapped = PeftModel.from_pretrained(models.load_masked(str(base)).model, str(folder)).eval()
        said = wrapped(**inputs).logits
        upstream.patch(phase, run, store).put(phase.loaded.model)
        assert torch.allclose(said, phase.loaded.model(**inputs).logits, atol=1e-5)


def test_an_interrupted_bank_goes_on_where_it_was(base, tmp_path, monkeypatch):
    phase, store = phase_of(base, epochs=3), Store(tmp_path / "one")
    whole = upstream.train_patches(phase, RUNS[:3], Store(tmp_path / "other"), progress=False)
    scores, seen = upstream.MaskedTokens.scores, []

    def stop(self, bank, validate, last, cost):
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return scores(self, bank, validate, last, cost)

    monkeypatch.setattr(upstream.MaskedTokens, "scores", stop)
    with pytest.raises(KeyboardInterrupt):
        upstream.train_patches(phase, RUNS[:3], store, progress=False)
    assert store.all("patch") == []
    monkeypatch.setattr(upstream.MaskedTokens, "scores", scores)
    again = upstream.train_patches(phase, RUNS[:3], store, progress=False)
    assert [r["patch"]["sha256"] for r in again] == [r["patch"]["sha256"] for r in whole]  # to the last bit
    assert not list((tmp_path / "one" / "checkpoints").glob("*.safetensors"))


def test_a_bank_that_stopped_between_two_records_is_gone_on_with_as_a_whole(base, tmp_path, monkeypatch):
    phase, store = phase_of(base, epochs=2), Store(tmp_path / "one")
    whole = upstream.train_patches(phase, RUNS[:3], Store(tmp_path / "other"), progress=False)
    keep, kept = upstream._keep, []

    def stop(*arguments):
        if len(kept) == 1:
            raise KeyboardInterrupt
        kept.append(keep(*arguments))

    monkeypatch.setattr(upstream, "_keep", stop)
    with pytest.raises(KeyboardInterrupt):
        upstream.train_patches(phase, RUNS[:3], store, progress=False)
    monkeypatch.setattr(upstream, "_keep", keep)
    again = upstream.train_patches(phase, RUNS[:3], store, progress=False)
    assert len(store.all("patch")) == 3
    assert [r["bank"]["of"] for r in again] == [r["bank"]["of"] for r in whole]
    assert [r["patch"]["sha256"] for r in again] == [r["patch"]["sha256"] for r in whole]


def test_the_model_as_it_is_is_measured_once(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    record = upstream.untouched(phase, store)
    assert record["settings"]["method"] == "none" and record["parameters"] == {}
    assert upstream.untouched(replace(phase, measure=lambda *a: pytest.fail("measured again")), store) == record
    measure, _ = intrinsic(phase.loaded.tokenizer, {"gender": stereotype_pairs("gender", 6)}, {})
    assert measure(phase.loaded.model, 0)["crows"]["gender"] == record["measures"]["crows"]["gender"]


def test_sparse_trains_the_entries_that_moved_most(base):
    phase = phase_of(base)
    chosen = upstream.most_moved(phase, Run("sparse", 0, 0.003))
    assert sum(map(len, chosen.values())) == 2 * 2 * 8 * 64
    assert all(name.startswith("bert.encoder.layer.") for name in chosen)
    for name, places in chosen.items():
        assert (
            len(set(places.tolist())) == len(places) and places.max() < phase.loaded.model.get_parameter(name).numel()
        )


def test_a_rate_that_diverges_is_recorded_and_the_others_are_untouched(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    runs = [Run("b_v", 0, 1e30), Run("b_v", 1, 0.03)]
    lost, kept = upstream.train_patches(phase, runs, store, progress=False)
    assert lost["outcome"].startswith("diverged") and lost["measures"] == {} and kept["outcome"] == "ok"
    with pytest.raises(BeftError, match="b_v patch of seed 0 diverged"):
        upstream.patch(phase, runs[0], store)


def test_downstream_the_patch_is_frozen_and_the_predictions_are_measured(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    runs = [RUNS[1], next(r for r in RUNS if r.method == "lora"), next(r for r in RUNS if r.method == "full")]
    records = upstream.train_patches(phase, runs, store, progress=False)
    wanted = [downstream.Patched("none", 0)]
    for run, record in zip(runs, records, strict=True):
        wanted.append(downstream.Patched(run.method, 0, record["key"], lambda r=run: upstream.patch(phase, r, store)))
    tuning = tuning_of(base)
    done = downstream.fine_tune(tuning, wanted, 0.003, store, progress=False)
    assert [r["settings"]["method"] for r in done] == ["none", *(r.method for r in runs)]
    for record in done:
        assert 0 <= record["measures"]["accuracy"] <= 1 and "gap gender" in record["measures"]
        assert record["epochs"][-1]["validation"] is None  # the test split is read once, by the measures
    assert done[0]["patch"] == {} and done[3]["patch"]["frozen"] is False
    for record, patch in zip(done[1:3], records, strict=False):
        assert record["patch"]["before"] == record["patch"]["after"] and record["patch"]["frozen"]
        assert record["patch"]["sha256"] == patch["patch"]["sha256"]
    assert downstream.fine_tune(tuning, wanted, 0.003, store, progress=False) == done
    alone = Store(tmp_path / "again")
    (again,) = downstream.fine_tune(tuning, wanted[:1], 0.003, alone, progress=False)
    assert again["measures"] == done[0]["measures"] and again["epochs"] == done[0]["epochs"]  # to the last bit


def test_a_patch_that_moved_is_an_error(base, tmp_path, monkeypatch):
    phase, store = phase_of(base), Store(tmp_path)
    (record,) = upstream.train_patches(phase, RUNS[:1], store, progress=False)
    hashes = iter(["one", "another"])
    monkeypatch.setattr(downstream, "fingerprint", lambda *a: next(hashes))
    wanted = downstream.Patched("b_q", 0, record["key"], lambda: upstream.patch(phase, RUNS[0], store))
    with pytest.raises(BeftError, match="the b_q patch moved while"):
        downstream.fine_tune(tuning_of(base), [wanted], 0.003, store, progress=False)
    assert store.all("debias") == []


def test_the_measures_are_those_of_the_predictions():
    labels, groups = (
        np.array([0, 0, 1, 1]),
        {"gender": np.array([0, 1, 0, 1]), "origin": np.array([0, 0, 0, 0])},
    )
    found = of_biographies(labels, groups)(np.array([0, 1, 1, 1]))
    assert found["accuracy"] == 0.75 and found["gap gender"] == pytest.approx(np.sqrt(0.5))
    assert np.isnan(found["gap origin"])  # a group that is absent: undefined, and not zero
    posts = of_posts(np.array([0, 0, 1]), [["a"], ["b"], []])(np.array([1, 0, 1]))
    assert posts == {"f1": pytest.approx(2 / 3), "fprd": 1.0}


def test_a_method_that_makes_no_patch_is_named(base, tmp_path):
    with pytest.raises(BeftError, match="unknown patch 'mask'.*valid: b_q"):
        upstream.train_patches(phase_of(base), [Run("mask", 0, 0.1)], Store(tmp_path), progress=False)


def test_a_prompt_has_room_in_front_of_rows_as_long_as_the_context(base, tmp_path):
    phase, store = phase_of(base), Store(tmp_path)
    (run,) = [r for r in RUNS if r.method == "prompt"]
    (record,) = upstream.train_patches(phase, [run], store, progress=False)
    tuning = tuning_of(base)
    long = replace(tuning.data.train, rows=tuple((f"{t} " * 8,) for (t,) in tuning.data.train.rows))
    tuning = replace(tuning, data=replace(tuning.data, train=long), study=replace(tuning.study, max_length=128))
    wanted = downstream.Patched("prompt", 0, record["key"], lambda: upstream.patch(phase, run, store))
    (done,) = downstream.fine_tune(tuning, [wanted], 0.003, store, progress=False)
    assert done["outcome"] == "ok"
