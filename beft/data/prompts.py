"""The eleven decoder tasks of the paper, and four generated ones, as text: what is asked, and what is right.

Prompts and options are those of PROTOCOL, decoders.

Data, not code: a further task is a further entry of `PROMPTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BeftError, unknown

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """One row as text.

    Attributes:
        prompt: what the model is given.
        options: what may follow it, with the space before it; none where the answer is generated.
        label: which option is right; -1 where the answer is generated, or several are right (`right`).
        answers: texts that are right answers of a generation.
        keep: the first character of `prompt` that must not be cut where the context is too short; all before it may be.
        right: all options that are right.
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
        suite: "glue", "super_glue", the data set's own name on the hub, or "microworld" for generated text.
        columns: those that are read.
        write: row -> Example.
        form: "options" (cross-entropy over the options' mean log-probabilities), "choice" (the right option's tokens
            are trained, the best mean log-probability is taken) or "answer" (its tokens are trained, an answer is
            generated).
        metric: "accuracy", "macro_f1" or "f1" (of tokens).
        rate: the paper's.
        max_length: tokens of a prompt with its answer.
    """

    task: str
    suite: str
    columns: tuple[str, ...]
    write: Callable[[Row], Example]
    form: str = "options"
    metric: str = "accuracy"
    rate: float = 1e-3
    max_length: int = 2048


def _after(context: str, question: str, options: tuple[str, ...], label: int) -> Example:
    """An example whose context may be cut and whose question may not."""
    return Example(context + question, options, label, keep=len(context))


def _sst2(row: Row) -> Example:
    return Example(f"{row['sentence'].strip()} It was", (" terrible", " great"), row["label"])


def _rte(row: Row) -> Example:
    question = f'\nDoes this mean that "{row["sentence2"]}" is true? Yes or No?\n'
    return _after(row["sentence1"], question, ("Yes", "No"), row["label"])


def _sentiment(row: Row) -> Example:
    """Asked in words that the small models of this package know but never read of a part: it has to be tuned."""
    return Example(f"{row['sentence'].strip()} All in all,", (" bad", " good"), row["label"])


def _entailment(row: Row) -> Example:
    """RTE's question in words of theirs; RTE's own they never read together. "Tell me" is of questions about a story
    there, so that the answer has to be tuned."""
    conclusion = _lowered(row["hypothesis"].strip()).removesuffix(".")
    question = f"\nTell me: does it follow that {conclusion}?"
    return _after(row["premise"], question, (" Yes", " No"), row["label"])


def _cb(row: Row) -> Example:
    question = f' Can we infer that "{row["hypothesis"]}"? Yes, No, or Maybe?\n'
    return _after(f"Suppose {row['premise']}", question, ("Yes", "No", "Maybe"), row["label"])


def _boolq(row: Row) -> Example:
    question = row["question"]
    asked = question if question.endswith("?") else f"{question}?"
    return _after(row["passage"], f" {asked[:1].upper()}{asked[1:]}\n", ("No", "Yes"), row["label"])


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
    question = (
        f'\nQuestion: {row["question"]}\nI found this answer "{row["answer"]}". Is that correct? Yes or No?\n'
    )
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
        raise BeftError(
            f"the answer {row['answers'][0]!r} of a record row is none of its entities: correct the row"
        )
    return Example(
        f"{passage}\n",
        tuple(f"- {row['query'].replace('@placeholder', name)}" for name in entities),
        right[0] if right else -1,
        right=right,
    )


def _squad(row: Row) -> Example:
    start = f"Title: {row['title']}\nContext: {row['context']}"
    answers = tuple(dict.fromkeys(row["answers"]["text"]))
    prompt = f"{start}\nQuestion: {row['question'].strip()}\nAnswer:"
    return Example(prompt, answers=answers, keep=len(start))


def _drop(row: Row) -> Example:
    start = f"Passage: {row.get('context', row.get('passage'))}"
    answers = row["answers_spans"]["spans"] if "answers_spans" in row else row["answers"]
    prompt = f"{start}\nQuestion: {row['question'].strip()}\nAnswer:"
    return Example(prompt, answers=tuple(dict.fromkeys(answers)), keep=len(start))


PROMPTS: dict[str, Prompt] = {
    prompt.task: prompt
    for prompt in (
        Prompt("sst2", "glue", ("sentence", "label"), _sst2),
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
        Prompt("microworld_sentiment", "microworld", ("sentence", "label"), _sentiment),
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
