"""LinkedPipelineExecutor: a model whose stages are on several hosts, this process the first one.

What PipelineExecutor does with memory that ranks share, messages do here; the steps are the same,
and so is every number. Each host has the KV blocks of its own layers; all have as many as the one
with the least room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import torch

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig, SpeculativeConfig
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.hosts.balance import plan_pipeline
from novacron.executor.hosts.compression_report import CompressionReport
from novacron.executor.hosts.hops import HopEntry, HopExit
from novacron.executor.hosts.host_team import HostsOfRanks, HostTeam, rank_lost
from novacron.executor.hosts.meeting_hosts import facts_here, facts_of_others
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.executor.hosts.part_blocks import LeadingBlocks, allocate_part_cache
from novacron.executor.hosts.step_orders import order_of
from novacron.executor.placement import keep_freed_memory, threads_of_replica
from novacron.executor.warm_up import warm_up
from novacron.executor.worker import (
    Phases,
    Progress,
    load_model,
    make_batch,
    model_spec,
    version_of,
)
from novacron.parallel.dims import ParallelDims
from novacron.parallel.handover import HandoverLost
from novacron.parallel.messages.links import LinkLost
from novacron.parallel.messages.tensor_message import Compression
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.runner.input_batch import StepInput
from novacron.runner.model_runner import BegunStep, ModelRunner
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.stage_step import StageStep, logits_of
from novacron.runner.step_arrays import StepArrays

_NO_SPECULATION: Final = SpeculativeConfig()
_READY_BYTES: Final = 2**27  # of KV blocks: memory that the first requests need not wait for
_SHARE_READY: Final = 8

logger = logging.getLogger(__name__)


def _ignore(message: str) -> None:
    pass


class LinkedPipelineExecutor(OverHosts):
    """Loads the model in `model_path` when made, on all hosts at once, and computes steps, as many
    at a time as the settings say. Implements Executor, without draft models and KV tiers.

    Raises ModelLoadError, ConfigError, and EngineDead if a host is lost. `on_loss` gets a sentence,
    from another thread, if one is lost later; the next step, or that which is running, raises
    EngineDead then.
    """

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
        phases = Phases(progress)
        self._begun: deque[BegunStep] = deque()
        self._team = HostTeam(hosts, on_loss)
        try:
            with phases.timed("config"):
                num_threads = threads_of_replica(model)
                torch.set_num_threads(num_threads)
                keep_freed_memory()
                whole = draw_blueprint(model, model_path, num_threads)
                self.max_steps_in_flight = whole.steps_in_flight
                here = facts_here(whole, cache)
            with phases.timed("connect"):
                others = facts_of_others(self._team, whole, model, cache, scheduler, progress)
            plan = plan_pipeline(
                whole, [here, *others], cache, scheduler, speculative,
                max_model_len=model.max_model_len,
            )  # fmt: skip
            self._team.load(plan)
            blueprint = whole.of_rank(0, ParallelDims(1, len(plan.stages)), plan.stages)
            with phases.timed("weights"):
                decoder, digest = load_model(
                    blueprint, model, lambda fraction: progress("weights", fraction)
                )
                self._team.wait_until_ready(digest)
            if blueprint.kernels.has_threads:
                torch.set_num_threads(1)  # two pools would wait for each other's cores
            with phases.timed("kv_cache"):
                kv_tensors = allocate_part_cache(blueprint, plan.num_blocks, cache)
                kv_tensors.populate(min(_READY_BYTES, kv_tensors.num_bytes // _SHARE_READY))
                decoder.set_context(plan.max_model_len)
            batch = make_batch(
                blueprint, scheduler, block_size=cache.block_size, max_model_len=plan.max_model_len
            )
            blocks = LeadingBlocks(kv_tensors)
            places, max_tokens = self.max_steps_in_flight, scheduler.max_num_batched_tokens
            ring_KTD = torch.zeros(
                (places, max_tokens, blueprint.config.hidden_size), dtype=blueprint.dtype
            )
            self._entry = HopEntry(ring_KTD, self._team.receive_last)
            self._report = CompressionReport("hidden states")
            exits = HopExit(
                self._team.send_first,
                plan.stages[0].layers.stop,
                hosts.compression,
                self._team.deadline_ns,
            )
            self._runner = ModelRunner(
                PipelinedStep(
                    StageStep(decoder, kv_tensors.layers, batch, None, exits),
                    logits_of(decoder, ring_KTD, max_tokens),
                    _Lead(self._team, blocks),
                    [_arrays_like(batch.largest_input().arrays) for _ in range(places)],
                    self._entry,
                ),
                blocks,
                batch,
                eos_token_ids=blueprint.eos_token_ids,
                choose=blueprint.kernels.choose,
            )
            with phases.timed("warm_up"):
                warm_up(self, max_model_len=plan.max_model_len, block_size=cache.block_size)
        except BaseException:
            self.shutdown()
            raise
        everything = blueprint.all_stages()
        spec = model_spec(
            blueprint,
            plan.hosts[0],
            model,
            everything,
            kv_tensors,
            version=version_of(digest, everything, plan.max_model_len),
            load_phases_s=phases.times_s,
            kv_loss="" if hosts.compression is Compression.NONE else "activations int8",
        )
        self._spec = msgspec.structs.replace(
            spec,
            kv_cache_bytes=plan.kv_cache_bytes,
            max_model_len=plan.max_model_len,
            follows_a_crash=self._team.follows_a_crash,
        )

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        with _loss_is_the_end():
            self._begun.append(self._runner.begin(scheduler_output))

    def collect(self) -> ModelRunnerOutput:
        with _loss_is_the_end():
            result = self._runner.finish(self._begun.popleft())
        self._report.see(self._entry.error)
        return result

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        self.submit(scheduler_output)
        return self.collect()


class _Lead:
    """Implements PipelineLead: all are told of a step before the first stage computes it."""

    def __init__(self, team: HostTeam, blocks: LeadingBlocks) -> None:
        self._team, self._blocks = team, blocks

    def run_first_stage(self, inputs: StepInput, place: int) -> None:
        self._team.tell_all(order_of(inputs.arrays, self._blocks.take_zeroed()))

    def run_later_stages(self, inputs: StepInput, place: int) -> None:
        pass

    def compute_logits(self, places: object) -> None:
        pass


@contextmanager
def _loss_is_the_end() -> Iterator[None]:
    try:
        yield
    except (LinkLost, HandoverLost) as error:
        raise rank_lost(str(error)) from None


def _arrays_like(largest: StepArrays) -> StepArrays:
    return StepArrays(*(array.copy() for array in largest))
