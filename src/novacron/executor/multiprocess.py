"""MultiprocessExecutor: several ranks of one host, each a process with a part of the model: some
of the layers, a slice of each layer, or a slice of some.

Rank 0 is this process: it alone knows requests and chooses tokens. The others compute what it tells
them, on tensors that all of them share.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig, SpeculativeConfig
from novacron.errors import EngineDead
from novacron.executor.blueprint import dims_of, draw_blueprint, steps_in_flight
from novacron.executor.device_memory import measure_device_memory
from novacron.executor.memory_plan import MemoryPlan, plan_memory
from novacron.executor.placement import choose_num_threads, keep_freed_memory
from novacron.executor.rank_memory import RankMemory
from novacron.executor.rank_messages import RankArguments
from novacron.executor.rank_team import RankTeam
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import (
    Phases,
    Progress,
    allocate_cache,
    load_model,
    make_batch,
    model_spec,
    version_of,
)
from novacron.kernels.metadata import KVLayer
from novacron.kernels.native.library import GroupLost
from novacron.kernels.ranks import RankLink
from novacron.models.decoder import Decoder
from novacron.parallel.handover import HandoverLost, Receiver, Sender
from novacron.records.block_moves import BlockNews, BlockOrders
from novacron.records.output import ModelSpec
from novacron.records.step import DraftOutput, ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import DecoderStep, capture_step
from novacron.runner.input_batch import InputBatch
from novacron.runner.led_step import LedBlocks, LedStep
from novacron.runner.model_runner import BegunStep, ModelRunner
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.stage_step import StageStep, logits_of

_NO_SPECULATION = SpeculativeConfig()

logger = logging.getLogger(__name__)


def _ignore(message: str) -> None:
    pass


class MultiprocessExecutor:
    """Loads the model in `model_path` when made, all ranks at once, and computes steps, as many at
    a time as there are stages. Implements Executor, without KV tiers and draft models.

    Raises ModelLoadError, ConfigError, and EngineDead if a rank ends. `on_loss` gets a sentence,
    from another thread, if one ends later; the next step, or that which is running, raises
    EngineDead then.
    """

    def __init__(
        self,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        model_path: Path,
        progress: Progress,
        speculative: SpeculativeConfig = _NO_SPECULATION,
        on_loss: Callable[[str], None] = _ignore,
    ) -> None:
        phases = Phases(progress)
        with phases.timed("config"):
            num_threads = threads_of_rank(model)
            blueprint = draw_blueprint(model, model_path, num_threads).of_rank(0, dims_of(model))
            torch.set_num_threads(num_threads)
            keep_freed_memory()
            plan = plan_memory(
                blueprint.shape(),
                measure_device_memory(blueprint.device, cache),
                cache,
                scheduler,
                speculative,
                max_model_len=model.max_model_len,
            )
            logger.info("memory: %s", plan.summary)
            self.max_steps_in_flight = blueprint.steps_in_flight
            memory = RankMemory(
                blueprint,
                scheduler,
                block_size=cache.block_size,
                max_model_len=plan.max_model_len,
            )
        self._begun: deque[BegunStep] = deque()
        self._on_loss = on_loss
        self._link: RankLink | None = None
        self._team = RankTeam(
            _arguments(model, cache, scheduler, model_path, num_threads, plan, memory),
            self._see_loss,
        )
        try:
            memory.shared.close_descriptor()
            self._link = memory.join(self._team.meeting_point)
            blueprint = blueprint.joined_by(self._link.communicator)
            with phases.timed("weights"):
                decoder, digest = load_model(
                    blueprint, model, lambda fraction: progress("weights", fraction)
                )
                self._team.wait_until_ready()
            if blueprint.kernels.has_threads:
                torch.set_num_threads(1)  # two pools would wait for each other's cores
            with phases.timed("kv_cache"):
                kv_tensors = allocate_cache(blueprint, plan.num_blocks, cache)
                decoder.set_context(plan.max_model_len)
            batch = make_batch(
                blueprint,
                scheduler,
                block_size=cache.block_size,
                max_model_len=plan.max_model_len,
                arrays=memory.steps[0] if blueprint.dims.pipeline == 1 else None,
            )
            self._runner = ModelRunner(
                _led_step(decoder, kv_tensors.layers, batch, memory, self._team),
                LedBlocks(kv_tensors, self._team),
                batch,
                eos_token_ids=blueprint.eos_token_ids,
                choose=blueprint.kernels.choose,
            )
            with phases.timed("warm_up"):
                warm_up(self, max_model_len=plan.max_model_len, block_size=cache.block_size)
            self._team.forget_meeting_point()
        except BaseException:
            self.shutdown()
            raise
        everything = blueprint.all_stages()
        self._spec = model_spec(
            blueprint,
            plan,
            model,
            everything,
            kv_tensors,
            version=version_of(digest, everything, plan.max_model_len),
            kv_cache_bytes=plan.kv_cache_bytes,
            load_phases_s=phases.times_s,
            rank_pids=self._team.pids,
        )

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def draft(self, scheduler_output: SchedulerOutput) -> DraftOutput:
        raise AssertionError("no draft model was loaded")

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        with self._loss_is_the_end():
            self._begun.append(self._runner.begin(scheduler_output))

    def collect(self) -> ModelRunnerOutput:
        with self._loss_is_the_end():
            return self._runner.finish(self._begun.popleft())

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        self.submit(scheduler_output)
        return self.collect()

    @contextmanager
    def _loss_is_the_end(self) -> Iterator[None]:
        try:
            yield
        except (GroupLost, HandoverLost) as error:
            assert self._link is not None
            reason = self._link.loss or error
            self._give_up()
            raise EngineDead(f"The step cannot be computed: {reason}.") from None
        except BaseException:
            self._give_up()
            raise

    def move_blocks(self, orders: BlockOrders) -> None:
        raise AssertionError("there are no KV tiers")

    def block_news(self, wait_s: float = 0.0) -> BlockNews | None:
        return None

    def shutdown(self) -> None:
        """End the other ranks; this one's tensors go with this object."""
        self._give_up()
        self._team.close()

    def _give_up(self) -> None:
        if self._link is not None:
            self._link.give_up()

    def _see_loss(self, message: str) -> None:
        self._give_up()
        self._on_loss(message)


