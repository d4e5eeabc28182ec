"""RamTier: records in the host's memory.

No copy is made under the lock, so that a load does not wait for stores. A record that is not
finished is not there yet, and one whose slot was given to another while it was read is not there
any more. Who lies where and who leaves stands in ram_places.py; whoever wants records that leave
further sees them before their slots are written to.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np

from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.eviction.choice import LRU, PolicyConfig
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.ram_places import NOWHERE, Left, RamPlaces
from novacron.kv_tiers.tier import Bytes, Loan, NewBlock, Put, Record, Reservation, Rows
from novacron.records.block import BlockHash

Leaving = Callable[[Block, Bytes], None]

_CAUGHT_UP_AT_ONCE: Final = 16
_MAP_NORESERVE: Final = 0x4000  # Linux; in the module mmap from Python 3.13 on


class RamTier:
    """An arena of `capacity_bytes` at most, which takes memory as it fills. Implements KVTier,
    LendsBlocks, LendsPlaces and KnowsScopes. Records that `protection` keeps do not leave to make
    room; it hears here of what comes and goes. `leaving` sees each record that leaves to make room.
    While `may_grow` is False no more memory is taken than was."""

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
        self._pages = pages = mmap.mmap(-1, num_slots * record_bytes, flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel built without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        self._arena = np.frombuffer(pages, np.uint8).reshape(num_slots, record_bytes)
        self._places = RamPlaces(num_slots, policy, protection or Protection(NO_PINS, num_slots))
        self._unfinished: set[int] = set()  # slots that somebody copies to
        self.leaving: Leaving | None = None
        self._clock = clock
        self._num_regretted = 0
        self._lock = threading.Lock()

    @property
    def used_bytes(self) -> int:
        return len(self._places) * self._record_bytes

    @property
    def may_grow(self) -> bool:
        return self._places.may_grow

    @may_grow.setter
    def may_grow(self, may: bool) -> None:
        self._places.may_grow = may

    def put(self, records: Sequence[Record]) -> Put:
        reserved = self.reserve(records)
        new = [(n, slot) for n, slot in enumerate(reserved.places.numbers) if slot != NOWHERE]
        self._copies.copy([records[n].data for n, _ in new], [self._arena[slot] for _, slot in new])
        done = self.settle(reserved, [True] * len(records))
        self.release(reserved)
        return done

    def reserve(self, blocks: Sequence[NewBlock]) -> Reservation:
        with self._lock:
            slots, left = self._places.give(blocks, self._clock(), self._unfinished)
            ours = [slot for slot in slots if slot != NOWHERE]
            self._unfinished.update(ours)
            self._places.keep(ours)
        self._show(left)  # their slots are those of the new ones
        return Reservation(
            keys=tuple(block.key for block in blocks),
            places=Rows(self._arena, np.array(slots, np.int64)),
            dropped=tuple(one.key for one in left),
        )

    def settle(self, reservation: Reservation, is_written: Sequence[bool]) -> Put:
        slots = reservation.places.numbers.tolist()
        with self._lock:
            self._unfinished.difference_update(slots)
            if not all(is_written):
                still = self._places.slots_of(reservation.keys)  # it may have got another one
                self._places.remove(
                    key
                    for key, slot, now, is_whole in zip(
                        reservation.keys, slots, still, is_written, strict=True
                    )
                    if slot == now != NOWHERE and not is_whole
                )
            before, self._num_regretted = self._num_regretted, self._places.num_regretted
            put = Put.of(reservation.keys, reservation.dropped, self._places.keys)
            return Put(put.stored, put.dropped, self._num_regretted - before)

    def release(self, reservation: Reservation) -> None:
        with self._lock:
            self._places.release(reservation.places.numbers.tolist())

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return self._places.is_behind

    def catch_up(self) -> list[BlockHash]:
        """Have the policy hear of some of what came, and some slots free for what comes next.
        Returns what left for that."""
        with self._lock:
            left = self._places.catch_up(_CAUGHT_UP_AT_ONCE, self._clock())
        return self._free_slots_of(left)

    def give_back(self, count: int) -> list[BlockHash]:
        """Have so many slots take no memory any more. Returns what left for that."""
        with self._lock:
            slots = self._places.take_free(count)
            left = self._places.evict(count - len(slots), self._clock())
        self._show(left)
        slots += [one.slot for one in left]
        for slot in slots:
            self._clear_pages(slot)
        with self._lock:
            self._places.put_unused(slots)
        return [one.key for one in left]

    def _free_slots_of(self, left: Sequence[Left]) -> list[BlockHash]:
        self._show(left)
        with self._lock:
            self._places.put_back(one.slot for one in left)
        return [one.key for one in left]

    def _show(self, left: Sequence[Left]) -> None:
        if self.leaving is None:
            return
        for key, slot in left:
            block = self._places.recall(key)
            if block is not None and slot != NOWHERE:
                self.leaving(block, self._arena[slot])

    def _clear_pages(self, slot: int) -> None:
        """Of those that hold nothing of another slot."""
        page = mmap.PAGESIZE
        start = -(-slot * self._record_bytes // page) * page
        end = (slot + 1) * self._record_bytes // page * page
        if end > start and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED, start, end - start)

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        slots = self._slots_of(keys)
        pairs = [(slot, buffer) for slot, buffer in zip(slots, into, strict=True) if slot >= 0]
        self._copies.copy([self._arena[slot] for slot, _ in pairs], [buffer for _, buffer in pairs])
        return self._unchanged(keys, slots)

    def lend(self, keys: Sequence[BlockHash]) -> Loan:
        slots = self._slots_of(keys)
        return Loan(Rows(self._arena, np.array(slots)), lambda: self._unchanged(keys, slots))

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        with self._lock:
            return self._places.touch(keys, self._clock())

    def delete(self, keys: Iterable[BlockHash]) -> None:
        with self._lock:
            self._places.remove(keys)

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        with self._lock:
            return self._places.keys_of(scope)

    def close(self) -> None:
        with self._lock:
            self._places.clear()
            self._arena = self._arena[:0]

    def _slots_of(self, keys: Sequence[BlockHash]) -> list[int]:
        """NOWHERE: it is not there."""
        with self._lock:
            slots = self._places.slots_of(keys)
            if not self._unfinished.isdisjoint(slots):
                slots = [NOWHERE if slot in self._unfinished else slot for slot in slots]
            return slots

    def _unchanged(self, keys: Sequence[BlockHash], slots: Sequence[int]) -> list[bool]:
        """Which of the records are still where they were read."""
        return [
            slot >= 0 and slot == now for slot, now in zip(slots, self._slots_of(keys), strict=True)
        ]
