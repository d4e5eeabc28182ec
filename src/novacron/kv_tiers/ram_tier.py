"""RamTier: records in the host's memory. Which of them leave, its policy decides."""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from novacron.kv_tiers.eviction.choice import PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import EvictionPolicy
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier.

    Without a policy the record used longest ago leaves first.
    """

    def __init__(
        self,
        capacity_bytes: int,
        record_bytes: int,
        policy: EvictionPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record_bytes = record_bytes
        num_slots = capacity_bytes // record_bytes
        assert num_slots > 0, "a tier without room for one record"
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: dict[BlockHash, int] = {}
        if policy is None:
            policy = make_policy(PolicyConfig(name="lru"), num_slots)
        self._policy = policy
        self._clock = clock
        self._num_regretted = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._slots) * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        now_s = self._clock()
        refused: set[BlockHash] = set()
        with self._lock:
            dropped = self._policy.expired(now_s)
            self._free += [self._slots.pop(key) for key in dropped]
            for key, data, origin in records:
                if origin.parent in refused:  # of no use without it
                    refused.add(key)
                    continue
                if key not in self._slots:
                    self._policy.insert(key, origin, now_s)
                    slot = self._free.pop() if self._free else self._slot_for(key, dropped, now_s)
                    if slot is None:
                        refused.add(key)
                        continue
                    self._slots[key] = slot
                np.copyto(self._arena[self._slots[key]], data)
            put = Put.of([record.key for record in records], dropped, self._slots)
            return replace(put, num_regretted=self._new_regrets())

    def _slot_for(self, key: BlockHash, dropped: list[BlockHash], now_s: float) -> int | None:
        """That of a record which leaves. None: the new one is worth the least, or all others are
        protected."""
        victim = self._policy.evict(now_s)
        if victim is None:
            self._policy.remove(key)
        if victim is None or victim == key:
            return None
        dropped.append(victim)
        return self._slots.pop(victim)

    def _new_regrets(self) -> int:
        before, self._num_regretted = self._num_regretted, self._policy.counts.num_regretted
        return self._num_regretted - before

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
                    self._free.append(slot)

    def close(self) -> None:
        with self._lock:
            self._slots.clear()
            self._free.clear()
            self._arena = self._arena[:0]
