"""BesideSteps: what a rank on another host does while it follows its leader, beside the steps: it
counts them, and tells what it has counted now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Final, Protocol

from novacron.executor.hosts.hosted_tiers import HostedTiers
from novacron.executor.hosts.orders import ComputeLogits, FromRank, Report, RunStep, ToRank
from novacron.executor.own_rank import OwnRank
from novacron.parallel.messages.links import TensorLink
from novacron.parallel.traffic import RankTraffic, Traffic

_EVERY_S: Final = 1.0  # at most, while steps follow each other
_QUIET_S: Final = 0.25  # without a step: then the last ones are told of
_IDLE_S: Final = 60.0


class Part(Protocol):
    """A rank's part of the model. `links` are those to the ranks above it, by their numbers;
    `traffic` counts what it gives others, and how long it waits for them; `others` is what further
    ranks of its stage have counted."""

    @property
    def rank(self) -> OwnRank: ...

    @property
    def links(self) -> Mapping[int, TensorLink]: ...

    @property
    def traffic(self) -> RankTraffic: ...

    @property
    def others(self) -> tuple[Traffic, ...]: ...

    def follow(self, order: ToRank, deadline_ns: int) -> None: ...

    def close(self) -> None: ...


class BesideSteps:
    def __init__(
        self,
        part: Part,
        tiers: HostedTiers,
        tell: Callable[[FromRank], None],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part, self._tiers, self._tell, self._clock_s = part, tiers, tell, clock_s
        self._told, self._told_s = Traffic(), clock_s()

    @property
    def patience_s(self) -> float:
        """How long to wait for the next order, until `rest` has something to do."""
        of_tiers = self._tiers.patience_s
        if of_tiers is not None:
            return of_tiers
        return _IDLE_S if self._part.traffic.read() == self._told else _QUIET_S

    def follow(self, order: ToRank, deadline_ns: int) -> None:
        """Raises what the part does, and ConfigError."""
        if not self._tiers.follow(order):
            self._compute(order, deadline_ns)
        self._tiers.tell_news()

    def _compute(self, order: ToRank, deadline_ns: int) -> None:
        traffic = self._part.traffic
        self._tiers.begin_step()
        with traffic.timed() if isinstance(order, RunStep | ComputeLogits) else nullcontext():
            self._part.follow(order, deadline_ns)
        self._tiers.end_step()
        if isinstance(order, RunStep):
            traffic.see_step()
        if self._clock_s() - self._told_s >= _EVERY_S:
            self._report()

    def rest(self) -> None:
        """No order has come for `patience_s`."""
        self._tiers.tell_news()
        is_due = self._clock_s() - self._told_s >= _QUIET_S
        if is_due and self._part.traffic.read() != self._told:
            self._report()

    def _report(self) -> None:
        self._told, self._told_s = self._part.traffic.read(), self._clock_s()
        links = {peer: link.stats() for peer, link in self._part.links.items()}
        self._tell(Report(self._told, links, self._part.others))
