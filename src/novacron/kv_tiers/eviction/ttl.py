"""TTL: what was not used for a time leaves, whether there is room or not; else as LRU."""

from __future__ import annotations

from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block


class TtlOrder(LruOrder):
    """Implements LeafOrder."""

    def __init__(self, ttl_s: float) -> None:
        super().__init__()
        self._ttl_s = ttl_s

    def expired(self, now_s: float) -> Block | None:
        first = self._heap.first()
        if first is None or first[0] + self._ttl_s > now_s:
            return None
        return first[1]
