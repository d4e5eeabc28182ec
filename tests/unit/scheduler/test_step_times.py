from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.scheduler.step_times import StepTimes


def test_nothing_is_believed_before_the_first_step() -> None:
    assert StepTimes().estimate_s(7) == 0.0


def test_between_sizes_it_interpolates_and_outside_it_hopes() -> None:
    times = StepTimes()
    times.observe(6, 3.0)
    times.observe(2, 1.0)
    assert [times.estimate_s(size) for size in (1, 2, 4, 6, 100)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.lists(st.floats(0.9, 1.1), min_size=3, max_size=10), st.floats(5.0, 1e3))
def test_an_outlier_changes_little(usual: list[float], outlier: float) -> None:
    times = StepTimes()
    for place, seconds in enumerate(usual):
        times.observe(4, outlier if place == len(usual) // 2 else seconds)
    assert 0.9 <= times.estimate_s(4) <= 1.1


def test_an_outlier_at_first_is_corrected_by_the_next_measurement() -> None:
    times = StepTimes()
    times.observe(4, 50.0)
    times.observe(4, 1.0)
    assert times.estimate_s(4) == 1.0


def test_the_latest_measurements_count() -> None:
    times = StepTimes()
    for seconds in [1.0] * 10 + [2.0] * 8:
        times.observe(4, seconds)
    assert times.estimate_s(4) == 2.0


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=60))
def test_what_grows_with_the_tokens_is_estimated_so(sizes: list[int]) -> None:
    """Whatever sizes come in whatever order, estimates never fall, and stay below the largest."""
    times = StepTimes()
    for size in sizes:
        times.observe(size, 1.0 + 0.25 * size)
    estimates = [times.estimate_s(size) for size in range(1, 5500, 50)]
    assert all(b >= a - 1e-9 for a, b in pairwise(estimates))
    assert estimates[-1] <= 1.0 + 0.25 * max(sizes)


@given(st.integers(8, 5000), st.integers(1, 300))
def test_a_straight_line_is_found_again(size: int, more: int) -> None:
    times = StepTimes()
    for tokens in (1, size, size + more, 6000):
        times.observe(tokens, 1.0 + 0.25 * tokens)
    assert times.estimate_s(size + more // 2) == pytest.approx(
        1.0 + 0.25 * (size + more // 2), rel=0.15
    )
