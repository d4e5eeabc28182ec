"""Which KV tiers an engine gets; opened around its device blocks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import psutil

from novacron.config.cache import CacheConfig
from novacron.config.folders import kv_folder
from novacron.config.kv_compression import TierCompression, levels_from, tier_compressions
from novacron.config.model import ModelConfig
from novacron.config.remote_tiers import tier_order
from novacron.executor.block_part import WHOLE, BlockPart
from novacron.executor.local_tiers import LocalTiers, OpenedTier
from novacron.executor.memory_plan import size_text
from novacron.executor.remote_tiers import RemoteTiers
from novacron.executor.tier_encryption import ciphers_of
from novacron.executor.tier_shelves import CodecOf, stored_identity
from novacron.executor.tier_upkeep import make_upkeep
from novacron.kernels.native.block_copies import NativeCopies
from novacron.kernels.native.library import NativeContext, NativeUnavailable
from novacron.kv_tiers.block_copies import BlockCopies, PlainCopies
from novacron.kv_tiers.block_memory import BlockMemory
from novacron.kv_tiers.block_mover import BlockMover
from novacron.kv_tiers.model_label import ModelLabel, write_label
from novacron.kv_tiers.pinned_blocks import PinnedBlocks
from novacron.kv_tiers.record import identity_of, record_bytes
from novacron.records.block_moves import TierKeys
from novacron.records.output import PREFETCH_BUFFER, TierSpec

_TIERS_OF: Final = {"ram": ("ram", PREFETCH_BUFFER)}  # what a kind in the settings comes to
_SHARE_OF_CORES: Final = 0.004  # for stores while steps follow each other
_MOST_LOADERS: Final = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenTiers:
    """What an executor needs of its tiers. Whoever has it closes the mover."""

    specs: tuple[TierSpec, ...]
    mover: BlockMover


def open_tiers(
    model: ModelConfig,
    cache: CacheConfig,
    memory: BlockMemory,
    *,
    model_version: str,
    kv_identity: str,
    codec_of: CodecOf,
    part: BlockPart = WHOLE,
) -> OpenTiers | None:
    """The tiers that the settings ask for; None if there are none. One that nobody asked for and
    that cannot be had is left out, with a line in the log. `memory` holds
    `part` of blocks that agree in `kv_identity`. Raises ConfigError for others."""
    if not cache.enable_prefix_caching:
        return None
    size = record_bytes(memory.block_bytes)
    identity_in = partial(identity_of, model_version=model_version, block_size=memory.block_size)
    identity = identity_in(kv_identity=part.identity_in(kv_identity))
    compressions = tier_compressions(cache)
    copies, pinned = open_copies(), PinnedBlocks()
    folder = kv_folder(model, cache)
    open_cipher = ciphers_of(cache, folder)
    local = LocalTiers(
        cache,
        size,
        identity,
        codec_of,
        copies,
        pinned,
        num_sharers=model.data_parallel_size,
        open_cipher=open_cipher,
    )
    opened = {one.spec.kind: one for one in local.open_ram()}
    disk = local.open_disk(folder)
    if disk is not None:
        opened["disk"] = disk
        label = ModelLabel(
            model=Path(model.model).name or "bundled",
            model_version=model_version,
            kv_identity=kv_identity,
            part=part.name,
            block_size=memory.block_size,
            whole=identity_in(kv_identity=kv_identity).hex(),
        )
        for level in levels_from(compressions["disk"].level):
            of_level = msgspec.structs.replace(
                label, level=level, is_encrypted=bool(cache.encryption_key)
            )
            stored = stored_identity(identity, level, is_encrypted=of_level.is_encrypted)
            _write_label(folder, stored, of_level)
    for spec, remote in RemoteTiers(
        cache, size, identity, codec_of, open_cipher, part.share
    ).open():
        opened[spec.kind] = OpenedTier(spec, remote)
    if not opened:
        return None
    kinds = [name for kind in tier_order(cache) for name in _TIERS_OF.get(kind, (kind,))]
    tiers = [
        replace(opened[kind], spec=_in_region(opened[kind].spec, model, cache))
        for kind in kinds
        if kind in opened
    ]
    specs = tuple(one.spec for one in tiers)
    logger.info("KV tiers: %s", ", ".join(_describe(spec, compressions) for spec in specs))
    num_cores = psutil.cpu_count() or 1
    can_park = compressions["ram"].level == "raw"  # else it would take a step's time
    parking = [place for place, spec in enumerate(specs) if spec.kind == "ram" and can_park]
    ahead = 0 if cache.kv_prefetch == "off" else cache.kv_prefetch_bandwidth
    upkeep = make_upkeep(
        tiers,
        folder,
        record_bytes=size,
        identity=identity,
        codec_of=codec_of,
        warm_bytes_per_s=ahead,
    )
    mover = BlockMover(
        memory,
        [one.tier for one in tiers],
        identity,
        found=[TierKeys(index, one.found) for index, one in enumerate(tiers) if one.found],
        pinned=pinned,
        share=min(1.0, _SHARE_OF_CORES * num_cores),
        park_in=next(iter(parking), None),
        upkeep=upkeep,
        copies=copies,
        num_loaders=min(_MOST_LOADERS, num_cores),
    )
    return OpenTiers(specs, mover)


def _in_region(spec: TierSpec, model: ModelConfig, cache: CacheConfig) -> TierSpec:
    """RAM and disk are where the engine is."""
    far = {"redis": cache.kv_redis_region, "object": cache.kv_object_region}
    return msgspec.structs.replace(spec, region=far.get(spec.kind, model.region))


def open_copies() -> BlockCopies:
    """The quickest way to copy blocks that there is here."""
    try:
        return NativeCopies(NativeContext(1))
    except NativeUnavailable:  # said when the kernels were chosen
        return PlainCopies()


def _write_label(folder: Path, identity: bytes, label: ModelLabel) -> None:
    try:
        write_label(folder, identity, label)
    except OSError as error:  # it is for people only
        logger.warning("The label of the KV blocks cannot be written: %s.", error)


def _describe(spec: TierSpec, compressions: Mapping[str, TierCompression]) -> str:
    if spec.capacity_bytes == 0:
        return f"{spec.kind} without a limit of ours"
    text = f"{spec.kind} up to {size_text(spec.capacity_bytes)}"
    level = compressions[spec.kind].level if spec.kind in compressions else "raw"
    return text if level == "raw" else f"{text} in {level}"
