"""Master keys: what data keys are wrapped with. They come from a source, and are written nowhere.

A master key is known by its fingerprint, so nobody has to name it, and a wrong one is found out
before anything is tried with it. Several may be known at a time: the first wraps, the others only
unwrap what was wrapped before the last rotation.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import blake3

from novacron.errors import ConfigError

KEY_BYTES: Final = 32
_ID_CONTEXT: Final = "novacron 2026-11 fingerprint of a master key"
_ID_BYTES: Final = 8


class KeysUnavailable(OSError):
    """The source of master keys does not answer now; it may later."""


@dataclass(frozen=True)
class MasterKey:
    """`secret` has KEY_BYTES, and is shown nowhere."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Hexadecimal; tells nothing about the key."""
        context = blake3.blake3(self.secret, derive_key_context=_ID_CONTEXT)
        return context.hexdigest(_ID_BYTES)


class MasterKeys(Protocol):
    """Where master keys come from. Both may raise KeysUnavailable, and ConfigError for a source
    that holds no key."""

    @property
    def shown(self) -> str:
        """The source for people, without secrets."""
        ...

    def current(self) -> MasterKey:
        """The one to wrap with."""
        ...

    def find(self, id: str) -> MasterKey | None:
        """One by its fingerprint, old ones too. The source is asked again."""
        ...


class TextKeys(Protocol):
    """A source that is a text of one or several keys."""

    @property
    def shown(self) -> str: ...

    def read(self) -> str: ...


class KeysInText:
    """Implements MasterKeys: the keys of a text, the first of which is the current one. It is read
    each time, so that a changed file needs no restart."""

    def __init__(self, source: TextKeys) -> None:
        self._source = source

    @property
    def shown(self) -> str:
        return self._source.shown

    def current(self) -> MasterKey:
        return self._keys()[0]

    def find(self, id: str) -> MasterKey | None:
        return next((key for key in self._keys() if key.id == id), None)

    def _keys(self) -> Sequence[MasterKey]:
        return parse_master_keys(self._source.read(), self.shown)


def new_master_key() -> str:
    """The text of a new key."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def parse_master_keys(text: str, shown: str) -> tuple[MasterKey, ...]:
    """Keys as base64 or hexadecimal, with spaces, commas or line ends between them. Raises
    ConfigError, which shows nothing of the text."""
    words = text.replace(",", " ").split()
    if not words:
        raise ConfigError(f"encryption_key: {shown} is empty. {_HOW}")
    return tuple(
        MasterKey(_secret_of(word, place, shown)) for place, word in enumerate(words, start=1)
    )


_HOW: Final = "Make a key with: novacron encryption new-key"


def _secret_of(word: str, place: int, shown: str) -> bytes:
    try:
        secret = bytes.fromhex(word) if len(word) == 2 * KEY_BYTES else _base64(word)
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise ConfigError(
            f"encryption_key: key {place} in {shown} is not {KEY_BYTES} bytes as base64 or "
            f"hexadecimal. {_HOW}"
        )
    return secret


def _base64(word: str) -> bytes:
    try:
        return base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error as error:
        raise ValueError from error
