"""Models published as `pytorch_model.bin` are read without running code, converted once, and compute what was saved."""

from __future__ import annotations

import json
import os
from collections import namedtuple

import huggingface_hub
import pytest
import torch
from safetensors import safe_open

from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import loading, pickled
from beft.theory import null_key_bias

MARK = "converted.json"
WEIGHTS = "pytorch_model.bin"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache" / "converted"


@pytest.fixture
def published(tmp_path, tiny):
    """Writes a small model in a published layout: what `change` makes of its tensors, in one file or in `parts`."""

    def write(name, auto="AutoModelForCausalLM", change=dict, parts=1, old=False, dtype=torch.float32):
        model = null_key_bias.build(name, auto=auto).float()
        model.resize_token_embeddings(len(tiny.tokenizer))
        for tensor in model.parameters():  # as rounded as in the file; the rotary frequencies are not
            tensor.data = tensor.data.to(dtype).float()
        folder = tmp_path / "mine"
        model.config.architectures, model.config.dtype = [type(model).__name__], dtype
        model.config.save_pretrained(folder)
        tiny.tokenizer.save_pretrained(folder)
        with torch.no_grad():
            halves = {id(p): p.to(dtype) for p in model.parameters()}
        state = change({key: halves[id(t)] for key, t in model.state_dict(keep_vars=True).items()})
        names, files = list(state), {}
        for i in range(parts):
            file = WEIGHTS if parts == 1 else f"pytorch_model-{i + 1:05d}-of-{parts:05d}.bin"
            chosen = {key: state[key] for key in names[i::parts]}
            torch.save(chosen, folder / file, _use_new_zipfile_serialization=not old)
            files |= dict.fromkeys(chosen, file)
        if parts > 1:
            index = {"metadata": {"total_size": 1}, "weight_map": files}
            (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
        return model.eval(), folder

    return write


def logits(model):
    ids = torch.arange(3, 17).view(2, 7) % 60
    with torch.no_grad():
        return model(input_ids=ids).logits.float()


def backbone(state):
    """As a backbone saves itself: without the prefix of the model around it, and without a head."""
    return {key.removeprefix("model."): t for key, t in state.items() if key != "lm_head.weight"}


def with_buffers(state):
    """GPT-J's causal masks and GPT-2's number for them, which older versions saved."""
    masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8).tril() for i in range(2)}
    return state | masks | {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e9) for i in range(2)}


def with_frequencies(state):
    return state | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}


