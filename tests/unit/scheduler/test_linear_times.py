"""Times learnt from samples: exact where they lie on a line, and hard to move for one sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.linear_times import LinearTimes


@given(
    st.floats(0.001, 1),
    st.floats(0.0001, 0.1),
    st.lists(st.integers(1, 500), min_size=2, max_size=20, unique=True),
)
def test_a_line_is_found(latency_s: float, per_piece_s: float, sizes: list[int]) -> None:
    times = LinearTimes()
    for size in sorted(sizes, reverse=True):
        times.observe(size, latency_s + size * per_piece_s)
    for size in (1, 100, 1000):
        assert times.estimate_s(size) == pytest.approx(latency_s + size * per_piece_s, rel=1e-3)


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 100)), min_size=1, max_size=30),
    st.integers(0, 64),
)
def test_estimates_are_never_negative_and_grow(
    samples: list[tuple[int, float]], expected: int
) -> None:
    times = LinearTimes(0.001, 0.0001, expected)
    for size, seconds in samples:
        times.observe(size, seconds)
        assert times.latency_s >= 0
        assert times.per_piece_s >= 0


def test_one_sample_out_of_the_ordinary_changes_little_and_many_do() -> None:
    times = LinearTimes(0.001, 0.0001, 64)
    times.observe(64, 60.0)
    assert times.estimate_s(64) < 3 * 0.0074
    for _ in range(40):
        times.observe(64, 60.0)
    assert times.estimate_s(64) > 30.0


def test_hope_lets_what_was_slow_be_tried_again() -> None:
    times = LinearTimes(0.0, 1.0, 10)
    for _ in range(200):
        times.hope(0.98)
    assert times.estimate_s(10) < 0.2
    times.observe(10, 0.3)
    assert times.estimate_s(10) < 0.3
