"""Silence: whether the other end of a link is to be given up. Pure.

Counted in looks, as in HeartMonitor: where this process slept as well, nobody is blamed.
"""

from __future__ import annotations

from typing import Final

LOOK_S: Final = 0.5  # between two signs of life, and between two looks


class Silence:
    """`timeout_s`: the longest that may pass without a message."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._num_silent = 0

    def hear(self) -> None:
        self._num_silent = 0

    def look(self) -> bool:
        """To be called every LOOK_S. Whether it has lasted too long."""
        self._num_silent += 1
        return (self._num_silent - 1) * LOOK_S > self._timeout_s
