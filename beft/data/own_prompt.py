"""A prompt of one's own: a template over the columns of a file, an option for each label, and rows that fill it in.

The space in front of an option belongs to the option, as in `prompts.PROMPTS`: most tokenizers make one token of a word
and the space before it.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import BeftError, brief, unknown
from ..study import options_by_label
from .datasets import Dataset, prompt_dataset
from .labels import meaning
from .own_file import read_own, source_of, splits_of, summary_of, task_of
from .prompts import Example, Prompt, Row

LABEL = "label"
_END = "write {label} at its end, as in '{text}\\nSentiment: {label}'"


@dataclass(frozen=True)
class Template:
    """The text of a prompt with places for cells.

    Attributes:
        text: as it was given, "{title}: {text}\\nSentiment: {label}".
        parts: (text, column behind it), of the last the text in front of the option, and "".
        space: what stands in front of an option, " " or "".
    """

    text: str
    parts: tuple[tuple[str, str], ...]
    space: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, in the order of their first places."""
        return tuple(dict.fromkeys(column for _, column in self.parts if column))

    def filled(self, cells: Sequence[str]) -> tuple[str, int]:
        """The prompt with the cells of `columns`, and where in it begins what must not be cut.

        That is what stands behind the longest cell. Spaces around a cell are left out.
        """
        own = {column: cell.strip() for column, cell in zip(self.columns, cells, strict=True)}
        prompt, keep, longest = "", 0, -1
        for text, column in self.parts:
            prompt += text + own.get(column, "")
            if column and len(own[column]) > longest:
                longest, keep = len(own[column]), len(prompt)
        return prompt, keep


@dataclass(frozen=True)
class Wording:
    """A template with the option of each label.

    Attributes:
        template: the text of the prompt.
        labels: names of the classes, in the order of their codes.
        options: of each label the text behind the prompt, with the space in front of it.
    """

    template: Template
    labels: tuple[str, ...]
    options: tuple[str, ...]

    def example(self, cells: Sequence[str], code: int = -1) -> Example:
        """A row as text; -1 where its label is not known."""
        prompt, keep = self.template.filled(cells)
        return Example(prompt, self.options, code, keep=keep)

    def write(self, row: Row) -> Example:
        """The same of the row of a table, whose label, if it has one, is a name of `labels`."""
        code = self.labels.index(str(row[LABEL])) if row.get(LABEL) is not None else -1
        return self.example([str(row[column]) for column in self.template.columns], code)

    @property
    def words(self) -> dict[str, str]:
        """The options by label, without what `template` puts in front of them: as `load_own_prompts` takes them."""
        cut = len(self.template.space)
        return {label: option[cut:] for label, option in zip(self.labels, self.options, strict=True)}


def parse(text: Any) -> Template:
    """A template from its text: columns in braces, `{label}` at its end, `{{` and `}}` for braces that are text.

    Raises BeftError: braces that do not pair or hold more than a name; no column; no `{label}`, several, or one that is
    not the end; more than one space in front of it.
    """
    if not isinstance(text, str) or not text.strip():
        raise BeftError(f"template {brief(text)} is no text: {_END}")
    shown = f"template {text!r}" if len(text) <= 100 else f"template {text[:60]!r}...{text[-30:]!r}"
    parts = _parts(text, shown)
    names = [name for _, name in parts if name]
    if LABEL not in names:
        space = ", and ends in a space" if text[-1] in " \t" else ""
        raise BeftError(f"{shown} has no place for the label{space}: {_END}")
    if parts[-1][1] != LABEL or names.count(LABEL) > 1:
        rest = text.partition("{label}")[2]
        raise BeftError(
            f"{shown} goes on behind {{label}} with {rest[:40]!r}, and what is scored is what a model writes last: end "
            "it with {label}"
        )
    if len(names) == 1:
        raise BeftError(f"{shown} has no place for a text: name a column of the file in it, such as {{text}}")
    before = parts[-1][0]
    bare = before.rstrip(" \t\r\f\v")
    space = before[len(bare) :]
    if space not in ("", " "):
        raise BeftError(
            f"{shown} has {space!r} in front of {{label}}, tokens of their own and no part of an option: write one "
            "space, or a line break"
        )
    return Template(text, (*parts[:-1], (bare, "")), space)


def _parts(text: str, shown: str) -> list[tuple[str, str]]:
    """(text, name in the braces behind it), of a last text ""; for messages the template is `shown`."""
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as error:
        raise BeftError(
            f"{shown} has a brace without its other one ({error}): write {{{{ or }}}} for a brace that is text"
        ) from error
    if any(name == "" or form or conversion for _, name, form, conversion in found):
        raise BeftError(f"{shown} has braces with no name, or more than a name: write the name of a column, {{text}}")
    return [(literal, name or "") for literal, name, _, _ in found]


