"""LinkedPipelineExecutor: a model whose stages are on several hosts, this process the first one.

What PipelineExecutor does with memory that ranks share, messages do here; the steps are the same,
and so is every number. Each host has the KV blocks of its own layers; all have as many as the one
with the least room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NoReturn

from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.balance import HostsPlan, plan_pipeline
from novacron.executor.hosts.hops import HopEntry, HopExit
from novacron.executor.hosts.host_team import HostTeam
from novacron.executor.hosts.over_hosts import OverHosts
from novacron.executor.hosts.part_blocks import LeadingBlocks
from novacron.executor.hosts.stage_ranks import StageAlone, stage_ranks
from novacron.executor.hosts.step_orders import order_of
from novacron.executor.own_rank import OwnRank, RankLoader, Weights
from novacron.parallel.messages.links import LinkLost
from novacron.parallel.traffic import Traffic
from novacron.records.step import ModelRunnerOutput, SchedulerOutput
from novacron.runner.input_batch import StepInput
from novacron.runner.model_runner import BegunStep
from novacron.runner.pipelined_step import PipelinedStep
from novacron.runner.step_arrays import StepArrays


class LinkedPipelineExecutor(OverHosts):
    """Implements Executor. Computes as many steps at a time as the settings say."""

    _plan = staticmethod(plan_pipeline)
    _sent_between_hosts = "hidden states"

    _ranks: StageAlone | None = None  # of the first stage

    def _join(self, own: Blueprint) -> Blueprint:
        self.max_steps_in_flight = own.steps_in_flight
        self._begun: deque[BegunStep] = deque()
        self._ranks = stage_ranks(
            own,
            self._model,
            self._cache,
            self._scheduler,
            self._made_plan,
            num_places=self.max_steps_in_flight,
            on_loss=self._on_loss,
        )
        return self._ranks.blueprint

    def _wait_until_ready(self, digest: str) -> None:
        self._stage.begin(digest)
        super()._wait_until_ready(digest)

    def _make_room(
        self, loader: RankLoader, blueprint: Blueprint, weights: Weights, plan: HostsPlan
    ) -> OwnRank:
        return self._stage.make_room(loader, weights, plan)

    @property
    def _stage(self) -> StageAlone:
        assert self._ranks is not None
        return self._ranks

    def _leading_step(self, rank: OwnRank, blocks: LeadingBlocks) -> PipelinedStep:
        blueprint, batch, team = rank.blueprint, rank.batch, self._team
        self._entry = HopEntry(self._stage.ring_KTD, team.lines.receive_last, self._traffic)
        exits = HopExit(
            team.lines.send_first,
            blueprint.stage.layers.stop,
            self._hosts.compression,
            team.deadline_ns,
            self._traffic,
        )
        return PipelinedStep(
            self._stage.step(rank, None, exits),
            self._stage.logits(rank),
            _Lead(team, blocks),
            [_arrays_like(batch.largest_input().arrays) for _ in range(self.max_steps_in_flight)],
            self._entry,
            batch,
        )

    def submit(self, scheduler_output: SchedulerOutput) -> None:
        with self._computing():
            self._begin_step(scheduler_output)
            self._begun.append(self._runner.begin(scheduler_output))

    def collect(self) -> ModelRunnerOutput:
        with self._computing():
            begun = self._begun.popleft()
            result = self._runner.finish(begun)
            self._end_step(begun.step, result)
        if begun.inputs is not None:
            self._traffic.see_step()
            self._stage.see_step(self._traffic)
        self._report.see(self._entry.error)
        return result

    def _forget_steps(self) -> None:
        self._begun.clear()

    def _others(self) -> tuple[Traffic, ...]:
        return self._stage.others

    @property
    def num_ranks_replaced(self) -> int:
        return super().num_ranks_replaced + self._stage.num_replaced

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        return (*self._stage.lost_ranks, *super().lost_ranks)

    def tell_losses(self, on_change: Callable[[], None]) -> None:
        super().tell_losses(on_change)
        self._stage.tell_losses(on_change)

    def restore(self) -> None:
        self._stage.restore()
        super().restore()

    def shutdown(self) -> None:
        super().shutdown()
        if self._ranks is not None:
            self._ranks.close()

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

    def recover(self) -> NoReturn:
        """What a host held cannot be had again: no step can be computed from its beginning."""
        raise LinkLost(self._team.loss or "it does not answer")


def _arrays_like(largest: StepArrays) -> StepArrays:
    return StepArrays(*(array.copy() for array in largest))
