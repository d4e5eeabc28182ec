"""The numbers that this process gathers from the calls it serves.

Everything belongs to one event loop, so nothing is locked and an observation costs well under a
microsecond. prometheus_client only writes the text format: its own histograms lock and add series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from novacron.observability.audit_counts import AuditCounts
from novacron.observability.definition import TOKENS, Values, counter, histogram, single
from novacron.observability.guardian_values import GuardianTotals
from novacron.observability.response_cache_counts import ResponseCacheCounts

DEFINITIONS = (
    counter("vllm:request_success", "Requests that ended, by why.", "finished_reason"),
    histogram("vllm:time_to_first_token_seconds", "Arrival to first token."),
    histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request."),
    histogram("vllm:e2e_request_latency_seconds", "Arrival to last token."),
    histogram("vllm:request_queue_time_seconds", "Arrival to first scheduling."),
    histogram("vllm:request_prefill_time_seconds", "First scheduling to first token."),
    histogram("vllm:request_decode_time_seconds", "First token to last token."),
    histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", TOKENS),
    histogram("vllm:request_generation_tokens", "Generated tokens per request.", TOKENS),
    histogram("llm_request_latency_seconds", "Arrival to last token."),
    counter("llm_requests_completed", "Requests that came to an end of their own."),
    counter("novacron_request_errors", "Calls that failed, by class of error.", "error"),
    histogram(
        "novacron_recovery_pause_seconds",
        "Pause of a request whose engine died, until it went on; the count: how often they did.",
    ),
)


class Histogram:
    """Counts of observations up to each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.count = 0

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times
        self.count += times

    def cumulative(self) -> list[tuple[str, float]]:
        """(bound, observations up to it), as the text format wants them."""
        total, buckets = 0, []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return buckets


@dataclass
class Metrics:
    quality_score: float | None = None
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {
            definition.name: Histogram(definition.buckets)
            for definition in DEFINITIONS
            if definition.kind == "histogram"
        }
    )
    finished: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    guardians: GuardianTotals = field(default_factory=GuardianTotals)
    response_cache: ResponseCacheCounts | None = None
    audit: AuditCounts | None = None

    def __post_init__(self) -> None:
        by_name = self.histograms
        self.first_token = by_name["vllm:time_to_first_token_seconds"]
        self.inter_token = by_name["vllm:inter_token_latency_seconds"]
        self.queue_time = by_name["vllm:request_queue_time_seconds"]
        self.prefill_time = by_name["vllm:request_prefill_time_seconds"]
        self.decode_time = by_name["vllm:request_decode_time_seconds"]
        self.latency = by_name["vllm:e2e_request_latency_seconds"]
        self.prompt_tokens = by_name["vllm:request_prompt_tokens"]
        self.generation_tokens = by_name["vllm:request_generation_tokens"]
        self.recovery_pause = by_name["novacron_recovery_pause_seconds"]
        by_name["llm_request_latency_seconds"] = self.latency  # one measurement, two names


def call_values(metrics: Metrics) -> Values:
    completed = metrics.finished["stop"] + metrics.finished["length"]
    return {
        "vllm:request_success": [
            ((reason,), float(count)) for reason, count in sorted(metrics.finished.items())
        ],
        "llm_requests_completed": single(completed),
        "novacron_request_errors": [
            ((error,), float(count)) for error, count in sorted(metrics.errors.items())
        ],
    }
