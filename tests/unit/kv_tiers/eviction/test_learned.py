"""Learned chooses the order that suits what comes."""

from __future__ import annotations

import random

from novacron.kv_tiers.eviction.chained import ChainedPolicy
from novacron.kv_tiers.eviction.learned import LearnedOrder
from novacron.kv_tiers.eviction.lfu import LfuOrder
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import LeafOrder
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import key_of


def num_hits(order: LeafOrder, numbers: list[int], size: int) -> int:
    policy = ChainedPolicy(order, num_tombstones=size)
    held: set[BlockHash] = set()
    hits = 0
    for second, number in enumerate(numbers):
        key = key_of(number)
        if key in held:
            hits += 1
            policy.touch(key, float(second))
            continue
        policy.insert(key, BlockOrigin(None, 0), float(second))
        held.add(key)
        if len(held) > size:
            victim = policy.evict(float(second))
            assert victim is not None
            held.discard(victim)
    return hits


def popular(count: int) -> list[int]:
    """Each on its own with a chance that falls with its number: what counts is how often."""
    rng = random.Random(3)
    weights = [1 / (rank + 1) for rank in range(3000)]
    return rng.choices(range(3000), weights, k=count)


def recent(count: int) -> list[int]:
    """What came lately comes again soon, and then never: what counts is when."""
    rng = random.Random(4)
    return [max(0, number // 4 - int(rng.expovariate(1 / 60))) for number in range(count)]


def test_it_is_as_good_as_the_better_one() -> None:
    for numbers in (popular(25_000), recent(25_000)):
        plain = [num_hits(order, numbers, 150) for order in (LruOrder(), LfuOrder())]
        assert num_hits(LearnedOrder(150), numbers, 150) >= 0.97 * max(plain)


def test_of_things_that_come_round_in_a_circle_it_keeps_a_part() -> None:
    circle = [number % 200 for number in range(12_000)]
    assert num_hits(LruOrder(), circle, 150) == 0
    assert num_hits(LearnedOrder(150), circle, 150) > 3000
