"""The small language models of `data/models`: tokenizers, and configs of two or four layers of width 128."""

import itertools
import json
from typing import Any

import corpus
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, GPT2Config, LlamaConfig, OPTConfig, PreTrainedTokenizerFast

from beft.data.microworld import people
from beft.errors import unknown

VOCABULARY = 1024
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
# Further text of the tasks' prompts, so that its words have tokens.
PROMPTED = (
    "Passage: Title: Context:\nQuestion: Answer:",
    "Does this mean that",
    "is true? Yes or No?\nYes\nNo",
)
WIDTH, LAYERS, HEADS, CONTEXT = 128, 4, 4, 512
SHORT_CONTEXT = 128  # of the masked model
CAUSAL = ("tiny-opt", "tiny-llama", "tiny-gpt2")
MASKED = ("tiny-bert",)  # trained on `microworld.people`
MODELS = (*CAUSAL, *MASKED)


def tokenizer_for(kind: str, seed: int = 0, count: int = 5000) -> PreTrainedTokenizerFast:
    """The tokenizer of a model, of its family's type and trained on its text.

    Byte-level BPE; for LLaMA BPE as in SentencePiece, for BERT word pieces in lower case.
    """
    if kind in MASKED:
        return _word_pieces([*itertools.islice(people.documents(seed), count)])
    texts = [*itertools.islice(corpus.documents(seed), count), "\n", *"0123456789", *PROMPTED]
    pieces = kind == "tiny-llama"
    backend = _pieces(texts) if pieces else _bytes(texts)
    first = {"tiny-llama": "<s>", "tiny-opt": "</s>"}.get(kind)
    if first:
        backend.post_processor = processors.TemplateProcessing(
            f"{first} $A", special_tokens=[(first, backend.token_to_id(first))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=first or "</s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CONTEXT,
        **({} if kind == "tiny-gpt2" else {"pad_token": "<pad>"}),  # GPT-2 has none
    )


def _word_pieces(texts: list[str]) -> PreTrainedTokenizerFast:
    """All words of the texts as tokens, and letters to spell other words.

    Not by the trainer of word pieces, whose vocabulary differs from process to process.
    """
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names["mask_token"] = "[MASK]"
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    learnt = sorted(words - set(letters))
    vocabulary = [*names.values(), *letters, *(f"##{letter}" for letter in letters), *learnt]
    backend = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizer, splitter
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
        [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=SHORT_CONTEXT, **names)


def _bytes(texts: list[str]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return backend


def _pieces(texts: list[str]) -> Tokenizer:
    """Pieces with their leading space, and a token per byte for text that no piece covers."""
    backend = Tokenizer(models.BPE())
    spaces = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split(Regex("[.,?!:\n]"), "isolated")]
    )
    backend.normalizer, backend.pre_tokenizer = spaces, words
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    trained = json.loads(backend.to_str())["model"]
    learnt = sorted(set(trained["vocab"]) - set(SPECIAL), key=trained["vocab"].get)
    names = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256)), *learnt]
    merges = [tuple(merge) for merge in trained["merges"]]
    whole = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    whole.normalizer, whole.pre_tokenizer = spaces, words
    whole.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    whole.add_special_tokens(SPECIAL)
    return whole


def config_for(kind: str, vocabulary: int) -> Any:
    """A config of width 128. Raises BeftError for an unknown kind."""
    # The usual 0.02 is for models ten times as wide. Here it makes the output of attention too small to learn from.
    ends = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": WIDTH**-0.5}
    if kind == "tiny-bert":
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=SHORT_CONTEXT,
            hidden_dropout_prob=0.0,  # the model is too small for dropout
            attention_probs_dropout_prob=0.0,
            initializer_range=WIDTH**-0.5,
            pad_token_id=0,
        )
    if kind == "tiny-opt":
        return OPTConfig(
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=CONTEXT,
            pad_token_id=0,
            **(ends | {"bos_token_id": 2, "init_std": ends["initializer_range"]}),
        )
    if kind == "tiny-llama":
        return LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=352,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=0,
            **ends,
        )
    if kind == "tiny-gpt2":
        return GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT, **(ends | {"bos_token_id": 2})
        )
    raise unknown("kind of model", kind, MODELS)
