"""A tier of the simulator: the names of blocks, and the same policy that a real tier has."""

from __future__ import annotations

from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin


class SimulatedTier:
    """Holds at most `num_blocks`. A new block may be the one that is worth least."""

    def __init__(self, num_blocks: int, policy: ChainedPolicy) -> None:
        self._num_blocks = num_blocks
        self.policy = policy
        self.held: set[BlockHash] = set()

    def store(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> bool:
        """Whether it is kept."""
        for gone in self.policy.expired(now_s):
            self.held.discard(gone)
        self.policy.insert(key, origin, now_s)
        self.held.add(key)
        while len(self.held) > self._num_blocks:
            victim = self.policy.evict(now_s)
            if victim is None:  # all others are protected
                victim = key
                self.policy.remove(key)
            self.held.discard(victim)
        return key in self.held
