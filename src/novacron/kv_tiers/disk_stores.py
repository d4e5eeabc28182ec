"""DiskStores: new records on their way into a folder of segments, and the blocks that give way.

A record gets a free place, or that of a block which the policy chooses; neighbours are written at
once. What could not be written is not there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from novacron.kv_tiers.disk_index import DiskIndex
from novacron.kv_tiers.disk_places import DiskPlaces, Place
from novacron.kv_tiers.disk_residents import DiskResidents
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Record
from novacron.records.block import BlockHash

Leaving = Callable[[Block], None]


class DiskStores:
    """`leaving` sees each block that gives way, while it can still be read. Times are Unix time."""

    def __init__(self, index: DiskIndex, residents: DiskResidents, places: DiskPlaces) -> None:
        self._index = index
        self._residents = residents
        self._places = places
        self.leaving: Leaving | None = None

    def store(self, records: Sequence[Record], now_s: float) -> None:
        """Write those that are worth it; where the disk is full, in the places of blocks that lie
        there. Raises OSError; some may be stored then."""
        try:
            self._store(records, now_s)
        except OSError as error:
            if not (len(self._index) and self._places.see_disk_full(error)):
                raise
            self._store([one for one in records if one.key not in self._index], now_s)

    def _store(self, records: Sequence[Record], now_s: float) -> None:
        chosen: list[tuple[Place, Record]] = []
        refused: set[BlockHash] = set()
        try:
            for record in records:
                place = None
                if record.origin.parent not in refused:  # else it is of no use
                    place = self._place_for(record, now_s)
                if place is None:
                    refused.add(record.key)
                else:
                    chosen.append((place, record))
        finally:
            self._write(chosen, now_s)

    def _place_for(self, record: Record, now_s: float) -> Place | None:
        """None: the new one is worth the least, or all others are protected."""
        place = self._places.free()
        if place is not None:
            self._residents.come(record, now_s)
        else:
            self._residents.insert(record, now_s)
            try:
                if not len(self._index):
                    raise OSError(
                        errno.EDQUOT,
                        "there is no room for a file, and nothing of ours to take the place of",
                    )
                place = self.freed_place(now_s, record.key)
            except OSError:
                self._residents.remove(record.key)
                raise
            if place is None:
                self._residents.remove(record.key)
                return None
        self._residents.is_coming(record.key)
        return place

    def freed_place(self, now_s: float, new: BlockHash | None = None) -> Place | None:
        """That of a block which leaves. None: that is the new one, or all are protected."""
        while True:
            victim = self._residents.evict(now_s, self._places.is_busy)
            if victim is None or victim == new:
                return None
            if self.leaving is not None and (block := self._residents.recall(victim)):
                self.leaving(block)
            place = self._places.claim(victim)
            if place is not None:
                return place

    def _write(self, chosen: Sequence[tuple[Place, Record]], now_s: float) -> None:
        """Those that could not be written are not there, and their places are free."""
        left = sorted(chosen, key=lambda one: (str(one[0].segment.path), one[0].number))
        try:
            while left:
                count = _count_neighbours([place for place, _ in left])
                self._places.write(
                    left[0][0].segment,
                    [Entry(r.key, place.number, r.origin, now_s) for place, r in left[:count]],
                    [record.data for _, record in left[:count]],
                )
                del left[:count]
        finally:
            for place, record in left:
                self._places.give_back(place)
                self._residents.remove(record.key)
            self._residents.have_come()


def _count_neighbours(places: Sequence[Place]) -> int:
    """How many of the first lie side by side."""
    first = places[0]
    for count, place in enumerate(places):
        if place.segment is not first.segment or place.number != first.number + count:
            return count
    return len(places)