def wording(template: Template, names: Sequence[str], labels: Mapping[str, str] | None, where: str) -> Wording:
    """The template with the options of the classes `names`; without `labels` their names are the options.

    Raises BeftError: a class of `where` without an option, an option without a class, two of one text, or one whose
    spaces, or lack of them, the template does not allow for.
    """
    words = list(names) if labels is None else _matched(names, labels, where)
    seen: dict[str, str] = {}
    for name, text in zip(names, words, strict=True):
        _check_option(template, name, text)
        if text in seen:
            raise BeftError(
                f"the labels {seen[text]!r} and {name!r} have the same option {text!r}: give each an option of its own"
            )
        seen[text] = name
    return Wording(template, tuple(names), tuple(template.space + text for text in words))


def _matched(names: Sequence[str], labels: Mapping[str, str], where: str) -> list[str]:
    """The option of each class; spellings that the file's reading merges mean the same here."""
    by_meaning = {meaning(name): name for name in names}
    found: dict[str, str] = {}
    for given, words in labels.items():
        name = by_meaning.get(meaning(given.strip()))
        if name is None:
            raise unknown(f"label of {where} in labels", given, names)
        if name in found:
            raise BeftError(f"labels has two options for the label {name!r} of {where}: leave one out")
        found[name] = words
    missing = [name for name in names if name not in found]
    if missing:
        shown = ", ".join(map(repr, missing[:10])) + (" and more" if len(missing) > 10 else "")
        raise BeftError(
            f"labels has no option for {shown} of {where}: add one, as in labels={{{missing[0]!r}: 'its words'}}, or "
            "leave such rows out of the file"
        )
    return [found[name] for name in names]


def _check_option(template: Template, name: str, text: str) -> None:
    """Raise BeftError for an option that would stand behind the prompt with two spaces, none, or one after it."""
    shown = f"the option {text!r} of the label {name!r}"
    if not text.strip():
        raise BeftError(f"{shown} is empty: give it words")
    if text[-1].isspace():
        raise BeftError(f"{shown} ends in a space, which would be a token of its own: leave it out")
    if text[0].isspace() and (template.space or text[1].isspace()):
        begins = "a space behind that of the template" if template.space else "more than one space"
        raise BeftError(f"{shown} begins with {begins}: leave one space, in one place")
    before = template.parts[-1][0]
    touches = not before or _is_latin(before[-1])
    if touches and not template.space and _is_latin(text[0]):
        what = f"the text {before[-10:]!r}" if before else "the column"
        raise BeftError(
            f"{shown} would be written onto {what} in front of {{label}}: put a space or a line break between them"
        )


def _is_latin(letter: str) -> bool:
    """A letter or digit of a script that writes spaces between words, as far as ASCII tells."""
    return letter.isascii() and letter.isalnum()


def load_own_prompts(
    source: Any,
    template: str | None,
    labels: Mapping[str, str] | None = None,
    *,
    kind: str | None = None,
    drop: str | Iterable[str] = (),
    validation: Any = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """The rows of a file, a folder or a data frame as examples; see `sources.load_prompts`."""
    parsed = parse(template)
    if kind == "values":
        raise BeftError("kind='values' is for a regression, and a prompt has an option for each class: leave it out")
    own = read_own(
        source,
        kind="classes" if labels is not None else kind,
        drop=drop,
        validation=validation,
        columns=columns,
        texts=parsed.columns,
    )
    where = " and ".join(one.where for one in own.tables)
    if own.kind == "values":
        raise BeftError(
            f"the labels of {where} are values, and a prompt has an option for each class: give labels={{...}} with an "
            "option for each, or leave template and prompted out for a regression"
        )
    splits, names = splits_of(own)
    words = wording(parsed, names, None if labels is None else options_by_label(labels), where)
    prompt = Prompt(own.name, "file", (*parsed.columns, LABEL), words.write, wording=words)
    task = replace(task_of(own, names, len(splits[0])), metrics=(prompt.metric,), rate=prompt.rate, epochs={"any": 5})
    train, held_out = (
        [words.example(row, int(code)) for row, code in zip(split.rows, split.labels, strict=True)] for split in splits
    )
    made = prompt_dataset(prompt, train, held_out, source_of(own, names), task=task)
    return replace(made, summary=summary_of(made, own))
