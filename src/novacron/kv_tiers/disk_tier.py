"""DiskTier: records in a folder of segments (segment.py), which outlives the process.

Processes share a folder: each writes to a segment of its own, under a lock on that file, and reads
them all. A new segment is made under a lock on the folder, after as many of those used longest ago
have gone as its whole size takes; so the files never exceed the limit. What is protected in a
segment that goes is written again into the new one. Segments of other models,
of other formats and of processes that died count towards it and go like the rest. A crash frees its
locks with the process, and the next one fills the segment further.

Nothing is forced to the medium: a killed process loses at most the block it was writing, a power
cut what the system had not written back (Linux: about 30 s), and neither makes a wrong block.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from novacron.kv_tiers import segment
from novacron.kv_tiers.protection import NO_PINS, Protection
from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.segment_files import SUFFIX, folder_locked, remove_segment, try_lock
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.records.block import BlockHash

_MOST_SEGMENT_BYTES: Final = 64 * 2**20
_FEWEST_SEGMENTS: Final = 8  # a tier gives up one at a time
_TOUCH_EVERY_S: Final = 10.0


@dataclass(eq=False, slots=True)
class _Segment:
    """A file that held blocks of ours when it was last read."""

    path: Path
    shape: SegmentShape
    places: dict[BlockHash, int]
    touched_s: float = 0.0


@dataclass(slots=True)
class _Writing:
    """The segment that this process fills, open and locked."""

    segment: _Segment
    fd: int
    num_taken: int

    @property
    def is_full(self) -> bool:
        return self.num_taken == self.segment.shape.num_places


class DiskTier:
    """Segments in `folder`, together at most `capacity_bytes`. Implements KVTier and
    ReadsParts.

    Opening reads the tables of all segments with this identity: some 50 KB for each 64 MiB. Raises
    OSError if the folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        capacity_bytes: int,
        record_bytes: int,
        identity: bytes,
        protection: Protection | None = None,
    ) -> None:
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._shape = SegmentShape.within(
            min(_MOST_SEGMENT_BYTES, capacity_bytes // _FEWEST_SEGMENTS), record_bytes, identity
        )
        num_places = capacity_bytes // record_bytes
        self._protection = protection or Protection(NO_PINS, num_places)
        self._lock = threading.Lock()
        self._place_of: dict[BlockHash, tuple[_Segment, int]] = {}
        self._segments: dict[Path, _Segment] = {}
        self._writing: _Writing | None = None
        folder.mkdir(parents=True, exist_ok=True)
        with self._lock, folder_locked(self._folder):
            self._read_new_segments()
            self._used_bytes = self._total_bytes()

    @property
    def capacity_bytes(self) -> int:
        return self._capacity_bytes

    @property
    def used_bytes(self) -> int:
        """Of all files of the folder, whosever they are, when this process last looked."""
        return self._used_bytes

    @property
    def keys(self) -> tuple[BlockHash, ...]:
        """All that was found or stored and not dropped since."""
        return tuple(self._place_of)

    def put(self, records: Sequence[Record]) -> Put:
        stored: list[BlockHash] = []
        dropped: list[BlockHash] = []
        with self._lock:
            new = list({one.key: one for one in records if one.key not in self._place_of}.values())
            stored += [one.key for one in records if one.key in self._place_of]
            while new:
                try:
                    count = self._append(self._writable(dropped), new)
                except OSError:
                    if not (stored or dropped):
                        raise
                    break
                for one in new[:count]:
                    self._protection.add(one.key, one.origin.scope)
                stored += [one.key for one in new[:count]]
                del new[:count]
            done = Put.of(stored, dropped, self._place_of)
            for key in done.dropped:
                self._protection.remove(key)
        return done

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
        wanted = [self._place_of.get(key) for key in keys]
        for one, place, rows in _runs(wanted):
            fd = self._open(one)
            if fd is None:
                continue
            try:
                num_read = segment.read_records(fd, one.shape, place, headers[rows], blocks[rows])
            finally:
                os.close(fd)
            found[rows.start : rows.start + num_read] = [True] * num_read
        return found

    def contains(self, keys: Iterable[BlockHash]) -> list[bool]:
        now_s = time.time()
        with self._lock:
            wheres = [self._place_of.get(key) for key in keys]
            for where in wheres:
                if where is not None and now_s - where[0].touched_s > _TOUCH_EVERY_S:
                    where[0].touched_s = now_s
                    with contextlib.suppress(OSError):  # gone: reading will tell
                        os.utime(where[0].path)
        return [where is not None for where in wheres]

    def delete(self, keys: Iterable[BlockHash]) -> None:
        with self._lock:
            lost: dict[Path, tuple[_Segment, list[tuple[int, BlockHash]]]] = {}
            for key in keys:
                where = self._place_of.pop(key, None)
                if where is not None:
                    one, place = where
                    one.places.pop(key, None)
                    self._protection.remove(key)
                    lost.setdefault(one.path, (one, []))[1].append((place, key))
            for one, lines in lost.values():
                self._erase(one, lines)

    def close(self) -> None:
        with self._lock:
            self._end_writing()
            self._place_of.clear()
            self._segments.clear()

    def _erase(self, one: _Segment, lines: Iterable[tuple[int, BlockHash]]) -> None:
        """Clear these lines, or remove the file if nothing that we know of is left in it."""
        with contextlib.suppress(OSError):  # gone already
            if not one.places and self._remove_emptied(one):
                return
            fd = os.open(one.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                for place, key in lines:
                    segment.erase(fd, place, key)
            finally:
                os.close(fd)

    def _remove_emptied(self, one: _Segment) -> bool:
        if self._writing is not None and self._writing.segment is one:
            self._end_writing()
        with folder_locked(self._folder):
            if not remove_segment(one.path):  # another process fills it
                return False
            self._segments.pop(one.path, None)
            self._used_bytes = self._total_bytes()
        return True

    # Writing

    def _append(self, writing: _Writing, records: Sequence[Record]) -> int:
        """Write the first of these, as many as there are places for, and tell how many."""
        one, place = writing.segment, writing.num_taken
        records = records[: one.shape.num_places - place]
        writing.num_taken += len(records)  # also if it fails: half a record may lie there
        keys = [record.key for record in records]
        segment.write_records(
            writing.fd, one.shape, place, keys, [record.data for record in records]
        )
        for index, key in enumerate(keys):
            one.places[key] = place + index
            self._place_of[key] = (one, place + index)
        return len(records)

    def _writable(self, dropped: list[BlockHash]) -> _Writing:
        """A segment with a place for a record. Blocks that had to go for it are added to `dropped`.
        Raises OSError if there can be none."""
        if self._writing is None or self._writing.is_full:
            self._end_writing()
            with folder_locked(self._folder):
                self._read_new_segments()
                self._writing = self._adopt() or self._new_segment(dropped)
                self._used_bytes = self._total_bytes()
        return self._writing

    def _new_segment(self, dropped: list[BlockHash]) -> _Writing:
        rescued: list[Record] = []
        dropped += self._make_room(self._shape.file_bytes, rescued)
        if self._total_bytes() + self._shape.file_bytes > self._capacity_bytes:
            raise OSError(errno.EDQUOT, "other processes fill all that the tier may take")
        path = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
        fd = segment.create(path, self._shape)
        locked = try_lock(fd)
        assert locked, "nobody else knows a segment that was just made"
        one = self._segments[path] = _Segment(path, self._shape, {})
        writing = _Writing(one, fd, 0)
        if rescued:
            self._append(writing, rescued)
        return writing

    def _adopt(self) -> _Writing | None:
        """A segment of ours that is not full and that no process fills."""
        for one in self._segments.values():
            if one.shape != self._shape or len(one.places) == self._shape.num_places:
                continue
            fd = self._open(one, os.O_RDWR)
            if fd is None:
                continue
            if try_lock(fd):
                places, num_taken = segment.read_table(fd, one.shape)
                self._take_in(one, places)
                if num_taken < one.shape.num_places:
                    return _Writing(one, fd, num_taken)
            os.close(fd)
        return None

    def _end_writing(self) -> None:
        if self._writing is not None:
            os.close(self._writing.fd)  # which unlocks it
            self._writing = None

    def _make_room(self, num_bytes: int, rescued: list[Record]) -> list[BlockHash]:
        """Remove files, those used longest ago first, until so many bytes more are within the
        limit. Those that a process fills stay, and those of which more than half is protected go
        last. What is protected in the others is added to `rescued`, up to half a segment."""
        dropped: list[BlockHash] = []
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) + num_bytes - self._capacity_bytes
        for _, size, path in sorted(files, key=lambda file: self._is_mostly_protected(file[2])):
            if excess <= 0:
                break
            kept = self._read_protected(path, self._shape.num_places // 2 - len(rescued))
            if remove_segment(path):
                excess -= size
                dropped += self._forget(path)
                rescued += kept
        return dropped

    def _is_mostly_protected(self, path: Path) -> bool:
        one = self._segments.get(path)
        if one is None or not one.places:
            return False
        return 2 * self._protection.num_protected(one.places) > len(one.places)

    def _read_protected(self, path: Path, most: int) -> list[Record]:
        """The protected records of a segment of ours, the pinned ones first."""
        one = self._segments.get(path)
        if one is None:
            return []
        wanted = [key for key in one.places if self._protection.is_protected(key)]
        wanted.sort(key=lambda key: not self._protection.is_pinned(key))
        kept: list[Record] = []
        fd = self._open(one) if wanted else None
        if fd is None:
            return []
        try:
            for key in wanted[: max(0, most)]:
                record = np.empty(one.shape.record_bytes, np.uint8)
                if segment.read_record(fd, one.shape, one.places[key], record):
                    kept.append(Record(key, record))
        finally:
            os.close(fd)
        return kept

    # What is there

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, size, path) of whatever takes room in the folder."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith((SUFFIX, ".tmp")):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat()
                        yield stat.st_mtime, stat.st_size, Path(entry.path)

    def _total_bytes(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _read_new_segments(self) -> None:
        """Take in the segments of our shape that were not there before."""
        for _, _, path in list(self._files()):
            if path in self._segments or path.suffix != SUFFIX:
                continue
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    shape = SegmentShape.read(fd)
                    if shape is None or not self._is_ours(shape, os.fstat(fd).st_size):
                        continue
                    one = self._segments[path] = _Segment(path, shape, {})
                    self._take_in(one, segment.read_table(fd, shape)[0])
                finally:
                    os.close(fd)

    def _is_ours(self, shape: SegmentShape, file_bytes: int) -> bool:
        same = (shape.record_bytes, shape.identity) == (
            self._shape.record_bytes,
            self._shape.identity,
        )
        return same and file_bytes == shape.file_bytes

    def _take_in(self, one: _Segment, places: dict[BlockHash, int]) -> None:
        for key, place in places.items():
            one.places[key] = place
            self._place_of.setdefault(key, (one, place))
            self._protection.add(key, b"")  # whose it is, the file does not tell

    def _open(self, one: _Segment, mode: int = os.O_RDONLY) -> int | None:
        """None if it is gone: another process needed the room."""
        try:
            return os.open(one.path, mode | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def _forget(self, path: Path) -> list[BlockHash]:
        one = self._segments.pop(path, None)
        if one is None:
            return []
        mine = [key for key in one.places if self._place_of.get(key, (None,))[0] is one]
        for key in mine:
            del self._place_of[key]
        return mine


def _runs(
    wanted: Sequence[tuple[_Segment, int] | None],
) -> Iterator[tuple[_Segment, int, slice]]:
    """Of wanted records, those that lie side by side in their order: where the first lies, and
    which rows they are."""
    row = 0
    while row < len(wanted):
        where, first = wanted[row], row
        row += 1
        if where is None:
            continue
        one, place = where
        while row < len(wanted) and wanted[row] == (one, place + row - first):
            row += 1
        yield one, place, slice(first, row)
