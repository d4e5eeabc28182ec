"""LRU: what was used longest ago leaves first."""

from __future__ import annotations

from novacron.kv_tiers.eviction.leaf_heap import LeafHeap
from novacron.kv_tiers.eviction.policy import Block, MayGo


class LruOrder:
    """Implements LeafOrder."""

    def __init__(self) -> None:
        self._heap = LeafHeap()

    def insert(self, block: Block, now_s: float) -> None:
        pass

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        pass

    def enter(self, block: Block, now_s: float) -> None:
        self._heap.put(block, block.used_s)

    def leave(self, block: Block) -> None:
        self._heap.discard(block)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        return self._heap.lowest(may_go)

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        pass

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        pass

    def forgotten(self, block: Block, now_s: float) -> None:
        pass

    def expired(self, now_s: float) -> Block | None:
        return None
