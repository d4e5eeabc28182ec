"""Replay against what can be counted by hand, and Belady's optimum against trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.cache_simulator.belady import best_hit_rate
from novacron.cache_simulator.replay import Costs, TierConfig, replay
from novacron.cache_simulator.trace import Trace, TraceRequest, make_trace
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import POLICY_NAMES, PolicyConfig, PolicyName
from novacron.records.block import BlockHash

COSTS = Costs(bytes_per_token=1, prefill_tokens_per_s=100.0)
BLOCK_TOKENS = 10


def make_request(second: float, *numbers: int, rest: int = 0) -> TraceRequest:
    keys = tuple(BlockHash(number.to_bytes(8, "big")) for number in numbers)
    return TraceRequest(second, len(keys) * BLOCK_TOKENS + rest, 0, keys, len(keys))


def tier(kind: str, num_blocks: int, policy: PolicyName = "lru") -> TierConfig:
    return TierConfig(
        kind=kind,
        capacity_bytes=num_blocks * BLOCK_TOKENS,
        policy=PolicyConfig(name=policy),
        bytes_per_s=1000.0,
    )


def test_it_counts_what_each_tier_gives() -> None:
    trace = make_trace(
        BLOCK_TOKENS,
        [
            make_request(0, 1, 2, 3, rest=5),
            make_request(1, 1, 2, 3, rest=5),  # 1 and 2 from ram, 3 from disk
            make_request(2, 7),
            make_request(3, 1, 2, 9, 3),  # 9 is new: 3 is of no use after it
        ],
    )
    done = replay(trace, [tier("ram", 2), tier("disk", 100)], COSTS)
    assert done.prompt_tokens == 120
    ram, disk = done.tiers
    assert (ram.hit_tokens, disk.hit_tokens) == (30, 20)
    assert done.hit_rate == pytest.approx(50 / 120)
    assert (disk.num_blocks, disk.stored_bytes) == (5, 50)
    assert disk.loaded_bytes == 20
    assert done.saved_s == pytest.approx((50 / 100 - 50 / 1000) / 4)


def test_what_an_answer_filled_is_found_by_the_next_turn() -> None:
    first = make_request(0, 1, 2)
    first = TraceRequest(0.0, 10, 10, first.blocks, num_prompt_blocks=1)
    done = replay(make_trace(10, [first, make_request(1, 1, 2, 3)]), [tier("ram", 9)], COSTS)
    assert done.tiers[0].hit_tokens == 20


def test_a_tier_too_small_for_a_block_is_refused() -> None:
    small = TierConfig(kind="ram", capacity_bytes=9, bytes_per_s=1.0)
    trace = make_trace(10, [make_request(0, 1)])
    with pytest.raises(ConfigError, match="ram has 9 bytes, but a block of 10 tokens takes 10"):
        replay(trace, [small], COSTS)


def best_by_trying(trace: Trace, num_blocks: int) -> int:
    """Most blocks that can be found, over all that could be kept after each request."""
    states: dict[frozenset[BlockHash], int] = {frozenset(): 0}
    for request in trace.requests:
        after: dict[frozenset[BlockHash], int] = {}
        for held, found in states.items():
            hits = sum(1 for _ in itertools.takewhile(held.__contains__, request.blocks))
            there = held | set(request.blocks)
            for kept in subsets(sorted(there), num_blocks):
                after[kept] = max(after.get(kept, 0), found + hits)
        states = after
    return max(states.values())


def subsets(keys: Sequence[BlockHash], most: int) -> list[frozenset[BlockHash]]:
    counts = range(min(most, len(keys)) + 1)
    return [frozenset(some) for n in counts for some in itertools.combinations(keys, n)]


PATHS = ((1,), (1, 2), (1, 2, 3), (1, 4), (5,), (5, 6), (7,))


@given(st.lists(st.sampled_from(PATHS), min_size=1, max_size=8), st.integers(1, 3))
@settings(max_examples=40)
def test_belady_is_the_best_there_is(paths: list[tuple[int, ...]], num_blocks: int) -> None:
    trace = make_trace(
        BLOCK_TOKENS, [make_request(float(second), *path) for second, path in enumerate(paths)]
    )
    prompt_tokens = sum(request.prompt_tokens for request in trace.requests)
    best = best_by_trying(trace, num_blocks) * BLOCK_TOKENS / prompt_tokens
    assert best_hit_rate(trace, num_blocks) == pytest.approx(best)
    for name in POLICY_NAMES:
        assert replay(trace, [tier("ram", num_blocks, name)], COSTS).hit_rate <= best + 1e-9


@pytest.mark.parametrize("workload", ["chat", "agent", "mixed"])
def test_learned_is_not_worse_than_the_plain_policies(workload: str) -> None:
    trace = make_workload(workload, WorkloadConfig(num_requests=2500, seed=9))
    num_blocks = trace.num_blocks // 8
    rates = {
        name: replay(trace, [tier_of(trace, num_blocks, name)], COSTS).hit_rate
        for name in ("lru", "lfu", "arc", "learned")
    }
    assert rates["learned"] >= 0.98 * max(rates.values())


def tier_of(trace: Trace, num_blocks: int, name: str) -> TierConfig:
    policy = PolicyConfig(name=name)  # type: ignore[arg-type]
    size = num_blocks * trace.block_tokens
    return TierConfig(kind="ram", capacity_bytes=size, policy=policy, bytes_per_s=1e9)


def test_a_replay_is_the_same_each_time() -> None:
    trace = make_workload("mixed", WorkloadConfig(num_requests=400))
    for name in POLICY_NAMES:
        one = tier_of(trace, trace.num_blocks // 8, name)
        assert replay(trace, [one], COSTS) == replay(trace, [one], COSTS)
