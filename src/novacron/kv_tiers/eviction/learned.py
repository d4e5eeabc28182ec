"""Learned: of four orders, the one that would have found most of late.

Return times (returns.py) tell apart what others cannot, but estimates are noisy: where the time of
the last use, or the number of uses, says it all, a plain rule does better. So each order keeps a
small tier of names (shadow.py), all see the same sample of blocks, and the order whose tier found
most decides. Another takes over only if it is clearly ahead.

Source: choosing by a sample, as set duelling does for processors' caches (Qureshi et al., "Adaptive
insertion policies for high performance caching", ISCA 2007) and scaled-down simulation for larger
ones (Waldspurger et al., "Cache modeling and optimization using miniature simulations", ATC 2017).
"""

from __future__ import annotations

from typing import Final

import msgspec

from novacron.kv_tiers.eviction.arc import ArcOrder
from novacron.kv_tiers.eviction.lfu import LfuOrder
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block, LeafOrder, MayGo
from novacron.kv_tiers.eviction.return_times import ReturnTimes
from novacron.kv_tiers.eviction.returns import ReturnOrder
from novacron.kv_tiers.eviction.shadow import ShadowTier
from novacron.records.block import BlockHash

_SHADOW_BLOCKS: Final = 512  # as many as that, or half of a tier
_LEAD: Final = 0.006  # of what is found, to take over; twice that after each time it was left
_MOST_LEAD: Final = 0.1
_MEMORY: Final = 0.9  # of what was found before, kept when all are compared
_SAMPLE_OF: Final = 1 << 16


class LearnedOrder:
    """Implements LeafOrder, for a tier of `num_blocks`."""

    def __init__(self, num_blocks: int) -> None:
        fraction = min(0.5, _SHADOW_BLOCKS / num_blocks)
        self._num_sampled = int(fraction * _SAMPLE_OF)
        size = max(1, int(fraction * num_blocks))
        times, small_arc = ReturnTimes(), ArcOrder(size)
        self._orders: tuple[LeafOrder, ...] = (
            LruOrder(),
            LfuOrder(),
            ArcOrder(num_blocks, leader=small_arc),
            ReturnOrder(times),
        )
        self._shadows = tuple(
            ShadowTier(size, order)
            for order in (LruOrder(), LfuOrder(), small_arc, ReturnOrder(times, learns=False))
        )
        self._sampled: dict[BlockHash, BlockHash | None] = {}  # of each block here: the nearest
        self._compare_every = 2 * size  # sampled uses
        self._num_seen = 0
        self._found = [0.0] * len(self._orders)
        self._leads = [_LEAD] * len(self._orders)
        self._deciding = 0

    @property
    def deciding(self) -> LeafOrder:
        return self._orders[self._deciding]

    def insert(self, block: Block, now_s: float) -> None:
        for order in self._orders:
            order.insert(block, now_s)
        self._show(block, now_s)

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        for order in self._orders:
            order.touch(block, idle_s, now_s)
        self._show(block, now_s)

    def enter(self, block: Block, now_s: float) -> None:
        for order in self._orders:
            order.enter(block, now_s)

    def leave(self, block: Block) -> None:
        for order in self._orders:
            order.leave(block)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        return self.deciding.choose(now_s, may_go)

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        """Fame ages by what the count of uses chose; all others learn from whatever left."""
        del self._sampled[block.key]
        for order in self._orders:
            is_mine = order is self.deciding or not isinstance(order, LfuOrder)
            order.gone(block, was_evicted=was_evicted and is_mine)

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        for order in self._orders:
            order.regretted(block, idle_s, now_s)

    def expired(self, now_s: float) -> Block | None:
        return None

    def _show(self, block: Block, now_s: float) -> None:
        """To the shadows, if the block is in their sample."""
        parent = block.origin.parent
        above = None if parent is None else self._sampled.get(parent)
        if int.from_bytes(block.key[-2:], "big") * 40503 % _SAMPLE_OF >= self._num_sampled:
            self._sampled[block.key] = above
            return
        self._sampled[block.key] = block.key
        origin = msgspec.structs.replace(block.origin, parent=above)
        hits = [shadow.see(block.key, origin, now_s) for shadow in self._shadows]
        if not self._shadows[0].is_full:  # until then all find the same
            return
        self._found = [found + hit for found, hit in zip(self._found, hits, strict=True)]
        self._num_seen += 1
        if self._num_seen % self._compare_every == 0:
            self._compare()

    def _compare(self) -> None:
        """Let the order that found most take over, if it leads by enough. One that was left before
        needs more: it looks better than it is."""
        best = max(range(len(self._found)), key=self._found.__getitem__)
        if self._found[best] > (1 + self._leads[best]) * self._found[self._deciding]:
            self._leads[self._deciding] = min(2 * self._leads[self._deciding], _MOST_LEAD)
            self._deciding = best
        self._found = [found * _MEMORY for found in self._found]
