"""The KV tiers of one rank's part of all blocks, on a host of its own."""

from __future__ import annotations

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.orders import OpenTiers
from novacron.executor.own_rank import OwnRank
from novacron.executor.tiered_blocks import TieredBlocks


def open_part(
    rank: OwnRank, order: OpenTiers, model: ModelConfig, cache: CacheConfig
) -> TieredBlocks:
    """Raises ConfigError."""
    return TieredBlocks(
        rank,
        part_identity(order.kv_identity, rank.blueprint),
        model,
        cache,
        share=rank.kv_tensors.block_bytes / order.block_bytes,
    )


def part_identity(kv_identity: str, blueprint: Blueprint) -> str:
    """Of the parts of blocks that one rank has: whoever has the same part of them, in whatever
    tier, on whatever host, finds these and no others."""
    layers, group = blueprint.stage.layers, blueprint.group
    return (
        f"{kv_identity}, layers {layers.start} to {layers.stop}, slice {group.rank} of {group.size}"
    )
