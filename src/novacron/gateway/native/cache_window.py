"""What the KV cache did over some minutes, from the engine's totals at their two ends. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from novacron.records.output import EngineStats, SessionStats, TierStats


@dataclass(frozen=True, slots=True)
class CacheSample:
    """The engine's totals at a time (monotonic)."""

    time_s: float
    stats: EngineStats


class TierWindow(Struct, frozen=True, kw_only=True):
    """A tier over the window. `hit_rate` is the share of the window's prompt tokens that came from
    it; `fullness` is of now, 0 to 1; `bytes_per_second` of loads that were under way."""

    kind: str
    hit_tokens: int
    hit_rate: float | None
    fullness: float
    stored: int
    loaded: int
    missing: int
    mismatches: int
    errors: int
    loaded_bytes: int
    load_seconds: float
    bytes_per_second: float | None


class CacheWindow(Struct, frozen=True, kw_only=True):
    """The cache over `seconds`. `prompt_tokens` are of requests that started in it; those reused
    came from the device or, through it, from a tier. Rates are null where there was nothing."""

    seconds: float
    prompt_tokens: int
    reused_tokens: int
    hit_rate: float | None
    device_fullness: float
    tiers: tuple[TierWindow, ...]
    waits: int
    mean_wait_seconds: float | None
    lookup_seconds: float
    stores_dropped: int
    preemptions: int
    session_returns: int
    session_hit_rate: float | None
    pinned_blocks: int
    computed_tokens_per_second: float | None


def cache_window(first: CacheSample, last: CacheSample) -> CacheWindow:
    """Between two samples. An engine that was restarted between them counts from its start."""
    begin, end = _before(first.stats, last.stats), last.stats
    prompt_tokens = end.prefix_queries_tokens - begin.prefix_queries_tokens
    reused_tokens = end.prefix_hits_tokens - begin.prefix_hits_tokens
    waits = end.num_tier_waits - begin.num_tier_waits
    returned = end.sessions.return_tokens - begin.sessions.return_tokens
    returned_hits = end.sessions.return_hit_tokens - begin.sessions.return_hit_tokens
    step_s = end.step_time_s - begin.step_time_s
    computed = end.prompt_tokens - begin.prompt_tokens
    earlier = {tier.kind: tier for tier in begin.kv_tiers}
    return CacheWindow(
        seconds=round(last.time_s - first.time_s, 3),
        prompt_tokens=prompt_tokens,
        reused_tokens=reused_tokens,
        hit_rate=_share(reused_tokens, prompt_tokens),
        device_fullness=_share(end.num_used_blocks, end.num_blocks) or 0.0,
        tiers=tuple(_tier(earlier.get(t.kind), t, prompt_tokens) for t in end.kv_tiers),
        waits=waits,
        mean_wait_seconds=_ratio(end.tier_wait_s - begin.tier_wait_s, waits),
        lookup_seconds=round(end.tier_lookup_s - begin.tier_lookup_s, 6),
        stores_dropped=end.num_tier_stores_dropped - begin.num_tier_stores_dropped,
        preemptions=end.num_preemptions - begin.num_preemptions,
        session_returns=end.sessions.num_returns - begin.sessions.num_returns,
        session_hit_rate=_share(returned_hits, returned),
        pinned_blocks=end.num_pinned_blocks,
        computed_tokens_per_second=_ratio(computed, step_s),
    )


def halves(samples: Sequence[CacheSample]) -> tuple[CacheWindow, CacheWindow] | None:
    """The older and the newer half, None if there are too few samples to tell them apart."""
    if len(samples) < 3:
        return None
    middle = samples[len(samples) // 2]
    return cache_window(samples[0], middle), cache_window(middle, samples[-1])


def _before(first: EngineStats, last: EngineStats) -> EngineStats:
    is_another = last.num_steps < first.num_steps
    return EngineStats(sessions=SessionStats()) if is_another else first


def _tier(first: TierStats | None, last: TierStats, prompt_tokens: int) -> TierWindow:
    begin = first or TierStats(kind=last.kind, capacity_bytes=last.capacity_bytes)
    grown = {
        name: getattr(last, name) - getattr(begin, name)
        for name in ("hit_tokens", "loaded_bytes", "load_s")
    }
    return TierWindow(
        kind=last.kind,
        hit_tokens=grown["hit_tokens"],
        hit_rate=_share(grown["hit_tokens"], prompt_tokens),
        fullness=_share(last.used_bytes, last.capacity_bytes) or 0.0,
        stored=last.num_stored - begin.num_stored,
        loaded=last.num_loaded - begin.num_loaded,
        missing=last.num_missing - begin.num_missing,
        mismatches=last.num_mismatches - begin.num_mismatches,
        errors=last.num_errors - begin.num_errors,
        loaded_bytes=grown["loaded_bytes"],
        load_seconds=round(grown["load_s"], 6),
        bytes_per_second=_ratio(grown["loaded_bytes"], grown["load_s"]),
    )


def _share(part: float, whole: float) -> float | None:
    """From 0 to 1."""
    return None if whole <= 0 else round(min(1.0, max(0.0, part / whole)), 4)


def _ratio(value: float, by: float) -> float | None:
    return None if by <= 0 else round(value / by, 6)
