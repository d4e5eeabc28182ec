"""Matrix products split over the ranks of a ParallelGroup.

Column parallel: each rank holds some outputs; nothing to exchange. Row parallel: each rank holds
some inputs; outputs are partial sums that an all-reduce completes. The split follows Megatron-LM
(1909.08053, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from novacron.models.layers.matrix import Matrix
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


@dataclass(frozen=True)
class Columns:
    """One of the matrices fused into a column-parallel one: its name, rows and this rank's."""

    name: str
    num_rows: int
    rows: slice

    @property
    def share(self) -> int:
        return len(range(self.num_rows)[self.rows])


class FusedColumnLinear(nn.Module):
    """Several matrices with the same input, stacked so that one product computes them all."""

    def __init__(self, in_size: int, parts: Sequence[Columns], *, bias: bool) -> None:
        super().__init__()
        self.parts = tuple(parts)
        self.sizes = [part.share for part in parts]
        self.matrix = Matrix(sum(self.sizes), in_size)
        self.bias = (
            nn.Parameter(torch.empty(sum(self.sizes)), requires_grad=False) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix.product(x, self.bias)

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        first, weight = 0, self.matrix.weight.data
        for part in self.parts:
            target = slice(first, first := first + part.share)
            name = f"{prefix}.{part.name}"
            shape = (part.num_rows, weight.shape[1])
            index = (part.rows, slice(None))
            yield WeightSlot(f"{name}.weight", weight[target], shape, index, matrix=self.matrix)
            if self.bias is not None:
                yield WeightSlot(f"{name}.bias", self.bias.data[target], shape[:1], index[:1])


class RowLinear(nn.Module):
    """A matrix whose inputs are spread over ranks, and whose outputs every rank gets."""

    def __init__(
        self,
        in_size: int,
        out_size: int,
        group: ParallelGroup,
        communicator: Communicator,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.shape = (out_size, in_size)
        self.columns = group.slice_of(in_size)
        self.communicator = communicator
        self.matrix = Matrix(out_size, group.share_of(in_size), parts=group.size)
        self.bias = nn.Parameter(torch.empty(out_size), requires_grad=False) if bias else None

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """The product, or `add_to` with the product added to it in place."""
        return self.communicator.row_product(self.matrix.product, x, self.bias, add_to)

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        index = (slice(None), self.columns)
        weight = self.matrix.weight.data
        yield WeightSlot(f"{prefix}.weight", weight, self.shape, index, matrix=self.matrix)
        if self.bias is not None:
            yield WeightSlot(f"{prefix}.bias", self.bias.data, self.shape[:1], index[:1])
