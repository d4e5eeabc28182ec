"""RankReports: what ranks on other hosts have told of what they count."""

from __future__ import annotations

from novacron.executor.hosts.orders import Report
from novacron.executor.rank_counts import rank_stats
from novacron.parallel.dims import ParallelDims
from novacron.parallel.traffic import Traffic
from novacron.records.parallel_stats import RankLinkStats, RankStats


class RankReports:
    def __init__(self, dims: ParallelDims) -> None:
        self._dims = dims
        self._reports: dict[int, Report] = {}
        self._past: dict[int, Traffic] = {}  # of processes that had the ranks' places before
        self.is_new = False  # since `stats` were last asked for

    def hear(self, rank: int, report: Report) -> None:
        self._reports[rank], self.is_new = report, True

    def begin_anew(self) -> None:
        """Other ranks go on, and count from nothing."""
        for rank, report in self._reports.items():
            self._past[rank] = _sum(self._past.get(rank, Traffic()), report.traffic)
        self._reports.clear()
        self.is_new = True

    def stats(self, own: Traffic) -> tuple[RankStats, ...]:
        """Of all ranks. `own` is that of rank 0."""
        counted = {
            rank: _sum(self._past.get(rank, Traffic()), report.traffic)
            for rank, report in self._reports.items()
        }
        counted = self._past | counted | {0: own}
        self.is_new = False
        return tuple(
            rank_stats(rank, self._dims.stage_of(rank), counted.get(rank, Traffic()))
            for rank in range(self._dims.num_ranks)
        )

    @property
    def links(self) -> tuple[RankLinkStats, ...]:
        """Between ranks other than 0."""
        return tuple(
            RankLinkStats(rank=rank, peer=peer, link=link)
            for rank, report in sorted(self._reports.items())
            for peer, link in report.links.items()
        )


def _sum(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(*map(int.__add__, one, other))
