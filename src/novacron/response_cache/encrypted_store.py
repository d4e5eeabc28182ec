"""EncryptedStore: a store in which answers lie sealed. What does not open is a miss."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from novacron.response_cache.identity import Key
from novacron.response_cache.store import Amount, AnswerStore, StoreFailed

_SAID: Final = b"answer"


class Cipher(Protocol):
    """encryption.sealing.Sealing."""

    def seal(self, data: Any, purpose: bytes) -> bytes: ...

    def open(self, sealed: Any, purpose: bytes) -> bytes | None: ...


class EncryptedStore:
    """Implements AnswerStore. An answer is sealed for its key, so none can be put in another's
    place. Ciphers run in a thread: they may ask for a key."""

    def __init__(self, store: AnswerStore, cipher: Cipher) -> None:
        self._store = store
        self._cipher = cipher

    async def get(self, key: Key) -> bytes | None:
        sealed = await self._store.get(key)
        if sealed is None:
            return None
        try:
            return await asyncio.to_thread(self._cipher.open, sealed, _purpose_of(key))
        except LookupError:
            return None
        except OSError as error:
            raise StoreFailed(f"the key is not there: {error}") from error

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None:
        try:
            sealed = await asyncio.to_thread(self._cipher.seal, data, _purpose_of(key))
        except OSError as error:
            raise StoreFailed(f"there is no key: {error}") from error
        await self._store.put(key, sealed, ttl_s)

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        return await self._store.flush(tenant, dry_run=dry_run)

    async def amount(self) -> Amount:
        return await self._store.amount()

    async def close(self) -> None:
        await self._store.close()


def _purpose_of(key: Key) -> bytes:
    return _SAID + f"\x00{key.tenant}\x00{key.digest}".encode()
