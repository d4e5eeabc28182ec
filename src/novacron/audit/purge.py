"""Records of a tenant taken out of a log whose chain stays whole.

First the log says what will be taken out, then files are replaced, each in one step, by ones with
tombstones: a purge that is cut off goes on when it is called again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from novacron.audit.chain import Line, text_of
from novacron.audit.files import LaneLock, file_of, keep_owner, lanes, numbers, sync_folder
from novacron.audit.lane_writer import LaneWriter
from novacron.audit.ranges import text_of_ranges
from novacron.audit.record import KEPT, AuditRecord, decode_record
from novacron.audit.scan import scan


@dataclass(frozen=True)
class Purged:
    """`num_left` are in files that servers write at the moment."""

    num_purged: int
    num_left: int


def purge(folder: Path, tenant: str, before_s: float) -> Purged:
    """Take out the tenant's records from before that time (Unix seconds). Raises OSError."""
    num_purged = num_left = 0
    writer: LaneWriter | None = None
    try:
        for lane in lanes(folder):
            with _file_numbers(folder, lane) as (free, taken):
                for number in free:
                    path = file_of(folder, lane, number)
                    chosen = _chosen(path.read_bytes(), tenant, before_s)
                    if chosen:
                        writer = writer or LaneWriter(folder)  # on another lane: this one is held
                        _announce(writer, path, tenant, before_s, chosen)
                        _replace(path, chosen)
                    num_purged += len(chosen)
                for number in taken:
                    content = file_of(folder, lane, number).read_bytes()
                    num_left += len(_chosen(content, tenant, before_s))
    finally:
        if writer is not None:
            writer.close()
    return Purged(num_purged, num_left)


@contextmanager
def _file_numbers(folder: Path, lane: int) -> Iterator[tuple[list[int], list[int]]]:
    """The lane's files that nobody writes for the time of the block, and the others."""
    try:
        lock = LaneLock(folder, lane)
    except BlockingIOError:
        known = numbers(folder, lane)
        yield known[:-1], known[-1:]
        return
    try:
        yield numbers(folder, lane), []
    finally:
        lock.release()


def _chosen(content: bytes, tenant: str, before_s: float) -> set[int]:
    """Sequence numbers."""
    return {line.link.seq for line in scan(content).lines if _is_meant(line, tenant, before_s)}


def _is_meant(line: Line, tenant: str, before_s: float) -> bool:
    if line.body is None:
        return False
    try:
        record = decode_record(line.body)
    except ValueError:
        return False  # verify tells of it
    return record.kind not in KEPT and record.tenant == tenant and record.time < before_s


def _announce(
    writer: LaneWriter, path: Path, tenant: str, before_s: float, chosen: set[int]
) -> None:
    record = AuditRecord(
        time=round(time.time(), 3),
        kind="purge",
        purged_tenant=tenant,
        purged_before=before_s,
        purged_file=path.name,
        purged=text_of_ranges(chosen),
    )
    writer.append((record,))
    writer.sync()


def _replace(path: Path, chosen: set[int]) -> None:
    found = scan(path.read_bytes())
    parts = [
        text_of(replace(line, body=None) if line.link.seq in chosen else line)
        for line in found.lines
    ]
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        keep_owner(path.parent, file.fileno())
        file.write(b"".join(parts) + found.tail)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
