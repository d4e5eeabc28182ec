"""What was used most comes back to RAM after a start, in pauses and within its budgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kv_tiers.test_upkeep import FakeDesk

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.segment_table import Entry
from novacron.kv_tiers.tier import Bytes, KVTier, Put, Record
from novacron.kv_tiers.upkeep import Upkeep
from novacron.kv_tiers.warm_start import WarmStart, WarmStartLimits, most_used
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.clock import FakeClock
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record

RAM, DISK = 0, 1


class Copier:
    def __init__(self, *tiers: KVTier) -> None:
        self.tiers = tiers

    def get(self, place: int, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> list[bool]:
        return self.tiers[place].get(keys, into)

    def put(self, place: int, records: Sequence[Record]) -> Put:
        return self.tiers[place].put(records)


def ram(num_records: int = 100) -> RamTier:
    return RamTier(num_records * RECORD_BYTES, RECORD_BYTES)


def filled_disk(folder: Path, uses: dict[int, int]) -> DiskTier:
    """A chain of blocks and how often each was used, by a process before."""
    before = DiskTier(folder, 8 * 16384, RECORD_BYTES, IDENTITY)
    parent = None
    for depth, number in enumerate(uses):
        before.put([make_record(number, BlockOrigin(parent, depth))])
        parent = key_of(number)
    for number, count in uses.items():
        for _ in range(count):
            before.contains([key_of(number)])
    before.close()
    return DiskTier(folder, 8 * 16384, RECORD_BYTES, IDENTITY)


def warm(disk: DiskTier, clock: FakeClock, *, most: int = 100, rate: float = 1e9) -> WarmStart:
    limits = WarmStartLimits(most_bytes=most * RECORD_BYTES, bytes_per_s=rate, seconds=60)
    return WarmStart(
        lambda count: most_used(disk.entries, count),
        DISK,
        RAM,
        record_bytes=RECORD_BYTES,
        identity=IDENTITY,
        limits=limits,
        clock=clock,
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40), st.integers(1, 50))
def test_the_most_used_come_and_what_they_build_upon_before_them(
    uses: list[tuple[int, int]], count: int
) -> None:
    """Along a chain uses only fall, because whoever finds a block finds all before it."""
    entries, number = [], 0
    for fewest, length in uses:
        parent = None
        for depth in range(length + 1):
            origin = BlockOrigin(parent, depth)
            entries.append(Entry(key_of(number), number, origin, 100.0, max(0, fewest - depth)))
            parent, number = key_of(number), number + 1
    chosen = most_used(entries, count)
    keys = [one.key for one in chosen]
    assert len(keys) == min(count, sum(one.num_uses > 0 for one in entries))
    for place, one in enumerate(chosen):
        assert one.origin.parent is None or one.origin.parent in keys[:place]
    fewest_chosen = min((one.num_uses for one in chosen), default=0)
    left = [one.num_uses for one in entries if one.key not in set(keys)]
    assert len(keys) < count or all(uses <= fewest_chosen for uses in left)


def test_it_comes_to_ram_and_what_is_used_of_it_is_counted(tmp_path: Path) -> None:
    disk, upper, clock = filled_disk(tmp_path, {1: 3, 2: 3, 3: 1, 4: 0}), ram(), FakeClock()
    start = warm(disk, clock)
    assert start.work(Copier(upper, disk)) == 3
    assert held(upper, (1, 2, 3, 4)) == [1, 2, 3]
    assert start.see_used([key_of(1), key_of(2), key_of(9)]) == 2
    assert start.see_used([key_of(1)]) == 0
    assert start.is_over


def test_bytes_time_and_bandwidth_are_bounds(tmp_path: Path) -> None:
    disk, clock = filled_disk(tmp_path, dict.fromkeys(range(40), 1)), FakeClock()
    start, upper = warm(disk, clock, most=20), ram()
    while not start.is_over:
        start.work(Copier(upper, disk))
        clock.advance(1e-3)
    assert held(upper, range(40)) == list(range(20))
    slow = warm(disk, clock, rate=RECORD_BYTES)  # one a second
    num_calls, upper = 0, ram()
    while not slow.is_over:
        if slow.is_time:
            slow.work(Copier(upper, disk))
            num_calls += 1
        clock.advance(0.5)
    assert num_calls == 5, "8 blocks at once, then 8 s of waiting, until 40 have come"
    late = warm(disk, clock, rate=RECORD_BYTES / 10)
    late.work(Copier(ram(), disk))
    clock.advance(60)
    assert late.is_over


def test_it_waits_for_pauses(tmp_path: Path) -> None:
    disk, upper, clock = filled_disk(tmp_path, {1: 1}), ram(), FakeClock()
    upkeep = Upkeep(warm_start=warm(disk, clock), clock=clock)
    desk = FakeDesk(upper, disk)
    upkeep.work(desk, is_paused=False)
    assert held(upper, [1]) == []
    assert not upkeep.is_idle
    upkeep.work(desk, is_paused=True)
    assert held(upper, [1]) == [1]
    upkeep.see_used(desk, [key_of(1)])
    assert desk.counts == {"num_warmed": 1, "num_warm_used": 1}
    assert upkeep.is_idle


def test_a_damaged_block_does_not_come(tmp_path: Path) -> None:
    disk, upper = filled_disk(tmp_path, {1: 1, 2: 1}), ram()
    [path] = tmp_path.glob("*.kvseg")
    content = bytearray(path.read_bytes())
    content[8192 + 100] ^= 1  # within the first record
    path.write_bytes(content)
    assert warm(disk, FakeClock()).work(Copier(upper, disk)) == 1
    assert held(upper, (1, 2)) == [2]
