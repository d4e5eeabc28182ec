"""The gated feed-forward network of a layer (GLU variants, 2002.05202)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from novacron.kernels.table import Kernels
from novacron.kernels.torch_ops import Activation
from novacron.models.layers.linear import Columns, FusedColumnLinear, RowLinear
from novacron.models.weight_slots import WeightSlot
from novacron.parallel.communicator import Communicator
from novacron.parallel.groups import ParallelGroup


class FeedForward(nn.Module):
    """down(activation(gate(x)) * up(x)). Given `add_to`, adds to that tensor in place."""

    def __init__(
        self,
        hidden_size: int,
        ffn_size: int,
        activation: Activation,
        group: ParallelGroup,
        communicator: Communicator,
        kernels: Kernels,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        rows = group.slice_of(ffn_size)
        self.activate_and_mul = kernels.activate_and_mul[activation]
        self.gate_up_proj = FusedColumnLinear(
            hidden_size,
            [Columns("gate_proj", ffn_size, rows), Columns("up_proj", ffn_size, rows)],
            bias=bias,
        )
        self.down_proj = RowLinear(ffn_size, hidden_size, group, communicator, bias=bias)

    def forward(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        out: Tensor = self.down_proj(self.activate_and_mul(self.gate_up_proj(x)), add_to)
        return out

    def weight_slots(self, prefix: str) -> Iterator[WeightSlot]:
        yield from self.gate_up_proj.weight_slots(prefix)
        yield from self.down_proj.weight_slots(f"{prefix}.down_proj")
