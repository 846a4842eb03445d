"""GGUF files, llama.cpp's format of one file for weights, config and tokenizer: dequantised once by transformers."""

import importlib.util
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
import transformers
from huggingface_hub import save_torch_state_dict
from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from .. import carriers
from ..cached import check_room, sha256_of
from ..errors import BeftError, reason_of
from .converted import converted, origin

EXACT = (torch.bfloat16, torch.float16)
"""Kept in one of these where it holds every value exactly, else in float32: a dequantised value is not rounded."""
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Vocabularies that llama.cpp splits digit by digit before anything else, which transformers leaves out."""
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Kinds of values of a header, as `struct` has them."""
TEXT, LIST = 8, 9
"""The other two."""
VERSIONS = (2, 3)
"""Of the format, with lengths of 64 bits; the first has 32."""
UNSCALED = (None, 0, 1)
"""Factors by which positions are left as they are."""
ORIGINAL = "give the folder of the model that it was made from, with its .safetensors files"
ABOUT = """---
library_name: transformers
tags: [beft]
---

{name} (sha256 {digest}), dequantised to {dtype}: the weights have no more digits than those of that file.
"""


def gguf_in(place: Path) -> Path | None:
    """The GGUF file that a path is, or that a folder holds; None where there is none.

    Raises BeftError: several in one folder.
    """
    if place.is_file():
        return place if place.suffix == ".gguf" else None
    files = sorted(place.glob("*.gguf"))
    if len(files) > 1:
        parts = re.search(r"-\d{5}-of-\d{5}$", files[0].stem)
        remedy = (
            "join its parts with llama.cpp's `gguf-split --merge`" if parts else f"give the path of one, {files[0]}"
        )
        raise BeftError(f"{place} holds {len(files)} GGUF files ({files[0].name}, {files[1].name}, ...): {remedy}")
    return files[0] if files else None


def dequantised(path: Path, digest: str = "") -> tuple[Path, str]:
    """The folder of a GGUF file's model as safetensors with config and tokenizer, and the file's sha256.

    It is read by transformers, which undoes llama.cpp's order of query and key rows. The first call takes about half a
    minute for a vocabulary of 50,000 and some times the file's size of memory; later ones find the folder in the cache.

    Args:
        digest: the file's sha256 where it is known.

    Raises BeftError: no GGUF file, a truncated one, one of version 1 or in big-endian order, an architecture that
        transformers cannot read from GGUF, scaled rotary positions or biases that it leaves out, no package gguf, a
        model that lacks tensors or reads both ways, no room on the disk.
    """
    digest = digest or sha256_of(path)

    def make(folder: Path) -> None:
        _write(path, digest, folder)

    return converted(path.name, digest, make, path.stat().st_size), digest


def base_note(folder: str | Path) -> str:
    """What has to be said of a base model that was read from GGUF: which file, and where it is had; else "".

    Args:
        folder: that the model was loaded from, `config.name_or_path`.
    """
    file, digest = (origin(folder) if folder else None) or ("", "")
    if not file.endswith(".gguf"):
        return ""
    said = f"{file} (sha256 {digest}), dequantised"
    for name, carrier in carriers.CARRIERS.items():
        if any(content.sha256 == digest for content in carrier.files.values()):
            said += f": {name}, of the {carrier.source}, which `python -m beft fetch {name}` downloads"
    return said


def read(path: Path) -> tuple[Any, Any]:
    """The causal language model of a GGUF file in float32, and its tokenizer, which splits digits as llama.cpp does.

    Raises BeftError as `dequantised`.
    """
    needs_package(path.name)
    header, tensors = _header(path)
    architecture = str(header.get("general.architecture"))
    _refuse_scaled(path, header, architecture, tensors)
    options: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    packed = getattr(transformers, "GgufConfig", None)  # of versions that could leave the weights in 4 bits
    unpacked = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    with _explained(path, architecture), _quiet():
        model, report = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, **unpacked, **options
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        unread = sorted({name for name in tensors if name.endswith(".bias")} - _biases(model, architecture))
    if header.get("tokenizer.ggml.pre") in SINGLE_DIGITS:
        splitter = tokenizer.backend_tokenizer
        splitter.pre_tokenizer = Sequence([Digits(individual_digits=True), splitter.pre_tokenizer])
    if lost := sorted(set(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]}):
        raise BeftError(
            f"{path} lacks {len(lost)} tensors of a {model.config.model_type} model or has them in another shape "
            f"({lost[0]}): it is incomplete or of a variant that transformers cannot read, give another file"
        )
    if unread:
        raise BeftError(
            f"{path} has {len(unread)} biases that a {model.config.model_type} model of transformers has no place for "
            f"({unread[0]}), so that it would compute something else: {ORIGINAL}"
        )
    return model, tokenizer


