"""Protection: which blocks of one tier must not leave to make room. Pure.

Two reasons. A pinned block stays. And tenants get equal shares: while a tier is full, only blocks
of scopes that fill their share leave, so that a flood of one scope pushes out its own blocks, and
never another's that has less than its share. Room that others do not use is anybody's.

A share is the tier over the number of scopes that have blocks in it, or less if that is set. Since
the shares do not exceed the tier, a full tier always has a scope that fills its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable

from novacron.records.block import BlockHash


class Protection:
    """Of a tier with room for `num_places` blocks. The tier tells what comes and goes.

    `most_share`: what a scope may take even if there are few others.
    """

    def __init__(
        self, pinned: Container[BlockHash], num_places: int, most_share: float = 1.0
    ) -> None:
        self._pinned = pinned
        self._num_places = num_places
        self._most_share = most_share
        self._scope_of: dict[BlockHash, bytes] = {}
        self._num_blocks: Counter[bytes] = Counter()

    def add(self, key: BlockHash, scope: bytes) -> None:
        if key not in self._scope_of:
            self._scope_of[key] = scope
            self._num_blocks[scope] += 1

    def remove(self, key: BlockHash) -> None:
        scope = self._scope_of.pop(key, None)
        if scope is not None:
            self._num_blocks[scope] -= 1
            if not self._num_blocks[scope]:
                del self._num_blocks[scope]

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        return [key for key, one in self._scope_of.items() if one == scope]

    def is_pinned(self, key: BlockHash) -> bool:
        return key in self._pinned

    def is_protected(self, key: BlockHash) -> bool:
        """Whether the block stays as long as there are others."""
        if key in self._pinned:
            return True
        if len(self._num_blocks) < 2:
            return False
        scope = self._scope_of.get(key)
        return scope is not None and self._num_blocks[scope] < self.share

    @property
    def share(self) -> float:
        """Blocks that a scope may have while others want room."""
        return self._num_places * min(self._most_share, 1 / max(1, len(self._num_blocks)))

    def num_protected(self, keys: Iterable[BlockHash]) -> int:
        return sum(map(self.is_protected, keys))


NO_PINS: frozenset[BlockHash] = frozenset()
