"""Patches: what one model learnt, put frozen into another, there and back, and in PEFT's own format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitting import fitted
from masked_models import STUDY, TEXTS, folder_of, small
from peft import PeftModel

from beft.bank.baselines import WeightSlot, open_bank
from beft.data import sources as data
from beft.data.datasets import Draw, text_dataset
from beft.debias.patches import Patch, check_base, fingerprint, load_patch, patch_of, save_peft
from beft.errors import BeftError
from beft.models import loading as models
from beft.study import Run, Study
from beft.training.language_modelling import MaskedTokens

METHODS = ("b_q", "b_v", "all_biases", "lora", "adapter", "prompt", "sparse", "full")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a masked language model."""
    return folder_of(small(dropout=0.0), tmp_path_factory.mktemp("model") / "small")


def trained(base, method, folder=None):
    """(patch of a short training, logits of the language model with it on some texts)."""
    loaded = models.load_masked(str(base))
    more = {}
    if method == "sparse":
        name = "bert.encoder.layer.0.attention.self.query.weight"
        more["entries"] = {name: torch.tensor([3, 40, 41])}
    kept = []

    def keep(bank, results):
        inputs = loaded.tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
        kept.append(patch_of(bank, 0, loaded.sha256, method))
        kept.append(bank(torch.zeros(3, dtype=torch.long), None, **inputs).detach())
        if folder is not None:
            save_peft(bank, 0, folder, str(base))

    corpus = text_dataset("texts", TEXTS, TEXTS[:3], "by hand")
    run = Run("mask" if method == "sparse" else method, 0, 0.05)
    fitted(loaded, corpus, replace(STUDY, epochs=1), [run], objective=MaskedTokens, at_end=keep, **more)
    return kept


@pytest.mark.parametrize("method", METHODS)
def test_a_patch_in_the_model_says_what_the_run_said_and_comes_out_again(base, method, tmp_path):
    patch, said = trained(base, method)
    patch.save(tmp_path)
    again = load_patch(tmp_path)
    assert (again.sha256(), again.method, again.base, again.size) == (
        patch.sha256(), patch.method, patch.base, patch.size,
    )  # fmt: skip
    loaded = models.load_masked(str(base))
    inputs = loaded.tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        before = loaded.model(**inputs).logits
        _, take_out = again.put(loaded.model)
        assert torch.allclose(loaded.model(**inputs).logits, said, atol=1e-5)
    assert not torch.allclose(before, said, atol=1e-6)
    take_out()
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_rest_is_fine_tuned_and_the_patch_stays(base, method):
    patch, _ = trained(base, method)
    loaded = models.load(str(base), labels=2)
    assert loaded.sha256 == patch.base
    before = {name: p.detach().clone() for name, p in loaded.model.named_parameters()}
    rows = data.load("microworld_sentiment")
    study = Study(task="microworld_sentiment", regime=24, epochs=1, batch_size=8, max_length=32, validate="last")
    hashes, moved = [], {}

    def note(bank, *_):
        if method != "full":
            hashes.append(fingerprint(bank, patch))

    def ends(bank, results):
        note(bank)
        for slot in bank.slots:
            if isinstance(slot, WeightSlot):
                own = bank.model.get_parameter(slot.parameter)
                moved[slot.parameter] = float((slot.values[0].detach() - own).abs().max())

    (result,) = fitted(loaded, rows, study, [Run("full", 0, 0.01)], at_epoch=note, at_end=ends, frozen=patch)
    assert result.outcome == "ok" and len(set(hashes)) == (method != "full")
    value = "bert.encoder.layer.0.attention.self.value"
    weight = f"{value}.base_layer.weight" if method == "lora" else f"{value}.weight"
    assert moved[weight] > 0  # the weights beside the patch are trained
    assert (f"{value}.bias" in moved) is (method not in ("b_v", "all_biases", "lora"))
    after = dict(loaded.model.named_parameters())
    assert set(after) == set(before) and all(torch.equal(after[name], p) for name, p in before.items())


