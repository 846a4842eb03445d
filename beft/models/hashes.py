"""Hashes of a model's files: of the weights, and of config and tokenizer."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ..cached import sha256_of

# What decides a result beside the weights: settings, and a vocabulary, of which tokenizer.json alone is read if there.
DECIDING = tuple(
    f"{name}.json" for name in ("config", "generation_config", "tokenizer_config", "special_tokens_map", "added_tokens")
)
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "*.tiktoken")
# Of a config, what says only where it was written and by what.
ORIGIN = ("_name_or_path", "name_or_path", "transformers_version")


def weight_hash(files: Path | Sequence[Path]) -> str:
    """sha256 of the one weight file, or of all names and hashes where there are several.

    Args:
        files: the files in the order of their names, or a folder, of which its safetensors files count.
    """
    if isinstance(files, Path):
        files = sorted(files.glob("*.safetensors"))
    hashes = [sha256_of(path) for path in files]
    if len(files) == 1:
        return hashes[0]
    listing = "".join(f"{path.name}:{digest}\n" for path, digest in zip(files, hashes, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def config_hash(folder: Path) -> str:
    """sha256 of the names and contents of a model's config and tokenizer files.

    The order of a config's entries does not count, nor which version of transformers wrote it, nor from where.
    """
    vocabulary = VOCABULARY[:1] if (folder / VOCABULARY[0]).exists() else VOCABULARY
    files = sorted({path for pattern in (*DECIDING, *vocabulary) for path in folder.glob(pattern)})
    listing = "".join(f"{path.name}:{_config_digest(path)}\n" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _config_digest(path: Path) -> str:
    written = path.read_bytes().replace(b"\r\n", b"\n")  # as git may check it out
    try:
        content = json.loads(written) if path.name in DECIDING else None
    except ValueError:  # loading it says what is wrong with it
        content = None
    if content is None:
        return hashlib.sha256(written).hexdigest()
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name not in ORIGIN}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
