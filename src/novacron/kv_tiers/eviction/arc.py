"""ARC, for chains: blocks used once and blocks used again, and how much room each kind gets.

What comes back after it had left says which kind had too little room. One target for the number of
blocks used once moves by a block each time; the order asks the kind that is above its target.

Source: Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache" (FAST 2003; IBM's
patent on it has expired). Here the ghosts of both kinds share one list, the step is always one, and
only blocks upon which no other builds are candidates.
"""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.eviction.leaf_heap import LeafHeap
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.records.block import BlockHash

_ONCE: Final = 0
_AGAIN: Final = 1


class ArcOrder:
    """Implements LeafOrder, for a tier of `num_blocks`. With a leader it has that one's share of
    blocks used once, instead of finding its own."""

    def __init__(self, num_blocks: int, leader: ArcOrder | None = None) -> None:
        self._num_blocks = num_blocks
        self._leader = leader
        self._target = 0  # of the number of blocks used once
        self._num_once = 0
        self._heaps = (LeafHeap(), LeafHeap())
        self._returning: BlockHash | None = None

    def insert(self, block: Block, now_s: float) -> None:
        block.was_again = block.key == self._returning
        self._returning = None
        self._num_once += not block.was_again

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        if not block.was_again:
            self._heaps[_ONCE].discard(block)
            self._num_once -= 1
            block.was_again = True

    def enter(self, block: Block, now_s: float) -> None:
        self._heaps[block.was_again].put(block, block.used_s)

    def leave(self, block: Block) -> None:
        self._heaps[block.was_again].discard(block)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        first = _ONCE if self._num_once > self._num_blocks * self._share() else _AGAIN
        return self._heaps[first].lowest(may_go) or self._heaps[1 - first].lowest(may_go)

    def _share(self) -> float:
        return (self._leader or self)._target / (self._leader or self)._num_blocks

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        self._num_once -= not block.was_again

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        self._returning = block.key
        if not block.was_again:
            self._target = min(self._num_blocks, self._target + 1)
        else:
            self._target = max(0, self._target - 1)

    def forgotten(self, block: Block, now_s: float) -> None:
        pass

    def expired(self, now_s: float) -> Block | None:
        return None
