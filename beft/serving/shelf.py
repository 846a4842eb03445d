"""The adapters that are on a frozen model: put there, taken off, and switched on for the rows of a chunk."""

import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..anatomy.architectures import text_positions
from ..anatomy.projections import backbone_of, last_mixer
from ..bank.bank import release, take
from ..bank.saved import LENGTH
from ..bank.slots import Sites, anatomy_in_bank
from ..data.own_prompt import Wording
from ..errors import BeftError, brief, unknown
from ..models.tokens import tokenizer_in
from .contents import Contents, open_folder, own_labels, read
from .stacks import AddedBias, OwnLayer

LISTED = 20  # names that a message lists


@dataclass(frozen=True)
class Entry:
    """An adapter that is served: what answers need of it, its numbers being in the stacks.

    Attributes:
        number: by which the stacks know it; 0 for the model itself, without an adapter.
        numbers: how many it has.
        alone: whether its rows may not be computed with those of others.
        outputs, labels, columns, max_length, wording: as of `contents.Contents`.
    """

    number: int
    numbers: int
    alone: bool
    outputs: int | None
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    max_length: int
    wording: Wording | None = None


class Shelf:
    """Adapters by name on one frozen model.

    At each place of the model where some adapter has numbers they are in one tensor (see `stacks`), from which every
    row of a batch takes those of its adapter. A row that names `None` is computed by the model as it is, with its own
    head.

    One lock is held by all calls that compute, and by `add`, `remove` and `close`: any number of threads may call them,
    and one at a time is served, so that a thread finds an adapter either whole or not at all. The model itself is the
    server's until `close()`, or the end of a `with` block: nobody else may compute with it.

    Attributes:
        model: the model, in eval mode.
        tokenizer: its tokenizer; None until an adapter brings one.
    """

    def __init__(self, model: Any, tokenizer: Any = None, sites: Sites | None = None) -> None:
        """Put hooks on a model without adapters. Raises BeftError: a model that has some already or is of no kind
        that can be served.
        """
        anatomy = anatomy_in_bank(model, sites)
        self.model, self.tokenizer = model.eval(), tokenizer
        self._lock = threading.RLock()
        self._writes = model.get_output_embeddings() is not None
        _check_kind(model, self._writes, anatomy.causal or sites is not None)
        self._anatomy = anatomy
        self._entries: dict[str, Entry] = {}
        outputs = None if self._writes else int(model.config.num_labels)
        labels = () if outputs is None else own_labels(model.config, outputs)
        length = min(LENGTH, text_positions(model.config) or LENGTH)
        self._bare = Entry(0, 0, False, outputs, labels, (), length)
        self._numbers = itertools.count(1)
        self._places: dict[tuple[str, str], AddedBias | OwnLayer] = {}  # (module, "vector" or "layer")
        self._vocabularies: set[bytes] = set()
        self._computing = False
        take(model, "this model is served already: call close() of what beft.serve returned, or load the model anew")
        self._handles: dict[Any, Any] = {}
        mixer = last_mixer(model) if sites is None and not self._writes else None
        if mixer is not None:  # the rest of the last layer is computed for the token that the head reads, no other
            first = model.get_submodule(mixer).register_forward_pre_hook(
                lambda _, args: tuple(x[:, :1] for x in args) if self._computing else None
            )
            self._handles[mixer] = first
        self._closed = False

    # which adapters ------------------------------------------------------------------------------------------

    def add(self, name: str, folder: str | Path) -> None:
        """Serve one more adapter, from the next call on.

        Args:
            name: by which rows name it.
            folder: of a PEFT adapter of the kind BEFT, by this package or by PEFT as safetensors, or of one as LoRA.

        Raises BeftError: a name that is taken or no text; no adapter in the folder, or one of another kind (LoRA, a
        prompt), of another base model, with another tokenizer, or with a layer that the model does not have.
        """
        self._check_name(name)
        contents = read(open_folder(folder), self.model)
        self._check_numbers(contents)
        with self._lock:
            self._check_open()
            self._check_name(name)
            self._check_tokenizer(contents.folder)
            number = next(self._numbers)
            try:
                self._put(number, contents)
            except BaseException:  # memory, or an interrupt: no half of an adapter stays
                self._drop(number)
                raise
            self._entries[name] = Entry(
                number,
                sum(x.numel() for x in contents.tensors),
                self._must_be_alone(contents),
                contents.outputs,
                contents.labels,
                contents.columns,
                contents.max_length or LENGTH,
                contents.wording,
            )

    def remove(self, name: str) -> None:
        """Serve an adapter no more; its memory is used again. Raises BeftError for a name that is not served."""
        with self._lock:
            entry = self._entry(name, "")
            if entry is self._bare:
                raise BeftError("None is the model itself and no adapter: name one to remove")
            del self._entries[name]
            self._drop(entry.number)

    @property
    def names(self) -> list[str]:
        """Names of the adapters, in the order in which they were added."""
        with self._lock:
            return list(self._entries)

    def labels(self, name: str | None) -> tuple[str, ...]:
        """Names of an adapter's classes, in the order of the logits or options; none for a regression."""
        with self._lock:
            return self._entry(name, "").labels

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the numbers of each adapter, by name."""
        size = self.model.dtype.itemsize
        with self._lock:
            return {name: entry.numbers * size for name, entry in self._entries.items()}

    @property
    def allocated(self) -> int:
        """Bytes of all stacks, their free rows and those of `None` included; the model's own are not counted."""
        with self._lock:
            return sum(place.nbytes for place in self._places.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __str__(self) -> str:
        """The adapters with their memory, a line each."""
        own = sum(p.nbytes for p in self.model.parameters())
        head = (
            f"{len(self)} adapters on {type(self.model).__name__} in {str(self.model.dtype).removeprefix('torch.')}: "
            f"{self.allocated / 1e6:.2f} MB beside the model's {own / 1e6:.1f} MB"
        )
        memory = self.memory
        return "\n".join([head, *(f"  {name}: {size / 1e3:.1f} kB" for name, size in memory.items())])

    # the adapters of a chunk ---------------------------------------------------------------------------------

    @contextmanager
    def running(self, numbers: np.ndarray) -> Iterator[Any]:
        """The model as the adapters `numbers` (B,) of a batch's rows have it; the lock must be held."""
        try:
            self._computing = True
            for place in self._places.values():
                place.prepare(numbers)
            yield self.model
        finally:
            self._computing = False
            for place in self._places.values():
                place.clear()

    def _must_be_alone(self, contents: Contents) -> bool:
        """Whether an adapter changes what a batch shares: DeBERTa projects the embeddings of distances once for all.

        It does so by layers of its own or by the query's and key's, and norms them; all outside the value's projections
        is taken to be such a place.
        """
        if "disentangled relative" not in self._anatomy.positions:
            return False
        apart = "v" if "shared position projections" in self._anatomy.extras else "qkv"
        harmless = {site.module for term in apart for site in self._anatomy.of(term)}
        inside = f"{backbone_of(self.model)[0]}."
        return any(m.startswith(inside) and m not in harmless for m in (*contents.vectors, *contents.layers))

    def _put(self, number: int, contents: Contents) -> None:
        dtype, device = self.model.dtype, self.model.device
        for module, vector in contents.vectors.items():
            if (module, "vector") not in self._places:
                self._hook(module, "vector", AddedBias(len(vector), dtype, device))
            self._places[module, "vector"].stack.put(number, vector)  # type: ignore[union-attr]
        for module, own in contents.layers.items():
            if (module, "layer") not in self._places:
                self._hook(module, "layer", OwnLayer(dtype, device))
            self._places[module, "layer"].put(number, own.weight, own.bias)  # type: ignore[union-attr]

    def _hook(self, module: str, what: str, place: AddedBias | OwnLayer) -> None:
        # a layer of an adapter's own takes the output's place, and then a vector is added, so its hook comes first
        first = what == "layer"
        handle = self.model.get_submodule(module).register_forward_hook(place.hook, prepend=first)
        self._places[module, what], self._handles[module, what] = place, handle

    def _drop(self, number: int) -> None:
        for key, place in list(self._places.items()):
            place.drop(number)
            if not len(place):  # nobody has numbers here any more
                del self._places[key]
                self._handles.pop(key).remove()

    # checks --------------------------------------------------------------------------------------------------

    def _entry(self, name: str | None, row: str) -> Entry:
        if name is None:
            return self._bare
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        kind = f"adapter {row}".strip()
        if len(self._entries) <= LISTED:
            raise unknown(kind, name, self._entries or ["none: add one"])
        some = list(self._entries)[:LISTED]
        error = str(unknown(kind, name, self._entries)).partition("(valid: ")[0]
        raise BeftError(f"{error}(valid: {', '.join(some)} and {len(self._entries) - LISTED} more, see names)")

    def _check_name(self, name: Any) -> None:
        if not isinstance(name, str) or not name.strip():
            raise BeftError(f"{brief(name)} is no name of an adapter: give a text that is not empty")
        if name in self._entries:
            raise BeftError(f"an adapter is served as {name!r} already: give another name, or remove it first")

    def _check_numbers(self, contents: Contents) -> None:
        dtype = self.model.dtype
        if not all(torch.isfinite(x.to(dtype)).all() for x in contents.tensors):
            name = str(dtype).removeprefix("torch.")
            raise BeftError(
                f"adapter {contents.folder} has numbers that are beyond {name}: serve with dtype='bfloat16' or "
                "'float32'"
            )

    def _check_tokenizer(self, folder: Path) -> None:
        """Take the tokenizer of an adapter where there is none yet; raise BeftError for one with other tokens."""
        files = sorted(folder.glob("tokenizer.json")) or sorted(folder.glob("vocab.*"))
        content = hashlib.sha256(b"".join(path.read_bytes() for path in files)).digest()
        if content in self._vocabularies:
            return
        own = tokenizer_in(folder)
        if own is None:
            return
        if self.tokenizer is None:
            self.tokenizer = own
        elif own.get_vocab() != self.tokenizer.get_vocab():
            raise BeftError(
                f"the tokenizer beside the adapter in {folder} has other tokens than the one that is served: it is of "
                "another base model, serve that one by itself"
            )
        self._vocabularies.add(content)

    def _check_open(self) -> None:
        if self._closed:
            raise BeftError("these adapters are served no more, close() was called: call beft.serve again")

    def close(self) -> Any:
        """Take the hooks off, forget all adapters, and return the model as it was."""
        with self._lock:
            for handle in self._handles.values():
                handle.remove()
            if not self._closed:
                release(self.model)
            self._handles, self._places, self._entries, self._closed = {}, {}, {}, True
            return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_kind(model: Any, writes: bool, causal: bool) -> None:
    """Raise BeftError for a model that neither classifies texts nor writes them."""
    fits = causal if writes else type(model).__name__.endswith("ForSequenceClassification")
    if not fits or (writes and model.config.is_encoder_decoder):
        raise BeftError(
            f"{type(model).__name__} can not be served: give a ...ForSequenceClassification or a causal language model"
        )
