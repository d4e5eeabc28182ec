"""OverHosts: what executors have in common whose ranks are on several hosts."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import msgspec
import torch

from novacron.config.cache import CacheConfig
from novacron.config.engine import ALONE, NO_SPECULATION, SharedDevice, SpeculativeConfig
from novacron.config.kv_compression import loss_identity
from novacron.config.model import ModelConfig
from novacron.config.remote_tiers import require_extras
from novacron.config.scheduler import SchedulerConfig
from novacron.errors import ConfigError, EngineDead, ModelLoadError
from novacron.executor.blueprint import Blueprint, dims_of, draw_blueprint
from novacron.executor.executor import BlocksLost, tell_nobody
from novacron.executor.hosts.balance import HostsPlan
from novacron.executor.hosts.compression_report import CompressionReport
from novacron.executor.hosts.host_team import HostsOfRanks, HostTeam, rank_lost
from novacron.executor.hosts.host_tiers import HostTiers, wait_a_little
from novacron.executor.hosts.kept_cut import CutFile
from novacron.executor.hosts.leading_tiers import LeadingTiers
from novacron.executor.hosts.loss_record import LossRecord
from novacron.executor.hosts.meeting_hosts import facts_here, facts_of_others
from novacron.executor.hosts.orders import Moved, OfScope, Report
from novacron.executor.hosts.part_blocks import LeadingBlocks, allocate_part_cache
from novacron.executor.hosts.rank_reports import RankReports
from novacron.executor.leaders_draft import LeadersDraft
from novacron.executor.own_rank import OwnRank, RankLoader, Weights
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_threads import threads_on_host
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import Progress
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.links import LinkLost
from novacron.parallel.messages.tensor_message import Compression
from novacron.parallel.traffic import RankTraffic, Traffic
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.parallel_stats import RankLinkStats, RankStats
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import DecoderStep

_LOST: Final = (LinkLost, HandoverLost, ConnectionError)

logger = logging.getLogger(__name__)


def _no_progress(phase: str, fraction: float) -> None:
    pass


class OverHosts(ABC):
    """Loads the model in `model_path` when made, on all hosts at once. The part of an Executor that
    does not depend on how the model is shared out. A draft model is rank 0's alone.

    Raises ModelLoadError, ConfigError, and EngineDead if a host is lost meanwhile. One that is lost
    later is waited for, or its next process: the step that runs, or the next one, raises BlocksLost
    when all compute together again, and EngineDead if that fails again and again. This process
    keeps its part of the model. Where this host has several ranks, `on_loss` gets a sentence, from
    another thread, if one of them cannot be replaced.
    """

    max_steps_in_flight = 1
    rank_pids: tuple[int, ...] = ()  # known on their hosts
    _plan: Callable[..., HostsPlan]  # of balance: what each host gets of the model
    _sent_between_hosts: str  # what compression rounds

    def __init__(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        hosts: HostsOfRanks,
        *,
        model_path: Path,
        draft_path: Path | None = None,
        progress: Progress,
        speculative: SpeculativeConfig = NO_SPECULATION,
        shared: SharedDevice = ALONE,
        on_loss: Callable[[str], None] = tell_nobody,
    ) -> None:
        loader = RankLoader(model, cache, scheduler, progress)
        phases = loader.phases
        self._hosts, self._model, self._cache, self._scheduler = hosts, model, cache, scheduler
        self._on_loss = on_loss
        self._on_change: Callable[[], None] = lambda: None
        self._losses = LossRecord()
        self._replaced: tuple[int, ...] = ()  # hosts, while that lasts
        self._num_replaced = 0
        self._dims = dims = dims_of(model)
        self._traffic, self._counted = RankTraffic(), RankReports(dims)
        self._tiers: HostTiers | LeadingTiers | None = None  # a first step knows none
        self._team = HostTeam(hosts, self._see_change)
        self._report = CompressionReport(self._sent_between_hosts)
        with self._loss_is_the_end(), self._ended_unless_made():
            with phases.timed("config"):
                require_extras(cache)
                num_threads = threads_on_host(model)
                torch.set_num_threads(num_threads)
                keep_freed_memory()
                whole = draw_blueprint(model, model_path, num_threads)
                self._draft = LeadersDraft(whole, draft_path, model)
                here = facts_here(whole, cache, shared, model.data_parallel_size)
            with phases.timed("connect"):
                others = facts_of_others(self._team, whole, model, cache, scheduler, progress)
            cuts = CutFile(model, model_path, [one.name for one in others])
            plan = self._plan(
                whole, [here, *others], cache, scheduler, speculative,
                dims=dims, max_model_len=model.max_model_len, draft=self._draft.shape,
                former=cuts.read(),
            )  # fmt: skip
            self._whole, self._made_plan = whole, plan
            self._team.load(plan)
            if plan.stages:
                cuts.write([stage.layers.stop for stage in plan.stages])
            blueprint = self._join(whole.of_rank(0, dims, plan.stages))
            weights = loader.load_weights(blueprint, self._wait_until_ready)
            self._draft.load(phases)
            self._rank = rank = self._make_room(loader, blueprint, weights, plan)
            self._blocks = blocks = LeadingBlocks(rank.kv_tensors)
            with phases.timed("meet"):
                step = self._leading_step(rank, blocks)
            self._runner = rank.runner(step, blocks)
            self._draft.stand_beside(rank, scheduler)
            with phases.timed("warm_up"):
                warm_up(
                    self,
                    max_model_len=plan.max_model_len,
                    block_size=cache.block_size,
                    is_drafting=draft_path is not None,
                )
            kv_identity = rank.kv_identity(plan.hosts[0], self._kv_loss(hosts, cache))
            block_bytes = plan.block_bytes
            self._tiers = self._open_tiers(rank, blocks, kv_identity, block_bytes, model, cache)
        spec = rank.spec(
            model,
            plan.hosts[0],
            kv_identity=kv_identity,
            load_phases_s=phases.times_s,
            kv_tiers=self._tiers.specs,
            draft_model=self._draft.spec,
        )
        self._spec = msgspec.structs.replace(
            spec,
            kv_cache_bytes=plan.kv_cache_bytes,
            max_model_len=plan.max_model_len,
            follows_a_crash=self._team.follows_a_crash,
            rank_hosts=tuple(one.name for one in (here, *others) for _ in range(dims.ranks_each))[
                1:
            ],
        )

    def _kv_loss(self, hosts: HostsOfRanks, cache: CacheConfig) -> str:
        """What may take something away from blocks; empty if nothing does."""
        is_exact = hosts.compression is Compression.NONE
        on_the_way = "" if is_exact else f"{self._sent_between_hosts} int8"
        return ", ".join(filter(None, (on_the_way, loss_identity(cache))))

    @abstractmethod
    def _join(self, own: Blueprint) -> Blueprint:
        """The first part, as this rank loads it."""

    def _wait_until_ready(self, digest: str) -> None:
        """Until the other ranks have their parts, of this checkpoint."""
        self._team.wait_until_ready(digest)

    def _make_room(
        self, loader: RankLoader, blueprint: Blueprint, weights: Weights, plan: HostsPlan
    ) -> OwnRank:
        return loader.make_room(blueprint, weights, plan, allocate=allocate_part_cache)

    @abstractmethod
    def _leading_step(self, rank: OwnRank, blocks: LeadingBlocks) -> DecoderStep:
        """How steps are computed by all hosts, once they have their weights."""

    def _open_tiers(
        self,
        rank: OwnRank,
        blocks: LeadingBlocks,
        kv_identity: str,
        block_bytes: int,
        model: ModelConfig,
        cache: CacheConfig,
    ) -> HostTiers | LeadingTiers:
        """`block_bytes`: of all parts of a block. Raises ConfigError and LinkLost."""
        return HostTiers(self._team, rank, blocks, kv_identity, block_bytes, model, cache)

    @abstractmethod
    def _forget_steps(self) -> None:
        """Those in flight have no result."""

    @abstractmethod
    def submit(self, scheduler_output: SchedulerOutput) -> None: ...

    @abstractmethod
    def collect(self) -> ModelRunnerOutput: ...

    @abstractmethod
    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput: ...

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def worst_compression_error(self) -> float:
        """Relative, of what hosts have sent each other; 0 where nothing is compressed."""
        return self._report.worst

    @property
    def num_ranks_replaced(self) -> int:
        return self._num_replaced

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Those that do not compute with the others, or not yet."""
        hosts = self._replaced or self._team.lost_ranks
        return tuple(rank for host in hosts for rank in self._dims.ranks_of_host(host))

    def tell_losses(self, on_change: Callable[[], None]) -> None:
        """Have it called when `lost_ranks` has changed, from any thread."""
        self._on_change = on_change

    def restore(self) -> None:
        """Have all ranks compute together again, where one is lost, between two steps. Raises
        BlocksLost then, and EngineDead."""
        if self._team.loss is not None:
            self._begin_anew(self._team.loss)

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        return self._draft.draft(scheduler_output)

    def move_blocks(self, orders: BlockOrders) -> None:
        assert self._tiers is not None
        with self._loss_is_noted():
            self._tiers.move(orders)

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        if self._tiers is None or not self._tiers.specs:
            return None
        until_s = time.monotonic() + wait_s
        while True:
            self._listen()
            news = self._tiers.news()
            if news is not None or not wait_a_little(until_s):
                return news

    def _begin_step(self, scheduler_output: SchedulerOutput) -> None:
        self._draft.begin(scheduler_output)
        if self._tiers is not None:
            self._tiers.begin_step(scheduler_output)

    def _end_step(self, scheduler_output: SchedulerOutput, result: ModelRunnerOutput) -> None:
        self._draft.follow(scheduler_output, result)
        self._losses.see_step()
        if self._tiers is not None:
            self._tiers.end_step()

    def rank_stats(self) -> tuple[RankStats, ...]:
        """Of all ranks, from 0: of others what they have told."""
        self._listen()
        return self._counted.stats(self._traffic.read(), self._others())

    def _others(self) -> tuple[Traffic, ...]:
        """What further ranks of this host have counted."""
        return ()

    def rank_links(self) -> tuple[RankLinkStats, ...]:
        """Between all of them."""
        own = [
            msgspec.structs.replace(link, peer=self._counted.dims.rank_of_host(link.peer))
            for link in self._team.link_stats()
        ]
        return (*own, *self._counted.links)

    @property
    def has_rank_news(self) -> bool:
        """Whether ranks have told something since `rank_stats`."""
        self._listen()
        return self._counted.is_new

    def _listen(self) -> None:
        with self._loss_is_noted():
            for rank, word in self._team.lines.words():
                match word:
                    case Report():
                        self._counted.hear(rank, word)
                    case Moved(news):
                        assert self._tiers is not None
                        self._tiers.hear(rank, news)
                    case OfScope():
                        assert self._tiers is not None
                        self._tiers.hear_whose(word)

    def blocks_of(self, scope: bytes) -> Sequence[TierKeys]:
        if self._tiers is None or not self._tiers.specs:
            return ()
        with self._loss_is_noted():
            self._tiers.ask_whose(scope)
        while (found := self._tiers.whose()) is None:
            self._listen()
            if self._team.loss is not None:
                raise OSError(f"a rank of the model is lost ({self._team.loss}): ask again")
            wait_a_little(math.inf)
        return found

    def torn_blocks(self) -> Sequence[TierKeys]:
        self._listen()
        return () if self._tiers is None else self._tiers.torn_blocks

    def shutdown(self) -> None:
        """Let go of the other hosts; this one's tensors go with this object. What tiers still have
        to store gets a moment, on all of them."""
        if self._tiers is not None:
            self._tiers.close()
        self._team.close()

    @contextmanager
    def _loss_is_the_end(self) -> Iterator[None]:
        """While the model is loaded: there is nothing yet to go on with."""
        try:
            yield
        except _LOST as error:
            raise rank_lost(self._team.loss or str(error)) from None

    @contextmanager
    def _loss_is_noted(self) -> Iterator[None]:
        """Beside the steps: the next one meets with it."""
        try:
            yield
        except _LOST as error:
            self._team.see_loss(None, str(error))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """A step, or a part of one. What a lost host held cannot be had again."""
        if self._tiers is None:  # the first ones, while the model is loaded
            yield
            return
        try:
            if self._team.loss is not None:
                raise LinkLost(self._team.loss)
            with self._traffic.timed():
                yield
        except _LOST as error:
            self._begin_anew(self._team.loss or str(error))

    def _begin_anew(self, reason: str) -> NoReturn:
        """Make a group with the next epoch of this rank, which keeps its part, and those that are
        found where the others were; wait for them. Raises BlocksLost when all compute together,
        and EngineDead."""
        self._team.see_loss(None, reason)
        self._replaced = self._team.lost_ranks
        began_s = time.monotonic()
        while True:
            if not self._losses.may_try():
                raise rank_lost(f"{reason}, as others before it")
            try:
                self._meet_again()
                break
            except EngineDead as error:
                if not error.has_lost_a_rank:
                    raise
                reason = str(error)
            except _LOST as error:
                reason = str(error)
            except (ConfigError, ModelLoadError) as error:
                raise rank_lost(f"no other takes its place: {error}") from None
            logger.error("Making the group anew has failed: %s", reason)
        if not self._losses.may_go_on(after_a_crash=self._team.follows_a_crash):
            raise EngineDead(f"Ranks crash again and again: {reason}.")
        self._replaced = ()
        self._on_change()
        logger.warning("All hosts compute again after %.1f s.", time.monotonic() - began_s)
        raise BlocksLost(reason)

    def _meet_again(self) -> None:
        assert self._tiers is not None
        self._team.close()
        self._team = team = HostTeam(self._hosts, self._see_change)
        whole, plan, rank = self._whole, self._made_plan, self._rank
        facts_of_others(team, whole, self._model, self._cache, self._scheduler, _no_progress)
        self._num_replaced += self._dims.num_ranks - self._dims.ranks_each
        team.load(plan)
        team.wait_until_ready(rank.digest)
        rank.batch.forget_requests()
        self._draft.forget_requests()
        self._blocks.taint(range(rank.kv_tensors.num_blocks))
        self._runner = rank.runner(self._leading_step(rank, self._blocks), self._blocks)
        self._tiers.begin_anew(team)
        self._counted.begin_anew()
        self._forget_steps()

    def _see_change(self) -> None:
        self._on_change()

    @contextmanager
    def _ended_unless_made(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.shutdown()
            raise
