"""The folder of a DiskTier, whatever happens to it."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from novacron.kv_tiers import segment
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.record import block_of, is_sound
from novacron.kv_tiers.segment import SegmentShape
from novacron.testing.kv_records import (
    IDENTITY,
    RECORD_BYTES,
    block_content,
    held,
    key_of,
    make_record,
    put,
)

LIMIT = 8 * 16384
SHAPE = SegmentShape.within(LIMIT // 8, RECORD_BYTES, IDENTITY)
MANY = range(10_000)
MOST_SEGMENTS = LIMIT // SHAPE.file_bytes


def open_tier(folder: Path, limit: int = LIMIT, identity: bytes = IDENTITY) -> DiskTier:
    return DiskTier(folder, limit, RECORD_BYTES, identity)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kvseg"))


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_another_process_finds_it_at_once(tmp_path: Path) -> None:
    first = open_tier(tmp_path)
    put(first, 1, 2, 3)
    second = open_tier(tmp_path)
    assert set(second.keys) == {key_of(number) for number in (1, 2, 3)}
    assert held(second, (1, 2, 3, 4)) == [1, 2, 3]


def test_segments_are_filled_further_by_the_next_process(tmp_path: Path) -> None:
    for number in range(10):
        tier = open_tier(tmp_path)
        put(tier, number)
        tier.close()
    assert len(segments(tmp_path)) == 1
    assert held(open_tier(tmp_path), range(10)) == list(range(10))


def test_two_at_once_write_to_different_segments_and_stay_within_the_limit(
    tmp_path: Path,
) -> None:
    first, second = open_tier(tmp_path), open_tier(tmp_path)
    for start in range(0, 8 * SHAPE.num_places, 4):
        put(first, *range(start, start + 4))
        put(second, *range(5000 + start, 5004 + start))
        assert folder_bytes(tmp_path) <= LIMIT
    assert len(segments(tmp_path)) == MOST_SEGMENTS
    newest = range(5000 + 8 * SHAPE.num_places - 4, 5000 + 8 * SHAPE.num_places)
    assert held(second, newest) == list(newest)
    assert 0 < len(held(first, MANY)) < 8 * SHAPE.num_places  # some went to make room
    third = open_tier(tmp_path)
    assert len(held(third, MANY)) > SHAPE.num_places


def test_files_of_others_go_first_if_they_were_used_longer_ago(tmp_path: Path) -> None:
    other = open_tier(tmp_path, identity=bytes(16))
    put(other, *range(4 * SHAPE.num_places))
    other.close()
    old, *newer = segments(tmp_path)
    os.utime(old, (1, 1))
    tier = open_tier(tmp_path)
    num_free = MOST_SEGMENTS - 4
    assert put(tier, *range(num_free * SHAPE.num_places)) == []
    for path in newer:
        os.utime(path, (3e9, 3e9))
    tier.close()
    tier = open_tier(tmp_path)
    assert put(tier, *range(9000, 9000 + SHAPE.num_places)) == []
    assert not old.exists()
    assert len(put(tier, *range(9900, 9910))) == 10, "ours were used longer ago than theirs"
    assert all(path.exists() for path in newer)


def test_what_is_read_counts_as_used(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    put(tier, 1)
    [path] = segments(tmp_path)
    os.utime(path, (1, 1))
    assert tier.contains([key_of(1)]) == [True]
    assert path.stat().st_mtime > 1


@pytest.mark.parametrize("where", ["header", "shape", "name of the format"])
def test_files_of_another_kind_are_passed_over_and_go_when_room_is_needed(
    tmp_path: Path, where: str
) -> None:
    first = open_tier(tmp_path)
    put(first, 1)
    first.close()
    [path] = segments(tmp_path)
    content = bytearray(path.read_bytes())
    if where == "header":
        content[20] ^= 1
    elif where == "shape":
        content += b"more"
    else:
        content[:8] = b"NCKVSEG1"
    path.write_bytes(content)
    os.utime(path, (1, 1))
    tier = open_tier(tmp_path)
    assert tier.keys == ()
    put(tier, *range(9 * SHAPE.num_places))
    assert not path.exists()
    assert folder_bytes(tmp_path) <= LIMIT


def test_blocks_of_another_model_are_not_there_but_count(tmp_path: Path) -> None:
    other = open_tier(tmp_path, identity=bytes(16))
    put(other, *range(3 * SHAPE.num_places))
    other.close()
    tier = open_tier(tmp_path)
    assert tier.keys == ()
    assert held(tier, range(3)) == []
    put(tier, *range(20 * SHAPE.num_places))
    assert folder_bytes(tmp_path) <= LIMIT


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_becomes_of_a_file_no_wrong_block_is_told_of_as_sound(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """`held` asserts that what checks is what was stored."""
    folder = tmp_path_factory.mktemp("damaged")
    tier = open_tier(folder)
    put(tier, *range(10))
    tier.close()
    [path] = segments(folder)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        kind = data.draw(st.sampled_from(["flip", "zero", "cut", "swap"]))
        start = data.draw(st.integers(0, len(content) - 1)) if content else 0
        if kind == "flip" and content:
            content[start] ^= data.draw(st.integers(1, 255))
        elif kind == "zero":
            content[start : start + 700] = bytes(len(content[start : start + 700]))
        elif kind == "cut":
            del content[start:]
        else:
            content[start : start + 64] = content[-64:]
    path.write_bytes(content)
    tier = open_tier(folder)
    buffers = [make_record(0).data * 0 for _ in range(10)]
    tier.get([key_of(number) for number in range(10)], buffers)
    for number, buffer in enumerate(buffers):
        if is_sound(buffer, IDENTITY, key_of(number)):
            assert (block_of(buffer) == block_content(number)).all()
    put(tier, 100, 101)  # and it goes on
    assert held(tier, (100, 101)) == [100, 101]


def test_a_deleted_block_does_not_come_back(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    put(tier, 1, 2)
    tier.delete([key_of(1)])
    assert held(tier, (1, 2)) == [2]
    tier.close()
    again = open_tier(tmp_path)
    assert held(again, (1, 2)) == [2]
    put(again, 3)
    assert held(open_tier(tmp_path), (1, 2, 3)) == [2, 3]


def test_a_full_disk_is_an_error_and_then_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = open_tier(tmp_path)
    put(tier, 1)

    def no_space(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(segment, "_write_all", no_space)
        with pytest.raises(OSError, match="No space"):
            tier.put([make_record(2)])
    put(tier, 3)
    assert held(tier, (2, 3)) == [3]
    assert held(open_tier(tmp_path), (2, 3)) == [3]


def test_on_a_full_disk_new_blocks_take_the_places_of_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    tier = DiskTier(tmp_path, LIMIT, RECORD_BYTES, IDENTITY, clock=lambda: seconds[0])
    written: set[tuple[int, int]] = set()  # inode and offset: what takes room already
    room = 5

    def on_a_small_disk(fd: int, pieces: Sequence[memoryview], where: int) -> None:
        starts = {(os.fstat(fd).st_ino, where + row * RECORD_BYTES) for row, _ in enumerate(pieces)}
        if len(written | starts) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.update(starts)
        write_all(fd, pieces, where)

    write_all = segment._write_all
    monkeypatch.setattr(segment, "_write_all", on_a_small_disk)
    for number in range(12):
        put(tier, number)
        assert number in held(tier, MANY)
        assert len(held(tier, MANY)) == min(number + 1, room)
    assert not tier.has_room
    room = 100
    put(tier, 100)
    assert len(held(tier, MANY)) == 5, "it does not ask a full disk with each block"
    seconds[0] += 60
    assert tier.has_room
    put(tier, 101)
    assert len(held(tier, MANY)) == 6


def test_a_limit_below_one_segment_takes_nothing(tmp_path: Path) -> None:
    tier = open_tier(tmp_path, limit=RECORD_BYTES)
    with pytest.raises(OSError, match="no room for a file"):
        tier.put([make_record(1)])
    assert folder_bytes(tmp_path) == 0


def test_a_folder_that_vanishes_costs_its_blocks_only(tmp_path: Path) -> None:
    folder = tmp_path / "kv"
    tier = open_tier(folder)
    put(tier, 1)
    for path in folder.iterdir():
        path.unlink()
    assert held(tier, (1,)) == []


WRITER = """
import sys
from collections.abc import Sequence
from pathlib import Path
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, make_record
from novacron.kv_tiers.disk_tier import DiskTier

