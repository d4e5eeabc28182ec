"""RamTier: records in the host's memory."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier.

    Drops what was used longest ago and is not protected.
    """

    def __init__(
        self, capacity_bytes: int, record_bytes: int, protection: Protection | None = None
    ) -> None:
        self._record_bytes = record_bytes
        num_slots = capacity_bytes // record_bytes
        assert num_slots > 0, "a tier without room for one record"
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: OrderedDict[BlockHash, int] = OrderedDict()  # used longest ago first
        self._protection = protection or Protection(NO_PINS, num_slots)
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._slots) * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        dropped = []
        with self._lock:
            for key, data, origin in records:
                slot = self._slots.pop(key, None)
                if slot is None and not self._free:
                    oldest = self._oldest()
                    if oldest is None:
                        break
                    slot = self._slots.pop(oldest)
                    self._protection.remove(oldest)
                    dropped.append(oldest)
                elif slot is None:
                    slot = self._free.pop()
                np.copyto(self._arena[slot], data)
                self._slots[key] = slot
                self._protection.add(key, origin.scope)
            return Put.of([record.key for record in records], dropped, self._slots)

    def _oldest(self) -> BlockHash | None:
        """The one that leaves next; None if all are pinned. Protected ones that stand before it go
        to the end of the queue, so that they are looked at once in a round."""
        for _ in range(len(self._slots)):
            key = next(iter(self._slots))
            if not self._protection.is_protected(key):
                return key
            self._slots.move_to_end(key)
        return next((key for key in self._slots if not self._protection.is_pinned(key)), None)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        found = []
        with self._lock:
            for key, buffer in zip(keys, into, strict=True):
                slot = self._slots.get(key)
                if slot is not None:
                    np.copyto(buffer, self._arena[slot])
                found.append(slot is not None)
        return found

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
                    self._protection.remove(key)
                    self._free.append(slot)

    def close(self) -> None:
        with self._lock:
            self._slots.clear()
            self._free.clear()
            self._arena = self._arena[:0]