def _refuse_scaled(path: Path, header: dict[str, Any], architecture: str, tensors: list[str]) -> None:
    """Raise BeftError for rotary positions that are scaled, which transformers reads of gpt-oss alone."""
    scaling = header.get(f"{architecture}.rope.scaling.type")
    factors = [header.get(f"{architecture}.rope.{name}") for name in ("scaling.factor", "scale_linear")]
    if scaling is None and any(factor not in UNSCALED for factor in factors):
        scaling = "linear"  # as llama.cpp takes it
    if scaling in (None, "none") or architecture == "gpt-oss":
        scaling = next((name for name in tensors if name.startswith(("rope_freqs.", "rope_factors_"))), None)
    if scaling is not None:
        raise BeftError(
            f"{path} scales its rotary positions ({scaling}), which transformers does not read from GGUF, so that it "
            f"would compute something else: {ORIGINAL}"
        )


def _biases(model: Any, architecture: str) -> set[str]:
    """llama.cpp's names of a model's biases."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    arch = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(arch, model.config.num_hidden_layers)
    modules = [name.removesuffix(".bias").split(".") for name in model.state_dict() if name.endswith(".bias")]
    # BLOOM's are also named as in the model without a head
    found = [names.get_name(".".join(steps[i:])) for steps in modules for i in range(len(steps))]
    return {f"{name}.bias" for name in found if name is not None}


def needs_package(file: str) -> None:
    """Raise BeftError where the package that reads and writes such files is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise BeftError(f"{file} is in the GGUF format, for which the package gguf is missing: `pip install gguf`")


def _write(path: Path, digest: str, folder: Path) -> None:
    model, tokenizer = read(path)
    # transformers saves no model that was read from GGUF, so its tensors and its config are written here
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    dtype = next(
        (dtype for dtype in EXACT if all(_is_exact(tensor, dtype) for tensor in state.values())), torch.float32
    )
    names = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}  # of tied tensors the first
    kept = {name: state[name].to(dtype) for name in reversed(names.values())}
    check_room(sum(tensor.nbytes for tensor in kept.values()), folder, f"{path.name} as safetensors")
    save_torch_state_dict(kept, folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype, config.architectures = dtype, [type(model).__name__]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about = ABOUT.format(name=path.name, digest=digest, dtype=str(dtype).removeprefix("torch."))
    (folder / "README.md").write_text(about, encoding="utf-8")


def _is_exact(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a cast loses nothing."""
    return torch.equal(tensor.to(dtype).to(tensor.dtype), tensor)


def _header(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The numbers and texts of a GGUF file's header, without lists, and the names of the tensors.

    Raises BeftError: there is none, or half of one; another version or order of bytes.
    """
    fields: dict[str, Any] = {}
    tensors = []
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"GGUF":
                raise BeftError(f"{path} is no GGUF file, or a damaged one: fetch it again")
            (version,) = struct.unpack("<I", file.read(4))
            if version not in VERSIONS:
                kind = f"of version {version} of its format" if version & 0xFFFF else "in big-endian order of bytes"
                raise BeftError(
                    f"{path} is {kind}, and GGUF is read in version 2 or 3 and little-endian: fetch such a file, or "
                    "make one with llama.cpp"
                )
            count, entries = struct.unpack("<QQ", file.read(16))
            for _ in range(entries):
                name = _text(file)
                fields[name] = _value(file, *struct.unpack("<I", file.read(4)))
            for _ in range(count):
                tensors.append(_text(file))
                (dimensions,) = struct.unpack("<I", file.read(4))
                file.seek(8 * dimensions + 12, os.SEEK_CUR)  # its extents, its kind and where it is
    except (struct.error, EOFError, UnicodeDecodeError, KeyError) as error:
        raise BeftError(f"{path} cannot be read as GGUF, it may be truncated: fetch it again") from error
    return fields, tensors


def _value(file: BinaryIO, kind: int) -> Any:
    """The next value of a header; of a list, nothing."""
    if kind == TEXT:
        return _text(file)
    if kind != LIST:
        return struct.unpack(f"<{NUMBERS[kind]}", file.read(struct.calcsize(f"<{NUMBERS[kind]}")))[0]
    inner, count = struct.unpack("<IQ", file.read(12))
    for _ in range(count):
        _value(file, inner)
    return None


def _text(file: BinaryIO) -> str:
    """The next text. Raises EOFError for a length of more bytes than the file has."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > os.fstat(file.fileno()).st_size:
        raise EOFError(f"a text of {length} bytes")
    return file.read(length).decode("utf-8")


@contextmanager
def _explained(path: Path, architecture: str) -> Iterator[None]:
    """Let whatever reading a GGUF file raises end in a BeftError."""
    try:
        yield
    except Exception as error:  # of numpy, gguf and transformers, for one and the same damage
        if re.search("not supported|Unknown gguf|Unrecognized configuration|does not recognize", str(error)):
            raise BeftError(
                f"{path} is of the architecture {architecture}, which transformers cannot read from GGUF as a causal "
                f"language model: {ORIGINAL}"
            ) from error
        raise BeftError(
            f"{path} cannot be read as GGUF, it may be truncated ({reason_of(error)}): fetch it again"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
