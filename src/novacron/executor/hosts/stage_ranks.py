"""The ranks that a host has of a model whose stages are on several hosts, as the first of them has
them: itself, and with `tensor_parallel_size` the other slices of its stage.

Between hosts nothing is different: a stage takes hidden states over, and hands them on.

Shapes: K places, T tokens of the largest step, D hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.hosts.part_blocks import allocate_part_cache
from novacron.executor.own_rank import BlockPlan, OwnRank, RankLoader, Weights
from novacron.executor.rank_messages import RankArguments, StageOfHost
from novacron.executor.rank_team import RankTeam
from novacron.executor.rank_threads import threads_on_host
from novacron.executor.stage_sharing import JoinedStage
from novacron.parallel.handover import Entry, Exit
from novacron.parallel.traffic import RankTraffic, Traffic
from novacron.runner.input_batch import StepInput
from novacron.runner.led_stage import LedStageStep, Logits, led_logits
from novacron.runner.led_step import Lead
from novacron.runner.stage_step import StageStep, logits_of


class StageAlone:
    """One rank, which has all of the stage's layers. `ring_KTD` is for what the stage is handed."""

    def __init__(self, own: Blueprint, scheduler: SchedulerConfig, num_places: int) -> None:
        self.blueprint = own
        max_tokens, size = scheduler.max_num_batched_tokens, own.config.hidden_size
        self.ring_KTD = torch.zeros((num_places, max_tokens, size), dtype=own.dtype)

    @property
    def others(self) -> tuple[Traffic, ...]:
        """What the other ranks of the stage have counted."""
        return ()

    @property
    def num_replaced(self) -> int:
        return 0

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        """Counted within the stage."""
        return ()

    def begin(self, digest: str) -> None:
        """Wait for those who load the rest of the stage. Raises what keeps them from it."""

    def make_room(self, loader: RankLoader, weights: Weights, plan: BlockPlan) -> OwnRank:
        return loader.make_room(self.blueprint, weights, plan, allocate=allocate_part_cache)

    def step(self, rank: OwnRank, entry: Entry | None, exits: Exit | None) -> StageStep:
        return StageStep(rank.decoder, rank.kv_tensors.layers, rank.batch, entry, exits)

    def logits(self, rank: OwnRank) -> Logits:
        """After rows of `ring_KTD`, counted through. Of the first stage."""
        return logits_of(rank.decoder, self.ring_KTD, rank.batch.max_num_tokens)

    def see_step(self, traffic: RankTraffic) -> None:
        """The stage has computed one. `traffic` is what its first rank counts."""

    def tell_losses(self, on_change: Callable[[], None]) -> None:
        """Have it called when `lost_ranks` has changed, from any thread."""

    def restore(self) -> None:
        """Between two steps: have all of the stage's ranks compute together. Raises EngineDead."""

    def close(self) -> None:
        """Harmless when called again."""


class StageOfSlices(StageAlone):
    """Several ranks, each a process with a slice of every layer of the stage. The others start when
    this is made. One of them that ends, or hangs, is replaced, and the layers computed again.

    `on_loss` gets a sentence, from another thread, if one cannot be replaced: the step raises
    EngineDead then. `resting` is told when this rank begins and ends to wait for a new process.
    """

    def __init__(
        self,
        own: Blueprint,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        plan: BlockPlan,
        *,
        num_places: int,
        on_loss: Callable[[str], None],
        resting: Callable[[bool], None],
    ) -> None:
        joined = JoinedStage(
            own,
            model,
            cache,
            scheduler,
            num_places=num_places,
            num_blocks=plan.num_blocks,
            max_model_len=plan.max_model_len,
        )
        self.blueprint, self._joined = joined.blueprint, joined
        self.ring_KTD: Tensor = joined.memory.ring_KTD
        self._began_s = time.monotonic()
        self._num_steps = 0
        stops = tuple(stage.layers.stop for stage in own.stages)
        self._team = RankTeam(
            RankArguments(
                model=model,
                cache=cache,
                scheduler=scheduler,
                model_path=str(own.path),
                rank=1,
                num_ranks=own.group.size,
                num_threads=threads_on_host(model),
                num_blocks=plan.num_blocks,
                max_model_len=plan.max_model_len,
                descriptor=joined.memory.shared.descriptor,
                socket=-1,
                stage=StageOfHost(own.stage.index, stops, num_places),
            ),
            joined.link,
            on_loss,
        )
        self._lead = _RestingLead(self._team, resting)

    def begin(self, digest: str) -> None:
        self._team.begin(digest, time.monotonic() - self._began_s)

    def make_room(self, loader: RankLoader, weights: Weights, plan: BlockPlan) -> OwnRank:
        arrays, allocate = self._joined.memory.arrays, self._joined.allocate
        return loader.make_room(self.blueprint, weights, plan, arrays=arrays, allocate=allocate)

    def step(self, rank: OwnRank, entry: Entry | None, exits: Exit | None) -> StageStep:
        layers = rank.kv_tensors.layers
        return LedStageStep(rank.decoder, layers, rank.batch, entry, exits, self._lead)

    def logits(self, rank: OwnRank) -> Logits:
        return led_logits(super().logits(rank), self._lead)

    def see_step(self, traffic: RankTraffic) -> None:
        self._num_steps += 1
        self._team.see_step()
        traffic.see_meetings(*self._joined.link.met(0))

    @property
    def others(self) -> tuple[Traffic, ...]:
        met = map(self._joined.link.met, range(1, self.blueprint.group.size))
        return tuple(Traffic(self._num_steps, *one) for one in met)

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the other ranks, as they are now."""
        return self._team.pids

    @property
    def num_replaced(self) -> int:
        return self._team.num_replaced

    @property
    def lost_ranks(self) -> tuple[int, ...]:
        return self._team.lost_ranks

    def tell_losses(self, on_change: Callable[[], None]) -> None:
        self._team.on_change = on_change

    def restore(self) -> None:
        if self._team.lost_ranks:
            self._lead.recover()

    def close(self) -> None:
        self._joined.link.give_up()
        self._team.close()
        self._joined.memory.shared.close_descriptor()


class _RestingLead:
    """Implements Lead: what `team` does, and it says when this rank waits for a new process."""

    def __init__(self, team: Lead, resting: Callable[[bool], None]) -> None:
        self._team, self._resting = team, resting

    def run_step(self, inputs: StepInput, places: Sequence[int]) -> None:
        self._team.run_step(inputs, places)

    def compute_logits(self, places: Sequence[int]) -> None:
        self._team.compute_logits(places)

    def recover(self) -> None:
        self._resting(True)
        try:
            self._team.recover()
        finally:
            self._resting(False)


def stage_ranks(
    own: Blueprint,
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    plan: BlockPlan,
    *,
    num_places: int,
    on_loss: Callable[[str], None],
    resting: Callable[[bool], None] = lambda begins: None,
) -> StageAlone:
    """Those of the stage of `own`, which is its first rank."""
    if own.group.size == 1:
        return StageAlone(own, scheduler, num_places)
    return StageOfSlices(
        own, model, cache, scheduler, plan, num_places=num_places, on_loss=on_loss, resting=resting
    )
