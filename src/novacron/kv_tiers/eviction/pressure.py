"""Pressure: how scarce what a tier is made of has become, in words, and what is done about it.

A full tier is no pressure: a cache is meant to be full, and each new block takes the place of the
one worth least. Pressure is that the machine's memory or disk runs out, whoever takes it.
Thresholds and actions are data, by kind of tier. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

Pressure = Literal["low", "medium", "high", "critical"]
Action = Literal["store less", "no prefetch", "no growth", "give back"]

LEVELS: Final[tuple[Pressure, ...]] = get_args(Pressure)


@dataclass(frozen=True, slots=True)
class PressureThresholds:
    """Fractions in use from which on pressure has the name; it loses it `margin` below that."""

    medium: float
    high: float
    critical: float
    margin: float = 0.03

    def level(self, fraction: float, now: Pressure = "low") -> Pressure:
        """That of a fraction, where it was `now` until then."""
        held = LEVELS.index(now)
        bounds = (self.medium, self.high, self.critical)
        rank = sum(
            fraction >= bound - (self.margin if place < held else 0.0)
            for place, bound in enumerate(bounds)
        )
        return LEVELS[rank]


# How full a tier is, in the words of its own limit.
THRESHOLDS: Final[Mapping[str, PressureThresholds]] = {
    "device": PressureThresholds(0.70, 0.85, 0.95),
    "ram": PressureThresholds(0.60, 0.80, 0.90),
    "disk": PressureThresholds(0.80, 0.90, 0.95),
}

# How much of the machine's memory, or of the file system, is in use.
SCARCITY: Final[Mapping[str, PressureThresholds]] = {
    "ram": PressureThresholds(0.80, 0.90, 0.95),
    "disk": PressureThresholds(0.90, 0.95, 0.98, margin=0.01),
}

# What is done from each level on.
ACTIONS: Final[Mapping[str, Mapping[str, tuple[Action, ...]]]] = {
    "ram": {
        "high": ("store less", "no prefetch"),
        "critical": ("store less", "no prefetch", "no growth", "give back"),
    },
    "disk": {
        "high": ("store less",),
        "critical": ("store less", "no growth"),
    },
}


def actions_at(kind: str, level: str) -> frozenset[Action]:
    """None for a name that is no level."""
    return frozenset(ACTIONS.get(kind, {}).get(level, ()))


def pressure_of(kind: str, used_bytes: int, capacity_bytes: int) -> Pressure:
    """How full a tier is. Kinds without thresholds of their own have those of a disk."""
    fraction = used_bytes / capacity_bytes if capacity_bytes > 0 else 0.0
    return THRESHOLDS.get(kind, THRESHOLDS["disk"]).level(fraction)
