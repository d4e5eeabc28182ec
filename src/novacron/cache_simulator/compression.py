"""What levels of compression do to a tier, in figures: how much smaller blocks are, and how long
they take to be made whole again.

Ratios are those of bfloat16 in blocks of 16 tokens with heads of 64 or more (ADR 27); they get
better with larger blocks. Decoding is native code on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["raw", "int8", "fp8", "int8/int4", "int4"]


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """`whole_bytes_per_s` of blocks as they were before."""

    ratio: float
    whole_bytes_per_s: float


FIGURES: Final[Mapping[Level, LevelFigures]] = {
    "raw": LevelFigures(1.0, float("inf")),
    "int8": LevelFigures(1.86, 3e9),
    "fp8": LevelFigures(1.86, 3e9),
    "int8/int4": LevelFigures(2.37, 3e9),
    "int4": LevelFigures(3.37, 3e9),
}
