"""Compaction: the last blocks of a segment go to free places of others, and the file is removed.

A file that goes costs at most as many bytes of copies as it gives back: no more than half of its
places are moved. That bounds what is written beside new blocks to once their bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from novacron.kv_tiers.disk_index import DiskIndex, Segment
from novacron.kv_tiers.disk_places import DiskPlaces
from novacron.kv_tiers.segment import read_record
from novacron.kv_tiers.segment_table import Entry
from novacron.records.block import BlockHash


class Compaction:
    """`stays` tells which blocks must not be lost. `num_moved` are blocks."""

    def __init__(
        self, index: DiskIndex, places: DiskPlaces, stays: Callable[[BlockHash], bool]
    ) -> None:
        self._index = index
        self._places = places
        self._stays = stays
        self.num_moved = 0

    def emptiest(self) -> Segment | None:
        """The segment with the fewest blocks, of those that no process fills but we do not."""
        ours = (one for one in self._index.segments.values() if not self._places.is_busy(one))
        return min(ours, key=lambda one: len(one.entries), default=None)

    def is_worthwhile(self) -> bool:
        """Whether others may want the room of a file, and it could go without the loss of a
        block, to leave so many free places that it is not needed at once."""
        if not self._places.is_full:
            return False
        segments = self._index.segments.values()
        num_free = sum(len(one.free) for one in segments)
        if num_free < 2 * min((one.shape.num_places for one in segments), default=1):
            return False
        one = self.emptiest()
        if one is None or 2 * len(one.entries) > one.shape.num_places:
            return False
        return num_free - len(one.free) >= one.shape.num_places

    def remove(self, one: Segment) -> list[BlockHash] | None:
        """Remove a segment. Returns the blocks that were lost with it: those for which there was
        no place, or that would have been too many. None: another process fills it."""
        fd = self._places.open_locked(one)
        if fd is None:
            return None
        most = one.shape.num_places // 2
        wanted = sorted(one.entries.values(), key=self._rank)[:most]
        record = np.empty(one.shape.record_bytes, np.uint8)
        targets = (other for path, other in list(self._index.segments.items()) if path != one.path)
        target = next(targets, None)
        for entry in wanted:
            while target is not None and not self._has_room(target):
                target = next(targets, None)
            if target is None:
                break
            if read_record(fd, one.shape, entry.place, record):
                self._move(one, entry, target, record)
        if not self._places.remove_file(one):
            return None
        return self._index.forget(one)

    def _rank(self, entry: Entry) -> tuple[bool, float]:
        """What must stay first, then what was used last."""
        return not self._stays(entry.key), -entry.used_s

    def _has_room(self, target: Segment) -> bool:
        return (
            bool(target.free) and self._places.open_locked(target) is not None and bool(target.free)
        )

    def _move(
        self,
        one: Segment,
        entry: Entry,
        target: Segment,
        record: np.ndarray[tuple[int], np.dtype[np.uint8]],
    ) -> None:
        moved = Entry(entry.key, target.free.pop(), entry.origin, entry.used_s, entry.num_uses)
        self._index.remove(entry.key)
        try:
            self._places.write(target, [moved], [record])
        except OSError:
            self._index.add(one, entry)
            raise
        self.num_moved += 1
