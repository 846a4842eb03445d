"""What a listed word is in its sentence, by rules: object or possessive, verb, name, title, colour of people.

The rules look at neighbouring words, capitals and punctuation; their lists are `word_classes.json`. They know no
grammar beyond that. `tests/data/swap_errors.json` has how often they err on real sentences.
"""

import re

from .sentence_tokens import BEHIND, IN_FRONT, LISTS, OPENING, Sentence

TITLES = frozenset({"mr", "mrs", "miss", "ms"})
# Words to which a rule below applies.
AMBIGUOUS = frozenset().union(
    TITLES, LISTS["exclaimed"], LISTS["hosting"], LISTS["regal"], LISTS["continental"], BEHIND, IN_FRONT
)


def her_is_object(s: Sentence, n: int) -> bool:
    """Whether "her" is "him" for a man, and not "his"."""
    return _object_before(s, s.low(n - 1), n + 1)


def _object_before(s: Sentence, verb: str, n: int) -> bool:
    """The same, from the word in front of "her" and the token behind it."""
    n = _past_mark(s, n)
    if s.opens(n):
        if verb in LISTS["telling"] or (s.low(n) in OPENING and s.low(n + 1)[:1].isdigit()):
            return True
        while s.opens(n):
            n += 1
    low, end = s.low(n), s.closed(n + 1)
    if low in {"/", "or"} and s.low(n + 1) in LISTS["possessives"]:
        return s.closed(n + 2)
    if low == "/" and not s.ends(n + 1):
        return False
    if low[:1].isdigit() or low in {"$", "£", "€"}:
        ago = {"ago", "later", "earlier", "before"} & {s.low(n + 1), s.low(n + 2)}
        return bool(ago) or s.low(n + 1) == "times" or verb in LISTS["giving"]
    if s.joined(n + 1):
        return False
    if low == "every" and verb not in LISTS["giving"]:
        return False
    if s.closed(n) or low in LISTS["bare_verbs"] or low in LISTS["finite_verbs"]:
        return True
    return _object_by_verb(s, verb, n, end) or _object_by_word(s, verb, n, end)


def _past_mark(s: Sentence, n: int) -> int:
    """The token behind a pronoun, past a mark that encloses the pronoun alone: 'her' and [his]."""
    around = s.low(n - 2) + s.low(n)
    return n + 1 if around in {'""', "''", "[]", "()", "“”", "‘’"} else n


def _object_by_verb(s: Sentence, verb: str, n: int, end: bool) -> bool:
    """Whether the verb in front takes a person and then this: "saw her leave", "made her sad", "told her Ann left"."""
    low = s.low(n)
    ing = low.endswith("ing") and low not in LISTS["ing_nouns"]
    done = low in LISTS["participles"] or (low.endswith("ed") and len(low) > 4)
    return (
        (
            verb in LISTS["causing"]
            and low in LISTS["nouns_or_verbs"]
            and (verb not in {"make", "made"} or not s.ends(n + 1))
        )
        or (verb in LISTS["seeing"] and (ing or (low in LISTS["nouns_or_verbs"] and end)))
        or (verb in LISTS["keeping"] and (ing or (done and (end or s.low(n + 1) in {"home", "back"}))))
        or (verb in LISTS["judging"] and low in LISTS["predicates"] and end)
        or (verb in LISTS["keeping"] and low in LISTS["nouns_or_verbs"] and s.low(n + 1) in LISTS["determiners"])
        or (verb in LISTS["giving"] and low in LISTS["given"])
        or (verb in LISTS["telling"] and s.capital(n))
        or (verb in LISTS["fetching"] and low in {"home", "back"} and end)
    )


def _object_by_word(s: Sentence, verb: str, n: int, end: bool) -> bool:
    """Whether an adverb or a time follows, and no noun behind it: "told her quietly that", "saw her last week"."""
    low = s.low(n)
    if low in LISTS["loose"] or (low.endswith("ly") and low not in LISTS["ly_adjectives"]):
        return end
    if low in {"last", "next"}:
        return s.low(n + 1) in LISTS["times"] and verb not in LISTS["closed"]
    return low.endswith("day") and low in LISTS["times"] and end


def his_is_pronoun(s: Sentence, n: int) -> bool:
    """Whether "his" is "hers" for a woman, and not "her"."""
    n = _past_mark(s, n + 1)
    low = s.low(n)
    if low in {"being", "having", "every"} or (low == "/" and s.low(n + 1) in {"herself", "himself"}):
        return False
    if s.opens(n) or low[:1].isdigit() or s.joined(n + 1):
        return False
    if low in {"/", "or", "and"} and s.low(n + 1) in LISTS["possessives"]:
        return s.closed(n + 2)
    if low == "not" or low in LISTS["loose"]:
        return s.closed(n + 1)
    return s.closed(n) or (low in LISTS["finite_verbs"] and s.low(n - 2) == "of")


