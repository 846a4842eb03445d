"""A tuned classifier on disk: what stands beside a checkpoint or an adapter, and either as one plain model again."""

import json
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.own_prompt import Wording, parse, wording
from ..errors import BeftError, reason_of
from ..models import loading as models
from . import adapter_files
from .adapter_files import ABOUT, CONFIG, PROMPTS
from .bias_as_lora import as_vectors
from .export import merge_adapter
from .peft_adapter import load_tuned

LENGTH = 128  # tokens, where it is not known what a model was tuned with
_HEADS = (".classifier.weight", ".classifier.out_proj.weight", ".score.weight")  # last layers, in an adapter's names


@dataclass(frozen=True)
class About:
    """What a classifier was tuned with that no config of a model has.

    Attributes:
        labels: names of the classes, in the order of the logits; none for a regression.
        columns: the columns of texts, one or two but of a prompt; empty where not known.
        max_length: tokens that texts were cut to.
        wording: the prompt of a language model, with an option for each label; None for a classifier with a head.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    max_length: int
    wording: Wording | None = None


def write_about(folder: str | Path, about: About) -> None:
    """Write it into the folder of a checkpoint or an adapter, beside what an adapter's file says of its base model.

    A prompt also stands in the README.md there, for readers without this package.
    """
    path = Path(folder) / ABOUT
    content = json.loads(path.read_text(encoding="utf-8")) if (Path(folder) / CONFIG).is_file() else {}
    content |= {"labels": about.labels, "columns": about.columns, "max_length": about.max_length}
    if about.wording is not None:
        content |= {"template": about.wording.template.text, "options": about.wording.words}
        card = Path(folder) / "README.md"
        before = card.read_text(encoding="utf-8").partition(_HEADING)[0] if card.is_file() else ""
        card.write_text(before + _card(about, about.wording), encoding="utf-8")
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_HEADING = "\n## Its prompt\n"
_PROMPT = """
Each row is put to the model as this text, with the cells of its columns {columns}, without spaces around them:

{template}

and one of these in the place of `{{label}}`:

| label | text |
| --- | --- |
{options}

The label is the one whose text has the highest mean log-probability per token. A prompt with its option has at most
{length} tokens; of a longer one the left end is cut. With beft installed `beft.Tuned.load("this folder").predict(...)`
does that.
"""


def _card(about: About, words: Wording) -> str:
    """The section of a README.md that says how rows are put to the model."""
    cells = {label.replace("|", "\\|"): text.replace("|", "\\|") for label, text in words.words.items()}
    rows = (f"| {label} | {text} |".replace("\n", "<br>") for label, text in cells.items())
    return _HEADING + _PROMPT.format(
        columns=", ".join(f"`{column}`" for column in about.columns),
        template=textwrap.indent(words.template.text, "    ", lambda line: True),
        options="\n".join(rows),
        length=about.max_length,
    )


def read_classifier(folder: Path, offline: bool = False) -> tuple[models.Loaded, About]:
    """A checkpoint, or an adapter merged into its base model, frozen, with its labels in its config.

    It is a classifier with a head, or a language model where a prompt stands beside it.

    Checkpoints and adapters that are not of this package have the labels of their config, and columns that are not
    known; texts are cut to 128 tokens. `offline`: the hub is not asked for a base model.

    Raises BeftError: there is neither in the folder, or its files are damaged, have no head or do not belong together.
    """
    about = read_about(folder)
    prompted = about is not None and about.wording is not None
    if (folder / CONFIG).is_file():
        loaded = _merged(folder, offline, prompted)
    elif (folder / "config.json").is_file():
        loaded = (models.load_causal if prompted else models.load_classifier)(str(folder.absolute()))
    else:
        raise BeftError(f"{folder} holds no saved model and no adapter: give a folder that a model was saved to")
    if prompted and about is not None:
        return loaded, about
    config = loaded.model.config
    outputs = config.num_labels
    if about is None:
        names = () if outputs == 1 else tuple(str(config.id2label[i]) for i in range(outputs))
        return loaded, About(names, (), LENGTH)
    if (len(about.labels) or 1) != outputs:
        raise BeftError(f"{folder / ABOUT} has {len(about.labels)} labels for {outputs} outputs: save the model again")
    if about.labels:
        config.id2label = dict(enumerate(about.labels))
        config.label2id = {name: i for i, name in enumerate(about.labels)}
    return loaded, about


def read_about(folder: Path) -> About | None:
    """What `write_about` wrote there, or None. Raises BeftError for anything else."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        labels, columns, length = content["labels"], content.get("columns", []), content.get("max_length", LENGTH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BeftError(f"{folder / ABOUT} cannot be read ({reason_of(error)}): save the model again") from error
    lists = all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in (labels, columns))
    words = _read_wording(folder, content) if "template" in content and lists else None
    places = 2 if words is None else len(words.template.columns)
    if not (lists and len(columns) <= places and type(length) is int):
        raise BeftError(f"{folder / ABOUT} does not hold labels, columns and max_length: save the model again")
    return About(tuple(labels), tuple(columns), length, words)


def _read_wording(folder: Path, content: dict[str, Any]) -> Wording:
    """The prompt in a file that `write_about` wrote. Raises BeftError for one that is none."""
    options = content.get("options")
    if not (isinstance(options, dict) and all(isinstance(text, str) for text in options.values())):
        raise BeftError(f"{folder / ABOUT} has a template and no options by label: save the model again")
    try:
        return wording(parse(content["template"]), content["labels"], options, str(folder / ABOUT))
    except BeftError as error:
        raise BeftError(f"{folder / ABOUT} holds no prompt ({reason_of(error)}): save the model again") from error


def outputs_of(files: adapter_files.AdapterFiles) -> int | None:
    """The outputs of the head in an adapter; None where it has none."""
    heads = [len(tensor) for name, tensor in files.tensors.items() if f".{name}".endswith(_HEADS)]
    return heads[0] if len(heads) == 1 else None


def _merged(folder: Path, offline: bool, prompted: bool) -> models.Loaded:
    """The base model of an adapter with the adapter in it; of virtual tokens PEFT's model, which keeps them."""
    files = adapter_files.read(folder)
    base = files.config.get("base_model_name_or_path")
    if prompted and base:
        return _with_adapter(models.load_causal(str(base), offline=offline), files, folder)
    outputs = outputs_of(files)
    if not base or outputs is None:
        what = "has no head for texts with labels" if base else "does not name its base model"
        raise BeftError(f"the adapter in {folder} {what}: put it on a model with beft.load_tuned")
    return _with_adapter(models.load(str(base), labels=outputs, offline=offline), files, folder)


def _with_adapter(loaded: models.Loaded, files: adapter_files.AdapterFiles, folder: Path) -> models.Loaded:
    if as_vectors(files).kind == "BEFT":
        return replace(loaded, model=merge_adapter(loaded.model, folder))
    model: Any = load_tuned(loaded.model, folder)
    if files.kind in PROMPTS:
        return replace(loaded, model=model)
    try:
        return replace(loaded, model=model.merge_and_unload().requires_grad_(False).eval())
    except (KeyError, RuntimeError, TypeError, ValueError) as error:  # of PEFT
        base = files.config.get("base_model_name_or_path")
        raise BeftError(f"the adapter in {folder} does not fit {base} ({reason_of(error)}): save it again") from error
