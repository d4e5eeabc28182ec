"""Latencies in buckets, against the numbers themselves."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from novacron.records.latency_counts import EDGES_S, LatencyCounts

SECONDS = st.lists(st.floats(1.01 * EDGES_S[0], EDGES_S[-1]), min_size=1, max_size=50)


@given(SECONDS, st.floats(0.01, 1.0))
def test_a_quantile_is_right_within_a_factor_of_two(seconds: list[float], share: float) -> None:
    counts = sum(map(LatencyCounts.of, seconds), LatencyCounts())
    exact = sorted(seconds)[math.ceil(share * len(seconds) - 1e-9) - 1]
    told = counts.quantile_s(share)
    assert told is not None
    assert exact / 2 <= told <= exact * 2
    assert counts.count == len(seconds)


@given(SECONDS, SECONDS)
def test_they_add_up(first: list[float], second: list[float]) -> None:
    parts = [sum(map(LatencyCounts.of, part), LatencyCounts()) for part in (first, second)]
    assert sum(parts) == sum(map(LatencyCounts.of, first + second))


def test_of_nothing_there_is_no_quantile_and_what_takes_very_long_is_counted() -> None:
    assert LatencyCounts().quantile_s(0.5) is None
    assert LatencyCounts.of(1000.0).quantile_s(0.99) == EDGES_S[-1]
    assert 0 < (LatencyCounts.of(0.0).quantile_s(0.5) or 0) <= EDGES_S[0]
