from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacron.executor.stage_ends import lay_pipes
from novacron.parallel.dims import ParallelDims


@given(st.sampled_from([1, 2, 4]), st.integers(2, 4))
def test_every_rank_of_a_stage_hears_from_the_one_before_and_rank_0_from_the_last(
    tensor: int, pipeline: int
) -> None:
    dims = ParallelDims(tensor, pipeline)
    ranks = lay_pipes(dims)
    heard: dict[int, set[int]] = {rank: set() for rank in range(dims.num_ranks)}
    for sender, pipes in enumerate(ranks):
        for place, exit_ in enumerate(pipes.exits):
            os.write(exit_, bytes([sender]))
            assert place < tensor
        assert bool(pipes.exits) == dims.leads(sender)
    for receiver, pipes in enumerate(ranks):
        if pipes.entry is not None:
            heard[receiver] = set(os.read(pipes.entry, 100))
    for pipes in ranks:
        pipes.close()
        pipes.close()
    last = dims.ranks_of(pipeline - 1)[0]
    for rank in range(dims.num_ranks):
        stage = dims.stage_of(rank)
        expected = {dims.ranks_of(stage - 1)[0]} if stage else ({last} if rank == 0 else set())
        assert heard[rank] == expected


@pytest.mark.parametrize("tensor", [1, 2])
def test_one_stage_needs_no_pipes(tensor: int) -> None:
    assert all(not pipes.all for pipes in lay_pipes(ParallelDims(tensor)))
