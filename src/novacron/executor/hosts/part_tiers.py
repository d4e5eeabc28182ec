"""The KV tiers of one rank's part of all blocks, on a host of its own."""

from __future__ import annotations

from novacron.config.cache import CacheConfig
from novacron.config.folders import kv_folder
from novacron.config.model import ModelConfig
from novacron.executor.block_part import BlockPart
from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.orders import OpenTiers
from novacron.executor.own_rank import OwnRank
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.kv_tiers.pin_file import PinFile
from novacron.kv_tiers.record import identity_of
from novacron.parallel.groups import SINGLE


def open_part(
    rank: OwnRank, order: OpenTiers, model: ModelConfig, cache: CacheConfig
) -> TieredBlocks:
    """Raises ConfigError."""
    name = name_of_part(rank.blueprint)
    part = BlockPart(name, rank.kv_tensors.block_bytes / order.block_bytes)
    return TieredBlocks(rank, order.kv_identity, model, cache, part=part)


def name_of_part(blueprint: Blueprint) -> str:
    """Of a stage, its host has all heads, whoever has slices."""
    stage = blueprint.stage
    layers, group = stage.layers, blueprint.group if stage.count == 1 else SINGLE
    return f"layers {layers.start} to {layers.stop}, slice {group.rank} of {group.size}"


def pin_file_of(
    rank: OwnRank, order: OpenTiers, model: ModelConfig, cache: CacheConfig, *, has_disk: bool
) -> PinFile:
    """Beside a rank's own disk: what is pinned, for those who look at the folder without a server.
    Rank 0 writes its own."""
    identity = identity_of(
        model_version=rank.version, kv_identity=order.kv_identity, block_size=cache.block_size
    )
    return PinFile(kv_folder(model, cache) if has_disk else None, identity)
