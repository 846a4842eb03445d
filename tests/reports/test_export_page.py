"""docs/export.md: its commands and its code run as they stand, and the versions in it are those that were tested."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import peft
import pytest
import torch
import transformers
from small_tokenizers import byte_level

from beft import command_line, paths

PAGE = paths.ROOT / "docs" / "export.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """A folder with a language model without biases and an adapter of PEFT's making; their logits on `tokens`."""
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_level()
    tokenizer.save_pretrained("my_model")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.MistralConfig(
            vocab_size=len(tokenizer), sliding_window=None, num_key_value_heads=2, initializer_range=0.2, **sizes
        )
        transformers.MistralForCausalLM(config).save_pretrained("my_model")
        base = transformers.AutoModelForCausalLM.from_pretrained("my_model")
        tuned = peft.get_peft_model(base, peft.BeftConfig(task_type="CAUSAL_LM")).eval()
        for parameter in (p for p in tuned.parameters() if p.requires_grad):
            parameter.data.normal_(std=0.3)
    tuned.save_pretrained("my_adapter")
    with torch.no_grad():
        return tuned(tokens()).logits


def tokens() -> torch.Tensor:
    return byte_level()("the cat sat on a mat", return_tensors="pt").input_ids


@pytest.mark.filterwarnings("ignore:Detected that the base layer", "ignore:`lora_bias=True` was passed")
def test_the_code_of_the_page_makes_what_it_says(here: torch.Tensor) -> None:
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(code, names)
    plain = transformers.AutoModelForCausalLM.from_pretrained("as_qwen")
    lora = peft.AutoPeftModelForCausalLM.from_pretrained("as_lora")
    with torch.no_grad():
        for model in (plain, lora, names["tuned"]):
            torch.testing.assert_close(model(tokens()).logits, here, rtol=1e-4, atol=1e-4)
        packed = names["model"](names["tokenizer"]("the cat sat on a mat", return_tensors="pt").input_ids).logits
    assert 0 < (packed - here).abs().max() < 0.1 * here.abs().max()


def test_the_commands_of_the_page_do_too(here: torch.Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("bash")
    own, *others = [shlex.split(line, comments=True)[3:] for line in block.splitlines()]
    assert command_line.main([*own, "--offline"]) == 2  # Mistral has no flag of its own, and is told of the layout
    assert 'with layout="qwen2"' in capsys.readouterr().err
    for command in others:
        assert command_line.main([*command, "--offline"]) == 0, command
    with torch.no_grad():
        plain = transformers.AutoModelForCausalLM.from_pretrained("as_qwen")(tokens()).logits
    torch.testing.assert_close(plain, here, rtol=1e-4, atol=1e-4)
    assert Path("as_gguf/model-q8_0.gguf").exists()


def test_the_versions_are_those_of_the_lock_file() -> None:
    named = re.findall(r"`([a-z]+==[\d.]+)`", PAGE.read_text(encoding="utf-8"))
    locked = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8").split()
    assert {name.partition("==")[0] for name in named} == {"peft", "transformers", "gguf"}
    assert set(named) <= set(locked)
