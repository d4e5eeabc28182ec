"""All metrics: names, units and meaning in one table, and the numbers behind them.

`vllm:` names are used where the meaning is vLLM's, so that its dashboards and scalers work; `llm_`
names are those of NovaCron's own dashboards; `novacron_` is what neither has. Everything belongs to
one event loop, so nothing is locked and an observation costs well under a microsecond.
prometheus_client only writes the text format: its own histograms lock and add series.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from novacron.observability.audit_counts import AuditCounts
from novacron.observability.guardian_values import GuardianTotals, guardian_values
from novacron.observability.parallel_values import parallel_values
from novacron.observability.replica_values import ReplicaSnapshot, replica_values
from novacron.observability.response_cache_counts import ResponseCacheCounts
from novacron.observability.share_values import share_values
from novacron.records.output import (
    BREAKERS,
    PRESSURES,
    EngineStats,
    ModelSpec,
    RequestOutput,
    SessionStats,
    TierStats,
)

# From one step of a tiny model on a laptop to a long queue before a large one.
_SECONDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0,
)  # fmt: skip
_TOKENS = (
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5,
)  # fmt: skip

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Definition:
    """One row of the table. Counters are named without `_total`, which the text format adds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "gauge", help, labels)


def _counter(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "counter", help, labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...] = _SECONDS) -> Definition:
    return Definition(name, "histogram", help, (), buckets)


