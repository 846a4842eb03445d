"""Weights of other formats, converted once to safetensors: kept in the user's cache under their own hash."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

from .. import paths
from ..cached import MADE, check_room, make_folder, no_room
from ..errors import BeftError, reason_of
from .hashes import weight_hash

MARK = "converted.json"
"""Beside the weights: from what they were made, and their hash, which is checked at every load."""


def converted(name: str, digest: str, make: Callable[[Path], None], needed: int) -> Path:
    """The folder of the converted weights, made where it is not there yet, and checked.

    Args:
        name: of the original, for the name of the folder and for errors.
        digest: sha256 of the original and of whatever else decides what is made.
        make: writes config, tokenizer and safetensors into a folder that is there.
        needed: bytes that it writes, about.

    Raises BeftError: what `make` raises; no room on the disk; a cache that cannot be written; a damaged copy.
    """
    stem = f"{Path(name).stem}-{digest}"
    for place in paths.caches():
        folder = place / "converted" / stem
        if (folder / MARK).is_file():
            _check(folder, name)
            return folder
    target = paths.check_folder(paths.cache() / "converted", "cache folder (BEFT_CACHE chooses another)") / stem

    def write(scratch: Path) -> None:
        check_room(needed, target.parent, f"{name} as safetensors")
        folder = scratch / MADE
        make(folder)
        (folder / MARK).write_text(json.dumps({"from": name, "weights": weight_hash(folder)}), encoding="utf-8")

    try:
        make_folder(target, write, lambda folder: (folder / MARK).is_file())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room(needed, target.parent, f"{name} as safetensors") from error
        raise BeftError(
            f"{name} cannot be converted to safetensors in {target}, {error.strerror or reason_of(error)}: make the "
            "folder writable, or choose another with BEFT_CACHE"
        ) from error
    return target


def _check(folder: Path, name: str) -> None:
    try:
        whole = json.loads((folder / MARK).read_text(encoding="utf-8"))["weights"] == weight_hash(folder)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise BeftError(
            f"the copy of {name} as safetensors in {folder} is damaged: delete that folder, it is made anew"
        )
