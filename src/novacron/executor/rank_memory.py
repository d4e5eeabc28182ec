"""What the ranks of a host share: KV blocks, the tensors of a step, what their kernels exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from novacron.config.cache import CacheConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.kernels.kv_format import LayerFormat, choose_kv_formats
from novacron.kernels.ranks import ExchangeSize, Met, RankLink
from novacron.models.decoder_config import DecoderConfig
from novacron.parallel.gloo import GlooCommunicator
from novacron.parallel.shared_memory import Piece, SharedMemory
from novacron.runner.kv_tensors import shape_of_blocks
from novacron.runner.step_arrays import StepArrays


class RankMemory:
    """The memory of the ranks of `blueprint`, mapped into this process. Each of them names the same
    sizes. Without a `descriptor`, new memory."""

    def __init__(
        self,
        blueprint: Blueprint,
        cache: CacheConfig,
        scheduler: SchedulerConfig,
        *,
        num_blocks: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self._blueprint = blueprint
        shapes = StepArrays.shapes(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=scheduler.max_num_batched_tokens,
            max_model_len=max_model_len,
            block_size=cache.block_size,
        )
        blocks = shape_of_blocks(
            *self._in_blocks(blueprint, cache), num_blocks=num_blocks, block_size=cache.block_size
        )
        pieces = {"kv_blocks": Piece(blocks, torch.uint8)}
        pieces |= {name: Piece(shape, torch.int64) for name, shape in shapes.items()}
        exchanged = self._exchanged(blueprint, scheduler)
        pieces |= {name: Piece(*piece) for name, piece in exchanged.items()}
        self.shared = SharedMemory(pieces, descriptor)
        tensors = self.shared.tensors
        self.kv_blocks = tensors["kv_blocks"]
        self.arrays = StepArrays(**{name: tensors[name].numpy() for name in shapes})

    def _in_blocks(
        self, blueprint: Blueprint, cache: CacheConfig
    ) -> tuple[DecoderConfig, tuple[LayerFormat, ...]]:
        """The model as far as blocks hold something of it, and in which form."""
        config = blueprint.config
        return config, choose_kv_formats(cache, len(config.layers), blueprint.kv_precision)

    def _exchanged(
        self, blueprint: Blueprint, scheduler: SchedulerConfig
    ) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and type of what kernels exchange, by name."""
        kernels = blueprint.kernels.ranks
        if kernels is None:
            return {}
        size = exchange_size(blueprint, scheduler.max_num_batched_tokens)
        return kernels.memory(size, blueprint.group.size)

    def join(self, meeting_point: Path, patience_s: float) -> RankLink:
        """The way to the other ranks. `meeting_point` is a file that is not there yet, for those
        whose kernels have no way of their own. `patience_s`: how long another may be late."""
        group, kernels = self._blueprint.group, self._blueprint.kernels.ranks
        if kernels is not None:
            return kernels.join(group.rank, group.size, self.shared.tensors, patience_s)
        return GlooLink(
            GlooCommunicator(meeting_point, group.rank, group.size, patience_s=patience_s)
        )


class GlooLink:
    """Implements RankLink. Who waits for a rank that is gone gets an exception from Gloo."""

    loss = None
    late_rank = None

    def __init__(self, communicator: GlooCommunicator) -> None:
        self.communicator = communicator

    def met(self, rank: int) -> Met:
        """Gloo does not count."""
        return Met()

    def give_up(self) -> None:
        """They notice it by themselves, if need be when their patience ends."""

    def begin_anew(self, meeting_point: Path) -> None:
        self.communicator.begin_anew(meeting_point)

    def reset(self) -> None:
        """Who meets at the same file is a group."""


def exchange_size(blueprint: Blueprint, max_tokens: int) -> ExchangeSize:
    config = blueprint.config
    pairs = max(layer.moe.experts_per_token if layer.moe else 1 for layer in config.layers)
    return ExchangeSize(
        max_tokens=max_tokens,
        partial_rows=max_tokens * pairs,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        dtype=blueprint.dtype,
    )
