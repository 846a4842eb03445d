"""A tuned classifier on disk: what stands beside a checkpoint or an adapter, and either as one plain model again."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BeftError, reason_of
from ..models import loading as models
from . import adapter_files
from .adapter_files import ABOUT, CONFIG, PROMPTS
from .peft_adapter import load_tuned

LENGTH = 128  # tokens, where it is not known what a model was tuned with
_HEADS = (".classifier.weight", ".classifier.out_proj.weight", ".score.weight")  # last layers, in an adapter's names


@dataclass(frozen=True)
class About:
    """What a classifier was tuned with that no config of a model has.

    Attributes:
        labels: names of the classes, in the order of the logits; none for a regression.
        columns: the one or two columns of texts; empty where not known.
        max_length: tokens that texts were cut to.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    max_length: int


def write_about(folder: str | Path, about: About) -> None:
    """Write it into the folder of a checkpoint or an adapter, beside what an adapter's file says of its base model."""
    path = Path(folder) / ABOUT
    content = json.loads(path.read_text(encoding="utf-8")) if (Path(folder) / CONFIG).is_file() else {}
    path.write_text(json.dumps(content | asdict(about), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_classifier(folder: Path, offline: bool = False) -> tuple[models.Loaded, About]:
    """A checkpoint, or an adapter merged into its base model, frozen, with its labels in its config.

    Checkpoints and adapters that are not of this package have the labels of their config, and columns that are not
    known; texts are cut to 128 tokens. `offline`: the hub is not asked for a base model.

    Raises BeftError: there is neither in the folder, or its files are damaged, have no head or do not belong together.
    """
    about = read_about(folder)
    if (folder / CONFIG).is_file():
        loaded = _merged(folder, offline)
    elif (folder / "config.json").is_file():
        loaded = models.load_classifier(str(folder.absolute()))
    else:
        raise BeftError(f"{folder} holds no saved model and no adapter: give a folder that a model was saved to")
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
    if not (lists and len(columns) <= 2 and type(length) is int):
        raise BeftError(f"{folder / ABOUT} does not hold labels, columns and max_length: save the model again")
    return About(tuple(labels), tuple(columns), length)


def outputs_of(files: adapter_files.AdapterFiles) -> int | None:
    """The outputs of the head in an adapter; None where it has none."""
    heads = [len(tensor) for name, tensor in files.tensors.items() if f".{name}".endswith(_HEADS)]
    return heads[0] if len(heads) == 1 else None


def _merged(folder: Path, offline: bool) -> models.Loaded:
    """The base model of an adapter with the adapter in it; of virtual tokens PEFT's model, which keeps them."""
    files = adapter_files.read(folder)
    base = files.config.get("base_model_name_or_path")
    outputs = outputs_of(files)
    if not base or outputs is None:
        what = "has no head for texts with labels" if base else "does not name its base model"
        raise BeftError(f"the adapter in {folder} {what}: put it on a model with beft.load_tuned")
    loaded = models.load(str(base), labels=outputs, offline=offline)
    model: Any = load_tuned(loaded.model, folder)
    if files.kind in PROMPTS:
        return replace(loaded, model=model)
    try:
        return replace(loaded, model=model.merge_and_unload().requires_grad_(False).eval())
    except (KeyError, RuntimeError, TypeError, ValueError) as error:  # of PEFT
        raise BeftError(f"the adapter in {folder} does not fit {base} ({reason_of(error)}): save it again") from error
