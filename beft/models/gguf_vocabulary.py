"""A tokenizer of byte-level BPE as the vocabulary of a GGUF file, and whether it comes back as the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BeftError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's types of tokens."""
# What splits a text before its parts are merged -> llama.cpp's name of it (`tokenizer.ggml.pre`).
_GPT2 = ("ByteLevel",)
_DIGITS = ("Digits", "ByteLevel")
_LONG = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS: Mapping[tuple[str, ...], str] = {
    _GPT2: "gpt-2",
    _DIGITS: "smollm",
    (_LONG.format(r"\p{N}{1,3}"), "ByteLevel"): "llama-bpe",
    (_LONG.format(r"\p{N}"), "ByteLevel"): "qwen2",
}
TEXTS = (
    "It's 12 o'clock, 345678 o'clock; it'll be\n\n  fine.\tYES  NO \r\n don't!?  ",
    "The naïve café — “quoted” 你好 мир 🙂 x=1.5e-3;  def f(a_b): return {a: 'b'}",
    " leading and trailing ",
    "",
)
"""Texts that the tokenizers of these kinds split in different ways."""


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        tokens: by id.
        types: of the tokens, NORMAL and so on.
        merges: "a b", the earliest first.
        pre: llama.cpp's name of how texts are split.
        special: "bos", "eos", "unk", "pad" -> id, of those that there are.
        adds: whether a text gets the first and the last token of its kind.
        template: of chats, or None.
    """

    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str]
    pre: str
    special: Mapping[str, int]
    adds: tuple[bool, bool]
    template: str | None

    def write(self, writer: Any) -> None:
        """Put it into a file (a `gguf.GGUFWriter`)."""
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for name, token in self.special.items():
            getattr(writer, f"add_{name}_token_id")(token)
        writer.add_add_bos_token(self.adds[0])
        writer.add_add_eos_token(self.adds[1])
        if self.template is not None:
            writer.add_chat_template(self.template)


def vocabulary_of(tokenizer: Any, rows: int) -> Vocabulary:
    """A tokenizer's vocabulary for a model with `rows` embeddings; rows without a token get a name that is not used.

    Raises BeftError: a tokenizer that is not byte-level BPE, or splits or changes texts in a way without a name here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused("it has no tokenizer.json")
    made = json.loads(backend.to_str())
    model, splits = made["model"], _splits(made.get("pre_tokenizer"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or splits[-1:] != ("ByteLevel",):
        raise _refused(f"it is of the kind {model.get('type')} over characters, not byte-level BPE")
    if splits not in SPLITS:
        raise _refused("it splits texts in a way that llama.cpp has no name for here")
    if (made.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        raise _refused(f"it changes texts first ({made['normalizer']['type']})")
    by_id = {i: token for token, i in tokenizer.get_vocab().items()}
    if max(by_id, default=0) >= rows:
        raise _refused(f"it has more tokens ({max(by_id) + 1}) than the model has embeddings ({rows})")
    added = tokenizer.added_tokens_decoder
    types = [
        CONTROL if i in added and added[i].special else USER_DEFINED if i in added else NORMAL for i in range(rows)
    ]
    types = [sort if i in by_id else UNUSED for i, sort in enumerate(types)]
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return Vocabulary(
        [by_id.get(i, f"[PAD{i}]") for i in range(rows)],
        types,
        merges,
        SPLITS[splits],
        {name: token for name, token in special.items() if token is not None},
        _adds(tokenizer),
        tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
    )


def check_reads_alike(own: Any, back: Any) -> None:
    """Raise BeftError where a tokenizer that came back from a file gives other tokens than the one that went in.

    Both are asked for TEXTS, and for the text of every token.
    """
    for token in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if getattr(own, token) != getattr(back, token):
            raise _refused(f"its {token} comes back as {getattr(back, token)!r}")
    texts = [*TEXTS, *own.batch_decode([[i] for i in own.get_vocab().values()])]
    for text, one, other in zip(texts, own(texts).input_ids, back(texts).input_ids):
        if one != other:
            raise _refused(f"the text {text[:40]!r} comes back as other tokens")


def _splits(pre: Any) -> tuple[str, ...]:
    """What splits a text, step by step: the name of a step, or its pattern; of one with unusual settings its whole."""
    if pre is None:
        return ()
    if pre["type"] == "Sequence":
        return tuple(step for inner in pre["pretokenizers"] for step in _splits(inner))
    if pre["type"] == "Split" and pre["behavior"] == "Isolated" and not pre["invert"]:
        return (pre["pattern"].get("Regex", ""),)
    usual = {"ByteLevel": not pre.get("add_prefix_space"), "Digits": pre.get("individual_digits")}
    return (pre["type"] if usual.get(pre["type"]) else json.dumps(pre),)


def _adds(tokenizer: Any) -> tuple[bool, bool]:
    """Whether a tokenizer puts its first token before a text, and its last one behind."""
    plain, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    before = whole[: len(whole) - len(plain)] == [tokenizer.bos_token_id] or whole[0] != plain[0]
    return before, whole[-1] != plain[-1]


def _refused(reason: str) -> BeftError:
    return BeftError(
        f"the tokenizer cannot be written into a GGUF file, as {reason}: export safetensors, and convert them with "
        "llama.cpp's convert_hf_to_gguf.py"
    )
