"""A byte-level BPE tokenizer of any wanted size, made from nothing: each token is its own text.

Its tokens are all bytes, then all beginnings of lower-case words, shorter ones first. So English
words become a few tokens each, and any text survives encoding and decoding.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from novacron.errors import ConfigError

SPECIAL_TOKENS = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>")
_NUM_BYTES = 256
_SPACE = "\u0120"  # how byte-level BPE writes the space before a word

_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tokenizer(folder: Path, vocab_size: int, max_length: int) -> None:
    """tokenizer.json and tokenizer_config.json of exactly `vocab_size` tokens.

    Raises ConfigError if that is too few for all bytes.
    """
    build_tokenizer(vocab_size).save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def build_tokenizer(vocab_size: int) -> Tokenizer:
    least = len(SPECIAL_TOKENS) + _NUM_BYTES
    if vocab_size < least:
        raise ConfigError(f"vocab_size is {vocab_size}: all bytes take {least} tokens at least.")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(itertools.islice(_word_beginnings(), vocab_size - least))
    pieces = [*SPECIAL_TOKENS, *alphabet, *(left + right for left, right in merges)]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL_TOKENS])
    return tokenizer


def _word_beginnings() -> Iterator[tuple[str, str]]:
    """Merges of what was merged before with one more letter, breadth first, without end."""
    beginnings: Iterator[str] = iter((_SPACE, *string.ascii_lowercase))
    while True:
        kept, grown = itertools.tee(itertools.product(beginnings, string.ascii_lowercase))
        yield from kept
        beginnings = (left + right for left, right in grown)
