"""How the ranks of a host share the work out: a slice of every layer each, or some rows of each
long step. Rank 0 and the others build what they compute with the same functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.memory_plan import ModelShape
from novacron.executor.rank_memory import RankMemory
from novacron.executor.rank_messages import ComputeLogits, RunStep
from novacron.executor.rank_threads import threads_of_rank
from novacron.executor.row_memory import RowMemory
from novacron.executor.worker import allocate_cache
from novacron.kernels.metadata import KVLayer
from novacron.kernels.ranks import RankBond, RankLink, RowLink
from novacron.models.decoder import Decoder
from novacron.runner.captured_step import DecoderStep, capture_step
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.led_step import Lead, LedStep
from novacron.runner.shared_rows import (
    OwnRows,
    RowLead,
    RowShare,
    SharedMemoryMeeting,
    SharedRowsStep,
)

Follow = Callable[[RunStep | ComputeLogits], None]


def shape_of_ranks(own: Blueprint, model: ModelConfig) -> ModelShape:
    """Of all of them together. Weights that are not mapped from the packed cache are there for each
    rank that has them all."""
    shape = own.shape()
    return replace(shape, weight_bytes=shape.weight_bytes * model.context_parallel_size)


class JoinedRanks(ABC):
    """A rank, with the memory that it shares with the others and its way to them. `blueprint` is
    what it loads."""

    blueprint: Blueprint
    memory: RankMemory
    link: RankBond

    def allocate(self, blueprint: Blueprint, num_blocks: int, cache: CacheConfig) -> KVTensors:
        """This rank's heads of the blocks that all share."""
        return allocate_cache(blueprint, num_blocks, cache, self.memory.kv_blocks)

    @abstractmethod
    def leading_step(
        self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch, team: Lead
    ) -> DecoderStep:
        """How rank 0 has steps computed by all, or by itself."""

    @abstractmethod
    def follower(self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch) -> Follow:
        """What another rank does with what rank 0 says. It raises ConnectionError if a rank is
        lost."""


class JoinedSlices(JoinedRanks):
    """Each rank has a slice of every layer."""

    def __init__(self, blueprint: Blueprint, memory: RankMemory, patience_s: float) -> None:
        self.memory = memory
        self.link: RankLink = memory.join(Path(), patience_s)
        self.blueprint = blueprint.joined_by(self.link.communicator)

    def leading_step(
        self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch, team: Lead
    ) -> DecoderStep:
        return LedStep(capture_step(decoder, layers, batch), team)

    def follower(self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch) -> Follow:
        step = capture_step(decoder, layers, batch)
        hidden_TD = torch.empty(0)

        def follow(message: RunStep | ComputeLogits) -> None:
            nonlocal hidden_TD
            if isinstance(message, RunStep):
                counts = message.num_tokens, message.num_requests, message.num_blocks
                hidden_TD = step.hidden(batch.given_input(*counts))
            if message.places:
                step.logits(hidden_TD, message.places)

        return follow


class JoinedRows(JoinedRanks):
    """Each rank has all layers, and computes some rows of each step that is long enough."""

    def __init__(self, blueprint: Blueprint, memory: RowMemory, model: ModelConfig) -> None:
        self.blueprint, self.memory = blueprint, memory
        self.link: RowLink = memory.join_rows(model.rank_timeout, threads_of_rank(model))
        self._group = blueprint.rows_group
        self._meeting = SharedMemoryMeeting(memory.hidden_TD, self._group, self.link)

    def leading_step(
        self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch, team: Lead
    ) -> DecoderStep:
        share = self._share(decoder, layers, batch)
        shared = LedStep(OwnRows(decoder, share, batch.max_num_tokens), RowLead(team))
        return SharedRowsStep(capture_step(decoder, layers, batch), shared, share.is_worth)

    def follower(self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch) -> Follow:
        share = self._share(decoder, layers, batch)

        def follow(message: RunStep | ComputeLogits) -> None:
            assert isinstance(message, RunStep), "rank 0 makes all logits itself"
            counts = message.num_tokens, message.num_requests, message.num_blocks
            share.compute(batch.given_input(*counts).arrays)

        return follow

    def _share(self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch) -> RowShare:
        return RowShare(decoder, layers, batch, self._group, self._meeting, self.link.record)


def join_ranks(
    own: Blueprint,
    model: ModelConfig,
    cache: CacheConfig,
    scheduler: SchedulerConfig,
    *,
    num_blocks: int,
    max_model_len: int,
    descriptor: int | None = None,
) -> JoinedRanks:
    """`own` is the rank's part. Without a `descriptor`, new memory. Raises ConfigError."""
    if own.rows_group.size == 1:
        slices = RankMemory(
            own,
            cache,
            scheduler,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            descriptor=descriptor,
        )
        return JoinedSlices(own, slices, model.rank_timeout)
    rows = RowMemory(
        own,
        cache,
        scheduler,
        num_blocks=num_blocks,
        max_model_len=max_model_len,
        descriptor=descriptor,
    )
    return JoinedRows(own, rows, model)
