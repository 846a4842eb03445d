"""Counterfactual augmentation: each text with the words of one group replaced by another's, beside the original.

Phase one of PEFTDebias (Agarwal, Veerubhotla, Bansal, arXiv:2312.00434) trains a patch on such text. Word lists are
data (`word_lists.json`, or a user's file): sets of words, one per group, among which a word is exchanged. Suffixes
("actor's") and case are kept, "a" and "an" follow the new word, and parts of words joined by a hyphen are exchanged
where the whole stays a word ("ex-wife", "mother-in-law", but not "man-made").

A word that means no person of a group stays: verbs ("to host"), other people's and places' names ("Stephen King",
"mark the box"), colours of things. English pronouns have two counterparts: "her" is "his" or "him", "his" is "her" or
"hers". Both are decided by the rules of `word_contexts`; `tests/data/swap_errors.json` has how often they err.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import BeftError, unknown
from . import word_contexts as contexts
from .sentence_tokens import LISTS, Sentence

OWN_LISTS = "beft/data/word_lists.json"
_OWN = files(__package__).joinpath("word_lists.json")
_PRONOUNS = {"her": ("his", "him"), "his": ("her", "hers"), "him": ("her", "her"), "hers": ("his", "his")}
_PAIR, _MALE = {"he", "she"}, {"his", "him"}
_RANKS = {"sir": "dame", "dame": "sir", "lord": "lady", "lady": "lord"}  # before a name
_VOWEL = re.compile(r"(?!eu|ew|uni|us[aeiu]|one\b|once)[aeiouáéíóú]|hon(?:est|or|our)|heir|hour", re.IGNORECASE)


@dataclass(frozen=True)
class Axis:
    """A bias axis: groups, and sets of words with one word per group.

    Attributes:
        name: of the axis.
        groups: their names.
        sets: words in the order of the groups, with a capital where they always have one; of several sets with the
            same word the first counts, except for nouns among adjectives ("a Christian": "a Jew", not "a Jewish").
        pronouns: whether her, his, him and hers are exchanged by the rule above; he and she are then among the words.
        names: those words that are first names, in lower case.
    """

    name: str
    groups: tuple[str, ...]
    sets: tuple[tuple[str, ...], ...]
    pronouns: bool = False
    names: frozenset[str] = frozenset()

    @cached_property
    def places(self) -> dict[str, list[tuple[int, int]]]:
        """word in lower case -> (set, group) of each set that has it."""
        places: dict[str, list[tuple[int, int]]] = {}
        for s, words in enumerate(self.sets):
            for g, word in enumerate(words):
                places.setdefault(word.lower(), []).append((s, g))
        return places

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Any word of the axis, longest first, with either apostrophe, and a space or a hyphen between words."""
        words = {*self.places, *(_PRONOUNS if self.pronouns else ())}
        words |= {unicodedata.normalize("NFD", word) for word in words}
        ends: dict[str, list[str]] = {}  # by first letter: a search that tries all words at every place is slow
        for word in sorted(words, key=lambda w: (-len(w), w)):
            form = re.escape(word[1:]).replace(r"\ ", "[ -]").replace("'", "['’]")
            ends.setdefault(re.escape(word[0]), []).append(form)
        forms = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in ends.items())
        return re.compile(rf"(?<!\w)(?:{forms})(?![\w\u0300-\u036f])", re.IGNORECASE)

    @cached_property
    def in_context(self) -> frozenset[str]:
        """The words, in lower case, that do not mean a person everywhere."""
        colours = {word.lower() for n in self.coloured for word in self.sets[n]}
        return contexts.AMBIGUOUS | colours | self.names

    @cached_property
    def coloured(self) -> frozenset[int]:
        """The sets that have a colour in them."""
        return frozenset(n for n, words in enumerate(self.sets) if LISTS["colours"] & {word.lower() for word in words})

    def group_of(self, word: str) -> int:
        """The group of a word of the axis, as an index."""
        low = self.key(word)
        if self.pronouns and low in _PRONOUNS:
            return self.places["he" if low in _MALE else "she"][0][1]
        return self.places[low][0][1]

    def key(self, word: str) -> str:
        """A word as the lists have it: lower case, straight apostrophe, composed accents, a space between words."""
        low = word.lower()
        if low in self.places or low in _PRONOUNS:
            return low
        low = unicodedata.normalize("NFC", low.replace("’", "'"))
        return low if low in self.places else low.replace("-", " ")

    def words_in(self, text: str) -> list[str]:
        """The words of the axis in a text that mean people of its groups, in order and in the case of the text."""
        sentence = Sentence(text)
        return [found.word for found in _found(sentence, self)]


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

    The rules of English pronouns and titles hold for an axis "gender" of two groups with "he" and "she" as a pair. In a
    list of another language or of three groups these words are as any others.

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
    first_names = axes[name].get("names", []) if names else []
    sets = tuple(tuple(" ".join(word.split()) for word in words) for words in (*axes[name]["words"], *first_names))
    if len(groups) < 2:
        raise BeftError(f"axis {name} in {where} needs two groups or more: see {OWN_LISTS} for the form")
    sides: dict[str, int] = {}
    for words in sets:
        if len(words) != len(groups):
            raise BeftError(f"{words[0]!r} of axis {name} in {where} has {len(words)} words for {len(groups)} groups")
        for g, word in enumerate(map(str.lower, words)):
            if sides.setdefault(word, g) != g:
                raise BeftError(
                    f"{word!r} is a word of {groups[sides[word]]} and of {groups[g]} in {where}: keep it on one side"
                )
    called = frozenset(str(word).lower() for words in first_names for word in words)
    # "her" is a word of other languages too, and among three groups it has more than one counterpart
    pronouns = name == "gender" and any(len(words) == 2 and {*map(str.lower, words)} == _PAIR for words in sets)
    return Axis(name, groups, sets, pronouns, called)


