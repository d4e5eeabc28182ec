from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacron.cache_simulator.replay import Costs, replay
from novacron.cache_simulator.trace import Trace
from novacron.cache_simulator.tuner import Limits, Settings, score, tune
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload
from novacron.errors import ConfigError
from novacron.kv_tiers.eviction.choice import PolicyConfig

COSTS = Costs(bytes_per_token=1)


def a_trace(workload: str = "scan", num_requests: int = 800) -> Trace:
    return make_workload(workload, WorkloadConfig(num_requests=num_requests, seed=5))


def ram_of(trace: Trace, share: float) -> int:
    return int(trace.num_blocks * share) * trace.block_tokens


def current(ram_bytes: int, policy: str = "lru") -> Settings:
    name = PolicyConfig(name=policy)  # type: ignore[arg-type]
    return Settings(ram_bytes=ram_bytes, disk_bytes=0, policy=name)


def test_what_it_proposes_is_better_on_the_whole_trace_by_what_it_says() -> None:
    trace = a_trace()
    ram_bytes = ram_of(trace, 0.1)
    now = current(ram_bytes // 8)
    found = tune(trace, now, Limits(ram_bytes=ram_bytes, disk_bytes=0), costs=COSTS, budget=8)
    assert found.proposed is not None
    before, after = (replay(trace, one.tiers(8e9, 1e9), COSTS) for one in (now, found.proposed))
    assert score(after) - score(before) == pytest.approx(found.gain)
    assert found.gain > 0.02 * score(before)


@given(seed=st.integers(0, 1000), share=st.floats(0.02, 1.0), budget=st.integers(2, 9))
@settings(max_examples=15)
def test_it_keeps_to_its_limits_and_is_the_same_for_a_seed(
    seed: int, share: float, budget: int
) -> None:
    trace = a_trace("chat", 250)
    limits = Limits(ram_bytes=ram_of(trace, share), disk_bytes=ram_of(trace, 0.5))
    now = current(limits.ram_bytes)
    found = tune(trace, now, limits, costs=COSTS, budget=budget, seed=seed)
    assert found == tune(trace, now, limits, costs=COSTS, budget=budget, seed=seed)
    assert found.best.ram_bytes <= limits.ram_bytes
    assert found.best.disk_bytes <= limits.disk_bytes
    allowed = 0.002 * abs(score(found.best_outcome)) + 1e-12
    assert score(found.best_outcome) >= score(found.current_outcome) - allowed


def test_nothing_is_proposed_for_less_than_the_margin() -> None:
    trace = a_trace("chat", 300)
    all_of_it = ram_of(trace, 1.0)
    found = tune(trace, current(all_of_it), Limits(ram_bytes=all_of_it, disk_bytes=0), costs=COSTS)
    assert found.proposed is None
    assert found.gain <= 0.02 * score(found.current_outcome)


def test_it_ends_when_the_target_is_reached() -> None:
    trace = a_trace("agent", 900)
    limits = Limits(ram_bytes=ram_of(trace, 1.0), disk_bytes=0)
    whole = tune(trace, current(limits.ram_bytes), limits, costs=COSTS, budget=8)
    early = tune(
        trace,
        current(limits.ram_bytes),
        replace(limits, target_hit_rate=0.3),
        costs=COSTS,
        budget=8,
    )
    assert early.ended_early
    assert early.num_replays < whole.num_replays


def test_what_cannot_be_tuned_is_refused() -> None:
    trace = a_trace("chat", 50)
    with pytest.raises(ConfigError, match="nothing to tune"):
        Limits(ram_bytes=0, disk_bytes=0)
    limits = Limits(ram_bytes=10_000, disk_bytes=0)
    with pytest.raises(ConfigError, match="above the limit of 10000"):
        tune(trace, current(20_000), limits, costs=COSTS)
    with pytest.raises(ConfigError, match="cannot hold a block"):
        tune(trace, current(100), limits, costs=COSTS)
    with pytest.raises(ConfigError, match="budget is 1"):
        tune(trace, current(10_000), limits, costs=COSTS, budget=1)
