"""The KV cache, level by level, as the engine last told of it."""

from __future__ import annotations

from msgspec import Struct

from novacron.kv_tiers.eviction.pressure import actions_at, pressure_of
from novacron.observability.ratios import hit_rate, hit_rates
from novacron.records.codec_totals import CodecTotals
from novacron.records.latency_counts import LatencyCounts
from novacron.records.output import PREFETCH_BUFFER, EngineStats, SessionStats, TierStats


class DeviceCache(Struct, frozen=True, kw_only=True):
    """Blocks on the device: held by requests, kept for their content, free."""

    num_blocks: int
    used_blocks: int
    cached_blocks: int
    free_blocks: int
    hit_rate: float


class TierCodec(Struct, frozen=True, kw_only=True):
    """How a tier compresses. `ratio` is bytes of blocks over what they take, errors are relative;
    `finer_blocks` would have lost too much, and were stored in a finer level."""

    level: str
    ratio: float
    mean_error: float
    worst_error: float
    encoded_blocks: int
    finer_blocks: int
    decoded_blocks: int
    encode_seconds: float
    decode_seconds: float


class Latency(Struct, frozen=True, kw_only=True):
    """Of calls since the start: how many, and in what time half and 99 of 100 of them ended, within
    a factor of two (null before any)."""

    calls: int
    p50_seconds: float | None
    p99_seconds: float | None


class TierLatencies(Struct, frozen=True, kw_only=True):
    """`lookup` is asking a tier on another machine what it has: of the others the index knows.
    `load` and `store` move some blocks each, 64 and 16 at most, checked."""

    lookup: Latency
    load: Latency
    store: Latency


class CacheTier(Struct, frozen=True, kw_only=True):
    """A tier below the device. `hit_rate` is the share of prompt tokens that were brought from it;
    counts are of blocks. `demoted` were stored because they left a faster tier; `warmed` came
    from disk after the start, `warm_effectiveness` is the share of them that was used since (null
    before any); `regretted` were asked for not long after they were evicted. `fill` is low, medium,
    high or critical by how much of its size is in use, `pressure` by how much of the machine's
    memory or disk is, by whomever; `actions` are what is done about that. `load_seconds` are
    reading, checking and copying, `store_seconds` choosing places and writing; bytes are those of
    whole blocks. A capacity of null is a limit that is not ours. A breaker that
    is not closed: the tier failed, and is left alone for a while. `codec` is null where blocks are
    kept as they are."""

    kind: str
    capacity_bytes: int | None
    used_bytes: int
    num_blocks: int
    hit_tokens: int
    hit_rate: float
    stored: int
    parked: int
    demoted: int
    warmed: int
    warm_effectiveness: float | None
    loaded: int
    missing: int
    mismatches: int
    errors: int
    evicted: int
    regretted: int
    fill: str
    pressure: str
    actions: tuple[str, ...]
    loaded_bytes: int
    load_seconds: float
    stored_bytes: int
    store_seconds: float
    latencies: TierLatencies
    load_breaker: str
    store_breaker: str
    codec: TierCodec | None


class CacheLoads(Struct, frozen=True, kw_only=True):
    """Requests that waited for blocks from a tier: now, so far, and for how long in all. `lookup`
    is looking for a prefix in the index of all tiers."""

    waiting: int
    count: int
    wait_seconds: float
    lookup_seconds: float
    lookup: Latency


class CacheSessions(Struct, frozen=True, kw_only=True):
    """Conversations, by `session_id`: those remembered, their turns, the turns after a first one,
    and the share of the prompts of these that was cached (null before any)."""

    known: int
    turns: int
    returns: int
    hit_rate: float | None


class CachePrefetch(Struct, frozen=True, kw_only=True):
    """Blocks brought into the prefetch buffer, how many were loaded from there, and the share that
    is (null before any)."""

    fetched: int
    used: int
    effectiveness: float | None


class CacheStatus(Struct, frozen=True, kw_only=True):
    """The KV cache, fastest level first. `overall_hit_rate` is null before any prompt came;
    `stores_dropped` are blocks that were overwritten before a tier had them."""

    overall_hit_rate: float | None
    device: DeviceCache
    tiers: tuple[CacheTier, ...]
    loads: CacheLoads
    stores_dropped: int
    pinned_blocks: int
    sessions: CacheSessions
    prefetch: CachePrefetch | None


