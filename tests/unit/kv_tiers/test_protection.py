"""What must not leave a tier does not, in RAM and on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.tier import KVTier
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, make_record

SEGMENT = 64 * 1024
LIMIT = 8 * SEGMENT
PLACES = SegmentShape.within(SEGMENT, RECORD_BYTES, IDENTITY).num_places
A, B, C = b"tenant-a", b"tenant-b", b"tenant-c"

OpenTier = Callable[[PinnedBlocks], KVTier]


def small_ram(pinned: PinnedBlocks, num_places: int = 12) -> RamTier:
    protection = Protection(pinned, num_places)
    return RamTier(num_places * RECORD_BYTES, RECORD_BYTES, protection=protection)


@pytest.fixture(params=["ram", "disk"])
def open_tier(request: pytest.FixtureRequest, tmp_path: Path) -> OpenTier:
    """Room for eight segments of records."""

    def open_one(pinned: PinnedBlocks) -> KVTier:
        num_places = 8 * PLACES
        if request.param == "ram":
            return small_ram(pinned, num_places)
        protection = Protection(pinned, num_places)
        return DiskTier(tmp_path, LIMIT, RECORD_BYTES, IDENTITY, protection)

    return open_one


def put_of(tier: KVTier, scope: bytes, *numbers: int) -> set[int]:
    """Store these; which of the first thousands had to go."""
    records = [make_record(n, BlockOrigin(None, 0, b"", scope)) for n in numbers]
    dropped = tier.put(records).dropped
    return {n for n in range(4000) if key_of(n) in set(dropped)}


def test_a_flood_leaves_pinned_blocks(open_tier: OpenTier) -> None:
    pinned = PinnedBlocks(map(key_of, range(0, 200, 4)))
    tier = open_tier(pinned)
    put_of(tier, b"", *range(200))
    for start in range(1000, 1000 + 20 * PLACES, 50):
        assert not put_of(tier, b"", *range(start, start + 50)) & set(range(0, 200, 4))
    assert held(tier, range(200)) == list(range(0, 200, 4))
    pinned.replace(())
    for start in range(90_000, 90_000 + 20 * PLACES, 50):
        put_of(tier, b"", *range(start, start + 50))
    assert held(tier, range(200)) == []


def test_a_flood_of_one_tenant_leaves_those_below_their_share(open_tier: OpenTier) -> None:
    tier = open_tier(PinnedBlocks())
    put_of(tier, A, *range(PLACES))
    put_of(tier, B, *range(1000, 1000 + PLACES))
    gone: set[int] = set()
    for start in range(10_000, 10_000 + 30 * PLACES, 50):
        gone |= put_of(tier, C, *range(start, start + 50))
    assert gone == set()
    assert len(held(tier, range(PLACES))) == PLACES
    assert len(held(tier, range(1000, 1000 + PLACES))) == PLACES


def test_room_that_others_do_not_use_is_anybodys(open_tier: OpenTier) -> None:
    tier = open_tier(PinnedBlocks())
    put_of(tier, B, 1, 2, 3)
    for start in range(10_000, 10_000 + 6 * PLACES, 50):
        put_of(tier, A, *range(start, start + 50))
    assert len(held(tier, range(10_000, 10_000 + 6 * PLACES))) > 5 * PLACES
    assert held(tier, [1, 2, 3]) == [1, 2, 3]


def test_whoever_has_more_than_a_share_gives_way_to_others() -> None:
    tier = small_ram(PinnedBlocks())
    put_of(tier, A, *range(12))
    assert put_of(tier, B, *range(100, 106)) == set(range(6))
    gone = put_of(tier, B, *range(106, 120))
    assert gone == {6, *range(100, 113)}, "both had half, so the flood pays for itself"
    assert held(tier, range(12)) == list(range(7, 12))


def test_a_tier_full_of_pins_takes_nothing_and_gives_nothing() -> None:
    tier = small_ram(PinnedBlocks(map(key_of, range(12))))
    put_of(tier, b"", *range(12))
    put = tier.put([make_record(50), make_record(3)])
    assert (put.stored, put.dropped) == ((key_of(3),), ())
    assert held(tier, range(60)) == list(range(12))


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B, C]), st.integers(0, 60), st.booleans()), max_size=120
    ),
    st.sets(st.integers(0, 60), max_size=8),
)
def test_whatever_comes_and_goes_pins_and_shares_hold(
    events: list[tuple[bytes, int, bool]], pins: set[int]
) -> None:
    tier = small_ram(PinnedBlocks(map(key_of, pins)))
    owner: dict[int, bytes] = {}
    for scope, number, deletes in events:
        if deletes:
            tier.delete([key_of(number)])
            owner.pop(number, None)
            continue
        counts = {one: sum(o == one for o in owner.values()) for one in set(owner.values())}
        share = 12 / max(1, len(counts))
        gone = put_of(tier, scope, number)
        assert not gone & pins
        for victim in gone:
            unpinned = [n for n in owner if n not in pins]
            may = [n for n in unpinned if counts[owner[n]] >= share]
            assert counts[owner[victim]] >= share or not may or len(counts) < 2
            del owner[victim]
        if held(tier, [number]):
            owner.setdefault(number, scope)
        assert len(owner) <= 12
    assert held(tier, range(61)) == sorted(owner)


def test_pins_on_disk_are_kept_by_the_next_process(tmp_path: Path) -> None:
    pinned = PinnedBlocks(map(key_of, range(40)))

    def open_disk() -> DiskTier:
        protection = Protection(pinned, 8 * PLACES)
        return DiskTier(tmp_path, LIMIT, RECORD_BYTES, IDENTITY, protection)

    first = open_disk()
    put_of(first, A, *range(40))
    first.close()
    second = open_disk()
    for start in range(10_000, 10_000 + 10 * PLACES, 50):
        put_of(second, B, *range(start, start + 50))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.kvseg")) <= LIMIT
    assert held(second, range(40)) == list(range(40))
    assert held(open_disk(), range(40)) == list(range(40))
