"""PinnedBlocks: which blocks a rank's tiers must keep, as the scheduler last told.

Read by the threads that store, written by the one of the steps: the set is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable

from novacron.records.block import BlockHash


class PinnedBlocks:
    def __init__(self, keys: Iterable[BlockHash] = ()) -> None:
        self._keys = frozenset(keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def replace(self, keys: Iterable[BlockHash]) -> None:
        self._keys = frozenset(keys)
