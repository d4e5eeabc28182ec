"""Pressure: how full a tier is, in words. Thresholds are data, by kind of tier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Pressure = Literal["low", "medium", "high", "critical"]


@dataclass(frozen=True, slots=True)
class PressureThresholds:
    """Fractions of a tier's size from which on pressure has the name."""

    medium: float
    high: float
    critical: float


THRESHOLDS: Final[Mapping[str, PressureThresholds]] = {
    "device": PressureThresholds(0.70, 0.85, 0.95),
    "ram": PressureThresholds(0.60, 0.80, 0.90),
    "disk": PressureThresholds(0.80, 0.90, 0.95),
}


def pressure_of(kind: str, used_bytes: int, capacity_bytes: int) -> Pressure:
    """Kinds without thresholds of their own have those of a disk."""
    fraction = used_bytes / capacity_bytes if capacity_bytes > 0 else 0.0
    thresholds = THRESHOLDS.get(kind, THRESHOLDS["disk"])
    if fraction >= thresholds.critical:
        return "critical"
    if fraction >= thresholds.high:
        return "high"
    return "medium" if fraction >= thresholds.medium else "low"
