"""MultiprocessExecutor: several ranks of one host, each a process with a slice of the model, or
with some rows of each long step.

Rank 0 is this process: it alone knows requests and chooses tokens. The others compute what it tells
them, on tensors that all of them share.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from novacron.config.cache import CacheConfig
from novacron.config.engine import ALONE, NO_SPECULATION, SharedDevice, SpeculativeConfig
from novacron.config.kv_compression import loss_identity
from novacron.config.model import ModelConfig
from novacron.config.remote_tiers import require_extras
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import dims_of, draw_blueprint
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.executor import StepByStep, tell_nobody
from novacron.executor.leaders_draft import LeadersDraft
from novacron.executor.memory_plan import MemoryPlan, plan_memory
from novacron.executor.neighbours import before_all, draw_neighbours
from novacron.executor.own_rank import RankLoader
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_counts import rank_stats
from novacron.executor.rank_memory import RankMemory
from novacron.executor.rank_messages import RankArguments
from novacron.executor.rank_sharing import join_ranks, shape_of_ranks
from novacron.executor.rank_team import RankTeam
from novacron.executor.rank_threads import threads_of_leader, threads_of_rank
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import Progress
from novacron.parallel.traffic import Traffic
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.parallel_stats import RankStats
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput

logger = logging.getLogger(__name__)


class MultiprocessExecutor(StepByStep):
    """Loads the model in `model_path` when made, `tensor_parallel_size` or `context_parallel_size`
    ranks at once, and computes steps. Implements Executor. A draft model is rank 0's alone, with
    the threads of all ranks: they have nothing else to do while it guesses.

    A rank that ends, or is late by more than `rank_timeout`, is replaced; the step that runs, or
    the next one, takes as long as that lasts. Raises ModelLoadError and ConfigError, and EngineDead
    if a rank cannot be replaced: `on_loss` gets a sentence then, from another thread.
    """

    def __init__(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
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
        with phases.timed("config"):
            require_extras(cache)
            num_threads = threads_of_leader(model)
            whole = draw_blueprint(model, model_path, num_threads)
            blueprint = whole.of_rank(0, dims_of(model))
            draft = self._draft = LeadersDraft(whole, draft_path, model)
            torch.set_num_threads(num_threads)
            keep_freed_memory()
            shape = shape_of_ranks(blueprint, model)
            measured = measure_device_memory(blueprint.device, cache)
            plan = plan_memory(
                shape,
                before_all(measured, shared.free_bytes, shape),
                cache,
                scheduler,
                speculative,
                max_model_len=model.max_model_len,
                draft=draft.shape,
                neighbours=draw_neighbours(
                    blueprint, draft.blueprint, shared, model, scheduler, speculative
                ),
                num_replicas=model.data_parallel_size,
            )
            logger.info("memory: %s", plan.summary)
            joined = join_ranks(
                blueprint,
                model,
                cache,
                scheduler,
                num_blocks=plan.num_blocks,
                max_model_len=plan.max_model_len,
            )
        self._tiers: TieredBlocks | None = None  # a first step knows none
        self._memory = memory = joined.memory
        self._link, blueprint = joined.link, joined.blueprint
        self._team = RankTeam(
            _arguments(model, cache, scheduler, model_path, plan, memory),
            self._link,
            on_loss,
        )
        try:
            began_s = time.monotonic()
            weights = loader.load_weights(
                blueprint, lambda digest: self._team.begin(digest, time.monotonic() - began_s)
            )
            draft.load(phases)
            rank = loader.make_room(
                blueprint, weights, plan, arrays=memory.arrays, allocate=joined.allocate
            )
            kv_tensors = rank.kv_tensors
            self._runner = rank.runner(
                joined.leading_step(rank.decoder, kv_tensors.layers, rank.batch, self._team)
            )
            draft.stand_beside(rank, scheduler)
            with phases.timed("warm_up"):
                warm_up(
                    self,
                    max_model_len=plan.max_model_len,
                    block_size=cache.block_size,
                    is_drafting=draft_path is not None,
                )
            kv_identity = rank.kv_identity(plan, loss_identity(cache))
            self._tiers = TieredBlocks(rank, kv_identity, model, cache)
        except BaseException:
            self.shutdown()
            raise
        self._spec = rank.spec(
            model,
            plan,
            kv_identity=kv_identity,
            load_phases_s=phases.times_s,
            kv_tiers=self._tiers.specs,
            draft_model=draft.spec,
            rank_pids=self._team.pids,
        )

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    @property
    def rank_pids(self) -> tuple[int, ...]:
        """Those of the ranks other than 0, as they are now."""
        return self._team.pids

    @property
    def num_ranks_replaced(self) -> int:
        return self._team.num_replaced

    def rank_stats(self) -> tuple[RankStats, ...]:
        """Of all ranks, from 0."""
        num_steps = self._team.num_steps
        return tuple(
            rank_stats(rank, 0, Traffic(num_steps, *self._link.met(rank)))
            for rank in range(len(self._team.pids) + 1)
        )

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Those that do not compute with the others, because a new process has just taken their
        place: it does so from the next step on."""
        return self._team.lost_ranks

    def restore(self) -> None:
        """Have all ranks compute together again, between two steps. Raises EngineDead."""
        self._team.recover()

    def tell_losses(self, on_change: Callable[[], None]) -> None:
        """Have it called when `lost_ranks` has changed, from any thread."""
        self._team.on_change = on_change

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        return self._draft.draft(scheduler_output)

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        if self._tiers is None:
            return self._compute(scheduler_output)
        self._tiers.begin_step(scheduler_output)
        result = self._compute(scheduler_output)
        self._tiers.end_step()
        return result

    def _compute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        try:
            result = self._runner.execute(scheduler_output)
        except BaseException:
            self._link.give_up()
            raise
        self._team.see_step()
        self._draft.follow(scheduler_output, result)
        return result

    def move_blocks(self, orders: BlockOrders) -> None:
        assert self._tiers is not None
        self._tiers.move(orders)

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None if self._tiers is None else self._tiers.news(wait_s)

    def blocks_of(self, scope: bytes) -> Sequence[TierKeys]:
        return () if self._tiers is None else self._tiers.blocks_of(scope)

    def torn_blocks(self) -> Sequence[TierKeys]:
        return ()

    def shutdown(self) -> None:
        """End the other ranks; this one's tensors go with this object. What tiers still have to
        store gets a moment."""
        if self._tiers is not None:
            self._tiers.close()
        self._link.give_up()
        self._team.close()
        self._memory.shared.close_descriptor()


def _arguments(
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    model_path: Path,
    plan: MemoryPlan,
    memory: RankMemory,
) -> RankArguments:
    return RankArguments(
        model=model,
        cache=cache,
        scheduler=scheduler,
        model_path=str(model_path),
        rank=1,
        num_ranks=dims_of(model).num_ranks,
        num_threads=threads_of_rank(model),
        num_blocks=plan.num_blocks,
        max_model_len=plan.max_model_len,
        descriptor=memory.shared.descriptor,
        socket=-1,
    )
