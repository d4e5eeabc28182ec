"""Which blocks leave a full disk tier, and what becomes of the files they lay in."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.choice import PolicyConfig, PolicyName
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.segment import SegmentShape
from novacron.records.block_moves import BlockOrigin
from novacron.testing.clock import FakeClock
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record, put

LIMIT = 8 * 16384
SHAPE = SegmentShape.within(LIMIT // 8, RECORD_BYTES, IDENTITY)
PLACES = SHAPE.num_places
ROOM = LIMIT // SHAPE.file_bytes * PLACES  # blocks, where all files are ours


def open_tier(
    folder: Path,
    limit: int = LIMIT,
    *,
    policy: PolicyName = "lru",
    clock: FakeClock | None = None,
    pinned: Iterable[int] = (),
) -> DiskTier:
    clock = clock or FakeClock(1e9)
    protection = Protection(PinnedBlocks(map(key_of, pinned)), limit // RECORD_BYTES)
    return DiskTier(
        folder,
        limit,
        RECORD_BYTES,
        IDENTITY,
        protection,
        policy=PolicyConfig(name=policy),
        now=clock,
        clock=clock,
    )


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def fill(tier: DiskTier, clock: FakeClock, numbers: Iterable[int]) -> None:
    for number in numbers:
        clock.advance(1)
        put(tier, number)


def put_chain(tier: DiskTier, *numbers: int) -> None:
    parent = None
    for depth, number in enumerate(numbers):
        tier.put([make_record(number, BlockOrigin(parent, depth))])
        parent = key_of(number)


def test_a_block_in_use_stays_though_its_whole_segment_is_cold(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    fill(tier, clock, range(ROOM))
    hot = list(range(0, ROOM, PLACES))  # one in each file
    for start in range(10_000, 10_000 + 3 * ROOM, 20):
        clock.advance(1)
        tier.contains(map(key_of, hot))
        fill(tier, clock, range(start, start + 20))
        assert folder_bytes(tmp_path) <= LIMIT
    assert held(tier, hot) == hot
    assert len(held(tier, range(ROOM))) == len(hot), "all others were used longer ago"
    assert tier.num_moved == 0, "a place is written again where it lies"


def test_of_a_chain_the_end_leaves_first_also_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    put_chain(tier, 1, 2, 3, 4)
    tier.close()
    clock.advance(10)
    tier = open_tier(tmp_path, clock=clock)
    fill(tier, clock, range(100, 100 + ROOM - 4))
    left: list[list[int]] = []
    for number in range(5000, 5004):
        fill(tier, clock, [number])
        left.append(held(tier, (1, 2, 3, 4)))
    assert left == [[1, 2, 3], [1, 2], [1], []]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_uses_are_counted_over_restarts(tmp_path: Path, is_restarted: bool) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, policy="lfu", clock=clock)
    fill(tier, clock, range(20))
    for _ in range(3):
        clock.advance(1)
        tier.contains(map(key_of, range(5)))
    if is_restarted:
        tier.close()
        tier = open_tier(tmp_path, policy="lfu", clock=clock)
    fill(tier, clock, range(100, 100 + ROOM))
    assert held(tier, range(20)) == list(range(5))


def test_a_tenants_share_outlives_the_process(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    for number in range(10):
        tier.put([make_record(number, BlockOrigin(None, 0, b"", b"tenant-a"))])
    tier.close()
    tier = open_tier(tmp_path, clock=clock)
    for number in range(100, 100 + 2 * ROOM):
        clock.advance(1)
        tier.put([make_record(number, BlockOrigin(None, 0, b"", b"tenant-b"))])
    assert held(tier, range(10)) == list(range(10))


def test_time_that_runs_out_clears_lines_and_files(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, policy="ttl", clock=clock)
    fill(tier, clock, range(3 * PLACES))
    while tier.is_behind:
        tier.catch_up()
    clock.advance(3600 - PLACES)
    fill(tier, clock, [9000])
    assert held(tier, range(3 * PLACES)) == list(range(2 * PLACES + 1, 3 * PLACES))
    assert len(list(tmp_path.glob("*.kvseg"))) == 1, "the new one took a place that was free"
    tier.close()
    assert held(open_tier(tmp_path), range(2 * PLACES)) == []


def test_a_lower_limit_holds_after_the_first_store_and_the_best_stay(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    fill(tier, clock, range(ROOM))
    hot = list(range(0, ROOM, 2 * PLACES))
    clock.advance(1)
    tier.contains(map(key_of, hot))
    tier.close()
    tier = open_tier(tmp_path, LIMIT // 2, clock=clock, pinned=[1, ROOM - 1])
    fill(tier, clock, [9000])
    assert folder_bytes(tmp_path) <= LIMIT // 2
    assert held(tier, [1, ROOM - 1, 9000]) == [1, ROOM - 1, 9000]
    assert held(tier, hot) == hot
    assert len(held(tier, range(ROOM))) >= ROOM // 2 - 2 * PLACES


def test_files_with_few_blocks_left_become_one(tmp_path: Path) -> None:
    """Others may need the room, so it is given back; what is copied is less than that."""
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    fill(tier, clock, range(ROOM))
    kept = list(range(0, ROOM, 4))
    tier.delete(key_of(number) for number in range(ROOM) if number not in set(kept))
    before = folder_bytes(tmp_path)
    fill(tier, clock, [9000])
    freed = before - folder_bytes(tmp_path)
    assert freed >= SHAPE.file_bytes
    assert 0 < tier.num_moved * RECORD_BYTES <= freed / 2
    assert held(tier, [*kept, 9000]) == [*kept, 9000]
    tier.close()
    assert held(open_tier(tmp_path), [*kept, 9000]) == [*kept, 9000]


def test_others_find_out_that_a_place_was_written_again(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    first = open_tier(tmp_path, clock=clock)
    fill(first, clock, range(ROOM))
    first.close()
    reader, writer = open_tier(tmp_path, clock=clock), open_tier(tmp_path, clock=clock)
    fill(writer, clock, range(1000, 1000 + ROOM // 2))
    assert held(writer, range(1000, 1000 + ROOM // 2)) == list(range(1000, 1000 + ROOM // 2))
    assert held(reader, range(ROOM)) == held(writer, range(ROOM)) != []
    writer.close()
    fill(reader, clock, range(2000, 2000 + ROOM // 4))
    assert held(reader, range(2000, 2000 + ROOM // 4)) == list(range(2000, 2000 + ROOM // 4))


steps = st.lists(
    st.tuples(
        st.integers(0, 1),  # which process
        st.sampled_from(["put", "put", "put", "use", "delete", "restart"]),
        st.lists(st.integers(0, 150), min_size=1, max_size=8, unique=True),
    ),
    max_size=60,
)


@given(
    steps=steps,
    policy=st.sampled_from(["lru", "lfu", "learned"]),
    pins=st.sets(st.integers(0, 150), max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_two_processes_in_a_small_folder(
    steps: list[tuple[int, str, list[int]]], policy: PolicyName, pins: set[int]
) -> None:
    """What is told of as stored is there, what is found is right (`held`), pinned blocks stay, and
    the files keep to the limit at every moment."""
    limit = 4 * SegmentShape.within(8 * RECORD_BYTES + 8192, RECORD_BYTES, IDENTITY).file_bytes
    with tempfile.TemporaryDirectory() as name:
        folder, clock = Path(name), FakeClock(1e9)

        def opened() -> DiskTier:
            return open_tier(folder, limit, policy=policy, clock=clock, pinned=pins)

        tiers = [opened(), opened()]
        pinned: set[int] = set()  # of those that must stay, what was stored
        for which, kind, numbers in steps:
            clock.advance(0.5)
            tier = tiers[which]
            if kind == "put":
                known = set(tier.keys)  # as far as it knows: the other may have taken their places
                try:
                    done = tier.put([make_record(number) for number in numbers])
                except OSError:
                    continue  # the other has taken all there is
                new = set(done.stored) - known
                stored = [number for number in numbers if key_of(number) in new]
                assert held(tier, stored) == stored
                assert not set(done.dropped) & new
                pinned |= pins & set(stored)
            elif kind == "use":
                tier.contains(map(key_of, numbers))
            elif kind == "delete":
                unpinned = set(numbers) - pins
                tier.delete(map(key_of, unpinned))
                assert held(tier, unpinned) == []
            else:
                tier.close()
                tiers[which] = opened()
            assert folder_bytes(folder) <= limit
            for one in tiers:
                held(one, range(151))
        for one in tiers:
            one.close()
        assert set(held(opened(), range(151))) >= pinned


def test_a_files_time_is_that_of_its_last_use(tmp_path: Path) -> None:
    clock = FakeClock(1e9)
    tier = open_tier(tmp_path, clock=clock)
    put(tier, 1)
    [path] = tmp_path.glob("*.kvseg")
    os.utime(path, (1, 1))
    clock.advance(60)
    tier.contains([key_of(1)])
    assert path.stat().st_mtime > 1
