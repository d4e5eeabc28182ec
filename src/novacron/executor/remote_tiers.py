"""KV tiers on other machines, as the settings ask for them, each behind a guard.

Their libraries are extras (redis, s3) and imported only here, where a tier is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import (
    MOST_ERROR,
    RemoteCompression,
    levels_from,
    lossy_level,
)
from novacron.config.url_secrets import mask_url
from novacron.errors import ConfigError
from novacron.executor.memory_plan import size_text
from novacron.executor.tier_encryption import OpenCipher, no_cipher
from novacron.executor.tier_shelves import CodecOf
from novacron.kv_tiers.block_loader import FAR_BLOCKS_AT_ONCE
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.compressed_tier import identity_in
from novacron.kv_tiers.encrypted_tier import Encrypted, encrypted_identity
from novacron.kv_tiers.guarded_tier import GuardedTier
from novacron.kv_tiers.lending_guard import LendingGuard
from novacron.kv_tiers.packing import Coded, Packing, Whole
from novacron.kv_tiers.tier import KVTier
from novacron.records.output import TierSpec

_BREAKER: Final = BreakerConfig(failures=2, first_rest_s=1.0, longest_rest_s=60.0)
_NUM_READY: Final = 2  # calls that buffers are made ready for: of two threads
_LEAST_RECORDS: Final = 16  # a limit below that of one or two batches is a mistake


@dataclass(frozen=True)
class RemoteTiers:
    """Opens the tiers of an engine whose records, whole, take `record_bytes`. `share`: which part
    of each block they hold, and so of each limit may have; other hosts have the others."""

    cache: CacheConfig
    record_bytes: int
    identity: bytes
    codec_of: CodecOf
    open_cipher: OpenCipher = no_cipher
    share: float = 1.0

    def open(self) -> Iterator[tuple[TierSpec, GuardedTier]]:
        """None of them is asked for anything yet, so a server that is down is no reason not to
        start. Raises ConfigError."""
        cache = self.cache
        if cache.kv_redis_url:
            capacity = self._capacity("kv_redis_size", cache.kv_redis_size)
            guarded = LendingGuard(
                self._redis(capacity),
                f"redis {mask_url(cache.kv_redis_url)}",
                record_bytes=self.record_bytes,
                num_ready=_NUM_READY,
                at_once=FAR_BLOCKS_AT_ONCE,
                deadline_s=cache.kv_redis_deadline,
                breaker=_BREAKER,
            )
            yield TierSpec(kind="redis", capacity_bytes=capacity, is_shared=True), guarded
        if cache.kv_object_url:
            capacity = self._capacity("kv_object_size", cache.kv_object_size)
            guarded = LendingGuard(
                self._object(capacity),
                f"object {mask_url(cache.kv_object_url)}",
                record_bytes=self.record_bytes,
                deadline_s=cache.kv_object_deadline,
                breaker=_BREAKER,
                refresh_s=cache.kv_object_refresh,
            )
            yield TierSpec(kind="object", capacity_bytes=capacity), guarded

    def _redis(self, capacity_bytes: int) -> KVTier:
        from novacron.kv_tiers.redis_tier import RedisTier

        cache = self.cache
        try:
            identity, packing = self._packing("redis", cache.kv_redis_compression)
            return RedisTier(
                cache.kv_redis_url,
                record_bytes=self.record_bytes,
                identity=identity,
                capacity_bytes=capacity_bytes,
                ttl_s=cache.kv_redis_ttl,
                namespace=cache.kv_redis_prefix,
                timeout_s=cache.kv_redis_deadline,
                packing=packing,
            )
        except (ValueError, TypeError):  # whose message may hold parts of the URL
            raise ConfigError(
                f"kv_redis_url is '{mask_url(cache.kv_redis_url)}', which cannot be read. Give "
                "redis://[user:password@]host[:port][/database]."
            ) from None

    def _object(self, capacity_bytes: int) -> KVTier:
        from novacron.kv_tiers.object_tier import ObjectTier

        cache = self.cache
        try:
            identity, packing = self._packing("object", cache.kv_object_compression)
            return ObjectTier(
                cache.kv_object_url,
                record_bytes=self.record_bytes,
                identity=identity,
                capacity_bytes=capacity_bytes,
                timeout_s=cache.kv_object_deadline,
                packing=packing,
            )
        except ValueError as error:
            raise ConfigError(
                f"kv_object_url is '{mask_url(cache.kv_object_url)}', which cannot be used: {error}"
            ) from None

    def _packing(self, kind: str, compression: RemoteCompression) -> tuple[bytes, Packing]:
        """What becomes of records, and an identity for it: others would not know what they read."""
        identity, packing = self._compression(compression)
        cipher = self.open_cipher(kind)
        if cipher is None:
            return identity, packing
        return encrypted_identity(identity), Encrypted(packing, cipher)

    def _compression(self, compression: RemoteCompression) -> tuple[bytes, Packing]:
        if compression == "raw":
            return self.identity, Whole()
        identity = identity_in(self.identity, f"packed {compression}")
        if compression == "zstd":
            from novacron.kv_tiers.zstd_packing import Zstd

            return identity, Zstd()
        level = lossy_level(compression)
        codecs = [self.codec_of(one) for one in levels_from(level)]
        return identity, Coded(codecs, self.identity, MOST_ERROR[level])

    def _capacity(self, key: str, asked_for: int | None) -> int:
        if not asked_for:
            return 0
        own_bytes, least_bytes = int(asked_for * self.share), _LEAST_RECORDS * self.record_bytes
        if own_bytes < least_bytes:
            raise ConfigError(
                f"{key} is {size_text(asked_for)}, but {_LEAST_RECORDS} blocks take "
                f"{size_text(int(least_bytes / self.share))}. Give more, or leave it out."
            )
        return own_bytes
