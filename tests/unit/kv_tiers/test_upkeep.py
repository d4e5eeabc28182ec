"""What is done about tiers beside storing and loading: demotion, places ahead of need, pressure."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kv_tiers.test_block_mover import PATIENCE_S, HostMemory

from novacron.kv_tiers.block_mover import BlockMover
from novacron.kv_tiers.demotion import Demotion, worth_demoting
from novacron.kv_tiers.disk_demotion import demote_to_far
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.policy import Block
from novacron.kv_tiers.eviction.pressure import LEVELS, SCARCITY, PressureThresholds
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import is_sound
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.tier import Bytes, Put, Record
from novacron.kv_tiers.upkeep import Demoting, Upkeep, Watched
from novacron.records.block import BlockHash
from novacron.records.block_moves import NO_ORIGIN, BlockOrders, BlockOrigin, StoreBlock
from novacron.testing.clock import FakeClock
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record, put


class FakeDesk:
    """Does what it is told with two RAM tiers, and notes it."""

    def __init__(self, *tiers: RamTier) -> None:
        self.tiers = tiers
        self.left: list[tuple[int, tuple[BlockHash, ...]]] = []
        self.levels: list[tuple[int, str]] = []
        self.counts: Counter[str] = Counter()

    def put(self, place: int, records: list[Record]) -> Put:  # type: ignore[override]
        return self.tiers[place].put(records)

    def has(self, place: int, keys: Sequence[BlockHash]) -> Sequence[bool]:
        return self.tiers[place].contains(keys)

    def tell_left(self, place: int, keys: object) -> None:
        if keys:
            self.left.append((place, tuple(keys)))  # type: ignore[arg-type]

    def tell_pressure(self, place: int, level: str) -> None:
        self.levels.append((place, level))

    def count(self, place: int, **more: int) -> None:
        self.counts.update(more)

    def get(self, place: int, keys: Sequence[BlockHash], into: Sequence[Bytes]) -> Sequence[bool]:
        return self.tiers[place].get(keys, into)


def ram(num_records: int) -> RamTier:
    return RamTier(num_records * RECORD_BYTES, RECORD_BYTES)


def lacking(lower: RamTier, *, has_room: bool) -> Callable[[Block], bool]:
    return worth_demoting(
        is_there=lambda block: block.key in lower._places.keys, has_room=lambda: has_room
    )


@given(
    batches=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), max_size=25),
    in_lower=st.sets(st.integers(0, 40)),
)
def test_what_leaves_is_seen_whole_and_goes_where_it_lacks(
    batches: list[list[int]], in_lower: set[int]
) -> None:
    upper, lower = ram(6), ram(100)
    put(lower, *in_lower)
    demotion = Demotion(RECORD_BYTES, lacking(lower, has_room=True), most=1000)
    upper.leaving = demotion.offer
    desk, upkeep = FakeDesk(upper, lower), Upkeep((), [Demoting(demotion, 1)])
    before: set[int] = set()
    for batch in batches:
        put(upper, *batch)
        for record in demotion._waiting:
            assert is_sound(record.data, IDENTITY, record.key)
        now = set(held(upper, range(41)))
        gone = before - now - in_lower - set(batch)
        assert {key_of(number) for number in gone} <= {one.key for one in demotion._waiting}
        before = now
    while demotion:
        upkeep.work(desk, is_paused=True)
    assert set(held(lower, range(41))) >= in_lower


@pytest.mark.parametrize("has_room", [True, False])
def test_a_block_that_nobody_asked_for_takes_no_others_place(has_room: bool) -> None:
    upper, lower = ram(4), ram(100)
    demotion = Demotion(RECORD_BYTES, lacking(lower, has_room=has_room))
    upper.leaving = demotion.offer
    put(upper, 1, 2, 3, 4)
    upper.contains([key_of(1)])
    put(upper, 5, 6, 7, 8)
    found = [int.from_bytes(one.key, "little") for one in demotion.take(9)]
    assert sorted(found) == ([1, 2, 3, 4] if has_room else [1])


def test_too_many_that_wait_are_counted_and_lost() -> None:
    upper, lower = ram(4), ram(100)
    demotion = Demotion(RECORD_BYTES, lacking(lower, has_room=True), most=2)
    upper.leaving = demotion.offer
    for number in range(10):
        put(upper, number)
    assert (len(demotion), demotion.num_lost) == (2, 4)


def test_a_block_that_the_disk_has_lost_is_there_again_when_it_leaves_ram(tmp_path: Path) -> None:
    memory = HostMemory(20)
    for number in range(20):
        memory.fill(number, number)
    upper = ram(4)
    disk = DiskTier(tmp_path, 8 * 16384, RECORD_BYTES, IDENTITY)
    demotion = Demotion(
        RECORD_BYTES,
        worth_demoting(is_there=lambda block: block.key in disk, has_room=lambda: disk.has_room),
    )
    upper.leaving = demotion.offer
    upkeep = Upkeep((Watched(0, "ram", lambda: 0.0, (upper,), (upper,)),), [Demoting(demotion, 1)])

    def store(mover: BlockMover, *numbers: int, tiers: tuple[int, ...]) -> None:
        orders = [StoreBlock(key_of(n), n, tiers, BlockOrigin(None, 0)) for n in numbers]
        mover.order(BlockOrders(stores=tuple(orders)))

    mover = BlockMover(memory, [upper, disk], IDENTITY, share=1.0, upkeep=upkeep)
    try:
        put(upper, 0, 1, 2, 3)
        store(mover, 4, 5, 6, 7, tiers=(0, 1))
        known: set[BlockHash] = set()
        end_s = time.monotonic() + PATIENCE_S
        totals = None
        while len(known) < 8 and time.monotonic() < end_s:
            news = mover.news(0.1)
            if news is not None:
                known |= {key for part in news.added if part.tier == 1 for key in part.keys}
                totals = news.totals
        assert known == {key_of(number) for number in range(8)}
        assert totals is not None
        assert held(disk, range(8)) == list(range(8))
        assert totals[1].num_demoted == 4
    finally:
        mover.close()


fractions = st.floats(0, 1)


@given(st.lists(fractions, max_size=30), st.sampled_from(sorted(SCARCITY)))
def test_a_level_is_left_only_well_below_its_threshold(values: list[float], kind: str) -> None:
    thresholds = SCARCITY[kind]
    bounds = (thresholds.medium, thresholds.high, thresholds.critical)
    level = "low"
    for value in values:
        was, level = level, thresholds.level(value, level)  # type: ignore[arg-type]
        plain = LEVELS.index(thresholds.level(value))
        assert LEVELS.index(level) >= plain, "never below what it would be without a past"
        if LEVELS.index(level) > plain:
            assert LEVELS.index(level) <= LEVELS.index(was)  # type: ignore[arg-type]
            assert value >= bounds[LEVELS.index(level) - 1] - thresholds.margin


def test_a_value_that_wavers_does_not_make_the_level_waver() -> None:
    thresholds, level, changes = PressureThresholds(0.8, 0.9, 0.95), LEVELS[0], 0
    for step in range(100):
        was, level = level, thresholds.level(0.9 + 0.01 * (step % 2) - 0.005, level)
        changes += was != level
    assert changes == 2  # to medium, to high


def test_scarce_memory_is_given_back_and_no_more_is_taken() -> None:
    clock, used = FakeClock(), [0.5]
    tier = RamTier(100 * RECORD_BYTES, RECORD_BYTES)
    desk = FakeDesk(tier)
    upkeep = Upkeep([Watched(0, "ram", lambda: used[0], (tier,), (tier,))], clock=clock)
    put(tier, *range(50))
    upkeep.work(desk, is_paused=True)
    assert (desk.left, upkeep.stores_less, tier.may_grow) == ([], False, True)
    used[0] = 0.96
    clock.advance(2)
    upkeep.work(desk, is_paused=True)
    assert desk.levels == [(0, "critical")]
    assert (upkeep.stores_less, upkeep.holds_prefetch, tier.may_grow) == (True, True, False)
    gone = [key for _, keys in desk.left for key in keys]
    assert gone == [key_of(number) for number in range(50)]
    assert tier.used_bytes == 0
    assert tier.put([make_record(99)]).stored == ()
    used[0] = 0.93  # not well below
    clock.advance(2)
    upkeep.work(desk, is_paused=True)
    assert tier.may_grow is False
    used[0] = 0.5
    clock.advance(2)
    upkeep.work(desk, is_paused=True)
    assert desk.levels == [(0, "critical"), (0, "low")]
    assert put(tier, *range(100)) == []
    assert held(tier, range(100)) == list(range(100))


def test_slots_that_were_given_back_take_no_memory() -> None:
    size = 3 * 4096 + 64
    tier = RamTier(20 * size, size)
    records = [Record(key_of(n), np.full(size, n + 1, np.uint8), NO_ORIGIN) for n in range(20)]
    tier.put(records)
    tier.give_back(10)
    kept: list[Bytes] = [np.zeros(size, np.uint8) for _ in records]
    found = tier.get([one.key for one in records], kept)
    assert found == [False] * 10 + [True] * 10
    assert all((kept[n] == n + 1).all() for n in range(10, 20)), "neighbours are as they were"
    assert np.count_nonzero(tier._arena[:10].any(1)) <= 10
    assert not tier._arena[3, 4096:8192].any(), "its pages are gone"


def test_some_places_of_a_full_tier_are_free_ahead_of_need() -> None:
    tier = RamTier(640 * RECORD_BYTES, RECORD_BYTES)
    desk = FakeDesk(tier)
    upkeep = Upkeep([Watched(0, "ram", lambda: 0.5, (tier,), (tier,))], clock=FakeClock())
    put(tier, *range(640))
    upkeep.work(desk, is_paused=True)
    assert desk.left == [], "it goes in small pieces"
    while not upkeep.is_idle:
        upkeep.work(desk, is_paused=True)
    assert [len(keys) for _, keys in desk.left] == [10]
    upkeep.work(desk, is_paused=True)
    assert len(desk.left) == 1, "they are free still"
    assert put(tier, *range(1000, 1010)) == []
    assert len(put(tier, 2000)) == 1


def test_where_nothing_may_leave_it_is_not_tried_again_and_again() -> None:
    pinned = Protection({key_of(number) for number in range(640)}, 640)
    tier = RamTier(640 * RECORD_BYTES, RECORD_BYTES, protection=pinned)
    upkeep = Upkeep([Watched(0, "ram", lambda: 0.5, (tier,), (tier,))], clock=FakeClock())
    put(tier, *range(640))
    for _ in range(50):
        upkeep.work(FakeDesk(tier), is_paused=True)
    assert upkeep.is_idle
    tier.delete([key_of(0)])
    assert not upkeep.is_idle


def test_a_disk_that_runs_out_gets_no_new_files_and_is_used_further(tmp_path: Path) -> None:
    used = [0.99]
    tier = DiskTier(tmp_path, 8 * 16384, RECORD_BYTES, IDENTITY)
    put(tier, 1)
    upkeep = Upkeep([Watched(0, "disk", lambda: used[0], (tier,))])
    upkeep.work(FakeDesk(), is_paused=True)
    assert not tier.has_room
    for number in range(2, 100):
        put(tier, number)
    assert len(list(tmp_path.glob("*.kvseg"))) == 1
    assert held(tier, [99]) == [99]


@pytest.mark.parametrize("known", [False, True])
def test_used_blocks_that_leave_the_disk_go_to_a_far_tier_that_lacks_them(
    tmp_path: Path, known: bool
) -> None:
    limit = 8 * SegmentShape.within(0, RECORD_BYTES, IDENTITY).file_bytes
    disk, far = DiskTier(tmp_path, limit, RECORD_BYTES, IDENTITY), ram(1000)
    demotion = demote_to_far(disk, [disk], RECORD_BYTES, IDENTITY)
    desk, upkeep = FakeDesk(ram(1), far), Upkeep((), [Demoting(demotion, 1, asks_first=True)])
    put(disk, *range(6))
    disk.contains([key_of(number) for number in (1, 4)])
    if known:
        put(far, 1)
    number = 100
    while set(held(disk, range(6))) & {1, 4}:
        put(disk, number)  # of which none is ever used
        disk.contains([key_of(number)])
        number += 1
        assert number < 1000
    while not upkeep.is_idle:
        upkeep.work(desk, is_paused=True)
    assert {1, 4} <= set(held(far, range(6))) <= {1, 4}
    assert desk.counts["num_demoted"] >= 1
