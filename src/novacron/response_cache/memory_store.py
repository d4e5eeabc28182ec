"""MemoryStore: answers in this process, the least recently used leave first.

Where there are several tenants, one may fill at most half, so that none pushes out all others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from novacron.response_cache.identity import Key
from novacron.response_cache.store import Amount

_ENTRY_BYTES = 512  # of the books, about


@dataclass
class _Entry:
    data: bytes
    expires_s: float
    num_hits: int = 0

    @property
    def num_bytes(self) -> int:
        return len(self.data) + _ENTRY_BYTES


class MemoryStore:
    """`clock` is time.monotonic()."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()  # the least recently used first
        self._num_bytes: dict[str, int] = {}  # by tenant

    async def get(self, key: Key) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_s <= self._clock():
            self._drop(key)
            return None
        entry.num_hits += 1
        self._entries.move_to_end(key)
        return entry.data

    async def put(self, key: Key, data: bytes, ttl_s: float) -> None:
        self._drop(key)
        entry = _Entry(data, self._clock() + ttl_s)
        if entry.num_bytes > self._most_of(key.tenant):
            return
        self._entries[key] = entry
        self._num_bytes[key.tenant] = self._num_bytes.get(key.tenant, 0) + entry.num_bytes
        while self._num_bytes[key.tenant] > self._most_of(key.tenant):
            self._drop(next(other for other in self._entries if other.tenant == key.tenant))
        while sum(self._num_bytes.values()) > self._max_bytes:
            self._drop(next(iter(self._entries)))

    async def flush(self, tenant: str | None, *, dry_run: bool) -> Amount:
        keys = [key for key in self._entries if tenant in (None, key.tenant)]
        amount = Amount(len(keys), sum(self._entries[key].num_bytes for key in keys))
        if not dry_run:
            for key in keys:
                self._drop(key)
        return amount

    async def amount(self) -> Amount:
        return Amount(len(self._entries), sum(self._num_bytes.values()))

    async def purge(self) -> int:
        now_s = self._clock()
        ended = [key for key, entry in self._entries.items() if entry.expires_s <= now_s]
        for key in ended:
            self._drop(key)
        return len(ended)

    async def close(self) -> None:
        self._entries.clear()
        self._num_bytes.clear()

    def _most_of(self, tenant: str) -> int:
        is_alone = not self._num_bytes or self._num_bytes.keys() == {tenant}
        return self._max_bytes if is_alone else self._max_bytes // 2

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._num_bytes[key.tenant] -= entry.num_bytes
            if not self._num_bytes[key.tenant]:
                del self._num_bytes[key.tenant]
