"""A segment: one file of the disk tier, a table of names and as many places for records.

    0     header: mark with the version of this format, size of a record, number of places,
          identity of the records, check of the header
    48    how often a process has begun to write to the file
    4096  table: a line for each place (segment_table.py)
    ...   records, from a multiple of 4096 on

A place that holds nothing of worth is written again, since all records are of one size: its line is
cleared, the record written, then its new line. So a process that dies at any moment leaves whole
lines with whole records; after a power cut a line may name a record that the disk never got, which
its checksum shows. The size of a file is fixed when it is made, so that a folder of segments can be
bounded by counting files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import blake3

from novacron.kv_tiers.record import HEADER_BYTES
from novacron.kv_tiers.segment_table import (
    LINE_BYTES,
    TABLE_START,
    Entry,
    clear_lines,
    write_lines,
)
from novacron.kv_tiers.tier import Bytes

_MARK: Final = b"NCKVSEG2"
_HEADER_BYTES: Final = 48
_PAGE_BYTES: Final = TABLE_START
_PIECES_PER_CALL: Final = 1024  # what Linux takes at least
_RECORDS_PER_CALL: Final = _PIECES_PER_CALL // 2


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """What the header says. Files of other shapes in the same folder belong to other models."""

    record_bytes: int
    num_places: int
    identity: bytes  # 16 bytes

    @classmethod
    def within(cls, max_bytes: int, record_bytes: int, identity: bytes) -> Self:
        """As many places as fit; at least one, even if that takes more."""
        num_places = max(1, (max_bytes - 2 * _PAGE_BYTES) // (record_bytes + LINE_BYTES))
        return cls(record_bytes, num_places, identity)

    @property
    def records_start(self) -> int:
        return _PAGE_BYTES + -(-self.num_places * LINE_BYTES // _PAGE_BYTES) * _PAGE_BYTES

    @property
    def file_bytes(self) -> int:
        return self.records_start + self.num_places * self.record_bytes

    def header(self) -> bytes:
        head = (
            _MARK
            + self.record_bytes.to_bytes(8, "little")
            + self.num_places.to_bytes(8, "little")
            + self.identity
        )
        return head + blake3.blake3(head).digest(_HEADER_BYTES - len(head))

    @classmethod
    def read(cls, fd: int) -> Self | None:
        """That of an open file; None if it is not a segment of this format."""
        header = os.pread(fd, _HEADER_BYTES, 0)
        if len(header) < _HEADER_BYTES or header[:8] != _MARK:
            return None
        shape = cls(
            int.from_bytes(header[8:16], "little"),
            int.from_bytes(header[16:24], "little"),
            header[24:40],
        )
        return shape if shape.header() == header else None


def create(path: Path, shape: SegmentShape) -> int:
    """Make an empty segment under a name that says it is unfinished, give it its own, and return it
    open for reading and writing. Raises OSError; leaves nothing behind then."""
    unfinished = path.with_suffix(".tmp")
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, shape.header(), 0)
        os.truncate(fd, shape.file_bytes)
        unfinished.rename(path)
    except BaseException:
        os.close(fd)
        unfinished.unlink(missing_ok=True)
        raise
    return fd


def read_version(fd: int) -> int:
    """Goes up when another process has begun to write. To be read under the file's lock."""
    return int.from_bytes(os.pread(fd, 8, _HEADER_BYTES), "little")


def write_version(fd: int, version: int) -> None:
    os.pwrite(fd, version.to_bytes(8, "little"), _HEADER_BYTES)


def write_records(
    fd: int, shape: SegmentShape, entries: Sequence[Entry], records: Sequence[Bytes]
) -> None:
    """Fill neighbouring places, whatever they held: the records first, then their lines. Raises
    OSError; the places hold nothing then."""
    place = entries[0].place
    start = shape.records_start + place * shape.record_bytes
    clear_lines(fd, place, len(entries))
    _write_all(fd, [record.data for record in records], start)
    write_lines(fd, entries)


def read_records(
    fd: int, shape: SegmentShape, place: int, headers: Bytes, blocks: Sequence[Bytes]
) -> int:
    """Read records of neighbouring places, the begin of each to a row of `headers` and the rest to
    a block. Returns how many could be read. What they are worth, their reader finds out."""
    start = shape.records_start + place * shape.record_bytes
    num_read = 0
    for first in range(0, len(blocks), _RECORDS_PER_CALL):
        part = range(first, min(first + _RECORDS_PER_CALL, len(blocks)))
        pieces = [piece for row in part for piece in (headers[row].data, blocks[row].data)]
        read = os.preadv(fd, pieces, start + first * shape.record_bytes)
        num_read += read // shape.record_bytes
        if read < len(part) * shape.record_bytes:
            break
    return num_read


def read_record(fd: int, shape: SegmentShape, place: int, into: Bytes) -> bool:
    """Whether all of one record could be read."""
    head, block = into[:HEADER_BYTES], into[HEADER_BYTES:]
    return read_records(fd, shape, place, head.reshape(1, -1), [block]) == 1


def _write_all(fd: int, pieces: Sequence[memoryview], where: int) -> None:
    """A full disk may take a part."""
    for first in range(0, len(pieces), _PIECES_PER_CALL):
        part = pieces[first : first + _PIECES_PER_CALL]
        written = os.pwritev(fd, part, where)
        num_bytes = sum(len(piece) for piece in part)
        if written < num_bytes:
            left = memoryview(b"".join(part))[written:]
            where += written
            while len(left) > 0:
                written = os.pwrite(fd, left, where)
                left, where = left[written:], where + written
        else:
            where += written
