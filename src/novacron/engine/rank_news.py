"""RankNews: which processes hold the ranks of an engine, for those who are told of its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from novacron.engine.pulse import Pulse
from novacron.executor.executor import Executor
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.executor.multiprocess import MultiprocessExecutor
from novacron.executor.pipeline import PipelineExecutor
from novacron.records.output import EngineStats, ModelSpec
from novacron.records.parallel_stats import RankStats

_WITH_RANKS: Final = (MultiprocessExecutor, PipelineExecutor, OverHosts)


class _WithRanks(Protocol):
    @property
    def spec(self) -> ModelSpec: ...

    @property
    def rank_pids(self) -> tuple[int, ...]: ...

    @property
    def num_ranks_replaced(self) -> int: ...

    @property
    def lost_ranks(self) -> tuple[int, ...]: ...

    def restore(self) -> None: ...

    def tell_losses(self, on_change: Callable[[], None]) -> None: ...

    def rank_stats(self) -> tuple[RankStats, ...]: ...


class RankNews:
    """Ranks are replaced beside the steps, also when nothing runs. A rank counts as lost until its
    new process has been told of: else the one that has ended would be taken to compute, for as long
    as the step lasts that the new one begins with."""

    def __init__(self, executor: Executor) -> None:
        self._executor: _WithRanks | None = executor if isinstance(executor, _WITH_RANKS) else None
        self._hosts = executor if isinstance(executor, OverHosts) else None
        self._told = () if self._executor is None else self._executor.spec.rank_pids
        self._look: Callable[[], None] = lambda: None

    @property
    def _pids(self) -> tuple[int, ...]:
        return () if self._executor is None else self._executor.rank_pids

    def tell_losses(self, pulse: Pulse) -> None:
        """In the pulse, because the loop waits in its step for a rank that is lost."""
        if self._executor is not None:
            pulse.lost_ranks = lambda: sum(1 << rank for rank in self._lost_ranks())
            self._look = pulse.look
            self._executor.tell_losses(pulse.look)

    def _lost_ranks(self) -> set[int]:
        assert self._executor is not None
        lost = set(self._executor.lost_ranks)  # first: who is whole after this has its new process
        both = enumerate(zip(self._pids, self._told, strict=True), 1)
        return lost | {rank for rank, (pid, told) in both if pid != told}

    def restore(self) -> None:
        """While nothing runs: have a rank that is lost compute with the others again, so that the
        next request need not wait for it. Raises BlocksLost if its part of the KV cache was lost
        with it, and EngineDead."""
        if self._executor is not None and self._executor.lost_ranks:
            self._executor.restore()

    @property
    def can_come(self) -> bool:
        return self._executor is not None

    @property
    def is_there(self) -> bool:
        """Whether another process holds a rank than was told, or ranks on other hosts have told
        what they have counted."""
        return self._pids != self._told or (self._hosts is not None and self._hosts.has_rank_news)

    def told_in(self, stats: EngineStats) -> EngineStats:
        """The figures with those of ranks. Once they are on their way, `see_told` is called."""
        if self._executor is None:
            return stats
        stats = msgspec.structs.replace(stats, ranks=self._executor.rank_stats())
        if self._hosts is not None:
            stats = msgspec.structs.replace(stats, rank_links=self._hosts.rank_links())
        return msgspec.structs.replace(
            stats, rank_pids=self._pids, num_ranks_replaced=self._executor.num_ranks_replaced
        )

    def see_told(self, stats: EngineStats) -> None:
        if self._executor is not None and stats.rank_pids != self._told:
            self._told = stats.rank_pids
            self._look()
