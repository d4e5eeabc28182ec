"""RamTier: records in the host's memory. Which of them leave, its policy decides.

No copy is made under the lock, so that a load does not wait for stores. A record that is not
finished is not there yet, and one whose slot was given to another while it was read is not there
any more.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.eviction.choice import PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import EvictionPolicy
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier and
    ReadsParts. Without a policy the record used longest ago leaves first, if it is not protected. A
    policy that is given asks the same `protection`, which hears here of what comes and goes.
    """

    def __init__(
        self,
        capacity_bytes: int,
        record_bytes: int,
        policy: EvictionPolicy | None = None,
        copies: BlockCopies | None = None,
        clock: Callable[[], float] = time.monotonic,
        protection: Protection | None = None,
    ) -> None:
        self._record_bytes = record_bytes
        self._copies = copies or PlainCopies()
        num_slots = capacity_bytes // record_bytes
        assert num_slots > 0, "a tier without room for one record"
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: dict[BlockHash, int] = {}
        self._unfinished: set[BlockHash] = set()
        self._protection = protection or Protection(NO_PINS, num_slots)
        if policy is None:
            lru = PolicyConfig(name="lru")
            policy = make_policy(lru, num_slots, self._protection.is_protected)
        self._policy = policy
        self._clock = clock
        self._num_regretted = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._slots) * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        now_s = self._clock()
        taken: list[tuple[Record, Bytes]] = []
        refused: set[BlockHash] = set()
        with self._lock:
            dropped = self._policy.expired(now_s)
            self._free += [self._taken_from(key) for key in dropped]
            for record in records:
                slot = None
                if record.origin.parent not in refused:  # of no use without it
                    slot = self._slot_for(record, dropped, now_s)
                if slot is None:
                    refused.add(record.key)
                    continue
                self._slots[record.key] = slot
                self._protection.add(record.key, record.origin.scope)
                self._unfinished.add(record.key)
                taken.append((record, self._arena[slot]))
        self._copies.copy([record.data for record, _ in taken], [target for _, target in taken])
        with self._lock:
            self._unfinished.difference_update(record.key for record, _ in taken)
            put = Put.of([record.key for record in records], dropped, self._slots)
            return replace(put, num_regretted=self._new_regrets())

    def _slot_for(self, record: Record, dropped: list[BlockHash], now_s: float) -> int | None:
        """Its own, a free one, or that of a record which leaves. None: the new one is worth the
        least, or all others are protected."""
        slot = self._slots.get(record.key)
        if slot is not None:
            return slot
        self._policy.insert(record.key, record.origin, now_s)
        if self._free:
            return self._free.pop()
        victim = self._policy.evict(now_s)
        if victim is None:
            self._policy.remove(record.key)
        if victim is None or victim == record.key:
            return None
        dropped.append(victim)
        return self._taken_from(victim)

    def _taken_from(self, key: BlockHash) -> int:
        """The slot of a record that is gone."""
        self._protection.remove(key)
        return self._slots.pop(key)

    def _new_regrets(self) -> int:
        before, self._num_regretted = self._num_regretted, self._policy.counts.num_regretted
        return self._num_regretted - before

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
        now_s = self._clock()
        with self._lock:
            for key in keys:
                found.append(key in self._slots)
                self._policy.touch(key, now_s)
        return found

    def delete(self, keys: Iterable[BlockHash]) -> None:
        with self._lock:
            for key in keys:
                slot = self._slots.pop(key, None)
                if slot is not None:
                    self._policy.remove(key)
                    self._protection.remove(key)
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
