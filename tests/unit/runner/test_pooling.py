from __future__ import annotations

import pytest
import torch

from novacron.records.request import Pooling
from novacron.runner.pooling import add_to_sum, finish_embedding


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_chunks_do_not_matter(pooling: Pooling) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(10, 6)
    found = None
    for chunk in hidden.split([3, 1, 6]):
        found = add_to_sum(found, chunk if pooling == "mean" else chunk[-1:], pooling)
    assert found is not None
    direction = hidden.mean(0) if pooling == "mean" else hidden[-1]
    result = finish_embedding("r", found)
    assert result.embedding is not None
    torch.testing.assert_close(torch.tensor(result.embedding), direction / direction.norm())
    assert result.error is None


def test_sums_are_float32() -> None:
    hidden = torch.full((1000, 2), 1.01).bfloat16()
    assert torch.equal(add_to_sum(None, hidden, "mean"), hidden.float().sum(0))


def test_an_embedding_that_is_not_finite_is_an_error() -> None:
    result = finish_embedding("r", torch.tensor([1.0, torch.nan]))
    assert result.embedding is None
    assert result.error is not None
