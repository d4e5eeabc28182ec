"""The report about the KV cache: a window of its figures, where they are going, and what to do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from novacron.gateway.native.cache_advice import Finding, findings, trend
from novacron.gateway.native.cache_window import CacheSample, CacheWindow, cache_window, halves
from novacron.records.output import EngineStats

_NUM_SAMPLES = 721  # an hour of them, each 5 s


class CacheTrends(Struct, frozen=True, kw_only=True):
    """The newer half of the window against the older: rising, falling, steady or unknown."""

    hit_rate: str
    session_hit_rate: str
    mean_wait: str


class CacheScores(Struct, frozen=True, kw_only=True):
    """From 0 to 1. `reuse` is the hit rate; `health` is 1 less the worst finding's severity."""

    reuse: float | None
    health: float


class CacheReport(Struct, frozen=True, kw_only=True):
    """The KV cache over the last minutes: figures, trends, bottlenecks with advice, scores.
    `generated_at` is Unix time."""

    generated_at: float
    metrics: CacheWindow
    trends: CacheTrends
    bottlenecks: tuple[Finding, ...]
    scores: CacheScores


class CacheHistory:
    """The engine's totals of the last hour. Sampled on a timer, and once more by whoever looks."""

    def __init__(
        self, stats: Callable[[], EngineStats], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stats = stats
        self._clock = clock
        self._samples = deque([CacheSample(clock(), stats())], maxlen=_NUM_SAMPLES)

    def sample(self) -> None:
        self._samples.append(CacheSample(self._clock(), self._stats()))

    def report(self, window_s: float) -> CacheReport:
        """Of as much of the window as was seen."""
        now = CacheSample(self._clock(), self._stats())
        since_s = now.time_s - window_s
        samples = [sample for sample in self._samples if sample.time_s >= since_s]
        samples = [*(samples or [self._samples[-1]]), now]
        window = cache_window(samples[0], now)
        parts = halves(samples)
        earlier, later = parts or (None, window)
        bottlenecks = findings(window) if earlier is None else _all_findings(window, earlier, later)
        worst = bottlenecks[0].severity if bottlenecks else 0.0
        return CacheReport(
            generated_at=round(time.time(), 3),
            metrics=window,
            trends=_trends(earlier, later),
            bottlenecks=bottlenecks,
            scores=CacheScores(reuse=window.hit_rate, health=round(1.0 - worst, 2)),
        )


def _all_findings(
    window: CacheWindow, earlier: CacheWindow, later: CacheWindow
) -> tuple[Finding, ...]:
    """Of the whole window, and falls within it."""
    whole = findings(window)
    falls = [one for one in findings(later, earlier) if one.kind == "hit_rate_fell"]
    return tuple(sorted([*whole, *falls], key=lambda one: one.severity, reverse=True))


def _trends(earlier: CacheWindow | None, later: CacheWindow) -> CacheTrends:
    if earlier is None:
        return CacheTrends(hit_rate="unknown", session_hit_rate="unknown", mean_wait="unknown")
    return CacheTrends(
        hit_rate=trend(earlier.hit_rate, later.hit_rate),
        session_hit_rate=trend(earlier.session_hit_rate, later.session_hit_rate),
        mean_wait=_relative(earlier.mean_wait_seconds, later.mean_wait_seconds),
    )


def _relative(earlier: float | None, later: float | None) -> str:
    """A time that changed by a fifth is another."""
    if not earlier or later is None:
        return "unknown"
    if abs(later - earlier) < 0.2 * earlier:
        return "steady"
    return "rising" if later > earlier else "falling"
