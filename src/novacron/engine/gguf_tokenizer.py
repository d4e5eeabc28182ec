"""The tokenizer in a GGUF file's metadata, as the tokenizer.json it was once made from. No torch.

Of byte-level BPE, which the files call "gpt2", they hold the tokens, the merges and a name for how
text is cut into words before (gguf_words). Of SentencePiece, "llama", they hold pieces and their
scores (gguf_sentencepiece).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from novacron.engine.gguf_sentencepiece import sentencepiece_json
from novacron.engine.gguf_words import KNOWN_WORDS, Words, byte_level
from novacron.errors import ModelLoadError
from novacron.models.gguf_eos import read_gguf_eos_token_ids
from novacron.models.gguf_model import GGUFModel
from novacron.models.hf_config import HFConfig

_PREFIX = "tokenizer.ggml."
_NAMED_TOKENS = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "sep_token": "seperator",  # as the format spells it
    "pad_token": "padding",
    "mask_token": "mask",
}
_SENTENCEPIECE = "llama"
_NORMAL = 1  # of the types of tokens: a piece of text
_KINDS = ("gpt2", _SENTENCEPIECE)
_REMEDY = "Name a folder that has the model's tokenizer.json with --tokenizer"


class _TokenType(IntEnum):
    """The kinds of tokens that are more than a piece of text."""

    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


@dataclass(frozen=True)
class GGUFTokenizer:
    """What Tokenizer needs. `chat_templates` are texts by name, "default" being the usual one."""

    json_text: str
    named_tokens: Mapping[str, str]
    eos_token_ids: tuple[int, ...]
    chat_templates: Mapping[str, str]

    @property
    def files(self) -> Mapping[str, str]:
        """The texts of a folder's files that mean the same, by name. config.json names EOS."""
        config: dict[str, Any] = dict(self.named_tokens)
        if self.chat_templates:
            config["chat_template"] = [
                {"name": name, "template": text} for name, text in self.chat_templates.items()
            ]
        return {
            "tokenizer.json": self.json_text,
            "tokenizer_config.json": json.dumps(config, indent=2),
        }


def read_gguf_tokenizer(path: Path) -> GGUFTokenizer:
    """Raises ModelLoadError, also for a tokenizer of a kind that is not supported."""
    file = GGUFModel(path)
    metadata = HFConfig(file.metadata, str(path))
    kind = metadata.text(f"{_PREFIX}model", "")
    if kind not in _KINDS:
        raise _unsupported(metadata, f"the kind '{kind}'", _KINDS)
    tokens = metadata.texts(f"{_PREFIX}tokens")
    named_tokens = _named_tokens(metadata, tokens)
    return GGUFTokenizer(
        json_text=json.dumps(_tokenizer_json(metadata, kind, tokens, named_tokens)),
        named_tokens=named_tokens,
        eos_token_ids=read_gguf_eos_token_ids(file),
        chat_templates=_chat_templates(metadata),
    )


def _tokenizer_json(
    metadata: HFConfig, kind: str, tokens: Sequence[str], named_tokens: Mapping[str, str]
) -> dict[str, Any]:
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens) or not tokens:
        raise metadata.error(
            f"its vocabulary of {len(tokens)} tokens holds {len(vocabulary)} different ones. "
            f"{_REMEDY}"
        )
    added = _added_tokens(metadata, tokens)  # checks types, too
    if kind == _SENTENCEPIECE:
        steps = _of_pieces(metadata, vocabulary, named_tokens)
        begins_with_bos = True
    else:
        words = _words(metadata)
        steps = _of_words(metadata, words, vocabulary)
        begins_with_bos = words.begins_with_bos
    return {
        **steps,
        "added_tokens": added,
        "post_processor": _post_processor(metadata, begins_with_bos, named_tokens, vocabulary),
    }


