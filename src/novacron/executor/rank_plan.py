"""What each rank of a model holds: which layers, and how many bytes. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from novacron.config.cache import CacheConfig
from novacron.executor.blueprint import META, Blueprint
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.layers.attention import num_local_kv_heads


@dataclass(frozen=True, kw_only=True)
class RankPlan:
    """`first_layer` to `last_layer`, both included; of each the slice `slice` of `num_slices`, for
    the share `rows` of `num_shares` of the rows of long steps. Ranks of one host have the KV blocks
    of all shares in common."""

    rank: int
    stage: int
    first_layer: int
    last_layer: int
    slice: int
    num_slices: int
    rows: int
    num_shares: int
    weight_bytes: int
    kv_cache_bytes: int


def plan_ranks(blueprint: Blueprint, cache: CacheConfig, num_blocks: int) -> tuple[RankPlan, ...]:
    """Of every rank of the blueprint of one of them."""
    return tuple(
        _plan_rank(replace(blueprint, rank=rank), cache, num_blocks)
        for rank in range(blueprint.dims.num_ranks)
    )


def _plan_rank(own: Blueprint, cache: CacheConfig, num_blocks: int) -> RankPlan:
    config, layers = own.config, own.stage.layers
    formats = choose_kv_formats(cache, len(config.layers), own.kv_precision)
    of_one_head = sum(
        formats[layer].block_bytes(cache.block_size, config.head_dim) for layer in layers
    )
    heads = num_local_kv_heads(config.num_kv_heads, own.group)
    return RankPlan(
        rank=own.rank,
        stage=own.stage.index,
        first_layer=layers.start,
        last_layer=layers.stop - 1,
        slice=own.group.rank,
        num_slices=own.group.size,
        rows=own.rows_group.rank,
        num_shares=own.rows_group.size,
        weight_bytes=own.build(META).weight_bytes,
        kv_cache_bytes=num_blocks * heads * of_one_head,
    )