_TABLE = (
    _counter(
        "novacron_guardian_verdicts", "Verdicts, by what they say.", "guardian", "stage", "outcome"
    ),
    _counter("novacron_guardian_seconds", "Time that guardians took.", "guardian"),
    _counter("novacron_guardian_cache_hits", "Verdicts that were kept from before.", "guardian"),
    _counter("novacron_guardian_dropped", "Texts that an observer had no time for.", "guardian"),
    _gauge(
        "novacron_guardian_score",
        "Mean score over all calls, as estimated from those that were looked at: from 0 to 1, or "
        "somewhat above while these are few.",
        "guardian",
    ),
    _gauge(
        "novacron_guardian_finding_share",
        "Share of all calls with a finding, as estimated from those that were looked at.",
        "guardian",
    ),
    _counter("novacron_specialist_fallbacks", "Calls that another name answered.", "specialist"),
    _gauge("vllm:num_requests_running", "Requests in the running batch."),
    _gauge("vllm:num_requests_waiting", "Requests waiting to be scheduled."),
    _gauge("vllm:kv_cache_usage_perc", "Share of KV blocks held by requests, 0 to 1."),
    _gauge(
        "vllm:cache_config_info",
        "Shape of the KV cache; always 1.",
        "block_size",
        "num_gpu_blocks",
        "kv_cache_bytes",
    ),
    _counter("vllm:prompt_tokens", "Prompt tokens, cached ones included."),
    _counter("vllm:generation_tokens", "Generated tokens."),
    _counter("vllm:request_success", "Requests that ended, by why.", "finished_reason"),
    _counter(
        "vllm:num_preemptions", "Requests put back into the queue, for lack of KV blocks or seats."
    ),
    _counter(
        "novacron_served_tokens",
        "Tokens of prompts computed or cached, and generated, by named priority.",
        "priority",
        "kind",
    ),
    _counter("novacron_preempted_requests", "Requests put back, by named priority.", "priority"),
    _counter(
        "novacron_shed_requests",
        "Requests sent away from a full queue for others, by named priority.",
        "priority",
    ),
    _gauge(
        "novacron_tenants",
        "Tenants that share the engine, or did within half a minute, with fair shares.",
    ),
    _counter(
        "novacron_ranks_replaced", "Ranks that ended or hung, and whose place a new process took."
    ),
    _counter("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache."),
    _counter("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache."),
    _counter(
        "vllm:spec_decode_num_drafts", "Times that a request's next tokens were guessed.", "method"
    ),
    _counter("vllm:spec_decode_num_draft_tokens", "Tokens guessed.", "method"),
    _counter("vllm:spec_decode_num_accepted_tokens", "Guessed tokens that were right.", "method"),
    _histogram("vllm:time_to_first_token_seconds", "Arrival to first token."),
    _histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request."),
    _histogram("vllm:e2e_request_latency_seconds", "Arrival to last token."),
    _histogram("vllm:request_queue_time_seconds", "Arrival to first scheduling."),
    _histogram("vllm:request_prefill_time_seconds", "First scheduling to first token."),
    _histogram("vllm:request_decode_time_seconds", "First token to last token."),
    _histogram("vllm:request_prompt_tokens", "Prompt tokens per request.", _TOKENS),
    _histogram("vllm:request_generation_tokens", "Generated tokens per request.", _TOKENS),
    _histogram("llm_request_latency_seconds", "Arrival to last token."),
    _counter("llm_tokens_generated", "Generated tokens."),
    _counter("llm_requests_completed", "Requests that came to an end of their own."),
    _gauge(
        "llm_cache_hit_rate",
        "Share of prompt tokens found in a cache since the engine's start, 0 to 1.",
        "cache_level",
    ),
    _gauge(
        "llm_quality_score",
        "Quality over the answers scored last (quality_watch); without a watch the last offline "
        "evaluation, 0 to 1; absent if there is none.",
        "variant",
    ),
    _gauge(
        "novacron_top1_agreement",
        "Share of the tokens scored last at which the reference finds the same token likeliest.",
        "variant",
    ),
    _gauge("novacron_kl_nats", "Divergence from the reference, per token scored last.", "variant"),
    _gauge("novacron_quality_alarm", "1 while an alert holds, else 0.", "variant"),
    _counter(
        "novacron_quality_alerts", "Alerts that the watch over quality has raised.", "variant"
    ),
    _counter("novacron_quality_scored_answers", "Answers scored again.", "variant"),
    _counter(
        "novacron_quality_dropped_answers", "Sampled, and not scored for lack of time.", "variant"
    ),
    _counter("novacron_quality_seconds", "Time that scoring took.", "variant"),
    _gauge(
        "novacron_variant_state", "1 for the state a variant is in, else 0.", "variant", "state"
    ),
    _gauge(
        "novacron_variant_default",
        "1 for the variant that requests go to which ask for none, else 0.",
        "variant",
    ),
    _gauge("novacron_variant_requests", "Requests that a variant runs or that wait.", "variant"),
    _counter("novacron_variant_generation_tokens", "Tokens generated by a variant.", "variant"),
    _counter(
        "novacron_variant_switches",
        "Times that new requests stopped going to a variant for its quality.",
        "variant",
    ),
    _gauge(
        "novacron_replica_state", "1 for the state a replica is in, else 0.", "replica", "state"
    ),
    _counter("novacron_replica_starts", "Engine processes that a replica has had.", "replica"),
    _gauge(
        "novacron_replica_requests",
        "Requests of a replica by what they do: running, waiting.",
        "replica",
        "kind",
    ),
    _gauge(
        "novacron_replica_queued_tokens",
        "Tokens of prompts that were sent to a replica, which it has yet to compute.",
        "replica",
    ),
    _gauge(
        "novacron_replica_kv_usage",
        "Share of a replica's KV blocks held by requests, 0 to 1.",
        "replica",
    ),
    _counter("novacron_replica_generation_tokens", "Tokens generated by a replica.", "replica"),
    _counter(
        "novacron_routing_decisions",
        "Calls that a replica was chosen for, by why: only, session, prefix, spill, load.",
        "replica",
        "why",
    ),
    _counter(
        "novacron_routing_reused_tokens",
        "Prompt tokens that were expected to be cached where a call was sent, and that were found.",
        "replica",
        "kind",
    ),
    _gauge(
        "novacron_rank_up",
        "1 for a rank that computes with the others, 0 while it is replaced.",
        "replica",
        "rank",
        "stage",
    ),
    _counter("novacron_rank_steps", "Steps that a rank has computed.", "replica", "rank", "stage"),
    _counter(
        "novacron_rank_meetings",
        "Sums and concatenations of a rank with the others of its stage.",
        "replica",
        "rank",
        "stage",
    ),
    _counter(
        "novacron_rank_sent_bytes",
        "Bytes that a rank gave other ranks of its stage, and the next stage.",
        "replica",
        "rank",
        "stage",
    ),
    _counter(
        "novacron_rank_waited_seconds",
        "Time that a rank waited in a step: for others of its stage, for the stage before.",
        "replica",
        "rank",
        "stage",
    ),
    _gauge(
        "novacron_link_round_trip_seconds",
        "To a replica's host and back, the newest.",
        "replica",
    ),
    _counter("novacron_link_messages", "Messages over a link, by way.", "replica", "way"),
    _counter("novacron_link_bytes", "Bytes of these, before encryption.", "replica", "way"),
    _counter("novacron_link_resent_segments", "TCP segments sent again.", "replica"),
    _counter("novacron_link_dropped_messages", "Messages of an epoch that was over.", "replica"),
    _counter("novacron_link_losses", "Links that ended without being told to.", "replica"),
    _counter(
        "novacron_canary_results",
        "Small requests that a replica was tried with, by result: passed, wrong, missing.",
        "replica",
        "result",
    ),
    _gauge("novacron_canary_failing", "1 if the last one did not pass, else 0.", "replica"),
    _gauge("novacron_canary_seconds", "What the last one that passed took.", "replica"),
    _counter(
        "novacron_response_cache_events",
        "Calls by what the response cache was to them: hit, semantic_hit, miss, bypass; answers by "
        "whether they were kept: stored, not_stored; error: the store failed.",
        "event",
    ),
    _counter("novacron_response_cache_saved_tokens", "Tokens of hits: not generated again."),
    _counter("novacron_audit_records", "Records written to the audit log.", "kind"),
    _counter("novacron_audit_lost_records", "Records that could not be written, for good."),
    _counter("novacron_audit_errors", "Times that writing the audit log failed."),
    _counter("novacron_request_errors", "Calls that failed, by class of error.", "error"),
    _gauge("novacron_engine_state", "1 for the state the engine is in, else 0.", "state"),
    _counter("novacron_engine_restarts", "Engine processes started anew after a death."),
    _histogram(
        "novacron_recovery_pause_seconds",
        "Pause of a request whose engine died, until it went on; the count: how often they did.",
    ),
    _counter("novacron_steps", "Steps of the engine."),
    _counter("novacron_step_seconds", "Time inside steps."),
    _counter("novacron_schedule_seconds", "Time that scheduling took of it."),
    _counter("novacron_draft_seconds", "Time that a draft model took of it."),
    _gauge("novacron_kv_blocks", "KV blocks, by what they are: used, cached, free.", "kind"),
    _gauge("novacron_kv_tier_bytes", "Bytes that a KV tier takes.", "tier"),
    _gauge("novacron_kv_tier_capacity_bytes", "Most bytes that a KV tier may take.", "tier"),
    _counter("novacron_kv_tier_hit_tokens", "Prompt tokens brought from a KV tier.", "tier"),
    _counter(
        "novacron_kv_tier_blocks",
        "KV blocks by what became of them in a tier: stored, of these parked, demoted and warmed, "
        "of the last warm_used; loaded, missing, mismatch.",
        "tier",
        "event",
    ),
    _gauge(
        "novacron_kv_tier_pressure",
        "How scarce the machine's memory or disk is: 0 low, 1 medium, 2 high, 3 critical.",
        "tier",
    ),
    _counter("novacron_kv_tier_errors", "Times that a KV tier itself failed.", "tier"),
    _counter("novacron_kv_tier_evictions", "KV blocks that left a tier to make room.", "tier"),
    _counter("novacron_kv_tier_regrets", "Of these, asked for again not long after.", "tier"),
    _gauge(
        "novacron_kv_tier_breaker",
        "Whether a KV tier is asked: 0 yes, 1 tried again, 2 not for a while, for it failed.",
        "tier",
        "direction",
    ),
    _counter("novacron_kv_tier_loaded_bytes", "Bytes brought from a KV tier.", "tier"),
    _counter("novacron_kv_tier_load_seconds", "Time that this took.", "tier"),
    _gauge("novacron_kv_pinned_blocks", "KV blocks that tiers keep whatever comes."),
    _gauge("novacron_kv_sessions", "Conversations that are remembered."),
    _counter("novacron_kv_session_returns", "Turns of a conversation after its first."),
    _counter(
        "novacron_kv_session_tokens",
        "Prompt tokens of such turns, by whether they were cached: yes, no.",
        "cached",
    ),
    _gauge(
        "novacron_kv_tier_compression_ratio",
        "Bytes of KV blocks over what they take in a KV tier that compresses.",
        "tier",
        "level",
    ),
    _gauge("novacron_kv_tier_mean_error", "Relative error of blocks stored, mean.", "tier"),
    _gauge("novacron_kv_tier_worst_error", "Relative error of blocks stored, largest.", "tier"),
    _counter(
        "novacron_kv_tier_finer_blocks",
        "Blocks that would have lost too much, and were stored in a finer level.",
        "tier",
    ),
    _counter("novacron_kv_tier_codec_seconds", "Time of compressing and back.", "tier", "way"),
    _counter(
        "novacron_kv_stores_dropped", "KV blocks overwritten before they were stored in a tier."
    ),
    _counter("novacron_kv_load_waits", "Times that a request waited for blocks from a tier."),
    _counter("novacron_kv_load_wait_seconds", "Time that requests waited so."),
    _counter(
        "novacron_kv_recomputed_instead",
        "Times that blocks of a tier were computed, because fetching them takes longer.",
    ),
    _counter("novacron_kv_lookup_seconds", "Time of looking for prefixes in tiers."),
    _gauge("novacron_startup_phase_seconds", "Duration of a phase of start-up.", "phase"),
)

