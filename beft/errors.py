"""The one exception a user meets: a sentence that names the input and the remedy."""

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence

# Settings by their names here -> the names that other libraries have for them.
_OTHER_NAMES = {
    "rate": "learning_rate lr step_size",
    "epochs": "num_train_epochs num_epochs n_epochs max_epochs nb_epochs",
    "batch_size": "batch batchsize bs train_batch_size per_device_train_batch_size",
    "max_length": "max_len maxlen max_seq_length max_seq_len max_sequence_length sequence_length",
    "model": "model_name model_name_or_path pretrained_model_name_or_path base_model model_id checkpoint",
    "task": "data dataset dataset_name task_name file data_file train_file",
    "method": "peft_method peft_type tuner",
    "seed": "random_state random_seed data_seed",
    "seeds": "random_state random_seed data_seed",
    "schedule": "scheduler lr_scheduler lr_scheduler_type",
    "clip": "max_grad_norm grad_clip clip_grad_norm gradient_clip_val",
    "eps": "epsilon adam_epsilon",
    "dtype": "torch_dtype precision bf16 fp16",
    "regime": "n_train train_size num_samples max_train_samples n_samples",
    "validation": "val valid validation_file eval_file test_file dev_file",
    "adapter": "output_dir adapter_dir adapter_path",
    "save": "output_dir out_dir save_dir",
    "progress": "verbose progress_bar show_progress",
    "quiet": "silent disable_tqdm",
    "output": "out outfile out_file output_file",
}


class BeftError(ValueError):
    """Bad input. The message is one clear sentence, naming the input and what to do about it.

    Whatever input it names, it is a line that can be printed: without line breaks, half characters, or words of more
    than some hundred letters, of which the middle is left out.
    """

    def __init__(self, message: object = "") -> None:
        line = " ".join(str(message).splitlines()).encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}...{word[0][-60:]}", line))


class OutOfMemory(BeftError):
    """A bank did not fit in memory; `sweep` continues with banks of half its size."""


def unknown(kind: str, name: object, valid: Iterable[str]) -> BeftError:
    """The error for a `name` that is not in `valid`, where "rate (of a Run)" is `rate`; `kind` is e.g. "task".

    First comes what another library's name for a setting is called here, or the nearest valid names.
    """
    names = {str(v).partition(" (")[0]: str(v) for v in valid}
    near = [names[n] for n in difflib.get_close_matches(str(name), list(names), n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    for here, other in _OTHER_NAMES.items():
        if here in names and str(name) in other.split():
            hint = f"{name} is called {names[here]} here "
            break
    return BeftError(f"unknown {kind} {brief(str(name))}: {hint}(valid: {', '.join(names.values())})")


def rows_named(rows: Sequence[int]) -> str:
    """Row numbers in words: "row 4", "rows 4 and 7", or the first ten and how many there are."""
    if len(rows) == 1:
        return f"row {rows[0]}"
    first = list(map(str, rows[:10]))
    if len(rows) > 10:
        return f"rows {', '.join(first)} and {len(rows) - 10} more ({len(rows)} in all)"
    return f"rows {', '.join(first[:-1])} and {first[-1]}"


def brief(value: object) -> str:
    """A value as a message shows it: its repr, on one line and at most about a hundred characters of it."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of an object whose own repr fails
        text = f"a {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


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
