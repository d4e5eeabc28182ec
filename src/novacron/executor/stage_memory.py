"""What the ranks of a pipeline share: KV blocks, the tensors of each step in flight, the hidden
states that stages hand on, and what the kernels of a stage's ranks exchange."""

from __future__ import annotations

from pathlib import Path

import torch

from novacron.config.cache import CacheConfig
from novacron.config.scheduler import SchedulerConfig
from novacron.executor.blueprint import Blueprint
from novacron.executor.rank_memory import GlooLink, exchange_size
from novacron.kernels.kv_format import choose_kv_formats
from novacron.kernels.ranks import Met, RankLink
from novacron.parallel.communicator import LocalCommunicator
from novacron.parallel.gloo import GlooCommunicator
from novacron.parallel.shared_memory import Piece, SharedMemory
from novacron.parallel.traffic import COUNTERS, RankTraffic
from novacron.runner.kv_tensors import shape_of_blocks
from novacron.runner.step_arrays import StepArrays


class StageMemory:
    """The memory of all ranks of a pipeline, mapped into this process. Each of them names the same
    sizes. Without a `descriptor`, new memory.

    `steps` are the arrays of each step that may be in flight, and `rings_SKTD` where each stage
    leaves the hidden states of these. Of `kv_blocks`, a stage touches its layers alone. `traffic`
    is what each rank counts.
    """

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
        dims, max_tokens = blueprint.dims, scheduler.max_num_batched_tokens
        shapes = StepArrays.shapes(
            max_num_seqs=scheduler.max_num_seqs,
            max_num_tokens=max_tokens,
            max_model_len=max_model_len,
            block_size=cache.block_size,
        )
        blocks = shape_of_blocks(
            blueprint.config,
            choose_kv_formats(cache, len(blueprint.config.layers), blueprint.kv_precision),
            num_blocks=num_blocks,
            block_size=cache.block_size,
        )
        steps, stages = range(blueprint.steps_in_flight), range(dims.pipeline)
        rings = (dims.pipeline, len(steps), max_tokens, blueprint.config.hidden_size)
        pieces = {
            "kv_blocks": Piece(blocks, torch.uint8),
            "rings": Piece(rings, blueprint.dtype),
            "traffic": Piece((dims.num_ranks, COUNTERS), torch.int64),
        }
        pieces |= {name: Piece((len(steps), *shape), torch.int64) for name, shape in shapes.items()}
        kernels = blueprint.kernels.ranks
        self._exchanged: list[str] = []
        if kernels is not None and dims.tensor > 1:
            exchanged = kernels.memory(exchange_size(blueprint, max_tokens), dims.tensor)
            self._exchanged = list(exchanged)
            pieces |= {
                f"{name} {stage}": Piece(*piece)
                for stage in stages
                for name, piece in exchanged.items()
            }
        self.shared = SharedMemory(pieces, descriptor)
        tensors = self.shared.tensors
        self.kv_blocks, self.rings_SKTD = tensors["kv_blocks"], tensors["rings"]
        self.traffic = tuple(RankTraffic(row) for row in tensors["traffic"].numpy())
        self.steps = tuple(
            StepArrays(**{name: tensors[name][step].numpy() for name in shapes}) for step in steps
        )

    def join(self, patience_s: float) -> RankLink:
        """The way to the other ranks of the stage, once they have begun (RankBond.begin_anew).
        `patience_s`: how long another may be late."""
        group, kernels = self._blueprint.group, self._blueprint.kernels.ranks
        if group.size == 1:
            return _NoLink()
        if kernels is None:
            return _GlooStage(
                GlooCommunicator(Path(), group.rank, group.size, patience_s=patience_s),
                self._blueprint.stage.index,
            )
        stage = self._blueprint.stage.index
        own = {name: self.shared.tensors[f"{name} {stage}"] for name in self._exchanged}
        return kernels.join(group.rank, group.size, own, patience_s)


class _NoLink:
    """Implements RankLink of a rank that is its stage."""

    loss = None
    late_rank = None

    def __init__(self) -> None:
        self.communicator = LocalCommunicator()

    def met(self, rank: int) -> Met:
        return Met()

    def give_up(self) -> None:
        pass

    def begin_anew(self, meeting_point: Path) -> None:
        pass

    def reset(self) -> None:
        pass


class _GlooStage(GlooLink):
    """Of ranks of one stage: each stage meets at a file of its own."""

    def __init__(self, communicator: GlooCommunicator, stage: int) -> None:
        super().__init__(communicator)
        self._stage = stage

    def begin_anew(self, meeting_point: Path) -> None:
        super().begin_anew(meeting_point.with_name(f"{meeting_point.name}-{self._stage}"))
