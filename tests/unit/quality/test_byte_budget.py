from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.errors import ConfigError
from novacron.quality import byte_budget
from novacron.quality.byte_budget import Allotment, Option, allot

options = st.builds(Option, st.integers(0, 60), st.floats(0, 10).map(lambda loss: round(loss, 3)))
models = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=5)


def least_loss(parts: list[list[Option]], budget: int) -> float:
    """By trying all."""
    return min(
        sum(one.loss for one in chosen)
        for chosen in itertools.product(*parts)
        if sum(one.num_bytes for one in chosen) <= budget
    )


def check(found: Allotment, parts: list[list[Option]], budget: int) -> None:
    chosen = [part[choice] for part, choice in zip(parts, found.choices, strict=True)]
    assert found.num_bytes == sum(one.num_bytes for one in chosen) <= budget
    assert found.loss == pytest.approx(sum(one.loss for one in chosen))


@given(models, st.integers(0, 200))
def test_nothing_within_the_budget_loses_less(parts: list[list[Option]], spare: int) -> None:
    budget = sum(min(one.num_bytes for one in part) for part in parts) + spare
    found = allot(parts, budget)
    check(found, parts, budget)
    assert found.is_exact
    assert found.loss == pytest.approx(least_loss(parts, budget))
    assert found.lower_bound == found.loss


@given(models, st.integers(0, 200))
def test_coarse_granules_stay_within_the_budget_and_tell_how_far_off_they_may_be(
    parts: list[list[Option]], spare: int
) -> None:
    budget = sum(min(one.num_bytes for one in part) for part in parts) + spare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_budget, "_MOST_GRANULES", 5)
        found = allot(parts, budget)
    check(found, parts, budget)
    best = least_loss(parts, budget)
    assert found.lower_bound <= best + 1e-9
    assert best <= found.loss + 1e-9
    if found.is_exact:
        assert found.loss == pytest.approx(best)


def test_more_bytes_go_where_they_save_most() -> None:
    parts = [[Option(4, 1.0), Option(8, 0.1)], [Option(4, 5.0), Option(8, 0.2)]]
    assert allot(parts, 8).choices == (0, 0)
    assert allot(parts, 12).choices == (0, 1)
    assert allot(parts, 10**15).choices == (1, 1)


def test_a_budget_below_the_smallest_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"1,000 bytes are too few.*take 1,500"):
        allot([[Option(1500, 1.0), Option(3000, 0.0)]], 1000)


def test_many_parts_of_odd_sizes_are_solved() -> None:
    sizes = [1_048_583 * (3 + part % 7) for part in range(200)]
    parts = [
        [Option(size // 2 + part, part * 0.01), Option(size, 0.0)]
        for part, size in enumerate(sizes)
    ]
    budget = int(0.75 * sum(sizes))
    found = allot(parts, budget)
    assert found.num_bytes <= budget
    assert not found.is_exact
    assert found.lower_bound <= found.loss <= 1.01 * found.lower_bound
