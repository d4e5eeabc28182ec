"""ShadowTier: how a smaller tier would do with another order. Names of blocks only."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.policy import LeafOrder
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin


class ShadowTier:
    """Holds `num_blocks`, and sees a sample of a tier's blocks. Chains hold here too: the parent of
    a block is the nearest block above it that is in the sample."""

    def __init__(self, num_blocks: int, order: LeafOrder) -> None:
        self._num_blocks = num_blocks
        # More than it holds: of a sample, more blocks than is their share may come in turns.
        self._policy = ChainedPolicy(order, num_tombstones=2 * num_blocks)
        self._held: set[BlockHash] = set()

    @property
    def is_full(self) -> bool:
        return len(self._held) >= self._num_blocks

    def see(self, blocks: Sequence[tuple[BlockHash, BlockOrigin]], now_s: float) -> int:
        """A request stored or used these, parents first. How many of them were here.

        In the order of a tier: uses from the last block on, then what is new from the first one on,
        up to a block that is not kept.
        """
        found = [key for key, _ in blocks if key in self._held]
        for key in reversed(found):
            self._policy.touch(key, now_s)
        refused: set[BlockHash] = set()
        for key, origin in blocks:
            if key not in self._held and (
                origin.parent in refused or not self._store(key, origin, now_s)
            ):
                refused.add(key)
        return len(found)

    def _store(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> bool:
        """Whether it is kept."""
        self._policy.insert(key, origin, now_s)
        self._held.add(key)
        if len(self._held) > self._num_blocks:
            victim = self._policy.evict(now_s)
            assert victim is not None, "nothing is protected"
            self._held.discard(victim)
        return key in self._held
