"""DiskTier: records in a folder of segments (segment.py), which outlives the process.

Processes share a folder: each writes to segments whose lock it has, and reads them all. While the
files leave room below the limit, new ones are made. Then files of others go that were used longer
ago than all of ours, and at last blocks of ours: the policy says which, and new ones take their
places; likewise on a disk that is full before. So the files never exceed the limit, and no block
goes because of its neighbours. Segments of other formats and of processes that died count towards
the limit and go like those of others. A crash frees its locks with the process, and the next one
fills the segment further.

Nothing is forced to the medium: a killed process loses at most the block it was writing, a power
cut what the system had not written back (Linux: about 30 s), and neither makes a wrong block.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from novacron.kv_tiers import segment, segment_table
from novacron.kv_tiers.disk_compaction import Compaction
from novacron.kv_tiers.disk_index import Changes, DiskIndex, Segment
from novacron.kv_tiers.disk_places import DiskPlaces
from novacron.kv_tiers.disk_residents import DiskResidents
from novacron.kv_tiers.disk_stores import DiskStores, Leaving
from novacron.kv_tiers.eviction.choice import LRU, PolicyConfig
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.residents import free_ahead
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.segment_files import folder_locked
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MOST_SEGMENT_BYTES: Final = 64 * 2**20
_FEWEST_SEGMENTS: Final = 8
_CAUGHT_UP_AT_ONCE: Final = 16


class DiskTier:
    """Segments in `folder`, together at most `capacity_bytes`. Implements KVTier and
    ReadsParts and KnowsScopes.

    Opening reads the tables of all segments with this identity: some 50 KB for each 64 MiB. Raises
    OSError if the folder cannot be made or written to. `now` is Unix time.
    """

    def __init__(
        self,
        folder: Path,
        capacity_bytes: int,
        record_bytes: int,
        identity: bytes,
        protection: Protection | None = None,
        *,
        policy: PolicyConfig = LRU,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity_bytes = capacity_bytes
        shape = SegmentShape.within(
            min(_MOST_SEGMENT_BYTES, capacity_bytes // _FEWEST_SEGMENTS), record_bytes, identity
        )
        num_places = max(1, capacity_bytes // record_bytes)
        self._now = now
        # Less than a file, or it would seem worth its while to make one go.
        self._free_ahead = min(free_ahead(num_places), shape.num_places // 2)
        self._num_missing = 0  # places that should be free and are not
        self._lock = threading.Lock()
        self._index = DiskIndex(folder, record_bytes, identity)
        self._residents = DiskResidents(
            self._index, protection or Protection(NO_PINS, num_places), policy, num_places
        )
        self._places = DiskPlaces(
            folder, self._index, shape, capacity_bytes, self._residents.see, clock
        )
        self._stores = DiskStores(self._index, self._residents, self._places)
        self._compaction = Compaction(self._index, self._places, self._residents.is_protected)
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock, folder_locked(folder):
            self._residents.see(Changes(found=self._index.read_new()))
            self._places.count_bytes()

    @property
    def capacity_bytes(self) -> int:
        return self._capacity_bytes

    @property
    def used_bytes(self) -> int:
        """Of all files of the folder, whosever they are, when this process last looked."""
        return self._places.used_bytes

    @property
    def may_grow(self) -> bool:
        """Whether new files may be made. Without them blocks give way to each other."""
        return self._places.may_grow

    @may_grow.setter
    def may_grow(self, may: bool) -> None:
        self._places.may_grow = may

    @property
    def has_room(self) -> bool:
        """Whether a new block needs no other's place, as far as is known."""
        places = self._places
        return places.may_grow and not places.is_full and not places.is_disk_full

    def __contains__(self, key: object) -> bool:
        return key in self._index

    @property
    def num_moved(self) -> int:
        """Blocks that were written once more so that a file could go."""
        return self._compaction.num_moved

    @property
    def keys(self) -> tuple[BlockHash, ...]:
        """All that was found or stored and not dropped since."""
        return self._index.keys

    @property
    def entries(self) -> list[Entry]:
        """All blocks, with how they were used."""
        with self._lock:
            return [
                entry for one in self._index.segments.values() for entry in one.entries.values()
            ]

    @property
    def leaving(self) -> Leaving | None:
        """Sees each block that leaves to make room, while it can still be read."""
        return self._stores.leaving

    @leaving.setter
    def leaving(self, leaving: Leaving) -> None:
        self._stores.leaving = leaving

    def put(self, records: Sequence[Record]) -> Put:
        with self._lock:
            now_s = self._now()
            new = list({one.key: one for one in records if one.key not in self._index}.values())
            self._erase(self._residents.expired(now_s))
            error: OSError | None = None
            try:
                if self._places.used_bytes > self._capacity_bytes:
                    self._shrink(now_s)
                self._stores.store(new, now_s)
                if self._compaction.is_worthwhile():
                    self._compact()
            except OSError as failed:
                error = failed
            self._end()
            dropped = self._residents.take_dropped()
            done = Put.of(dict.fromkeys(one.key for one in records), dropped, self._index)
            if error is not None and not done.stored:
                self._residents.tell_later(dropped)
                raise error
            return Put(done.stored, done.dropped, self._residents.take_regrets())

    def get(self, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        headers = np.empty((len(keys), HEADER_BYTES), np.uint8)
        found = self.get_parts(keys, headers, [record[HEADER_BYTES:] for record in into])
        for record, header in zip(into, headers, strict=True):
            record[:HEADER_BYTES] = header
        return found

    def get_parts(
        self, keys: Sequence[BlockHash], headers: Bytes, blocks: Sequence[Bytes]
    ) -> list[bool]:
        found = [False] * len(keys)
        # Without the lock, which is held for as long as records are written.
        wanted = [self._index.where(key) for key in keys]
        for one, place, rows in _runs(wanted):
            fd = one.open()
            if fd is None:
                continue
            try:
                num_read = segment.read_records(fd, one.shape, place, headers[rows], blocks[rows])
                still = segment_table.names(fd, place, keys[rows][:num_read])
            finally:
                os.close(fd)
            found[rows.start : rows.start + num_read] = still
        return found

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return self._residents.num_untold > 0 or self._num_missing > 0

    def catch_up(self) -> list[BlockHash]:
        """Have the policy hear of some of what came, and some places free for what comes next.
        Returns what left for that."""
        with self._lock:
            self._residents.tell(_CAUGHT_UP_AT_ONCE)
            if self._residents.num_untold:
                return []
            with contextlib.suppress(OSError):  # who stores next is told
                for _ in range(min(_CAUGHT_UP_AT_ONCE, self._num_missing)):
                    place = self._stores.freed_place(self._now())
                    if place is None:
                        break
                    self._places.give_back(place)
            was_missing = self._num_missing
            self._end()
            if self._num_missing == was_missing:  # nothing may leave now
                self._num_missing = 0
            return self._residents.take_dropped()

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        with self._lock:
            return self._residents.touch(keys, self._now())

    def delete(self, keys: Iterable[BlockHash]) -> None:
        with self._lock:
            wheres = [where for key in keys if (where := self._residents.remove(key)) is not None]
            self._erase(wheres)

    def keys_of(self, scope: bytes) -> list[BlockHash]:
        return [entry.key for entry in self.entries if entry.origin.scope == scope]

    def close(self) -> None:
        with self._lock:
            self._residents.write_uses()
            self._places.close()
            self._index.clear()

    def _end(self) -> None:
        """Others may write to our files again."""
        self._places.release()
        may_grow = self._places.may_grow and not self._places.is_full
        num_free = sum(len(one.free) for one in self._index.segments.values())
        self._num_missing = 0 if may_grow else max(0, self._free_ahead - num_free)

    def _erase(self, wheres: Sequence[tuple[Segment, Entry]]) -> None:
        """Clear these lines, and remove files of which nothing that we know of is left."""
        for one in {one.path: one for one, _ in wheres}.values():
            entries = [entry for other, entry in wheres if other is one]
            if not one.entries and self._places.remove_file(one):
                self._index.forget(one)
                continue
            fd = one.open(os.O_RDWR)
            if fd is None:
                continue
            try:
                for entry in entries:
                    segment_table.erase(fd, entry.place, entry.key)
            finally:
                os.close(fd)
            one.add_free(entry.place for entry in entries)

    def _shrink(self, now_s: float) -> None:
        """The limit is less than it was: files go until it holds, the best blocks stay."""
        self._places.drop_older_files()
        while self._places.used_bytes > self._capacity_bytes and self._index.segments:
            one = self._compaction.emptiest()
            if one is None:
                break
            room = sum(
                other.shape.num_places
                for other in self._index.segments.values()
                if other is not one
            )
            for _ in range(len(self._index) - room):
                victim = self._residents.evict(now_s, self._places.is_busy)
                if victim is None:
                    break
                if (place := self._places.claim(victim)) is not None:
                    self._places.give_back(place)
            if not self._compact():
                break

    def _compact(self) -> bool:
        """Whether a file has gone."""
        one = self._compaction.emptiest()
        gone = None if one is None else self._compaction.remove(one)
        if gone is None:
            return False
        self._residents.see(Changes(gone=gone))
        return True


def _runs(
    wanted: Sequence[tuple[Segment, Entry] | None],
) -> Iterator[tuple[Segment, int, slice]]:
    """Of wanted records, those that lie side by side in their order: where the first lies, and
    which rows they are."""
    row = 0
    while row < len(wanted):
        where, first = wanted[row], row
        row += 1
        if where is None:
            continue
        one, entry = where
        while (
            row < len(wanted)
            and (after := wanted[row]) is not None
            and (after[0], after[1].place) == (one, entry.place + row - first)
        ):
            row += 1
        yield one, entry.place, slice(first, row)
