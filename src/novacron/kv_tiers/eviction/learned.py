"""Learned: of three orders, the one that would have found most of late.

Return times (returns.py) tell apart what others cannot, but estimates are noisy: where the time of
the last use, or the number of uses, says it all, a plain rule does better. So each order keeps a
small tier of names (shadow.py) that sees the same sample of blocks, and the order whose tier found
most decides. Another takes over only if it is clearly ahead.

Source: choosing by a sample, as set duelling does for processors' caches (Qureshi et al., "Adaptive
insertion policies for high performance caching", ISCA 2007) and scaled-down simulation for larger
ones (Waldspurger et al., "Cache modeling and optimization using miniature simulations", ATC 2017).
"""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.eviction.lfu import LfuOrder
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block, LeafOrder, MayGo
from novacron.kv_tiers.eviction.return_times import ReturnTimes
from novacron.kv_tiers.eviction.returns import ReturnOrder
from novacron.kv_tiers.eviction.shadow import ShadowTier

_SHADOW_BLOCKS: Final = 512  # as many as that, or half of a tier
_CLEARLY: Final = 1.006  # times as many found
_MEMORY: Final = 0.9  # of what was found before, kept when all are compared
_SAMPLE_OF: Final = 1 << 16


class LearnedOrder:
    """Implements LeafOrder, for a tier of `num_blocks`."""

    def __init__(self, num_blocks: int) -> None:
        times = ReturnTimes()
        self._orders: tuple[LeafOrder, ...] = (
            LruOrder(),
            LfuOrder(),
            ReturnOrder(times, learns=True),
        )
        fraction = min(0.5, _SHADOW_BLOCKS / num_blocks)
        self._num_sampled = int(fraction * _SAMPLE_OF)
        size = max(1, int(fraction * num_blocks))
        self._shadows = tuple(
            ShadowTier(size, order)
            for order in (LruOrder(), LfuOrder(), ReturnOrder(times, learns=False))
        )
        self._compare_every = 2 * size  # sampled uses
        self._num_seen = 0
        self._found = [0.0] * len(self._orders)
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
        for order in self._orders:
            is_mine = order is self.deciding or not isinstance(order, LfuOrder)
            order.gone(block, was_evicted=was_evicted and is_mine)

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        for order in self._orders:
            order.regretted(block, idle_s, now_s)

    def expired(self, now_s: float) -> Block | None:
        return None

    def _show(self, block: Block, now_s: float) -> None:
        if int.from_bytes(block.key[-2:], "big") * 40503 % _SAMPLE_OF >= self._num_sampled:
            return
        self._num_seen += 1
        for index, shadow in enumerate(self._shadows):
            self._found[index] += shadow.see(block, now_s)
        if self._num_seen % self._compare_every == 0:
            best = max(range(len(self._found)), key=self._found.__getitem__)
            if self._found[best] > _CLEARLY * self._found[self._deciding]:
                self._deciding = best
            self._found = [found * _MEMORY for found in self._found]
