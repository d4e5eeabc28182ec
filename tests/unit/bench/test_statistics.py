from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.bench.statistics import (
    bootstrap_interval,
    mcnemar_p_value,
    paired_share_interval,
    percentile,
    ratio_interval,
    summarise,
    wilson_interval,
)

samples = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60)


def test_percentile_interpolates_between_neighbours() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2.5
    assert percentile([1, 2, 3, 4, 5], 90) == pytest.approx(4.6)
    assert percentile([7], 99) == 7


def test_summary_of_known_numbers() -> None:
    summary = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert (summary.count, summary.mean, summary.p50) == (8, 5, 4.5)
    assert summary.stddev == pytest.approx(math.sqrt(32 / 7))
    assert (summary.min, summary.max) == (2, 9)


def test_one_sample_has_no_spread() -> None:
    summary = summarise([3.0])
    assert (summary.stddev, summary.ci_low, summary.ci_high) == (0, 3, 3)


def test_nothing_cannot_be_summarised() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise([])


@given(samples)
def test_summary_is_ordered(values: list[float]) -> None:
    s = summarise(values)
    assert s.min <= s.p50 <= s.p90 <= s.p95 <= s.p99 <= s.max
    assert s.min <= s.ci_low <= s.ci_high <= s.max


def test_bootstrap_interval_covers_the_median_about_as_often_as_it_says() -> None:
    rng = random.Random(1)
    covered = 0
    for seed in range(60):
        interval = bootstrap_interval([rng.gauss(10, 2) for _ in range(40)], seed=seed)
        covered += interval.low <= 10 <= interval.high
    assert covered >= 50


def test_bootstrap_is_repeatable_also_for_many_samples() -> None:
    values = [random.Random(n).random() for n in range(3000)]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)


def test_ratio_interval_tells_a_real_change_from_none() -> None:
    rng = random.Random(2)
    base = [rng.gauss(10, 0.5) for _ in range(50)]
    twice = [2 * rng.gauss(10, 0.5) for _ in range(50)]
    low, high = ratio_interval(twice, base)
    assert 1.8 < low < 2 < high < 2.2
    low, high = ratio_interval(base, base)
    assert low < 1 < high


def test_a_ratio_to_what_may_be_nothing_has_an_interval() -> None:
    low, high = ratio_interval([0.0, 1.0], [0.0, 1.0])
    assert not low > high


def test_wilson_interval_against_published_values() -> None:
    low, high = wilson_interval(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10).low == 0
    assert wilson_interval(10, 10).high == pytest.approx(1)
    assert wilson_interval(0, 0) == (0, 1)


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_interval_holds_the_share(successes: int, total: int) -> None:
    successes = min(successes, total)
    low, high = wilson_interval(successes, total)
    assert 0 <= low <= successes / total + 1e-12
    assert successes / total - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("only_first", "only_second", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (9, 1, 0.021484375)],
)
def test_mcnemar_exact(only_first: int, only_second: int, expected: float) -> None:
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(expected)


def test_mcnemar_survives_large_counts() -> None:
    assert 0 < mcnemar_p_value(400, 600) < 1e-8


def test_paired_shares_are_never_equal_for_certain() -> None:
    interval = paired_share_interval(0, 0, 100)
    assert -0.03 < interval.low < 0 < interval.high < 0.03


def test_paired_share_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = random.Random(4)
    covered = 0
    for _ in range(400):
        cases = rng.choices(("both", "lost", "gained"), weights=(92, 6, 2), k=120)
        interval = paired_share_interval(cases.count("lost"), cases.count("gained"), 120)
        covered += interval.low <= -0.04 <= interval.high
    assert 365 <= covered <= 395
