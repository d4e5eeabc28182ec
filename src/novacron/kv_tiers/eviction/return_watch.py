"""ReturnWatch: tells ReturnTimes what becomes of a tier's blocks, also after they have left."""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.eviction.return_times import ReturnTimes

_LEARN_FIRST: Final = 250  # observations; then twice as many each time, up to
_LEARN_EVERY: Final = 2000  # and a quarter of the blocks


class ReturnWatch:
    """Is told what an order is told, before a block's group changes."""

    def __init__(self, times: ReturnTimes) -> None:
        self._times = times
        self._waiting: dict[bytes, Block] = {}  # here, or gone and remembered
        self._learn_after = _LEARN_FIRST

    def insert(self, block: Block, now_s: float) -> None:
        self._waiting[block.key] = block
        if self._times.num_observed > self._learn_after:
            most = _LEARN_EVERY + len(self._waiting) // 4
            self._learn_after = min(2 * self._learn_after, most)
            self._times.learn((one.group, now_s - one.used_s) for one in self._waiting.values())

    def touch(self, block: Block, idle_s: float) -> None:
        self._times.observe_return(block.group, idle_s)

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        if not was_evicted:
            del self._waiting[block.key]

    def regretted(self, block: Block, idle_s: float) -> None:
        del self._waiting[block.key]
        self._times.observe_return(block.group, idle_s)

    def forgotten(self, block: Block, now_s: float) -> None:
        del self._waiting[block.key]
        self._times.observe_wait(block.group, now_s - block.used_s)
