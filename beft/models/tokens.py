"""Whether a tokenizer, and the tokens that it makes of texts, fit a model."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ..anatomy.architectures import text_positions
from ..data.batching import Encoded
from ..errors import BeftError, reason_of
from .files import TINY
from .hashes import VOCABULARY

WARNED, REFUSED = 0.1, 0.9  # shares of unknown tokens in the texts


def decide_sides(tokenizer: Any) -> None:
    """Let a tokenizer cut and pad on the right, so that what is saved with a tuned model reads as it was tuned."""
    tokenizer.padding_side = tokenizer.truncation_side = "right"


def missing_tokenizer(folder: Path) -> BeftError | None:
    """The error for a folder without a vocabulary; None where it has one."""
    if any(path for pattern in VOCABULARY for path in folder.glob(pattern)):
        return None
    return BeftError(
        f"{folder} has no tokenizer (no {VOCABULARY[0]}, {VOCABULARY[1]} or the like): copy that of the model that was "
        f"tuned into it, AutoTokenizer.from_pretrained(MODEL).save_pretrained({str(folder)!r})"
    )


def tokenizer_in(folder: Path) -> Any | None:
    """The tokenizer that was saved in a folder, that of an adapter for one; None where there is none.

    Raises BeftError: it cannot be read.
    """
    if missing_tokenizer(folder) is not None:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise types of their own
        raise BeftError(
            f"the tokenizer in {folder} cannot be loaded ({reason_of(error)}): save it there again"
        ) from error
    decide_sides(tokenizer)
    return tokenizer


def check_vocabulary(tokenizer: Any, model: Any, folder: Path) -> None:
    """Raise BeftError for a tokenizer that was made up, as its files are missing, or has tokens beyond the embeddings.

    transformers makes a tokenizer without a vocabulary, which knows no word, of a config alone. Special tokens may be
    beyond the embeddings where no text gets them: Gemma 3 has one for images.
    """
    absent = missing_tokenizer(folder) if type(tokenizer).vocab_files_names else None  # of bytes: needs no file
    if absent is not None:
        raise absent
    count = embeddings(model)
    if max([len(tokenizer), *(i + 1 for i in tokenizer.added_tokens_decoder)]) <= count:
        return  # without a look at every token, which takes a while
    used = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.cls_token}
    used |= {tokenizer.sep_token, tokenizer.mask_token, tokenizer.unk_token}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} - used
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= count and token not in special}
    if beyond:
        raise BeftError(
            f"the tokenizer in {folder} is not of this model: {len(beyond)} of its tokens, such as "
            f"{min(beyond, key=lambda token: beyond[token])!r}, have no row among the model's {count} embeddings; copy "
            "the model's own tokenizer into the folder, or give a model whose embeddings were resized for it"
        )


def embeddings(model: Any) -> int:
    """Tokens that a model has embeddings of."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_ids(ids: Tensor, model: Any) -> None:
    """Raise BeftError for ids of tokens (any shape) that a model has no embedding of."""
    count = embeddings(model)
    if ids.numel() and int(ids.max()) >= count:
        raise BeftError(
            f"the texts have the token {int(ids.max())} and the model has {count} embeddings: use the model's own "
            "tokenizer, or take that token out of the texts"
        )


def check_known(loaded: Any, ids: Tensor, where: str) -> None:
    """Warn where more than a tenth of the tokens of texts are unknown to the model, refuse where nine tenths are.

    Of the latter all texts look alike, whatever they say. Below, rare words, emoji or names may be the reason, and
    whether the rest is enough is for the user to judge.

    Args:
        loaded: the model with its tokenizer, a `loading.Loaded`. The tiny random one, which nobody tunes for what it
            knows, is warned of and not refused.
        ids: of tokens (n,), without padding.
        where: the texts, in words.

    Raises BeftError: more than nine tenths of them.
    """
    tokenizer = loaded.tokenizer
    unknown = tokenizer.unk_token_id
    others = {i for i in tokenizer.all_special_ids if i != unknown}
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id)
    if unknown is None or unknown in roles:  # GPT-2's has every role, and bytes are never unknown
        return
    text = ids[~torch.isin(ids, torch.tensor(sorted(others), dtype=ids.dtype))]
    share = int((text == unknown).sum()) / len(text) if len(text) else 0.0
    if share > REFUSED and loaded.name != TINY:
        raise BeftError(
            f"{share:.0%} of the tokens of {where} are unknown to the model's tokenizer, so that next to nothing is "
            "left of the texts: give a model of their language, or the tokenizer that belongs to this one"
        )
    if share > WARNED:
        warnings.warn(
            f"{share:.0%} of the tokens of {where} are unknown to the model's tokenizer: is it the one that belongs to "
            "the model, and does the model know the language of the texts?",
            stacklevel=2,
        )


def check_texts(loaded: Any, train: Encoded, others: Iterable[Encoded], where: str) -> None:
    """Raise BeftError, or warn, as `check_ids` does for all texts and `check_known` for those that are trained on.

    Args:
        loaded: as of `check_known`.
    """
    for encoded in (train, *others):
        check_ids(encoded.columns["input_ids"], loaded.model)
    real = train.columns["input_ids"][train.columns["attention_mask"].bool()]
    check_known(loaded, real, where)


def check_length(model: Any, max_length: int) -> None:
    """Raise BeftError for texts of more tokens than a model has positions for."""
    positions = text_positions(model.config)
    if positions is not None and max_length > positions:
        raise BeftError(
            f"max_length {max_length} is beyond the {positions} positions of this {model.config.model_type} model: "
            f"give {positions} or less"
        )
