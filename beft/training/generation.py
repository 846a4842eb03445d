"""Answers written by a language model, greedily and many at a time, and how close they come."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from ..bank.bank import as_bank
from ..data.batching import padded
from ..data.choices import encode_options
from ..data.prompts import Example

NEW_TOKENS = 50  # PROTOCOL, decoders


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int,
    runs: Sequence[int] | np.ndarray | None = None,
    before: str = "",
    new_tokens: int = NEW_TOKENS,
    at_once: int = 16,
) -> list[str]:
    """What the model writes behind each prompt, up to a line's end.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        max_length: tokens of prompt and answer together; see `choices.encode_options` for what is cut.
        runs: of a bank, which run writes each answer (N,); the first by default.
        before: text in front of every prompt, such as demonstrations.
        at_once: prompts in a batch; they are sorted by length and padded on the left.

    Raises:
        BeftError: a prompt of which nothing more may be cut.
    """
    bank = as_bank(model)
    ends = bank.model.generation_config
    owner = np.zeros(len(examples), dtype=np.int64) if runs is None else np.asarray(runs)
    longest = max_length - new_tokens
    bare = [Example(e.prompt, keep=e.keep) for e in examples]
    prompts = [encode_options(tokenizer, example, longest, before).sequences[0] for example in bare]
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=new_tokens,
        stop_strings=["\n"],
        pad_token_id=0,
        eos_token_id=ends.eos_token_id,
        bos_token_id=ends.bos_token_id,
    )
    texts = [""] * len(examples)
    order = np.argsort([-len(ids) for ids in prompts], kind="stable")
    for start in range(0, len(order), at_once):
        part = order[start : start + at_once]
        ids, mask = (x.to(bank.device) for x in padded([prompts[i] for i in part], left=True))
        with bank.running(torch.from_numpy(owner[part]).to(bank.device)) as plain:
            out = plain.generate(input_ids=ids, attention_mask=mask, generation_config=config, tokenizer=tokenizer)
        for i, row in zip(part, out[:, ids.shape[1] :].tolist(), strict=True):
            texts[i] = tokenizer.decode(row, skip_special_tokens=True).partition("\n")[0].strip()
    return texts


def token_f1(text: str, answers: Sequence[str]) -> float:
    """F1 of the words of a text against the answer it comes closest to, as SQuAD counts it: in [0, 1].

    Case, punctuation and articles do not count. Where either has no word, both must have none.
    """
    return max((_f1(_words(text), _words(answer)) for answer in answers), default=0.0)


def _f1(given: list[str], right: list[str]) -> float:
    if not given or not right:
        return float(given == right)
    common = sum((Counter(given) & Counter(right)).values())
    return 2 * common / (len(given) + len(right))


def _words(text: str) -> list[str]:
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()
