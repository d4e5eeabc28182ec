"""RankNews: which processes hold the ranks of an engine, for those who are told of its state."""

from __future__ import annotations

import msgspec

from novacron.engine.pulse import Pulse
from novacron.executor.executor import Executor
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.pipeline import PipelineExecutor
from novacron.records.output import EngineStats

_WITH_RANKS = (MultiprocessExecutor, PipelineExecutor)


class RankNews:
    """Ranks are replaced beside the steps, also when nothing runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor if isinstance(executor, MultiprocessExecutor) else None
        self._counted = executor if isinstance(executor, _WITH_RANKS) else None
        self._told: tuple[int, ...] = self._pids

    @property
    def _pids(self) -> tuple[int, ...]:
        return () if self._executor is None else self._executor.rank_pids

    def tell_losses(self, pulse: Pulse) -> None:
        """In the pulse, because the loop waits in its step for a rank that is lost."""
        executor = self._executor
        if executor is not None:
            pulse.lost_ranks = lambda: sum(1 << rank for rank in executor.lost_ranks)
            executor.tell_losses(pulse.look)

    def restore(self) -> None:
        """While nothing runs: have a rank that is lost compute with the others again, so that the
        next request need not wait for it. Raises EngineDead."""
        if self._executor is not None and self._executor.lost_ranks:
            self._executor.restore()

    @property
    def can_come(self) -> bool:
        return self._executor is not None

    @property
    def is_there(self) -> bool:
        """Whether another process holds a rank than was told."""
        return self._pids != self._told

    def told_in(self, stats: EngineStats) -> EngineStats:
        """The figures with those of ranks."""
        if self._counted is not None:
            stats = msgspec.structs.replace(stats, ranks=self._counted.rank_stats())
        if self._executor is None:
            return stats
        self._told = self._pids
        return msgspec.structs.replace(
            stats, rank_pids=self._told, num_ranks_replaced=self._executor.num_ranks_replaced
        )
