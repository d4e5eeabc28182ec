"""What is learned of return times, against distributions that are known."""

from __future__ import annotations

import math
import random

import pytest

from novacron.kv_tiers.eviction.return_times import ReturnTimes


def learned(returns_s: list[float], num_lost: int) -> ReturnTimes:
    times = ReturnTimes()
    for idle_s in returns_s:
        times.observe_return(1, idle_s)
    for _ in range(num_lost):
        times.observe_wait(1, 1e7)
    times.learn()
    return times


def test_worth_of_memoryless_returns_is_their_rate_and_does_not_change_with_time() -> None:
    rng = random.Random(1)
    times = learned([rng.expovariate(1 / 100) for _ in range(50_000)], 0)
    for idle_s in (1.0, 10.0, 50.0, 100.0):
        assert times.worth(1, idle_s) == pytest.approx(1 / 100, rel=0.25)


def test_what_comes_back_after_a_fixed_time_is_worth_more_the_nearer_it_is() -> None:
    times = learned([100.0] * 5000, 0)
    worths = [times.worth(1, idle_s) for idle_s in (0.0, 20.0, 60.0, 85.0)]
    assert worths == sorted(worths)
    assert times.worth(1, 5000.0) < worths[0]


def test_a_certain_use_in_an_hour_equals_half_a_chance_in_half_the_time() -> None:
    certain, half = learned([3600.0] * 20_000, 0), learned([1800.0] * 10_000, 10_000)
    assert certain.worth(1, 0.0) == pytest.approx(half.worth(1, 0.0), rel=0.3)


def test_the_chance_to_return_falls_once_most_have_returned() -> None:
    times = learned([10.0] * 6000, 4000)
    assert times.return_probability(1, 0.0) == pytest.approx(0.6, abs=0.02)
    assert times.return_probability(1, 1000.0) < 0.1


def test_one_that_was_forgotten_says_nothing_of_later_times() -> None:
    times = learned([300.0] * 1000, 0)
    for _ in range(1000):
        times.observe_wait(1, 30.0)
    times.learn()
    assert times.return_probability(1, 0.0) > 0.9
    assert learned([300.0] * 1000, 1000).return_probability(1, 0.0) < 0.6


def test_those_that_wait_still_count_as_not_back_yet() -> None:
    times = ReturnTimes()
    for _ in range(1000):
        times.observe_return(1, 10.0)
    times.learn()
    before = times.return_probability(1, 0.0)
    times.learn([(1, 300.0)] * 1000)
    assert before > 0.9
    assert times.return_probability(1, 0.0) < 0.7


def test_a_group_never_seen_is_judged_as_all_others() -> None:
    times = learned([10.0] * 5000, 0)
    assert times.worth(7, 1.0) == pytest.approx(times.worth(1, 1.0), rel=0.1)
    assert math.isfinite(ReturnTimes().worth(3, 1e12))