def _of_pieces(
    metadata: HFConfig, vocabulary: Mapping[str, int], named_tokens: Mapping[str, str]
) -> dict[str, Any]:
    scores = metadata.numbers(f"{_PREFIX}scores")
    if len(scores) != len(vocabulary):
        raise metadata.error(
            f"it has {len(vocabulary)} tokens, but scores for {len(scores)}. {_REMEDY}"
        )
    types = metadata.integers(f"{_PREFIX}token_type") or (_NORMAL,) * len(scores)
    texts = {piece for piece, place in vocabulary.items() if types[place] == _NORMAL}
    return sentencepiece_json(
        vocabulary,
        {piece: scores[vocabulary[piece]] for piece in texts},
        unknown=named_tokens.get("unk_token"),
        adds_space=metadata.flag(f"{_PREFIX}add_space_prefix", True),
    )


def _of_words(metadata: HFConfig, words: Words, vocabulary: Mapping[str, int]) -> dict[str, Any]:
    merges = [merge.split(" ") for merge in metadata.texts(f"{_PREFIX}merges")]
    if any(len(merge) != 2 for merge in merges):
        raise metadata.error(f"'{_PREFIX}merges' holds one that is no pair of tokens. {_REMEDY}")
    return {
        "normalizer": words.normalizer,
        "pre_tokenizer": words.pre_tokenizer,
        "decoder": byte_level(cuts_words=False),
        "model": {
            "type": "BPE",
            "ignore_merges": words.ignores_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _named_tokens(metadata: HFConfig, tokens: Sequence[str]) -> dict[str, str]:
    named = {}
    for name, key in _NAMED_TOKENS.items():
        token_id = metadata.optional_integer(f"{_PREFIX}{key}_token_id")
        if token_id is None:
            continue
        if not 0 <= token_id < len(tokens):
            raise metadata.error(
                f"'{_PREFIX}{key}_token_id' is {token_id}, but there are {len(tokens)} tokens"
            )
        named[name] = tokens[token_id]
    return named


def _added_tokens(metadata: HFConfig, tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Those that are found in a text before it is cut into words."""
    types = metadata.integers(f"{_PREFIX}token_type")
    if len(types) not in (0, len(tokens)):
        raise metadata.error(f"it has {len(tokens)} tokens, but types for {len(types)}")
    return [
        {
            "id": token_id,
            "content": tokens[token_id],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != _TokenType.USER_DEFINED,
        }
        for token_id, kind in enumerate(types)
        if kind in tuple(_TokenType)
    ]


def _post_processor(
    metadata: HFConfig,
    begins_with_bos: bool,
    named_tokens: Mapping[str, str],
    vocabulary: Mapping[str, int],
) -> dict[str, Any] | None:
    """Adds the tokens for the beginning and the end of a text, if the model wants them."""
    wanted = {
        "bos_token": metadata.flag(f"{_PREFIX}add_bos_token", begins_with_bos),
        "eos_token": metadata.flag(f"{_PREFIX}add_eos_token", False),
    }
    added = {name: named_tokens[name] for name in wanted if wanted[name] and name in named_tokens}
    if not added:
        return None
    pieces = [
        {"SpecialToken": {"id": added[name], "type_id": 0}}
        if name in added
        else {"Sequence": {"id": name, "type_id": 0}}
        for name in ("bos_token", "A", "eos_token")
        if name in added or name == "A"
    ]
    return {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}
            for token in added.values()
        },
    }


def _chat_templates(metadata: HFConfig) -> dict[str, str]:
    templates = {
        name: metadata.text(f"tokenizer.chat_template.{name}")
        for name in metadata.texts("tokenizer.chat_templates")
    }
    if metadata.has("tokenizer.chat_template"):
        templates["default"] = metadata.text("tokenizer.chat_template")
    return templates


def _words(metadata: HFConfig) -> Words:
    name = metadata.text(f"{_PREFIX}pre", "")
    if name not in KNOWN_WORDS:
        raise _unsupported(metadata, f"the pre-tokenizer '{name}'", tuple(KNOWN_WORDS))
    return KNOWN_WORDS[name]


def _unsupported(metadata: HFConfig, what: str, supported: tuple[str, ...]) -> ModelLoadError:
    return metadata.error(
        f"its tokenizer has {what}, which is not supported; supported: {', '.join(supported)}. "
        f"{_REMEDY}"
    )
