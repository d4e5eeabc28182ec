"""Ranks of the native kernels as threads of one process: each with a context of its own, and the
memory that they share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from novacron.kernels.native.communicator import NativeCommunicator, SharedAreas
from novacron.kernels.native.library import NativeContext
from novacron.kernels.native.rank_group import RankGroup, group_bytes
from novacron.kernels.pages import zero_pages

Result = TypeVar("Result")


def on_native_ranks(
    size: int,
    level: str,
    work: Callable[[int, NativeCommunicator, NativeContext], Result],
    *,
    max_rows: int,
    hidden_size: int,
    vocab_size: int = 1,
    dtype: torch.dtype = torch.float32,
    patience_s: float = 30.0,
) -> list[Result]:
    """What `work` gives on each rank, all at the same time. `max_rows`: of partial sums."""
    contexts = [NativeContext(1, level) for _ in range(size)]
    memory = zero_pages((group_bytes(contexts[0], size),), torch.uint8)
    areas = SharedAreas(
        torch.empty(2, size, max_rows, hidden_size),
        torch.empty(max_rows, hidden_size, dtype=dtype),
        torch.empty(max_rows, vocab_size),
    )

    def run(rank: int) -> Result:
        group = RankGroup(contexts[rank], memory, rank, size, patience_s=patience_s)
        try:
            return work(rank, NativeCommunicator(contexts[rank], group, areas), contexts[rank])
        except BaseException:
            group.give_up()
            raise

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, range(size)))
