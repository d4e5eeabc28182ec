"""A weight matrix: first a tensor to be filled, then what the kernels multiply with."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from novacron.kernels.linear import Linear, Packed, Quantization, Rounded, Table, TorchLinear
from novacron.kernels.pages import empty_pages
from novacron.kernels.table import Kernels

Role = Literal["layer", "router", "output", "lookup"]


class Matrix(nn.Module):
    """Holds a weight of out_size x in_size.

    `product` multiplies with it, and `table` looks up its rows: with the tensor until `finish` is
    called, then with what the kernels made of it. `quantization` says how that is rounded, `names`
    which matrices of a Llama checkpoint it is made of; the decoder sets both. The whole has `parts`
    times as many inputs, on as many ranks.
    """

    product: Linear
    table: Table

    def __init__(
        self, out_size: int, in_size: int, role: Role = "layer", *, parts: int = 1
    ) -> None:
        super().__init__()
        self.role = role
        self.parts = parts
        self.quantization: Quantization | None = None
        self.names: tuple[str, ...] = ()
        self.shape = (out_size, in_size)
        self.weight = nn.Parameter(_empty(self.shape), requires_grad=False)
        self.dtype = self.weight.dtype
        self.product = self.table = TorchLinear(self.weight)

    def final_bytes(self, kernels: Kernels) -> int:
        """What it takes when it is finished."""
        if self._is_kept_as_it_is:
            return self.shape[0] * self.shape[1] * self.dtype.itemsize
        return kernels.weight_bytes(self.shape, self.dtype, self.quantization)

    def finish(self, kernels: Kernels) -> None:
        """To be called once, when the weight is filled. If the kernels make something else of the
        weight, the tensor's memory is given back, and it is empty afterwards."""
        if self._is_kept_as_it_is:
            self.table = kernels.lookup(self.weight.data)
            return
        self.product = self.table = kernels.linear(self.weight.data, self.quantization)
        if not isinstance(self.product, TorchLinear):
            self.weight.data = self.weight.data[:0].clone()

    def finish_rounded(self, kernels: Kernels, rounded: Rounded) -> None:
        """Instead of `finish`, with what the weight is rounded to; it need not be filled."""
        assert self.quantization is not None
        product = kernels.linear_of_rounded(self.weight.data, self.quantization, rounded)
        self.product = self.table = product
        self.weight.data = self.weight.data[:0].clone()

    @property
    def packed(self) -> Tensor | None:
        """What a finished one holds, [bytes], if it can be finished with that again."""
        if self._is_kept_as_it_is:
            return self.weight.data.flatten().view(torch.uint8)
        return self.product.packed if isinstance(self.product, Packed) else None

    def finish_with(self, kernels: Kernels, packed: Tensor) -> None:
        """Instead of `finish`, with what another one held that was made of the same weight."""
        if self._is_kept_as_it_is:
            self.weight.data = packed.view(self.dtype).view(self.shape)
            self.table = kernels.lookup(self.weight.data)
            return
        assert kernels.linear_of_packed is not None
        product = kernels.linear_of_packed(self.weight.data, self.quantization, packed)
        self.product = self.table = product
        self.weight.data = self.weight.data[:0].clone()

    @property
    def _is_kept_as_it_is(self) -> bool:
        return self.role == "lookup" and self.quantization is None


def matrices_of(module: nn.Module) -> list[Matrix]:
    return [part for part in module.modules() if isinstance(part, Matrix)]


def weight_bytes(module: nn.Module, kernels: Kernels) -> int:
    """What all weights of a module take when its matrices are finished."""
    unfinished = sum(parameter.nbytes for parameter in module.parameters())
    return unfinished + sum(
        matrix.final_bytes(kernels) - matrix.weight.nbytes for matrix in matrices_of(module)
    )


def _empty(shape: tuple[int, int]) -> Tensor:
    """In the default precision, on the default device."""
    if torch.get_default_device().type == "cpu":
        return empty_pages(shape, torch.get_default_dtype())
    return torch.empty(shape)
