"""The table of a segment: which block lies in which place, what it builds upon, how it was used.

A line has 64 bytes, zero where there is nothing:

    0   key
    16  key of the block that it builds upon; zero: there is none
    32  scope: whose it is; zero: everyone's
    40  number of blocks before it in its chain, little-endian
    44  check of all of the above and of the place
    52  last use in Unix time, little-endian
    56  number of uses, little-endian
    58  zero

Uses are written over and are not checked: at worst a policy hears something wrong.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import blake3
import numpy as np

from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin

LINE_BYTES: Final = 64
TABLE_START: Final = 4096

_KEY = slice(0, 16)
_PARENT = slice(16, 32)
_SCOPE = slice(32, 40)
_DEPTH = slice(40, 44)
_NAMED = slice(0, 44)
_CHECK = slice(44, 52)
_LAST_USE = slice(52, 56)
_NUM_USES = slice(56, 58)
_PACK_NAMED: Final = struct.Struct("<16s16s8sI").pack  # longer ones are cut, shorter filled up
_PACK_USES: Final = struct.Struct("<IH").pack
_REST: Final = bytes(LINE_BYTES - _NUM_USES.stop)
_NOTHING: Final = bytes(LINE_BYTES)
_NO_KEY: Final = bytes(16)
_NO_SCOPE: Final = bytes(8)
_MOST_USES: Final = 2**16 - 1


@dataclass(eq=False, slots=True)
class Entry:
    """A line that names a block. `used_s` is Unix time; being stored counts as the first use of
    that time, but not as one of `num_uses`."""

    key: BlockHash
    place: int
    origin: BlockOrigin
    used_s: float
    num_uses: int = 0


def read_table(fd: int, num_places: int) -> dict[BlockHash, Entry]:
    """What lies in the places of an open segment. Lines that do not check name nothing."""
    table = os.pread(fd, num_places * LINE_BYTES, TABLE_START)
    table = table[: len(table) // LINE_BYTES * LINE_BYTES]
    lines = np.frombuffer(table, np.uint8).reshape(-1, LINE_BYTES)
    entries: dict[BlockHash, Entry] = {}
    for place in np.flatnonzero(lines[:, _CHECK].any(1)).tolist():
        line = table[place * LINE_BYTES : (place + 1) * LINE_BYTES]
        if line[_CHECK] == _check(line[_NAMED], place):
            entry = _entry(line, place)
            entries[entry.key] = entry
    return entries


def write_lines(fd: int, entries: Sequence[Entry]) -> None:
    """Name neighbouring places, in order."""
    _write(fd, entries[0].place, b"".join(map(_line, entries)))


def clear_lines(fd: int, place: int, count: int) -> None:
    """These places hold nothing from now on."""
    _write(fd, place, _NOTHING * count)


def erase(fd: int, place: int, key: BlockHash) -> None:
    """Clear the line of a place if it names this block."""
    if names(fd, place, [key])[0]:
        clear_lines(fd, place, 1)


def names(fd: int, place: int, keys: Sequence[BlockHash]) -> list[bool]:
    """Which of these blocks neighbouring places name. One that was named before a record was read
    and is after that was there all the time: a line is cleared before its place is written to."""
    lines = os.pread(fd, len(keys) * LINE_BYTES, _where(place))
    return [
        lines[row * LINE_BYTES :][_KEY] == key and any(lines[row * LINE_BYTES :][_CHECK])
        for row, key in enumerate(keys)
    ]


def write_uses(fd: int, entry: Entry) -> None:
    _write_all(fd, _uses(entry), _where(entry.place) + _LAST_USE.start)


def _entry(line: bytes, place: int) -> Entry:
    parent, scope = line[_PARENT], line[_SCOPE]
    return Entry(
        BlockHash(line[_KEY]),
        place,
        BlockOrigin(
            None if parent == _NO_KEY else BlockHash(parent),
            int.from_bytes(line[_DEPTH], "little"),
            scope=b"" if scope == _NO_SCOPE else scope,
        ),
        float(int.from_bytes(line[_LAST_USE], "little")),
        int.from_bytes(line[_NUM_USES], "little"),
    )


def _line(entry: Entry) -> bytes:
    origin = entry.origin
    depth = min(origin.depth, 2**32 - 1)
    named = _PACK_NAMED(entry.key, origin.parent or _NO_KEY, origin.scope, depth)
    return named + _check(named, entry.place) + _uses(entry) + _REST


def _uses(entry: Entry) -> bytes:
    last = min(max(0, int(entry.used_s)), 2**32 - 1)
    return _PACK_USES(last, min(entry.num_uses, _MOST_USES))


def _check(named: bytes, place: int) -> bytes:
    return blake3.blake3(named + place.to_bytes(8, "little")).digest(8)


def _where(place: int) -> int:
    return TABLE_START + place * LINE_BYTES


def _write(fd: int, place: int, lines: bytes) -> None:
    _write_all(fd, lines, _where(place))


def _write_all(fd: int, data: bytes, where: int) -> None:
    written = os.pwrite(fd, data, where)
    while written < len(data):
        written += os.pwrite(fd, data[written:], where + written)
