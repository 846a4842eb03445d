"""A model with biases as a GGUF file gives, read by transformers alone, the logits of the numbers that it holds."""

from __future__ import annotations

from typing import Any

import gguf as gguf_package
import numpy as np
import pytest
import small_gguf
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file
from small_tokenizers import TOKENIZERS, byte_level

from beft.bank.baselines import open_bank
from beft.bank.export import merge
from beft.bank.layouts import in_layout
from beft.errors import BeftError
from beft.models import gguf_export, loading
from beft.models.gguf_export import KINDS, held, write_gguf

FAMILIES = {"llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config"}
ELSEWHERE = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
here, logits = Path(sys.argv[1]), {}
for file in sorted(here.glob("*/*.gguf")):
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    with torch.inference_mode():
        logits[file.parent.name] = model(**tokenizer("the cat sat on a mat", return_tensors="pt")).logits
    logits["biases " + file.parent.name] = model.model.layers[1].self_attn.v_proj.bias.detach()
assert not [name for name in sys.modules if name.partition(".")[0] == "beft"], "beft was imported"
save_file({k: v.contiguous() for k, v in logits.items()}, here / "logits.safetensors")
"""


def small(family: str = "llama", **changes: Any) -> Any:
    """A random model with grouped heads for the vocabulary of `byte_level`, and rows without a token."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": len(byte_level()) + 3, "initializer_range": 0.2}
    rope = {"rope_type": "default", "rope_theta": 50000.0}
    window = {"sliding_window": None} if family == "mistral" else {}
    settings = sizes | window | {"rope_parameters": rope, "rms_norm_eps": 1e-4, "max_position_embeddings": 128}
    config = getattr(transformers, FAMILIES[family])(**(settings | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


def fill(bank: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for slot in bank.slots:
        slot.values.data = torch.randn(slot.values.shape, generator=generator) * 0.3


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, run_elsewhere):
    """Of each family and kind: the exported model, and its logits and one bias in a process with transformers alone."""
    here, made, tokenizer = tmp_path_factory.mktemp("elsewhere"), {}, byte_level()
    for family in FAMILIES:
        model = small(family)
        with open_bank(model, ["b_v"], [0]) as bank:
            fill(bank)
            for kind in KINDS:
                made[f"{family}-{kind}"] = merge(bank, 0, here / f"{family}-{kind}", tokenizer, gguf=kind)
            made[f"{family}-bank"] = bank(
                torch.zeros(1, dtype=torch.long), None, **tokenizer("the cat sat on a mat", return_tensors="pt")
            ).detach()
    run_elsewhere(ELSEWHERE, here)
    return made, load_file(here / "logits.safetensors"), here


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_alone_gives_the_logits_of_the_tuned_model(elsewhere, family):
    made, there, _ = elsewhere
    torch.testing.assert_close(there[f"{family}-f32"], made[f"{family}-bank"], rtol=1e-4, atol=1e-4)
    size = made[f"{family}-bank"].abs().max()
    for kind, share in (("f16", 0.005), ("q8_0", 0.1)):
        difference = (there[f"{family}-{kind}"] - made[f"{family}-bank"]).abs().max()
        assert 0 < difference < share * size, kind
    assert torch.equal(there[f"biases {family}-q8_0"], made[f"{family}-q8_0"].model.layers[1].self_attn.v_proj.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_are_exactly_those_of_the_numbers_in_the_file(elsewhere, kind):
    """Within quantisation: with every matrix replaced by what the file's bytes stand for, nothing is left."""
    made, there, here = elsewhere
    model = made[f"llama-{kind}"]
    reader = gguf_package.GGUFReader(here / f"llama-{kind}" / f"model-{kind}.gguf")
    names = gguf_package.get_tensor_name_map(gguf_package.MODEL_ARCH.QWEN2, 2)
    tensors = {t.name: gguf_package.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        values = torch.from_numpy(np.copy(tensors.pop(f"{names.get_name(module)}.{leaf}")))
        assert (values - parameter).abs().max() <= {"f32": 0, "f16": 1e-3, "q8_0": 0.01}[kind]
        parameter.data = values.view(parameter.shape)
    assert not tensors
    with torch.no_grad():
        logits = model(**byte_level()("the cat sat on a mat", return_tensors="pt")).logits
    torch.testing.assert_close(there[f"llama-{kind}"], logits, rtol=1e-4, atol=1e-4)


def test_a_folder_has_one_file_and_says_how_far_it_is_from_the_model(elsewhere):
    here = elsewhere[2] / "mistral-q8_0"
    assert sorted(path.name for path in here.iterdir()) == ["README.md", "model-q8_0.gguf"]
    assert "GGUF (Q8_0; on a text of 48 tokens logits of up to" in (here / "README.md").read_text()
    sorts = {t.name: t.tensor_type.name for t in gguf_package.GGUFReader(here / "model-q8_0.gguf").tensors}
    assert {sorts["blk.0.attn_v.weight"], sorts["token_embd.weight"]} == {"Q8_0"}
    assert {sorts["blk.0.attn_v.bias"], sorts["output_norm.weight"]} == {"F32"}


def test_this_package_reads_it_as_a_model_to_tune_on(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("BEFT_CACHE", str(tmp_path))
    loaded = loading.load_causal(str(elsewhere[2] / "llama-f16"), offline=True)
    ids = loaded.tokenizer("the cat sat on a mat", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(**ids).logits, elsewhere[1]["llama-f16"], rtol=1e-4, atol=1e-4)


@given(arrays.arrays(np.float32, (3, 64), elements=st.floats(-100, 100, width=32)))
def test_a_number_of_q8_0_is_off_by_half_a_step_of_its_block(values):
    stood = held(torch.from_numpy(values), "q8_0")[2]
    step = np.abs(values.reshape(3, 2, 32)).max(-1, keepdims=True) / 127
    # a half, and the rounding of the step itself to half precision, at most 127 times
    bound = step * (0.5 + 127 * 2.0**-11) + 127 * 2.0**-25
    assert (np.abs(stood - values).reshape(3, 2, 32) <= bound * 1.001).all()


def test_rows_that_are_no_multiple_of_32_are_written_in_f16():
    assert held(torch.ones(4, 48), "q8_0")[1] == "F16" and held(torch.ones(48), "q8_0")[1] == "F32"


def test_a_model_in_bfloat16_is_written_and_stays_so(tmp_path):
    model = in_layout(small(dtype=torch.bfloat16), "qwen2")
    assert "F32" in write_gguf(model, byte_level(), tmp_path, "f32")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(model: Any, folder: Any, tokenizer: Any = None, kind: str = "f16") -> str:
    with pytest.raises(BeftError) as caught:
        write_gguf(model, tokenizer or byte_level(), folder, kind)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or not list(folder.iterdir())
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head_dim": 32}, "its heads have 32 entries: export safetensors"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, r"are scaled \(linear\)"),
    ],
)
def test_what_transformers_would_not_read_back_is_refused(changes, says, tmp_path):
    with pytest.raises(BeftError, match=f"would not read this model back from GGUF, as .*{says}"):
        raise BeftError(refused(in_layout(small(**changes), "qwen2"), tmp_path / "out"))


def test_another_layout_an_unknown_kind_and_large_numbers_are_named(tmp_path):
    assert "this is a llama model" in refused(small(), tmp_path / "out")
    model = in_layout(small(), "qwen2")
    assert "unknown kind of GGUF file 'q4_0': did you mean q8_0" in refused(model, tmp_path / "out", kind="q4_0")
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e6
    assert "mlp.up_proj.weight has numbers too large for F16" in refused(model, tmp_path / "out")


def test_a_file_that_lost_its_biases_is_caught(tmp_path, monkeypatch):
    """As transformers loses them from the architecture `llama`: every parameter is compared."""
    model = in_layout(small(), "qwen2")
    torch.nn.init.normal_(model.model.layers[0].self_attn.v_proj.bias)
    own = gguf_export.read

    def without(path):
        back, tokenizer = own(path)
        back.model.layers[0].self_attn.v_proj.bias.data.zero_()
        return back, tokenizer

    monkeypatch.setattr(gguf_export, "read", without)
    assert "reads model.layers.0.self_attn.v_proj.bias of model-f16.gguf as another" in refused(model, tmp_path / "out")


def test_a_file_of_another_arithmetic_is_caught(tmp_path, monkeypatch):
    """What the header says is compared by logits: here the frequencies are another's."""
    own = gguf_package.GGUFWriter.add_rope_freq_base
    monkeypatch.setattr(gguf_package.GGUFWriter, "add_rope_freq_base", lambda self, value: own(self, value * 100))
    assert "computes from model-f16.gguf something else" in refused(in_layout(small(), "qwen2"), tmp_path / "out")


def test_transformers_reads_no_biases_from_the_architecture_llama(tmp_path, monkeypatch):
    """Why the file is of Qwen2's: should this fail, `llama` has become another way."""
    model = small_gguf.small_llama()
    writer = gguf_package.GGUFWriter
    started = writer.write_header_to_file

    def with_a_bias(self, *arguments):
        self.add_tensor("blk.0.attn_v.bias", np.ones(32, np.float32))
        return started(self, *arguments)

    monkeypatch.setattr(writer, "write_header_to_file", with_a_bias)
    small_gguf.write(tmp_path / "small.gguf", model, "F32")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="small.gguf")
    assert back.model.layers[0].self_attn.v_proj.bias is None


@pytest.mark.parametrize("kind", ["SentencePiece", "WordPiece"])
def test_a_tokenizer_of_another_kind_is_refused(kind, tmp_path):
    said = refused(in_layout(small(), "qwen2"), tmp_path / "out", TOKENIZERS[kind])
    assert "tokenizer cannot be written into a GGUF file" in said and "not byte-level BPE: export safetensors" in said


def test_a_run_needs_a_folder_and_the_tokenizer_and_takes_no_other_layout(tmp_path):
    with open_bank(small(), ["b_v"], [0]) as bank:
        with pytest.raises(BeftError, match="give merge a folder and the tokenizer"):
            merge(bank, 0, tmp_path / "out", gguf="f16")
        with pytest.raises(BeftError, match="in the layout qwen2 only, not llama: leave layout out"):
            merge(bank, 0, tmp_path / "out", byte_level(), layout="llama", gguf="f16")
        with pytest.raises(BeftError, match="unknown kind of GGUF file 'Q8'.*valid: f32"):
            merge(bank, 0, tmp_path / "out", byte_level(), gguf="Q8")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_seen_first(tmp_path, monkeypatch):
    from beft import cached

    usage = cached.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert "there is no room for model-f16.gguf" in refused(in_layout(small(), "qwen2"), tmp_path / "out")


def test_an_interrupted_check_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_export, "check_reads_alike", lambda own, back: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_gguf(in_layout(small(), "qwen2"), byte_level(), tmp_path, "f16")
    assert not list(tmp_path.iterdir())
