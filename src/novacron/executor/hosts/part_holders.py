"""PartHolders: which ranks have their part of which blocks in one tier. Pure.

A tier of the hosts themselves says what it takes and what it drops, so that all of it is known at
any time. One that others fill and empty as well is asked: what it was seen to have is told each
time, and not remembered, because it may be gone by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from novacron.records.block import BlockHash

_FIRST: Final = 1  # bit of the first rank
_MOST_PARTS: Final = 2**16  # of a shared tier that wait for their others


class PartHolders(Protocol):
    """Of one tier."""

    def add(self, rank: int, keys: Iterable[BlockHash]) -> None: ...

    def remove(self, rank: int, keys: Iterable[BlockHash]) -> None: ...

    def forget(self, keys: Iterable[BlockHash]) -> None:
        """They were dropped, and whoever asks knows that."""
        ...

    def ask(self, keys: Iterable[BlockHash]) -> None:
        """All ranks are about to be asked for these: what was seen of them before says nothing."""
        ...

    def begin_anew(self) -> None:
        """All ranks but the first are others now, and have told nothing yet."""
        ...

    @property
    def torn(self) -> tuple[BlockHash, ...]:
        """Blocks of which some ranks have their part, and others have not."""
        ...

    def changes(self) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        """Blocks of which all ranks have their part now, and those of which one has not any more,
        since the last call."""
        ...


class OwnHolders:
    """Of a tier that only these hosts fill. Implements PartHolders."""

    def __init__(self, num_ranks: int) -> None:
        self._everybody = (1 << num_ranks) - 1
        self._holders: dict[BlockHash, int] = {}  # a bit for each rank that has its part
        self._touched: dict[BlockHash, bool] = {}  # since changes were asked for: was it whole then

    def add(self, rank: int, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._set(key, self._holders.get(key, 0) | 1 << rank)

    def remove(self, rank: int, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._set(key, self._holders.get(key, 0) & ~(1 << rank))

    def forget(self, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._holders.pop(key, None)
            self._touched.pop(key, None)

    def ask(self, keys: Iterable[BlockHash]) -> None:
        pass

    def begin_anew(self) -> None:
        for key, holders in list(self._holders.items()):
            self._set(key, holders & _FIRST)

    @property
    def torn(self) -> tuple[BlockHash, ...]:
        return tuple(key for key in self._holders if not self._is_whole(key))

    def changes(self) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        whole = {key: self._is_whole(key) for key in self._touched}
        changed = [key for key, was in self._touched.items() if whole[key] != was]
        self._touched.clear()
        added = tuple(key for key in changed if whole[key])
        return added, tuple(key for key in changed if not whole[key])

    def _is_whole(self, key: BlockHash) -> bool:
        return self._holders.get(key, 0) == self._everybody

    def _set(self, key: BlockHash, holders: int) -> None:
        self._touched.setdefault(key, self._is_whole(key))
        if holders:
            self._holders[key] = holders
        else:
            self._holders.pop(key, None)


class SeenHolders:
    """Of a tier that others fill and empty, too. Implements PartHolders.

    At most `most_parts` blocks are remembered of which some ranks have told, and others not yet:
    what is forgotten is asked for again.
    """

    def __init__(self, num_ranks: int, most_parts: int = _MOST_PARTS) -> None:
        self._everybody = (1 << num_ranks) - 1
        self._most_parts = most_parts
        self._holders: dict[BlockHash, int] = {}
        self._told: dict[BlockHash, bool] = {}  # whether all have it

    def add(self, rank: int, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            holders = self._holders.pop(key, 0) | 1 << rank
            if holders == self._everybody:
                self._told[key] = True
            else:
                self._holders[key] = holders
        while len(self._holders) > self._most_parts:
            del self._holders[next(iter(self._holders))]

    def remove(self, rank: int, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._told[key] = False
            holders = self._holders.pop(key, 0) & ~(1 << rank)
            if holders:
                self._holders[key] = holders

    def forget(self, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._holders.pop(key, None)
            self._told.pop(key, None)

    def ask(self, keys: Iterable[BlockHash]) -> None:
        for key in keys:
            self._holders.pop(key, None)

    def begin_anew(self) -> None:
        """What was told stays: parts lie where a rank's end does not reach."""
        self._holders = {key: _FIRST for key, ranks in self._holders.items() if ranks & _FIRST}

    @property
    def torn(self) -> tuple[BlockHash, ...]:
        return tuple(self._holders)

    def changes(self) -> tuple[tuple[BlockHash, ...], tuple[BlockHash, ...]]:
        told, self._told = self._told, {}
        added = tuple(key for key, is_whole in told.items() if is_whole)
        return added, tuple(key for key, is_whole in told.items() if not is_whole)
