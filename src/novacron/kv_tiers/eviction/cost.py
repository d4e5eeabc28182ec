"""Cost-aware: the block with the highest score (score.py) leaves, of a sample.

Scores change with time at different speeds, so there is no order to keep up. A few blocks are drawn
and the worst of them leaves, together with one that is the oldest of all; with 16 drawn it is
among the worst tenth with a chance of 81 %. Source: sampling as Redis does it for its LRU and LFU.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from novacron.kv_tiers.eviction.leaf_heap import LeafHeap
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.kv_tiers.eviction.return_times import ReturnTimes
from novacron.kv_tiers.eviction.return_watch import ReturnWatch
from novacron.kv_tiers.eviction.score import (
    Evidence,
    Factors,
    Weights,
    factors_of,
    nudged,
    score,
)

_NUM_DRAWN: Final = 16
_DEEP: Final = 256  # blocks before it, and a block costs twice what the first one does
_GENERATIONS: Final = 4  # a conversation that came back so often is as important as can be


@dataclass(frozen=True, kw_only=True)
class CostConfig:
    weights: Weights = field(default_factory=Weights)
    half_life_s: float = 600.0
    nudge: float = 0.0  # share by which a regret changes weights; 0: they stay
    seed: int = 0


class CostOrder:
    """Implements LeafOrder."""

    def __init__(self, config: CostConfig) -> None:
        self._config = config
        self.weights = config.weights
        self._times = ReturnTimes()
        self._watch = ReturnWatch(self._times)
        self._random = random.Random(config.seed)
        self._open: list[Block] = []
        self._place_of: dict[bytes, int] = {}
        self._oldest = LeafHeap()

    def insert(self, block: Block, now_s: float) -> None:
        block.group = _group_of(block)
        self._watch.insert(block, now_s)

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        self._watch.touch(block, idle_s)
        block.group = _group_of(block)

    def enter(self, block: Block, now_s: float) -> None:
        self._oldest.put(block, block.used_s)
        if block.key not in self._place_of:
            self._place_of[block.key] = len(self._open)
            self._open.append(block)

    def leave(self, block: Block) -> None:
        self._oldest.discard(block)
        place = self._place_of.pop(block.key, None)
        if place is None:
            return
        last = self._open.pop()
        if last is not block:
            self._open[place] = last
            self._place_of[last.key] = place

    def choose(self, now_s: float, may_go: MayGo) -> Block | None:
        worst = self._oldest.lowest(may_go)
        if worst is None:
            return None
        highest = self._score(worst, now_s)
        for _ in range(_NUM_DRAWN):
            block = self._open[int(self._random.random() * len(self._open))]
            if may_go(block.key) and (found := self._score(block, now_s)) > highest:
                worst, highest = block, found
        return worst

    def gone(self, block: Block, *, was_evicted: bool) -> None:
        self._watch.gone(block, was_evicted=was_evicted)

    def regretted(self, block: Block, idle_s: float, now_s: float) -> None:
        self._watch.regretted(block, idle_s)
        if self._config.nudge > 0:
            factors = self._factors(block, now_s)
            self.weights = nudged(self.weights, self._config.weights, factors, self._config.nudge)

    def forgotten(self, block: Block, now_s: float) -> None:
        self._watch.forgotten(block, now_s)

    def expired(self, now_s: float) -> Block | None:
        return None

    def _score(self, block: Block, now_s: float) -> float:
        return score(self._factors(block, now_s), self.weights)

    def _factors(self, block: Block, now_s: float) -> Factors:
        idle_s = now_s - block.used_s
        evidence = Evidence(
            idle_s=idle_s,
            num_uses=block.num_uses,
            return_probability=self._times.return_probability(block.group, idle_s),
            size_fraction=1.0,  # all records of a tier are of one size
            cost_fraction=min(1.0, (1 + block.origin.depth / _DEEP) / 2),
            importance=min(1.0, block.generation / _GENERATIONS),
        )
        return factors_of(evidence, self._config.half_life_s)


def _group_of(block: Block) -> int:
    return min(4, block.num_uses.bit_length()) * 5 + min(4, block.generation.bit_length())
