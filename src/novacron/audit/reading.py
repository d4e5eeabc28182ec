"""Records of a log, for people: oldest first for export, newest first by pages. Checks no chain."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from novacron.audit.chain import read_line
from novacron.audit.files import file_of, lanes, numbers
from novacron.audit.record import AuditRecord, decode_record

_MOST_LOOKED_AT: Final = 100_000  # lines for one page, so that no question takes for ever


class Entry(msgspec.Struct, frozen=True):
    """A record and its place."""

    lane: int
    seq: int
    record: AuditRecord


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which records. Times are Unix seconds, `until` without its own; empty: all."""

    since: float = 0.0
    until: float | None = None
    tenant: str = ""
    kind: str = ""

    def has(self, record: AuditRecord) -> bool:
        return (
            record.time >= self.since
            and (self.until is None or record.time < self.until)
            and (not self.tenant or self.tenant in (record.tenant, record.purged_tenant))
            and (not self.kind or record.kind == self.kind)
        )


class Page(msgspec.Struct, frozen=True):
    """Records, newest first. `next` fetches those before them; empty: there are none."""

    entries: tuple[Entry, ...]
    next: str


def oldest_first(folder: Path, wanted: Wanted) -> Iterator[Entry]:
    """Raises OSError."""
    parts = [_entries(folder, lane) for lane in lanes(folder)]
    merged = heapq.merge(*parts, key=lambda entry: entry.record.time)
    return (entry for entry in merged if wanted.has(entry.record))


def newest_first(folder: Path, wanted: Wanted, limit: int, cursor: str = "") -> Page:
    """`cursor` is `next` of the page before. Raises ValueError for another, and OSError."""
    before = _parse_cursor(cursor)
    parts = [_entries_backwards(folder, lane, before.get(lane)) for lane in lanes(folder)]
    merged = heapq.merge(*parts, key=lambda entry: -entry.record.time)
    found: list[Entry] = []
    for num_seen, entry in enumerate(merged):
        if len(found) == limit or num_seen == _MOST_LOOKED_AT or entry.record.time < wanted.since:
            is_over = entry.record.time < wanted.since
            return Page(tuple(found), "" if is_over else _cursor(before))
        before[entry.lane] = entry.seq
        if wanted.has(entry.record):
            found.append(entry)
    return Page(tuple(found), "")


def _entries(folder: Path, lane: int) -> Iterator[Entry]:
    for number in numbers(folder, lane):
        yield from _in_file(folder, lane, number)


def _entries_backwards(folder: Path, lane: int, before: int | None) -> Iterator[Entry]:
    for number in reversed(numbers(folder, lane)):
        for entry in reversed(list(_in_file(folder, lane, number))):
            if before is None or entry.seq < before:
                yield entry


def _in_file(folder: Path, lane: int, number: int) -> Iterator[Entry]:
    content = file_of(folder, lane, number).read_bytes()
    for text in content.splitlines(keepends=True):
        line = read_line(text)
        if line is None or line.body is None:
            continue
        try:
            yield Entry(lane, line.link.seq, decode_record(line.body))
        except ValueError:
            continue  # verify tells of it


def _cursor(before: dict[int, int]) -> str:
    return ",".join(f"{lane}:{seq}" for lane, seq in sorted(before.items()))


def _parse_cursor(text: str) -> dict[int, int]:
    pairs = (part.partition(":") for part in text.split(",") if part)
    return {int(lane): int(seq) for lane, _, seq in pairs}
