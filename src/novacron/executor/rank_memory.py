"""What the ranks of a host share: the tensors of a step, and what they exchange."""

from __future__ import annotations

from pathlib import Path

import torch

from novacron.config.engine import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.kernels.ranks import ExchangeSize, RankLink
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.gloo import GlooCommunicator
from novacron.parallel.shared_memory import Piece, SharedMemory
from novacron.runner.step_arrays import StepArrays

PATIENCE_S = 30.0


class RankMemory:
    """The memory of the ranks of `blueprint`, mapped into this process. Each of them names the same
    sizes. Without a `descriptor`, new memory.

    `steps` are the arrays of each step that may be in flight, and `rings_SKTD` where
    each stage of a pipeline leaves the hidden states of these.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        scheduler: SchedulerConfig,
        *,
        block_size: int,
        max_model_len: int,
        descriptor: int | None = None,
    ) -> None:
        self._blueprint = blueprint
        dims, max_tokens = blueprint.dims, scheduler.max_num_batched_tokens
        num_steps = blueprint.steps_in_flight
        shapes = StepArrays.shapes(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=max_tokens,
            max_model_len=max_model_len,
            block_size=block_size,
        )
        pieces = {name: Piece((num_steps, *shape), torch.int64) for name, shape in shapes.items()}
        ring = Piece((num_steps, max_tokens, blueprint.config.hidden_size), blueprint.dtype)
        rings = [f"ring-{stage}" for stage in range(dims.pipeline) if dims.pipeline > 1]
        pieces |= dict.fromkeys(rings, ring)
        kernels = blueprint.kernels.ranks
        if kernels is not None and dims.tensor > 1:
            exchanged = kernels.memory(_exchange_size(blueprint, max_tokens), dims.tensor)
            pieces |= {
                f"{name} {stage}": Piece(*piece)
                for stage in range(dims.pipeline)
                for name, piece in exchanged.items()
            }
        self.shared = SharedMemory(pieces, descriptor)
        tensors = self.shared.tensors
        self.steps = tuple(
            StepArrays(**{name: tensors[name][step].numpy() for name in shapes})
            for step in range(num_steps)
        )
        self.rings_SKTD = tuple(tensors[name] for name in rings)

    def join(self, meeting_point: Path) -> RankLink:
        """The way to the other ranks of the stage. `meeting_point` is a file that is not there yet,
        for those whose kernels have no way of their own; they wait for each other here."""
        group, kernels = self._blueprint.group, self._blueprint.kernels.ranks
        stage = self._blueprint.stage.index
        if group.size == 1:
            return _NoLink()
        if kernels is not None:
            suffix = f" {stage}"
            own = {
                name.removesuffix(suffix): tensor
                for name, tensor in self.shared.tensors.items()
                if name.endswith(suffix)
            }
            return kernels.join(group.rank, group.size, own)
        meeting_point = meeting_point.with_name(f"{meeting_point.name}-{stage}")
        return _GlooLink(
            GlooCommunicator(meeting_point, group.rank, group.size, patience_s=PATIENCE_S)
        )


class _NoLink:
    """Implements RankLink, of a rank that has its stage for itself."""

    loss = None

    def __init__(self) -> None:
        self.communicator = LocalCommunicator()

    def give_up(self) -> None:
        pass


class _GlooLink:
    """Implements RankLink. Who waits for a rank that is gone gets an exception from Gloo."""

    loss = None

    def __init__(self, communicator: GlooCommunicator) -> None:
        self.communicator = communicator

    def give_up(self) -> None:
        pass


def _exchange_size(blueprint: Blueprint, max_tokens: int) -> ExchangeSize:
    config = blueprint.config
    pairs = max(layer.moe.experts_per_token if layer.moe else 1 for layer in config.layers)
    return ExchangeSize(
        max_tokens=max_tokens,
        partial_rows=max_tokens * pairs,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        dtype=blueprint.dtype,
    )
