"""LeafHeap: blocks by a number, the lowest first."""

from __future__ import annotations

import heapq
from typing import Final

from novacron.kv_tiers.eviction.policy import Block, MayGo

_LOOK_AGAIN_AFTER: Final = 256  # choices


class LeafHeap:
    """A block stands there with the rank it was last given; what it had before is passed over when
    its turn comes, and cleared away before it makes up more than half. So all costs O(log n).

    Protected blocks that stand before others are put aside, and looked at again after some
    choices: many of them do not make each choice slow.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Block]] = []
        self._serial_of: dict[bytes, int] = {}
        self._serial = 0
        self._aside: list[tuple[float, int, Block]] = []
        self._num_choices = 0

    def __len__(self) -> int:
        return len(self._serial_of)

    def put(self, block: Block, rank: float) -> None:
        """Of equal ranks, the one that was put first."""
        self._serial += 1
        self._serial_of[block.key] = self._serial
        heapq.heappush(self._heap, (rank, self._serial, block))
        if len(self._heap) > 2 * len(self._serial_of) + 64:
            self._heap = [entry for entry in self._heap if self._stands(entry)]
            heapq.heapify(self._heap)

    def discard(self, block: Block) -> None:
        self._serial_of.pop(block.key, None)

    def lowest(self, may_go: MayGo) -> Block | None:
        """Of those that may go. It stays where it is."""
        self._num_choices += 1
        if self._aside and self._num_choices % _LOOK_AGAIN_AFTER == 0:
            self._take_back()
        found = self._first(may_go)
        if found is None and self._aside:
            self._take_back()
            found = self._first(may_go)
        return found

    def first(self) -> tuple[float, Block] | None:
        """Rank and block of the lowest, protected or not."""
        while self._heap and not self._stands(self._heap[0]):
            heapq.heappop(self._heap)
        return (self._heap[0][0], self._heap[0][2]) if self._heap else None

    def _first(self, may_go: MayGo) -> Block | None:
        while (first := self.first()) is not None:
            if may_go(first[1].key):
                return first[1]
            self._aside.append(heapq.heappop(self._heap))
        return None

    def _take_back(self) -> None:
        for entry in self._aside:
            if self._stands(entry):
                heapq.heappush(self._heap, entry)
        self._aside.clear()

    def _stands(self, entry: tuple[float, int, Block]) -> bool:
        return self._serial_of.get(entry[2].key) == entry[1]
