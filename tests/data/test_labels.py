"""Classes or values, and which spellings mean the same."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beft.data.labels import Column, kind_of, plain, spellings
from beft.errors import BeftError


def _kind(labels, kind=None):
    return kind_of([Column([plain(label) for label in labels], range(1, len(labels) + 1), "a.csv")], kind)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["1", "2", "1.0"], "classes"),
        ([1.0, 2.0], "classes"),
        (["good", 1], "classes"),
        (["3,5", "good"], "classes"),
        ([True, False], "classes"),
        (["1_5", "2_5"], "classes"),  # a number for Python alone
        ([0.5, 1.5], "values"),
        (["0.5", "1", " 1.5 "], "values"),
        ([1] * 17 + [0.5] * 2, "values"),
        (["1e-3", "-.5", "+2.", 7], "values"),
    ],
)
def test_the_labels_decide_their_kind(labels, kind):
    assert _kind(labels) == kind


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1] * 18 + [0.5] * 2, "rows 19 and 20 of a.csv have the label '0.5' where nearly all are whole"),
        ([1, 0.5], "row 2 of a.csv has the label '0.5' where nearly all"),
        (["1,5", "2"], "row 1 of a.csv has the label '1,5' with a decimal comma"),
        ([0.5, "x", "y", 1.5], "rows 2 and 3 of a.csv have the label 'x', 'y' where others are numbers"),
    ],
)
def test_labels_between_the_kinds_are_refused(labels, message):
    with pytest.raises(BeftError, match=message):
        _kind(labels)
    assert _kind(labels, "classes") == "classes"


NAMES = st.sampled_from(
    ["1", "1.0", "01", "1e0", "2", "Yes", "yes", "YES", "no", "café", "cafe\u0301", "Straße", "0.5"]
)


@given(st.lists(NAMES, min_size=1))
def test_names_that_mean_the_same_get_the_most_frequent_of_them(names):
    counts, spelled = Counter(names), spellings(Counter(names))
    assert set(spelled) == set(names) and all(spelled[name] == name for name in spelled.values())
    for name, common in spelled.items():
        assert counts[common] >= counts[name]
        assert name == common or name.casefold() == common.casefold() or "caf" in name or float(name) == float(common)
    for a in spelled:
        for b in spelled:
            assert a.casefold() != b.casefold() or spelled[a] == spelled[b]


def test_long_numbers_are_told_apart():
    names = Counter(["9007199254740992", "9007199254740993", "1" * 50, "1" * 49 + "2"])
    assert spellings(names) == {name: name for name in names}
