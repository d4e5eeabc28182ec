"""What every KVTier promises, RAM and disk alike, judged by a model of ten lines."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.segment import SegmentShape
from novacron.kv_tiers.tier import KVTier
from novacron.testing.kv_records import IDENTITY, RECORD_BYTES, held, key_of, put

NUMBERS = range(12)
calls = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "use", "delete"]),
        st.lists(st.sampled_from(NUMBERS), max_size=4, unique=True),
    ),
    max_size=30,
)
ONE_SEGMENT = SegmentShape.within(0, RECORD_BYTES, IDENTITY).file_bytes


def make_tier(kind: str, folder: Path, num_records: int) -> KVTier:
    if kind == "ram":
        return RamTier(num_records * RECORD_BYTES, RECORD_BYTES)
    return DiskTier(folder, num_records * ONE_SEGMENT, RECORD_BYTES, IDENTITY)


@pytest.mark.parametrize("kind", ["ram", "disk"])
@given(calls=calls)
@settings(max_examples=40, deadline=None)
def test_what_was_put_and_not_dropped_is_there(
    kind: str, calls: list[tuple[str, list[int]]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tier = make_tier(kind, Path(folder), num_records=5)
        expected: set[int] = set()
        for call, numbers in calls:
            if call == "put":
                dropped = put(tier, *numbers)
                expected = (expected | set(numbers)) - set(dropped)
            elif call == "use":
                found = tier.contains([key_of(number) for number in numbers])
                assert found == [number in expected for number in numbers]
            else:
                tier.delete([key_of(number) for number in numbers])
                expected -= set(numbers)
            assert set(held(tier, NUMBERS)) == expected
            if kind == "ram":
                assert tier.used_bytes <= 5 * RECORD_BYTES
            else:
                assert sum(f.stat().st_size for f in Path(folder).iterdir()) <= 5 * ONE_SEGMENT
        tier.close()


def test_ram_drops_what_was_used_longest_ago() -> None:
    tier = RamTier(3 * RECORD_BYTES, RECORD_BYTES)
    assert put(tier, 1, 2, 3) == []
    tier.contains([key_of(1)])
    assert put(tier, 4) == [2]
    assert put(tier, 5, 6) == [3, 1]
    assert put(tier, 5) == []


def test_of_a_prefix_that_was_used_the_end_goes_first() -> None:
    """Used from its end to its beginning, as TierIndex does it: without what it builds upon, a
    block is worth nothing."""
    tier = RamTier(4 * RECORD_BYTES, RECORD_BYTES)
    put(tier, 1, 2, 3, 4)
    tier.contains([key_of(number) for number in (4, 3, 2, 1)])
    assert put(tier, 5, 6) == [4, 3]
