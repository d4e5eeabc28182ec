"""How the ranks of one host share the stage that the host has of a model: a slice of each of its
layers each. Its first rank and the others build what they compute with the same functions.

Shapes: K places, T tokens of the largest step, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from novacron.config.cache import CacheConfig
from novacron.config.model import ModelConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint, dims_of
from novacron.executor.rank_memory import RankMemory
from novacron.executor.rank_messages import ComputeLogits, RunStep, StageOfHost
from novacron.kernels.kv_format import LayerFormat, choose_kv_formats
from novacron.kernels.metadata import KVLayer
from novacron.models.decoder import Decoder
from novacron.models.decoder_config import DecoderConfig
from novacron.parallel.stages import stages_ending
from novacron.runner.input_batch import InputBatch
from novacron.runner.kv_tensors import KVTensors
from novacron.runner.stage_step import StageStep, logits_of

Follow = Callable[[RunStep | ComputeLogits], None]


def part_of_stage(whole: Blueprint, model: ModelConfig, stage: StageOfHost, rank: int) -> Blueprint:
    """What one of the ranks of the stage has of the model. Raises ConfigError."""
    dims = dims_of(model)
    return whole.of_rank(dims.ranks_of(stage.index)[rank], dims, stages_ending(stage.stops))


class StageOfHostMemory(RankMemory):
    """What these ranks share: blocks with what the stage's layers have of them, all heads, and
    `ring_KTD`, for what the stage is handed: to its first layer, or, in the first stage, to the
    logits."""

    def __init__(
        self,
        blueprint: Blueprint,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        num_places: int,
        num_blocks: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self._num_places = num_places
        super().__init__(
            blueprint,
            cache,
            scheduler,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            descriptor=descriptor,
        )
        self.ring_KTD: Tensor = self.shared.tensors["ring"]

    def _in_blocks(
        self, blueprint: Blueprint, cache: CacheConfig
    ) -> tuple[DecoderConfig, tuple[LayerFormat, ...]]:
        config, stage = blueprint.config, blueprint.stage
        formats = choose_kv_formats(cache, len(config.layers), blueprint.kv_precision)
        return replace(config, layers=stage.of(config.layers)), stage.of(formats)

    def _exchanged(
        self, blueprint: Blueprint, scheduler: SchedulerConfig
    ) -> dict[str, tuple[tuple[int, ...], Any]]:
        max_tokens, size = scheduler.max_num_batched_tokens, blueprint.config.hidden_size
        ring = ((self._num_places, max_tokens, size), blueprint.dtype)
        return {"ring": ring, **super()._exchanged(blueprint, scheduler)}

    def allocate(self, blueprint: Blueprint, num_blocks: int, cache: CacheConfig) -> KVTensors:
        """This rank's heads of the blocks."""
        config, formats = self._in_blocks(blueprint, cache)
        return KVTensors(
            config,
            blueprint.group,
            num_blocks=num_blocks,
            block_size=cache.block_size,
            formats=formats,
            device=blueprint.device,
            memory=self.kv_blocks,
        )


class JoinedStage:
    """One of these ranks, with the memory that it shares with the others and its way to them.
    `own` is its part of the model; `blueprint` the same, joined. Without a `descriptor`, new
    memory."""

    def __init__(
        self,
        own: Blueprint,
        model: ModelConfig,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        num_places: int,
        num_blocks: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self.memory = StageOfHostMemory(
            own,
            cache,
            scheduler,
            num_places=num_places,
            num_blocks=num_blocks,
            max_model_len=max_model_len,
            descriptor=descriptor,
        )
        self.link = self.memory.join(Path(), model.rank_timeout)
        self.blueprint = own.joined_by(self.link.communicator)
        self.allocate = self.memory.allocate

    def follower(self, decoder: Decoder, layers: Sequence[KVLayer], batch: InputBatch) -> Follow:
        """What a rank other than the first does with what that one says. It raises ConnectionError
        if a rank is lost."""
        is_first, ring_KTD = self.blueprint.stage.is_first, self.memory.ring_KTD
        entry = None if is_first else _Handed(ring_KTD)
        step = StageStep(decoder, layers, batch, entry, None)
        logits = logits_of(decoder, ring_KTD, batch.max_num_tokens) if is_first else None

        def follow(message: RunStep | ComputeLogits) -> None:
            if isinstance(message, RunStep):
                counts = message.num_tokens, message.num_requests, message.num_blocks
                step.compute(batch.given_input(*counts), 0)
            else:
                assert logits is not None, "logits are the first stage's"
                logits(message.places)

        return follow


class _Handed:
    """Implements Entry: it is there, before a rank is told of the step."""

    def __init__(self, ring_KTD: Tensor) -> None:
        self.ring_KTD = ring_KTD

    def take(self, place: int, num_tokens: int) -> Tensor:
        return self.ring_KTD[place, :num_tokens]
