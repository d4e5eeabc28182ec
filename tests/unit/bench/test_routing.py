"""Many replicas that die under load: nothing is lost, and prefixes are found. In virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest

from novacron.bench.routing import Outcome, RoutingScenario, simulate
from novacron.bench.virtual_time import VirtualTimeLoop

SCENARIO = RoutingScenario(
    num_replicas=8, rate=160.0, seconds=2.0, deaths=20.0, num_prefixes=24, restart_seconds=0.5
)


def all_but_real_times(outcome: Outcome) -> dict[str, Any]:
    facts = asdict(outcome)
    facts["decisions"] = [(one.target, one.why) for one in outcome.decisions]
    return facts


@pytest.fixture(scope="module")
def by_prefix() -> Outcome:
    return simulate(SCENARIO, by_prefix=True)


def test_nothing_is_lost_or_changed_though_replicas_die(by_prefix: Outcome) -> None:
    assert by_prefix.num_deaths == 5
    assert by_prefix.num_cut_off > 0
    assert (by_prefix.num_lost, by_prefix.num_wrong) == (0, 0)
    assert by_prefix.num_done == len(by_prefix.first_token_s) > 250


def test_prefixes_are_found_and_nobody_has_too_much_to_do(by_prefix: Outcome) -> None:
    by_load = simulate(SCENARIO, by_prefix=False)
    assert by_prefix.hit_rate > by_load.hit_rate + 0.1
    mean = sum(by_prefix.first_token_s) / len(by_prefix.first_token_s)
    assert mean < sum(by_load.first_token_s) / len(by_load.first_token_s)
    assert by_prefix.busiest < 2


def test_it_comes_out_the_same_again(by_prefix: Outcome) -> None:
    again = simulate(SCENARIO, by_prefix=True)
    assert all_but_real_times(again) == all_but_real_times(by_prefix)


def test_virtual_time_passes_only_while_nothing_can_be_done() -> None:
    async def wait() -> tuple[float, float, str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        early = loop.time()
        await asyncio.sleep(3600.0)
        return early, loop.time(), await asyncio.to_thread(lambda: "from a thread")

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(wait()) == (0.0, 3600.0, "from a thread")
