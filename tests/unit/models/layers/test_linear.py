from __future__ import annotations

import pytest
import torch
from torch import Tensor

from novacron.models.layers.linear import Columns, FusedColumnLinear, RowLinear
from novacron.parallel.communicator import CollectiveCommunicator, LocalCommunicator
from novacron.parallel.groups import SINGLE, ParallelGroup


class OneOfSeveral(CollectiveCommunicator):
    """Stands for the other ranks, whose partial sums add up to `others`."""

    def __init__(self, others: Tensor) -> None:
        super().__init__(rank=1)
        self.others = others

    def all_reduce(self, x: Tensor) -> Tensor:
        return x + self.others


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "m.up.weight": torch.randn(8, 12),
        "m.up.bias": torch.randn(8),
        "m.gate.weight": torch.randn(16, 12),
        "m.gate.bias": torch.randn(16),
        "m.down.weight": torch.randn(5, 12),
        "m.down.bias": torch.randn(5),
    }


def fill(layer: FusedColumnLinear | RowLinear, prefix: str, weights: dict[str, Tensor]) -> None:
    for slot in layer.weight_slots(prefix):
        assert slot.shape == weights[slot.name].shape
        slot.target.copy_(weights[slot.name][slot.index])


def columns(group: ParallelGroup) -> list[Columns]:
    return [Columns("up", 8, group.slice_of(8)), Columns("gate", 16, group.slice_of(16))]


def test_outputs_of_column_ranks_concatenate_to_the_whole(weights: dict[str, Tensor]) -> None:
    x = torch.randn(3, 12)
    ups, gates = [], []
    for rank in range(4):
        layer = FusedColumnLinear(12, columns(ParallelGroup(rank, 4)), bias=True)
        fill(layer, "m", weights)
        up, gate = layer(x).split(layer.sizes, -1)
        ups.append(up)
        gates.append(gate)
    whole = FusedColumnLinear(12, columns(SINGLE), bias=True)
    fill(whole, "m", weights)
    torch.testing.assert_close(torch.cat((*ups, *gates), -1), whole(x))
    torch.testing.assert_close(whole(x)[:, :8], x @ weights["m.up.weight"].T + weights["m.up.bias"])


def test_partial_sums_of_row_ranks_add_up(weights: dict[str, Tensor]) -> None:
    x = torch.randn(3, 12)
    group = [ParallelGroup(rank, 4) for rank in range(4)]
    partial = []
    for member in group:
        layer = RowLinear(12, 5, member, LocalCommunicator())
        fill(layer, "m.down", weights)
        partial.append(layer(x[:, member.slice_of(12)]))
    expected = x @ weights["m.down.weight"].T
    torch.testing.assert_close(sum(partial), expected)

    others = OneOfSeveral(partial[0] + partial[2] + partial[3])
    complete = RowLinear(12, 5, group[1], others, bias=True)
    fill(complete, "m.down", weights)
    found = complete(x[:, group[1].slice_of(12)])
    torch.testing.assert_close(found, expected + weights["m.down.bias"])


def test_a_size_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="12 cannot be divided over 5 ranks"):
        RowLinear(12, 5, ParallelGroup(0, 5), LocalCommunicator())
