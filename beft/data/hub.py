"""Data sets of the Hugging Face hub, and whether it may be asked."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import BeftError, reason_of
from .files import Table, columns_of
from .tasks import HUB


def hub_is_offline(offline: bool) -> bool:
    """Whether the hub must not be asked: `offline`, or HF_HUB_OFFLINE in the environment (1, on, yes or true)."""
    return offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "on", "yes", "true")


def hub_tables(suite: str, name: str, splits: Sequence[str], offline: bool) -> list[Table]:
    """The columns of each split of a task on the hub. Raises BeftError where it must not or cannot be asked."""
    home = suite if suite == name else f"{suite}/{name}"
    remedy = (
        f"set BEFT_DATA to a folder that holds {home}/train.jsonl and {splits[1]}.jsonl, "
        "or be online with offline and HF_HUB_OFFLINE unset"
    )
    with _request(f"task {name!r}", "was not found in a data folder", remedy, offline):
        import datasets  # here: its import takes seconds, and most loads need none of it

        hub = datasets.load_dataset(HUB[suite], *([] if suite == name else [name]))
        return [columns_of(hub[split].to_pandas()) for split in splits]


def hub_parquet(repository: str, folder: str, local: str, offline: bool) -> Path:
    """The hub's Parquet copy of one split, which exists also where the data set is published as a script.

    Args:
        folder: configuration and split, as "intrasentence/validation".
        local: place of the file in a data folder, for the error.

    Raises:
        BeftError: the hub must not or cannot be asked.
    """
    remedy = f"set BEFT_DATA to a folder with {local}, give a path, or be online with HF_HUB_OFFLINE unset"
    with _request(repository, "is not here", remedy, offline):
        from huggingface_hub import hf_hub_download

        file = f"{folder}/0000.parquet"
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision="refs/convert/parquet"))


@contextlib.contextmanager
def _request(name: str, absence: str, remedy: str, offline: bool) -> Iterator[None]:
    """A request to the hub, with its failures as one sentence each."""
    if hub_is_offline(offline):
        raise BeftError(f"{name} {absence}, and the hub is not asked while offline: {remedy}")
    try:
        yield
    except Exception as error:  # the hub, the network and the cache each raise their own types
        raise BeftError(f"{name} could not be had from the hub ({reason_of(error)}): {remedy}") from error