def threads_of_rank(model: ModelConfig) -> int:
    """Its share of those of all ranks that compute at the same time: they compete for cores if
    there are more of them."""
    dims, num_threads = dims_of(model), choose_num_threads(model)
    num_ranks = dims.tensor * min(dims.pipeline, steps_in_flight(model))
    if num_threads < num_ranks and len(os.sched_getaffinity(0)) < num_ranks:
        logger.warning(
            "%d ranks compute at once, but there are %d cores: ranks wait for each other.",
            num_ranks, len(os.sched_getaffinity(0)),
        )  # fmt: skip
    return max(1, num_threads // num_ranks)


def _led_step(
    decoder: Decoder,
    cache: Sequence[KVLayer],
    batch: InputBatch,
    memory: RankMemory,
    team: RankTeam,
) -> DecoderStep:
    """How rank 0 has steps computed by all of them."""
    rings, pipes = memory.rings_SKTD, team.pipes
    if pipes.entry is None:
        return LedStep(capture_step(decoder, cache, batch), team)
    return PipelinedStep(
        StageStep(decoder, cache, batch, None, Sender(rings[0], pipes.exits)),
        logits_of(decoder, rings[-1], batch.max_num_tokens),
        team,
        memory.steps,
        Receiver(rings[-1], pipes.entry, team.see_delay),
    )


def _arguments(
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    model_path: Path,
    num_threads: int,
    plan: MemoryPlan,
    memory: RankMemory,
) -> RankArguments:
    return RankArguments(
        model=model,
        cache=cache,
        scheduler=scheduler,
        model_path=str(model_path),
        rank=1,
        num_threads=num_threads,
        num_blocks=plan.num_blocks,
        max_model_len=plan.max_model_len,
        descriptor=memory.shared.descriptor,
        socket=-1,
        meeting_point="",
    )
