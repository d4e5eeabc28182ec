"""ParallelDims: how the ranks of a replica are counted, as stages of slices. Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.parallel.groups import ParallelGroup


@dataclass(frozen=True)
class ParallelDims:
    """`pipeline` stages, each of which holds some of the layers, by `tensor` ranks, each of which
    holds a slice of every one of them. Ranks of a stage stand next to each other."""

    tensor: int = 1
    pipeline: int = 1

    def __post_init__(self) -> None:
        assert self.tensor >= 1
        assert self.pipeline >= 1

    @property
    def num_ranks(self) -> int:
        return self.tensor * self.pipeline

    def stage_of(self, rank: int) -> int:
        assert 0 <= rank < self.num_ranks
        return rank // self.tensor

    def group_of(self, rank: int) -> ParallelGroup:
        """Its place among the ranks of its stage."""
        return ParallelGroup(rank % self.tensor, self.tensor)

    def ranks_of(self, stage: int) -> range:
        return range(stage * self.tensor, (stage + 1) * self.tensor)

    @property
    def num_hosts(self) -> int:
        """Where ranks are on several hosts: a stage on each, or, of a single one, a slice."""
        return self.tensor if self.pipeline == 1 else self.pipeline

    @property
    def ranks_each(self) -> int:
        """On each of these hosts."""
        return self.num_ranks // self.num_hosts

    def rank_of_host(self, host: int) -> int:
        """Which speaks for its host."""
        return host * self.ranks_each

    def leads(self, rank: int) -> bool:
        """Whether the rank speaks for its stage: all of them have the same hidden states."""
        return self.group_of(rank).rank == 0


ALONE = ParallelDims()
