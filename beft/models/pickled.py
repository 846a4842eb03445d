"""Weights as torch's pickles, `pytorch_model.bin`: read by `weights_only=True`, which runs no code; converted once."""

import json
import pickle
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import BeftError, brief, reason_of
from .converted import converted
from .hashes import config_hash, weight_hash

WEIGHTS, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PATTERNS = ["pytorch_model*.bin"]
"""Of such files on the hub; the index is among the JSON files."""
SHARD = 2 << 30
"""Bytes of tensors that are copied at a time, and the size of the files that are made."""
BESIDE = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")


def weights_in(folder: Path) -> list[Path]:
    """The weight files of a folder, by its index or the one file; none where there is neither.

    Raises BeftError: an index that cannot be read, or of files that are not there.
    """
    if not (folder / INDEX).is_file():
        return [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else []
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BeftError(f"{folder / INDEX} cannot be read ({reason_of(error)}): fetch it again") from error
    if lost := [path.name for path in files if not path.is_file()]:
        raise BeftError(f"{folder} lacks {lost[0]}, which {INDEX} names: fetch the model again")
    return files


def named(files: Sequence[Path]) -> str:
    """The files in words."""
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def as_safetensors(folder: Path, files: list[Path]) -> tuple[Path, str, str]:
    """The folder with the same model as safetensors, and the hashes of weights and config of the original.

    File by file and piece by piece, so that it takes little more memory than a piece (files of before torch 1.6 are
    read whole). Precision and names of the tensors stay.

    Raises BeftError: a file that holds more than tensors, which is not read; a truncated one; no room on the disk.
    """
    weights, config = weight_hash(files), config_hash(folder)

    def make(target: Path) -> None:
        _write(folder, files, target)

    digest = weights if not config else f"{weights[:32]}{config[:32]}"
    size = sum(path.stat().st_size for path in files)
    return converted(folder.resolve().name, digest, make, size), weights, config


def _write(folder: Path, files: Sequence[Path], target: Path) -> None:
    index: dict[str, str] = {}
    for path in files:
        for piece in _pieces(_tensors(path)):
            name = f"model-{len(set(index.values())) + 1:05d}.safetensors"
            # copied: what shares memory, as tied embeddings do, is no longer shared
            save_file({key: t.clone().contiguous() for key, t in piece.items()}, target / name, {"format": "pt"})
            index |= dict.fromkeys(piece, name)
    for pattern in BESIDE:
        for path in folder.glob(pattern):
            if not path.name.endswith(".index.json"):
                shutil.copyfile(path, target / path.name)
    if len(set(index.values())) == 1:
        (target / next(iter(index.values()))).rename(target / "model.safetensors")
    else:
        listing = {"metadata": {}, "weight_map": index}
        (target / "model.safetensors.index.json").write_text(json.dumps(listing, indent=1), encoding="utf-8")


def _pieces(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors in pieces of at most SHARD bytes, but at least one tensor."""
    piece: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if piece and size + tensor.nbytes > SHARD:
            yield piece
            piece, size = {}, 0
        piece[name] = tensor
        size += tensor.nbytes
    if piece:
        yield piece


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name. Raises BeftError: it holds anything else, or is damaged."""
    try:
        content = _read(path)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class|type)\s+`?([\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise BeftError(
            f"{path} holds more than tensors{what}, which could run code when it is read, and is not read: give the "
            "model as safetensors"
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and others for a damaged file
        raise BeftError(f"{path} cannot be read, it may be truncated ({reason_of(error)}): fetch it again") from error
    if not isinstance(content, dict) or not content:
        raise BeftError(
            f"{path} holds {brief(type(content).__name__)}, no dictionary of tensors: give a model's weights"
        )
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise BeftError(f"{path} holds {brief(name)}, which is no tensor of weights: give the weights alone")
    return {name: tensor.detach() for name, tensor in content.items()}


def _read(path: Path) -> Any:
    """What torch makes of a file without running code; mapped from the disk where its format allows that."""
    with open(path, "rb") as file:
        mapped = file.read(4) == b"PK\x03\x04"  # a zip, of torch 1.6 and later
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
