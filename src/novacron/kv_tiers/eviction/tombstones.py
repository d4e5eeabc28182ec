"""Tombstones: blocks that left not long ago. What is asked for again was dropped too early."""

from __future__ import annotations

from collections import OrderedDict

from novacron.kv_tiers.eviction.policy import Block
from novacron.records.block import BlockHash


class Tombstones:
    """The last `capacity` blocks that left, without their content."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[BlockHash, Block] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: Block) -> Block | None:
        """Returns the one that is forgotten for it, if one is."""
        self._blocks[block.key] = block
        self._blocks.move_to_end(block.key)
        if len(self._blocks) > self._capacity:
            return self._blocks.popitem(last=False)[1]
        return None

    def recall(self, key: BlockHash) -> Block | None:
        """It is remembered further."""
        return self._blocks.get(key)

    def take(self, key: BlockHash) -> Block | None:
        """That of the block, which is remembered no longer."""
        return self._blocks.pop(key, None)
