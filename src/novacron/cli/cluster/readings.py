"""What a server says of itself at a moment, and how fast it was between two of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from novacron.cli.api_client import Json

_FIRST_TOKEN = "vllm:time_to_first_token_seconds"
_INTER_TOKEN = "vllm:inter_token_latency_seconds"
_LATENCY = "vllm:e2e_request_latency_seconds"
_ERRORS = "novacron_request_errors_total"


@dataclass(frozen=True)
class Reading:
    """`status` is the answer of cluster/status, `totals` are what of /metrics only grows."""

    time_s: float
    status: Json
    totals: Mapping[str, float]
    first_token: Mapping[float, float]  # calls by the bound on their time

    @classmethod
    def of(cls, time_s: float, status: Json, metrics: str) -> Reading:
        totals: dict[str, float] = {}
        first_token: dict[float, float] = {}
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name == f"{_FIRST_TOKEN}_bucket":
                    first_token[float(sample.labels["le"])] = sample.value
                elif sample.name.endswith(("_sum", "_count", "_total")):
                    totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
        return cls(time_s, status, totals, first_token)

    @property
    def replicas(self) -> Sequence[Json]:
        found: Sequence[Json] = self.status["replicas"]
        return found


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Between two readings. Seconds are None where nothing happened."""

    requests_per_s: float
    errors_per_s: float
    tokens_per_s: Mapping[str, float]  # generated, by replica
    prompt_tokens_per_s: Mapping[str, float]
    first_token_s: float | None
    first_token_p95_s: float | None
    inter_token_s: float | None

    @property
    def all_tokens_per_s(self) -> float:
        return sum(self.tokens_per_s.values())


def pace(earlier: Reading, later: Reading) -> Pace:
    elapsed_s = max(1e-9, later.time_s - earlier.time_s)

    def grown(name: str) -> float:
        """An engine or a server that was started anew counts from 0."""
        return max(0.0, later.totals.get(name, 0.0) - earlier.totals.get(name, 0.0))

    def mean_s(name: str) -> float | None:
        count = grown(f"{name}_count")
        return grown(f"{name}_sum") / count if count else None

    def by_replica(name: str) -> dict[str, float]:
        before = {one["replica_id"]: one[name] for one in earlier.replicas}
        return {
            one["replica_id"]: max(0.0, one[name] - before.get(one["replica_id"], 0)) / elapsed_s
            for one in later.replicas
        }

    return Pace(
        requests_per_s=grown(f"{_LATENCY}_count") / elapsed_s,
        errors_per_s=grown(_ERRORS) / elapsed_s,
        tokens_per_s=by_replica("generation_tokens"),
        prompt_tokens_per_s=by_replica("prompt_tokens"),
        first_token_s=mean_s(_FIRST_TOKEN),
        first_token_p95_s=_quantile(0.95, earlier.first_token, later.first_token),
        inter_token_s=mean_s(_INTER_TOKEN),
    )


def _quantile(
    share: float, earlier: Mapping[float, float], later: Mapping[float, float]
) -> float | None:
    """By the bucket that it falls into, as if times were spread evenly there."""
    buckets = [(bound, later[bound] - earlier.get(bound, 0.0)) for bound in sorted(later)]
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low
