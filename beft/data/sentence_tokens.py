"""A text as tokens, for the rules of `word_contexts`: where phrases end, what a capital tells; and the lists of words.

Capitals count only where a text has both cases and is not a headline. Words that are next to each other by a hyphen
("real-life") are no end of a phrase.
"""

import json
import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

_FILE: dict[str, Any] = json.loads(files(__package__).joinpath("word_classes.json").read_text(encoding="utf-8"))
# Words that make a compound with one behind them ("mother": "tongue"), or with one in front ("widow": "black").
BEHIND: dict[str, list[str]] = _FILE.pop("compounds")
IN_FRONT: dict[str, list[str]] = _FILE.pop("compounds_before")
LISTS: dict[str, frozenset[str]] = {name: frozenset(words) for name, words in _FILE.items()}
_TOKEN = re.compile(r"[^\W\d_][\w\u0300-\u036f]*(?:['’]\w+)?|\d[\d.,]*\d|\d|['’]\w{1,2}\b|[-–—]{2,}|\S")
OPENING, _QUOTES = "([{“‘«", "\"'`“‘«"


@dataclass(frozen=True)
class Sentence:
    """A text as tokens: words with what follows an apostrophe ("John's"), numbers, and single other characters."""

    text: str

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each token."""
        return [match.span() for match in _TOKEN.finditer(self.text)]

    @cached_property
    def lows(self) -> list[str]:
        """The tokens in lower case."""
        return [self.text[start:end].lower() for start, end in self.spans]

    @cached_property
    def cased(self) -> bool:
        """Whether capitals tell something: the text has both cases, and is no headline or list of names."""
        if self.text in (self.text.lower(), self.text.upper()):
            return False
        words = [
            self.text[a:b] for (a, b), low in zip(self.spans, self.lows) if b - a > 2 and low not in LISTS["closed"]
        ]
        return sum(map(str.istitle, words)) < 4 or any(map(str.islower, words))

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """The first and the last token of a part of the text that begins with a word."""
        n = last = bisect_right(self.spans, (start, len(self.text))) - 1
        while self.spans[last][1] < end:
            last += 1
        return n, last

    def low(self, n: int) -> str:
        """A token in lower case; "" outside the text."""
        return self.lows[n] if 0 <= n < len(self.lows) else ""

    def capital(self, n: int) -> bool:
        """Whether a token begins with a capital that tells something."""
        return self.cased and 0 <= n < len(self.spans) and self.text[self.spans[n][0]].isupper()

    def shout(self, n: int) -> bool:
        """Whether a token has two or more letters, all capitals ("CEO")."""
        start, end = self.spans[n]
        return end - start > 1 and self.text[start:end].isupper()

    def first(self, n: int) -> bool:
        """Whether a token begins a sentence."""
        while n > 0 and self.low(n - 1) in _QUOTES:
            n -= 1
        if n <= 0:
            return True
        before = self.low(n - 1)
        abbreviated = before == "." and (self.low(n - 2) in LISTS["abbreviations"] or len(self.low(n - 2)) == 1)
        return before in {".", "?", "!", ":", "…"} and not abbreviated

    def joined(self, n: int) -> bool:
        """Whether a token is a hyphen inside a word."""
        if self.low(n) != "-":
            return False
        start, end = self.spans[n]
        return self.text[start - 1 : start].isalnum() and self.text[end : end + 1].isalnum()

    def opens(self, n: int) -> bool:
        """Whether a token is a bracket or a quotation mark right in front of a word or number."""
        low = self.low(n)
        if not low or low not in OPENING + _QUOTES:
            return False
        start, end = self.spans[n]
        spaced = low in OPENING or start == 0 or not self.text[start - 1].isalnum()
        return spaced and (self.text[end : end + 1].isalnum() or low == "`" or self._spread(n))

    def _spread(self, n: int) -> bool:
        """Whether an opening mark stands alone between spaces, as in tokenized text."""
        return self.low(n) in {"(", "[", "“", "‘", "``"} and bool(self.low(n + 1))

    def ends(self, n: int) -> bool:
        """Whether a phrase ends in front of a token: no token, or punctuation other than a hyphen inside a word."""
        low = self.low(n)
        return not low or not (low[0].isalnum() or low[0] in "'’$£€#@" or self.joined(n) or self.opens(n))

    def closed(self, n: int) -> bool:
        """Whether a token can follow no possessive: an end, or a word of a closed class, such as "that"."""
        low = self.low(n)
        if self.joined(n + 1):
            return False
        stem = re.split("['’]", low)[0]  # "she" of "she's"
        if low == "will":  # "against her will", but "the one near her will"
            return self.low(n - 2) not in LISTS["closed"] or not (
                self.ends(n + 1) or self.low(n + 1) in LISTS["closed"]
            )
        return self.ends(n) or low in LISTS["closed"] or stem in LISTS["closed"] or low.endswith(("n't", "n’t"))

    def stem(self, n: int) -> str:
        """A token in lower case without a possessive's ending."""
        return self.low(n).removesuffix("'s").removesuffix("’s")
