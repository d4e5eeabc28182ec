"""What ranks share that compute some rows of a step each: KV blocks, the tensors of a step, and the
hidden states that it ends with."""

from __future__ import annotations

from typing import Any

from novacron.config.cache import CacheConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.executor.rank_memory import RankMemory
from novacron.kernels.ranks import RankKernels, RowLink


class RowMemory(RankMemory):
    """The memory of ranks each of which has the whole model of `blueprint`. Raises ConfigError."""

    def __init__(
        self,
        blueprint: Blueprint,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        num_blocks: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self._group = blueprint.rows_group
        self._kernels = kernels_for_rows(blueprint, self._group.size)
        super().__init__(
            blueprint,
            cache,
            scheduler,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            descriptor=descriptor,
        )
        self.hidden_TD = self.shared.tensors["hidden"]

    def _exchanged(
        self, blueprint: Blueprint, scheduler: SchedulerConfig
    ) -> dict[str, tuple[tuple[int, ...], Any]]:
        hidden = (scheduler.max_num_batched_tokens, blueprint.config.hidden_size)
        meeting = self._kernels.memory_of_rows(self._group.size)
        return {"hidden": (hidden, blueprint.dtype), **meeting}

    def join_rows(self, patience_s: float, num_threads: int) -> RowLink:
        rank, num_ranks = self._group.rank, self._group.size
        return self._kernels.join_rows(
            rank, num_ranks, self.shared.tensors, patience_s, num_threads
        )


def kernels_for_rows(blueprint: Blueprint, num_ranks: int) -> RankKernels:
    """Raises ConfigError if so many ranks cannot share rows out with those that there are."""
    kernels = blueprint.kernels.ranks
    if kernels is None:
        raise ConfigError(
            f"context_parallel_size is {num_ranks}, but PyTorch computes here, which stores and "
            "attends in one. Build the native kernels, or leave it out."
        )
    return kernels
