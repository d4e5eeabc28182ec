"""Which KV tiers an engine gets, and how large; opened around its device blocks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from novacron.config.engine import CacheConfig, ModelConfig
from novacron.config.folders import kv_folder
from novacron.config.kv_compression import TierCompression, levels_from, tier_compressions
from novacron.config.remote_tiers import tier_order
from novacron.errors import ConfigError
from novacron.executor.memory_plan import size_text
from novacron.executor.remote_tiers import open_remote_tiers
from novacron.executor.tier_shelves import CodecOf, least_ram_bytes, open_levels, ram_shares
from novacron.kernels.native.block_copies import NativeCopies
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.block_mover import BlockMover
from novacron.kv_tiers.circuit_breaker import BreakerConfig
from novacron.kv_tiers.compressed_tier import identity_in
from novacron.kv_tiers.disk_tier import DiskTier
from novacron.kv_tiers.eviction.choice import PolicyConfig
from novacron.kv_tiers.eviction.cost import CostConfig
from novacron.kv_tiers.eviction.score import Weights
from novacron.kv_tiers.guarded_tier import GuardedPartsTier, GuardedTier
from novacron.kv_tiers.model_label import ModelLabel, write_label
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.protection import Protection
from novacron.kv_tiers.ram_tier import RamTier
from novacron.kv_tiers.record import identity_of, record_bytes
from novacron.kv_tiers.tier import KVTier, ReadsParts
from novacron.records.block import BlockHash
from novacron.records.block_moves import TierKeys
from novacron.records.output import PREFETCH_BUFFER, TierSpec

_RAM_BYTES: Final = 4 * 2**30
_SHARE_OF_FREE_RAM: Final = 8
_DISK_BYTES: Final = 20 * 2**30
_SHARE_OF_FREE_DISK: Final = 10
_BREAKER_OF_DISK: Final = BreakerConfig(failures=1, first_rest_s=10.0, longest_rest_s=60.0)
_PREFETCH_SHARE: Final = 8  # of the RAM tier
_TIERS_OF: Final = {"ram": ("ram", PREFETCH_BUFFER)}  # what a kind in the settings comes to
_SHARE_OF_CORES: Final = 0.0075  # for stores while steps follow each other
_MOST_LOADERS: Final = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Opened:
    """A tier, and what it had from the beginning."""

    spec: TierSpec
    tier: KVTier
    found: tuple[BlockHash, ...] = ()


@dataclass(frozen=True)
class OpenTiers:
    """What an executor needs of its tiers. Whoever has it closes the mover."""

    specs: tuple[TierSpec, ...]
    mover: BlockMover


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


def open_tiers(
    model: ModelConfig,
    cache: CacheConfig,
    memory: BlockMemory,
    *,
    model_version: str,
    kv_identity: str,
    codec_of: CodecOf,
) -> OpenTiers | None:
    """The tiers that the settings ask for; None if there are none. One that nobody asked for and
    that cannot be had is left out, with a line in the log. Raises ConfigError for others."""
    if not cache.enable_prefix_caching:
        return None
    size = record_bytes(memory.block_bytes)
    identity = identity_of(
        model_version=model_version, kv_identity=kv_identity, block_size=memory.block_size
    )
    opened: dict[str, _Opened] = {}
    copies = open_copies()
    pinned = PinnedBlocks()
    of_ram = ram_bytes(cache, psutil.virtual_memory().available)
    compressions = tier_compressions(cache)
    ahead = prefetch_bytes(cache, of_ram, size)
    least_ram = ahead + least_ram_bytes(compressions["ram"], size)
    if _is_wanted("kv_ram_size", of_ram, cache.kv_ram_size, least_ram):
        of_ram -= ahead
        ram = _open_ram(cache, of_ram, identity, codec_of, copies, pinned)
        opened["ram"] = _Opened(TierSpec(kind="ram", capacity_bytes=of_ram), ram)
        if ahead:
            spec = TierSpec(kind=PREFETCH_BUFFER, capacity_bytes=ahead)
            opened[PREFETCH_BUFFER] = _Opened(spec, RamTier(ahead, size, copies))
    folder = kv_folder(model, cache)
    disk = _open_disk(cache, folder, size, identity, codec_of, pinned)
    if disk is not None:
        label = ModelLabel(
            model=Path(model.model).name or "bundled",
            model_version=model_version,
            kv_identity=kv_identity,
            block_size=memory.block_size,
        )
        for level in levels_from(compressions["disk"].level):
            _write_label(folder, identity_in(identity, level), label)
        opened["disk"] = disk
    for spec, remote in open_remote_tiers(cache, size, identity):
        opened[spec.kind] = _Opened(spec, remote)
    if not opened:
        return None
    kinds = [name for kind in tier_order(cache) for name in _TIERS_OF.get(kind, (kind,))]
    tiers = [opened[kind] for kind in kinds if kind in opened]
    specs = tuple(one.spec for one in tiers)
    logger.info("KV tiers: %s", ", ".join(_describe(spec, compressions) for spec in specs))
    num_cores = psutil.cpu_count() or 1
    mover = BlockMover(
        memory,
        [one.tier for one in tiers],
        identity,
        found=[TierKeys(index, one.found) for index, one in enumerate(tiers) if one.found],
        pinned=pinned,
        share=min(1.0, _SHARE_OF_CORES * num_cores),
        park_in=next((place for place, spec in enumerate(specs) if spec.kind == "ram"), None),
        copies=copies,
        num_loaders=min(_MOST_LOADERS, num_cores),
    )
    return OpenTiers(specs, mover)


def open_copies() -> BlockCopies:
    """The quickest way to copy blocks that there is here."""
    try:
        return NativeCopies(NativeContext(1))
    except NativeUnavailable:  # said when the kernels were chosen
        return PlainCopies()


def _open_ram(
    cache: CacheConfig,
    capacity_bytes: int,
    identity: bytes,
    codec_of: CodecOf,
    copies: BlockCopies,
    pinned: PinnedBlocks,
) -> KVTier:
    """Each level has a share of the bytes, and chooses for itself what leaves."""
    compression = tier_compressions(cache)["ram"]
    shares = ram_shares(capacity_bytes, len(levels_from(compression.level)))

    def open_level(place: int, size: int, _: bytes) -> RamTier:
        protection = Protection(pinned, shares[place] // size, cache.kv_scope_share)
        policy = _policy_of(cache)
        return RamTier(shares[place], size, copies, policy=policy, protection=protection)

    tier, _ = open_levels(compression, identity, codec_of, open_level, is_one_place=False)
    return tier


def _open_disk(
    cache: CacheConfig,
    folder: Path,
    size: int,
    identity: bytes,
    codec_of: CodecOf,
    pinned: PinnedBlocks,
) -> _Opened | None:
    """Levels are segments of their own in one folder, whose files count together."""
    if cache.kv_disk_size == 0:
        return None
    compression = tier_compressions(cache)["disk"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own = sum(path.stat().st_size for path in folder.glob("*.kvseg"))
        capacity = disk_bytes(cache, shutil.disk_usage(folder).free, own)
        least = 2 * size * len(levels_from(compression.level))
        if not _is_wanted("kv_disk_size", capacity, cache.kv_disk_size, least):
            return None

        def open_level(_: int, record_bytes: int, of_level: bytes) -> DiskTier:
            protection = Protection(pinned, capacity // record_bytes, cache.kv_scope_share)
            return DiskTier(folder, capacity, record_bytes, of_level, protection)

        tier, levels = open_levels(compression, identity, codec_of, open_level, is_one_place=True)
    except OSError as error:
        if cache.kv_disk_path or cache.kv_disk_size:
            raise ConfigError(
                f"kv_disk_path: KV blocks cannot be kept in {folder}: {error.strerror or error}. "
                "Choose another folder, or set kv_disk_size to 0."
            ) from None
        logger.warning("KV blocks are not kept on disk: %s: %s.", folder, error)
        return None
    guard = GuardedPartsTier if isinstance(tier, ReadsParts) else GuardedTier
    return _Opened(
        TierSpec(kind="disk", capacity_bytes=capacity),
        guard(tier, "disk", deadline_s=None, breaker=_BREAKER_OF_DISK),
        tuple(key for level in levels for key in level.keys),
    )


def _write_label(folder: Path, identity: bytes, label: ModelLabel) -> None:
    try:
        write_label(folder, identity, label)
    except OSError as error:  # it is for people only
        logger.warning("The label of the KV blocks cannot be written: %s.", error)


def _policy_of(cache: CacheConfig) -> PolicyConfig:
    if not cache.kv_eviction_weights:
        return PolicyConfig(name=cache.kv_eviction_policy)
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


def _describe(spec: TierSpec, compressions: Mapping[str, TierCompression]) -> str:
    if spec.capacity_bytes == 0:
        return f"{spec.kind} without a limit of ours"
    text = f"{spec.kind} up to {size_text(spec.capacity_bytes)}"
    level = compressions[spec.kind].level if spec.kind in compressions else "raw"
    return text if level == "raw" else f"{text} in {level}"
