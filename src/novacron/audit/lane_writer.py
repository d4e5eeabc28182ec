"""A writer of one lane: appends lines, closes files off, and goes on after whatever happened.

Nothing that stands in a file is ever changed. What a crash, a full disk or a failing one has torn
stays at the end of its file; the next file begins with a record that says how many bytes that are,
and their hash. If the head knows of more than the files have, the chain goes on behind the head, so
that the gap stays visible for ever.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from novacron.audit.chain import Link, digest_of, written
from novacron.audit.files import (
    file_of,
    has_head,
    keep_owner,
    lock_first_free,
    make_folder,
    numbers,
    read_head,
    sync_folder,
    write_head,
)
from novacron.audit.record import AuditRecord, encode_record
from novacron.audit.scan import scan


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """When a file is closed off and a new one begun."""

    max_bytes: int = 8 * 2**20
    max_age_s: float = 86_400.0


class LaneWriter:
    """Holds a lane until it is closed. Belongs to one thread. Raises OSError, from any method."""

    def __init__(
        self,
        folder: Path,
        rotation: Rotation | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        make_folder(folder)
        self._folder = folder
        self._rotation = rotation or Rotation()
        self._clock = clock
        self._lock = lock_first_free(folder)
        self._descriptor: int | None = None
        self._num_bytes = 0
        self._begun_s = 0.0
        self._first_seq: int | None = None  # of the last call of append
        self._num_there = 0
        self.last = Link()
        try:
            if not numbers(folder, self.lane) and not has_head(folder, self.lane):
                write_head(folder, self.lane, Link())
            self.reopen()
        except BaseException:
            self._lock.release()
            raise

    @property
    def lane(self) -> int:
        return self._lock.lane

    def append(self, records: Sequence[AuditRecord]) -> None:
        """Hand the records to the system. After an error, call `reopen`: it tells how many of them
        stand in the log."""
        self._first_seq, self._num_there = None, 0
        if self._is_full():
            self.sync()
            self._begin_file(b"")
        self._first_seq = self.last.seq + 1
        self._write(records)

    def sync(self) -> None:
        """All that was appended is on the disk, and the head says so."""
        assert self._descriptor is not None
        os.fsync(self._descriptor)
        write_head(self._folder, self.lane, self.last)

    def reopen(self) -> int:
        """After an error: go on in a new file, which closes the old one off. How many records of
        the last call of `append` stand in the log."""
        self._close_file()
        torn = self._find_place(numbers(self._folder, self.lane))
        if self._first_seq is not None:
            self._num_there = max(0, self.last.seq - self._first_seq + 1)
            self._first_seq = None  # should this fail too, it counts nothing of the next file
        self._begin_file(torn)
        return self._num_there

    def close(self) -> None:
        """What was appended and not synced is left to the system."""
        self._close_file()
        self._lock.release()

    def _is_full(self) -> bool:
        age_s = self._clock() - self._begun_s
        return self._num_bytes >= self._rotation.max_bytes or age_s >= self._rotation.max_age_s

    def _write(self, records: Sequence[AuditRecord]) -> None:
        assert self._descriptor is not None
        last, parts = self.last, []
        for record in records:
            line, last = written(last, encode_record(record))
            parts.append(line)
        data = memoryview(b"".join(parts))
        while data:
            num_written = os.write(self._descriptor, data)
            self._num_bytes += num_written
            data = data[num_written:]
        self.last = last

    def _begin_file(self, torn: bytes) -> None:
        self._close_file()
        known = numbers(self._folder, self.lane)
        path = file_of(self._folder, self.lane, (known[-1] if known else 0) + 1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(path, flags, 0o600)
        keep_owner(self._folder, self._descriptor)
        self._num_bytes, self._begun_s = 0, self._clock()
        self._write((self._start_record(torn),))
        sync_folder(self._folder)
        self.sync()

    def _find_place(self, known: Sequence[int]) -> bytes:
        """Where the chain goes on. What stands behind the last line, in however many files."""
        newest, torn = Link(), b""
        for number in reversed(known):  # a crash may have left files without a line
            found = scan(file_of(self._folder, self.lane, number).read_bytes())
            torn = found.tail + torn
            if found.lines:
                newest = found.lines[-1].link
                break
        head = read_head(self._folder, self.lane) or Link()
        self.last = head if head.seq > newest.seq else newest
        return torn

    def _start_record(self, torn: bytes) -> AuditRecord:
        return AuditRecord(
            time=round(self._clock(), 3),
            kind="start",
            torn_bytes=len(torn),
            torn_sha256=digest_of(torn) if torn else "",
        )

    def _close_file(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):  # it says nothing that fsync has not said
                os.close(self._descriptor)
            self._descriptor = None
