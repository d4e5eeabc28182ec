"""OverHosts: what executors have in common whose ranks are on several hosts."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import torch

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig, SpeculativeConfig
from novacron.executor.blueprint import Blueprint, dims_of, draw_blueprint
from novacron.executor.hosts.balance import HostsPlan
from novacron.executor.hosts.compression_report import CompressionReport
from novacron.executor.hosts.host_team import HostsOfRanks, HostTeam, rank_lost
from novacron.executor.hosts.meeting_hosts import facts_here, facts_of_others
from novacron.executor.hosts.part_blocks import LeadingBlocks, allocate_part_cache
from novacron.executor.own_rank import OwnRank, RankLoader
from novacron.executor.placement import keep_freed_memory, threads_of_replica
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import Progress
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.links import LinkLost
from novacron.parallel.messages.tensor_message import Compression
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import DecoderStep

_NO_SPECULATION: Final = SpeculativeConfig()

logger = logging.getLogger(__name__)


def _ignore(message: str) -> None:
    pass


class OverHosts(ABC):
    """Loads the model in `model_path` when made, on all hosts at once. The part of an Executor that
    does not depend on how the model is shared out; without draft models and KV tiers.

    Raises ModelLoadError, ConfigError, and EngineDead if a host is lost. `on_loss` gets a sentence,
    from another thread, if one is lost later; the next step, or that which is running, raises
    EngineDead then.
    """

    max_steps_in_flight = 1
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
        progress: Progress,
        speculative: SpeculativeConfig = _NO_SPECULATION,
        on_loss: Callable[[str], None] = _ignore,
    ) -> None:
        loader = RankLoader(model, cache, scheduler, progress)
        phases = loader.phases
        self._hosts, self._scheduler = hosts, scheduler
        self._team = HostTeam(hosts, on_loss)
        self._report = CompressionReport(self._sent_between_hosts)
        with self._loss_is_the_end(), self._ended_unless_made():
            with phases.timed("config"):
                num_threads = threads_of_replica(model)
                torch.set_num_threads(num_threads)
                keep_freed_memory()
                whole = draw_blueprint(model, model_path, num_threads)
                here = facts_here(whole, cache)
            with phases.timed("connect"):
                others = facts_of_others(self._team, whole, model, cache, scheduler, progress)
            plan = self._plan(
                whole, [here, *others], cache, scheduler, speculative,
                max_model_len=model.max_model_len,
            )  # fmt: skip
            self._team.load(plan)
            blueprint = self._join(whole.of_rank(0, dims_of(model), plan.stages))
            weights = loader.load_weights(blueprint, self._team.wait_until_ready)
            rank = loader.make_room(blueprint, weights, plan, allocate=allocate_part_cache)
            blocks = LeadingBlocks(rank.kv_tensors)
            with phases.timed("meet"):
                step = self._leading_step(rank, blocks)
            self._runner = rank.runner(step, blocks)
            with phases.timed("warm_up"):
                warm_up(self, max_model_len=plan.max_model_len, block_size=cache.block_size)
        is_exact = hosts.compression is Compression.NONE
        spec = rank.spec(
            model,
            plan.hosts[0],
            kv_identity=rank.kv_identity(
                plan.hosts[0], "" if is_exact else f"{self._sent_between_hosts} int8"
            ),
            load_phases_s=phases.times_s,
        )
        self._spec = msgspec.structs.replace(
            spec,
            kv_cache_bytes=plan.kv_cache_bytes,
            max_model_len=plan.max_model_len,
            follows_a_crash=self._team.follows_a_crash,
        )

    @abstractmethod
    def _join(self, own: Blueprint) -> Blueprint:
        """The first part, as this rank loads it."""

    @abstractmethod
    def _leading_step(self, rank: OwnRank, blocks: LeadingBlocks) -> DecoderStep:
        """How steps are computed by all hosts, once they have their weights."""

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

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        raise AssertionError("no draft model was loaded")

    def move_blocks(self, orders: BlockOrders) -> None:
        raise AssertionError("there are no KV tiers")

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None

    def blocks_of(self, scope: bytes) -> Sequence[TierKeys]:
        return ()

    def shutdown(self) -> None:
        """Let go of the other hosts; this one's tensors go with this object."""
        self._team.close()

    @contextmanager
    def _loss_is_the_end(self) -> Iterator[None]:
        """What a host held cannot be had again."""
        try:
            yield
        except (LinkLost, HandoverLost, ConnectionError) as error:
            raise rank_lost(self._team.loss or str(error)) from None

    @contextmanager
    def _ended_unless_made(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.shutdown()
            raise
