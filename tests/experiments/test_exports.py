"""A record, or the adapter beside it, as a plain checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import BeftConfig, get_peft_model
from small_sweep import RUNS, STUDY
from transformers import AutoModelForCausalLM

from beft.api import Tuned
from beft.command_line import main
from beft.errors import BeftError
from beft.experiments import exports, sweep
from beft.experiments.exports import export_saved
from beft.models.loading import load_causal
from beft.records.store import Store

TOKENS = torch.arange(3, 15).view(1, 12)
TEXTS = ["the clock was slow", "a good film"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def run(store: Store, **changes: object) -> Path:
    """The file of the record of one run."""
    sweep.run(replace(STUDY, **changes), RUNS[:1], store, progress=False)
    (path,) = store.folder.glob("*.json")
    return path


def test_a_record_and_its_adapter_become_the_checkpoint_of_the_run(store: Store, tmp_path: Path) -> None:
    record = run(store, tuning=0.25, validate="last")
    (adapter,) = (store.folder / "adapters").iterdir()
    sweep.export(replace(STUDY, tuning=0.25), RUNS[0], store, tmp_path / "expected")
    expected = Tuned.load(tmp_path / "expected").probabilities(TEXTS)
    for source in (record, adapter):
        export_saved(source, tmp_path / "out", offline=True)
        assert Tuned.load(tmp_path / "out").probabilities(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert list(store.folder.glob("*.json")) == [record], "nothing was trained"


def test_ones_own_file_is_given_again_and_another_is_refused(store: Store, tmp_path: Path) -> None:
    rows = "".join(f"{word} {i},{label}\n" for label, word in (("yes", "good"), ("no", "bad")) for i in range(12))
    (tmp_path / "mine.csv").write_text("text,label\n" + rows)
    record = run(store, task=str(tmp_path / "mine.csv"), regime="all")
    with pytest.raises(BeftError, match="unknown task 'mine'"):
        export_saved(record, tmp_path / "out", offline=True)
    export_saved(record, tmp_path / "out", offline=True, task=str(tmp_path / "mine.csv"))
    assert (tmp_path / "out" / "model.safetensors").exists()
    (tmp_path / "mine.csv").write_text("text,label\n" + rows.replace("good", "fine"))
    with pytest.raises(BeftError, match="was made with another data_fingerprint .*: give the model and the task"):
        export_saved(record, tmp_path / "again", offline=True, task=str(tmp_path / "mine.csv"))
    assert not (tmp_path / "again").exists()


def test_the_adapter_of_a_language_model_goes_by_its_record(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        exports, "export", lambda study, run, store, folder, **form: asked.append((study, run, folder, form))
    )
    study = replace(STUDY, model="tiny-llama", prompted=True, regime=8, epochs=1, max_length=256, schedule="linear")
    with torch.random.fork_rng():
        sweep.run(study, RUNS[:1], store, progress=False)
    (adapter,) = (store.folder / "adapters").iterdir()
    export_saved(adapter, tmp_path / "out", offline=True)
    export_saved(adapter, tmp_path / "out", offline=True, layout="qwen2", gguf="q8_0")
    made = (study, RUNS[0], tmp_path / "out")
    assert asked == [(*made, {"layout": None, "gguf": None}), (*made, {"layout": "qwen2", "gguf": "q8_0"})]


def test_a_record_of_another_kind_and_a_damaged_one_are_refused(store: Store, tmp_path: Path) -> None:
    record = run(store)
    content = json.loads(record.read_text())
    ranking = {"kind": "ranking", "scores": {}, "by_epoch": [], "key_bias_null": {}}
    path = store.write({**content, **ranking, "settings": content["settings"] | {"kind": "ranking"}})
    with pytest.raises(BeftError, match="is the record of a ranking, not of a run"):
        export_saved(path, tmp_path / "out")
    record.write_text("{")
    with pytest.raises(BeftError, match="is not valid JSON"):
        export_saved(record, tmp_path / "out")


@pytest.fixture
def of_peft(tmp_path: Path) -> tuple[Path, object]:
    """An adapter that PEFT made on a language model in a folder, and the logits of the two on TOKENS."""
    base = load_causal("tiny-llama", offline=True)
    base.model.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tuned = get_peft_model(model, BeftConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in (p for p in tuned.parameters() if p.requires_grad):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        return tmp_path / "adapter", tuned(TOKENS).logits


@pytest.mark.filterwarnings("ignore:Detected that the base layer has no bias term")
def test_an_adapter_that_peft_trained_is_exported_by_the_base_model_that_it_names(
    of_peft: tuple[Path, object], tmp_path: Path
) -> None:
    adapter, said = of_peft
    export_saved(adapter, tmp_path / "plain", offline=True)
    assert main(["export", str(adapter), str(tmp_path / "qwen"), "--layout", "qwen2", "--offline"]) == 0
    for folder, family in (("plain", "llama"), ("qwen", "qwen2")):
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert plain.config.model_type == family and (tmp_path / folder / "tokenizer.json").exists()
        with torch.no_grad():
            torch.testing.assert_close(plain(TOKENS).logits, said, rtol=1e-4, atol=1e-4)


def test_a_classifier_has_no_layout_and_no_gguf_file(store: Store, tmp_path: Path) -> None:
    record = run(store, tuning=0.25, validate="last")
    (adapter,) = (store.folder / "adapters").iterdir()
    for form in ({"layout": "qwen2"}, {"gguf": "f16"}):
        with pytest.raises(BeftError, match="holds no language model, .* leave both out"):
            export_saved(adapter, tmp_path / "out", offline=True, **form)
        with pytest.raises(BeftError, match="is no causal language model"):
            export_saved(record, tmp_path / "out", offline=True, **form)
    assert not (tmp_path / "out").exists()


def test_a_run_on_prompts_leaves_in_another_layout(store: Store, tmp_path: Path) -> None:
    study = replace(STUDY, model="tiny-llama", prompted=True, regime=8, epochs=1, max_length=256, schedule="linear")
    with torch.random.fork_rng():
        sweep.run(study, RUNS[:1], store, progress=False)
        for name, form in (("own", {}), ("qwen", {"layout": "qwen2"})):
            sweep.export(study, RUNS[0], store, tmp_path / name, **form)
    own, qwen = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("own", "qwen"))
    assert (own.config.model_type, qwen.config.model_type) == ("llama", "qwen2")
    with torch.no_grad():
        torch.testing.assert_close(qwen(TOKENS).logits, own(TOKENS).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(BeftError, match="unknown layout 'gpt2'"):
        sweep.export(study, RUNS[0], store, tmp_path / "out", layout="gpt2")
