"""The one exception a user meets: a sentence that names the input and the remedy."""

import difflib
import sys
from collections.abc import Callable, Iterable, Sequence


class BeftError(ValueError):
    """Bad input. The message is one clear sentence naming the input and what to do about it."""


class OutOfMemory(BeftError):
    """A bank did not fit in memory; `sweep` continues with banks of half its size."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> BeftError:
    """The error for a `name` that is not in `valid`, with the nearest valid names first; `kind` is e.g. "task"."""
    names = [str(v) for v in valid]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return BeftError(f"unknown {kind} {str(name)!r}: {hint}(valid: {', '.join(names)})")


def rows_named(rows: Sequence[int]) -> str:
    """Row numbers in words: "row 4", "rows 4 and 7", or the first ten and how many there are."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    first = list(map(str, rows[:10]))
    if len(rows) > 10:
        return f"rows {', '.join(first)} and {len(rows) - 10} more ({len(rows)} in all)"
    return f"rows {', '.join(first[:-1])} and {first[-1]}"


def reason_of(error: Exception) -> str:
    """The first line of an error's message without a full stop, or its type where it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".: ")


def exit_status(work: Callable[[], int | None], interrupted: str) -> int:
    """The exit status of a command: that of `work`, 2 after bad input, 130 after Ctrl-C; the reason goes to stderr."""
    try:
        return work() or 0
    except BeftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr)
        return 130
