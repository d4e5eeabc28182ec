"""Sealing: bytes to bytes that only holders of the master key can read, and nobody can change.

0   mark and version of this format
4   id of the data key
12  nonce, random
24  AES-256-GCM of the bytes
-16 its tag, which also covers the mark, the id and what the bytes are for
"""

from __future__ import annotations

import os
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from novacron.encryption.key_ring import ID_BYTES, NONCE_BYTES, KeyRing

_MARK: Final = b"NCE1"
_HEAD_BYTES: Final = len(_MARK) + ID_BYTES
_START: Final = _HEAD_BYTES + NONCE_BYTES
_TAG_BYTES: Final = 16


class UnknownKey(LookupError):
    """The data key is not there, or cannot be unwrapped."""


class Sealing:
    """Implements kv_tiers.encrypted_tier.BlockCipher and whatever else wants bytes sealed. The
    bytes are for something, which whoever opens them has to say again: what was sealed for one
    place is nothing in another."""

    overhead_bytes: Final = _START + _TAG_BYTES

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def seal(self, data: Any, purpose: bytes) -> bytes:
        """Raises OSError if there is no key."""
        sealed = bytearray(len(data) + self.overhead_bytes)
        self.seal_into(data, purpose, sealed)
        return bytes(sealed)

    def seal_into(self, data: Any, purpose: bytes, into: Any) -> None:
        """`into` has room for the bytes and `overhead_bytes`."""
        key = self._ring.current()
        nonce = os.urandom(NONCE_BYTES)
        view = memoryview(into)
        view[:_START] = _MARK + key.id + nonce
        key.cipher.encrypt_into(nonce, data, _MARK + key.id + purpose, view[_START:])

    def open(self, sealed: Any, purpose: bytes) -> bytes | None:
        """None if they are not what was sealed for this. Raises UnknownKey, and OSError if nobody
        can say."""
        if len(sealed) < self.overhead_bytes:
            return None
        data = bytearray(len(sealed) - self.overhead_bytes)
        return bytes(data) if self.open_into(sealed, purpose, data) else None

    def open_into(self, sealed: Any, purpose: bytes, into: Any) -> bool:
        """The same, into a buffer of the right length, which may hold anything after a False."""
        view = memoryview(sealed)
        if len(view) != len(into) + self.overhead_bytes or bytes(view[: len(_MARK)]) != _MARK:
            return False
        id = bytes(view[len(_MARK) : _HEAD_BYTES])
        key = self._ring.find(id)
        if key is None:
            raise UnknownKey(id.hex())
        nonce = bytes(view[_HEAD_BYTES:_START])
        try:
            key.cipher.decrypt_into(nonce, view[_START:], _MARK + id + purpose, into)
        except InvalidTag:
            return False
        return True
