"""What metrics tell of KV tiers and of conversations, whose blocks they keep."""

from __future__ import annotations

from collections.abc import Iterable

from novacron.observability.definition import Values, counter, gauge, single
from novacron.records.output import BREAKERS, PRESSURES, EngineStats, SessionStats, TierStats

DEFINITIONS = (
    gauge("novacron_kv_tier_bytes", "Bytes that a KV tier takes.", "tier"),
    gauge("novacron_kv_tier_capacity_bytes", "Most bytes that a KV tier may take.", "tier"),
    counter("novacron_kv_tier_hit_tokens", "Prompt tokens brought from a KV tier.", "tier"),
    counter(
        "novacron_kv_tier_blocks",
        "KV blocks by what became of them in a tier: stored, of these parked, demoted and warmed, "
        "of the last warm_used; loaded, missing, mismatch.",
        "tier",
        "event",
    ),
    gauge(
        "novacron_kv_tier_pressure",
        "How scarce the machine's memory or disk is: 0 low, 1 medium, 2 high, 3 critical.",
        "tier",
    ),
    counter("novacron_kv_tier_errors", "Times that a KV tier itself failed.", "tier"),
    counter("novacron_kv_tier_evictions", "KV blocks that left a tier to make room.", "tier"),
    counter("novacron_kv_tier_regrets", "Of these, asked for again not long after.", "tier"),
    gauge(
        "novacron_kv_tier_breaker",
        "Whether a KV tier is asked: 0 yes, 1 tried again, 2 not for a while, for it failed.",
        "tier",
        "direction",
    ),
    counter("novacron_kv_tier_loaded_bytes", "Bytes brought from a KV tier.", "tier"),
    counter("novacron_kv_tier_load_seconds", "Time that this took.", "tier"),
    counter("novacron_kv_tier_stored_bytes", "Bytes of blocks put into a KV tier.", "tier"),
    counter("novacron_kv_tier_store_seconds", "Time that this took.", "tier"),
    gauge(
        "novacron_kv_tier_latency_seconds",
        "How long a call of a KV tier took since the start, by operation (lookup, load, store) and "
        "quantile (0.5, 0.99), within a factor of two; tier index: looking up prefixes here.",
        "tier",
        "operation",
        "quantile",
    ),
    counter("novacron_kv_tier_calls", "Calls that this is of.", "tier", "operation"),
    gauge("novacron_kv_pinned_blocks", "KV blocks that tiers keep whatever comes."),
    gauge("novacron_kv_sessions", "Conversations that are remembered."),
    counter("novacron_kv_session_returns", "Turns of a conversation after its first."),
    counter(
        "novacron_kv_session_tokens",
        "Prompt tokens of such turns, by whether they were cached: yes, no.",
        "cached",
    ),
    gauge(
        "novacron_kv_tier_compression_ratio",
        "Bytes of KV blocks over what they take in a KV tier that compresses.",
        "tier",
        "level",
    ),
    gauge("novacron_kv_tier_mean_error", "Relative error of blocks stored, mean.", "tier"),
    gauge("novacron_kv_tier_worst_error", "Relative error of blocks stored, largest.", "tier"),
    counter(
        "novacron_kv_tier_finer_blocks",
        "Blocks that would have lost too much, and were stored in a finer level.",
        "tier",
    ),
    counter("novacron_kv_tier_codec_seconds", "Time of compressing and back.", "tier", "way"),
    counter(
        "novacron_kv_stores_dropped", "KV blocks overwritten before they were stored in a tier."
    ),
    counter("novacron_kv_load_waits", "Times that a request waited for blocks from a tier."),
    counter("novacron_kv_load_wait_seconds", "Time that requests waited so."),
    counter(
        "novacron_kv_recomputed_instead",
        "Times that blocks of a tier were computed, because fetching them takes longer.",
    ),
    counter("novacron_kv_lookup_seconds", "Time of looking for prefixes in tiers."),
)


def tier_values(stats: EngineStats) -> Values:
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
        "novacron_kv_tier_stored_bytes": [((tier.kind,), tier.stored_bytes) for tier in tiers],
        "novacron_kv_tier_store_seconds": [((tier.kind,), tier.store_s) for tier in tiers],
        **_latency_values(stats),
        "novacron_kv_pinned_blocks": single(stats.num_pinned_blocks),
        **_session_values(stats.sessions),
        **_codec_values(tiers),
        "novacron_kv_stores_dropped": single(stats.num_tier_stores_dropped),
        "novacron_kv_load_waits": single(stats.num_tier_waits),
        "novacron_kv_load_wait_seconds": single(stats.tier_wait_s),
        "novacron_kv_recomputed_instead": single(stats.num_recomputed_instead),
        "novacron_kv_lookup_seconds": single(stats.tier_lookup_s),
    }


def _latency_values(stats: EngineStats) -> Values:
    calls = [
        ((tier.kind, operation), counts)
        for tier in stats.kv_tiers
        for operation, counts in (
            ("lookup", tier.lookups),
            ("load", tier.loads),
            ("store", tier.stores),
        )
    ]
    if stats.kv_tiers:
        calls.append((("index", "lookup"), stats.tier_lookups))
    return {
        "novacron_kv_tier_latency_seconds": [
            ((*labels, str(share)), seconds)
            for labels, counts in calls
            for share in (0.5, 0.99)
            if (seconds := counts.quantile_s(share)) is not None
        ],
        "novacron_kv_tier_calls": [(labels, counts.count) for labels, counts in calls],
    }


def _session_values(sessions: SessionStats) -> Values:
    uncached = sessions.return_tokens - sessions.return_hit_tokens
    return {
        "novacron_kv_sessions": single(sessions.num_sessions),
        "novacron_kv_session_returns": single(sessions.num_returns),
        "novacron_kv_session_tokens": [(("yes",), sessions.return_hit_tokens), (("no",), uncached)],
    }


def _codec_values(tiers: Iterable[TierStats]) -> Values:
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
