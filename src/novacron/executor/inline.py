"""InlineExecutor: the one rank of a replica, in the process of its engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from novacron.config.cache import CacheConfig
from novacron.config.engine import ALONE, NO_SPECULATION, SharedDevice, SpeculativeConfig
from novacron.config.kv_compression import loss_identity
from novacron.config.model import ModelConfig
from novacron.config.remote_tiers import require_extras
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.compilation import OFF, compile_decoder
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.draft_model import DraftModel
from novacron.executor.executor import StepByStep
from novacron.executor.mapped_reference import map_reference
from novacron.executor.memory_plan import plan_memory
from novacron.executor.neighbours import before_all, draw_neighbours
from novacron.executor.own_rank import RankLoader
from novacron.executor.placement import keep_freed_memory, threads_of_replica
from novacron.executor.planted_error import wrong_scales
from novacron.executor.quality_watch import QualityWatch
from novacron.executor.tiered_blocks import TieredBlocks
from novacron.executor.warm_up import warm_up
from novacron.models.decoder import Decoder
from novacron.quality.watch import Turns
from novacron.records.block_moves import BlockNews, BlockOrders, TierKeys
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import capture_step
from novacron.runner.draft_runner import DraftRunner

logger = logging.getLogger(__name__)


class InlineExecutor(StepByStep):
    """Loads the model in `model_path` when made, and computes steps. Implements Executor.

    With `draft_path`, a model that makes guesses for it. Its vocabulary must be the same. `shared`
    tells which other variants there are going to be on the device.

    Raises ModelLoadError and ConfigError. `progress` gets the phase of loading and the fraction of
    that phase that is done.
    """

    def __init__(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        model_path: Path,
        draft_path: Path | None = None,
        progress: Callable[[str, float], None],
        speculative: SpeculativeConfig = NO_SPECULATION,
        shared: SharedDevice = ALONE,
    ) -> None:
        loader = RankLoader(model, cache, scheduler, progress)
        phases = loader.phases
        with phases.timed("config"):
            require_extras(cache)
            num_threads = threads_of_replica(model)
            blueprint = draw_blueprint(model, model_path, num_threads)
            draft = None if draft_path is None else blueprint.of_draft(draft_path)
            device = blueprint.device
            if device.type == "cpu":
                torch.set_num_threads(num_threads)
                keep_freed_memory()
            shape, measured = blueprint.shape(), measure_device_memory(device, cache)
            plan = plan_memory(
                shape,
                before_all(measured, shared.free_bytes, shape),
                cache,
                scheduler,
                speculative,
                max_model_len=model.max_model_len,
                draft=None if draft is None else draft.shape(),
                neighbours=draw_neighbours(blueprint, draft, shared, model, scheduler, speculative),
                num_replicas=model.data_parallel_size,
            )
            logger.info("memory: %s", plan.summary)
        weights = loader.load_weights(blueprint)
        if model.compilation != OFF:
            with phases.timed("compilation"):
                compile_decoder(weights.decoder, model.compilation)
        draft_model: DraftModel | None = None
        if draft is not None:
            with phases.timed("draft_weights"):
                draft_model = DraftModel(draft)
        rank = loader.make_room(blueprint, weights, plan)
        self._model, self._cache = model, cache
        self._blueprint, self._decoder = blueprint, rank.decoder
        self._runner = rank.runner(capture_step(rank.decoder, rank.kv_tensors.layers, rank.batch))
        self._tiers: TieredBlocks | None = None  # a first step knows none
        self._draft_runner: DraftRunner | None = None
        if draft_model is not None:
            self._draft_runner = draft_model.make_runner(
                rank.kv_tensors,
                scheduler,
                max_model_len=plan.max_model_len,
                vocab_size=blueprint.config.vocab_size,
                eos_token_ids=blueprint.eos_token_ids,
            )
        with phases.timed("warm_up"):
            warm_up(
                self,
                max_model_len=plan.max_model_len,
                block_size=cache.block_size,
                is_drafting=draft_model is not None,
            )
        kv_identity = rank.kv_identity(plan, loss_identity(cache))
        self._tiers = TieredBlocks(rank, kv_identity, model, cache)
        self._spec = rank.spec(
            model,
            plan,
            kv_identity=kv_identity,
            load_phases_s=phases.times_s,
            kv_tiers=self._tiers.specs,
            draft_model=draft_model.spec if draft_model else None,
        )

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        assert self._draft_runner is not None, "no draft model was loaded"
        return self._draft_runner.draft(scheduler_output)

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        if self._tiers is not None:
            self._tiers.begin_step(scheduler_output)
        result = self._runner.execute(scheduler_output)
        if self._draft_runner is not None:
            self._draft_runner.follow(scheduler_output, result)
        if self._tiers is not None:
            self._tiers.end_step()
        return result

    def watch_quality(self, floor: float, turns: Turns | None = None) -> QualityWatch:
        """A watch over this model, its reference mapped from disk. Raises ConfigError and
        ModelLoadError."""
        return QualityWatch(
            self._blueprint,
            self._decoder,
            map_reference(self._blueprint, self._model),
            self._cache,
            max_model_len=self._spec.max_model_len,
            floor=floor,
            turns=turns,
        )

    @property
    def decoder(self) -> Decoder:
        return self._decoder

    def with_wrong_scales(self, pattern: str, factor: float) -> AbstractContextManager[int]:
        """See planted_error: for measuring what the watch notices. Raises ConfigError."""
        return wrong_scales(self._decoder, pattern, factor)

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
        """The tensors go with this object; what tiers still have to store gets a moment."""
        if self._tiers is not None:
            self._tiers.close()
