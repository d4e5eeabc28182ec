"""RamTier: records in the host's memory.

No copy is made under the lock, which the thread that stores might hold for long: it has to wait for
cores. A record that is not finished is not there yet, and one whose slot was given to another while
it was read is not there any more.
"""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier and
    ReadsParts."""

    def __init__(
        self, capacity_bytes: int, record_bytes: int, copies: BlockCopies | None = None
    ) -> None:
        self._record_bytes = record_bytes
        self._copies = copies or PlainCopies()
        num_slots = capacity_bytes // record_bytes
        assert num_slots > 0, "a tier without room for one record"
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: OrderedDict[BlockHash, int] = OrderedDict()  # used longest ago first
        self._unfinished: set[BlockHash] = set()
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._slots) * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        dropped = []
        targets = []
        with self._lock:
            for key, _, _ in records:
                slot = self._slots.pop(key, None)
                if slot is None and not self._free:
                    oldest, slot = self._slots.popitem(last=False)
                    dropped.append(oldest)
                elif slot is None:
                    slot = self._free.pop()
                targets.append(self._arena[slot])
                self._slots[key] = slot
            self._unfinished.update(record.key for record in records)
        self._copies.copy([record.data for record in records], targets)
        with self._lock:
            self._unfinished.clear()
            return Put.of([record.key for record in records], dropped, self._slots)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        slots = self._slots_of(keys)
        pairs = [(slot, buffer) for slot, buffer in zip(slots, into, strict=True) if slot >= 0]
        self._copies.copy([self._arena[slot] for slot, _ in pairs], [buffer for _, buffer in pairs])
        return self._unchanged(keys, slots)

    def get_parts(
        self, keys: Sequence[BlockHash], headers: Bytes, blocks: Sequence[Bytes]
    ) -> list[bool]:
        slots = self._slots_of(keys)
        rows = [row for row, slot in enumerate(slots) if slot >= 0]
        records = [self._arena[slots[row]] for row in rows]
        for row, record in zip(rows, records, strict=True):
            headers[row] = record[:HEADER_BYTES]
        self._copies.copy(
            [record[HEADER_BYTES:] for record in records], [blocks[row] for row in rows]
        )
        return self._unchanged(keys, slots)

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        found = []
        with self._lock:
            for key in keys:
                found.append(key in self._slots)
                if found[-1]:
                    self._slots.move_to_end(key)
        return found

    def delete(self, keys: Iterable[BlockHash]) -> None:
        with self._lock:
            for key in keys:
                slot = self._slots.pop(key, None)
                if slot is not None:
                    self._free.append(slot)

    def close(self) -> None:
        with self._lock:
            self._slots.clear()
            self._free.clear()
            self._arena = self._arena[:0]

    def _slots_of(self, keys: Sequence[BlockHash]) -> list[int]:
        """-1: it is not there."""
        with self._lock:
            return [-1 if key in self._unfinished else self._slots.get(key, -1) for key in keys]

    def _unchanged(self, keys: Sequence[BlockHash], slots: Sequence[int]) -> list[bool]:
        """Which of the records are still where they were read."""
        return [
            slot >= 0 and slot == now for slot, now in zip(slots, self._slots_of(keys), strict=True)
        ]
