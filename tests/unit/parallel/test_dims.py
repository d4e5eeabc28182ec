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
def test_hosts_have_a_stage_each_or_a_rank_of_the_only_one(dims: ParallelDims) -> None:
    assert dims.num_hosts == (dims.pipeline if dims.pipeline > 1 else dims.num_ranks)
    hosts = [dims.ranks_of_host(host) for host in range(dims.num_hosts)]
    assert [rank for ranks in hosts for rank in ranks] == list(range(dims.num_ranks))
    for host, ranks in enumerate(hosts):
        assert dims.rank_of_host(host) == ranks[0]
        assert len({dims.stage_of(rank) for rank in ranks}) == 1


@given(dims)
def test_stages_have_their_ranks_and_one_that_leads(dims: ParallelDims) -> None:
    for stage in range(dims.pipeline):
        ranks = dims.ranks_of(stage)
        assert all(dims.stage_of(rank) == stage for rank in ranks)
        assert [rank for rank in ranks if dims.leads(rank)] == [ranks[0]]
        assert {dims.group_of(rank).size for rank in ranks} == {dims.tensor}
        assert {dims.rows_of(rank).size for rank in ranks} == {dims.context}
