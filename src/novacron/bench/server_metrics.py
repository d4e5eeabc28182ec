"""A server's own view of itself: its Prometheus metrics, and how they grew during a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from novacron.bench.http_client import HttpClient

Labels = tuple[tuple[str, str], ...]

_REQUEST_PARTS = {
    "queue": "vllm:request_queue_time_seconds",
    "prefill": "vllm:request_prefill_time_seconds",
    "decode": "vllm:request_decode_time_seconds",
}


@dataclass(frozen=True)
class MetricsSnapshot:
    """All samples of a server at one moment, by name and labels. Empty if it has no /metrics."""

    samples: Mapping[tuple[str, Labels], float]

    def total(self, name: str) -> float | None:
        """The sum over all label sets; None if the server does not know the metric."""
        values = [value for (known, _), value in self.samples.items() if known == name]
        return sum(values) if values else None

    def by_label(self, name: str, label: str) -> dict[str, float]:
        return {
            dict(labels)[label]: value
            for (known, labels), value in self.samples.items()
            if known == name and label in dict(labels)
        }


def parse(text: str) -> MetricsSnapshot:
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return MetricsSnapshot(samples)


async def snapshot(client: HttpClient) -> MetricsSnapshot:
    """What /metrics says now. A server without a readable one gives an empty snapshot."""
    exchange = await client.get("/metrics")
    if not exchange.ok:
        return MetricsSnapshot({})
    try:
        return parse(exchange.body.decode("utf-8", "replace"))
    except ValueError:
        return MetricsSnapshot({})


def growth(before: MetricsSnapshot, after: MetricsSnapshot, name: str) -> float | None:
    first, last = before.total(name), after.total(name)
    return None if first is None or last is None else last - first


def mean_step_s(before: MetricsSnapshot, after: MetricsSnapshot) -> float | None:
    """Mean duration of the engine's steps between two snapshots, as the engine timed them."""
    steps = growth(before, after, "novacron_steps_total")
    seconds = growth(before, after, "novacron_step_seconds_total")
    return seconds / steps if steps and seconds is not None else None


def request_parts_s(before: MetricsSnapshot, after: MetricsSnapshot) -> dict[str, float]:
    """Mean seconds that a request spent in each part of the server, where the server tells."""
    parts = {}
    for part, name in _REQUEST_PARTS.items():
        count = growth(before, after, f"{name}_count")
        seconds = growth(before, after, f"{name}_sum")
        if count and seconds is not None:
            parts[part] = seconds / count
    return parts
