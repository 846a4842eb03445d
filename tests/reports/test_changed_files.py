"""A record is that of its files: another tokenizer, config or weights under the same name make another run.

The keys of records that were made before stay what they are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from beft.carriers import CARRIERS
from beft.errors import BeftError
from beft.experiments import sweep
from beft.experiments.context import Context
from beft.models import files, loading
from beft.records.schema import key
from beft.records.store import Store
from beft.study import Run, Study

RUN = Run("head", 0, 1e-2)


@pytest.fixture
def mine(tmp_path, tiny):
    """A folder with the tiny random model."""
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def key_of(folder):
    study = Study(str(folder), "microworld_sentiment", 32, epochs=1, offline=True)
    return key(Context(study).settings(RUN))


def lowercase_no_more(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))


def config_with(name, **changes):
    def change(folder):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | changes))

    return change


def weights(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.pooler.dense.bias"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


CHANGES = {
    "tokenizer": lowercase_no_more,
    "tokenizer's config": config_with("tokenizer_config.json", sep_token="[PAD]"),
    "activation": config_with("config.json", hidden_act="relu"),
    "dropout": config_with("config.json", hidden_dropout_prob=0.5),
    "weights": weights,
    "a file of added tokens": lambda folder: (folder / "added_tokens.json").write_text('{"[NEW]": 5}'),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_changed_under_a_name_changes_the_key(mine, change):
    before = key_of(mine)
    assert key_of(mine) == before
    CHANGES[change](mine)
    assert key_of(mine) != before


def test_what_decides_nothing_does_not_change_the_key(mine):
    before = key_of(mine)
    (mine / "README.md").write_text("about it")
    (mine / "vocab.txt").write_text("not read beside tokenizer.json")
    config = json.loads((mine / "config.json").read_text()) | {"transformers_version": "4.0", "_name_or_path": "/there"}
    (mine / "config.json").write_text(json.dumps(dict(reversed(config.items())), indent=7))
    path = mine / "tokenizer.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # git on another system
    assert key_of(mine) == before
    shutil.move(mine, mine.with_name("elsewhere"))
    shutil.move(mine.with_name("elsewhere"), mine)
    assert key_of(mine) == before


def test_a_vocabulary_without_tokenizer_json_counts(mine):
    (mine / "tokenizer.json").unlink()
    (mine / "vocab.txt").write_text("one\ntwo\n")
    one = files.find(str(mine)).config_sha256
    (mine / "vocab.txt").write_text("two\none\n")
    assert files.find(str(mine)).config_sha256 != one


def test_a_sweep_trains_again_after_a_change_and_says_which_files_it_had(mine, tmp_path):
    study, store = Study(str(mine), "microworld_sentiment", 32, epochs=1, offline=True), Store(tmp_path / "records")
    (first,) = sweep.run(study, [RUN], store, progress=False)
    assert sweep.run(study, [RUN], store, progress=False) == [first]
    lowercase_no_more(mine)
    (second,) = sweep.run(study, [RUN], store, progress=False)
    assert second["key"] != first["key"] and len(store.all()) == 2
    assert second["model"]["sha256"] == first["model"]["sha256"]
    for record in (first, second):
        assert record["model"]["config_sha256"] == record["settings"]["model_config_sha256"]


def test_files_that_change_during_a_sweep_are_not_recorded_under_the_old_key(mine):
    context = Context(Study(str(mine), "microworld_sentiment", 32, epochs=1, offline=True))
    lowercase_no_more(mine)
    with pytest.raises(BeftError, match="changed while they were in use: start again"):
        _ = context.loaded


@pytest.mark.parametrize("name", files.shipped())
def test_a_model_of_committed_records_adds_nothing_to_their_keys_until_it_changes(name, tmp_path):
    found = files.find(name, offline=True)
    assert found.sha256 in files.AS_RECORDED and files.model_identity(found) == {"model_sha256": found.sha256}
    shutil.copytree(files.SHIPPED / name, tmp_path / name)
    assert files.model_identity(files.find(str(tmp_path / name))) == {"model_sha256": found.sha256}
    config_with("config.json", layer_norm_eps=1e-3)(tmp_path / name)
    changed = files.find(str(tmp_path / name))
    assert files.model_identity(changed) == {
        "model_sha256": found.sha256,
        "model_config_sha256": files.config_hash(tmp_path / name),
    }


def test_every_model_with_committed_records_is_among_them():
    folder = Path(__file__).parents[2] / "data" / "results" / "laptop"
    keys = [r["settings"] for r in Store(folder).all() if "model_sha256" in r["settings"]]
    recorded = {key["model_sha256"] for key in keys if "model_config_sha256" not in key}
    # a GGUF file holds config and tokenizer itself
    packed = {c.sha256 for one in CARRIERS.values() for name, c in one.files.items() if name.endswith(".gguf")}
    assert recorded and recorded <= set(files.AS_RECORDED) | packed


def test_the_tiny_random_model_has_no_files():
    loaded = loading.load(files.TINY, labels=2)
    for one in (loaded, files.find(files.TINY)):
        assert files.model_identity(one) == {"model_sha256": loaded.sha256}
