"""Decoder tasks as text: the paper's eleven, four of rated sentences and four generated ones.

Prompts and options are those of PROTOCOL, decoders; those of rated sentences are SST-2's. Another task
is another entry of `PROMPTS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BeftError, unknown
from .files import Table, require_columns, rows_of
from .tasks import score

if TYPE_CHECKING:
    from .own_prompt import Wording

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One row as text.

    Attributes:
        prompt: the text in front of the answer.
        options: possible continuations, with their leading space; none where the answer is generated.
        label: index of the right option; -1 where the answer is generated or no single option is right.
        answers: right answers of a generation.
        keep: index of the first character of `prompt` that must not be cut if the prompt is too long.
        right: indices of all right options, where there may be several.
    """

    prompt: str
    options: tuple[str, ...] = ()
    label: int = -1
    answers: tuple[str, ...] = ()
    keep: int = 0
    right: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """How rows of a task become text.

    Attributes:
        task: its name.
        suite: "glue", "super_glue", the data set's own name on the hub, "rated_sentences", or "microworld" for
            generated text.
        columns: those that are read, in the order of a generated row.
        write: row -> Example.
        form: "options" (cross-entropy over the options' mean log-probabilities), "choice" (trained on the tokens of
            the right option, predicted by the highest mean log-probability) or "answer" (trained on its tokens, and
            generated).
        metric: "accuracy", "macro_f1" or "f1" (of tokens).
        rate: the paper's.
        max_length: tokens of a prompt with its answer.
        wording: of rows of one's own, its template and the option of each label.
    """

    task: str
    suite: str
    columns: tuple[str, ...]
    write: Callable[[Row], Example]
    form: str = "options"
    metric: str = "accuracy"
    rate: float = 1e-3
    max_length: int = 2048
    wording: Wording | None = None


def _after(context: str, question: str, options: tuple[str, ...], label: int) -> Example:
    """An example whose context may be cut, but not its question."""
    return Example(context + question, options, label, keep=len(context))


def _opinion(end: str, options: tuple[str, str], row: Row) -> Example:
    return Example(f"{row['sentence'].strip()} {end}", options, row["label"])


_sentiment = partial(_opinion, "It was", (" terrible", " great"))


def _rte(row: Row) -> Example:
    question = f'\nDoes this mean that "{row["sentence2"]}" is true? Yes or No?\n'
    return _after(row["sentence1"], question, ("Yes", "No"), row["label"])


def _entailment(row: Row) -> Example:
    """RTE's question in words that the small models know. In their text "Tell me" introduces questions about a story,
    so that the answer must be tuned."""
    conclusion = _lowered(row["hypothesis"].strip()).removesuffix(".")
    question = f"\nTell me: does it follow that {conclusion}?"
    return _after(row["premise"], question, (" Yes", " No"), row["label"])


def _cb(row: Row) -> Example:
    question = f' Can we infer that "{row["hypothesis"]}"? Yes, No, or Maybe?\n'
    return _after(f"Suppose {row['premise']}", question, ("Yes", "No", "Maybe"), row["label"])


def _boolq(row: Row) -> Example:
    question = f"{row['question'].removesuffix('?')}?"
    return _after(row["passage"], f" {question[:1].upper()}{question[1:]}\n", ("No", "Yes"), row["label"])


def _wsc(row: Row) -> Example:
    question = (
        f'\nIn the previous sentence, does the pronoun "{row["span2_text"].lower()}" refer to {row["span1_text"]}? '
        "Yes or No?\n"
    )
    return _after(row["text"], question, ("No", "Yes"), row["label"])


def _wic(row: Row) -> Example:
    prompt = (
        f'Does the word "{row["word"]}" have the same meaning in these two sentences? Yes, No?\n{row["sentence1"]}\n'
        f"{row['sentence2']}\n"
    )
    return Example(prompt, ("No", "Yes"), row["label"])


def _multirc(row: Row) -> Example:
    question = f'\nQuestion: {row["question"]}\nI found this answer "{row["answer"]}". Is that correct? Yes or No?\n'
    return _after(row["paragraph"], question, ("No", "Yes"), row["label"])


def _copa(row: Row) -> Example:
    premise = row["premise"].strip()
    link = "because" if row["question"] == "cause" else "so"
    return Example(
        f"{premise.removesuffix('.')} {link}",
        tuple(f" {_lowered(row[name].strip())}" for name in ("choice1", "choice2")),
        row["label"],
    )


def _lowered(text: str) -> str:
    """The first letter in lower case, unless it is the word I."""
    first = text.split(" ", 1)[0]
    return text if first == "I" or first.startswith("I'") else text[:1].lower() + text[1:]


def _record(row: Row) -> Example:
    passage = row["passage"].replace("@highlight\n", "- ")
    entities = tuple(dict.fromkeys(row["entities"]))
    right = tuple(i for i, name in enumerate(entities) if name in row["answers"])
    if not right and len(row["answers"]):
        raise BeftError(f"the answer {row['answers'][0]!r} of a record row is none of its entities: correct the row")
    return Example(
        f"{passage}\n",
        tuple(f"- {row['query'].replace('@placeholder', name)}" for name in entities),
        right[0] if right else -1,
        right=right,
    )


