"""AnswerStore: where encoded answers lie. An entry ends when its time is over: a hit does not
extend it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from novacron.response_cache.identity import Key


class StoreFailed(Exception):
    """The store itself does not work: a server that is gone, a disk that is full."""


class Amount(NamedTuple):
    entries: int
    bytes: int


class AnswerStore(Protocol):
    """All methods may raise StoreFailed, and belong to one event loop."""

    async def get(self, key: Key) -> bytes | None:
        """Counts a hit of the entry; changes neither it nor its time."""
        ...

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None: ...

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        """Drop what belongs to a tenant (its tag), or everything; or only tell how much it is."""
        ...

    async def amount(self) -> Amount:
        """What is kept. Ended entries may still count."""
        ...

    async def purge(self) -> int:
        """Drop entries that have ended, where that does not happen by itself; how many."""
        ...

    async def close(self) -> None: ...