def means_person(s: Sentence, n: int, word: str, last: int) -> bool:
    """Whether a listed word (tokens `n` to `last`; `word` in lower case) means a person of a group.

    Not meant are verbs ("to host"), names of others ("Stephen King"), places ("St. Paul"), compounds ("mother tongue"),
    exclamations ("oh boy"), colours of things.
    """
    before, after = s.low(n - 1), s.low(last + 1)
    if after in BEHIND.get(word, ()) or before in IN_FRONT.get(word, ()):
        return False
    if word in TITLES:
        return _is_title(s, n, word)
    called = s.first(n) and after == "," and not s.low(last + 2)[:1].isdigit()
    god = word == "lord" and before in {"good", "dear"}
    if word in LISTS["exclaimed"] and (before in LISTS["calls"] or called or god):
        return False
    if word in LISTS["hosting"] and (is_verb(s, n, word) or before.startswith("play")):
        return False
    if word in LISTS["regal"] and not _is_rank(s, n, word):
        return False
    direction = s.low(n - 2) if before == "-" else before
    if word in LISTS["continental"] and direction in LISTS["compass"]:
        return False
    return not (word == "whites" and after == "of")


def _is_title(s: Sentence, n: int, word: str) -> bool:
    """Whether Mr, Ms, Mrs or Miss stands in front of a name: a capital, or a period and a word, in text without."""
    dot = s.low(n + 1) == "."
    behind = n + 1 + dot
    if s.capital(behind) or s.low(behind) in {"and", "&", "or", "/"}:
        return s.capital(n) and not s.shout(n)
    if s.cased:
        return s.capital(n) and dot and word != "miss" and not s.shout(n)
    return word in {"mr", "mrs"} or (dot and word == "ms" and not s.ends(behind))


def is_verb(s: Sentence, n: int, word: str) -> bool:
    """Whether host, groom, man, father, mother or lord is a verb: "to host", "they man the desk"."""
    before, after = s.low(n - 1), s.low(n + 1)
    object_follows = after in LISTS["determiners"] or after[:1].isdigit() or after in {"it", "them", "him", "her"}
    base = not word.endswith("s")
    led = before in LISTS["modals"] | LISTS["subjects"] | {"not"} or before.endswith(("n't", "n’t"))
    if base and led:
        free = word in {"host", "groom"} and before != "that" and after not in {"of", "and", "or"} and not s.ends(n + 1)
        return object_follows or free
    if base and s.first(n):
        return object_follows and word in {"host", "groom", "man"}
    if word not in {"host", "hosts", "groom", "grooms", "fathers", "mothers"}:
        return False
    noun_before = before in LISTS["determiners"] or before.endswith(("'s", "’s", "s'")) or before in {"of", "by"}
    return (object_follows and not noun_before) or _is_multitude(s, n)


def _is_multitude(s: Sentence, n: int) -> bool:
    """ "a host of problems", but not "a host of the show"."""
    whole = s.low(n - 1) in {"a", "whole", "vast"}
    return whole and s.low(n + 1) == "of" and s.low(n + 2) not in LISTS["determiners"]


def _is_rank(s: Sentence, n: int, word: str) -> bool:
    """Whether king, prince, lord, host or such is no name: "the King", "King George", but not "Stephen King".

    "Lord" is God unless a name follows, and plurals with a capital inside a sentence are places or teams.
    """
    before, named = s.low(n - 1), s.capital(n + 1)
    if not s.capital(n):
        return s.low(n + 1) not in LISTS["places"] and (s.cased or before not in LISTS["first_names"])
    run = [n + 1 + i for i in range(4)]
    while run and not s.capital(run[-1]):
        run.pop()
    if any(s.stem(i) in LISTS["places"] for i in run):
        return False
    initial = before == "." and len(s.low(n - 2)) == 1
    surname = s.capital(n - 1) and before not in LISTS["titles"] | LISTS["closed"] and not s.first(n - 1)
    joined = s.joined(n - 1) and s.low(n - 2) not in LISTS["prefixes"]
    if surname or initial or joined or before in LISTS["first_names"]:
        return False
    if word in {"lord", "dame"}:
        return named and not s.low(n).endswith(("'s", "’s"))
    if word.endswith("s") and word != "princess":
        return s.first(n)
    determined = before in LISTS["determiners"] | LISTS["crowned"] or before.endswith(("'s", "’s")) or s.opens(n - 1)
    common = word in {"host", "hero", "groom", "monk", "wizard", "queen"} and s.first(n)
    return determined or named or common or s.low(n + 1) == "of"


