"""How many threads a rank of a host has."""

from __future__ import annotations

import logging
import os

from novacron.config.model import ModelConfig
from novacron.executor.blueprint import dims_of, steps_in_flight
from novacron.executor.placement import threads_of_replica

logger = logging.getLogger(__name__)


def threads_of_rank(model: ModelConfig) -> int:
    """Its share of those of all ranks that compute at the same time: they compete for cores if
    there are more of them."""
    dims, num_threads = dims_of(model), threads_of_replica(model)
    num_ranks = dims.tensor * min(dims.pipeline, steps_in_flight(model))
    num_ranks *= model.context_parallel_size
    if num_threads < num_ranks and len(os.sched_getaffinity(0)) < num_ranks:
        logger.warning(
            "%d ranks compute at once, but there are %d cores: ranks wait for each other.",
            num_ranks, len(os.sched_getaffinity(0)),
        )  # fmt: skip
    return max(1, num_threads // num_ranks)


def threads_on_host(model: ModelConfig) -> int:
    """The same where ranks are on several hosts: the slices of a stage share one."""
    return max(1, threads_of_replica(model) // dims_of(model).ranks_each)


def threads_of_leader(model: ModelConfig) -> int:
    """Of rank 0. Where ranks share rows, it computes short steps alone, with all threads."""
    if model.context_parallel_size > 1:
        return threads_of_replica(model)
    return threads_of_rank(model)
