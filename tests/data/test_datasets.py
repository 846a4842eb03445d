"""What one answer for all rows of a data set reaches, which is what tuning has to beat."""

from dataclasses import replace

import numpy as np
import pytest

from beft.data.datasets import Split, labelled_dataset, prompt_dataset, text_dataset
from beft.data.prompts import Example, get_prompt
from beft.data.tasks import get_task

TRAIN = Split((("a",), ("b",)), np.array([0, 1]))


def _split(*labels):
    return Split(tuple((f"text {n}",) for n in range(len(labels))), np.array(labels))


def test_every_metric_of_every_validation_split_has_its_own():
    made = labelled_dataset(
        get_task("mnli"), TRAIN, _split(0, 0, 1, 2), "here", False, validation_mismatched=_split(2, 2, 2, 1)
    )
    assert made.majority == {"accuracy": 0.5, "accuracy (validation_mismatched)": 0.75}
    two = labelled_dataset(get_task("mrpc"), TRAIN, _split(1, 1, 1, 0), "here")
    assert two.majority == {"accuracy": 0.75, "f1": pytest.approx(6 / 7)}


def test_it_is_of_the_rows_that_are_scored_and_not_of_those_before_a_change():
    made = labelled_dataset(get_task("sst2"), TRAIN, _split(0, 0, 0, 1), "here")
    assert made.majority == {"accuracy": 0.75}
    assert replace(made, validation=_split(0, 1)).majority == {"accuracy": 0.5}


def test_values_and_texts_have_no_frequent_class():
    values = labelled_dataset(get_task("stsb"), _split(0.0, 5.0), _split(1.0, 2.5, 5.0), "here")
    assert values.majority == {"spearman": 0.0, "pearson": 0.0}
    assert text_dataset("corpus", ["a"], ["b"], "here").majority == {}


def _prompted(task, *examples):
    return prompt_dataset(get_prompt(task), examples, examples, "here").majority


def test_of_prompts_it_is_the_option_that_is_right_most_often():
    yes_no = [Example("p", ("Yes", "No"), label) for label in (0, 1, 1)]
    assert _prompted("rte", *yes_no) == {"accuracy": pytest.approx(2 / 3)}
    several = [Example("p", ("a", "b", "c"), 0, right=(0, 2)), Example("p", ("a", "b", "c"), 2, right=(2,))]
    assert _prompted("record", *several) == {"accuracy": 1.0}
    unequal = [Example("p", ("a",), 0), Example("p", ("a", "b", "c"), 2), Example("p", ("a", "b", "c"), 2)]
    assert _prompted("record", *unequal) == {"accuracy": pytest.approx(2 / 3)}


def test_nothing_is_reached_where_answers_are_generated():
    assert _prompted("squad", Example("p", answers=("x",))) == {"f1": 0.0}
