"""The tokenizer in a GGUF file's metadata, as the tokenizer.json it was once made from. No torch.

Only byte-level BPE, which the files call "gpt2": of it they hold the tokens, the merges and a name
for how text is cut into words before. The rules for the names that are known here are those that
the models were published with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from novacron.errors import ModelLoadError
from novacron.models.gguf_eos import read_gguf_eos_token_ids
from novacron.models.gguf_file import GGUFFile
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
_REMEDY = "Name a folder that has the model's tokenizer.json with --tokenizer"


class _TokenType(IntEnum):
    """The kinds of tokens that are more than a piece of text."""

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
    file = GGUFFile(path)
    metadata = HFConfig(file.metadata, str(path))
    kind = metadata.text(f"{_PREFIX}model", "")
    if kind != "gpt2":
        raise _unsupported(metadata, f"the kind '{kind}'", ("gpt2",))
    tokens = metadata.texts(f"{_PREFIX}tokens")
    named_tokens = _named_tokens(metadata, tokens)
    return GGUFTokenizer(
        json_text=json.dumps(_tokenizer_json(metadata, tokens, named_tokens)),
        named_tokens=named_tokens,
        eos_token_ids=read_gguf_eos_token_ids(file),
        chat_templates=_chat_templates(metadata),
    )


def _tokenizer_json(
    metadata: HFConfig, tokens: Sequence[str], named_tokens: Mapping[str, str]
) -> dict[str, Any]:
    words = _words(metadata)
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens) or not tokens:
        raise metadata.error(
            f"its vocabulary of {len(tokens)} tokens holds {len(vocabulary)} different ones. "
            f"{_REMEDY}"
        )
    merges = [merge.split(" ") for merge in metadata.texts(f"{_PREFIX}merges")]
    if any(len(merge) != 2 for merge in merges):
        raise metadata.error(f"'{_PREFIX}merges' holds one that is no pair of tokens. {_REMEDY}")
    return {
        "added_tokens": _added_tokens(metadata, tokens),
        "normalizer": words.normalizer,
        "pre_tokenizer": words.pre_tokenizer,
        "post_processor": _post_processor(metadata, words, named_tokens, vocabulary),
        "decoder": _byte_level(cuts_words=False),
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
            "special": kind == _TokenType.CONTROL,
        }
        for token_id, kind in enumerate(types)
        if kind in (_TokenType.CONTROL, _TokenType.USER_DEFINED)
    ]


def _post_processor(
    metadata: HFConfig,
    words: _Words,
    named_tokens: Mapping[str, str],
    vocabulary: Mapping[str, int],
) -> dict[str, Any] | None:
    """Adds the tokens for the beginning and the end of a text, if the model wants them."""
    wanted = {
        "bos_token": metadata.flag(f"{_PREFIX}add_bos_token", words.begins_with_bos),
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


@dataclass(frozen=True)
class _Words:
    """How text is cut into words. `ignores_merges`: a word that is a token is taken as it is."""

    pre_tokenizer: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    ignores_merges: bool = False
    begins_with_bos: bool = False


def _byte_level(*, cuts_words: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": cuts_words,
    }


def _split_by(pattern: str) -> dict[str, Any]:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return _sequence(split, _byte_level(cuts_words=False))


def _sequence(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _cut_with_digits(digits: str) -> dict[str, Any]:
    """The words of GPT-4 and its successors, which differ in how many digits go together."""
    return _split_by(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_LLAMA3 = _Words(_cut_with_digits(r"\p{N}{1,3}"), ignores_merges=True, begins_with_bos=True)
_QWEN2 = _Words(_cut_with_digits(r"\p{N}"), normalizer={"type": "NFC"})
_DIGITS = {"type": "Digits", "individual_digits": True}

_KNOWN_WORDS = {
    "gpt-2": _Words(_byte_level(cuts_words=True)),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": _Words(_sequence(_DIGITS, _byte_level(cuts_words=True))),
}


def _words(metadata: HFConfig) -> _Words:
    name = metadata.text(f"{_PREFIX}pre", "")
    if name not in _KNOWN_WORDS:
        raise _unsupported(metadata, f"the pre-tokenizer '{name}'", tuple(_KNOWN_WORDS))
    return _KNOWN_WORDS[name]


def _unsupported(metadata: HFConfig, what: str, supported: tuple[str, ...]) -> ModelLoadError:
    return metadata.error(
        f"its tokenizer has {what}, which is not supported; supported: {', '.join(supported)}. "
        f"{_REMEDY}"
    )
