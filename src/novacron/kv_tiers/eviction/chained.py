"""ChainedPolicy: what holds for every policy, around an order that tells them apart.

A block is of use only with all that it builds upon. So the last blocks of a chain leave first, and
a block upon which others here build does not leave. Nor does one that is protected: referenced,
pinned or in flight. What has left is remembered for a while; asked for again, it is regretted.
"""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.eviction.policy import Block, EvictionCounts, LeafOrder, MayGo
from novacron.kv_tiers.eviction.tombstones import Tombstones
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

_SAME_REQUEST_S: Final = 2.0  # between a block and the next of one request


def never(key: BlockHash) -> bool:
    """Nothing is protected."""
    return False


class ChainedPolicy:
    """Implements EvictionPolicy. `num_tombstones` blocks that left are remembered."""

    def __init__(
        self, order: LeafOrder, *, num_tombstones: int, is_protected: MayGo = never
    ) -> None:
        self._order = order
        self._is_protected = is_protected
        self._blocks: dict[BlockHash, Block] = {}
        self._num_children: dict[BlockHash, int] = {}  # also of blocks that are not here
        self._tombstones = Tombstones(num_tombstones)
        self._num_evicted = self._num_expired = self._num_regretted = 0

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def counts(self) -> EvictionCounts:
        return EvictionCounts(self._num_evicted, self._num_expired, self._num_regretted)

    def insert(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> None:
        if key not in self._blocks:
            block = Block(key, origin, stored_s=now_s, used_s=now_s)
            self._see_regret(key, now_s, block)
            self._add(block, now_s)

    def restore(
        self, key: BlockHash, origin: BlockOrigin, used_s: float, num_uses: int, now_s: float
    ) -> None:
        """As insert, of a block that was stored before this policy began."""
        if key not in self._blocks:
            self._tombstones.take(key)
            self._add(Block(key, origin, used_s, used_s, num_uses), now_s)

    def _add(self, block: Block, now_s: float) -> None:
        key, origin = block.key, block.origin
        parent = None if origin.parent is None else self._blocks.get(origin.parent)
        if parent is not None:
            if block.num_uses == 0:  # else it was made long ago
                resumed = now_s - max(parent.stored_s, parent.used_s) > _SAME_REQUEST_S
                block.generation = parent.generation + (resumed or parent.num_uses > 0)
            if parent.num_children == 0:
                self._order.leave(parent)
            parent.num_children += 1
        block.is_orphan = origin.parent is not None and parent is None
        if origin.parent is not None:
            self._num_children[origin.parent] = self._num_children.get(origin.parent, 0) + 1
        block.num_children = self._num_children.get(key, 0)
        self._blocks[key] = block
        self._order.insert(block, now_s)
        if block.num_children == 0:
            self._order.enter(block, now_s)

    def touch(self, key: BlockHash, now_s: float) -> None:
        block = self._blocks.get(key)
        if block is None:
            self._see_regret(key, now_s)
            return
        idle_s, block.used_s = now_s - block.used_s, now_s
        block.num_uses += 1
        self._order.touch(block, idle_s, now_s)
        if block.num_children == 0:
            self._order.enter(block, now_s)

    def remove(self, key: BlockHash) -> None:
        block = self._blocks.get(key)
        if block is not None:
            if block.num_children == 0:
                self._order.leave(block)
            self._order.gone(block, was_evicted=False)
            self._forget(block, block.used_s)

    def recall(self, key: BlockHash) -> Block | None:
        """What is remembered of a block that has left."""
        return self._tombstones.recall(key)

    def evict(self, now_s: float) -> BlockHash | None:
        block = self._order.choose(now_s, self._may_go)
        if block is None:
            return None
        self._num_evicted += 1
        self._drop(block, now_s)
        return block.key

    def expired(self, now_s: float) -> list[BlockHash]:
        gone: list[BlockHash] = []
        kept: list[Block] = []
        while (block := self._order.expired(now_s)) is not None:
            self._order.leave(block)
            if not self._may_go(block.key):
                kept.append(block)
                continue
            self._num_expired += 1
            self._drop(block, now_s)
            gone.append(block.key)
        for block in kept:
            self._order.enter(block, now_s)
        return gone

    def check_integrity(self) -> None:
        """Recount the slow way. Raises AssertionError on a bug of ours."""
        counted: dict[BlockHash, int] = {}
        for block in self._blocks.values():
            if block.origin.parent is not None:
                counted[block.origin.parent] = counted.get(block.origin.parent, 0) + 1
        assert counted == self._num_children
        for key, block in self._blocks.items():
            assert block.num_children == counted.get(key, 0)

    def _may_go(self, key: BlockHash) -> bool:
        return not self._is_protected(key)

    def _drop(self, block: Block, now_s: float) -> None:
        self._order.leave(block)
        self._order.gone(block, was_evicted=True)
        forgotten = self._tombstones.add(block)
        if forgotten is not None:
            self._order.forgotten(forgotten, now_s)
        self._forget(block, now_s)

    def _forget(self, block: Block, now_s: float) -> None:
        """Its parent may leave now, if it was the last to build upon it."""
        del self._blocks[block.key]
        above = block.origin.parent
        if above is None:
            return
        self._num_children[above] -= 1
        if self._num_children[above] == 0:
            del self._num_children[above]
        parent = self._blocks.get(above)
        if parent is not None:
            parent.num_children -= 1
            if parent.num_children == 0:
                self._order.enter(parent, now_s)

    def _see_regret(self, key: BlockHash, now_s: float, back: Block | None = None) -> None:
        """Count it if the block had left; it comes `back` with what was known of it."""
        block = self._tombstones.take(key)
        if block is None:
            return
        idle_s = now_s - block.used_s
        self._num_regretted += 1
        self._order.regretted(block, idle_s, now_s)
        if back is not None:
            back.num_uses, back.generation = block.num_uses + 1, block.generation
