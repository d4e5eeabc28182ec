"""Is a log whole? The first broken place of each lane, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from novacron.audit.chain import Line, Link, digest_of
from novacron.audit.files import (
    file_of,
    has_head,
    is_locked,
    lanes,
    numbers,
    read_head,
)
from novacron.audit.ranges import parse_ranges
from novacron.audit.record import AuditRecord, decode_record
from novacron.audit.scan import Scan, scan


@dataclass(frozen=True)
class Break:
    """Where a log is not what was written. `line` counts from 1; 0: the file as a whole."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


@dataclass
class Report:
    """What verify has found."""

    breaks: list[Break] = field(default_factory=list)
    heads: dict[int, Link] = field(default_factory=dict)  # by lane
    num_records: int = 0
    num_purged: int = 0
    num_lost: int = 0
    num_torn_bytes: int = 0  # closed off: what crashes have left

    @property
    def is_whole(self) -> bool:
        return not self.breaks


def verify(folder: Path, known_hashes: Iterable[str] = ()) -> Report:
    """`known_hashes` were heads once, and were kept elsewhere: each must still be in a chain.

    Works beside servers that write: what they have not finished writing is left out.
    """
    report = Report()
    missing = set(known_hashes)
    tombstones: list[tuple[str, int, int]] = []  # file, line, seq
    purged: dict[str, set[int]] = {}  # by file
    for lane in lanes(folder):
        walk = _Walk(folder, lane, report)
        for line_number, line in walk.lines():
            missing.discard(line.link.hash)
            if line.body is None:
                tombstones.append((walk.file.name, line_number, line.link.seq))
                report.num_purged += 1
                continue
            record = walk.record(line_number, line)
            if record is None:
                break
            report.num_records += 1
            report.num_lost += record.count if record.kind == "lost" else 0
            if record.kind == "purge":
                purged.setdefault(record.purged_file, set()).update(_purged_by(record))
    for file, line_number, seq in tombstones:
        if seq not in purged.get(file, ()):
            what = f"record {seq} was taken out, and no purge says so"
            report.breaks.append(Break(file, line_number, what))
            break
    for hash in sorted(missing):
        what = f"the head {hash} is in no chain: what was written up to it is gone or changed"
        report.breaks.append(Break(folder.name, 0, what))
    return report


class _Walk:
    """Through one lane, up to its end or its first break."""

    def __init__(self, folder: Path, lane: int, report: Report) -> None:
        self._folder = folder
        self._lane = lane
        self._report = report
        self._last = Link()
        self.file = folder / f"{lane}.head"
        self._is_broken = False
        self._torn = b""  # since the last line: what the next has to tell of

    def lines(self) -> Iterator[tuple[int, Line]]:
        head = read_head(self._folder, self._lane)  # before the files, which grow meanwhile
        is_written = is_locked(self._folder, self._lane)
        known = numbers(self._folder, self._lane)
        has_met_head = head == Link()
        for expected, number in enumerate(known, 1):
            self.file = file_of(self._folder, self._lane, number)
            if number != expected:
                self._break(0, f"file number {expected} of the lane is missing before it")
                return
            found = scan(self.file.read_bytes())
            for line_number, line in self._chained(found.lines):
                has_met_head = has_met_head or line.link == head
                yield line_number, line
                if self._is_broken:
                    return
            if self._is_broken:
                return
            is_last = number == known[-1]
            if found.tail and (found.tail_has_lines or is_last):
                if is_last and is_written and b"\n" not in found.tail:
                    break
                self._break(len(found.lines) + 1, _what_is_no_line(found))
                return
            self._torn = found.tail if found.lines else self._torn + found.tail
        if head is None:
            self.file = self._folder / f"{self._lane}.head"
            what = "is no head" if has_head(self._folder, self._lane) else "is missing"
            self._break(0, f"{what}: it says how far the chain goes")
        elif not has_met_head:
            self.file = self.file if known else self._folder / f"{self._lane}.head"
            self._break(
                0,
                f"the chain ends at record {self._last.seq}, but its head is record {head.seq} "
                f"({head.hash}): what came last is gone or changed",
            )
        else:
            self._report.heads[self._lane] = self._last

    def record(self, line_number: int, line: Line) -> AuditRecord | None:
        """None, and a break, if the line holds no record of ours or not the one due here."""
        assert line.body is not None
        try:
            record = decode_record(line.body)
        except ValueError as error:
            self._break(line_number, f"record {line.link.seq} is none: {error}")
            return None
        if (record.kind == "start") != (line_number == 1):
            self._break(line_number, "a file begins with a record of kind start, and only there")
            return None
        if record.kind == "start":
            told = (record.torn_bytes, record.torn_sha256)
            if told != (len(self._torn), digest_of(self._torn) if self._torn else ""):
                self._break(
                    line_number,
                    f"the file before ends in {len(self._torn)} bytes that are no record; "
                    f"{record.torn_bytes} others were there when this file was begun",
                )
                return None
            self._report.num_torn_bytes += record.torn_bytes
        return record

    def _chained(self, lines: Sequence[Line]) -> Iterator[tuple[int, Line]]:
        for line_number, line in enumerate(lines, 1):
            if line.link.seq != self._last.seq + 1 or line.prev != self._last.hash:
                self._break(line_number, self._what_is_wrong(line))
                return
            if line_number == 1 and line.body is None:
                self._break(1, "the start of the file was taken out")
                return
            self._last = line.link
            yield line_number, line

    def _what_is_wrong(self, line: Line) -> str:
        due, seq = self._last.seq + 1, line.link.seq
        if seq > due:
            return f"records {due} to {seq - 1} are missing before record {seq}"
        if seq < due:
            return f"record {seq} stands where {due} is due"
        return f"record {seq} does not follow the one before: either was changed"

    def _break(self, line_number: int, what: str) -> None:
        self._is_broken = True
        self._report.breaks.append(Break(self.file.name, line_number, what))


def _purged_by(record: AuditRecord) -> set[int]:
    """Empty for ranges that no purge of ours writes: what they should cover is then a break."""
    try:
        return parse_ranges(record.purged)
    except ValueError:
        return set()


def _what_is_no_line(found: Scan) -> str:
    if found.tail_has_lines:
        return "this is no record, or it was changed; whole ones follow"
    return (
        f"the file ends in {len(found.tail)} bytes that are no record: a crash has torn it, or it "
        "was changed. A server that opens the log closes a torn end off"
    )
