"""What an engine knows of blocks below its device: the tiers' index and pins, and who answers for
them."""

from __future__ import annotations

import time
from collections.abc import Callable

from novacron.config.cache import CacheConfig
from novacron.config.engine import EngineConfig
from novacron.config.folders import kv_folder
from novacron.executor.executor import Executor
from novacron.kv_cache.kv_cache_manager import KVCacheManager
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.pins import PinLimits, kept_within
from novacron.kv_tiers.record import identity_of, record_bytes
from novacron.records.output import PREFETCH_BUFFER, ModelSpec
from novacron.scheduler.cache_desk import CacheDesk
from novacron.scheduler.fetch_choice import FetchChoice, MeasuredFetchChoice
from novacron.scheduler.prefetch import Prefetcher, PrefetchLimits
from novacron.scheduler.sessions import Sessions
from novacron.scheduler.tiered_prefixes import TieredPrefixes

AroundChoice = Callable[[FetchChoice], FetchChoice]


def as_it_is(choice: FetchChoice) -> FetchChoice:
    return choice


def build_cache_desk(
    config: EngineConfig,
    spec: ModelSpec,
    kv_cache: KVCacheManager,
    sessions: Sessions,
    executor: Executor,
    around_choice: AroundChoice = as_it_is,
) -> tuple[TieredPrefixes | None, CacheDesk]:
    """The tiers as the scheduler sees them, None if there are none, with the pins of an earlier
    start; and the desk that callers ask."""
    if not spec.kv_tiers:
        return None, CacheDesk(kv_cache, None, sessions)
    block_bytes = record_bytes(spec.kv_cache_bytes // spec.num_blocks)
    identity = identity_of(
        model_version=spec.model_version, kv_identity=spec.kv_identity, block_size=spec.block_size
    )
    has_disk = any(tier.kind == "disk" for tier in spec.kv_tiers)
    file = PinFile(kv_folder(config.model, config.cache) if has_disk else None, identity)
    now_s = time.time()
    pins = kept_within(
        file.read(),
        pin_limits(config.cache, spec, block_bytes),
        lambda pin: pin.expires_s is None or pin.expires_s > now_s,
    )
    prefetcher = _prefetcher(config.cache, spec, block_bytes, sessions)
    choice = MeasuredFetchChoice(
        spec.kv_tiers,
        block_bytes=spec.kv_cache_bytes // spec.num_blocks,
        block_size=spec.block_size,
        tokens_per_step=config.scheduler.max_num_batched_tokens,
    )
    tiers = TieredPrefixes(
        kv_cache,
        spec.kv_tiers,
        choice=around_choice(choice),
        pins=pins,
        prefetcher=prefetcher,
    )
    if prefetcher is not None:
        for pin in pins.all:
            prefetcher.want(pin.keys)
    return tiers, CacheDesk(
        kv_cache,
        tiers,
        sessions,
        block_bytes=block_bytes,
        write_pins=file.write,
        blocks_of=executor.blocks_of,
        torn_blocks=executor.torn_blocks,
    )


def pin_limits(cache: CacheConfig, spec: ModelSpec, block_bytes: int) -> PinLimits:
    """Pins are kept in every tier of this machine, so the smallest one bounds them."""
    kept = [tier for tier in spec.kv_tiers if tier.kind in ("ram", "disk")]
    smallest = min((tier.capacity_bytes for tier in kept), default=0)
    most_blocks = int(cache.kv_pin_share * smallest) // block_bytes
    return PinLimits(most_blocks, int(cache.kv_scope_share * most_blocks))


def _prefetcher(
    cache: CacheConfig, spec: ModelSpec, block_bytes: int, sessions: Sessions
) -> Prefetcher | None:
    """None unless prefetch is on and has a buffer."""
    kinds = [tier.kind for tier in spec.kv_tiers]
    if cache.kv_prefetch == "off" or PREFETCH_BUFFER not in kinds:
        return None
    buffer = kinds.index(PREFETCH_BUFFER)
    limits = PrefetchLimits(
        buffer_blocks=spec.kv_tiers[buffer].capacity_bytes // block_bytes,
        blocks_per_s=cache.kv_prefetch_bandwidth / block_bytes,
    )
    return Prefetcher(cache.kv_prefetch, buffer, limits, sessions.likely_to_return)
