"""LFU with ageing: what was used least often leaves first, and old fame fades.

A block's rank is its number of uses plus the age of the tier when it was used last; the age is the
rank of the last block that left. So a block that was popular once leaves when as many newer ones
have come as it had uses.

Source: LFU with dynamic ageing (Arlitt et al., "Evaluating content management techniques for Web
proxy caches", 1999).
"""

from __future__ import annotations

from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block


class LfuOrder(LruOrder):
    """Implements LeafOrder."""

    def __init__(self) -> None:
        super().__init__()
        self._age = 0.0

    def insert(self, block: Block, now_s: float) -> None:
        block.rank = self._age + block.num_uses

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        block.rank = self._age + block.num_uses

    def enter(self, block: Block, now_s: float) -> None:
        self._heap.put(block, block.rank)

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        if was_evicted:
            self._age = max(self._age, block.rank)
