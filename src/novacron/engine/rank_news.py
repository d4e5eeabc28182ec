"""RankNews: which processes hold the ranks of an engine, for those who are told of its state."""

from __future__ import annotations

import msgspec

from novacron.executor.executor import Executor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.records.output import EngineStats


class RankNews:
    """Ranks are replaced beside the steps, also when nothing runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor if isinstance(executor, MultiprocessExecutor) else None
        self._told: tuple[int, ...] = self._pids

    @property
    def _pids(self) -> tuple[int, ...]:
        return () if self._executor is None else self._executor.rank_pids

    @property
    def can_come(self) -> bool:
        return self._executor is not None

    @property
    def is_there(self) -> bool:
        """Whether another process holds a rank than was told."""
        return self._pids != self._told

    def told_in(self, stats: EngineStats) -> EngineStats:
        """The figures with those of ranks."""
        if self._executor is None:
            return stats
        self._told = self._pids
        return msgspec.structs.replace(
            stats, rank_pids=self._told, num_ranks_replaced=self._executor.num_ranks_replaced
        )
