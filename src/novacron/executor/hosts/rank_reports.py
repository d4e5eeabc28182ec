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
        self.is_new = False  # since `stats` were last asked for

    def hear(self, host: int, report: Report) -> None:
        self._reports[host], self.is_new = report, True

    def stats(self, own: Traffic, others: Sequence[Traffic] = ()) -> tuple[RankStats, ...]:
        """Of all ranks. `own` is that of rank 0, `others` those of its stage on its host."""
        told = {host: (report.traffic, *report.others) for host, report in self._reports.items()}
        counted = {
            self.dims.rank_of_host(host) + place: traffic
            for host, of_host in {**told, 0: (own, *others)}.items()
            for place, traffic in enumerate(of_host)
        }
        self.is_new = False
        return tuple(
            rank_stats(rank, rank // self.dims.tensor, counted.get(rank, Traffic()))
            for rank in range(self.dims.num_ranks)
        )

    @property
    def links(self) -> tuple[RankLinkStats, ...]:
        """Between ranks other than 0."""
        rank_of = self.dims.rank_of_host
        return tuple(
            RankLinkStats(rank=rank_of(host), peer=rank_of(peer), link=link)
            for host, report in sorted(self._reports.items())
            for peer, link in report.links.items()
        )
