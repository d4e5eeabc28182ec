"""LinkedSlicesExecutor: a model of which several hosts have a slice of every layer, this process
the first one.

What MultiprocessExecutor does with memory that ranks share, messages do here; the steps are the
same, and with native kernels every number is. Each host has the KV blocks of its own heads; all
have as many as the one with the least room."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import torch

from novacron.config.engine import CacheConfig, ModelConfig, SchedulerConfig, SpeculativeConfig
from novacron.executor.blueprint import draw_blueprint
from novacron.executor.executor import StepByStep
from novacron.executor.hosts.balance import plan_slices
from novacron.executor.hosts.compression_report import CompressionReport
from novacron.executor.hosts.host_sums import join_hosts
from novacron.executor.hosts.host_team import HostsOfRanks, HostTeam, rank_lost
from novacron.executor.hosts.meeting_hosts import facts_here, facts_of_others
from novacron.executor.hosts.orders import ComputeLogits, Meet
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
from novacron.parallel.collectives.message_ranks import MessageRanks
from novacron.parallel.dims import ParallelDims
from novacron.parallel.messages.links import LinkLost
from novacron.parallel.messages.tensor_message import Compression
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.runner.captured_step import capture_step
from novacron.runner.input_batch import StepInput
from novacron.runner.led_step import LedStep
from novacron.runner.model_runner import ModelRunner

_NO_SPECULATION: Final = SpeculativeConfig()

logger = logging.getLogger(__name__)


def _ignore(message: str) -> None:
    pass


class LinkedSlicesExecutor(OverHosts, StepByStep):
    """Loads the model in `model_path` when made, on all hosts at once, and computes steps.
    Implements Executor, without draft models and KV tiers.

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
        self._team = HostTeam(hosts, on_loss)
        self._report = CompressionReport("partial sums")
        try:
            with phases.timed("config"):
                num_threads = threads_of_replica(model)
                torch.set_num_threads(num_threads)
                keep_freed_memory()
                whole = draw_blueprint(model, model_path, num_threads)
                here = facts_here(whole, cache)
            with phases.timed("connect"):
                others = facts_of_others(self._team, whole, model, cache, scheduler, progress)
            plan = plan_slices(
                whole, [here, *others], cache, scheduler, speculative,
                max_model_len=model.max_model_len,
            )  # fmt: skip
            self._team.load(plan)
            blueprint = whole.of_rank(0, ParallelDims(1 + len(others)))
            blueprint, exchange = join_hosts(
                blueprint, scheduler, hosts.compression, self._report.see
            )
            with phases.timed("weights"):
                decoder, digest = load_model(
                    blueprint, model, lambda fraction: progress("weights", fraction)
                )
                self._team.wait_until_ready(digest)
            if blueprint.kernels.has_threads:
                torch.set_num_threads(1)  # two pools would wait for each other's cores
            with phases.timed("kv_cache"):
                kv_tensors = allocate_part_cache(blueprint, plan.num_blocks, cache)
                decoder.set_context(plan.max_model_len)
            with phases.timed("meet"):
                self._team.tell_all(Meet())
                send, receive = self._team.send_ways(), self._team.receive_ways()
                exchange.meet(
                    MessageRanks(0, send, receive, patience_s=hosts.step_timeout_s or math.inf)
                )
                logger.info("sums over hosts: %s", _described(exchange.chosen))
            batch = make_batch(
                blueprint, scheduler, block_size=cache.block_size, max_model_len=plan.max_model_len
            )
            blocks = LeadingBlocks(kv_tensors)
            own = capture_step(decoder, kv_tensors.layers, batch)
            self._runner = ModelRunner(
                LedStep(own, _Lead(self._team, blocks)),
                blocks,
                batch,
                eos_token_ids=blueprint.eos_token_ids,
                choose=blueprint.kernels.choose,
            )
            with phases.timed("warm_up"):
                warm_up(self, max_model_len=plan.max_model_len, block_size=cache.block_size)
        except (LinkLost, ConnectionError) as error:
            self.shutdown()
            raise rank_lost(str(error)) from None
        except BaseException:
            self.shutdown()
            raise
        spec = model_spec(
            blueprint,
            plan.hosts[0],
            model,
            decoder,
            kv_tensors,
            version=version_of(digest, decoder, plan.max_model_len),
            load_phases_s=phases.times_s,
            kv_loss="" if hosts.compression is Compression.NONE else "sums int8",
        )
        self._spec = msgspec.structs.replace(
            spec,
            kv_cache_bytes=plan.kv_cache_bytes,
            max_model_len=plan.max_model_len,
            follows_a_crash=self._team.follows_a_crash,
        )

    def execute(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        return self._runner.execute(scheduler_output)


class _Lead:
    """Implements Lead. A host that is lost is the engine's end: what it held cannot be had
    again."""

    def __init__(self, team: HostTeam, blocks: LeadingBlocks) -> None:
        self._team, self._blocks = team, blocks

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        zeroed = self._blocks.take_zeroed()
        order = order_of(inputs.arrays, zeroed, with_tokens=True, places=places)
        try:
            self._team.tell_all(order)
        except LinkLost as error:
            raise ConnectionError(str(error)) from None

    def compute_logits(self, places: Sequence[int]) -> None:
        try:
            self._team.tell_all(ComputeLogits(tuple(places)))
        except LinkLost as error:
            raise ConnectionError(str(error)) from None

    def recover(self) -> None:
        raise rank_lost(self._team.loss or "it does not answer")


def _described(chosen: dict[int, str]) -> str:
    return ", ".join(f"{name} near {size // 1024} KiB" for size, name in chosen.items())
