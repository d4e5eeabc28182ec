"""A decision costs the same in a tier of any size: counted in looks at blocks, not in time."""

from __future__ import annotations

import pytest

from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName, make_policy
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import key_of


def looks_per_eviction(name: PolicyName, num_blocks: int) -> float:
    """How often a policy asks whether a block may go, for each that goes."""
    num_looks = 0

    def look(key: BlockHash) -> bool:
        nonlocal num_looks
        num_looks += 1
        return False

    policy = make_policy(PolicyConfig(name=name), num_blocks, look)
    for number in range(num_blocks + 500):
        policy.insert(key_of(number), BlockOrigin(None, 0), float(number))
        if number % 3 == 0:
            policy.touch(key_of(number), number + 0.5)
        if number >= num_blocks:
            assert policy.evict(float(number)) is not None
    return num_looks / 500


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_looks_do_not_grow_with_the_tier(name: PolicyName) -> None:
    assert looks_per_eviction(name, 8000) <= 2 * looks_per_eviction(name, 500) + 1


def test_many_protected_blocks_are_not_looked_at_each_time() -> None:
    num_looks = 0

    def is_protected(key: BlockHash) -> bool:
        nonlocal num_looks
        num_looks += 1
        return int.from_bytes(key, "little") < 5000

    policy = make_policy(PolicyConfig(name="lru"), 10_000, is_protected)
    for number in range(10_000):
        policy.insert(key_of(number), BlockOrigin(None, 0), float(number))
    gone = [policy.evict(20_000.0) for _ in range(1000)]
    assert gone == [key_of(number) for number in range(5000, 6000)]
    assert num_looks < 30_000
