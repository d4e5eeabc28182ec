"""What holds for every policy, whatever it is told, and what tells them apart."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.chained import ChainedPolicy, never
from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName, make_policy
from novacron.kv_tiers.eviction.lru import LruOrder
from novacron.kv_tiers.eviction.policy import Block, MayGo
from novacron.records.block import BlockHash
from novacron.records.block_moves import BlockOrigin
from novacron.testing.kv_records import key_of


def policy_of(name: str, num_blocks: int = 8, is_protected: MayGo = never) -> ChainedPolicy:
    config = PolicyConfig(name=name, ttl_s=50.0)  # type: ignore[arg-type]
    return make_policy(config, num_blocks, is_protected)


def origin_of(number: int) -> BlockOrigin:
    """Blocks make a tree: each builds upon the one of half its number."""
    parent = None if number < 2 else key_of(number // 2)
    return BlockOrigin(parent, number.bit_length() - 1, b"", b"scope" if number % 3 else b"")


@dataclass
class Tier:
    """What a tier does with its policy, and what may never happen."""

    policy: ChainedPolicy
    size: int
    protected: set[BlockHash] = field(default_factory=set)
    held: set[BlockHash] = field(default_factory=set)
    num_asked_again: int = 0

    def store(self, number: int, now_s: float) -> None:
        key = key_of(number)
        if key in self.held:
            return
        self.policy.insert(key, origin_of(number), now_s)
        self.held.add(key)
        while len(self.held) > self.size:
            victim = self.policy.evict(now_s)
            if victim is None:
                assert all(k in self.protected or self.is_built_upon(k) for k in self.held)
                self.remove(number)
                return
            self.go(victim)

    def go(self, victim: BlockHash) -> None:
        assert victim in self.held
        assert victim not in self.protected
        assert not self.is_built_upon(victim)
        self.held.remove(victim)

    def is_built_upon(self, key: BlockHash) -> bool:
        return any(origin_of(int.from_bytes(k, "little")).parent == key for k in self.held)

    def remove(self, number: int) -> None:
        self.policy.remove(key_of(number))
        self.held.discard(key_of(number))


@pytest.mark.parametrize("name", POLICY_NAMES)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["store", "touch", "remove", "protect", "release", "expire"]),
            st.integers(1, 40),
            st.floats(0.0, 100.0),
        ),
        max_size=150,
    ),
    size=st.integers(1, 12),
)
def test_leaves_go_first_and_protected_ones_never(
    name: PolicyName, steps: list[tuple[str, int, float]], size: int
) -> None:
    protected: set[BlockHash] = set()
    policy = policy_of(name, size, protected.__contains__)
    tier = Tier(policy, size, protected)
    now_s = 0.0
    for what, number, pause_s in steps:
        now_s += pause_s
        match what:
            case "store":
                tier.store(number, now_s)
            case "touch":
                policy.touch(key_of(number), now_s)
            case "remove":
                tier.remove(number)
            case "protect":
                protected.add(key_of(number))
            case "release":
                protected.discard(key_of(number))
            case "expire":
                for key in policy.expired(now_s):
                    tier.go(key)
        assert len(policy) == len(tier.held) <= size
        policy.check_integrity()
    protected.clear()
    while (victim := policy.evict(now_s)) is not None:
        tier.go(victim)
    assert not tier.held, "all can leave in the end"


def chain(policy: ChainedPolicy, first: int, length: int, now_s: float) -> None:
    """Numbers from `first` on, each built upon the one before."""
    for number in range(first, first + length):
        parent = None if number == first else key_of(number - 1)
        policy.insert(key_of(number), BlockOrigin(parent, number - first), now_s)


def numbers_leaving(policy: ChainedPolicy, now_s: float, count: int) -> list[int]:
    keys = [policy.evict(now_s) for _ in range(count)]
    return [int.from_bytes(key, "little") for key in keys if key is not None]


def test_lru_drops_what_was_used_longest_ago_from_its_end_on() -> None:
    policy = policy_of("lru")
    chain(policy, 10, 3, 0.0)
    chain(policy, 20, 3, 1.0)
    for number in (10, 11, 12):
        policy.touch(key_of(number), 2.0)
    assert numbers_leaving(policy, 3.0, 6) == [22, 21, 20, 12, 11, 10]


def test_lfu_drops_what_was_used_least_and_fame_fades() -> None:
    policy = policy_of("lfu")
    chain(policy, 1, 1, 0.0)
    for second in range(3):
        policy.touch(key_of(1), 1.0 + second)
    chain(policy, 2, 1, 5.0)
    assert numbers_leaving(policy, 6.0, 1) == [2]
    for number in range(10, 16):  # each as old as what left before it, and used once more
        chain(policy, number, 1, 10.0 + number)
        policy.touch(key_of(number), 10.5 + number)
        if 1 in numbers_leaving(policy, 11.0 + number, 1):
            break
    else:
        pytest.fail("the old block never leaves")


def test_ttl_lets_go_of_what_was_not_used_for_its_time() -> None:
    policy = policy_of("ttl")
    chain(policy, 1, 2, 0.0)
    chain(policy, 10, 1, 30.0)
    assert policy.expired(49.0) == []
    assert policy.expired(50.0) == [key_of(2), key_of(1)]
    assert policy.counts.num_expired == 2


def test_arc_gives_room_to_the_kind_that_was_regretted() -> None:
    policy = policy_of("arc", num_blocks=4)
    for number in (1, 2):
        chain(policy, number, 1, float(number))
        policy.touch(key_of(number), number + 0.5)
    for number in (10, 11):
        chain(policy, number, 1, float(number))
    assert numbers_leaving(policy, 12.0, 1) == [10]  # used once, and no room is theirs yet
    chain(policy, 10, 1, 13.0)  # regretted; and it is one that was used again now
    assert policy.counts.num_regretted == 1
    assert numbers_leaving(policy, 14.0, 1) == [1]


def test_what_is_asked_for_again_is_regretted_once_and_forgotten_in_the_end() -> None:
    policy = policy_of("lru", num_blocks=2)
    for number in range(1, 6):
        chain(policy, number * 10, 1, float(number))
    assert numbers_leaving(policy, 10.0, 3) == [10, 20, 30]
    policy.touch(key_of(30), 11.0)
    policy.touch(key_of(30), 11.0)
    policy.touch(key_of(10), 11.0)  # two are remembered, this was the third
    assert policy.counts.num_regretted == 1


def test_an_unknown_policy_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match="'random'; there are lru, lfu"):
        PolicyConfig(name="random")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="time to live"):
        PolicyConfig(ttl_s=0.0)


class Remembered(LruOrder):
    """What an order hears of blocks that have left."""

    def __init__(self) -> None:
        super().__init__()
        self.forgotten_keys: list[BlockHash] = []

    def forgotten(self, block: Block, now_s: float) -> None:
        self.forgotten_keys.append(block.key)


def test_an_order_hears_what_is_forgotten_unless_it_was_asked_for() -> None:
    order = Remembered()
    policy = ChainedPolicy(order, num_tombstones=2)
    for number in (1, 2, 3, 4):
        policy.insert(key_of(number), BlockOrigin(None, 0), float(number))
        policy.evict(float(number))
        if number == 2:
            policy.touch(key_of(1), 2.5)
    assert order.forgotten_keys == [key_of(2)]
    policy.restore(key_of(3), BlockOrigin(None, 0), 1.0, 3, 5.0)
    policy.insert(key_of(5), BlockOrigin(None, 0), 6.0)
    for _ in range(2):
        policy.evict(6.0)
    assert order.forgotten_keys == [key_of(2), key_of(4)]


def test_a_block_that_comes_back_is_as_old_as_it_was() -> None:
    chain = [BlockOrigin(None if n == 0 else key_of(n - 1), n) for n in range(4)]
    policy = ChainedPolicy(LruOrder(), num_tombstones=8)
    for now_s in (0.0, 100.0):
        for number, origin in enumerate(chain):
            policy.insert(key_of(number), origin, now_s)
        for _ in chain:
            policy.evict(now_s)
    block = policy.recall(key_of(3))
    assert block is not None
    assert (block.num_uses, block.generation) == (1, 0)
