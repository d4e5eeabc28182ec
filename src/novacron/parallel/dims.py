"""ParallelDims: how the ranks of a replica are counted, as stages of slices, or as shares of rows.
Plain arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from novacron.parallel.groups import ParallelGroup


@dataclass(frozen=True)
class ParallelDims:
    """`pipeline` stages, each of which holds some of the layers, by `context` shares of the rows of
    long steps, by `tensor` ranks, each of which holds a slice of every layer. Ranks of a stage
    stand next to each other, and among them those with the same rows."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        assert self.tensor >= 1
        assert self.pipeline >= 1
        assert self.context >= 1

    @property
    def num_ranks(self) -> int:
        return self.ranks_of_stage * self.pipeline

    @property
    def ranks_of_stage(self) -> int:
        return self.tensor * self.context

    def stage_of(self, rank: int) -> int:
        assert 0 <= rank < self.num_ranks
        return rank // self.ranks_of_stage

    def group_of(self, rank: int) -> ParallelGroup:
        """Its place among those that have slices of the same layers, for the same rows."""
        return ParallelGroup(rank % self.tensor, self.tensor)

    def rows_of(self, rank: int) -> ParallelGroup:
        """Its place among those that have the same weights, for other rows."""
        return ParallelGroup(rank // self.tensor % self.context, self.context)

    def ranks_of(self, stage: int) -> range:
        return range(stage * self.ranks_of_stage, (stage + 1) * self.ranks_of_stage)

    @property
    def num_hosts(self) -> int:
        """Where ranks are on several hosts: a stage on each, or, of a single one, a rank."""
        return self.ranks_of_stage if self.pipeline == 1 else self.pipeline

    @property
    def ranks_each(self) -> int:
        """On each of these hosts."""
        return self.num_ranks // self.num_hosts

    def ranks_of_host(self, host: int) -> range:
        return range(host * self.ranks_each, (host + 1) * self.ranks_each)

    def rank_of_host(self, host: int) -> int:
        """Which speaks for its host."""
        return self.ranks_of_host(host)[0]

    def leads(self, rank: int) -> bool:
        """Whether the rank speaks for its stage: all of them have the same hidden states."""
        return rank % self.ranks_of_stage == 0


ALONE = ParallelDims()
