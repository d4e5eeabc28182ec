"""Shares that are told in several places, from what an engine says of itself."""

from __future__ import annotations

from novacron.records.output import EngineStats


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
