"""How long a step of so many tokens takes, learnt from the steps that ran."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_NUM_SAMPLES: Final = 8
_LEADING_BITS: Final = 3  # sizes with the same ones share their samples, so that noise averages out


@dataclass(slots=True)
class _Group:
    """The latest steps of about one size."""

    sizes: deque[int] = field(default_factory=lambda: deque(maxlen=_NUM_SAMPLES))
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=_NUM_SAMPLES))

    @property
    def point(self) -> tuple[float, float]:
        """Tokens and seconds. The shortest time, because other work on the machine only adds."""
        return sum(self.sizes) / len(self.sizes), min(self.times_s)


class StepTimes:
    """Durations by number of tokens, straight lines between what was measured.

    Outside of it hope rules, so that it is tried: below the smallest step a token less saves its
    full share, above the largest one a token more costs nothing.
    """

    def __init__(self) -> None:
        self._groups: dict[int, _Group] = {}
        self._keys: list[int] = []
        self._points: list[tuple[float, float]] = []  # of the groups, in the order of `_keys`

    def observe(self, num_tokens: int, seconds: float) -> None:
        shift = max(0, num_tokens.bit_length() - _LEADING_BITS)
        key = num_tokens >> shift << shift
        if key not in self._groups:
            self._groups[key] = _Group()
            insort(self._keys, key)
            self._points.insert(self._keys.index(key), (0.0, 0.0))
        group = self._groups[key]
        group.sizes.append(num_tokens)
        group.times_s.append(seconds)
        self._points[bisect_left(self._keys, key)] = group.point

    def estimate_s(self, num_tokens: int) -> float:
        """0 before the first measurement."""
        place = bisect_left(self._points, (float(num_tokens), 0.0))
        if place == len(self._points):
            return self._points[-1][1] if self._points else 0.0
        low, low_s = self._points[place - 1] if place > 0 else (0.0, 0.0)
        high, high_s = self._points[place]
        return low_s + (high_s - low_s) * (num_tokens - low) / (high - low)