def cache_status(stats: EngineStats) -> CacheStatus:
    rates = hit_rates(stats)
    return CacheStatus(
        overall_hit_rate=hit_rate(stats),
        device=DeviceCache(
            num_blocks=stats.num_blocks,
            used_blocks=stats.num_used_blocks,
            cached_blocks=stats.num_cached_blocks,
            free_blocks=stats.num_blocks - stats.num_used_blocks - stats.num_cached_blocks,
            hit_rate=rates["device"],
        ),
        tiers=tuple(_tier(tier, rates[tier.kind]) for tier in stats.kv_tiers),
        loads=CacheLoads(
            waiting=stats.num_loading,
            count=stats.num_tier_waits,
            wait_seconds=stats.tier_wait_s,
            lookup_seconds=stats.tier_lookup_s,
            lookup=_latency(stats.tier_lookups),
        ),
        stores_dropped=stats.num_tier_stores_dropped,
        pinned_blocks=stats.num_pinned_blocks,
        sessions=_sessions(stats.sessions),
        prefetch=_prefetch(stats),
    )


def _sessions(sessions: SessionStats) -> CacheSessions:
    tokens = sessions.return_tokens
    return CacheSessions(
        known=sessions.num_sessions,
        turns=sessions.num_turns,
        returns=sessions.num_returns,
        hit_rate=round(sessions.return_hit_tokens / tokens, 4) if tokens else None,
    )


def _prefetch(stats: EngineStats) -> CachePrefetch | None:
    """None where nothing is prefetched."""
    buffers = [tier for tier in stats.kv_tiers if tier.kind == PREFETCH_BUFFER]
    if not buffers:
        return None
    fetched, used = buffers[0].num_stored, buffers[0].num_loaded
    share = round(min(1.0, used / fetched), 4) if fetched else None
    return CachePrefetch(fetched=fetched, used=used, effectiveness=share)


def _tier(tier: TierStats, hit_rate: float) -> CacheTier:
    return CacheTier(
        kind=tier.kind,
        capacity_bytes=tier.capacity_bytes or None,
        used_bytes=tier.used_bytes,
        num_blocks=tier.num_blocks,
        hit_tokens=tier.hit_tokens,
        hit_rate=hit_rate,
        stored=tier.num_stored,
        parked=tier.num_parked,
        demoted=tier.num_demoted,
        warmed=tier.num_warmed,
        warm_effectiveness=(
            round(tier.num_warm_used / tier.num_warmed, 4) if tier.num_warmed else None
        ),
        loaded=tier.num_loaded,
        missing=tier.num_missing,
        mismatches=tier.num_mismatches,
        errors=tier.num_errors,
        evicted=tier.num_evicted,
        regretted=tier.num_regretted,
        fill=pressure_of(tier.kind, tier.used_bytes, tier.capacity_bytes),
        pressure=tier.pressure,
        actions=tuple(sorted(actions_at(tier.kind, tier.pressure))),
        loaded_bytes=tier.loaded_bytes,
        load_seconds=tier.load_s,
        stored_bytes=tier.stored_bytes,
        store_seconds=tier.store_s,
        latencies=TierLatencies(
            lookup=_latency(tier.lookups),
            load=_latency(tier.loads),
            store=_latency(tier.stores),
        ),
        load_breaker=tier.load_breaker,
        store_breaker=tier.store_breaker,
        codec=None if tier.codec is None else _codec(tier.codec),
    )


def _latency(counts: LatencyCounts) -> Latency:
    return Latency(
        calls=counts.count,
        p50_seconds=_rounded(counts.quantile_s(0.5)),
        p99_seconds=_rounded(counts.quantile_s(0.99)),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _codec(codec: CodecTotals) -> TierCodec:
    return TierCodec(
        level=codec.level,
        ratio=codec.ratio,
        mean_error=codec.mean_error,
        worst_error=codec.worst_error,
        encoded_blocks=codec.num_encoded,
        finer_blocks=codec.num_finer,
        decoded_blocks=codec.num_decoded,
        encode_seconds=codec.encode_s,
        decode_seconds=codec.decode_s,
    )
