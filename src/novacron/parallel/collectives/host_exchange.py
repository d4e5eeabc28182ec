"""HostExchange: what ranks on several hosts do together, on messages between two of them.

Shapes: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from novacron.parallel.collectives.algorithms import AllReduce
from novacron.parallel.collectives.choice import measure
from novacron.parallel.collectives.point_to_point import PointToPoint
from novacron.parallel.collectives.rounded import rounded_all_reduce
from novacron.parallel.groups import ParallelGroup
from novacron.parallel.traffic import RankTraffic


class HostExchange:
    """Layers are made with it before ranks have met: `meet` comes before the first step. All ranks
    call the same methods in the same order; what they do together raises ConnectionError once one
    of them is lost.

    `algorithms` are those that may add up; the quickest for a size is chosen among them. With
    `in_int8`, sums travel rounded, and `see_error` is told what each has cost. `traffic` counts
    meetings."""

    def __init__(
        self,
        algorithms: Sequence[str],
        *,
        in_int8: bool = False,
        see_error: Callable[[float], None] = lambda error: None,
        traffic: RankTraffic | None = None,
    ) -> None:
        self._traffic = traffic or RankTraffic()
        self._algorithms, self._in_int8, self._see_error = algorithms, in_int8, see_error
        self._ranks: PointToPoint | None = None
        self._all_reduce: AllReduce | None = None
        self.chosen: dict[int, str] = {}  # algorithms by bytes

    def meet(self, ranks: PointToPoint) -> None:
        """All of them at once: measure what is quickest between these."""
        hybrid = measure(ranks, self._algorithms)
        self._ranks, self._all_reduce, self.chosen = ranks, hybrid, hybrid.chosen

    @property
    def ranks(self) -> PointToPoint:
        assert self._ranks is not None, "the ranks have not met yet"
        return self._ranks

    def add_up(self, x_TD: Tensor) -> None:
        """Make partial sums, without gaps, the sums."""
        if self._in_int8:
            self._traffic.see_meeting()
            self._see_error(rounded_all_reduce(self.ranks, x_TD))
        else:
            self.join(x_TD)

    def join(self, x_TD: Tensor) -> None:
        """The same, bit for bit: for what one rank has, and the others have zeros for."""
        assert self._all_reduce is not None
        self._traffic.see_meeting()
        self._all_reduce(self.ranks, x_TD.view(-1))

    def collect_columns(self, own_TV: Tensor, logits_TV: Tensor | None) -> None:
        """Have the columns of all ranks, as ParallelGroup.range_of shares them out, in `logits_TV`
        of rank 0, which the others have not. Its own are there already."""
        ranks = self.ranks
        self._traffic.see_meeting()
        if logits_TV is None:
            ranks.send(0, own_TV)
            return
        rows, size = logits_TV.shape
        for other in range(1, ranks.size):
            columns = ParallelGroup(other, ranks.size).range_of(size)
            theirs = logits_TV.new_empty(rows, len(columns))
            ranks.receive(other, theirs)
            logits_TV[:, columns.start : columns.stop] = theirs
