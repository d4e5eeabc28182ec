"""Belady's optimum: the block whose next use is farthest leaves. It knows the future.

With blocks of one size no policy has more hits. The rule about chains costs it nothing: a use of a
block is a use of all that it builds upon, so a block's next use is never after that of one that
builds upon it. For one tier only: what several tiers should share out among them is another matter.

Source: Belady, "A study of replacement algorithms for a virtual-storage computer" (1966).
"""

from __future__ import annotations

from novacron.cache_simulator.replay import run
from novacron.cache_simulator.tier_model import SimulatedTier
from novacron.cache_simulator.trace import Trace
from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block
from novacron.records.block import BlockHash


class FutureOrder(LruOrder):
    """Implements LeafOrder for one replay of one trace from its start."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._uses: dict[BlockHash, list[float]] = {}  # the next one last
        for request in reversed(trace.requests):
            for key in request.blocks:
                self._uses.setdefault(key, []).append(request.arrival_s)

    def insert(self, block: Block, now_s: float) -> None:
        block.rank = -self._next_use_s(block.key, now_s)

    def touch(self, block: Block, idle_s: float, now_s: float) -> None:
        block.rank = -self._next_use_s(block.key, now_s)

    def enter(self, block: Block, now_s: float) -> None:
        self._heap.put(block, block.rank)

    def _next_use_s(self, key: BlockHash, now_s: float) -> float:
        uses = self._uses[key]
        while uses and uses[-1] <= now_s:
            uses.pop()
        return uses[-1] if uses else float("inf")


def best_hit_rate(trace: Trace, num_blocks: int) -> float:
    """Share of prompt tokens that a tier of so many blocks can find at most."""
    policy = ChainedPolicy(FutureOrder(trace), num_tombstones=0)
    hits = run(trace, [SimulatedTier(num_blocks, policy)])
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    return hits.found[0] * trace.block_tokens / prompt_tokens
