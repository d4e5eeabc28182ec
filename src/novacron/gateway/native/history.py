"""The last minutes in numbers: a ring of samples for GET /api/v1/llm/metrics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from msgspec import Struct

from novacron.gateway.service import Service
from novacron.observability.metrics import Histogram
from novacron.observability.ratios import hit_rate

SAMPLE_INTERVAL_S = 5.0
_NUM_SAMPLES = 120


class Latency(Struct, frozen=True, kw_only=True):
    """Milliseconds, oldest first: means of each interval, or of the last one that had any."""

    avg_per_token_latency: tuple[float, ...]
    avg_first_token_latency: tuple[float, ...]
    avg_request_latency: tuple[float, ...]


class Throughput(Struct, frozen=True, kw_only=True):
    """Per second, oldest first."""

    tokens_per_second: tuple[float, ...]
    requests_per_second: tuple[float, ...]


class CachePerformance(Struct, frozen=True, kw_only=True):
    """Shares from 0 to 1, oldest first, since the engine's start."""

    overall_hit_rate: tuple[float, ...]


class QualityMetrics(Struct, frozen=True, kw_only=True):
    """The last offline evaluation of the model; empty if there is none. Nothing is estimated."""

    quality_score: tuple[float, ...]


class InferenceMetrics(Struct, frozen=True, kw_only=True):
    """Lists may start at different times: a value is listed once it is known."""

    sample_interval_s: float
    latency: Latency
    throughput: Throughput
    cache_performance: CachePerformance
    quality_metrics: QualityMetrics
    requests_by_finish_reason: dict[str, int]
    errors: dict[str, int]


class _Means:
    """The mean of a histogram's observations between two looks at it."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._sum = 0.0
        self._count = 0
        self.values: deque[float] = deque(maxlen=_NUM_SAMPLES)

    def sample(self) -> None:
        count = self._histogram.count - self._count
        if count:
            self.values.append((self._histogram.sum - self._sum) / count)
            self._sum, self._count = self._histogram.sum, self._histogram.count
        elif self.values:
            self.values.append(self.values[-1])

    def milliseconds(self) -> tuple[float, ...]:
        return tuple(round(value * 1000, 3) for value in self.values)


class _Rates:
    """How fast a total grows."""

    def __init__(self, total: Callable[[], float]) -> None:
        self._total = total
        self._last = total()
        self.values: deque[float] = deque(maxlen=_NUM_SAMPLES)

    def sample(self, elapsed_s: float) -> None:
        total = self._total()
        grown = max(0.0, total - self._last)  # an engine that was restarted counts from 0
        self._last = total
        self.values.append(round(grown / elapsed_s, 3))


class History:
    """Sampled on a timer, and once more by whoever looks."""

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._sampled_at_s = clock()
        metrics = service.metrics
        self._per_token = _Means(metrics.inter_token)
        self._first_token = _Means(metrics.first_token)
        self._request = _Means(metrics.latency)
        self._tokens = _Rates(lambda: metrics.generation_tokens.sum)
        self._requests = _Rates(lambda: metrics.latency.count)
        self._hit_rates: deque[float] = deque(maxlen=_NUM_SAMPLES)

    def sample(self) -> None:
        now_s = self._clock()
        elapsed_s = now_s - self._sampled_at_s
        if elapsed_s <= 0:
            return
        self._sampled_at_s = now_s
        for means in (self._per_token, self._first_token, self._request):
            means.sample()
        for rates in (self._tokens, self._requests):
            rates.sample(elapsed_s)
        share = hit_rate(self._service.client.stats)
        if share is not None:
            self._hit_rates.append(round(share, 4))

    def inference_metrics(self) -> InferenceMetrics:
        self.sample()
        metrics = self._service.metrics
        quality = () if metrics.quality_score is None else (metrics.quality_score,)
        return InferenceMetrics(
            sample_interval_s=SAMPLE_INTERVAL_S,
            latency=Latency(
                avg_per_token_latency=self._per_token.milliseconds(),
                avg_first_token_latency=self._first_token.milliseconds(),
                avg_request_latency=self._request.milliseconds(),
            ),
            throughput=Throughput(
                tokens_per_second=tuple(self._tokens.values),
                requests_per_second=tuple(self._requests.values),
            ),
            cache_performance=CachePerformance(overall_hit_rate=tuple(self._hit_rates)),
            quality_metrics=QualityMetrics(quality_score=quality),
            requests_by_finish_reason=dict(metrics.finished),
            errors=dict(metrics.errors),
        )
