"""Demotion: blocks that leave a tier, on their way to a slower one that lacks them.

Nearly all blocks lie in both, since each is stored everywhere once it is full. One that does not
was dropped there since, or expired, or could not be stored, or was parked. It is copied aside when
it leaves, whoever needs its room, and stored by the thread that has the time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.tier import Bytes, Record

# Copies a record of a whole block to the second buffer; whether it is one.
Restore = Callable[[Block, Bytes, Bytes], bool]


class Demotion:
    """Keeps at most `most` records. `wants` tells whether a block shall go on to the slower tier:
    it lacks the block, and has room, or the block was used. From any thread."""

    def __init__(self, record_bytes: int, wants: Callable[[Block], bool], most: int = 32) -> None:
        self._record_bytes = record_bytes
        self._wants = wants
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[Record] = []
        self.num_lost = 0  # wanted, but too many waited

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, block: Block, data: Bytes, restore: Restore | None = None) -> None:
        """A block leaves; `data` is its record, and will be written to. With `restore` it is made
        of it what it was before it was encoded."""

        def copy(into: Bytes) -> bool:
            if restore is None:
                np.copyto(into, data)
                return True
            return restore(block, data, into)

        self.offer_read(block, copy)

    def offer_read(self, block: Block, read: Callable[[Bytes], bool]) -> None:
        """A block leaves; `read` fills a buffer with its record, if it can, before this returns."""
        if not self._wants(block):
            return
        with self._lock:
            if len(self._waiting) >= self._most:
                self.num_lost += 1
                return
        record = np.empty(self._record_bytes, np.uint8)
        if not read(record):
            return
        with self._lock:
            self._waiting.append(Record(block.key, record, block.origin))

    def take(self, most: int) -> list[Record]:
        """The oldest."""
        with self._lock:
            taken, self._waiting = self._waiting[:most], self._waiting[most:]
            return taken


def worth_demoting(
    *, is_there: Callable[[Block], bool], has_room: Callable[[], bool]
) -> Callable[[Block], bool]:
    """Blocks of a tier take the same bytes each, so what one is worth is whether it will be used.
    One that was never asked for is only stored where it takes no other's place."""
    return lambda block: not is_there(block) and (block.num_uses > 0 or has_room())
