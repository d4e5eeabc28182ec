from __future__ import annotations

import pytest

from novacron.models.layers.attention import local_kv_heads, num_local_kv_heads
from novacron.parallel.groups import ParallelGroup


@pytest.mark.parametrize(("num_kv_heads", "size"), [(8, 1), (8, 2), (8, 8), (2, 8), (1, 4)])
def test_each_rank_holds_the_heads_that_its_queries_read(num_kv_heads: int, size: int) -> None:
    num_heads = 16
    for rank in range(size):
        group = ParallelGroup(rank, size)
        queries = range(num_heads)[group.slice_of(num_heads)]
        read = {query * num_kv_heads // num_heads for query in queries}
        held = range(num_kv_heads)[local_kv_heads(num_kv_heads, group)]
        assert read == set(held)
        assert len(held) == num_local_kv_heads(num_kv_heads, group)


def test_heads_that_cannot_be_spread() -> None:
    with pytest.raises(ValueError, match="3 key-value heads cannot be spread over 4 ranks"):
        local_kv_heads(3, ParallelGroup(0, 4))
