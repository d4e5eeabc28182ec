"""A weight matrix: first a tensor to be filled, then what the kernels multiply with."""

from __future__ import annotations

import torch
from torch import nn

from novacron.kernels.linear import Linear, TorchLinear
from novacron.kernels.table import Kernels


class Matrix(nn.Module):
    """Holds a weight of out_size x in_size.

    `product` multiplies with it at any time: with the tensor until `pack`, then with what the
    kernels made of it. Packing gives the tensor's memory back, so that it is empty afterwards.
    """

    product: Linear

    def __init__(self, out_size: int, in_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_size, in_size), requires_grad=False)
        self.product = TorchLinear(self.weight)

    def pack(self, kernels: Kernels) -> None:
        """To be called once, when the weight is filled."""
        self.product = kernels.linear(self.weight.data)
        self.weight.data = self.weight.data[:0].clone()


def pack_matrices(module: nn.Module, kernels: Kernels) -> None:
    """Pack all matrices of `module`."""
    for part in module.modules():
        if isinstance(part, Matrix):
            part.pack(kernels)
