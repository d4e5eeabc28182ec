"""Policies that are told more than any could learn, against what they are told about."""

from __future__ import annotations

import pytest

from novacron.bench.cache_policy import CachePolicyScenario, measure
from novacron.bench.chat_oracle import chance_to_go_on
from novacron.cache_simulator.workloads import WorkloadConfig, make_workload


def test_the_chance_to_go_on_is_that_of_the_workload() -> None:
    trace = make_workload("chat", WorkloadConfig(num_requests=12_000, seed=3))
    turns: dict[bytes, int] = {}
    for request in trace.requests[:8000]:  # those that have had time to end
        turns[request.session] = 0
    for request in trace.requests:
        if request.session in turns:
            turns[request.session] += 1
    for num_turns in (1, 2, 4):
        reached = [count for count in turns.values() if count >= num_turns]
        share = sum(count > num_turns for count in reached) / len(reached)
        assert share == pytest.approx(chance_to_go_on(num_turns), abs=0.04)


def test_who_is_told_more_finds_more_and_nobody_more_than_the_optimum() -> None:
    scenario = CachePolicyScenario(
        workloads=("chat",), policies=("lru",), shares=(0.1,), num_requests=600, repeats=1,
    )  # fmt: skip
    [rates] = measure(scenario, lambda text: None).values()
    lru, chances, who, optimum = (
        rates[name][0] for name in ("lru", "told the chances", "told who returns", "optimum")
    )
    assert 0 < lru < who < optimum
    assert chances < who
