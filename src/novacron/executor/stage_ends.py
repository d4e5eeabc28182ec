"""Where a rank takes steps over from the stage before, and hands them on to the next one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from novacron.executor.stage_memory import StageMemory
from novacron.models.decoder import Decoder
from novacron.parallel.dims import ParallelDims
from novacron.parallel.handover import Receiver, Sender
from novacron.parallel.stages import Stage
from novacron.parallel.traffic import RankTraffic
from novacron.runner.input_batch import InputBatch
from novacron.runner.stage_step import logits_of


@dataclass
class Pipes:
    """Descriptors of one rank."""

    entry: int | None = None
    exits: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, descriptors: Sequence[int], num_exits: int) -> Pipes:
        """Those that `all` gave, on the way to another process."""
        entry = descriptors[num_exits:]
        return cls(entry[0] if entry else None, list(descriptors[:num_exits]))

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.exits, *(() if self.entry is None else (self.entry,)))

    def close(self) -> None:
        """Harmless when called again."""
        for descriptor in self.all:
            os.close(descriptor)
        self.entry = None
        self.exits.clear()


def lay_pipes(dims: ParallelDims) -> list[Pipes]:
    """For each rank. Whoever speaks for a stage has one to each rank of the next; whoever speaks
    for the last, one to rank 0, which tells its neighbours itself."""
    ranks = [Pipes() for _ in range(dims.num_ranks)]
    if dims.pipeline == 1:
        return ranks
    for stage in range(dims.pipeline):
        is_last = stage == dims.pipeline - 1
        for receiver in (0,) if is_last else dims.ranks_of(stage + 1):
            reading, writing = os.pipe()
            ranks[receiver].entry = reading
            ranks[dims.ranks_of(stage)[0]].exits.append(writing)
    return ranks


class StageEnds:
    """Those of a rank beside rank 0. What the first stage has been given is tokens: its ranks have
    no entry; nor has who does not speak for its stage exits. To be laid before a step comes."""

    def __init__(
        self, memory: StageMemory, stage: Stage, *, speaks: bool, traffic: RankTraffic
    ) -> None:
        self._memory, self._stage = memory, stage
        rings = memory.rings_SKTD
        self._pipes = Pipes()
        self.entry = None if stage.is_first else Receiver(rings[stage.index - 1], traffic=traffic)
        self.exits = Sender(rings[stage.index], traffic=traffic) if speaks else None

    def lay(self, pipes: Pipes) -> None:
        """Use these from now on, and close those before."""
        self.close()
        self._pipes = pipes
        if self.entry is not None:
            assert pipes.entry is not None
            self.entry.use(pipes.entry)
        if self.exits is not None:
            self.exits.use(pipes.exits)

    def close(self) -> None:
        """Let whoever waits for this rank learn that nothing comes. Harmless when called again."""
        self._pipes.close()

    def logits(self, decoder: Decoder, batch: InputBatch) -> Callable[[Sequence[int]], Tensor]:
        """Only of the first stage."""
        if not self._stage.is_first:
            return _nobody_asks
        return logits_of(decoder, self._memory.rings_SKTD[-1], batch.max_num_tokens)


def _nobody_asks(rows: Sequence[int]) -> Tensor:
    raise AssertionError("logits are the first stage's")
