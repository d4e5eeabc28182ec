"""A lane under kills, in several processes, and with files that come to an end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.audit.conftest import record, write

from novacron.audit.files import file_of, numbers
from novacron.audit.lane_writer import LaneWriter, Rotation
from novacron.audit.purge import purge
from novacron.audit.reading import Wanted, oldest_first
from novacron.audit.verification import verify

_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from novacron.audit.lane_writer import LaneWriter, Rotation
from novacron.audit.record import AuditRecord
writer = LaneWriter(Path(sys.argv[1]), Rotation(max_bytes=20_000))
number = 0
while True:
    records = [AuditRecord(time=1.0, kind="admin", request_id=str(number + i)) for i in range(7)]
    writer.append(records)
    writer.sync()
    number += 7
    print(number, flush=True)
"""


def request_ids(folder: Path) -> list[str]:
    return [e.record.request_id for e in oldest_first(folder, Wanted()) if e.record.request_id]


@pytest.mark.parametrize("num_told", [1, 9])
def test_what_was_synced_outlives_kill_9_and_the_chain_goes_on(folder: Path, num_told: int) -> None:
    """Wherever the kill comes: what the process had told of is there, and the log is whole."""
    for _ in range(2):
        before = len(request_ids(folder)) if folder.exists() else 0
        command = [sys.executable, "-c", _WRITE_FOR_EVER, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(num_told):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().splitlines()
        told = max([told, *map(int, rest[:-1])])  # its last word may be torn, too
        assert len(request_ids(folder)) - before >= told
    LaneWriter(folder).close()
    report = verify(folder)
    assert report.is_whole, report.breaks
    assert report.num_records >= 2 * 7 * num_told


@pytest.mark.parametrize("cut", [1, 40, 150, 290])
def test_a_torn_end_is_closed_off_wherever_it_is_torn(folder: Path, cut: int) -> None:
    """As a kill in the middle of a write leaves it: before the head was told of it."""
    writer = LaneWriter(folder)
    writer.append((record(1),))
    writer.sync()
    writer.append((record(2),))  # not synced
    writer.close()
    path = file_of(folder, 0, 1)
    path.write_bytes(path.read_bytes()[:-cut])
    assert not verify(folder).is_whole
    LaneWriter(folder).close()
    report = verify(folder)
    assert report.is_whole, report.breaks
    assert report.num_torn_bytes > 0
    assert request_ids(folder) == ["r1"]


def test_a_lane_goes_on_over_files_and_restarts(folder: Path) -> None:
    write(folder, [record(n) for n in range(9)]).close()
    write(folder, [record(n) for n in range(9, 12)]).close()
    assert len(numbers(folder, 0)) > 3
    assert numbers(folder, 1) == []
    assert request_ids(folder) == [f"r{n}" for n in range(12)]
    assert verify(folder).is_whole


def test_a_file_is_closed_off_when_it_is_old(folder: Path) -> None:
    now = [0.0]
    writer = LaneWriter(folder, Rotation(max_age_s=60), clock=lambda: now[0])
    writer.append((record(1),))
    now[0] = 60.0
    writer.append((record(2),))
    writer.close()
    assert numbers(folder, 0) == [1, 2]
    assert verify(folder).num_records == 4


def test_after_an_error_it_tells_which_records_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the middle of the second record."""
    writer = LaneWriter(folder)
    real_write = os.write
    room = [520]

    def write_while_there_is_room(descriptor: int, data: memoryview) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        done = real_write(descriptor, data[: room[0]])
        room[0] -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_while_there_is_room)
        with pytest.raises(OSError, match="No space"):
            writer.append([record(n) for n in range(3)])
        with pytest.raises(OSError, match="No space"):
            writer.reopen()
    assert writer.reopen() == 1
    writer.append([record(n) for n in range(1, 3)])
    writer.close()
    assert request_ids(folder) == ["r0", "r1", "r2"]
    report = verify(folder)
    assert report.is_whole, report.breaks
    assert report.num_torn_bytes > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_belongs_to_the_user_of_the_folder(tmp_path: Path) -> None:
    """Else his server could not read it, and would not start any more."""
    os.chown(tmp_path, 12345, 12345)
    folder = tmp_path / "novacron" / "audit"
    write(folder, [record(n) for n in range(9)]).close()
    purge(folder, "acme", 1005.0)
    made = [folder.parent, folder, *folder.iterdir()]
    assert len(made) > 6
    assert {(one.stat().st_uid, one.stat().st_gid) for one in made} == {(12345, 12345)}
    assert verify(folder).is_whole


def _write_some(folder: Path, name: str) -> None:
    writer = LaneWriter(folder, Rotation(max_bytes=3000))
    for number in range(40):
        writer.append((record(number, name),))
    writer.close()


def test_processes_beside_each_other_have_lanes_of_their_own(folder: Path) -> None:
    context = multiprocessing.get_context("fork" if sys.version_info < (3, 12) else "spawn")
    names = ["a", "b", "c"]
    processes = [context.Process(target=_write_some, args=(folder, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    report = verify(folder)
    assert report.is_whole, report.breaks
    for name in names:
        mine = [e.record.request_id for e in oldest_first(folder, Wanted(tenant=name))]
        assert sorted(mine) == sorted(f"r{n}" for n in range(40))
