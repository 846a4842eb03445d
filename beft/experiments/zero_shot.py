"""A language model as it is: zero-shot, and with demonstrations in front of every prompt (in-context learning)."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.batching import encode_options
from ..data.datasets import Dataset, draw
from ..data.prompts import Example, choice_score
from ..errors import BeftError
from ..models.tokens import check_length
from ..records.provenance import build_record
from ..records.store import Store
from ..study import Study
from ..training.device import default_device
from ..training.prompting import NEW_TOKENS, generate, option_scores, token_f1
from .context import MODEL_AND_DATA, Context

Record = dict[str, Any]
IDENTITY = (*MODEL_AND_DATA, "max_length")
BETWEEN = "\n\n"  # demonstrations and the prompt


def score_untuned(study: Study, seeds: Sequence[int], store: Store, demonstrations: int = 0) -> list[Record]:
    """The validation score of a model that nothing is tuned of, one record per seed; what `store` has is not repeated.

    Args:
        study: of a prompted task; of its settings the model, task, validation rows, regime, max_length and dtype count.
        seeds: each draws its demonstrations, the first of the rows that a run with this seed is trained on; without
            demonstrations there is nothing to draw, and one record.
        demonstrations: how many (PROTOCOL: 32). Where they do not fit beside the longest prompt, as many as do; the
            record has their number.

    Raises BeftError: as `data.load_prompts` and `models.load_causal`; a study that is not prompted.
    """
    if not study.prompted:
        raise BeftError(f"{study.task} is to be classified here: give a study with prompted=True")
    context = Context(study)
    common = {n: v for n, v in context.common().items() if n in IDENTITY}
    if study.dtype != "bfloat16":  # not named in the first records, all of which are in bfloat16
        common["dtype"] = study.dtype
    records = []
    for seed in seeds if demonstrations else [0]:
        wanted = common | {"kind": "untuned", "demonstrations": demonstrations, "seed": seed}
        wanted |= {"regime": study.regime} if demonstrations else {}
        if store.find(wanted) is None:
            store.check_writable()
            store.write(_record(context, wanted))
        records.append(store.read(store.name(wanted)))
    return records


def _record(context: Context, settings: dict[str, Any]) -> Record:
    began = time.perf_counter()
    loaded, data = context.loaded, context.data
    assert data.prompt is not None
    loaded.model.to(default_device())
    longest = min(context.study.max_length, data.prompt.max_length)
    check_length(loaded.model, longest)
    before, used = "", 0
    if settings["demonstrations"]:
        rows = draw(data, context.study.regime, settings["seed"]).train[: settings["demonstrations"]]
        examples = [data.train.rows[i] for i in rows]
        before, used = fitting(loaded.tokenizer, examples, data.validation.rows, longest)
    value = evaluate(loaded.model, loaded.tokenizer, data, longest, before)
    return build_record(
        "untuned",
        settings,
        context.subject(),
        default_device(),
        demonstrations=used,
        validation=value,
        seconds=time.perf_counter() - began,
    )


def evaluate(model: Any, tokenizer: Any, data: Dataset, longest: int, before: str = "") -> float:
    """The task's metric on the validation examples, `before` in front of each prompt."""
    assert data.prompt is not None
    examples = data.validation.rows
    if data.prompt.form == "answer":
        texts = generate(model, tokenizer, examples, longest, before=before)
        return float(np.mean([token_f1(text, e.answers) for text, e in zip(texts, examples, strict=True)]))
    scored = option_scores(model, [encode_options(tokenizer, e, longest, before) for e in examples])
    best = np.array([int(np.argmax(s.mean)) for s in scored])
    return choice_score(data.prompt.metric, examples, best)


def demonstration(example: Example) -> str:
    """An example with its right option, or answer, behind the prompt."""
    return example.prompt + (example.options[example.label] if example.options else f" {example.answers[0]}")


def fitting(tokenizer: Any, examples: Sequence[Example], prompts: Sequence[Example], longest: int) -> tuple[str, int]:
    """The text of as many demonstrations as fit in front of the longest prompt, and how many those are."""

    def length(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    # a prompt with its longest option, or with an answer's room
    room = longest - max(
        max((length(e.prompt + option) for option in e.options), default=length(e.prompt) + NEW_TOKENS) for e in prompts
    )
    text, used = "", 0
    for example in examples:
        more = text + demonstration(example) + BETWEEN
        if length(more) > room:
            break
        text, used = more, used + 1
    return text, used