def test_a_sparse_patch_freezes_its_own_entries_and_no_others(base):
    patch, _ = trained(base, "sparse")
    loaded = models.load(str(base), labels=2)
    name = "bert.encoder.layer.0.attention.self.query.weight"
    study = Study(task="microworld_sentiment", regime=16, epochs=1, batch_size=8, max_length=32, validate="last")
    found = []

    def ends(bank, results):
        own, now = bank.model.get_parameter(name), bank.stand_ins()[name]
        found.append((own != now).flatten())

    fitted(loaded, data.load("microworld_sentiment"), study, [Run("full", 0, 0.01)], at_end=ends, frozen=patch)
    still = (~found[0]).nonzero().flatten().tolist()
    assert set(still) >= {3, 40, 41} and len(still) < 10


@pytest.mark.parametrize("method", ["b_v", "all_biases", "lora", "adapter"])
def test_peft_loads_a_patch_to_the_same_logits(base, method, tmp_path):
    _, said = trained(base, method, tmp_path)
    loaded = models.load_masked(str(base))
    wrapped = PeftModel.from_pretrained(loaded.model, str(tmp_path)).eval()
    inputs = loaded.tokenizer(TEXTS[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.allclose(wrapped(**inputs).logits, said, atol=1e-5)


def test_peft_loads_a_prompt_with_the_same_virtual_tokens(base, tmp_path):
    patch, _ = trained(base, "prompt", tmp_path)
    loaded = models.load_masked(str(base))
    wrapped = PeftModel.from_pretrained(loaded.model, str(tmp_path))
    (values,) = patch.tensors.values()
    assert torch.allclose(wrapped.get_prompt(batch_size=1)[0], values)


@pytest.mark.parametrize("method", ["sparse", "full"])
def test_what_peft_has_no_format_for_is_not_written(base, method, tmp_path):
    trained(base, method, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_a_patch_of_another_model_is_refused(base):
    patch, _ = trained(base, "b_v")
    other = models.load(models.TINY, labels=2)
    with pytest.raises(BeftError, match="b_v patch was trained on weights .* use a patch of this model"):
        check_base(patch, other.sha256)
    wide = Patch("b_v", other.sha256, {name: torch.zeros(7) for name in patch.tensors})
    with pytest.raises(BeftError, match=r"of shape \(7,\) and the model \(32,\): it is of another model"):
        wide.put(other.model)
    strange = Patch("b_v", other.sha256, {"decoder.layers.0.bias": torch.zeros(7)})
    with pytest.raises(BeftError, match="the model has no decoder.layers.0, where a patch belongs"):
        strange.put(other.model)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(BeftError, match="no patch in .* train one there first"):
        load_patch(tmp_path)
    (tmp_path / "patch.safetensors").write_bytes(b"\x10\0\0\0")
    with pytest.raises(BeftError, match="is truncated or no patch: train it again"):
        load_patch(tmp_path)


def test_a_model_without_biases_gets_one_for_the_patch():
    from beft.theory import null_key_bias as tiny_models

    model = tiny_models.build("LLaMA", auto="AutoModelForCausalLM").float().requires_grad_(False)
    inputs = {n: x for n, x in tiny_models.inputs(model, batch=2).items() if n in ("input_ids", "attention_mask")}
    with open_bank(model, ["b_v"], [0]) as bank, torch.no_grad():
        for slot in bank.slots:
            slot.values.normal_()
        said = bank(torch.zeros(2, dtype=torch.long), None, **inputs, use_cache=False)
        patch = patch_of(bank, 0, "x")
    with torch.no_grad():
        _, take_out = patch.put(model)
        assert torch.allclose(model(**inputs).logits, said, atol=1e-5)
        take_out()
    assert all(m.bias is None for n, m in model.named_modules() if n.endswith("v_proj"))


def test_a_draw_needs_no_labels_but_rows(base):
    loaded = models.load_masked(str(base))
    problem = MaskedTokens(
        loaded, text_dataset("t", TEXTS, TEXTS[:2], "by hand"), STUDY, [Draw(np.arange(3), np.arange(0))]
    )
    assert problem.validation == 2 and len(problem.lengths) == len(TEXTS)
