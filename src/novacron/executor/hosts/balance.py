"""What each host gets of a model, and how many KV blocks all of them have room for. Reads no
weights.

A step goes through all stages: with as many steps in flight as stages, the slowest one decides. So
stages get layers in proportion to how quickly their hosts read weights, as far as memory allows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from novacron.config.cache import CacheConfig
from novacron.config.engine import SpeculativeConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, ModelLoadError
from novacron.executor.blueprint import META, Blueprint
from novacron.executor.hosts.kept_cut import is_worth_keeping
from novacron.executor.memory_plan import (
    DeviceMemory,
    MemoryPlan,
    ModelShape,
    block_bytes,
    plan_memory,
    size_text,
)
from novacron.executor.row_memory import kernels_for_rows
from novacron.models.layer_costs import costs_of, stages_of
from novacron.parallel.dims import ParallelDims
from novacron.parallel.stages import NoCut, Stage, stages_ending

_STEP: Final = 1.25  # speeds are taken as powers of it: noise must not move layers at each start
_MUCH_SLOWER: Final = 0.5  # than the fastest host
_SHARE_FOR_WEIGHTS: Final = 0.8  # of a host's free memory; the rest is for KV blocks and steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostFacts:
    """Of the host of one rank, which it shares with those of other replicas."""

    name: str
    memory: DeviceMemory
    bytes_per_s: float
    num_replicas: int = 1


@dataclass(frozen=True, kw_only=True)
class HostsPlan:
    """`num_blocks` and `max_model_len` are what every host has room for. `hosts` are the plans of
    their memory, each for itself. Without `stages`, each has a slice of every layer."""

    stages: tuple[Stage, ...]
    hosts: tuple[MemoryPlan, ...]
    num_blocks: int
    max_model_len: int
    block_bytes: int  # on all hosts together

    @property
    def kv_cache_bytes(self) -> int:
        return self.num_blocks * self.block_bytes


def rounded_speeds(bytes_per_s: Sequence[float]) -> tuple[float, ...]:
    """In proportion to the fastest, which is 1."""
    fastest = max(bytes_per_s)
    return tuple(_STEP ** round(math.log(one / fastest, _STEP)) for one in bytes_per_s)


def plan_pipeline(
    whole: Blueprint,
    hosts: Sequence[HostFacts],
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
    *,
    dims: ParallelDims,
    max_model_len: int | None,
    draft: ModelShape | None = None,
    former: Sequence[int] = (),
) -> HostsPlan:
    """Of the model that `whole` draws, alone so far, for as many stages as hosts, each with the
    slices that `dims` tell. `kv_cache_memory` is for all hosts together, and all replicas. `draft`
    is that of a model that guesses, on the first host. Stages that ended before the layers `former`
    end there again, unless that is bad now. Raises ModelLoadError and ConfigError, which name the
    host that has no room."""
    assert dims.pipeline == len(hosts)
    whole.of_rank(0, dims)  # refuses more stages than layers
    stages = _cut(whole, hosts, former)
    parts = [whole.of_rank(dims.rank_of_host(host), dims, stages) for host in range(len(hosts))]
    return _plan_parts(parts, hosts, cache, scheduler, speculative, max_model_len, draft)


def plan_slices(
    whole: Blueprint,
    hosts: Sequence[HostFacts],
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
    *,
    dims: ParallelDims,
    max_model_len: int | None,
    draft: ModelShape | None = None,
    former: Sequence[int] = (),
) -> HostsPlan:
    """The same where each host has a slice of every layer. Slices are equal, so that sums are those
    of one process: all hosts compute as quickly as the slowest one. There is no cut of layers that
    `former` could tell."""
    assert dims == ParallelDims(tensor=len(hosts))
    _tell_of_much_slower("Slices", hosts)
    parts = [whole.of_rank(rank, dims) for rank in range(len(hosts))]
    return _plan_parts(parts, hosts, cache, scheduler, speculative, max_model_len, draft)


def plan_rows(
    whole: Blueprint,
    hosts: Sequence[HostFacts],
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
    *,
    dims: ParallelDims,
    max_model_len: int | None,
    draft: ModelShape | None = None,
    former: Sequence[int] = (),
) -> HostsPlan:
    """The same where each host has the whole model, all KV blocks, and as many rows of long steps
    as any other: `kv_cache_memory` is what each of them takes."""
    assert dims == ParallelDims(context=len(hosts))
    kernels_for_rows(whole, len(hosts))  # refuses those that cannot
    _tell_of_much_slower("Shares of long prompts", hosts)
    parts = [whole.of_rank(rank, dims) for rank in range(len(hosts))]
    return _plan_parts(
        parts, hosts, cache, scheduler, speculative, max_model_len, draft, num_copies=len(hosts)
    )


def _tell_of_much_slower(what: str, hosts: Sequence[HostFacts]) -> None:
    speeds = rounded_speeds([host.bytes_per_s for host in hosts])
    if min(speeds) < _MUCH_SLOWER:
        logger.warning(
            "%s are equal, but the host %s reads weights at %.0f%% of the speed of the fastest "
            "one, which waits for it. Stages (pipeline_parallel_size) would be cut by speed.",
            what, hosts[speeds.index(min(speeds))].name, 100 * min(speeds),
        )  # fmt: skip


def _plan_parts(
    parts: Sequence[Blueprint],
    hosts: Sequence[HostFacts],
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    speculative: SpeculativeConfig,
    max_model_len: int | None,
    draft: ModelShape | None,
    *,
    num_copies: int = 1,
) -> HostsPlan:
    """All parts together are so many times the model."""
    shapes = [part.shape_of_part() for part in parts]
    block_bytes_of_all = sum(block_bytes(shape, cache) for shape in shapes) // num_copies
    plans = []
    for host, shape, part in zip(hosts, shapes, parts, strict=True):
        own = _share(cache, shape, block_bytes_of_all, hosts[0].num_replicas, host.num_replicas)
        try:
            plan = plan_memory(
                shape, host.memory, own, scheduler, speculative,
                max_model_len=max_model_len, draft=draft if part.rank == 0 else None,
                num_replicas=host.num_replicas,
            )  # fmt: skip
        except (ModelLoadError, ConfigError) as error:
            raise type(error)(f"On the host {host.name}: {error}") from error
        logger.info(
            "rank %d on %s: layers %d to %d, slice %d of %d, share %d of %d of rows; %s",
            part.rank, host.name, part.stage.layers.start, part.stage.layers.stop - 1,
            part.group.rank + 1, part.group.size,
            part.rows_group.rank + 1, part.rows_group.size, plan.summary,
        )  # fmt: skip
        plans.append(plan)
    num_blocks = min(plan.num_blocks for plan in plans)
    return HostsPlan(
        stages=parts[0].stages,
        hosts=tuple(plans),
        num_blocks=num_blocks,
        max_model_len=min(plan.max_model_len for plan in plans),
        block_bytes=block_bytes_of_all,
    )


def _cut(whole: Blueprint, hosts: Sequence[HostFacts], former: Sequence[int]) -> tuple[Stage, ...]:
    room_bytes = [_SHARE_FOR_WEIGHTS * host.memory.free_bytes / host.num_replicas for host in hosts]
    decoder = whole.build(META)
    speeds = rounded_speeds([host.bytes_per_s for host in hosts])
    try:
        best = stages_of(decoder, len(hosts), speeds=speeds, room_bytes=room_bytes)
    except NoCut:
        rooms = ", ".join(f"{host.name} {size_text(host.memory.free_bytes)}" for host in hosts)
        raise ModelLoadError(
            f"{whole.path}: the weights take {size_text(decoder.weight_bytes)}, and no cut of the "
            f"layers fits into what the hosts have free: {rooms}, of which weights may take "
            f"{_SHARE_FOR_WEIGHTS:.0%}. Add a host, free memory, or round the weights."
        ) from None
    stops = [stage.layers.stop for stage in best]
    costs = costs_of(decoder)
    if not former or not is_worth_keeping(
        former, stops, costs, speeds=speeds, room_bytes=room_bytes
    ):
        return best
    if list(former) != stops:
        logger.info(
            "Layers are cut as at the last start, before %s, where hosts keep their KV blocks; by "
            "the speeds of today it would be before %s.",
            list(former[:-1]), stops[:-1],
        )  # fmt: skip
    return stages_ending(former)


def _share(
    cache: CacheConfig, shape: ModelShape, all_bytes: int, num_replicas: int, num_here: int
) -> CacheConfig:
    """What the host's part of `kv_cache_memory` is, for so many replicas on the host."""
    if cache.kv_cache_memory is None:
        return cache
    num_blocks = cache.kv_cache_memory // num_replicas // all_bytes
    return replace(cache, kv_cache_memory=num_blocks * block_bytes(shape, cache) * num_here)
