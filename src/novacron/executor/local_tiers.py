"""The KV tiers of this machine, RAM and disk: how large they are, and opened."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from novacron.config.cache import CacheConfig
from novacron.config.kv_compression import KVLevel, levels_from, tier_compressions
from novacron.errors import ConfigError
from novacron.executor.memory_plan import size_text
from novacron.executor.tier_encryption import OpenCipher, no_cipher
from novacron.executor.tier_shelves import CodecOf, least_ram_bytes, open_levels, ram_shares
from novacron.kv_tiers.block_copies import BlockCopies
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.kv_tiers.eviction.cost import CostConfig
from novacron.kv_tiers.eviction.score import Weights
from novacron.kv_tiers.guarded_tier import GuardedPartsTier, GuardedTier
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.tier import KVTier, ReadsParts
from novacron.records.block import BlockHash
from novacron.records.output import PREFETCH_BUFFER, TierSpec

_RAM_BYTES: Final = 4 * 2**30
_SHARE_OF_FREE_RAM: Final = 8
_DISK_BYTES: Final = 20 * 2**30
_SHARE_OF_FREE_DISK: Final = 10
_BREAKER_OF_DISK: Final = BreakerConfig(failures=1, first_rest_s=10.0, longest_rest_s=60.0)
_PREFETCH_SHARE: Final = 8  # of the RAM tier

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedTier:
    """A tier, what it had from the beginning, and the tiers of its levels on this machine."""

    spec: TierSpec
    tier: KVTier
    found: tuple[BlockHash, ...] = ()
    levels: Sequence[KVTier] = ()
    level_names: tuple[KVLevel, ...] = ()


@dataclass(frozen=True)
class LocalTiers:
    """Opens the tiers of an engine whose records, uncompressed, take `record_bytes`. `pinned` are
    blocks that must stay."""

    cache: CacheConfig
    record_bytes: int
    identity: bytes
    codec_of: CodecOf
    copies: BlockCopies
    pinned: PinnedBlocks
    num_sharers: int = 1  # engines that share the RAM
    open_cipher: OpenCipher = no_cipher  # of the disk

    def open_ram(self) -> Iterator[OpenedTier]:
        """The tier in RAM and the buffer of what is fetched ahead, as far as they are wanted.

        Each level of compression has a share of the bytes, and a policy of its own.
        """
        cache, compression = self.cache, tier_compressions(self.cache)["ram"]
        of_all = ram_bytes(cache, psutil.virtual_memory().available)
        capacity = of_all // self.num_sharers
        ahead = prefetch_bytes(cache, capacity, self.record_bytes)
        least = ahead + least_ram_bytes(compression, self.record_bytes)
        if not _is_wanted("kv_ram_size", of_all, cache.kv_ram_size, least * self.num_sharers):
            return
        shares = ram_shares(capacity - ahead, len(levels_from(compression.level)))

        def open_level(place: int, size: int, _: bytes) -> RamTier:
            protection = Protection(self.pinned, shares[place] // size, cache.kv_scope_share)
            return RamTier(
                shares[place], size, self.copies, policy=_policy_of(cache), protection=protection
            )

        tier, levels = open_levels(
            compression,
            self.identity,
            self.codec_of,
            open_level,
            is_one_place=False,
            pinned=self.pinned,
        )
        yield OpenedTier(
            TierSpec(kind="ram", capacity_bytes=capacity - ahead),
            tier,
            levels=levels,
            level_names=levels_from(compression.level),
        )
        if ahead:
            spec = TierSpec(kind=PREFETCH_BUFFER, capacity_bytes=ahead)
            yield OpenedTier(spec, RamTier(ahead, self.record_bytes, self.copies))

    def open_disk(self, folder: Path) -> OpenedTier | None:
        """None if it is not wanted, or nobody asked for it and it cannot be had.

        Levels of compression are segments of their own in one folder, whose files count together.
        """
        cache, compression = self.cache, tier_compressions(self.cache)["disk"]
        if cache.kv_disk_size == 0:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cipher = self.open_cipher("disk")
            own = sum(path.stat().st_size for path in folder.glob("*.kvseg"))
            capacity = disk_bytes(cache, shutil.disk_usage(folder).free, own)
            least = 2 * self.record_bytes * len(levels_from(compression.level))
            if not _is_wanted("kv_disk_size", capacity, cache.kv_disk_size, least):
                return None

            def open_level(_: int, size: int, identity: bytes) -> DiskTier:
                protection = Protection(self.pinned, capacity // size, cache.kv_scope_share)
                return DiskTier(
                    folder, capacity, size, identity, protection, policy=_policy_of(cache)
                )

            tier, levels = open_levels(
                compression,
                self.identity,
                self.codec_of,
                open_level,
                is_one_place=True,
                pinned=self.pinned,
                cipher=cipher,
            )
        except OSError as error:
            if cache.kv_disk_path or cache.kv_disk_size:
                raise ConfigError(
                    f"kv_disk_path: KV blocks cannot be kept in {folder}: "
                    f"{error.strerror or error}. Choose another folder, or set kv_disk_size to 0."
                ) from None
            logger.warning("KV blocks are not kept on disk: %s: %s.", folder, error)
            return None
        guard = GuardedPartsTier if isinstance(tier, ReadsParts) else GuardedTier
        return OpenedTier(
            TierSpec(kind="disk", capacity_bytes=capacity),
            guard(tier, "disk", deadline_s=None, breaker=_BREAKER_OF_DISK),
            tuple(key for level in levels for key in level.keys),
            levels,
            levels_from(compression.level),
        )


def ram_bytes(cache: CacheConfig, free_bytes: int) -> int:
    """How large the RAM tier may be."""
    if cache.kv_ram_size is not None:
        return cache.kv_ram_size
    return min(_RAM_BYTES, free_bytes // _SHARE_OF_FREE_RAM)


def disk_bytes(cache: CacheConfig, free_bytes: int, own_bytes: int) -> int:
    """How large the disk tier may be, beside `free_bytes` of which it takes `own_bytes` already."""
    if cache.kv_disk_size is not None:
        return cache.kv_disk_size
    return min(_DISK_BYTES, (free_bytes + own_bytes) // _SHARE_OF_FREE_DISK)


def prefetch_bytes(cache: CacheConfig, of_ram: int, record_bytes: int) -> int:
    """How much of the RAM is for what is fetched ahead of its use."""
    wanted = of_ram // _PREFETCH_SHARE
    has_source = cache.kv_disk_size != 0
    return wanted if cache.kv_prefetch != "off" and has_source and wanted >= record_bytes else 0


def _policy_of(cache: CacheConfig) -> PolicyConfig:
    if not cache.kv_eviction_weights:
        return PolicyConfig(name=cache.kv_eviction_policy, ttl_s=cache.kv_eviction_ttl)
    if cache.kv_eviction_policy != "cost":
        raise ConfigError(
            f"kv_eviction_weights is for the policy cost, but kv_eviction_policy is "
            f"{cache.kv_eviction_policy}. Leave the weights out, or set that."
        )
    try:
        weights = Weights.parse(cache.kv_eviction_weights)
    except ConfigError as error:
        raise ConfigError(f"kv_eviction_weights: {error}") from None
    return PolicyConfig(name="cost", cost=CostConfig(weights=weights))


def _is_wanted(key: str, capacity_bytes: int, asked_for: int | None, least_bytes: int) -> bool:
    if capacity_bytes >= least_bytes:
        return True
    if asked_for:
        raise ConfigError(
            f"{key} is {size_text(asked_for)}, but blocks of this model need "
            f"{size_text(least_bytes)}. Give more, or 0."
        )
    return False
