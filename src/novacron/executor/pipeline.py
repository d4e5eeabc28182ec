"""PipelineExecutor: ranks of one host that hold some of the layers each, or slices of some.

Rank 0 is this process: it alone knows requests and chooses tokens. It has the first layers, and the
vocabulary for both ends: what the last stage makes comes back to it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from novacron.executor.executor import tell_nobody
from novacron.executor.leaders_draft import LeadersDraft
from novacron.executor.memory_plan import plan_memory
from novacron.executor.neighbours import before_all, draw_neighbours
from novacron.executor.own_rank import OwnRank, RankLoader
from novacron.executor.placement import keep_freed_memory
from novacron.executor.rank_counts import rank_stats
from novacron.executor.rank_messages import RankArguments
from novacron.executor.rank_threads import threads_of_rank
from novacron.executor.stage_ends import Pipes
from novacron.executor.stage_memory import StageMemory
from novacron.executor.stage_team import StageTeam
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import Progress
from novacron.kernels.ranks import RankLink
from novacron.parallel.handover import Receiver, Sender
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.parallel_stats import RankStats
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.model_runner import BegunStep
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.stage_step import StageStep, logits_of

logger = logging.getLogger(__name__)


class PipelineExecutor:
    """Loads the model in `model_path` when made, all ranks at once, and computes steps, as many at
    a time as the settings say. Implements Executor. A draft model is rank 0's alone.

    A rank that ends, or hangs for `rank_timeout`, is replaced; the steps that are in flight, or the
    next one, take as long as that lasts. Raises ModelLoadError and ConfigError, and EngineDead if a
    rank cannot be replaced: `on_loss` gets a sentence then, from another thread.
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
            num_threads = threads_of_rank(model)
            whole = draw_blueprint(model, model_path, num_threads)
            blueprint = whole.of_rank(0, dims_of(model))
            draft = self._draft = LeadersDraft(whole, draft_path, model)
            torch.set_num_threads(num_threads)
            keep_freed_memory()
            shape = blueprint.shape()
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
            self.max_steps_in_flight = blueprint.steps_in_flight
            memory = StageMemory(
                blueprint,
                cache,
                scheduler,
                num_blocks=plan.num_blocks,
                max_model_len=plan.max_model_len,
            )
        self._begun: deque[BegunStep] = deque()
        self._tiers: TieredBlocks | None = None  # a first step knows none
        arguments = RankArguments(
            model=model,
            cache=cache,
            scheduler=scheduler,
            model_path=str(model_path),
            rank=1,
            num_ranks=blueprint.dims.num_ranks,
            num_threads=num_threads,
            num_blocks=plan.num_blocks,
            max_model_len=plan.max_model_len,
            descriptor=memory.shared.descriptor,
            socket=-1,
        )
        self._memory, self._dims = memory, blueprint.dims
        self._traffic = memory.traffic
        self._link: RankLink = memory.join(model.rank_timeout)
        blueprint = blueprint.joined_by(self._link.communicator)
        exits = Sender(memory.rings_SKTD[0], traffic=self._traffic[0])
        entry = Receiver(
            memory.rings_SKTD[-1],
            see_delay=lambda seconds: self._team.see_delay(seconds),
            traffic=self._traffic[0],
        )

        def use(pipes: Pipes) -> None:
            assert pipes.entry is not None
            exits.use(pipes.exits)
            entry.use(pipes.entry)

        self._team = StageTeam(arguments, self._link, use, on_loss)
        try:
            began_s = time.monotonic()
            weights = loader.load_weights(
                blueprint, lambda digest: self._team.begin(digest, time.monotonic() - began_s)
            )
            draft.load(phases)
            rank = loader.make_room(blueprint, weights, plan, memory=memory.kv_blocks)
            self._runner = rank.runner(_pipelined_step(rank, memory, self._team, exits, entry))
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
        return self._team.pids

    @property
    def num_ranks_replaced(self) -> int:
        return self._team.num_replaced

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

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        with self._no_loss_unheard(), self._traffic[0].timed():
            if self._tiers is not None:
                self._tiers.begin_step(scheduler_output)
            self._draft.begin(scheduler_output)
            self._begun.append(self._runner.begin(scheduler_output))

    def collect(self) -> ModelRunnerOutput:
        with self._no_loss_unheard(), self._traffic[0].timed():
            begun = self._begun.popleft()
            result = self._runner.finish(begun)
            self._draft.follow(begun.step, result)
            if self._tiers is not None:
                self._tiers.end_step()
            if begun.inputs is not None:
                self._team.see_step()
            self._traffic[0].see_step()
            self._traffic[0].see_meetings(*self._link.met(0))
            return result

    def rank_stats(self) -> tuple[RankStats, ...]:
        """Of all ranks, from 0."""
        return tuple(
            rank_stats(rank, self._dims.stage_of(rank), one.read())
            for rank, one in enumerate(self._traffic)
        )

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        self.submit(scheduler_output)
        return self.collect()

    @contextmanager
    def _no_loss_unheard(self) -> Iterator[None]:
        """If this rank is the one that fails, the others need not wait for it."""
        try:
            yield
        except BaseException:
            self._link.give_up()
            raise

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


def _pipelined_step(
    rank: OwnRank, memory: StageMemory, team: StageTeam, exits: Sender, entry: Receiver
) -> PipelinedStep:
    """How rank 0 has steps computed by all of them."""
    decoder, batch = rank.decoder, rank.batch
    layers = rank.blueprint.stage.of(rank.kv_tensors.layers)
    return PipelinedStep(
        StageStep(decoder, layers, batch, None, exits),
        logits_of(decoder, memory.rings_SKTD[-1], batch.max_num_tokens),
        team,
        memory.steps,
        entry,
        batch,
    )
