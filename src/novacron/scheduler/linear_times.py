"""LinearTimes: a latency and a time for each piece, learnt from what pieces took together."""

from __future__ import annotations

from typing import Final

_MEMORY: Final = 0.85  # what a sample still weighs when the next one comes
_MOST_TIMES_AS_LONG: Final = 4.0  # than expected: the machine was busy with something else


class LinearTimes:
    """latency_s + num_pieces * per_piece_s, both at least 0, fitted to the latest samples.

    What is expected before there is a sample counts like one of `expected_pieces`. A sample that
    took much longer than expected counts as one that took some times as long: one that is out of
    the ordinary changes little, several do.
    """

    def __init__(
        self, latency_s: float = 0.0, per_piece_s: float = 0.0, expected_pieces: int = 0
    ) -> None:
        self.latency_s, self.per_piece_s = latency_s, per_piece_s
        self.num_samples = 0
        self._weight = self._x = self._xx = self._y = self._xy = 0.0
        if expected_pieces > 0:
            self._take(expected_pieces, self.estimate_s(expected_pieces))

    def estimate_s(self, num_pieces: int) -> float:
        return self.latency_s + num_pieces * self.per_piece_s

    def observe(self, num_pieces: int, seconds: float) -> None:
        expected_s = self.estimate_s(num_pieces)
        if expected_s > 0:
            seconds = min(seconds, _MOST_TIMES_AS_LONG * expected_s)
        self.num_samples += 1
        self._take(num_pieces, seconds)
        self._fit()

    def hope(self, factor: float) -> None:
        """Expect less: what is never tried is never measured again."""
        self._y *= factor
        self._xy *= factor
        self.latency_s *= factor
        self.per_piece_s *= factor

    def _take(self, num_pieces: int, seconds: float) -> None:
        x = float(num_pieces)
        self._weight = self._weight * _MEMORY + 1.0
        self._x = self._x * _MEMORY + x
        self._xx = self._xx * _MEMORY + x * x
        self._y = self._y * _MEMORY + seconds
        self._xy = self._xy * _MEMORY + x * seconds

    def _fit(self) -> None:
        spread = self._weight * self._xx - self._x * self._x
        slope = 0.0
        if spread > 1e-6 * self._weight * self._xx:  # else all samples are of one size
            slope = (self._weight * self._xy - self._x * self._y) / spread
        offset = (self._y - slope * self._x) / self._weight
        if slope <= 0 or offset < 0:
            # A line through the origin: it is sizes that cost, as far as can be told.
            slope, offset = (self._xy / self._xx if self._xx else 0.0), 0.0
        self.per_piece_s, self.latency_s = slope, offset
