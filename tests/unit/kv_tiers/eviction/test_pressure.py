from __future__ import annotations

import pytest

from novacron.kv_tiers.eviction.pressure import pressure_of


@pytest.mark.parametrize(
    ("kind", "used", "expected"),
    [
        ("ram", 59, "low"),
        ("ram", 60, "medium"),
        ("ram", 80, "high"),
        ("ram", 90, "critical"),
        ("disk", 79, "low"),
        ("disk", 80, "medium"),
        ("disk", 95, "critical"),
        ("another kind", 89, "medium"),
    ],
)
def test_pressure_has_a_name(kind: str, used: int, expected: str) -> None:
    assert pressure_of(kind, used, 100) == expected


def test_a_tier_without_room_is_under_no_pressure() -> None:
    assert pressure_of("ram", 0, 0) == "low"
