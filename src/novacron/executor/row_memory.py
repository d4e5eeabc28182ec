"""What ranks share that compute some rows of a step each: KV blocks, the tensors of a step, and the
hidden states that it ends with."""

from __future__ import annotations

from typing import Any

from novacron.config.cache import CacheConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError
from novacron.executor.blueprint import Blueprint
from novacron.executor.rank_memory import RankMemory
from novacron.kernels.ranks import RowLink


class RowMemory(RankMemory):
    """The memory of `num_ranks`, each of which has the whole model of `blueprint`. Raises
    ConfigError."""

    def __init__(
        self,
        blueprint: Blueprint,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        num_ranks: int,
        num_blocks: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self._num_ranks = num_ranks
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
        kernels = blueprint.kernels.ranks
        if kernels is None:
            raise ConfigError(
                f"context_parallel_size is {self._num_ranks}, but PyTorch computes here, which "
                "stores and attends in one. Build the native kernels, or leave it out."
            )
        hidden = (scheduler.max_num_batched_tokens, blueprint.config.hidden_size)
        return {"hidden": (hidden, blueprint.dtype), **kernels.memory_of_rows(self._num_ranks)}

    def join_rows(self, rank: int, patience_s: float, num_threads: int) -> RowLink:
        kernels = self._blueprint.kernels.ranks
        assert kernels is not None
        return kernels.join_rows(
            rank, self._num_ranks, self.shared.tensors, patience_s, num_threads
        )
