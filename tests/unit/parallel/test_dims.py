from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacron.parallel.dims import ParallelDims

dims = st.builds(ParallelDims, st.sampled_from([1, 2, 4]), st.integers(1, 6), st.integers(1, 3))


@given(dims)
def test_every_rank_has_one_place(dims: ParallelDims) -> None:
    places = [
        (dims.stage_of(rank), dims.rows_of(rank).rank, dims.group_of(rank).rank)
        for rank in range(dims.num_ranks)
    ]
    assert places == [
        (stage, rows, slice_)
        for stage in range(dims.pipeline)
        for rows in range(dims.context)
        for slice_ in range(dims.tensor)
    ]


@given(dims)
def test_stages_have_their_ranks_and_one_that_leads(dims: ParallelDims) -> None:
    for stage in range(dims.pipeline):
        ranks = dims.ranks_of(stage)
        assert all(dims.stage_of(rank) == stage for rank in ranks)
        assert [rank for rank in ranks if dims.leads(rank)] == [ranks[0]]
        assert {dims.group_of(rank).size for rank in ranks} == {dims.tensor}
        assert {dims.rows_of(rank).size for rank in ranks} == {dims.context}
