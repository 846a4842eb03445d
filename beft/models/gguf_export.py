"""A causal language model with biases as one GGUF file, read again by transformers before it is handed over."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from ..anatomy.architectures import head_size
from ..cached import check_room
from ..errors import BeftError, unknown
from .gguf import needs_package, read
from .gguf_vocabulary import Vocabulary, check_reads_alike, vocabulary_of

KINDS = {"f32": "F32", "f16": "F16", "q8_0": "Q8_0"}
"""Numbers that the matrices of a file are written in -> the names that GGUF has for them."""
ARCHITECTURE = "qwen2"
"""The one of the LLaMA family whose query, key and value biases transformers reads; its `llama` drops them."""
PROBE = (
    "In the year 1969 two people walked on the moon, and 600 million watched them. The film that was made of it begins "
    "slowly; its second half is one of the best that one can see."
)
"""The text by which the file is compared: on tokens that follow each other nowhere every rounding grows."""
PROBED = 48
"""Most tokens of it."""
SAME = 1e-4
"""The largest difference of two logits, by the largest logit, of one arithmetic in another order."""


def write_gguf(model: Any, tokenizer: Any, folder: Path, kind: str) -> str:
    """Write `folder/model-KIND.gguf`, and return in words how far its logits are from the model's.

    Matrices are written in numbers of `kind`, biases and norms in F32, as llama.cpp does; of Q8_0 a matrix whose rows
    are no multiple of 32 is written in F16. The file is read by transformers: every parameter has to be the number
    that the file stands for, the model of its header has to compute with them what this one computes with them, and the
    tokenizer has to give the same tokens. It takes up to five times the memory of the model, and for a vocabulary of
    50,000 about a minute.

    Args:
        model: of the layout of Qwen2, see `bank.layouts.in_layout`.
        tokenizer: of byte-level BPE, as that of SmolLM2, Llama 3 and Qwen2.
        kind: one of KINDS.

    Raises BeftError: an unknown kind; a model of another layout or with what a GGUF file of it cannot say; a tokenizer
    that cannot be written; no room on the disk; a file that does not read back the same.
    """
    if kind not in KINDS:
        raise unknown("kind of GGUF file", kind, KINDS)
    needs_package(f"model-{kind}.gguf")
    _check_config(model.config)
    vocabulary = vocabulary_of(tokenizer, model.config.vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    check_room(sum(p.numel() for p in model.parameters()) * 4, folder, f"model-{kind}.gguf")
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        path = Path(beside) / f"model-{kind}.gguf"
        _write(model, vocabulary, path, kind)
        words = _check(model, tokenizer, path, kind)
        shutil.move(path, folder / path.name)
    return words


def held(tensor: Tensor, kind: str) -> tuple[np.ndarray, str, np.ndarray]:
    """A tensor as a file of `kind` has it: its bytes, GGUF's name of their kind, and the values that they stand for."""
    from gguf import GGMLQuantizationType, quants

    values = tensor.detach().float().cpu().numpy()
    name = "F32" if values.ndim == 1 else KINDS[kind]
    if name == "Q8_0" and values.shape[-1] % 32:
        name = "F16"
    with np.errstate(over="ignore", invalid="ignore"):
        packed = quants.quantize(values, GGMLQuantizationType[name])
    return packed, name, quants.dequantize(packed, GGMLQuantizationType[name])


def _check_config(config: Any) -> None:
    """Raise BeftError for what transformers does not read from the header of a file of this architecture."""
    if config.model_type != ARCHITECTURE:
        raise BeftError(
            f"a GGUF file with biases is written of a model in the layout qwen2, and this is a {config.model_type} "
            'model: export it with layout="qwen2" first'
        )
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    said = {
        f"its rotary frequencies are scaled ({rope})": rope != "default",
        f"its heads have {head_size(config)} entries": head_size(config) * config.num_attention_heads
        != config.hidden_size,
        f"its activation is {config.hidden_act}": config.hidden_act != "silu",
        "it attends to a window only": config.use_sliding_window,
    }
    if wrong := [what for what, present in said.items() if present]:
        raise BeftError(f"transformers would not read this model back from GGUF, as {wrong[0]}: export safetensors")


def _named(model: Any) -> Iterator[tuple[str, str, Tensor]]:
    """Each parameter: transformers' name, GGUF's, and its values; of tied ones the first."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.QWEN2, model.config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        module, _, leaf = name.rpartition(".")
        yield name, f"{names.get_name(module)}.{leaf}", parameter


def _write(model: Any, vocabulary: Vocabulary, path: Path, kind: str) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

    config, writer = model.config, GGUFWriter(path, ARCHITECTURE)
    writer.add_file_type(
        {"f32": LlamaFileType.ALL_F32, "f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}[kind]
    )
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    vocabulary.write(writer)
    for name, theirs, tensor in _named(model):
        packed, sort, values = held(tensor, kind)
        if not np.isfinite(values).all():
            raise BeftError(f"{name} has numbers too large for {sort}: choose another kind, such as f32")
        writer.add_tensor(theirs, packed, raw_dtype=GGMLQuantizationType[sort])
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def _check(model: Any, tokenizer: Any, path: Path, kind: str) -> str:
    """How far a file's logits are from the model's, in words. Raises BeftError where it reads back as another."""
    with _as_a_fault_of(path):
        back, read_tokenizer = read(path)
    own = dict(back.named_parameters())
    for name, _, tensor in _named(model):
        if name not in own or not np.array_equal(own[name].detach().numpy(), held(tensor, kind)[2]):
            raise BeftError(f"transformers reads {name} of {path.name} as another than was written: {_REMEDY}")
    if len(own) != len(list(model.named_parameters())):
        raise BeftError(f"transformers reads parameters from {path.name} that were not written: {_REMEDY}")
    check_reads_alike(tokenizer, read_tokenizer)
    ids = torch.tensor([tokenizer(PROBE)["input_ids"][:PROBED]])
    with torch.no_grad():
        exact = {name: parameter.float() for name, parameter in model.named_parameters()}
        wanted, whole = (functional_call(model, p, (ids,), {"use_cache": False}).logits for p in (own, exact))
        said = back(ids, use_cache=False).logits
    size = float(wanted.abs().max())
    if not float((said - wanted).abs().max()) <= SAME * size:
        raise BeftError(f"transformers computes from {path.name} something else than this model: {_REMEDY}")
    apart, same = (said - whole).abs(), (said.argmax(-1) == whole.argmax(-1)).sum()
    return (
        f"{KINDS[kind]}; on a text of {ids.numel()} tokens logits of up to {size:.3g} differ by {apart.mean():.2g} on "
        f"average and {apart.max():.2g} at most, and the most probable token is the same at {same} of {ids.numel()}"
    )


_REMEDY = "export safetensors, and report the model's family"


@contextmanager
def _as_a_fault_of(path: Path) -> Iterator[None]:
    """Say of a file that was just written that it is not the user's, who is not to fetch it again."""
    try:
        yield
    except BeftError as error:
        reason = str(error).rpartition(": ")[0]
        raise BeftError(f"transformers does not read {path.name} back ({reason}): {_REMEDY}") from error
