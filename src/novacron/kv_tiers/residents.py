"""Residents: which blocks a tier holds, as its policy and its protection know it. Pure.

A block that takes no other's place needs no decision, so it can be noted (`come`) and told to the
policy later, in small pieces, when nobody waits. Whoever asks the policy something has it hear of
all before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from novacron.kv_tiers.eviction.choice import PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.kv_tiers.protection import Protection
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

_MOST_FREE: Final = 256
_FREE_SHARE: Final = 64
_MOST_UNTOLD: Final = 256  # who asks the policy something waits for so many


def free_ahead(num_places: int) -> int:
    """How many places of a full tier are free ahead of need: for a prompt of some thousand tokens,
    or a small part of a small tier."""
    return min(_MOST_FREE, num_places // _FREE_SHARE)


class Residents:
    """Of a tier with room for `num_places`. Blocks that `protection` keeps, or for which `stays`
    holds, do not leave to make room. Times are seconds of one clock, which may not go back."""

    def __init__(
        self, num_places: int, policy: PolicyConfig, protection: Protection, stays: MayGo
    ) -> None:
        self._protection = protection
        self._stays = stays
        self._policy = make_policy(policy, num_places, self._may_not_leave)
        self._untold: deque[tuple[BlockHash, BlockOrigin, float]] = deque()

    @property
    def num_untold(self) -> int:
        return len(self._untold)

    @property
    def num_regretted(self) -> int:
        return self._policy.counts.num_regretted

    def is_protected(self, key: BlockHash) -> bool:
        return self._protection.is_protected(key)

    def come(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> None:
        """The block is here. The policy need not know yet, unless too much waits for that."""
        self._untold.append((key, origin, now_s))
        if len(self._untold) > _MOST_UNTOLD:
            self.tell(1)

    def insert(self, key: BlockHash, origin: BlockOrigin, now_s: float) -> None:
        """The block is here, and may be the next to leave."""
        self.tell()
        self._policy.insert(key, origin, now_s)
        self._protection.add(key, origin.scope)

    def restore(
        self, key: BlockHash, origin: BlockOrigin, used_s: float, num_uses: int, now_s: float
    ) -> None:
        """As insert, of a block that was here before this process began."""
        self._policy.restore(key, origin, used_s, num_uses, now_s)
        self._protection.add(key, origin.scope)

    def tell(self, most: int | None = None) -> None:
        """Have the policy hear of what came: of all, or of so many of the first."""
        for _ in range(len(self._untold) if most is None else min(most, len(self._untold))):
            key, origin, came_s = self._untold.popleft()
            self._policy.insert(key, origin, came_s)
            self._protection.add(key, origin.scope)

    def touch(self, keys: Iterable[BlockHash], now_s: float) -> None:
        """Requests found these here, or above."""
        self.tell()
        for key in keys:
            self._policy.touch(key, now_s)

    def evict(self, now_s: float) -> BlockHash | None:
        """The block that leaves next; None: there is none that may."""
        self.tell()
        victim = self._policy.evict(now_s)
        if victim is not None:
            self._protection.remove(victim)
        return victim

    def expired(self, now_s: float) -> list[BlockHash]:
        """What leaves though there is room."""
        gone = self._policy.expired(now_s)
        for key in gone:
            self._protection.remove(key)
        return gone

    def remove(self, key: BlockHash) -> None:
        """The block is gone for a reason of others."""
        self.tell()
        self._policy.remove(key)
        self._protection.remove(key)

    def recall(self, key: BlockHash) -> Block | None:
        """What is remembered of a block that has left."""
        return self._policy.recall(key)

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        self.tell()
        return self._protection.keys_of(scope)

    def clear(self) -> None:
        """The tier is closed."""
        self._untold.clear()

    def _may_not_leave(self, key: BlockHash) -> bool:
        return self._stays(key) or self._protection.is_protected(key)