DEFINITIONS: Mapping[str, Definition] = {row.name: row for row in _TABLE}


_Sample = tuple[tuple[str, ...], float]
_Values = dict[str, list[_Sample]]


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


@dataclass(frozen=True, kw_only=True)
class VariantSnapshot:
    """What the engine of one variant says of itself."""

    name: str
    state: str
    stats: EngineStats
    is_default: bool
    num_left: int


@dataclass(frozen=True, kw_only=True)
class EngineSnapshot:
    """What the engine says of itself at the moment of a scrape. `spec` is None while it loads. Of
    several variants, `stats` are sums; the first is the main one."""

    state: str
    states: tuple[str, ...]
    stats: EngineStats
    spec: ModelSpec | None
    num_restarts: int
    variants: tuple[VariantSnapshot, ...]
    replicas: tuple[ReplicaSnapshot, ...] = ()


@dataclass
class Metrics:
    """The numbers this process gathers from the calls it serves."""

    quality_score: float | None = None
    histograms: dict[str, Histogram] = field(
        default_factory=lambda: {
            name: Histogram(definition.buckets)
            for name, definition in DEFINITIONS.items()
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

    def start_call(self, arrival_time_s: float, num_requests: int) -> CallTimer:
        return CallTimer(self, arrival_time_s, num_requests)


class CallTimer:
    """The times of one call's requests, from their outputs as they arrive here."""

    def __init__(self, metrics: Metrics, arrival_time_s: float, num_requests: int) -> None:
        self._metrics = metrics
        self._arrival_time_s = arrival_time_s
        self._scheduled_time_s: list[float | None] = [None] * num_requests
        self._first_token_time_s: list[float | None] = [None] * num_requests
        self._last_token_time_s = [0.0] * num_requests

    def observe(self, output: RequestOutput) -> None:
        now_s = time.monotonic()
        if output.first_scheduled_time_s is not None:
            self._see_scheduled(output.index, output.first_scheduled_time_s)
        if output.pause_s is not None:
            self._metrics.recovery_pause.observe(output.pause_s)
        if output.token_ids:
            self._see_tokens(output.index, len(output.token_ids), now_s)
        if output.finish_reason is not None:
            self._see_end(output, now_s)

    def fail(self, error: Exception) -> None:
        """The call ends with `error` instead of a last output."""
        self._metrics.errors[type(error).__name__] += 1

    def first_token_s(self, index: int = 0) -> float | None:
        """Arrival to first token of one request."""
        first = self._first_token_time_s[index]
        return None if first is None else first - self._arrival_time_s

    def queue_s(self, index: int = 0) -> float | None:
        scheduled = self._scheduled_time_s[index]
        return None if scheduled is None else scheduled - self._arrival_time_s

    def _see_scheduled(self, index: int, time_s: float) -> None:
        if self._scheduled_time_s[index] is None:
            self._scheduled_time_s[index] = time_s
            self._metrics.queue_time.observe(max(0.0, time_s - self._arrival_time_s))

    def _see_tokens(self, index: int, num_tokens: int, now_s: float) -> None:
        if self._first_token_time_s[index] is None:
            self._first_token_time_s[index] = now_s
            self._metrics.first_token.observe(now_s - self._arrival_time_s)
            scheduled = self._scheduled_time_s[index]
            if scheduled is not None:
                self._metrics.prefill_time.observe(max(0.0, now_s - scheduled))
        else:
            elapsed_s = now_s - self._last_token_time_s[index]
            self._metrics.inter_token.observe(elapsed_s / num_tokens, num_tokens)
        self._last_token_time_s[index] = now_s

    def _see_end(self, output: RequestOutput, now_s: float) -> None:
        metrics = self._metrics
        assert output.finish_reason is not None
        metrics.finished[output.finish_reason.value] += 1
        metrics.latency.observe(now_s - self._arrival_time_s)
        metrics.prompt_tokens.observe(output.num_prompt_tokens)
        metrics.generation_tokens.observe(output.num_output_tokens)
        first = self._first_token_time_s[output.index]
        if first is not None:
            metrics.decode_time.observe(now_s - first)


def prometheus_text(metrics: Metrics, engine: EngineSnapshot, model_name: str) -> bytes:
    """Everything in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(metrics, engine, model_name))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Scrape(Collector):
    def __init__(self, metrics: Metrics, engine: EngineSnapshot, model_name: str) -> None:
        self._metrics = metrics
        self._engine = engine
        self._model_name = model_name

    def collect(self) -> Iterator[Metric]:
        variants = self._engine.variants
        watched = _watch_values(variants)
        values = {
            **_evaluation(self._metrics, variants),
            **_call_values(self._metrics),
            **guardian_values(self._metrics.guardians),
            **_response_cache_values(self._metrics.response_cache),
            **_audit_values(self._metrics.audit),
            **_engine_values(self._engine),
            **_variant_values(self._engine),
            **replica_values(self._engine.replicas, self._engine.states),
            **parallel_values(self._engine.replicas),
            **{name: samples for name, samples in watched.items() if samples},
        }
        for definition in DEFINITIONS.values():
            if definition.kind == "histogram":
                yield self._histogram(definition)
            else:
                yield self._samples(definition, values.get(definition.name, ()))

    def _histogram(self, definition: Definition) -> Metric:
        histogram = self._metrics.histograms[definition.name]
        family = HistogramMetricFamily(definition.name, definition.help, labels=("model_name",))
        family.add_metric((self._model_name,), histogram.cumulative(), histogram.sum)
        return family

    def _samples(self, definition: Definition, samples: Iterable[_Sample]) -> Metric:
        family_class = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
        labels = ("model_name", *definition.labels)
        family = family_class(definition.name, definition.help, labels=labels)
        for label_values, value in samples:
            family.add_metric((self._model_name, *label_values), value)
        return family


def hit_rate(stats: EngineStats) -> float | None:
    """Share of prompt tokens found in the prefix cache; None before anything was looked up."""
    if not stats.prefix_queries_tokens:
        return None
    return stats.prefix_hits_tokens / stats.prefix_queries_tokens


def hit_rates(stats: EngineStats) -> dict[str, float]:
    """Shares of prompt tokens by where they were found: on the device, or in a tier below it."""
    of_tiers = {tier.kind: tier.hit_tokens for tier in stats.kv_tiers}
    on_device = max(0, stats.prefix_hits_tokens - sum(of_tiers.values()))
    queries = max(1, stats.prefix_queries_tokens)
    return {level: tokens / queries for level, tokens in {"device": on_device, **of_tiers}.items()}


def kv_cache_usage(stats: EngineStats) -> float:
    """Share of KV blocks held by requests."""
    return stats.num_used_blocks / stats.num_blocks if stats.num_blocks else 0.0


def _audit_values(counts: AuditCounts | None) -> _Values:
    if counts is None:
        return {}
    return {
        "novacron_audit_records": [
            ((kind,), float(n)) for kind, n in counts.written.copy().items()
        ],
        "novacron_audit_lost_records": _one(counts.num_lost),
        "novacron_audit_errors": _one(counts.num_errors),
    }


def _response_cache_values(counts: ResponseCacheCounts | None) -> _Values:
    if counts is None:
        return {}
    return {
        "novacron_response_cache_events": [
            ((event,), float(number)) for event, number in sorted(counts.events.items())
        ],
        "novacron_response_cache_saved_tokens": _one(counts.num_saved_tokens),
    }


def _one(value: float) -> list[_Sample]:
    return [((), value)]


def _engine_values(engine: EngineSnapshot) -> _Values:
    stats = engine.stats
    method = (stats.speculative_method,)
    free = stats.num_blocks - stats.num_used_blocks - stats.num_cached_blocks
    values: _Values = {
        "vllm:num_requests_running": _one(stats.num_running),
        "vllm:num_requests_waiting": _one(stats.num_waiting),
        "vllm:kv_cache_usage_perc": _one(kv_cache_usage(stats)),
        "vllm:prompt_tokens": _one(stats.prompt_tokens + stats.prefix_hits_tokens),
        "vllm:generation_tokens": _one(stats.generation_tokens),
        "llm_tokens_generated": _one(stats.generation_tokens),
        "vllm:num_preemptions": _one(stats.num_preemptions),
        "novacron_ranks_replaced": _one(stats.num_ranks_replaced),
        "vllm:prefix_cache_queries": _one(stats.prefix_queries_tokens),
        "vllm:prefix_cache_hits": _one(stats.prefix_hits_tokens),
        "vllm:spec_decode_num_drafts": [(method, stats.num_drafts)],
        "vllm:spec_decode_num_draft_tokens": [(method, stats.num_draft_tokens)],
        "vllm:spec_decode_num_accepted_tokens": [(method, stats.num_accepted_tokens)],
        "llm_cache_hit_rate": [((level,), rate) for level, rate in hit_rates(stats).items()],
        "novacron_engine_state": [
            ((state,), float(state == engine.state)) for state in engine.states
        ],
        "novacron_engine_restarts": _one(engine.num_restarts),
        "novacron_steps": _one(stats.num_steps),
        "novacron_step_seconds": _one(stats.step_time_s),
        "novacron_schedule_seconds": _one(stats.schedule_time_s),
        "novacron_draft_seconds": _one(stats.draft_time_s),
        "novacron_kv_blocks": [
            (("used",), stats.num_used_blocks),
            (("cached",), stats.num_cached_blocks),
            (("free",), free),
        ],
    }
    values |= share_values(stats.shares)
    values |= _tier_values(stats)
    if engine.spec is None:
        return values
    return {**values, **_model_values(engine.spec)}


def _watch_values(variants: Iterable[VariantSnapshot]) -> _Values:
    """Only of variants that are watched; what means of answers tell, once one was scored."""
    watched = [((one.name,), one.stats.watch) for one in variants if one.stats.watch is not None]
    scored = [(name, watch) for name, watch in watched if watch.quality is not None]
    return {
        "novacron_quality_alarm": [(name, float(watch.is_alarmed)) for name, watch in watched],
        "novacron_quality_alerts": [(name, watch.num_alerts) for name, watch in watched],
        "novacron_quality_scored_answers": [(name, watch.num_scored) for name, watch in watched],
        "novacron_quality_dropped_answers": [(name, watch.num_dropped) for name, watch in watched],
        "novacron_quality_seconds": [(name, watch.seconds) for name, watch in watched],
        "llm_quality_score": [(name, watch.quality or 0.0) for name, watch in scored],
        "novacron_top1_agreement": [(name, watch.top1_agreement or 0.0) for name, watch in scored],
        "novacron_kl_nats": [(name, watch.kl or 0.0) for name, watch in scored],
    }


def _variant_values(engine: EngineSnapshot) -> _Values:
    return {
        "novacron_variant_state": [
            ((one.name, state), float(state == one.state))
            for one in engine.variants
            for state in engine.states
        ],
        "novacron_variant_default": [
            ((one.name,), float(one.is_default)) for one in engine.variants
        ],
        "novacron_variant_requests": [
            ((one.name,), one.stats.num_running + one.stats.num_waiting) for one in engine.variants
        ],
        "novacron_variant_generation_tokens": [
            ((one.name,), one.stats.generation_tokens) for one in engine.variants
        ],
        "novacron_variant_switches": [((one.name,), one.num_left) for one in engine.variants],
    }


def _evaluation(metrics: Metrics, variants: Sequence[VariantSnapshot]) -> _Values:
    """What was told of an evaluation of the main variant."""
    if metrics.quality_score is None:
        return {}
    return {"llm_quality_score": [((variants[0].name,), metrics.quality_score)]}


def _tier_values(stats: EngineStats) -> _Values:
    tiers = stats.kv_tiers
    return {
        "novacron_kv_tier_bytes": [((tier.kind,), tier.used_bytes) for tier in tiers],
        "novacron_kv_tier_capacity_bytes": [
            ((tier.kind,), tier.capacity_bytes) for tier in tiers if tier.capacity_bytes
        ],
        "novacron_kv_tier_breaker": [
            ((tier.kind, direction), BREAKERS.index(state))
            for tier in tiers
            for direction, state in (("load", tier.load_breaker), ("store", tier.store_breaker))
        ],
        "novacron_kv_tier_hit_tokens": [((tier.kind,), tier.hit_tokens) for tier in tiers],
        "novacron_kv_tier_blocks": [
            ((tier.kind, event), count)
            for tier in tiers
            for event, count in (
                ("stored", tier.num_stored),
                ("parked", tier.num_parked),
                ("demoted", tier.num_demoted),
                ("warmed", tier.num_warmed),
                ("warm_used", tier.num_warm_used),
                ("loaded", tier.num_loaded),
                ("missing", tier.num_missing),
                ("mismatch", tier.num_mismatches),
            )
        ],
        "novacron_kv_tier_pressure": [((t.kind,), PRESSURES.index(t.pressure)) for t in tiers],
        "novacron_kv_tier_errors": [((tier.kind,), tier.num_errors) for tier in tiers],
        "novacron_kv_tier_evictions": [((tier.kind,), tier.num_evicted) for tier in tiers],
        "novacron_kv_tier_regrets": [((tier.kind,), tier.num_regretted) for tier in tiers],
        "novacron_kv_tier_loaded_bytes": [((tier.kind,), tier.loaded_bytes) for tier in tiers],
        "novacron_kv_tier_load_seconds": [((tier.kind,), tier.load_s) for tier in tiers],
        "novacron_kv_pinned_blocks": _one(stats.num_pinned_blocks),
        **_session_values(stats.sessions),
        **_codec_values(tiers),
        "novacron_kv_stores_dropped": _one(stats.num_tier_stores_dropped),
        "novacron_kv_load_waits": _one(stats.num_tier_waits),
        "novacron_kv_load_wait_seconds": _one(stats.tier_wait_s),
        "novacron_kv_recomputed_instead": _one(stats.num_recomputed_instead),
        "novacron_kv_lookup_seconds": _one(stats.tier_lookup_s),
    }


def _session_values(sessions: SessionStats) -> _Values:
    uncached = sessions.return_tokens - sessions.return_hit_tokens
    return {
        "novacron_kv_sessions": _one(sessions.num_sessions),
        "novacron_kv_session_returns": _one(sessions.num_returns),
        "novacron_kv_session_tokens": [(("yes",), sessions.return_hit_tokens), (("no",), uncached)],
    }


def _codec_values(tiers: Iterable[TierStats]) -> _Values:
    """Of tiers that compress."""
    codecs = [((tier.kind,), tier.codec) for tier in tiers if tier.codec is not None]
    return {
        "novacron_kv_tier_compression_ratio": [
            ((*kind, codec.level), codec.ratio) for kind, codec in codecs
        ],
        "novacron_kv_tier_mean_error": [(kind, codec.mean_error) for kind, codec in codecs],
        "novacron_kv_tier_worst_error": [(kind, codec.worst_error) for kind, codec in codecs],
        "novacron_kv_tier_finer_blocks": [(kind, codec.num_finer) for kind, codec in codecs],
        "novacron_kv_tier_codec_seconds": [
            ((*kind, way), seconds)
            for kind, codec in codecs
            for way, seconds in (("encode", codec.encode_s), ("decode", codec.decode_s))
        ],
    }


def _model_values(spec: ModelSpec) -> _Values:
    shape = (str(spec.block_size), str(spec.num_blocks), str(spec.kv_cache_bytes))
    return {
        "vllm:cache_config_info": [(shape, 1.0)],
        "novacron_startup_phase_seconds": [
            ((phase,), seconds) for phase, seconds in spec.load_phases_s.items()
        ],
    }


def _call_values(metrics: Metrics) -> _Values:
    completed = metrics.finished["stop"] + metrics.finished["length"]
    return {
        "vllm:request_success": [
            ((reason,), float(count)) for reason, count in sorted(metrics.finished.items())
        ],
        "llm_requests_completed": _one(completed),
        "novacron_request_errors": [
            ((error,), float(count)) for error, count in sorted(metrics.errors.items())
        ],
    }
