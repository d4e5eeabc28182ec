"""A RAM tier and the policy that decides for it agree on what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.kv_tiers.block_copies import PlainCopies
from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import Bytes, Put
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import RECORD_BYTES, held, key_of, make_record

NUMBERS = range(1, 30)


def origin_of(number: int) -> BlockOrigin:
    return BlockOrigin(None if number < 2 else key_of(number // 2), number.bit_length() - 1)


@pytest.mark.parametrize("name", POLICY_NAMES)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "use", "delete"]),
            st.lists(st.sampled_from(NUMBERS), max_size=6, unique=True),
        ),
        max_size=30,
    )
)
def test_what_it_tells_is_what_it_holds(
    name: PolicyName, calls: list[tuple[str, list[int]]]
) -> None:
    now_s = [0.0]
    policy = PolicyConfig(name=name, ttl_s=20.0)
    tier = RamTier(5 * RECORD_BYTES, RECORD_BYTES, policy=policy, clock=lambda: now_s[0])
    told: set[BlockHash] = set()
    for what, numbers in calls:
        now_s[0] += 1.0
        keys = [key_of(number) for number in numbers]
        if what == "put":
            put = tier.put([make_record(number, origin_of(number)) for number in numbers])
            told -= set(put.dropped)
            told |= set(put.stored)
        elif what == "use":
            assert tier.contains(keys) == [key in told for key in keys]
        else:
            tier.delete(keys)
            told -= set(keys)
        assert {key_of(number) for number in held(tier, NUMBERS)} == told
        assert tier.used_bytes == len(told) * RECORD_BYTES <= 5 * RECORD_BYTES


def test_a_full_tier_of_protected_blocks_takes_nothing() -> None:
    pinned = Protection({key_of(1), key_of(2), key_of(3)}, 2)
    tier = RamTier(2 * RECORD_BYTES, RECORD_BYTES, protection=pinned)
    assert tier.put([make_record(1), make_record(2)]).stored == (key_of(1), key_of(2))
    put = tier.put([make_record(3)])
    assert (put.stored, put.dropped) == ((), ())
    assert held(tier, (1, 2, 3)) == [1, 2]


def test_it_tells_of_regrets_once() -> None:
    tier = RamTier(RECORD_BYTES, RECORD_BYTES)
    tier.put([make_record(1)])
    assert tier.put([make_record(2)]).dropped == (key_of(1),)
    tier.contains([key_of(1)])
    assert tier.put([make_record(3)]).num_regretted == 1
    assert tier.put([make_record(4)]).num_regretted == 0


def test_what_builds_upon_a_refused_block_is_refused() -> None:
    tier = RamTier(RECORD_BYTES, RECORD_BYTES)
    chain = [make_record(1), *(make_record(n, BlockOrigin(key_of(n - 1), n)) for n in (2, 3))]
    assert tier.put(chain).stored == (key_of(1),)
    assert held(tier, (1, 2, 3)) == [1]


class Interrupted(PlainCopies):
    """Another thread puts while records are copied, once."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], object] | None = None

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None:
        assert len({target.ctypes.data for target in targets}) == len(targets), "one place for two"
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super().copy(sources, targets)


def test_nobody_gets_a_place_that_is_being_copied_to() -> None:
    copies = Interrupted()
    tier = RamTier(2 * RECORD_BYTES, RECORD_BYTES, copies)
    puts: list[Put] = []
    copies.meanwhile = lambda: puts.append(tier.put([make_record(3)]))
    assert tier.put([make_record(1), make_record(2)]).stored == (key_of(1), key_of(2))
    assert puts == [Put()]
    assert held(tier, (1, 2, 3)) == [1, 2]


def test_of_more_records_than_places_each_kept_one_has_a_place_of_its_own() -> None:
    tier = RamTier(2 * RECORD_BYTES, RECORD_BYTES, Interrupted())
    put = tier.put([make_record(number) for number in range(1, 6)])
    assert put.stored == (key_of(4), key_of(5))
    assert held(tier, range(1, 6)) == [4, 5]
