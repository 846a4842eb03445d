"""Counterfactual augmentation: each text with the words of one group replaced by another's, beside the original.

Phase one of PEFTDebias (Agarwal, Veerubhotla, Bansal, arXiv:2312.00434) trains a patch on such text. Word lists are
data (`word_lists.json`, or a user's file): sets of words, one per group, among which a word is exchanged. Case and
suffixes ("actor's") are kept. English pronouns of gender have two counterparts, chosen by a rule:

    her   "his" before a word that can begin or be a noun ("her book"), else "him" ("saw her.", "told her that")
    his   "her" before such a word, else "hers" ("it was his.")
    hers  "his"; him  "her".

The rule uses only the next word. It errs where a noun phrase follows an object ("gave her books").
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import BeftError, unknown

OWN_LISTS = "beft/data/word_lists.json"
_OWN = files(__package__).joinpath("word_lists.json")
# Words that cannot follow a possessive: in front of them "her" is an object.
_CLOSED = frozenset(json.loads(_OWN.read_text(encoding="utf-8"))["not_after_possessives"])
_PRONOUNS = {"her": ("his", "him"), "his": ("her", "hers"), "him": ("her", "her"), "hers": ("his", "his")}
_MALE = {"his", "him"}


@dataclass(frozen=True)
class Axis:
    """A bias axis: groups, and sets of words with one word per group.

    Attributes:
        name: of the axis.
        groups: their names.
        sets: words in the order of the groups, in lower case; of several sets with the same word the first counts.
        pronouns: whether her, his, him and hers are exchanged by the rule above.
    """

    name: str
    groups: tuple[str, ...]
    sets: tuple[tuple[str, ...], ...]
    pronouns: bool = False

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """word -> (set, group)."""
        places: dict[str, tuple[int, int]] = {}
        for s, words in enumerate(self.sets):
            for g, word in enumerate(words):
                places.setdefault(word, (s, g))
        return places

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any word of the axis, longest first."""
        words = sorted({*self.places, *(_PRONOUNS if self.pronouns else ())}, key=lambda w: (-len(w), w))
        return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)

    def group_of(self, word: str) -> int:
        """The group of a word of the axis, as an index."""
        low = word.lower()
        if self.pronouns and low in _PRONOUNS:
            return 0 if low in _MALE else 1
        return self.places[low][1]

    def words_in(self, text: str) -> list[str]:
        """The words of the axis in a text, in order and in the case of the text."""
        return [match.group() for match in self.pattern.finditer(text)]


def _well_formed(content: Any) -> bool:
    """Whether an axis of a file has groups, and sets of words for them, all text."""

    def texts(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)

    if not isinstance(content, dict) or not texts(content.get("groups")):
        return False
    words, names = content.get("words"), content.get("names", [])
    return isinstance(words, list) and bool(words) and isinstance(names, list) and all(map(texts, words + names))


def axis(name: str, names: bool = False, path: str | Path | None = None) -> Axis:
    """An axis by name: "gender", "race", "religion", or one of a user's file.

    Args:
        names: whether first names are exchanged too.
        path: JSON as in `word_lists.json`: {"axes": {name: {"groups": [...], "words": [[...], ...], "names": []}}}.

    Raises BeftError for an unknown axis, a file that is not such JSON, a set without a word for each group, or a word
    of two groups.
    """
    where = OWN_LISTS if path is None else str(path)
    try:
        file = _OWN if path is None else Path(path)
        axes = json.loads(file.read_text(encoding="utf-8"))["axes"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BeftError(f"{where} is no list of words by axis ({error}): see {OWN_LISTS} for the form") from error
    if not isinstance(axes, dict) or not isinstance(name, str) or name not in axes:
        raise unknown("bias axis", name, axes if isinstance(axes, dict) else ())
    if not _well_formed(axes[name]):
        raise BeftError(f"axis {name} in {where} has no groups and sets of words, all text: see {OWN_LISTS}")
    groups = tuple(axes[name]["groups"])
    listed = (*axes[name]["words"], *(axes[name].get("names", ()) if names else ()))
    sets = tuple(tuple(str(word).lower() for word in words) for words in listed)
    sides: dict[str, int] = {}
    for words in sets:
        if len(words) != len(groups):
            raise BeftError(f"{words[0]!r} of axis {name} in {where} has {len(words)} words for {len(groups)} groups")
        for g, word in enumerate(words):
            if sides.setdefault(word, g) != g:
                raise BeftError(
                    f"{word!r} is a word of {groups[sides[word]]} and of {groups[g]} in {where}: keep it on one side"
                )
    return Axis(name, groups, sets, pronouns=name == "gender")


def swapped(text: str, axis: Axis, group: int | None = None) -> str:
    """The text with every word of the axis exchanged.

    The words of `group` replace those of all others; by default each word is replaced by the other group's, of two.
    Raises BeftError for an axis of more than two groups where no group is given.
    """
    if group is None and len(axis.groups) != 2:
        raise BeftError(f"axis {axis.name} has {len(axis.groups)} groups: say which one's words are wanted")

    def exchange(match: re.Match[str]) -> str:
        word, low = match.group(), match.group().lower()
        if group is not None and axis.group_of(word) == group:
            return word
        if axis.pronouns and low in _PRONOUNS:
            determiner, other = _PRONOUNS[low]
            following = re.match(r"\s+([A-Za-z][\w'-]*)", text[match.end() :])
            before_noun = following and following.group(1).lower() not in _CLOSED
            return _cased(determiner if before_noun else other, word)
        place, own = axis.places[low]
        return _cased(axis.sets[place][1 - own if group is None else group], word)

    return axis.pattern.sub(exchange, text)


def _cased(word: str, like: str) -> str:
    """`word` in the case of `like`: all capitals, a first capital, or lower case."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


@dataclass(frozen=True)
class Augmented:
    """Texts and their counterfactuals.

    `texts` are the originals that have a word of the axis, each followed by its counterfactuals; `origin` has for each
    text the index of its original among the given texts. `changed` is the number of originals.
    """

    texts: tuple[str, ...]
    origin: tuple[int, ...]
    changed: int


def augment(texts: Sequence[str], axis: Axis) -> Augmented:
    """Every text with a word of the axis: the original, and one with the words of each other group.

    Raises BeftError if no text has a word of the axis.
    """
    targets = [None] if len(axis.groups) == 2 else range(len(axis.groups))
    made = [
        (version, i)
        for i, text in enumerate(texts)
        if axis.words_in(text)
        for version in dict.fromkeys([text, *(swapped(text, axis, group) for group in targets)])
    ]
    if not made:
        raise BeftError(
            f"none of {len(texts)} texts has a word of the axis {axis.name} (such as {', '.join(axis.sets[0])}): "
            "there is nothing to augment, use another axis or corpus"
        )
    kept, origin = zip(*made, strict=True)
    return Augmented(kept, origin, len(set(origin)))
