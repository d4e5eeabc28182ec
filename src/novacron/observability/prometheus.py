"""All metrics in Prometheus' text format.

`vllm:` names are used where the meaning is vLLM's, so that its dashboards and scalers work; `llm_`
names are those of NovaCron's own dashboards; `novacron_` is what neither has. Each module whose
name ends with values or counts, and metrics.py, define those that they tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from novacron.observability import (
    audit_counts,
    engine_values,
    guardian_values,
    metrics,
    parallel_values,
    replica_values,
    response_cache_counts,
    share_values,
    tier_values,
    variant_values,
)
from novacron.observability.definition import Definition, Sample, Values
from novacron.observability.metrics import Metrics
from novacron.observability.snapshots import EngineSnapshot

_MODULES = (
    engine_values,
    metrics,
    share_values,
    tier_values,
    variant_values,
    replica_values,
    parallel_values,
    guardian_values,
    response_cache_counts,
    audit_counts,
)

DEFINITIONS: Mapping[str, Definition] = {
    row.name: row for module in _MODULES for row in module.DEFINITIONS
}


def prometheus_text(of_calls: Metrics, engine: EngineSnapshot, model_name: str) -> bytes:
    """Everything in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(of_calls, engine, model_name))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, of_calls: Metrics, engine: EngineSnapshot, model_name: str) -> None:
        self._of_calls = of_calls
        self._engine = engine
        self._model_name = model_name

    def collect(self) -> Iterator[Metric]:
        values = self._values()
        for definition in DEFINITIONS.values():
            if definition.kind == "histogram":
                yield self._histogram(definition)
            else:
                yield self._samples(definition, values.get(definition.name, ()))

    def _values(self) -> Values:
        of_calls, engine = self._of_calls, self._engine
        return {
            **metrics.call_values(of_calls),
            **guardian_values.guardian_values(of_calls.guardians),
            **response_cache_counts.response_cache_values(of_calls.response_cache),
            **audit_counts.audit_values(of_calls.audit),
            **engine_values.engine_values(engine),
            **share_values.share_values(engine.stats.shares),
            **tier_values.tier_values(engine.stats),
            **variant_values.variant_values(engine, of_calls.quality_score),
            **replica_values.replica_values(engine.replicas, engine.states),
            **parallel_values.parallel_values(engine.replicas),
        }

    def _histogram(self, definition: Definition) -> Metric:
        histogram = self._of_calls.histograms[definition.name]
        family = HistogramMetricFamily(definition.name, definition.help, labels=("model_name",))
        family.add_metric((self._model_name,), histogram.cumulative(), histogram.sum)
        return family

    def _samples(self, definition: Definition, samples: Iterable[Sample]) -> Metric:
        family_class = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
        labels = ("model_name", *definition.labels)
        family = family_class(definition.name, definition.help, labels=labels)
        for label_values, value in samples:
            family.add_metric((self._model_name, *label_values), value)
        return family
