"""RankReports: what ranks on other hosts have told of what they count. One of each host tells of
all that are there; hosts are numbered as their links are."""

from __future__ import annotations

from collections.abc import Sequence

from novacron.executor.hosts.orders import Report
from novacron.executor.rank_counts import rank_stats
from novacron.parallel.dims import ParallelDims
from novacron.parallel.traffic import Traffic
from novacron.records.parallel_stats import RankLinkStats, RankStats


class RankReports:
    def __init__(self, dims: ParallelDims) -> None:
        self.dims = dims
        self._reports: dict[int, Report] = {}
        self._past: dict[int, Traffic] = {}  # of processes that had the ranks' places before
        self.is_new = False  # since `stats` were last asked for

    def hear(self, host: int, report: Report) -> None:
        self._reports[host], self.is_new = report, True

    def begin_anew(self) -> None:
        """Other ranks go on, and count from nothing."""
        self._past, self.is_new = self._told(), True
        self._reports.clear()

    def stats(self, own: Traffic, others: Sequence[Traffic] = ()) -> tuple[RankStats, ...]:
        """Of all ranks. `own` is that of rank 0, `others` those of its stage on its host."""
        counted = self._told() | dict(enumerate((own, *others)))
        self.is_new = False
        return tuple(
            rank_stats(rank, self.dims.stage_of(rank), counted.get(rank, Traffic()))
            for rank in range(self.dims.num_ranks)
        )

    def _told(self) -> dict[int, Traffic]:
        """By the ranks, with what those before them in their places have counted."""
        counted = dict(self._past)
        for host, report in self._reports.items():
            of_host = (report.traffic, *report.others)
            for rank, traffic in zip(self.dims.ranks_of_host(host), of_host, strict=False):
                counted[rank] = _sum(counted.get(rank, Traffic()), traffic)
        return counted

    @property
    def links(self) -> tuple[RankLinkStats, ...]:
        """Between ranks other than 0."""
        rank_of = self.dims.rank_of_host
        return tuple(
            RankLinkStats(rank=rank_of(host), peer=rank_of(peer), link=link)
            for host, report in sorted(self._reports.items())
            for peer, link in report.links.items()
        )


def _sum(one: Traffic, other: Traffic) -> Traffic:
    return Traffic(*map(int.__add__, one, other))
