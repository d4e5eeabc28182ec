"""How byte-level tokenizers cut text into words, by the names that GGUF files have for it.

The rules are those that the models were published with, as a tokenizer.json has them. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Words:
    """How text is cut into words. `ignores_merges`: a word that is a token is taken as it is."""

    pre_tokenizer: Mapping[str, Any]
    normalizer: Mapping[str, Any] | None = None
    ignores_merges: bool = False
    begins_with_bos: bool = False


def byte_level(*, cuts_words: bool) -> dict[str, Any]:
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
    return _sequence(split, byte_level(cuts_words=False))


def _sequence(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _cut_with_digits(digits: str) -> dict[str, Any]:
    """The words of GPT-4 and its successors, which differ in how many digits go together."""
    return _split_by(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_LLAMA3 = Words(_cut_with_digits(r"\p{N}{1,3}"), ignores_merges=True, begins_with_bos=True)
_QWEN2 = Words(_cut_with_digits(r"\p{N}"), normalizer={"type": "NFC"})
_DIGITS = {"type": "Digits", "individual_digits": True}

KNOWN_WORDS = {
    "gpt-2": Words(byte_level(cuts_words=True)),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "smollm": Words(_sequence(_DIGITS, byte_level(cuts_words=True))),
}
