"""A tokenizer goes into a GGUF file and comes back as the same, or is refused in one sentence."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_tokenizers import TEXTS, byte_level
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from beft.errors import BeftError
from beft.models import gguf_vocabulary
from beft.models.gguf_export import write_gguf
from beft.models.gguf_vocabulary import SPLITS, check_reads_alike, vocabulary_of

LONG = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITTERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LONG), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LONG.replace(r"\p{N}|", r"\p{N}{1,3}|")), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def tokenizer_of(pre: str, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that splits as one of SPLITTERS, with special tokens and one of a user's."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = SPLITTERS[pre]
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [*TEXTS, "12 123 1984 2026 it's it'll"] * 3,
        trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, special_tokens=special),
    )
    if bos:
        backend.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]),
            ]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[1], eos_token=special[2], unk_token=special[0], pad_token=special[2]
    )
    tokenizer.add_tokens(["<think>"])
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}{% endfor %}"
    return tokenizer


def written(tokenizer: Any, folder: Any) -> Any:
    """The tokenizer that transformers reads from a file with a tiny model and this tokenizer."""
    rows = len(tokenizer) + 5
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=rows, num_key_value_heads=2, **sizes)).eval()
    write_gguf(model, tokenizer, folder, "f16")
    return AutoTokenizer.from_pretrained(folder, gguf_file="model-f16.gguf")


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("pre", SPLITTERS)
def test_a_byte_level_tokenizer_comes_back_as_the_same(pre, bos, tmp_path):
    own = tokenizer_of(pre, bos)
    assert vocabulary_of(own, len(own) + 5).pre == pre
    with torch.random.fork_rng():
        back = written(own, tmp_path)
    for text in ("because the cat sat\n on a mat, it's", "<|im_start|>Yes<|im_end|> <think>No", "  naïve 你好 🙂\n\n"):
        assert back(text).input_ids == own(text).input_ids
        assert back.decode(back(text).input_ids) == own.decode(own(text).input_ids)
    assert back.chat_template == own.chat_template
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    assert [getattr(back, name) for name in names] == [getattr(own, name) for name in names]
    assert back.convert_tokens_to_ids("<think>") == own.convert_tokens_to_ids("<think>")


def test_the_real_vocabulary_of_smollm2_is_known(carried):
    from beft.models import files

    folder = files.find(carried("SmolLM2-135M-Instruct-Q4_1"), offline=True).folder
    own = AutoTokenizer.from_pretrained(folder)
    made = vocabulary_of(own, 49152)
    assert (made.pre, len(made.tokens), len(made.types)) == ("smollm", 49152, 49152)
    assert made.special == {"bos": 1, "eos": 2, "unk": 0, "pad": 2} and made.adds == (False, False)
    assert made.template == own.chat_template
    assert all(merge.count(" ") == 1 for merge in made.merges)


def test_rows_without_a_token_get_a_name_that_no_text_uses():
    own = byte_level()
    made = vocabulary_of(own, len(own) + 2)
    assert made.tokens[-2:] == [f"[PAD{len(own)}]", f"[PAD{len(own) + 1}]"]
    assert made.types[-3:] == [gguf_vocabulary.NORMAL, gguf_vocabulary.UNUSED, gguf_vocabulary.UNUSED]


def changed(**parts: Any) -> PreTrainedTokenizerFast:
    own = copy.deepcopy(byte_level())
    for name, part in parts.items():
        setattr(own.backend_tokenizer, name, part)
    return own


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        (changed(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), "not byte-level BPE"),
        (
            changed(
                pre_tokenizer=pre_tokenizers.Sequence(
                    [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
                )
            ),
            "splits texts in a way that llama.cpp has no name for here",
        ),
        (changed(normalizer=normalizers.Lowercase()), "it changes texts first .Lowercase."),
        (SimpleNamespace(), "it has no tokenizer.json"),
    ],
)
def test_another_way_with_texts_is_refused(tokenizer, says):
    with pytest.raises(BeftError, match=f"cannot be written into a GGUF file, as .*{says}.*: export safetensors"):
        vocabulary_of(tokenizer, 1000)


def test_more_tokens_than_embeddings_are_refused():
    with pytest.raises(BeftError, match=r"it has more tokens \(\d+\) than the model has embeddings \(10\)"):
        vocabulary_of(byte_level(), 10)


def test_a_tokenizer_that_comes_back_as_another_is_caught():
    own = tokenizer_of("qwen2")
    with pytest.raises(BeftError, match="the text .* comes back as other tokens"):
        check_reads_alike(own, tokenizer_of("llama-bpe"))
    other = tokenizer_of("qwen2")
    other.eos_token = "<|im_start|>"
    with pytest.raises(BeftError, match=r"its eos_token comes back as '<|im_start|>'"):
        check_reads_alike(own, other)
    check_reads_alike(own, tokenizer_of("qwen2"))


def test_every_name_of_a_split_is_tested():
    assert set(SPLITS.values()) == set(SPLITTERS)
