from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.audit.conftest import record, write

from novacron.audit.lane_writer import LaneWriter
from novacron.audit.log import AuditLog, LogPolicy
from novacron.audit.reading import Wanted, newest_first, oldest_first
from novacron.audit.record import AuditRecord
from novacron.audit.verification import verify
from novacron.errors import AuditUnavailable

QUICK = LogPolicy(gather_s=0.001, retry_s=0.001, most_waiting=5)


class FullDisk:
    """A lane that fails until there is room."""

    def __init__(self) -> None:
        self.has_room = threading.Event()
        self.records: list[AuditRecord] = []

    def append(self, records: Sequence[AuditRecord]) -> None:
        self._fail_without_room()
        self.records += records

    def sync(self) -> None:
        self._fail_without_room()

    def reopen(self) -> int:
        self._fail_without_room()
        return 0

    def close(self) -> None: ...

    def _fail_without_room(self) -> None:
        if not self.has_room.is_set():
            raise OSError(28, "No space left on device")


async def test_what_was_waited_for_is_there_and_the_rest_once_it_is_closed(folder: Path) -> None:
    log = AuditLog(LaneWriter(folder))
    log.start()
    log.note(record(1))
    await log.write(record(2))
    assert len(list(oldest_first(folder, Wanted(tenant="acme")))) == 2
    for number in range(3, 2500):
        log.note(record(number))
    await log.close(5)
    found = [e.record.request_id for e in oldest_first(folder, Wanted(tenant="acme"))]
    assert found == [f"r{n}" for n in range(1, 2500)]
    assert verify(folder).is_whole
    assert log.counts.written["inference"] == 2499


async def test_a_name_that_cannot_be_written_does_not_stop_the_log(folder: Path) -> None:
    log = AuditLog(LaneWriter(folder))
    log.start()
    await log.write(record(1, "half \ud800 of a pair"))
    await log.close(5)
    assert [e.record.tenant for e in oldest_first(folder, Wanted(kind="inference"))] == [
        "half ? of a pair"
    ]
    assert verify(folder).is_whole


async def test_a_full_disk_refuses_who_waits_and_keeps_and_counts_the_others() -> None:
    lane = FullDisk()
    log = AuditLog(lane, QUICK)
    log.start()
    with pytest.raises(AuditUnavailable):
        await log.write(record(0))
    for number in range(1, 9):
        log.note(record(number))
    assert log.counts.num_lost >= 3
    with pytest.raises(AuditUnavailable):
        await log.write(record(9))
    num_lost = log.counts.num_lost
    lane.has_room.set()
    while True:
        try:
            await log.write(record(10))
            break
        except AuditUnavailable:
            await asyncio.sleep(0)
    await log.close(5)
    told = [one.request_id for one in lane.records if one.kind == "inference"]
    assert told == [*(f"r{n}" for n in range(1, 9 - num_lost)), "r10"]
    assert sum(one.count for one in lane.records if one.kind == "lost") == num_lost


def test_pages_go_back_in_time_over_lanes_and_files(folder: Path) -> None:
    first = write(folder, [record(n) for n in range(0, 20, 2)])
    second = write(folder, [record(n) for n in range(1, 20, 2)])
    first.close()
    second.close()
    seen: list[str] = []
    cursor, num_pages = "", 0
    while True:
        page = newest_first(folder, Wanted(kind="inference"), 3, cursor)
        seen += [entry.record.request_id for entry in page.entries]
        num_pages += 1
        cursor = page.next
        if not cursor:
            break
    assert seen == [f"r{n}" for n in reversed(range(20))]
    assert num_pages >= 7
    page = newest_first(folder, Wanted(since=1005.0, until=1008.0, kind="inference"), 50)
    assert [entry.record.request_id for entry in page.entries] == ["r7", "r6", "r5"]
