"""A segment: one file of the disk tier, a table of names and as many places for records.

    0     header: mark with the version of this format, size of a record, number of places,
          identity of the records, check of the header
    4096  table: 32 bytes a place: key, and a check of key and place; zero where there is nothing
    ...   records, from a multiple of 4096 on

A record is written before its line in the table. So a process that dies at any moment leaves whole
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
from novacron.kv_tiers.tier import Bytes
from novacron.records.block import BlockHash

_MARK: Final = b"NCKVSEG1"
_HEADER_BYTES: Final = 48
_PAGE_BYTES: Final = 4096
_LINE_BYTES: Final = 32
_KEY_BYTES: Final = 16
_PIECES_PER_CALL: Final = 1024  # what Linux takes at least
_RECORDS_PER_CALL: Final = _PIECES_PER_CALL // 2
_NOTHING: Final = bytes(_LINE_BYTES)


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """What the header says. Files of other shapes in the same folder belong to other models."""

    record_bytes: int
    num_places: int
    identity: bytes  # 16 bytes

    @classmethod
    def within(cls, max_bytes: int, record_bytes: int, identity: bytes) -> Self:
        """As many places as fit; at least one, even if that takes more."""
        num_places = max(1, (max_bytes - 2 * _PAGE_BYTES) // (record_bytes + _LINE_BYTES))
        return cls(record_bytes, num_places, identity)

    @property
    def records_start(self) -> int:
        return _PAGE_BYTES + -(-self.num_places * _LINE_BYTES // _PAGE_BYTES) * _PAGE_BYTES

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


def write_records(
    fd: int,
    shape: SegmentShape,
    place: int,
    keys: Sequence[BlockHash],
    records: Sequence[Bytes],
) -> None:
    """Fill neighbouring places: the records first, then their lines."""
    start = shape.records_start + place * shape.record_bytes
    _write_all(fd, [record.data for record in records], start)
    lines = b"".join(_line(key, place + index) for index, key in enumerate(keys))
    _write_all(fd, [memoryview(lines)], _PAGE_BYTES + place * _LINE_BYTES)


def erase(fd: int, place: int, key: BlockHash) -> None:
    """Clear the line of a place if it is that of this key. The place stays taken."""
    where = _PAGE_BYTES + place * _LINE_BYTES
    if os.pread(fd, _LINE_BYTES, where) == _line(key, place):
        os.pwrite(fd, b"\xff" * _LINE_BYTES, where)


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


def read_table(fd: int, shape: SegmentShape) -> tuple[dict[BlockHash, int], int]:
    """Where each block lies, and the first place after all that was ever taken. Lines that do not
    check name nothing."""
    table = os.pread(fd, shape.num_places * _LINE_BYTES, _PAGE_BYTES)
    places: dict[BlockHash, int] = {}
    num_taken = 0
    for place in range(len(table) // _LINE_BYTES):
        line = table[place * _LINE_BYTES : (place + 1) * _LINE_BYTES]
        if line == _NOTHING:
            continue
        num_taken = place + 1
        key = BlockHash(line[:_KEY_BYTES])
        if line == _line(key, place):
            places[key] = place
    return places, num_taken


def _line(key: BlockHash, place: int) -> bytes:
    check = blake3.blake3(key + place.to_bytes(8, "little")).digest(_LINE_BYTES - _KEY_BYTES)
    return key + check


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
