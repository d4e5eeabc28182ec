"""Totals of a replica over all its engine processes, each of which counts from 0. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from novacron.records.output import EngineStats, WatchStats, sum_of


class ReplicaTotals:
    """`end` and `begin` tell when one engine process has ended and the next has taken over."""

    def __init__(self) -> None:
        self._earlier: EngineStats | None = None
        self._last: EngineStats | None = None  # of a process that ended, and still shows

    def end(self, stats: EngineStats) -> None:
        if self._last is None:
            self._last = _only_totals(stats)

    def begin(self) -> None:
        if self._last is not None:
            self._earlier = self.with_earlier(self._last)
            self._last = None

    def with_earlier(self, stats: EngineStats) -> EngineStats:
        if self._earlier is None:
            return stats
        return sum_with_watches([stats, self._earlier])


class GoneReplicas:
    """Totals of replicas that are no more: what a server has counted never becomes less."""

    def __init__(self) -> None:
        self.num_restarts = 0
        self._stats: EngineStats | None = None

    def add(self, stats: EngineStats, num_restarts: int) -> None:
        self.num_restarts += num_restarts
        self._stats = self.with_those([_only_totals(stats)])

    def with_those(self, present: Sequence[EngineStats]) -> EngineStats:
        gone = [] if self._stats is None else [self._stats]
        return sum_with_watches([*present, *gone])


def sum_with_watches(stats: Sequence[EngineStats]) -> EngineStats:
    """Of engines in one precision, whose watches are of the same thing."""
    watches = [one.watch for one in stats if one.watch is not None]
    return msgspec.structs.replace(sum_of(stats), watch=_sum_of_watches(watches))


def _sum_of_watches(watches: Sequence[WatchStats]) -> WatchStats | None:
    """Means count by how many answers were scored."""
    if not watches:
        return None
    return WatchStats(
        num_scored=sum(one.num_scored for one in watches),
        num_dropped=sum(one.num_dropped for one in watches),
        num_alerts=sum(one.num_alerts for one in watches),
        seconds=sum(one.seconds for one in watches),
        quality=_mean([(one.quality, one.num_scored) for one in watches]),
        top1_agreement=_mean([(one.top1_agreement, one.num_scored) for one in watches]),
        kl=_mean([(one.kl, one.num_scored) for one in watches]),
        is_alarmed=any(one.is_alarmed for one in watches),
    )


def _mean(values: Sequence[tuple[float | None, int]]) -> float | None:
    known = [(value, weight) for value, weight in values if value is not None and weight]
    total = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / total if total else None


def _only_totals(stats: EngineStats) -> EngineStats:
    """Without what is no more: running requests, what tiers hold, sessions, an alarm."""
    watch = stats.watch
    return msgspec.structs.replace(
        stats.after_the_end(),
        kv_tiers=tuple(
            msgspec.structs.replace(tier, capacity_bytes=0, used_bytes=0, num_blocks=0)
            for tier in stats.kv_tiers
        ),
        sessions=msgspec.structs.replace(stats.sessions, num_sessions=0),
        watch=None if watch is None else msgspec.structs.replace(watch, is_alarmed=False),
    )
