"""KeyedHeap: the item of the lowest key, of items whose keys change."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

_Key = tuple[float, ...]


class KeyedHeap(Generic[T]):
    """Items and their keys. Of equal keys the one that was set first goes first.

    `set` and `discard` cost O(log n), amortised: entries that are out of date stay until they are
    met at the top, or outnumber the others.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[_Key, int, T]] = []
        self._current: dict[T, tuple[_Key, int]] = {}
        self._num_set = 0

    def __len__(self) -> int:
        return len(self._current)

    def __contains__(self, item: T) -> bool:
        return item in self._current

    def set(self, item: T, *key: float) -> None:
        """Put in an item, or change its key."""
        known = self._current.get(item)
        if known is not None and known[0] == key:
            return
        self._num_set += 1
        self._current[item] = key, self._num_set
        heapq.heappush(self._entries, (key, self._num_set, item))
        self._compact()

    def discard(self, item: T) -> None:
        """Take an item out, if it is there."""
        if self._current.pop(item, None) is not None:
            self._compact()

    def first(self) -> T | None:
        """The item of the lowest key; None if there are none."""
        entries = self._entries
        while entries:
            key, number, item = entries[0]
            if self._current.get(item) == (key, number):
                return item
            heapq.heappop(entries)
        return None

    def first_key(self) -> _Key | None:
        item = self.first()
        return None if item is None else self._current[item][0]

    def _compact(self) -> None:
        if len(self._entries) > 2 * len(self._current) + 16:
            self._entries = [(key, number, item) for item, (key, number) in self._current.items()]
            heapq.heapify(self._entries)