@dataclass(frozen=True)
class Replacement:
    """`text[start:end]` becomes `new`."""

    start: int
    end: int
    new: str


def replacements(text: str, axis: Axis, group: int | None = None) -> list[Replacement]:
    """What changes where all words of an axis are exchanged, in order; articles are among it.

    The words of `group` replace those of all others; by default each word is replaced by the other group's, of two.
    Raises BeftError for an axis of more than two groups where no group is given.
    """
    if group is None and len(axis.groups) != 2:
        raise BeftError(f"axis {axis.name} has {len(axis.groups)} groups: say which one's words are wanted")
    sentence = Sentence(text)
    changes = []
    for found in _found(sentence, axis):
        if group is not None and axis.group_of(found.word) == group:
            continue
        new = _counterpart(sentence, axis, found, group)
        if new != found.word:
            changes += [*_article(text, found, new), Replacement(found.start, found.end, new)]
    return changes


def swapped(text: str, axis: Axis, group: int | None = None) -> str:
    """The text with every word of the axis exchanged, as `replacements` says. Raises as it does."""
    parts, at = [], 0
    for change in replacements(text, axis, group):
        parts += [text[at : change.start], change.new]
        at = change.end
    return "".join([*parts, text[at:]])


@dataclass(frozen=True)
class _Found:
    """A word of an axis in a text: where it starts, how it is written, and as the lists have it."""

    start: int
    word: str
    low: str

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.word)


def _found(s: Sentence, axis: Axis) -> Iterator[_Found]:
    """The words of an axis that mean people of its groups."""
    matches = list(axis.pattern.finditer(s.text))
    starts = {match.start() for match in matches}
    for match in matches:
        low = axis.key(match.group())
        known = low in axis.places or (axis.pronouns and low in _PRONOUNS)  # not so where letters only look alike
        if not known or not _whole(s.text, match, low, starts):
            continue
        found = _Found(match.start(), match.group(), low)
        if low not in axis.in_context or _means_person(s, axis, found):
            yield found


def _means_person(s: Sentence, axis: Axis, found: _Found) -> bool:
    """Whether a listed word is one of a group where it stands, by the rules of `word_contexts`."""
    n, last = s.tokens(found.start, found.end)
    if found.low in axis.names:
        return contexts.is_name(s, n, found.low, axis.names)
    if axis.places[found.low][0][0] in axis.coloured and not contexts.of_person(s, n, last):
        return False
    return contexts.means_person(s, n, found.low, last)


