"""RamTier: records in the host's memory.

No copy is made under the lock, so that a load does not wait for stores. A record that is not
finished is not there yet, and one whose slot was given to another while it was read is not there
any more. Which records leave, the policy decides; whoever wants them further sees them before their
slots are written to.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.eviction.choice import LRU, PolicyConfig, make_policy
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.tier import Bytes, Loan, Put, Record, Rows
from novacron.records.block import BlockHash

Leaving = Callable[[Block, Bytes], None]

_MOST_FREE: Final = 16  # slots that are made free ahead of need: a batch of stores
_FREE_SHARE: Final = 64  # or one slot in so many, in a small tier
_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier,
    LendsBlocks and KnowsScopes. Records that `protection` keeps do not leave to make room; it hears
    here of what comes and goes. `leaving` sees each record that leaves to make room. While
    `may_grow` is False no more memory is taken than was."""

    def __init__(
        self,
        capacity_bytes: int,
        record_bytes: int,
        copies: BlockCopies | None = None,
        *,
        policy: PolicyConfig = LRU,
        protection: Protection | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record_bytes = record_bytes
        self._copies = copies or PlainCopies()
        num_slots = capacity_bytes // record_bytes
        assert num_slots > 0, "a tier without room for one record"
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.may_grow = True
        self._pages = pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel built without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._unused = list(range(num_slots - 1, -1, -1))  # slots that take no memory
        self._free: list[int] = []
        self.leaving: Leaving | None = None
        self._most_free = min(_MOST_FREE, num_slots // _FREE_SHARE)
        self._slots: dict[BlockHash, int] = {}
        self._unfinished: set[BlockHash] = set()  # somebody copies to their slots
        self._protection = protection or Protection(NO_PINS, num_slots)
        self._policy = make_policy(policy, num_slots, self._stays)
        self._clock = clock
        self._num_regretted = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._slots) * self._record_bytes

    def put(self, records: Sequence[Record]) -> Put:
        with self._lock:
            victims = self._make_places(records)
            new = [record for record in records if record.key in self._slots]
            targets = [self._arena[self._slots[record.key]] for record in new]
            self._unfinished.update(record.key for record in new)
        self._show(victims)  # their slots are those of the new ones
        self._copies.copy([record.data for record in new], targets)
        with self._lock:
            dropped = [key for key, _ in victims]
            self._unfinished.difference_update(record.key for record in new)
            put = Put.of([record.key for record in records], dropped, self._slots)
            return replace(put, num_regretted=self._new_regrets())

    def make_free(self) -> list[BlockHash]:
        """Have some slots free for whoever comes next. Returns what left for that."""
        missing = self._most_free - len(self._free) - (len(self._unused) if self.may_grow else 0)
        return self._empty(missing, self._free) if missing > 0 else []

    def give_back(self, count: int) -> list[BlockHash]:
        """Have so many slots take no memory any more. Returns what left for that."""
        with self._lock:
            slots, self._free = self._free[:count], self._free[count:]
        gone = self._empty(count - len(slots), slots)
        for slot in slots:
            self._clear_pages(slot)
        with self._lock:
            self._unused += slots
        return gone

    def _empty(self, count: int, into: list[int]) -> list[BlockHash]:
        """Have records leave, and add their slots to a list."""
        with self._lock:
            victims = []
            for _ in range(count):
                key = self._policy.evict(self._clock())
                if key is None:
                    break
                victims.append((key, self._taken_from(key)))
        self._show(victims)
        with self._lock:
            into += [slot for _, slot in victims]
        return [key for key, _ in victims]

    def _show(self, victims: Sequence[tuple[BlockHash, int]]) -> None:
        if self.leaving is None:
            return
        for key, slot in victims:
            block = self._policy.recall(key)
            if block is not None and slot >= 0:
                self.leaving(block, self._arena[slot])

    def _clear_pages(self, slot: int) -> None:
        """Of those that hold nothing of another slot."""
        page = mmap.PAGESIZE
        start = -(-slot * self._record_bytes // page) * page
        end = (slot + 1) * self._record_bytes // page * page
        if end > start and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED, start, end - start)

    def _make_places(self, records: Sequence[Record]) -> list[tuple[BlockHash, int]]:
        """Slots for those that are worth it. Returns what leaves for them, and the slots where it
        still lies, or -1."""
        now_s = self._clock()
        expired = self._policy.expired(now_s)
        self._free += [self._taken_from(key) for key in expired]
        dropped = [(key, -1) for key in expired]
        coming = {record.key for record in records}
        refused: set[BlockHash] = set()
        for key, _, origin in records:
            if key in self._slots:
                continue
            if origin.parent in refused:  # of no use without it
                refused.add(key)
                continue
            self._policy.insert(key, origin, now_s)
            slot = self._free_slot()
            if slot is None:
                slot = self._slot_for(key, dropped, coming, now_s)
            if slot is None:
                refused.add(key)
            else:
                self._slots[key] = slot
                self._protection.add(key, origin.scope)
        return dropped

    def _stays(self, key: BlockHash) -> bool:
        return key in self._unfinished or self._protection.is_protected(key)

    def _free_slot(self) -> int | None:
        if self._free:
            return self._free.pop()
        return self._unused.pop() if self._unused and self.may_grow else None

    def _slot_for(
        self,
        key: BlockHash,
        dropped: list[tuple[BlockHash, int]],
        coming: Container[BlockHash],
        now_s: float,
    ) -> int | None:
        """That of a record which leaves. None: the new one is worth the least, or all others are
        protected."""
        victim = self._policy.evict(now_s)
        if victim is None:
            self._policy.remove(key)
        if victim is None or victim == key:
            return None
        slot = self._taken_from(victim)
        dropped.append((victim, -1 if victim in coming else slot))
        return slot

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

    def lend(self, keys: Sequence[BlockHash]) -> Loan:
        slots = self._slots_of(keys)
        return Loan(Rows(self._arena, np.array(slots)), lambda: self._unchanged(keys, slots))

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

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        with self._lock:
            return self._protection.keys_of(scope)

    def close(self) -> None:
        with self._lock:
            self._slots.clear()
            self._free.clear()
            self._unused.clear()
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
