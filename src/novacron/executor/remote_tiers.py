"""KV tiers on other machines, as the settings ask for them, each behind a guard.

Their libraries are extras (redis, s3) and imported only here, where a tier is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from novacron.config.engine import CacheConfig
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError
from novacron.executor.memory_plan import size_text
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.tier import KVTier
from novacron.records.output import TierSpec

_BREAKER: Final = BreakerConfig(failures=2, first_rest_s=1.0, longest_rest_s=60.0)
_LEAST_RECORDS: Final = 16  # a limit below that of one or two batches is a mistake


def open_remote_tiers(
    cache: CacheConfig, record_bytes: int, identity: bytes
) -> Iterator[tuple[TierSpec, GuardedTier]]:
    """None of them is asked for anything yet, so a server that is down is no reason not to start.
    Raises ConfigError."""
    if cache.kv_redis_url:
        capacity = _capacity("kv_redis_size", cache.kv_redis_size, record_bytes)
        guarded = GuardedTier(
            _open_redis(cache, record_bytes, identity, capacity),
            f"redis {mask_url(cache.kv_redis_url)}",
            deadline_s=cache.kv_redis_deadline,
            breaker=_BREAKER,
        )
        yield TierSpec(kind="redis", capacity_bytes=capacity, is_shared=True), guarded
    if cache.kv_object_url:
        capacity = _capacity("kv_object_size", cache.kv_object_size, record_bytes)
        guarded = GuardedTier(
            _open_object(cache, record_bytes, identity, capacity),
            f"object {mask_url(cache.kv_object_url)}",
            deadline_s=cache.kv_object_deadline,
            breaker=_BREAKER,
            refresh_s=cache.kv_object_refresh,
        )
        yield TierSpec(kind="object", capacity_bytes=capacity), guarded


def _open_redis(
    cache: CacheConfig, record_bytes: int, identity: bytes, capacity_bytes: int
) -> KVTier:
    from novacron.kv_tiers.redis_tier import RedisTier

    try:
        return RedisTier(
            cache.kv_redis_url,
            record_bytes=record_bytes,
            identity=identity,
            capacity_bytes=capacity_bytes,
            ttl_s=cache.kv_redis_ttl,
            namespace=cache.kv_redis_prefix,
            timeout_s=cache.kv_redis_deadline,
        )
    except (ValueError, TypeError):  # whose message may hold parts of the URL
        raise ConfigError(
            f"kv_redis_url is '{mask_url(cache.kv_redis_url)}', which cannot be read. Give "
            "redis://[user:password@]host[:port][/database]."
        ) from None


def _open_object(
    cache: CacheConfig, record_bytes: int, identity: bytes, capacity_bytes: int
) -> KVTier:
    from novacron.kv_tiers.object_tier import ObjectTier

    try:
        return ObjectTier(
            cache.kv_object_url,
            record_bytes=record_bytes,
            identity=identity,
            capacity_bytes=capacity_bytes,
            timeout_s=cache.kv_object_deadline,
        )
    except ValueError as error:
        raise ConfigError(
            f"kv_object_url is '{mask_url(cache.kv_object_url)}', which cannot be used: {error}"
        ) from None


def _capacity(key: str, asked_for: int | None, record_bytes: int) -> int:
    if not asked_for:
        return 0
    if asked_for < _LEAST_RECORDS * record_bytes:
        raise ConfigError(
            f"{key} is {size_text(asked_for)}, but {_LEAST_RECORDS} blocks take "
            f"{size_text(_LEAST_RECORDS * record_bytes)}. Give more, or leave it out."
        )
    return asked_for
