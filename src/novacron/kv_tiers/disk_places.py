"""DiskPlaces: places of a folder that records may be written to, and the locks that this takes.

A process writes to a segment only while it holds the lock on that file. One it fills, and holds for
as long as that has free places; others for as long as a put takes, because a block of theirs gave
way. A new file is made under a lock on the folder, if all files together stay within the limit.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from novacron.kv_tiers import segment
from novacron.kv_tiers.disk_index import Changes, DiskIndex, Segment
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.segment_files import (
    SUFFIX,
    folder_locked,
    is_being_filled,
    remove_segment,
    try_lock,
)
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Bytes
from novacron.records.block import BlockHash

_LOOK_AGAIN_S: Final = 1.0
_TRY_ROOM_AGAIN_S: Final = 30.0
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


@dataclass(frozen=True, slots=True)
class Place:
    segment: Segment
    number: int


class DiskPlaces:
    """`tell` hears of blocks that were found, or are gone, when a file was looked at."""

    def __init__(
        self,
        folder: Path,
        index: DiskIndex,
        shape: SegmentShape,
        capacity_bytes: int,
        tell: Callable[[Changes], None],
        clock: Callable[[], float],
    ) -> None:
        self._folder = folder
        self._index = index
        self._shape = shape
        self._capacity_bytes = capacity_bytes
        self._tell = tell
        self._clock = clock
        self._home: Segment | None = None
        self._fds: dict[Path, int] = {}  # open and locked
        self._marked: set[Path] = set()  # of these, those that say that we have begun to write
        self._busy: dict[Path, tuple[float, bool]] = {}  # since when, and whether
        self._no_room_until_s = float("-inf")
        self._disk_full_until_s = float("-inf")
        self.used_bytes = 0
        self.may_grow = True

    def count_bytes(self) -> None:
        self.used_bytes = self._index.total_bytes()

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another file, as far as was seen."""
        return self.used_bytes + self._shape.file_bytes > self._capacity_bytes

    @property
    def is_disk_full(self) -> bool:
        """Whether a write was refused a moment ago. A file that has places is no promise of room:
        what was never written takes none of the disk."""
        return self._clock() < self._disk_full_until_s

    def see_disk_full(self, error: OSError) -> bool:
        """A write failed. Whether it may go better without new room, which is left alone then."""
        if error.errno not in _NO_ROOM or self.is_disk_full:
            return False
        self._disk_full_until_s = self._clock() + _TRY_ROOM_AGAIN_S
        return True

    def drop_older_files(self) -> None:
        """Have files that are not ours leave until the limit holds, as far as they were used longer
        ago than ours."""
        with folder_locked(self._folder):
            self._make_room(0)
            self.count_bytes()

    def free(self) -> Place | None:
        """A place that holds nothing, in a new file if need be; None: there is none, or the disk
        has no room for what would be written there. Raises OSError if a file cannot be made."""
        if self.is_disk_full and len(self._index):
            return None
        if self._home is not None and not self._home.free:
            self._leave_home()
        if self._home is None:
            self._home = self._adopt() or self._new_segment()
        return None if self._home is None else Place(self._home, self._home.free.pop())

    def claim(self, key: BlockHash) -> Place | None:
        """The place of a block that shall give way, which is not known any more then. None: it
        cannot be had, because its file is gone, or others have it."""
        where = self._index.where(key)
        if where is None or self.open_locked(where[0]) is None:
            self._index.remove(key)
            return None
        where = self._index.remove(key)
        return None if where is None else Place(where[0], where[1].place)

    def give_back(self, place: Place) -> None:
        place.segment.add_free([place.number])

    def is_busy(self, one: Segment) -> bool:
        """Whether another process fills this segment, or did a moment ago."""
        if one.path in self._fds:
            return False
        now_s = self._clock()
        seen_s, busy = self._busy.get(one.path, (float("-inf"), False))
        if now_s - seen_s > _LOOK_AGAIN_S:
            busy = is_being_filled(one.path)
            self._busy[one.path] = (now_s, busy)
        return busy

    def write(self, one: Segment, entries: Sequence[Entry], records: Sequence[Bytes]) -> None:
        """Fill neighbouring places of a segment that places were had of. Raises OSError."""
        fd = self.open_locked(one)
        if fd is None:
            raise FileNotFoundError(f"{one.path} is gone")
        if one.path not in self._marked:
            self._marked.add(one.path)
            one.version += 1
            segment.write_version(fd, one.version)
        segment.write_records(fd, one.shape, entries, records)
        for entry in entries:
            self._index.add(one, entry)

    def release(self) -> None:
        """Let go of all locks but that of the segment that is being filled."""
        home = None if self._home is None else self._home.path
        for path in [path for path in self._fds if path != home]:
            self._unlock(path)

    def _unlock(self, path: Path) -> None:
        self._marked.discard(path)
        fd = self._fds.pop(path, None)
        if fd is not None:
            os.close(fd)  # which unlocks it

    def remove_file(self, one: Segment) -> bool:
        """Whether the file is gone now. Its blocks are still known."""
        if one is self._home:
            self._leave_home()
        self._unlock(one.path)
        with folder_locked(self._folder):
            if not remove_segment(one.path):
                return False
            self.count_bytes()
        self._no_room_until_s = float("-inf")
        return True

    def open_locked(self, one: Segment) -> int | None:
        """To write to it until `release`. None: it is gone, or another process fills it. What
        others have written to it is known then."""
        fd = self._fds.get(one.path)
        if fd is not None:
            return fd
        fd = one.open(os.O_RDWR)
        if fd is None:
            self._tell(Changes(gone=self._index.forget(one)))
            return None
        if not try_lock(fd):
            os.close(fd)
            return None
        self._fds[one.path] = fd
        version = segment.read_version(fd)
        if version != one.version:
            self._tell(self._index.read_again(one, fd))
        one.version = version
        return fd

    def close(self) -> None:
        self._home = None
        self.release()

    def _leave_home(self) -> None:
        assert self._home is not None
        self._unlock(self._home.path)
        self._home = None

    def _adopt(self) -> Segment | None:
        """A segment that is not full and that no process fills."""
        for one in list(self._index.segments.values()):
            if one.free and self.open_locked(one) is not None and one.free:
                return one
        return None

    def _new_segment(self) -> Segment | None:
        if not self.may_grow or self._clock() < self._no_room_until_s:
            return None
        with folder_locked(self._folder):
            self._tell(Changes(found=self._index.read_new()))
            one = self._adopt()  # of what another process has left
            if one is None and self._make_room(self._shape.file_bytes):
                one = self._create()
            self.count_bytes()
        if one is None:
            self._no_room_until_s = self._clock() + _LOOK_AGAIN_S
        return one

    def _create(self) -> Segment:
        path = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
        fd = segment.create(path, self._shape)
        locked = try_lock(fd)
        assert locked, "nobody else knows a segment that was just made"
        one = self._index.segments[path] = Segment(path, self._shape)
        one.free = list(reversed(range(self._shape.num_places)))
        one.version = 0
        self._fds[path] = fd
        return one

    def _make_room(self, num_bytes: int) -> bool:
        """Whether so many bytes more are within the limit. Files that are not ours leave for it, as
        long as they were used longer ago than ours: of those, single blocks can give way."""
        files = sorted(self._index.files())
        excess = sum(size for _, size, _ in files) + num_bytes - self._capacity_bytes
        for _, size, path in files:
            if excess <= 0 or path in self._index.segments:
                break
            if remove_segment(path):
                excess -= size
        return excess <= 0
