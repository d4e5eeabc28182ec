"""Small tokenizers of the two kinds in use, trained in milliseconds, and folders that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")

_CORPUS = (
    "the quick brown fox jumps over the lazy dog",
    "hello world, this is a test of the tokenizer; hello again",
    "na\u00efve caf\u00e9 \u00fcber stra\u00dfe",
    "what is the capital of France? The capital of France is Paris.",
)


def byte_level() -> Tokenizer:
    """Byte-level BPE with every byte in its alphabet, as GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def sentencepiece_style() -> Tokenizer:
    """BPE over words that begin with U+2581, unknown characters as byte tokens: Llama 2, Mistral.

    Decoding drops the space that encoding put in front of the text.
    """
    vocabulary = [*SPECIAL_TOKENS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = _merges()
    pieces = dict.fromkeys([*vocabulary, *_characters(), *(a + b for a, b in merges)])
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: place for place, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_folder(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    chat_template: str | None = None,
    tokenizer_config: Mapping[str, object] | None = None,
    config: Mapping[str, object] | None = None,
    generation_config: Mapping[str, object] | None = None,
) -> Path:
    """A Hugging Face folder with these files, loadable by us and by transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            **(tokenizer_config or {}),
        },
        "config.json": config,
        "generation_config.json": generation_config,
    }
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    return folder


def _characters() -> list[str]:
    return sorted({character for line in _CORPUS for character in line} - {" "} | {"\u2581"})


def _merges() -> list[tuple[str, str]]:
    """Every prefix of every word of the corpus becomes a token, one character at a time."""
    merges: dict[tuple[str, str], None] = {}
    for line in _CORPUS:
        for word in line.split():
            piece = "\u2581"
            for character in word:
                merges[piece, character] = None
                piece += character
    return list(merges)
