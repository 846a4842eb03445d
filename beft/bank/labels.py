"""Names of classes in a model's config, so that whoever loads a saved model reads "good" and not "LABEL_1"."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import BeftError


def label_names(labels: Sequence[Any]) -> tuple[str, ...]:
    """The names of classes as texts, which is all that a config holds.

    Raises BeftError: two labels that are the same as texts, such as 1 and "1".
    """
    names = tuple(map(str, labels))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BeftError(
            f"two classes are named {twice[0]!r} once they are written as text: give each a name of its own"
        )
    return names


def name_labels(config: Any, labels: Sequence[Any]) -> None:
    """Put the names of classes, in the order of the logits, into the config of a classifier with as many outputs.

    A single output and no names are a regression, which has none; it is marked as one, so that a pipeline passes its
    value on. No names for several classes change nothing. Raises BeftError as `label_names`, and for another number of
    names than outputs.
    """
    names = label_names(labels)
    if names and len(names) != config.num_labels:
        raise BeftError(
            f"{len(names)} names of classes for a model with {config.num_labels} outputs: give one for each output"
        )
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: code for code, name in enumerate(names)}
        config.problem_type = None  # what a checkpoint was tuned on before
    elif config.num_labels == 1:
        config.problem_type = "regression"


def names_in(config: Any) -> tuple[str, ...]:
    """The names of classes that a config holds; none where it only numbers them, LABEL_0 and so on."""
    names = tuple(str(config.id2label[code]) for code in range(config.num_labels or 0))
    return () if names == tuple(f"LABEL_{code}" for code in range(len(names))) else names
