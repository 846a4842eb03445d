"""Counterfactual augmentation: a text with the words of one group in the place of another's, both sides kept.

Phase one of PEFTDebias (Agarwal, Veerubhotla, Bansal, arXiv:2312.00434) trains a patch on such text. Word lists are
data (`word_lists.json`, or a file of yours): sets of words, one per group, among which a word is exchanged. Case is
kept, and so is what is behind a word ("actor's"). English pronouns of gender have two counterparts; a stated rule
decides:

    her   "his" before a word that can begin or be a noun ("her book"), else "him" ("saw her.", "told her that")
    his   "her" before such a word, else "hers" ("it was his.")
    hers  "his"; him  "her".

The rule goes by the next word alone. It errs where a noun phrase follows an object ("gave her books").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from ..errors import BeftError, unknown

# Words that cannot begin a noun phrase behind a possessive: behind "her" they say that it was an object.
_CLOSED = frozenset(
    """a an the this that these those and or but nor so yet if when while because since as than though although to
    of in on at by for from with without into onto over under after before about between through during
    against is are was were be been being am has have had do does did will would can could shall should may
    might must not never i you he she it we they me him us them who whom whose which what where why how
    there here then too again away back up down out off yesterday today tomorrow now soon""".split()
)
_PRONOUNS = {"her": ("his", "him"), "his": ("her", "hers"), "him": ("her", "her"), "hers": ("his", "his")}
_MALE, _FEMALE = {"his", "him"}, {"her", "hers"}


@dataclass(frozen=True)
class Axis:
    """A bias axis: groups, and sets of words with one word per group.

    Attributes:
        name: of the axis.
        groups: their names.
        sets: words in the order of the groups, in lower case; several sets may share a word, the first decides.
        pronouns: whether her, his, him and hers are exchanged by the rule above.
    """

    name: str
    groups: tuple[str, ...]
    sets: tuple[tuple[str, ...], ...]
    pronouns: bool = False

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """word -> (set, group)."""
        found: dict[str, tuple[int, int]] = {}
        for s, words in enumerate(self.sets):
            for g, word in enumerate(words):
                found.setdefault(word, (s, g))
        return found

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any word of the axis, the longest first."""
        words = sorted({*self.places, *(_PRONOUNS if self.pronouns else ())}, key=lambda w: (-len(w), w))
        return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, words))})(?![\w-])", re.IGNORECASE)

    def group_of(self, word: str) -> int:
        """Which group a word of the axis is of."""
        low = word.lower()
        if self.pronouns and low in _PRONOUNS:
            return 0 if low in _MALE else 1
        return self.places[low][1]

    def found(self, text: str) -> list[str]:
        """The words of the axis in a text, in its order and case."""
        return [match.group() for match in self.pattern.finditer(text)]


def axis(name: str, names: bool = False, path: str | Path | None = None) -> Axis:
    """An axis by name: "gender", "race", "religion", or one of a file of yours.

    Args:
        names: exchange first names too.
        path: JSON as in `word_lists.json`: {"axes": {name: {"groups": [...], "words": [[...], ...], "names": []}}}.

    Raises:
        BeftError: an unknown axis, a file that is not such JSON, a set without a word for each group, or a word that is
            on two sides.
    """
    where = str(path) if path is not None else "beft/word_lists.json"
    try:
        text = (
            Path(path).read_text(encoding="utf-8")
            if path is not None
            else files(__package__).joinpath("word_lists.json").read_text(encoding="utf-8")
        )
        axes = json.loads(text)["axes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BeftError(
            f"{where} is no list of words by axis ({error}): see beft/word_lists.json for the form"
        ) from error
    if name not in axes:
        raise unknown("bias axis", name, axes)
    entry = axes[name]
    groups = tuple(entry["groups"])
    sets = [
        tuple(str(w).lower() for w in words)
        for words in (*entry["words"], *(entry.get("names", ()) if names else ()))
    ]
    sides: dict[str, int] = {}
    for words in sets:
        if len(words) != len(groups):
            raise BeftError(
                f"{words[0]!r} of axis {name} in {where} has {len(words)} words for {len(groups)} groups"
            )
        for g, word in enumerate(words):
            if sides.setdefault(word, g) != g:
                raise BeftError(
                    f"{word!r} is a word of {groups[sides[word]]} and of {groups[g]} in {where}: keep it on one side"
                )
    return Axis(name, groups, tuple(sets), pronouns=name == "gender")


def swapped(text: str, axis: Axis, group: int | None = None) -> str:
    """The text with every word of the axis exchanged.

    Args:
        group: whose words take the place of all others'; by default the other group's, of two.

    Raises:
        BeftError: an axis of more than two groups, and no group given.
    """
    if group is None and len(axis.groups) != 2:
        raise BeftError(f"axis {axis.name} has {len(axis.groups)} groups: say which one's words are wanted")

    def exchange(match: re.Match[str]) -> str:
        word, low = match.group(), match.group().lower()
        if group is not None and axis.group_of(word) == group:
            return word
        if axis.pronouns and low in _PRONOUNS:
            determiner, other = _PRONOUNS[low]
            return _cased(determiner if _before_noun(text[match.end() :]) else other, word)
        place, own = axis.places[low]
        return _cased(axis.sets[place][1 - own if group is None else group], word)

    return axis.pattern.sub(exchange, text)


def _before_noun(rest: str) -> bool:
    """Whether what is behind a pronoun begins with a word that a possessive can stand before."""
    following = re.match(r"\s+([A-Za-z][\w'-]*)", rest)
    return following is not None and following.group(1).lower() not in _CLOSED


def _cased(word: str, like: str) -> str:
    """`word` in the case of another: all capitals, a first capital, or lower."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word


@dataclass(frozen=True)
class Augmented:
    """Texts and their counterfactuals.

    Attributes:
        texts: the originals that have a word of the axis, each followed by its counterfactuals.
        origin: of each, the index of its original among the texts that were given.
        changed: how many of the given texts have a word of the axis.
    """

    texts: tuple[str, ...]
    origin: tuple[int, ...]
    changed: int


def augment(texts: Sequence[str], axis: Axis) -> Augmented:
    """Both sides of every text that speaks of a group: itself, and with each other group's words in its place.

    Raises:
        BeftError: no text has a word of the axis: there is nothing to augment.
    """
    kept: list[str] = []
    origin: list[int] = []
    for i, text in enumerate(texts):
        words = axis.found(text)
        if not words:
            continue
        sides = [text, *_others(text, axis)]
        unique = list(dict.fromkeys(sides))
        kept += unique
        origin += [i] * len(unique)
    if not kept:
        raise BeftError(
            f"none of {len(texts)} texts has a word of the axis {axis.name} (such as {', '.join(axis.sets[0])}): "
            "there is nothing to augment, use another axis or corpus"
        )
    return Augmented(tuple(kept), tuple(origin), len(set(origin)))


def _others(text: str, axis: Axis) -> Iterable[str]:
    if len(axis.groups) == 2:
        return [swapped(text, axis)]
    return [swapped(text, axis, group) for group in range(len(axis.groups))]
