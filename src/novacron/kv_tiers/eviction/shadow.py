"""ShadowTier: how a smaller tier would do with another order. Names of blocks only."""

from __future__ import annotations

from dataclasses import replace

from novacron.kv_tiers.eviction.policy import Block, LeafOrder
from novacron.records.block import BlockHash


class ShadowTier:
    """Holds `num_blocks`, sees a sample of a tier's blocks, and knows of no chains."""

    def __init__(self, num_blocks: int, order: LeafOrder) -> None:
        self._num_blocks = num_blocks
        self._order = order
        self._blocks: dict[BlockHash, Block] = {}

    def see(self, block: Block, now_s: float) -> bool:
        """The block was stored or used, and stands as it is after that. Whether it was here."""
        mine = self._blocks.get(block.key)
        if mine is not None:
            idle_s, mine.used_s = now_s - mine.used_s, now_s
            mine.num_uses, mine.gap_s = block.num_uses, block.gap_s
            self._order.touch(mine, idle_s, now_s)
            self._order.enter(mine, now_s)
            return True
        mine = self._blocks[block.key] = replace(block, num_children=0, group=0, rank=0.0)
        self._order.insert(mine, now_s)
        self._order.enter(mine, now_s)
        if len(self._blocks) > self._num_blocks:
            victim = self._order.choose(now_s, lambda key: True)
            assert victim is not None, "all are open"
            self._order.leave(victim)
            self._order.gone(victim, was_evicted=True)
            del self._blocks[victim.key]
        return False
