"""What a list of measurements says, and how sure it is. Pure; numpy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Samples = Sequence[float]
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # along the last axis

_RESAMPLES = 1000
_Z = 1.959964
_MOST_RESAMPLED = 1000  # samples beyond these barely narrow an interval, but cost time


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of one metric. The interval is that of the median."""

    count: int
    mean: float
    stddev: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    ci_low: float
    ci_high: float


def percentile(samples: Samples, q: float) -> float:
    """The value below which `q` per cent of the samples lie, interpolated between neighbours."""
    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def summarise(samples: Samples, *, seed: int = 0) -> Summary:
    """Raises ValueError if there are no samples."""
    if not len(samples):
        raise ValueError("no samples to summarise")
    values = np.asarray(samples, dtype=np.float64)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
    interval = bootstrap_interval(samples, seed=seed)
    return Summary(
        count=len(values),
        mean=float(values.mean()),
        stddev=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        ci_low=interval.low,
        ci_high=interval.high,
    )


def median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.median(values, axis=-1))


def bootstrap_interval(
    samples: Samples, statistic: Statistic = median, *, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a statistic (Efron 1979). One sample has no spread."""
    return _interval_of(statistic(_resampled(samples, np.random.default_rng(seed))))


def ratio_interval(samples: Samples, baseline: Samples, *, seed: int = 0) -> Interval:
    """Bootstrap interval of median(samples) / median(baseline), drawn independently."""
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = median(_resampled(samples, rng)) / median(_resampled(baseline, rng))
    return _interval_of(ratios)


def wilson_interval(successes: int, total: int, z: float = _Z) -> Interval:
    """Score interval of a proportion (Wilson 1927): sound near 0 and 1 and for few trials."""
    if total == 0:
        return Interval(0.0, 1.0)
    share = successes / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def paired_share_interval(only_first: int, only_second: int, total: int) -> Interval:
    """Interval of the second share less the first, of two runs over the same `total` questions.

    Takes the numbers of questions that only one of the runs answered correctly. Half a question is
    added to each of the four cases (Agresti and Min 2005), so that runs which never differ do not
    seem to be equal for certain.
    """
    total_2, discordant = total + 2, only_first + only_second + 1
    difference = (only_second - only_first) / total_2
    spread = _Z / total_2 * math.sqrt(discordant - (only_second - only_first) ** 2 / total_2)
    return Interval(max(-1.0, difference - spread), min(1.0, difference + spread))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Two-sided exact test (McNemar 1947) that two runs over the same questions are equally good.

    Takes the numbers of questions that only one of the runs answered correctly.
    """
    discordant = only_first + only_second
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def _resampled(samples: Samples, rng: np.random.Generator) -> NDArray[np.float64]:
    values = np.asarray(samples, dtype=np.float64)
    if len(values) > _MOST_RESAMPLED:
        values = rng.choice(values, _MOST_RESAMPLED, replace=False)
    return values[rng.integers(0, len(values), size=(_RESAMPLES, len(values)))]


def _interval_of(statistics: NDArray[Any]) -> Interval:
    low, high = np.percentile(statistics, (2.5, 97.5), method="nearest")  # also of inf
    return Interval(float(low), float(high))
