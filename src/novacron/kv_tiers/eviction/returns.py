"""By return times: what will be used soonest stays, judged by how blocks of its kind came back.

A block's group is what can be seen of it: how often it and its conversation were taken up again,
whose it is, whether its chain is broken. Of each group the block used longest ago and the one used
last are compared by their worth (return_times.py), and the one worth least leaves. The latter
matters where things come round in a circle: then what came last is needed last, and a new block
that is worth less than all others leaves at once.

Nothing is trained beforehand, and nothing outlives the process.
"""

from __future__ import annotations

from typing import Final

from novacron.kv_tiers.eviction.leaf_heap import LeafHeap
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.kv_tiers.eviction.return_times import ReturnTimes
from novacron.kv_tiers.eviction.return_watch import ReturnWatch

_SHARE_AT_ONCE: Final = 1 / 400  # of the blocks: choices of one group, before all are compared
_SURELY: Final = 0.5  # times the worth of the least of the oldest
_MOST_SCOPES: Final = 7  # told apart; more share a number


class ReturnOrder:
    """Implements LeafOrder. One that does not learn judges by what another one does."""

    def __init__(self, times: ReturnTimes, *, learns: bool = True) -> None:
        self._times = times
        self._watch = ReturnWatch(times) if learns else None
        self._num_blocks = 0
        self._oldest: dict[int, LeafHeap] = {}
        self._newest: dict[int, LeafHeap] = {}
        self._scopes: dict[bytes, int] = {b"": 0}
        self._favourite: LeafHeap | None = None
        self._choices_left = 0

    def insert(self, block: Block, now_s: float) -> None:
        block.group = self._group_of(block)
        self._num_blocks += 1
        if self._watch is not None:
            self._watch.insert(block, now_s)

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        if block.num_children == 0:
            self.leave(block)
        if self._watch is not None:
            self._watch.touch(block, idle_s)
        block.group = self._group_of(block)

    def enter(self, block: Block, now_s: float) -> None:
        if block.group not in self._oldest:
            self._oldest[block.group], self._newest[block.group] = LeafHeap(), LeafHeap()
        self._oldest[block.group].put(block, block.used_s)
        self._newest[block.group].put(block, -block.used_s)

    def leave(self, block: Block) -> None:
        if block.group in self._oldest:
            self._oldest[block.group].discard(block)
            self._newest[block.group].discard(block)

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        if self._favourite is not None and self._choices_left > 0:
            self._choices_left -= 1
            found = self._favourite.lowest(may_go)
            if found is not None:
                return found
        return self._compare(now_s, may_go)

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        self._num_blocks -= 1
        if self._watch is not None:
            self._watch.gone(block, was_evicted=was_evicted)

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        if self._watch is not None:
            self._watch.regretted(block, idle_s)

    def forgotten(self, block: Block, now_s: float) -> None:
        if self._watch is not None:
            self._watch.forgotten(block, now_s)

    def expired(self, now_s: float) -> Block | None:
        return None

    def _compare(self, now_s: float, may_go: MayGo) -> Block | None:
        """The newest of a group leaves only if it is surely worth less than the oldest of all."""
        least: tuple[float, float] | None = None
        chosen = None
        for heaps, margin in ((self._oldest, 1.0), (self._newest, 1 / _SURELY)):
            for group, heap in heaps.items():
                block = heap.lowest(may_go) if len(heap) else None
                if block is None:
                    continue
                worth = margin * self._times.worth(group, now_s - block.used_s), block.used_s
                if least is None or worth < least:
                    least, chosen, self._favourite = worth, block, heap
        self._choices_left = int(self._num_blocks * _SHARE_AT_ONCE)
        return chosen

    def _group_of(self, block: Block) -> int:
        scope = self._scopes.get(block.origin.scope)
        if scope is None:
            scope = len(self._scopes)
            if scope > _MOST_SCOPES:
                scope = 1 + block.origin.scope[0] % _MOST_SCOPES
            else:
                self._scopes[block.origin.scope] = scope
        taken_up = min(7, (block.num_uses + block.generation).bit_length())
        return ((scope * 8 + taken_up) * 2 + (block.num_uses > 0)) * 2 + block.is_orphan
