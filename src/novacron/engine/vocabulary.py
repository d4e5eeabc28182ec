"""The bytes each token stands for, whatever kind of vocabulary it comes from.

Text of tokens = their bytes joined and read as UTF-8, unreadable bytes as U+FFFD. Stated per token,
this can be computed incrementally, which a decoder that wants all tokens at once cannot. For valid
text it equals what the `tokenizers` library decodes. It differs for byte tokens that do not form
characters: there the library gives up on the whole run of them, valid characters included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import tokenizers

from novacron.errors import ModelLoadError

_SUPPORTED = frozenset(
    {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"}
)
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ANCHOR = "a"


class Vocabulary:
    """Looks up, and remembers, the bytes of token ids. Ids outside the vocabulary have none."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, origin: str) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.decoder
        self.special_ids = frozenset(
            token_id for token_id, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        )  # fmt: skip
        kinds = set(_decoder_kinds(tokenizer))
        if unknown := kinds - _SUPPORTED:
            raise ModelLoadError(
                f"{origin}: its decoder '{', '.join(sorted(unknown))}' is not supported. "
                f"Supported: {', '.join(sorted(_SUPPORTED))}."
            )
        self._is_byte_level = "ByteLevel" in kinds
        self._has_byte_tokens = "ByteFallback" in kinds
        self._bytes: dict[int, bytes] = {}

    @property
    def ids(self) -> dict[str, int]:
        """The number of every token, added ones included."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def bytes_of(self, token_id: int) -> bytes:
        """What the token adds to a text that has begun. Special tokens add their name."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._continuing(token_id)
        return known

    def first_bytes_of(self, token_id: int) -> bytes:
        """What the token adds to an empty text: often less, by a leading space."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        data = self.bytes_of(token_id)
        if self._is_byte_level:
            return data
        if self._has_byte_tokens and _BYTE_TOKEN.fullmatch(token):
            return b"" if self._decode([token]) == "" else data
        return self._decode([token]).encode()

    def visible(self, token_ids: Iterable[int], *, skip_special_tokens: bool) -> list[int]:
        """The ids that add to a text at all."""
        skipped = self.special_ids if skip_special_tokens else frozenset()
        return [token for token in token_ids if token not in skipped and self.bytes_of(token)]

    def join(self, token_ids: Iterable[int], *, skip_special_tokens: bool) -> bytes:
        """The bytes of a whole text."""
        ids = self.visible(token_ids, skip_special_tokens=skip_special_tokens)
        if not ids:
            return b""
        return self.first_bytes_of(ids[0]) + b"".join(map(self.bytes_of, ids[1:]))

    def _continuing(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        if self._is_byte_level:
            return _byte_level_bytes(token)
        if self._has_byte_tokens and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return self._decode([_ANCHOR, token]).removeprefix(_ANCHOR).encode()

    def _decode(self, tokens: list[str]) -> str:
        return " ".join(tokens) if self._decoder is None else str(self._decoder.decode(tokens))


def _decoder_kinds(tokenizer: tokenizers.Tokenizer) -> list[str]:
    if tokenizer.decoder is None:
        return []
    state = json.loads(tokenizer.decoder.__getstate__())
    parts = state["decoders"] if state["type"] == "Sequence" else [state]
    return [part["type"] for part in parts]


def _byte_level_bytes(token: str) -> bytes:
    """Added tokens may hold characters outside the byte alphabet: they stand for themselves."""
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies.

    Printable Latin-1 stands for itself, the rest moves up to U+0100 onwards in order.
    Source: the byte-level BPE of GPT-2 (Radford et al., 2019).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    moved = {chr(0x100 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in sorted(printable)} | moved


_BYTE_OF_CHARACTER = _byte_alphabet()
