"""HostTeam: the ranks on other hosts, as the one that leads sees them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, EngineDead, ModelLoadError
from novacron.executor.hosts.balance import HostsPlan
from novacron.executor.hosts.host_lines import HostLines
from novacron.executor.hosts.host_loads import loads_of
from novacron.executor.hosts.orders import (
    Attach,
    Busy,
    FromRank,
    Join,
    Leave,
    Loading,
    Offer,
    OpenTiers,
    PartFailed,
    PartReady,
    TiersClosed,
    TiersOpen,
    ToRank,
    encode,
    from_rank,
)
from novacron.parallel.messages.links import LinkLost, OpenLink, TensorLink
from novacron.parallel.messages.tensor_message import (
    NO_DEADLINE,
    Compression,
    Priority,
)
from novacron.records.parallel_stats import RankLinkStats

_BRIEFLY_S: Final = 0.005
_BUSY_RETRY_S: Final = 1.0
_SAY_EVERY_S: Final = 30.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HostsOfRanks:
    """Where ranks 1 and following are, as KEY@HOST:PORT, and how they are spoken to. `owner` names
    the server whose they are; it stays when its engine is started anew. `step_timeout_s`: a step
    that takes longer is of no use to anybody; 0: as long as it takes."""

    addresses: tuple[str, ...]
    owner: str
    open_link: OpenLink
    timeout_s: float
    step_timeout_s: float
    compression: Compression = Compression.NONE


class HostTeam:
    """One group of ranks, from its beginning to its end. `on_loss` is called, from any thread, when
    one of them is lost once all are there: see `loss`."""

    def __init__(self, hosts: HostsOfRanks, on_loss: Callable[[], None]) -> None:
        self._hosts, self._on_loss = hosts, on_loss
        self._epoch = time.time_ns()
        self._links: list[TensorLink] = []
        self.lines = HostLines(())  # once all have their parts
        self._has_begun = self._closed = False
        self.follows_a_crash = False  # some rank does, of the process before it
        self.loss: str | None = None  # why a step cannot be computed any more, as half a sentence
        self.lost_ranks: tuple[int, ...] = ()  # as far as is known

    def join(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        progress: Callable[[float], None],
    ) -> list[Offer]:
        """Have every host in the group, and what it has to offer. Waits for those that are not
        there, for as long as it takes. Raises ConfigError and ModelLoadError."""
        count = len(self._hosts.addresses)
        joins = [
            Join(
                owner=self._hosts.owner,
                rank=rank,
                model=model,
                cache=cache,
                scheduler=scheduler,
                compression=self._hosts.compression,
                timeout_s=self._hosts.timeout_s,
                clock_ns=time.monotonic_ns(),
            )
            for rank in range(1, count + 1)
        ]
        self._links = [self._ask(join) for join in joins]
        offers: list[Offer] = []
        for join in joins:
            progress(len(offers) / count)
            offers.append(self._await_offer(join))
            if offers[-1].follows_a_crash:
                self.follows_a_crash = True
                logger.warning("the rank on %s before this one has crashed", offers[-1].host)
        return offers

    def load(self, plan: HostsPlan) -> None:
        """Tell each its part."""
        for index, order in enumerate(loads_of(plan, self._hosts.addresses)):
            self._tell(index, order)

    def wait_until_ready(self, digest: str) -> None:
        """Raises what kept a rank from loading: ConfigError, ModelLoadError or EngineDead, also if
        one has other files than those of `digest`."""
        for link in self._links:
            while True:
                answer = self._answer_of(link)
                if isinstance(answer, PartReady):
                    break
                if not isinstance(answer, Loading):
                    raise rank_lost(f"{link.place} is not in the group any more")
            if answer.digest != digest:
                raise ModelLoadError(
                    f"The host at {link.place} has other files of the model than this one. Give "
                    "all hosts the same; copy large ones with their times (rsync -a), which are "
                    "part of the version."
                )
        self.lines = HostLines(self._links)
        self._has_begun = True

    def tell_all(self, order: ToRank) -> None:
        """Raises LinkLost."""
        deadline_ns = self.deadline_ns()
        for link in self._links:
            link.send(*encode(order, deadline_ns))

    def deadline_ns(self) -> int:
        """Until when a step that begins now is of use, by the clock of the group."""
        if self._hosts.step_timeout_s == 0:
            return NO_DEADLINE
        return time.monotonic_ns() + int(self._hosts.step_timeout_s * 1e9)

    def open_tiers(self, order: OpenTiers) -> list[TiersOpen]:
        """Have all open theirs. Raises ConfigError and LinkLost."""
        self.tell_all(order)
        opened = []
        for link in self._links:
            answer = self._answer_of(link)
            while not isinstance(answer, TiersOpen):
                answer = self._answer_of(link)
            opened.append(answer)
        return opened

    def await_closed_tiers(self, patience_s: float) -> None:
        """Until all have said so, but no longer. Raises LinkLost."""
        until_s, num_open = time.monotonic() + patience_s, len(self._links)
        while num_open and time.monotonic() < until_s:
            num_open -= sum(isinstance(word, TiersClosed) for _, word in self.lines.words())
            time.sleep(_BRIEFLY_S)

    def link_stats(self) -> tuple[RankLinkStats, ...]:
        """Of those from here to each rank."""
        return tuple(
            RankLinkStats(rank=0, peer=peer, link=link.stats())
            for peer, link in enumerate(self._links, 1)
        )

    def close(self) -> None:
        """Let go of them. Harmless when called again."""
        self._closed = True
        for link in self._links:
            with contextlib.suppress(LinkLost):
                link.send(*encode(Leave()))
            link.close()
        self._links = []

    def _ask(self, join: Join) -> TensorLink:
        address = self._hosts.addresses[join.rank - 1]
        on_loss = partial(self.see_loss, join.rank)
        link = self._hosts.open_link(address, self._epoch, 0, join.rank, on_loss)
        link.send(*encode(Attach(), priority=Priority.DATA))
        link.send(*encode(join))
        return link

    def _await_offer(self, join: Join) -> Offer:
        index = join.rank - 1
        waits_since_s = time.monotonic()
        while True:
            link = self._links[index]
            try:
                answer = self._answer_within(link, _SAY_EVERY_S)
            except LinkLost as error:
                if error.is_final:
                    raise ConfigError(f"rank_hosts: {error}.") from None
                logger.warning("%s; asking again", error)
                link.close()
                time.sleep(_BUSY_RETRY_S)
                self._links[index] = self._ask(join)
                continue
            match answer:
                case Offer():
                    return answer
                case Busy():
                    logger.warning("the rank at %s serves another server; waiting", link.place)
                    time.sleep(_BUSY_RETRY_S)
                    self._tell(index, join)
                case PartFailed():
                    raise _failure(link, answer)
                case None:
                    waited_s = time.monotonic() - waits_since_s
                    logger.warning("waiting for the rank at %s for %.0f s", link.place, waited_s)
                case _:
                    pass

    def _answer_of(self, link: TensorLink) -> FromRank:
        """Raises EngineDead, and what a stage failed for."""
        while True:
            try:
                answer = self._answer_within(link, _SAY_EVERY_S)
            except LinkLost as error:
                raise rank_lost(str(error)) from None
            if isinstance(answer, PartFailed):
                raise _failure(link, answer)
            if answer is not None:
                return answer

    def _answer_within(self, link: TensorLink, timeout_s: float) -> FromRank | None:
        received = link.receive(timeout_s)
        if received is None:
            return None
        try:
            return from_rank(received.payload)
        except msgspec.MsgspecError as error:
            raise LinkLost(f"what {link.place} says cannot be understood: {error}") from None

    def _tell(self, index: int, order: ToRank) -> None:
        try:
            self._links[index].send(*encode(order))
        except LinkLost as error:
            raise rank_lost(str(error)) from None

    def see_loss(self, rank: int | None, reason: str) -> None:
        """The rank is lost, or some rank. Only the first of a group counts: it takes the others
        along."""
        if self._has_begun and not self._closed and self.loss is None:
            everybody = tuple(range(1, len(self._hosts.addresses) + 1))
            self.lost_ranks = everybody if rank is None else (rank,)
            self.loss = reason
            logger.error("A rank of the model is lost: %s.", reason)
            self._on_loss()


def rank_lost(reason: str) -> EngineDead:
    return EngineDead(f"A rank is lost: {reason}.", has_lost_a_rank=True)


def _failure(link: TensorLink, failed: PartFailed) -> ConfigError | ModelLoadError:
    kind = ConfigError if failed.kind == ConfigError.__name__ else ModelLoadError
    return kind(f"On the host at {link.place}: {failed.message}")