tier = DiskTier(Path(sys.argv[1]), int(sys.argv[2]), RECORD_BYTES, IDENTITY)
for number in range(int(sys.argv[3]), 1_000_000):
    tier.put([make_record(number)])
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_killed_at_any_moment_it_loses_at_most_the_block_it_was_writing(tmp_path: Path) -> None:
    """A process that is killed while it writes, over and over, in one folder."""
    rng = random.Random(5)
    limit = 64 * LIMIT  # holds all that comes
    start = 0
    stored: list[int] = []
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(limit), str(start)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        done = [int(process.stdout.readline()) for _ in range(rng.randrange(1, 40))]
        process.send_signal(signal.SIGKILL)
        done += [
            int(line)
            for line in process.stdout.read().splitlines(keepends=True)
            if line.endswith("\n")
        ]
        process.wait()
        process.stdout.close()
        stored += done
        start = stored[-1] + 1
        assert folder_bytes(tmp_path) <= limit
        tier = open_tier(tmp_path, limit)
        assert set(stored) <= set(held(tier, range(start + 1)))
        tier.close()


def test_a_segment_of_which_all_is_deleted_goes(tmp_path: Path) -> None:
    tier = open_tier(tmp_path)
    count = SHAPE.num_places
    put(tier, *range(2 * count + 3))  # two full ones, and one that is being filled
    used = tier.used_bytes
    tier.delete(map(key_of, range(1, 2 * count + 3)))
    assert len(segments(tmp_path)) == 1
    assert held(tier, range(2 * count + 3)) == [0]
    assert tier.used_bytes == folder_bytes(tmp_path) < used
    put(tier, 7000)
    assert held(open_tier(tmp_path), [0, 1, 7000]) == [0, 7000]


def test_a_segment_that_another_process_fills_is_emptied_line_by_line(tmp_path: Path) -> None:
    writer = open_tier(tmp_path)
    put(writer, 1, 2)
    other = open_tier(tmp_path)
    other.delete([key_of(1), key_of(2)])
    assert len(segments(tmp_path)) == 1
    put(writer, 3)
    assert held(open_tier(tmp_path), [1, 2, 3]) == [3]
