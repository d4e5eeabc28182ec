from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.config.key_shares import PRIORITIES
from novacron.records.output import EngineStats, sum_of
from novacron.records.share_stats import CLASSES, ClassStats, ShareStats, class_of


@pytest.mark.parametrize("name", CLASSES)
def test_a_named_priority_is_its_own_class(name: str) -> None:
    assert CLASSES[class_of(PRIORITIES[name])] == name


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_number_belongs_to_the_nearest_name(priority: int) -> None:
    found = PRIORITIES[CLASSES[class_of(priority)]]
    assert abs(priority - found) == min(abs(priority - number) for number in PRIORITIES.values())


def test_replicas_add_up() -> None:
    one = ShareStats(classes=(ClassStats(num_shed=1), *(ClassStats(),) * 3), num_tenants=2)
    assert sum_of([EngineStats(shares=one)] * 3).shares == ShareStats(
        classes=(ClassStats(num_shed=3), *(ClassStats(),) * 3), num_tenants=6
    )
