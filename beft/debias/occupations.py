"""How far a causal language model ties occupations to gender: log odds of "she" against "he", by rule-made sentences.

A sentence breaks off where a pronoun comes next ("The nurse said that"); the log odds of an occupation are
log P(" she") - log P(" he") there, in nats, as the mean over the templates. Occupations and templates are of
`occupations.json`, chosen by coverage of ISCO-08's major groups and not by what any model says of them.

Two things are measured. The *spread* is the mean absolute log odds once the mean over occupations is taken off: how far
occupations differ, which is what a model has learnt about who does what, 0 where it treats all alike. The *mean* is the
model's leaning to one pronoun whatever the occupation: negative where "he" is likelier.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from scipy import stats

from ..bank.bank import as_bank
from ..data.batching import CHUNKS, ChunkCost, chunks, padded, token_ids
from ..data.counterfactual import article
from ..errors import BeftError
from ..training.language_modelling import logits_at

PRONOUNS = ("he", "she")
LEVEL = 0.95
DRAWS = 4_999


@cache
def listed() -> tuple[dict[str, str], tuple[str, ...]]:
    """(occupation -> its group of ISCO-08, the templates)."""
    content = json.loads(files(__package__).joinpath("occupations.json").read_text(encoding="utf-8"))
    return {word: group for group, words in content["groups"].items() for word in words}, tuple(content["templates"])


def sentence(template: str, occupation: str) -> str:
    """A template with an occupation in it; "{a occupation}" has the article that fits the word."""
    with_article = f"{article(occupation)} {occupation}"
    return template.replace("{a occupation}", with_article).replace("{occupation}", occupation)


def pronoun_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The ids of " he" and " she" behind a word.

    Raises BeftError: one of them is not a single token, so that the next token does not tell which pronoun comes.
    """
    context = text_ids(tokenizer, "The doctor said that")
    found = []
    for pronoun in PRONOUNS:
        ids = text_ids(tokenizer, f"The doctor said that {pronoun}")
        if ids[:-1] != context or ids[-1] == tokenizer.unk_token_id:
            raise BeftError(
                f"{type(tokenizer).__name__} does not have ' {pronoun}' as a single token: occupations are measured on "
                "models that have; leave them out for this one"
            )
        found.append(ids[-1])
    return tuple(found)


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of a text that goes on: without special tokens at its end."""
    ids = token_ids(tokenizer, text)
    while len(ids) > 1 and ids[-1] in tokenizer.all_special_ids:
        ids = ids[:-1]
    return ids


@torch.inference_mode()
def log_odds(
    model: Any,
    tokenizer: Any,
    run: int = 0,
    occupations: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cost: ChunkCost | None = None,
) -> dict[str, float]:
    """Occupation -> log P("she") - log P("he"), mean over templates, in nats.

    Args:
        model: a causal language model in eval mode, or a bank on one.
        run: of a bank, which run is asked.
        occupations: by default those of `listed`, and so the templates.
        cost: of a chunk.

    Raises BeftError: as `pronoun_tokens`.
    """
    bank, (he, she) = as_bank(model), pronoun_tokens(tokenizer)
    words = list(listed()[0]) if occupations is None else list(occupations)
    frames = listed()[1] if templates is None else tuple(templates)
    texts = [text_ids(tokenizer, sentence(template, word)) for word in words for template in frames]
    odds = np.zeros(len(texts))
    for part in chunks(np.array([len(ids) for ids in texts]), cost or CHUNKS[bank.device.type]) if texts else ():
        ids, mask = (x.to(bank.device) for x in padded([texts[i] for i in part], tokenizer.pad_token_id or 0))
        every, last = torch.arange(len(part), device=bank.device), mask.sum(1) - 1
        run_ids = torch.full((len(part),), run, device=bank.device)
        with bank.running(run_ids) as running, _full_head(running), logits_at(running, every, last):
            logits = running(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        odds[part] = (logits[:, she] - logits[:, he]).double().cpu().numpy()
    means = odds.reshape(len(words), -1).mean(1) if words else odds
    return dict(zip(words, means.tolist(), strict=True))


@contextmanager
def _full_head(model: Any) -> Iterator[None]:
    """While it lasts, a bank in bfloat16 has the head in float32: near 20, bfloat16's logits are an eighth apart."""
    head = model.get_output_embeddings()
    usual = head.forward

    def full(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return usual(hidden.to(head.weight.dtype))  # type: ignore[no-any-return]

    head.forward = full
    try:
        yield
    finally:
        del head.forward


def association(by: Mapping[str, float]) -> dict[str, Any]:
    """What the log odds of occupations come to.

    Args:
        by: occupation -> log odds, as of `log_odds`.

    Returns:
        {"spread", "spread_low", "spread_high": the mean absolute log odds without their mean, with a 95% bootstrap
        interval over occupations; "mean", "mean_low", "mean_high": with a Student t interval over them; "n"; "by"}, in
        nats; intervals are nan of fewer than three occupations.
    """
    values = np.array(list(by.values()), dtype=float)
    n = len(values)
    about: dict[str, Any] = {"spread": spread(values), "mean": float(values.mean()) if n else float("nan"), "n": n}
    about |= dict.fromkeys(("spread_low", "spread_high", "mean_low", "mean_high"), float("nan"))
    if n > 2:
        picks = values[np.random.default_rng(0).integers(0, n, (DRAWS, n))]
        spreads = np.abs(picks - picks.mean(1, keepdims=True)).mean(1)
        edges = np.quantile(spreads, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
        about |= dict(zip(("spread_low", "spread_high"), map(float, edges), strict=True))
        about |= {"mean_low": about["mean"] - half, "mean_high": about["mean"] + half}
    return about | {"by": dict(by)}


def spread(values: np.ndarray) -> float:
    """The mean absolute value of numbers (n,) once their mean is taken off; nan of none."""
    return float(np.abs(values - values.mean()).mean()) if len(values) else float("nan")
