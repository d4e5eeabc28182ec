"""A weight matrix: first a tensor to be filled, then what the kernels multiply with."""

from __future__ import annotations

import torch
from torch import nn

from novacron.kernels.linear import Linear, Table, TorchLinear
from novacron.kernels.table import Kernels


class Matrix(nn.Module):
    """Holds a weight of out_size x in_size.

    `product` multiplies with it, and `table` looks up its rows: with the tensor until one of the
    other two is called, then with what the kernels made of it. Packing gives the tensor's memory
    back, so that it is empty afterwards.
    """

    product: Linear
    table: Table

    def __init__(self, out_size: int, in_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_size, in_size), requires_grad=False)
        self.product = self.table = TorchLinear(self.weight)

    def pack(self, kernels: Kernels) -> None:
        """To be called once, when the weight is filled."""
        self.product = self.table = kernels.linear(self.weight.data)
        self.weight.data = self.weight.data[:0].clone()

    def keep_for_lookup(self, kernels: Kernels) -> None:
        """Instead of `pack`, for a matrix that nothing is multiplied with."""
        self.table = kernels.lookup(self.weight.data)


def pack_matrices(module: nn.Module, kernels: Kernels) -> None:
    """Pack all matrices of `module`."""
    for part in module.modules():
        if isinstance(part, Matrix):
            part.pack(kernels)