def with_old_names(state):
    """BERT of 2018: gamma and beta, and positions as a buffer."""
    renamed = {}
    for key, tensor in state.items():
        renamed[key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    return renamed | {"bert.embeddings.position_ids": torch.arange(64).unsqueeze(0)}


def with_positions(state):
    return state | {"roberta.embeddings.position_ids": torch.arange(64).unsqueeze(0)}


LAYOUTS = {
    "opt-1.3b, of the backbone": {"name": "OPT", "change": backbone, "dtype": torch.float16},
    "opt-6.7b, in parts": {"name": "OPT", "parts": 2, "dtype": torch.float16},
    "gpt-j-6b": {"name": "GPT-J", "change": with_buffers},
    "gpt-j-6b, before torch 1.6": {"name": "GPT-J", "change": with_buffers, "old": True},
    "llama-2, in parts": {"name": "LLaMA", "change": with_frequencies, "parts": 3, "dtype": torch.float16},
    "deepseek-coder, in parts": {"name": "LLaMA", "parts": 2, "dtype": torch.bfloat16},
    "bert-base-cased": {"name": "BERT", "auto": "AutoModelForMaskedLM", "change": with_old_names, "old": True},
    "roberta-base": {"name": "RoBERTa", "auto": "AutoModelForMaskedLM", "change": with_positions},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_computes_what_the_saved_model_does(published, layout):
    given = LAYOUTS[layout]
    model, folder = published(**given)
    load = loading.load_masked if "auto" in given else loading.load_causal
    loaded = load(str(folder))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert torch.equal(logits(loaded.model), logits(model))
    files = pickled.weights_in(folder)
    assert loaded.source == f"folder mine, converted from {pickled.named(files)}"
    assert loaded.sha256 == model_files.weight_hash(files) and loaded.config_sha256 == model_files.config_hash(folder)


def test_a_classifier_is_read_from_one_too(tmp_path, tiny):
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    tiny.model.config.save_pretrained(tmp_path / "mine")
    torch.save(tiny.model.state_dict(), tmp_path / "mine" / WEIGHTS)
    loaded = loading.load(str(tmp_path / "mine"), labels=2)
    assert torch.equal(logits(loaded.model), logits(tiny.model))


def test_it_is_converted_once_in_its_precision_with_config_and_tokenizer(published, cache, monkeypatch):
    _, folder = published("OPT", parts=2, dtype=torch.float16)
    before = sorted(path.name for path in folder.iterdir())
    loading.load_causal(str(folder))
    (made,) = (path for path in cache.iterdir() if path.is_dir())
    with safe_open(made / "model-00001.safetensors", "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    assert sorted(path.name for path in folder.iterdir()) == before
    monkeypatch.setattr(pickled, "_write", lambda *a: pytest.fail("converted again"))
    loading.load_causal(str(folder))


def test_large_files_are_written_in_pieces(published, cache, monkeypatch):
    monkeypatch.setattr(pickled, "SHARD", 20_000)
    model, folder = published("LLaMA")
    loaded = loading.load_causal(str(folder))
    assert torch.equal(logits(loaded.model), logits(model))
    assert len(list(cache.glob("*/model-*.safetensors"))) > 3 and len(list(cache.glob("*/*.index.json"))) == 1


def test_another_config_beside_the_same_weights_is_another_model(published):
    _, folder = published("GPT-J")
    one = model_files.find(str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 0.1}))
    two = model_files.find(str(folder))
    assert one.sha256 == two.sha256 and one.config_sha256 != two.config_sha256 and one.folder != two.folder


def test_tied_embeddings_that_share_memory_are_read(published):
    model, folder = published("OPT")  # its lm_head and its embedding are one tensor
    state = torch.load(folder / WEIGHTS, weights_only=True)
    assert state["lm_head.weight"].data_ptr() == state["model.decoder.embed_tokens.weight"].data_ptr()
    assert torch.equal(logits(loading.load_causal(str(folder)).model), logits(model))


# --- what is refused --------------------------------------------------------------------------------------------------


class Runs:
    """Leaves a file behind when a pickle of it is read by a loader that runs code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


Point = namedtuple("Point", "x y")


def refused(folder):
    with pytest.raises(BeftError) as caught:
        loading.load_causal(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_is_refused_and_its_code_does_not_run(published, tmp_path, cache, old):
    _, folder = published("GPT-J", change=lambda state: state | {"x": Runs(tmp_path / "ran")}, old=old)
    text = refused(folder)
    assert f"{folder / WEIGHTS} holds more than tensors (" in text and "mkdir" in text and "is not read" in text
    assert not (tmp_path / "ran").exists() and not any(path.is_dir() for path in cache.iterdir())


@pytest.mark.parametrize("content", [{"step": 3}, {"model": {"x": torch.ones(1)}}, [torch.ones(1)], {}, torch.ones(2)])
def test_what_is_no_dictionary_of_tensors_is_refused(published, content):
    _, folder = published("GPT-J")
    torch.save(content, folder / WEIGHTS)
    assert f"{folder / WEIGHTS} holds " in refused(folder)


@pytest.mark.parametrize("old", [False, True])
def test_a_truncated_file_is_a_sentence(published, old):
    _, folder = published("GPT-J", old=old)
    content = (folder / WEIGHTS).read_bytes()
    for size in (len(content) // 2, 10, 0):
        (folder / WEIGHTS).write_bytes(content[:size])
        text = refused(folder)
        assert f"{folder / WEIGHTS}" in text and ("may be truncated" in text or "holds more than tensors" in text)


def test_a_part_that_is_missing_or_an_index_that_is_none_is_a_sentence(published):
    _, folder = published("OPT", parts=2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert "lacks pytorch_model-00002-of-00002.bin, which pytorch_model.bin.index.json names" in refused(folder)
    for content in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"x": 3}}'):
        (folder / f"{WEIGHTS}.index.json").write_text(content)
        assert "pytorch_model.bin.index.json cannot be read" in refused(folder)


def test_tensors_that_are_missing_are_seen(published):
    _, folder = published("LLaMA", change=lambda s: {k: t for k, t in s.items() if "layers.1.self_attn.v" not in k})
    assert "lack 1 of the model's tensors" in refused(folder)


def test_a_damaged_copy_is_named(published, cache):
    _, folder = published("GPT-J")
    loading.load_causal(str(folder))
    (path,) = cache.glob("*/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    assert f"the copy of mine as safetensors in {path.parent} is damaged: delete that folder" in refused(folder)


# --- the hub ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False])
def test_the_hub_is_asked_for_pickles_only_where_it_has_nothing_else(published, monkeypatch, safe):
    model, folder = published("OPT", dtype=torch.float16)
    asked = []

    def download(repository, local_files_only, allow_patterns):
        asked.append((repository, local_files_only, "pytorch_model*.bin" in allow_patterns))
        if local_files_only:
            raise FileNotFoundError
        return folder

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    names = ["config.json", WEIGHTS, *(["model.safetensors"] if safe else [])]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repository: names)
    loaded = loading.load_causal("facebook/opt-1.3b")
    assert asked == [("facebook/opt-1.3b", True, False), ("facebook/opt-1.3b", False, not safe)]
    assert loaded.source == f"hub facebook/opt-1.3b, converted from {WEIGHTS}"
    assert torch.equal(logits(loaded.model), logits(model))


def test_a_snapshot_in_the_cache_without_weights_is_fetched_whole_unless_offline(published, monkeypatch):
    _, folder = published("OPT")
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    asked = []

    def download(repository, local_files_only, allow_patterns):
        asked.append(local_files_only)
        if not local_files_only:
            (folder.parent / WEIGHTS).rename(folder / WEIGHTS)
        return folder

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repository: [WEIGHTS])
    with pytest.raises(BeftError, match="it has no weights"):
        loading.load_causal("facebook/opt-1.3b", offline=True)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    loading.load_causal("facebook/opt-1.3b")
    assert loading.load_causal("facebook/opt-1.3b", offline=True).source.startswith("hub cache facebook/opt-1.3b, conv")
    assert asked == [True, True, False, True]


def test_safetensors_come_first(published):
    model, folder = published("OPT")
    model.save_pretrained(folder)
    assert loading.load_causal(str(folder)).source == "folder mine"
