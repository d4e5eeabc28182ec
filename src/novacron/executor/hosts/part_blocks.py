"""The KV blocks of one rank, on a host of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from novacron.config.cache import CacheConfig
from novacron.executor.blueprint import Blueprint
from novacron.kernels.kv_format import choose_kv_formats
from novacron.models.layers.attention import num_local_kv_heads
from novacron.parallel.groups import SINGLE
from novacron.runner.kv_tensors import KVTensors


def allocate_part_cache(blueprint: Blueprint, num_blocks: int, cache: CacheConfig) -> KVTensors:
    """Blocks that hold what the layers of this rank's stage have, of its key-value heads, and no
    more."""
    config, stage = blueprint.config, blueprint.stage
    own_heads = num_local_kv_heads(config.num_kv_heads, blueprint.group)
    formats = choose_kv_formats(cache, len(config.layers), blueprint.kv_precision)
    return KVTensors(
        replace(config, layers=stage.of(config.layers), num_kv_heads=own_heads),
        SINGLE,
        num_blocks=num_blocks,
        block_size=cache.block_size,
        formats=stage.of(formats),
        device=blueprint.device,
    )


class LeadingBlocks:
    """Those of the first rank, for the model runner. A block that may hold NaN is zeroed on all
    hosts before it is used again: `take_zeroed` tells which since it was last asked."""

    def __init__(self, own: KVTensors) -> None:
        self._own = own
        self._tainted: set[int] = set()
        self._zeroed: set[int] = set()

    def taint(self, block_ids: Iterable[int]) -> None:
        blocks = list(block_ids)
        self._tainted.update(blocks)
        self._own.taint(blocks)

    def clean(self, block_ids: Collection[int]) -> None:
        found = self._tainted.intersection(block_ids)
        self._tainted -= found
        self._zeroed |= found
        self._own.clean(block_ids)

    def see_filled(self, block_ids: Iterable[int]) -> None:
        """On all hosts these hold values again that are finite."""
        self._tainted.difference_update(block_ids)

    def take_zeroed(self) -> tuple[int, ...]:
        zeroed, self._zeroed = tuple(sorted(self._zeroed)), set()
        return zeroed
