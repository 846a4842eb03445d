"""A small made-up folder of rated sentences, in the form of the carrier's files; none of its rows is real."""

import itertools

from beft.data import rated_sentences

GOOD, BAD = ("a joy", "a delight", "well made", "great fun"), ("a bore", "a mess", "badly made", "no fun")
THINGS = {
    "film": ("the plot", "the acting", "the score", "the ending", "the first act", "the dialogue"),
    "product": ("the battery", "the screen", "the lens", "the menu", "the case", "the strap"),
    "tweet": ("my day", "the bus", "this rain", "our team", "monday", "lunch"),
    "editorial": ("the budget", "the reform", "the vote", "the bridge", "the ruling", "the school"),
}
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")
WHOLE = 4  # sentences of one review or editorial


def rows(kind):
    """(ID, rating, text) of 384 sentences of a kind, of which every ninth is near neutral."""
    made = []
    for n, (name, thing, word) in enumerate(itertools.product(NAMES, THINGS[kind], GOOD + BAD), 1):
        size = 0.5 if n % 9 == 0 else 1 + n % 7 / 3
        whole = kind in ("product", "editorial")
        identity = f"{(n - 1) // WHOLE + 1}_{(n - 1) % WHOLE + 1}" if whole else str(n)
        made.append((identity, size if word in GOOD else -size, f"{name} found {thing} of number {n} to be {word}."))
    return made


def write(folder, rows_of=rows):
    """The folder, made, with the files of all kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, (name, _) in rated_sentences.KINDS.items():
        lines = "\r\n".join(f"{identity}\t{rating}\t{text}" for identity, rating, text in rows_of(kind))
        (folder / name).write_bytes(lines.encode())
    return folder
