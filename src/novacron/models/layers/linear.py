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
from torch.nn import functional as F

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
        self.weight = nn.Parameter(torch.empty(sum(self.sizes), in_size), requires_grad=False)
        self.bias = (
            nn.Parameter(torch.empty(sum(self.sizes)), requires_grad=False) if bias else None
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        first = 0
        for part in self.parts:
            target = slice(first, first := first + part.share)
            name = f"{prefix}.{part.name}"
            shape = (part.num_rows, self.weight.shape[1])
            index = (part.rows, slice(None))
            yield WeightSlot(f"{name}.weight", self.weight.data[target], shape, index)
            if self.bias is not None:
                yield WeightSlot(f"{name}.bias", self.bias.data[target], shape[:1], index[:1])


class RowLinear(nn.Module):
    """A matrix whose inputs are spread over ranks. With `reduce` off, outputs stay partial sums."""

    def __init__(
        self,
        in_size: int,
        out_size: int,
        group: ParallelGroup,
        communicator: Communicator,
        *,
        bias: bool = False,
        reduce: bool = True,
    ) -> None:
        super().__init__()
        assert reduce or not bias
        self.shape = (out_size, in_size)
        self.columns = group.slice_of(in_size)
        self.all_reduce = communicator.all_reduce if reduce and group.size > 1 else None
        share = group.share_of(in_size)
        self.weight = nn.Parameter(torch.empty(out_size, share), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_size), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.all_reduce is None:
            return F.linear(x, self.weight, self.bias)
        out = self.all_reduce(F.linear(x, self.weight))
        return out if self.bias is None else out + self.bias

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        index = (slice(None), self.columns)
        yield WeightSlot(f"{prefix}.weight", self.weight.data, self.shape, index)
        if self.bias is not None:
            yield WeightSlot(f"{prefix}.bias", self.bias.data, self.shape[:1], index[:1])
