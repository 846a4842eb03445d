"""Where a record comes from: the code's commit, the packages' versions, the device."""

from __future__ import annotations

import functools
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..paths import ROOT

if TYPE_CHECKING:
    from ..data.datasets import Dataset
    from ..models.files import ModelFiles
    from ..models.loading import Loaded

PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy", "scipy", "sklearn")
# What running the notebooks writes: it says nothing about the code that made it.
GENERATED = ("data/results", "figures", "build")


def _git(*arguments: str, folder: Path) -> str | None:
    """What `git ARGUMENTS` prints in `folder`, or None where there is no git or no repository."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.check_output(command, cwd=folder, stderr=subprocess.PIPE, text=True, timeout=20).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def code(folder: Path = ROOT) -> dict[str, Any]:
    """{"commit": full hash or "unknown", "dirty": bool or None} of the repository whose root is `folder`.

    `dirty` says whether a file differs from the commit; generated outputs do not count. A package installed
    inside some other repository is "unknown": that repository's commit says nothing about this code.
    """
    top = _git("rev-parse", "--show-toplevel", folder=folder)
    if top is None or Path(top).resolve() != folder.resolve():
        return {"commit": "unknown", "dirty": None}
    commit = _git("rev-parse", "--verify", "HEAD", folder=folder)
    excluded = [f":(exclude){name}" for name in GENERATED]
    changes = _git("status", "--porcelain", "--untracked-files=normal", "--", ".", *excluded, folder=folder)
    return {"commit": commit or "unknown", "dirty": None if commit is None or changes is None else bool(changes)}


def versions() -> dict[str, str]:
    """Version of each package that a number can depend on, of Python and of beft."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version("scikit-learn" if name == "sklearn" else name)
        except metadata.PackageNotFoundError:
            installed[name] = "unknown"
    return installed | {"beft": __version__}


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def device(kind: str = "cpu") -> dict[str, Any]:
    """{"kind": "cpu" | "cuda" | "mps", "name": the chip, "threads": of torch}."""
    import torch

    kind = kind.split(":")[0]
    name = torch.cuda.get_device_name() if kind == "cuda" and torch.cuda.is_available() else _processor()
    return {"kind": kind, "name": name, "threads": torch.get_num_threads()}


# Once per process: what runs is what was imported, not what was edited since.
_code_once = functools.cache(code)


def provenance(kind: str = "cpu") -> dict[str, Any]:
    """{"code": {"commit", "dirty"}, "versions": {...}, "device": {"kind", "name", "threads"}} of this process.

    Args:
        kind: the device the numbers were computed on, "cpu", "cuda" or "mps".
    """
    return {"code": dict(_code_once()), "versions": versions(), "device": device(kind)}


def origin(name: str, model: ModelFiles | Loaded, data: Dataset, rows: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The `model` and `data` blocks of a record.

    Args:
        name: the model's, without the folders of one machine.
        rows: how many of the data's rows were used, by split; may be empty.
    """
    weights = {"name": name, "source": model.source, "revision": model.revision, "sha256": model.sha256}
    weights |= {"config_sha256": model.config_sha256} if model.config_sha256 else {}
    about: dict[str, Any] = {"task": data.task.name, "source": data.source, "fingerprint": data.fingerprint}
    about |= {"metric": data.task.metric, "substitute": data.substitute}
    about |= {"majority": data.majority} if data.majority else {}
    if data.prompt is not None and data.prompt.wording is not None:
        about |= {"template": data.prompt.wording.template.text, "options": data.prompt.wording.words}
    return {"model": weights, "data": about | ({"rows": rows} if rows else {})}


def build_record(
    kind: str,
    settings: dict[str, Any],
    subject: dict[str, dict[str, Any]],
    device: str,
    outcome: str = "ok",
    **fields: Any,
) -> dict[str, Any]:
    """A record, complete but for what `Store.write` fills in.

    Args:
        kind: of the record, see `store`.
        settings: what identifies it.
        subject: its `model` and `data` blocks, see `origin`.
        device: kind of the device that its numbers were computed on.
        fields: those of its kind, and `seconds`.
    """
    return {"kind": kind, "settings": settings, **subject, **provenance(device), **fields, "outcome": outcome}