def _answered(start: str, question: str, answers: Sequence[str]) -> Example:
    """A question whose answer is generated; only `start` may be cut."""
    prompt = f"{start}\nQuestion: {question.strip()}\nAnswer:"
    return Example(prompt, answers=tuple(dict.fromkeys(answers)), keep=len(start))


def _squad(row: Row) -> Example:
    start = f"Title: {row['title']}\nContext: {row['context']}"
    return _answered(start, row["question"], row["answers"]["text"])


def _drop(row: Row) -> Example:
    answers = row["answers_spans"]["spans"] if "answers_spans" in row else row["answers"]
    return _answered(f"Passage: {row.get('context', row.get('passage'))}", row["question"], answers)


PROMPTS: dict[str, Prompt] = {
    prompt.task: prompt
    for prompt in (
        Prompt("sst2", "glue", ("sentence", "label"), _sentiment),
        Prompt("rte", "glue", ("sentence1", "sentence2", "label"), _rte),
        Prompt("cb", "super_glue", ("premise", "hypothesis", "label"), _cb, rate=1e-2),
        Prompt("boolq", "super_glue", ("question", "passage", "label"), _boolq),
        Prompt("wsc", "super_glue", ("text", "span1_text", "span2_text", "label"), _wsc, rate=1e-2),
        Prompt("wic", "super_glue", ("word", "sentence1", "sentence2", "label"), _wic),
        Prompt("multirc", "super_glue", ("paragraph", "question", "answer", "label"), _multirc),
        Prompt("copa", "super_glue", ("premise", "choice1", "choice2", "question", "label"), _copa, "choice",
               rate=1e-4),
        Prompt("record", "super_glue", ("passage", "query", "entities", "answers"), _record, "choice", rate=1e-4),
        Prompt("squad", "squad", ("title", "context", "question", "answers"), _squad, "answer", "f1"),
        Prompt("drop", "drop", ("context", "question", "answers"), _drop, "answer", "f1", max_length=1536),
        *(Prompt(f"{kind}_sentiment", "rated_sentences", ("sentence", "label"), _sentiment)
          for kind in ("film", "product", "tweet", "editorial")),
        # In words that the small models know but never read about an aspect, so that it must be tuned.
        Prompt("microworld_sentiment", "microworld", ("sentence", "label"),
               partial(_opinion, "All in all,", (" bad", " good"))),
        Prompt("microworld_entailment", "microworld", ("premise", "hypothesis", "label"), _entailment),
        Prompt("microworld_choices", "microworld", ("premise", "choice1", "choice2", "question", "label"), _copa,
               "choice"),
        Prompt("microworld_questions", "microworld", ("context", "question", "answers"), _drop, "answer", "f1"),
    )
}  # fmt: skip


def get_prompt(task: str) -> Prompt:
    """The prompt of a task. Raises BeftError, with the nearest names, where there is none."""
    if task not in PROMPTS:
        raise unknown("decoder task", task, PROMPTS)
    return PROMPTS[task]


def examples(prompt: Prompt, table: Table, where: str) -> list[Example]:
    """The rows of a table as examples. Raises BeftError, with the row, for a missing or wrong column or label."""
    if prompt.task != "drop" or not {"passage", "answers_spans"} <= set(table):  # those are the hub's columns
        require_columns(table, prompt.columns, where)
    rows = rows_of(table)
    if not rows:
        raise BeftError(f"{where} has no rows: add some to it")
    return [_example(prompt, row, f"row {number} of {where}") for number, row in enumerate(rows, 1)]


def _example(prompt: Prompt, row: Row, where: str) -> Example:
    # NumPy's arrays and numbers, also inside cells, become lists and numbers of Python; None is for other types
    row = json.loads(json.dumps(row, default=lambda value: value.tolist() if hasattr(value, "tolist") else None))
    empty = [name for name in prompt.columns if name in row and row[name] in (None, "")]
    if empty:
        raise BeftError(f"{where} has an empty {empty[0]!r}: fill it in or remove the row")
    try:
        example = prompt.write(row)
    except (KeyError, TypeError, AttributeError) as error:
        raise BeftError(
            f"{where} is not as the hub's {prompt.task} has it ({type(error).__name__}: {error}): correct the row"
        ) from error
    if prompt.form == "answer":
        if not example.answers:
            raise BeftError(f"{where} has no answer: use a labelled split")
        return example
    label, count = example.label, len(example.options)
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < count:
        raise BeftError(
            f"{where} has the label {row.get('label', label)!r}: use a labelled split, with labels 0 to {count - 1}"
        )
    return example


def choice_score(metric: str, examples: Sequence[Example], best: np.ndarray) -> float:
    """The metric of chosen options (N,); where several are right, any of them is."""
    labels = np.array([int(b) if b in e.right else e.label for e, b in zip(examples, best, strict=True)])
    return score(metric, labels, best)


def majority_option(metric: str, examples: Sequence[Example]) -> float:
    """The metric of one option for every example, the one that is right most often; 0 where answers are generated."""
    counts = np.bincount([option for e in examples for option in (e.right or (e.label,)) if option >= 0])
    return choice_score(metric, examples, np.full(len(examples), counts.argmax())) if len(counts) else 0.0


PICKED = ("microworld_sentiment", "microworld_entailment", "microworld_choices")
"""Tasks whose wording was picked by the validation scores of tiny models, untuned and tuned: they enter no verdict."""
