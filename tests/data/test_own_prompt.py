"""A prompt of one's own: rows and options as text, and one sentence for a template or labels that do not fit them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_files import write

from beft.data.own_prompt import Template, parse, wording
from beft.data.prompts import Example
from beft.data.sources import load, load_prompts
from beft.errors import BeftError

TEMPLATE = "{title}: {text}\nSentiment: {label}"
LABELS = {"pos": "good", "neg": "bad"}


def rows(count: int = 20, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"title": f"title {i}", "text": f"the film was number {i}", "label": ("neg", "pos")[i % 2]}
        for i in range(first, first + count)
    ]


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    return write(tmp_path / "reviews.csv", rows())


# --- rows as text -----------------------------------------------------------------------------------------------------


def test_rows_become_prompts_whose_options_have_the_space_in_front(reviews: str) -> None:
    data = load_prompts(reviews, template=TEMPLATE, labels=LABELS)
    assert data.task.labels == ("neg", "pos") and data.task.metric == "accuracy" and data.prompt is not None
    assert data.train.rows[0] == Example(
        "title 0: the film was number 0\nSentiment:", (" bad", " good"), 0, keep=len("title 0: the film was number 0")
    )
    assert [e.label for e in data.train.rows] == data.train.labels.tolist()
    assert data.summary.startswith("reviews.csv: 20 rows, 2 classes: neg (10), pos (10); 16 rows to train on, 4 to")
    assert data.majority == {"accuracy": 0.5}


def test_the_cut_is_that_of_the_same_rows_with_a_head(reviews: str) -> None:
    prompted, classified = load_prompts(reviews, template="{text}\n{label}"), load(reviews)
    for split in ("train", "validation"):
        texts = [example.prompt for example in getattr(prompted, split).rows]
        assert texts == [f"{text}\n" for (text,) in getattr(classified, split).rows]
        assert getattr(prompted, split).labels.tolist() == getattr(classified, split).labels.tolist()


def test_without_labels_the_labels_are_the_options(reviews: str) -> None:
    assert load_prompts(reviews, template="{text}\nIt is {label}").train.rows[0].options == (" neg", " pos")
    assert load_prompts(reviews, template="{text}\n{label}").train.rows[0].options == ("neg", "pos")


def test_other_templates_and_options_are_other_data(reviews: str) -> None:
    prints = {
        load_prompts(reviews, template=template, labels=labels).fingerprint
        for template in (TEMPLATE, "{text}\nSentiment: {label}")
        for labels in (LABELS, None, {"pos": "fine", "neg": "bad"})
    }
    assert len(prints) == 6
    again = load_prompts(reviews, template=TEMPLATE, labels=dict(reversed(LABELS.items())))
    assert again.fingerprint in prints, "the order of the options is that of the classes"


def test_braces_in_pairs_and_in_cells_are_text() -> None:
    template = parse("{{json}} {a}{b} {label}")
    assert template.columns == ("a", "b") and template.filled(["{label}", "{{"])[0] == "{json} {label}{{"


@given(st.lists(st.text(), min_size=3, max_size=3))
def test_a_prompt_holds_every_cell_and_what_follows_the_longest_is_kept(cells: list[str]) -> None:
    template = parse("{a} by {b}\n{c}!\n{a}?\nIt is {label}")
    prompt, keep = template.filled(cells)
    a, b, c = map(str.strip, cells)
    assert prompt == f"{a} by {b}\n{c}!\n{a}?\nIt is" and template.space == " "
    longest = max((a, b, c), key=len)
    assert prompt[:keep].endswith(longest) and prompt[keep:].endswith("It is")


@given(st.text(alphabet="ab {}\n:.", max_size=12))
def test_a_template_is_read_or_refused_in_a_sentence(text: str) -> None:
    try:
        template = parse(text + "{label}")
    except BeftError as error:
        assert "\n" not in str(error) and len(str(error)) > 30
        return
    assert template.columns and not template.parts[-1][0].endswith((" ", "\t"))


def test_a_row_of_a_table_is_written_with_and_without_its_label() -> None:
    words = wording(parse("{text} {label}"), ("0", "1"), {"0": "no", "1": "yes"}, "here")
    assert words.write({"text": " so ", "label": "1"}) == Example("so", (" no", " yes"), 1, keep=2)
    assert words.write({"text": "so"}).label == -1
    assert words.words == {"0": "no", "1": "yes"}


def test_numbers_of_a_column_are_text_and_labels_by_number_are_found(tmp_path: Path) -> None:
    own = [{"stars": i % 5, "share": i / 4, "text": f"t{i}", "label": i % 2} for i in range(12)]
    data = load_prompts(
        write(tmp_path / "a.parquet", own),
        template="{stars}, {share}: {text} {label}",
        labels={"0": "no", "1.0": "yes"},
    )
    assert data.train.rows[0].prompt == "0, 0: t0" and data.train.rows[0].options == (" no", " yes")
    assert data.train.rows[1].prompt == "1, 0.25: t1"


def test_a_label_is_found_by_any_spelling_that_the_file_has(tmp_path: Path) -> None:
    own = rows() + [{"title": "t", "text": f"u{i}", "label": "POS"} for i in range(2)]
    data = load_prompts(write(tmp_path / "a.csv", own), template=TEMPLATE, labels={"Pos": "good", "neg": "bad"})
    assert data.task.labels == ("neg", "pos") and "POS (2) counted as pos" in data.summary


def test_a_data_frame_and_a_folder_of_splits_are_prompted_too(tmp_path: Path) -> None:
    frame = load_prompts(pd.DataFrame(rows()), template=TEMPLATE, columns={"text": "text", "label": "label"})
    assert len(frame.train) == 16
    write(tmp_path / "mine" / "train.csv", rows())
    write(tmp_path / "mine" / "validation.jsonl", rows(4, first=100))
    folder = load_prompts(str(tmp_path / "mine"), template=TEMPLATE, labels=LABELS)
    assert (len(folder.train), len(folder.validation)) == (20, 4)
    given = load_prompts(
        str(tmp_path / "mine" / "train.csv"), template=TEMPLATE, validation=str(tmp_path / "mine" / "validation.jsonl")
    )
    assert [e.prompt for e in given.validation.rows] == [e.prompt for e in folder.validation.rows]


def test_only_so_many_validation_rows_are_scored(reviews: str) -> None:
    whole, some = (load_prompts(reviews, template=TEMPLATE, evaluated=n) for n in (None, 2))
    assert len(some.validation) == 2 and some.fingerprint != whole.fingerprint
    assert some.task == whole.task and some.prompt.wording == whole.prompt.wording
    assert some.summary == whole.summary + ", of which 2 are scored" and whole.summary.endswith("(a fixed fifth)")
    assert load(reviews, evaluated=2).summary.endswith("4 to validate (a fixed fifth), of which 2 are scored")


# --- one sentence each ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{txt}\nIt is {label}", r"unknown column of reviews.csv in the template 'txt': did you mean text"),
        ("It is {label}", r"has no place for a text: name a column of the file in it, such as \{text\}"),
        ("{text}\nSentiment:", r"has no place for the label: write \{label\} at its end"),
        ("{text}\nSentiment: ", r"has no place for the label, and ends in a space: write \{label\} at its end"),
        ("{text} {label} ", r"goes on behind \{label\} with ' ', .*: end it with \{label\}"),
        ("{label} {text}", r"goes on behind \{label\} with ' \{text\}'"),
        ("{text} {label}{label}", r"goes on behind \{label\} with '\{label\}'"),
        ("{text}:  {label}", r"'\{text\}:  \{label\}' has '  ' in front of \{label\}, .*: write one space"),
        ("{text}:\t{label}", r"has '\\t' in front of \{label\}"),
        ("{text}{label}", r"the option 'bad' .* would be written onto the column in front"),
        ("{text} is{label}", r"the option 'bad' .* would be written onto the text ' is' in front"),
        ("{text {label}", r"has a brace without its other one \(.*\): write \{\{ or \}\}"),
        ("{text}} {label}", r"has a brace without its other one"),
        ("{} {label}", r"has braces with no name, or more than a name"),
        ("{text:>9} {label}", r"has braces with no name, or more than a name"),
        ("{text!r} {label}", r"has braces with no name, or more than a name"),
        (" ", r"template ' ' is no text"),
        (3, r"template 3 is no text"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused(reviews: str, template: Any, message: str) -> None:
    with pytest.raises(BeftError, match=message):
        load_prompts(reviews, template=template, labels=LABELS)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"pos": "good"}, r"labels has no option for 'neg' of reviews.csv: add one, as in labels=\{'neg': 'its"),
        (LABELS | {"nue": "so"}, r"unknown label of reviews.csv in labels 'nue': did you mean neg"),
        (LABELS | {"NEG": "so"}, r"labels has two options for the label 'neg'"),
        ({"pos": 3, "neg": "bad"}, r"labels has 3 for 'pos', and both must be text"),
        (["good", "bad"], r"labels \['good', 'bad'\] are no options by label"),
        ({"pos": "good", "neg": "good"}, r"the labels 'neg' and 'pos' have the same option 'good'"),
        ({"pos": " good", "neg": "bad"}, r"the option ' good' .* begins with a space behind that of the template"),
        ({"pos": "good ", "neg": "bad"}, r"the option 'good ' of the label 'pos' ends in a space"),
        ({"pos": "", "neg": "bad"}, r"the option '' of the label 'pos' is empty"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(reviews: str, labels: dict[str, str], message: str) -> None:
    with pytest.raises(BeftError, match=message):
        load_prompts(reviews, template=TEMPLATE, labels=labels)


def test_an_option_may_bring_the_space_itself(reviews: str) -> None:
    data = load_prompts(reviews, template="{text} It is{label}", labels={"pos": " good", "neg": " bad"})
    spaced = load_prompts(reviews, template="{text} It is {label}", labels=LABELS)
    assert data.train.rows == spaced.train.rows and data.fingerprint == spaced.fingerprint
    with pytest.raises(BeftError, match="the option '  good' .* begins with more than one space"):
        load_prompts(reviews, template="{text} It is{label}", labels={"pos": "  good", "neg": " bad"})


def test_scripts_without_spaces_need_none() -> None:
    words = wording(parse("{text}。情感是{label}"), ("a", "b"), {"a": "好", "b": "坏"}, "here")
    assert words.options == ("好", "坏")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a.csv is empty: it needs a line with the column names"),
        ("title,text,label\n", "a.csv has no rows"),
        ("title,text,label\nx,,pos\ny,b,neg\n", "row 1 of a.csv has an empty 'text'"),
        ("title,text,label\nx,a,\ny,b,neg\n", "row 1 of a.csv has an empty label"),
        ("title,text,class\nx,a,pos\n", "a.csv lacks the column 'label'"),
        ("title,text,label\n" + "".join(f"x,a{i},pos\n" for i in range(4)), "all rows of a.csv have the label 'pos'"),
        (
            "title,text,label\n" + "".join(f"x,a{i},{i / 4}\n" for i in range(9)),
            "are values, and a prompt has an option",
        ),
    ],
)
def test_a_file_without_usable_rows_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(BeftError, match=message):
        load_prompts(str(tmp_path / "a.csv"), template=TEMPLATE)


def test_what_is_for_rows_of_ones_own_is_refused_for_a_task_with_a_prompt() -> None:
    for option in ({"template": TEMPLATE}, {"labels": LABELS}, {"validation": "a.csv"}):
        with pytest.raises(
            BeftError, match=f"{next(iter(option))} can be given for rows of one's own, not for .* 'copa'"
        ):
            load_prompts("copa", **option)  # type: ignore[arg-type]
    with pytest.raises(BeftError, match="kind='values' is for a regression"):
        load_prompts(pd.DataFrame(rows()), template=TEMPLATE, kind="values")


def test_a_part_of_a_template_that_is_long_is_shown_short() -> None:
    with pytest.raises(BeftError) as error:
        parse("word " * 1000)
    assert len(str(error.value)) < 300
    assert isinstance(parse("word " * 1000 + "{text} {label}"), Template)
