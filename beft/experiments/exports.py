"""What is on disk, an adapter or a record, as a plain checkpoint: a record says which run it is of."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..api import Tuned
from ..bank.adapter_files import CONFIG, read
from ..bank.export import merge_adapter
from ..errors import BeftError
from ..models.loading import load_causal
from ..records.store import Store
from ..study import Run, Study
from .context import Context
from .sweep import export


def export_saved(
    source: str | Path,
    folder: str | Path,
    *,
    offline: bool = False,
    layout: str | None = None,
    gguf: str | None = None,
    **where: str,
) -> None:
    """Write a plain checkpoint of an adapter (its folder), of a run (its record's file), or of a checkpoint.

    The adapter of a language model is exported by the record in whose folder it lies, or by the base model that it
    names, as one that was trained by PEFT.

    Args:
        source: the folder or file.
        folder: to write.
        offline: never ask the hub for the model or the task.
        layout, gguf: of a language model, as of `sweep.export`.
        where: `model`, `task` and `validation` of a record, whose folder or files it names by their last part only.

    Raises BeftError: there is neither, or it does not belong to this model and these rows; what `sweep.export` raises.
    """
    source = Path(source).expanduser()
    record = source if source.suffix == ".json" else _record_of(source)
    if record is None:
        base = _language_model_of(source)
        if base is not None:
            loaded = load_causal(base, offline=offline)
            merge_adapter(loaded.model, source, folder, loaded.tokenizer, layout=layout, gguf=gguf)
            return
        if layout or gguf:
            raise BeftError(f"{source} holds no language model, which layouts and GGUF files are for: leave both out")
        Tuned.load(source, offline=offline).save(folder)
        return
    store = Store(record.parent)
    content = store.read(record)
    if content["kind"] != "run":
        raise BeftError(f"{record.name} is the record of a {content['kind']}, not of a run: give another record")
    study, run = _made_by(content["settings"], offline, where)
    now = Context(study).settings(run)
    if other := [name for name, value in content["settings"].items() if name != "validate" and now.get(name) != value]:
        raise BeftError(
            f"{record.name} was made with another {other[0]} ({content['settings'][other[0]]}, here "
            f"{now.get(other[0])}): give the model and the task that it was made with"
        )
    export(study, run, store, folder, layout=layout, gguf=gguf)


def _language_model_of(folder: Path) -> str | None:
    """The base model that the BEFT adapter of a causal language model names; None for anything else."""
    if not (folder / CONFIG).is_file():
        return None
    config = read(folder).config
    wanted = config.get("task_type") == "CAUSAL_LM" and config.get("peft_type") == "BEFT"
    return str(config["base_model_name_or_path"]) if wanted and config.get("base_model_name_or_path") else None


def _record_of(adapter: Path) -> Path | None:
    """The record of a run on prompts in whose store an adapter lies; None for any other folder."""
    if adapter.parent.name == "adapters":
        for path in adapter.parent.parent.glob(f"*-{adapter.name}.json"):
            if Store(path.parent).read(path)["settings"].get("prompted"):
                return path
    return None


def _made_by(settings: dict[str, Any], offline: bool, where: dict[str, str]) -> tuple[Study, Run]:
    """The study and the run that have these settings of a record."""
    tuning = settings["tuning_size"] / (settings["train_size"] + settings["tuning_size"])
    named = {field.name: settings[field.name] for field in fields(Study) if field.name in settings}
    study = Study(**(named | {"tuning": tuning, "offline": offline} | where))
    return study, Run(settings["method"], settings["seed"], settings["rate"])
