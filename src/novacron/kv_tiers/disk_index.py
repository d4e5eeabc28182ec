"""DiskIndex: which blocks lie where in a folder of segments, as this process knows it.

It is read from the tables of the files when they are first seen, and when this process gets to
write to one. What others do to a file in between is found out by whoever reads a block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.segment_files import SUFFIX
from novacron.kv_tiers.segment_table import Entry, read_table
from novacron.records.block import BlockHash


@dataclass(eq=False, slots=True)
class Segment:
    """A file of blocks of ours. `free` are places that may be written to, the last one first, in
    descending order: so blocks that come together lie side by side, and are read at once. `used`
    are entries whose uses the file does not know yet."""

    path: Path
    shape: SegmentShape
    entries: dict[BlockHash, Entry] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    used: dict[BlockHash, Entry] = field(default_factory=dict)
    touched_s: float = 0.0
    version: int = -1  # of the file when it was last read

    def add_free(self, places: Iterable[int]) -> None:
        self.free += places
        self.free.sort(reverse=True)

    def open(self, mode: int = os.O_RDONLY) -> int | None:
        """None if it is gone: another process needed the room."""
        try:
            return os.open(self.path, mode | os.O_CLOEXEC)
        except FileNotFoundError:
            return None


@dataclass(slots=True)
class Changes:
    """What a look at a file showed: blocks that are new, and blocks that are gone."""

    found: list[Entry] = field(default_factory=list)
    gone: list[BlockHash] = field(default_factory=list)


class DiskIndex:
    """Of the segments in `folder` that have records of this size and identity."""

    def __init__(self, folder: Path, record_bytes: int, identity: bytes) -> None:
        self._folder = folder
        self._kind = (record_bytes, identity)
        self._where: dict[BlockHash, tuple[Segment, Entry]] = {}
        self.segments: dict[Path, Segment] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, key: object) -> bool:
        return key in self._where

    def where(self, key: BlockHash) -> tuple[Segment, Entry] | None:
        return self._where.get(key)

    @property
    def keys(self) -> tuple[BlockHash, ...]:
        return tuple(self._where)

    def files(self) -> Iterator[tuple[float, int, Path]]:
        """(last use, size, path) of whatever takes room in the folder, whosever it is."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith((SUFFIX, ".tmp")):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat()
                        yield stat.st_mtime, stat.st_size, Path(entry.path)

    def total_bytes(self) -> int:
        return sum(size for _, size, _ in self.files())

    def read_new(self) -> list[Entry]:
        """Take in segments that were not there before. Returns the blocks that nobody knew of."""
        found: list[Entry] = []
        for _, _, path in list(self.files()):
            if path in self.segments or path.suffix != SUFFIX:
                continue
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    shape = SegmentShape.read(fd)
                    if shape is None or not self._is_ours(shape, os.fstat(fd).st_size):
                        continue
                    one = self.segments[path] = Segment(path, shape)
                    found += self.read_again(one, fd).found
                finally:
                    os.close(fd)
        return found

    def read_again(self, one: Segment, fd: int) -> Changes:
        """Make what is known of a segment what its table says. Where a block lies twice, the place
        in the second file, by name, is free; so no two processes free one each."""
        changes = Changes()
        entries = read_table(fd, one.shape.num_places)
        for key, old in list(one.entries.items()):
            if key not in entries or entries[key].place != old.place:
                self.remove(key)
                if key not in entries:
                    changes.gone.append(key)
        for key, entry in entries.items():
            where = self._where.get(key)
            if where is None:
                self.add(one, entry)
                changes.found.append(entry)
            elif one.path < where[0].path:
                other, old = where
                self.remove(key)
                other.add_free([old.place])
                entry.used_s, entry.num_uses = old.used_s, old.num_uses
                self.add(one, entry)
        taken = {entry.place for entry in one.entries.values()}
        one.free = [place for place in reversed(range(one.shape.num_places)) if place not in taken]
        return changes

    def add(self, one: Segment, entry: Entry) -> None:
        one.entries[entry.key] = entry
        self._where[entry.key] = (one, entry)

    def remove(self, key: BlockHash) -> tuple[Segment, Entry] | None:
        """Where it was. Its place is not free by that: whoever may write to it says so."""
        where = self._where.pop(key, None)
        if where is not None:
            where[0].entries.pop(key, None)
            where[0].used.pop(key, None)
        return where

    def forget(self, one: Segment) -> list[BlockHash]:
        """A file is gone, and these blocks with it."""
        self.segments.pop(one.path, None)
        gone = list(one.entries)
        for key in gone:
            self.remove(key)
        one.free.clear()
        return gone

    def clear(self) -> None:
        self._where.clear()
        self.segments.clear()

    def _is_ours(self, shape: SegmentShape, file_bytes: int) -> bool:
        return (shape.record_bytes, shape.identity) == self._kind and file_bytes == shape.file_bytes
