"""Learned: of four orders, the one that would have found most of late.

Return times (returns.py) tell apart what others cannot, but estimates are noisy: where the time of
the last use, or the number of uses, says it all, a plain rule does better. So each order keeps a
small tier of names (shadow.py), and all see the same sample of blocks. LRU decides, until the tier
of another order has found more than chance explains, or so much more that to wait for proof costs
more than a mistake would. Chance is judged by requests, not by blocks: those of one request are
found or missed together.

Source: choosing by a sample, as set duelling does for processors' caches (Qureshi et al., "Adaptive
insertion policies for high performance caching", ISCA 2007) and scaled-down simulation for larger
ones (Waldspurger et al., "Cache modeling and optimization using miniature simulations", ATC 2017).
"""

from __future__ import annotations

import math
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

_SHADOW_BLOCKS: Final = 1024  # as many as that, or all of a tier
_SURE: Final = 1.7  # standard deviations that another order must be ahead by, to take over
_LIKELY: Final = 0.7  # as many are enough for one that is ahead
_BY_MUCH: Final = 0.015  # by this part of what the other one found
_MEMORY: Final = 0.9  # of what was counted, after eight times the blocks that a shadow holds
_SAMPLE_OF: Final = 1 << 16


class LearnedOrder:
    """Implements LeafOrder, for a tier of `num_blocks`."""

    def __init__(self, num_blocks: int) -> None:
        fraction = min(1.0, _SHADOW_BLOCKS / num_blocks)
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
        self._request: list[tuple[Block, BlockHash | None]] = []  # its sampled blocks so far
        self._request_s = 0.0
        self._fade_every = 8 * size
        self._num_seen = 0
        self._deciding = 0
        self._found = [0.0] * len(self._orders)
        # By two orders: the squares of what one found more than the other, summed over requests.
        self._squares = [[0.0] * len(self._orders) for _ in self._orders]

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

    def forgotten(self, block: Block, now_s: float) -> None:
        for order in self._orders:
            order.forgotten(block, now_s)

    def expired(self, now_s: float) -> Block | None:
        return None

    def _show(self, block: Block, now_s: float) -> None:
        """To the shadows, if the block is in their sample, with all of its request."""
        if now_s > self._request_s:
            self._end_request()
            self._request_s = now_s
        parent = block.origin.parent
        above = None if parent is None else self._sampled.get(parent)
        if int.from_bytes(block.key[-2:], "big") * 40503 % _SAMPLE_OF >= self._num_sampled:
            self._sampled[block.key] = above
            return
        self._sampled[block.key] = block.key
        self._request.append((block, above))

    def _end_request(self) -> None:
        self._request.sort(key=lambda one: one[0].origin.depth)
        blocks = [
            (block.key, msgspec.structs.replace(block.origin, parent=above))
            for block, above in self._request
        ]
        found = [shadow.see(blocks, self._request_s) for shadow in self._shadows]
        self._num_seen += len(self._request)
        self._request.clear()
        if self._shadows[0].is_full:  # until then all find the same
            self._compare(found)

    def _compare(self, found: list[int]) -> None:
        """Let another order take over if it is surely ahead, or likely by much."""
        for place, num in enumerate(found):
            self._found[place] += num
            for other, less in enumerate(found):
                self._squares[place][other] += (num - less) ** 2
        if self._num_seen >= self._fade_every:
            self._num_seen = 0
            self._found = [num * _MEMORY for num in self._found]
            self._squares = [[one * _MEMORY for one in row] for row in self._squares]
        now = self._found[self._deciding]
        deviations = [
            (num - now) / math.sqrt(1 + square)
            for num, square in zip(self._found, self._squares[self._deciding], strict=True)
        ]
        best = max(range(len(deviations)), key=deviations.__getitem__)
        is_much = self._found[best] - now > _BY_MUCH * now
        if deviations[best] > (_LIKELY if is_much else _SURE):
            self._deciding = best
