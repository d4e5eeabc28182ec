"""How fast replicas are, from the totals that engines report. Pure.

Each look at an engine's totals gives one equation: the time inside its steps is that of its prompt
tokens, of its generated tokens and of its steps. Least squares over all looks, the older ones
counting less, tell the three apart as soon as the load varies; what it cannot tell keeps a usual
ratio. Replicas on one machine share an estimate, so that none is avoided for a number that is old.
"""

from __future__ import annotations

from typing import Final

from novacron.cluster.latency import Speed
from novacron.records.output import EngineStats

_USUAL: Final = Speed(prefill_s=5e-5, row_s=1e-4, step_s=2e-3)  # a small model on a CPU
_WEIGHT_OF_USUAL: Final = (64.0, 8.0, 4.0)  # as if so many tokens, requests and steps were measured
_HALF_LIFE_STEPS: Final = 1000.0
_SMALLEST_S: Final = 1e-9

_Row = list[float]


class EngineTotals:
    """What of one engine's totals has been looked at already."""

    def __init__(self) -> None:
        self._seen = EngineStats()

    def news(self, stats: EngineStats) -> tuple[float, float, float, float] | None:
        """Prompt tokens, generated tokens, steps and seconds since the last look; None if there
        were none, or the engine has been started anew."""
        seen, self._seen = self._seen, stats
        num_steps = stats.num_steps - seen.num_steps
        step_s = stats.step_time_s - seen.step_time_s
        if num_steps <= 0 or step_s <= 0:
            return None
        prompt_tokens = float(stats.prompt_tokens - seen.prompt_tokens)
        return (
            prompt_tokens,
            float(stats.generation_tokens - seen.generation_tokens),
            num_steps,
            step_s,
        )


class SpeedEstimate:
    """Sees what engines have done, and tells how long it took."""

    def __init__(self) -> None:
        self._products = [[0.0] * 3 for _ in range(3)]
        self._sums = [0.0] * 3
        self._speed = _USUAL
        self._is_stale = False

    @property
    def speed(self) -> Speed:
        if self._is_stale:
            self._speed, self._is_stale = self._solve(), False
        return self._speed

    def see(self, prompt_tokens: float, output_tokens: float, steps: float, seconds: float) -> None:
        kept = 0.5 ** (steps / _HALF_LIFE_STEPS)
        counts = (prompt_tokens, output_tokens, steps)
        for row, of_row in enumerate(counts):
            products = self._products[row]
            for column, of_column in enumerate(counts):
                products[column] = products[column] * kept + of_row * of_column / steps
            self._sums[row] = self._sums[row] * kept + of_row * seconds / steps
        self._is_stale = True

    def _solve(self) -> Speed:
        """With the usual speed, scaled to what was measured, as three more equations."""
        scale = self._scale()
        rows = [
            [*products, total] for products, total in zip(self._products, self._sums, strict=True)
        ]
        for place, weight in enumerate(_WEIGHT_OF_USUAL):
            rows[place][place] += weight
            rows[place][3] += (
                weight * scale * (_USUAL.prefill_s, _USUAL.row_s, _USUAL.step_s)[place]
            )
        return Speed(*(max(_SMALLEST_S, value) for value in _solved(rows)))

    def _scale(self) -> float:
        """How much longer the measured steps took than usual ones."""
        of_steps = self._products[2]
        usual_s = _USUAL.prefill_s * of_steps[0] + _USUAL.row_s * of_steps[1]
        usual_s += _USUAL.step_s * of_steps[2]
        return self._sums[2] / usual_s if usual_s else 1.0


def _solved(rows: list[_Row]) -> list[float]:
    """Of a symmetric positive system with its right side as the last column: by elimination."""
    size = len(rows)
    for place in range(size):
        for lower in range(place + 1, size):
            factor = rows[lower][place] / rows[place][place]
            for column in range(place, size + 1):
                rows[lower][column] -= factor * rows[place][column]
    values = [0.0] * size
    for place in reversed(range(size)):
        known = sum(rows[place][after] * values[after] for after in range(place + 1, size))
        values[place] = (rows[place][size] - known) / rows[place][place]
    return values
