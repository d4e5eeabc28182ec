"""Prefetch and compression in a replay."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.cache_simulator.compression import FIGURES, Level
from novacron.cache_simulator.replay import Costs, PrefetchConfig, TierConfig, replay
from novacron.cache_simulator.trace import Trace, TraceRequest, make_trace
from novacron.cache_simulator.tuner import Limits, Settings, tune
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.records.block import BlockHash

COSTS = Costs(bytes_per_token=1)
LRU = PolicyConfig(name="lru")


def request(at_s: float, session: str, *blocks: int) -> TraceRequest:
    keys = tuple(BlockHash(number.to_bytes(8, "big")) for number in blocks)
    return TraceRequest(at_s, 10 * len(keys), 0, keys, len(keys), session.encode())


def tiers(ram_blocks: int, disk_blocks: int, block_tokens: int = 10) -> list[TierConfig]:
    return [
        TierConfig(kind=kind, capacity_bytes=size * block_tokens, policy=LRU, bytes_per_s=speed)
        for kind, size, speed in (("ram", ram_blocks, 1000.0), ("disk", disk_blocks, 100.0))
    ]


def test_a_session_that_comes_every_minute_is_there_before_it() -> None:
    """Others push its two blocks out of RAM each time; the buffer has them when it comes."""
    requests = [request(60.0 * turn, "a", 1, 2) for turn in range(6)]
    requests += [request(60.0 * turn + 20, "", 10 + turn, 20 + turn) for turn in range(6)]
    trace = make_trace(10, requests)
    without = replay(trace, tiers(2, 100), COSTS)
    prefetch = PrefetchConfig(buffer_bytes=20, bytes_per_s=1000.0, load_bytes_per_s=1000.0)
    ahead = replay(trace, tiers(2, 100), COSTS, prefetch)
    assert ahead.prefetch_used == 1.0
    assert ahead.hit_rate == without.hit_rate, "only where it comes from is another"
    # The second turn gives the pause; turns 3 to 6 are fetched ahead: 8 blocks, 0.09 s less each.
    assert ahead.saved_s - without.saved_s == pytest.approx(8 * 0.09 / 12)


def test_bandwidth_bounds_what_is_there_in_time() -> None:
    requests = [request(60.0 * turn, "a", *range(100)) for turn in range(4)]
    requests += [request(60.0 * turn + 20, "", *range(1000, 1100)) for turn in range(4)]
    trace = make_trace(10, requests)
    used = []
    for bytes_per_s in (1e6, 20.0, 1e-3):  # blocks of 10 bytes: all; 2 a second for 10 s; one
        prefetch = PrefetchConfig(buffer_bytes=1000, bytes_per_s=bytes_per_s)
        outcome = replay(trace, tiers(100, 10_000), COSTS, prefetch)
        without = replay(trace, tiers(100, 10_000), COSTS)
        used.append(round((outcome.saved_s - without.saved_s) * 8 / 0.1))
    assert used[0] > used[1] > used[2] > 0


@given(
    name=st.sampled_from(["chat", "agent", "mixed"]),
    share=st.floats(0.02, 0.5),
    rate=st.floats(1, 1e9),
)
@settings(max_examples=12, deadline=None)
def test_prefetch_changes_where_blocks_come_from_and_never_how_many(
    name: str, share: float, rate: float
) -> None:
    trace = make_workload(name, WorkloadConfig(num_requests=250, seed=3))
    size = max(2, int(trace.num_blocks * share))
    both = tiers(size, 10 * size, trace.block_tokens)
    without = replay(trace, both, COSTS)
    prefetch = PrefetchConfig(
        buffer_bytes=size * trace.block_tokens, bytes_per_s=rate, load_bytes_per_s=1000.0
    )
    ahead = replay(trace, both, COSTS, prefetch)
    assert ahead.tiers == without.tiers
    assert ahead.saved_s >= without.saved_s - 1e-12
    assert ahead.prefetch_used is None or 0 <= ahead.prefetch_used <= 1


@pytest.mark.parametrize("level", list(FIGURES))
def test_a_level_holds_more_blocks_in_the_same_bytes(level: Level) -> None:
    tier = TierConfig(kind="ram", capacity_bytes=1000, policy=LRU, bytes_per_s=100.0, level=level)
    assert tier.blocks(10) == int(100 * FIGURES[level].ratio)
    read_s = 1000 / FIGURES[level].ratio / 100.0
    assert tier.load_s(1000) == pytest.approx(read_s, rel=1e-3)


def small_trace() -> Trace:
    return make_workload("chat", WorkloadConfig(num_requests=600, seed=5))


def test_levels_that_lose_something_are_tried_only_if_they_are_named() -> None:
    trace = small_trace()
    ram = int(trace.num_blocks * 0.05) * trace.block_tokens
    now = Settings(ram_bytes=ram, disk_bytes=ram, policy=LRU)

    def found(*levels: Level) -> Settings:
        limits = Limits(ram_bytes=ram, disk_bytes=ram, levels=levels)
        return tune(trace, now, limits, costs=COSTS, budget=12).best

    exact = found("raw")
    assert (exact.ram_level, exact.disk_level) == ("raw", "raw")
    assert "int4" in (found("raw", "int4").ram_level, found("raw", "int4").disk_level)


def test_a_buffer_is_a_part_of_ram() -> None:
    settings = Settings(ram_bytes=800, disk_bytes=900, policy=LRU, prefetch=True)
    assert [tier.capacity_bytes for tier in settings.tiers(1.0, 1.0)] == [700, 900]
    without_disk = Settings(ram_bytes=800, disk_bytes=0, policy=LRU, prefetch=True)
    assert [tier.capacity_bytes for tier in without_disk.tiers(1.0, 1.0)] == [800]


def test_a_tier_too_small_for_a_block_is_refused_in_any_level() -> None:
    tier = TierConfig(kind="ram", capacity_bytes=5, policy=LRU, bytes_per_s=1.0, level="int8")
    with pytest.raises(ConfigError, match="5 bytes"):
        replay(make_trace(10, [request(0, "", 1)]), [tier], COSTS)