def _whole(text: str, match: re.Match[str], low: str, starts: set[int]) -> bool:
    """Whether a match is a word, or a part of a word with hyphens that can be exchanged by itself.

    "ex-wife", "mother-in-law", "father-son", but not "man-made", "spider-man" or "s/he".
    """
    start, end = match.span()
    if text[start - 1 : start] not in {"-", "/", ")"} and text[end : end + 1] != "-":
        return True
    before = re.search(r"(\w+)-(?:(?:and|meets|on|or|to)-)?$", text[max(0, start - 24) : start])
    after = re.match(r"-(?:(?:and|meets|on|or|to)-)?(?=\w)", text[end : end + 9])
    if re.search(r"(?:\bs/|\(s\))$", text[max(0, start - 3) : start], re.IGNORECASE):
        return False
    if before:
        other = max(0, start - 24) + before.start() in starts
        if not other and before.group().lower().removesuffix("-") not in LISTS["prefixes"]:
            return False
    if not after or end + after.end() in starts:
        return True
    part, rest = re.split(r"\W", text[end + 1 : end + 25].lower(), maxsplit=1)[0], text[end:].lower()
    family = low in {"mother", "father"} and part == "of" and not rest.startswith("-of-pearl")
    return family or low in {"male", "female"} or (part in LISTS["suffixes"] and low != "man")


def _counterpart(s: Sentence, axis: Axis, found: _Found, group: int | None) -> str:
    """What a word becomes, in its case."""
    low = found.low
    if axis.pronouns and low in _PRONOUNS:
        n, _ = s.tokens(found.start, found.end)
        other = (low == "her" and contexts.her_is_object(s, n)) or (low == "his" and contexts.his_is_pronoun(s, n))
        return _cased(s, _PRONOUNS[low][other], low, found)
    if axis.pronouns and low in _RANKS and contexts.is_ranked(s, s.tokens(found.start, found.end)[0]):
        return _cased(s, _RANKS[low], low, found)
    places = axis.places[low]
    adjective = len(places) < 2 or low not in LISTS["adjectives_and_nouns"]
    place, own = places[0] if adjective or not contexts.is_noun(s, *s.tokens(found.start, found.end)) else places[1]
    new = axis.sets[place][1 - own if group is None else group]
    return _cased(s, new, axis.sets[place][own], found)


def _cased(s: Sentence, new: str, listed: str, found: _Found) -> str:
    """`new` in the case of the word that was found, word by word.

    All capitals stay all capitals. A capital stays, unless the word always has one (`listed` has it), the new one has
    none, and no sentence begins there. A small letter becomes the listed capital ("white people": "Asian people")
    where the text has capitals and the old word needed none.
    """
    old = found.word
    if old.islower() and new.islower() and " " not in new:
        return new
    if old.isupper() and len(old) > 1:
        return new.upper()
    olds, own = re.split("[ -]", old), listed.split(" ")
    made = []
    for k, part in enumerate(new.split(" ")):
        always = own[min(k, len(own) - 1)][0].isupper()
        if k < len(olds) and olds[k][0].isupper():
            inside = always and s.cased and not s.first(s.tokens(found.start, found.end)[0])
            made.append(part if inside else part[0].upper() + part[1:])
        elif part.islower() or s.text == s.text.lower() or (k < len(olds) and always):
            made.append(part.lower())
        else:
            made.append(part)
    return ("-" if "-" in old else " ").join(made)


def article(word: str) -> str:
    """The indefinite article in front of a word, "a" or "an"."""
    return "an" if _VOWEL.match(word) else "a"


def _article(text: str, found: _Found, new: str) -> list[Replacement]:
    """The change of "a" or "an" in front of a word, where it suited the old word and does not suit the new one."""
    match = re.search(r"(?<!\w)(an?)(?:\s+[\"'“‘(\[]?)$", text[max(0, found.start - 6) : found.start], re.IGNORECASE)
    was, will = (bool(_VOWEL.match(word)) for word in (found.word, new))
    if not match or was == will or was != (len(match.group(1)) == 2):
        return []
    old, start = match.group(1), max(0, found.start - 6) + match.start()
    article = old[0] + ("" if was else "N" if old.isupper() and found.word.isupper() else "n")
    return [Replacement(start, start + len(old), article)]


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
