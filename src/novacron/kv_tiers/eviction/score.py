"""The multi-factor score: how strongly several reasons together speak for a block's leaving.

Pure. Each factor is from 0 (keep) to 1 (drop); the score is their mean by weight, raised by the
pressure on the tier. Used more lately or more often, or of more importance: never a higher score.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

from novacron.errors import ConfigError


@dataclass(slots=True)
class Factors:
    """0 keep, 1 drop."""

    temporal: float
    frequency: float
    prediction: float
    size: float
    recompute: float
    context: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What each factor counts. All zero: nothing speaks for leaving."""

    temporal: float = 0.25
    frequency: float = 0.15
    prediction: float = 0.45
    size: float = 0.0
    recompute: float = 0.05
    context: float = 0.1

    def __post_init__(self) -> None:
        for part in fields(self):
            weight = getattr(self, part.name)
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"The weight {part.name} is {weight!r}: give 0 or more.")

    def __str__(self) -> str:
        """As `parse` reads it."""
        given = {part.name: getattr(self, part.name) for part in fields(self)}
        return ",".join(f"{name}={weight:g}" for name, weight in given.items() if weight)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From "temporal=0.5,frequency=0.5"; what is not named is 0. Raises ConfigError."""
        names = [part.name for part in fields(cls)]
        given = dict.fromkeys(names, 0.0)
        for part in text.split(","):
            name, _, number = part.strip().partition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = -1.0
            if name not in names or weight < 0:
                raise ConfigError(
                    f"'{part.strip()}' is no weight: write NAME=NUMBER with a name of "
                    f"{', '.join(names)}, and 0 or more."
                )
            given[name] = weight
        if not any(given.values()):
            raise ConfigError(
                "all weights are 0, so no block would leave before another: raise one."
            )
        return cls(**given)


@dataclass(slots=True)
class Evidence:
    """What is known of a block when it is judged."""

    idle_s: float
    num_uses: int
    return_probability: float
    size_fraction: float  # of the largest block's
    cost_fraction: float  # to compute it again, of the costliest block's
    importance: float  # 0 to 1


def factors_of(evidence: Evidence, half_life_s: float) -> Factors:
    """A block idle for `half_life_s` has half of the temporal reason to leave."""
    return Factors(
        temporal=1 - 0.5 ** (max(0.0, evidence.idle_s) / half_life_s),
        frequency=1 / (1 + max(0, evidence.num_uses)),
        prediction=1 - _clamped(evidence.return_probability),
        size=_clamped(evidence.size_fraction),
        recompute=1 - _clamped(evidence.cost_fraction),
        context=1 - _clamped(evidence.importance),
    )


def score(factors: Factors, weights: Weights, pressure: float = 0.0) -> float:
    """From 0 to 1. `pressure` from 0 to 1 takes up to half of what is missing to 1 away."""
    total = (
        weights.temporal
        + weights.frequency
        + weights.prediction
        + weights.size
        + weights.recompute
        + weights.context
    )
    weighted = (
        weights.temporal * factors.temporal
        + weights.frequency * factors.frequency
        + weights.prediction * factors.prediction
        + weights.size * factors.size
        + weights.recompute * factors.recompute
        + weights.context * factors.context
    )
    mean = _clamped(weighted / total) if total > 0 else 0.0
    return mean + _clamped(pressure) / 2 * (1 - mean)


def nudged(weights: Weights, start: Weights, factors: Factors, rate: float) -> Weights:
    """After a regret: what spoke most for dropping the block counts less from now on, by the share
    `rate`, what spoke against it more. No weight leaves half to double of what it was at `start`.
    """
    middle = sum(getattr(factors, part.name) for part in fields(factors)) / len(fields(factors))
    changes = {}
    for part in fields(weights):
        first = getattr(start, part.name)
        change = 1 - rate * (getattr(factors, part.name) - middle)
        changes[part.name] = min(2 * first, max(first / 2, getattr(weights, part.name) * change))
    return replace(weights, **changes)


def _clamped(value: float) -> float:
    return min(1.0, max(0.0, value))