def is_ranked(s: Sentence, n: int) -> bool:
    """Whether "Sir", "Lord", "Lady" or "Dame" stands in front of a name."""
    return s.capital(n) and s.capital(n + 1) and s.low(n + 1) not in LISTS["places"]


def is_name(s: Sentence, n: int, word: str, names: frozenset[str]) -> bool:
    """Whether a listed first name is one here: not a word ("mark"), a surname, a saint's place, a company.

    A word between a capital and a small letter is a surname ("Harold Thomas said"); at the start of a sentence only
    behind one of `names` or another known first name ("Throw Paul the rope").
    """
    before, after = s.low(n - 1), s.low(n + 1)
    ordinary = word in LISTS["words_or_names"]
    if s.cased and not s.capital(n):
        return False
    saint = before if before != "." else s.low(n - 2)
    if saint in LISTS["saints"]:
        return False
    if not s.cased:
        return not ordinary or (before not in LISTS["determiners"] and not s.closed(n + 1))
    end = n + 1
    while s.capital(end) and end < n + 5:
        end += 1
    if any(s.stem(i) in LISTS["places"] for i in range(n + 1, end)):
        return False
    if ordinary and s.first(n) and (after in LISTS["determiners"] or after in {"it", "them", "all"}):
        return False
    given = s.capital(n - 1) and before not in LISTS["titles"] | LISTS["closed"] and not s.shout(n - 1)
    if s.first(n - 1):
        given = before in LISTS["first_names"] | names
    return not given or s.capital(n + 1)


def of_person(s: Sentence, n: int, last: int) -> bool:
    """Whether a colour, or a word that is exchanged for one (tokens `n` to `last`), is about people.

    It is in front of a noun for them ("young black and white men"), and where no noun follows in what is said of one
    ("Joe was black.", "they call him black", "the black wouldn't"). Not in "a black dog", "a black and white photo".
    """
    return _before_person(s, last + 1) or (s.closed(last + 1) and _said_of_person(s, n, last))


def _before_person(s: Sentence, n: int) -> bool:
    """Whether a noun for people or a first name follows, perhaps behind adjectives for people."""
    for i in range(n, n + 5):
        low = s.stem(i)
        if (
            low in LISTS["persons"]
            or low.endswith(("women", "woman"))
            or (low in LISTS["first_names"] and s.capital(i))
        ):
            return True
        link = low in {"and", "or", "&", "/", ","} or s.joined(i)
        if not link and low not in LISTS["person_adjectives"]:
            return False
    return False


def _said_of_person(s: Sentence, n: int, last: int) -> bool:
    """Whether a colour without a noun is a predicate of a person, or stands for one."""
    after, determined = s.low(last + 1), s.low(n - 1) in LISTS["determiners"]
    if after in {"would", "could", "should", "will", "who"} or s.low(n - 1) in LISTS["people"]:
        return True
    if determined and (after in {"had", "has"} or after.endswith(("n't", "n’t"))):
        return True
    i = n - 1
    while s.low(i) in {"so", "too", "very", "both", "all", "also", "not", "really", "half", "mostly", "only"}:
        i -= 1
    if s.low(i) in LISTS["be"]:
        return _is_person(s, i - 1)
    pronoun = re.fullmatch(r"(he|she|they|we|i|you|who)['’](s|re|m)", s.low(i))
    return bool(pronoun) or (s.capital(n) and not s.first(n) and s.low(i) in {"a", "an", "the"})


def _is_person(s: Sentence, n: int) -> bool:
    """Whether a token stands for a person: a pronoun, a noun for people, or a name."""
    low = s.low(n)
    if low in {"he", "she", "they", "we", "i", "you", "who"} or low in LISTS["persons"]:
        return True
    known = low in LISTS["first_names"] or not s.first(n)  # "Salt is white"
    return s.capital(n) and known and low not in LISTS["closed"] and s.low(n - 1) not in LISTS["determiners"]


def is_noun(s: Sentence, n: int, last: int) -> bool:
    """Whether "Christian", "Chinese" or such is a noun: a determiner in front, no noun behind ("a Christian had")."""
    if s.low(last).endswith(("'s", "’s")):
        return True
    after = s.low(last + 1)
    if after in {"and", "or", "&"} and s.low(last + 2) in LISTS["adjectives_and_nouns"] and not s.closed(last + 3):
        return False
    finite = (
        after in LISTS["finite_verbs"]
        or after in LISTS["past_verbs"]
        or after in LISTS["nouns_or_verbs"]
        or (after.endswith("ed") and len(after) > 4)
    )
    if not s.closed(last + 1) and not finite:
        return False
    for i in range(n - 1, n - 4, -1):
        if s.low(i) in LISTS["determiners"]:
            return True
        if s.closed(i):
            return False
    return False
