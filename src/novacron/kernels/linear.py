"""Weights as matrix products want them: the operation that a kernel table makes of a tensor.

Shapes: O outputs, I inputs, `...` rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

Level = Literal["fp8", "int8", "int4"]  # of those in quantization/levels.py


@dataclass(frozen=True)
class Quantization:
    """Weights rounded to numbers of `bits`, `group_size` inputs of an output sharing a scale.

    Whole numbers, unless `is_float`. Products with whole numbers round their inputs too, to int8,
    with a scale for `sharing` neighbouring groups of a row: 1; in int4 also 2 or 4, which are at
    most 128 inputs, if each of a product's four segments has nothing but whole such spans. Those
    with floats leave inputs as they are.
    """

    bits: Literal[4, 8]
    group_size: int
    is_float: bool = False
    sharing: int = 1

    @property
    def input_group_size(self) -> int:
        """How many inputs of a row share a scale."""
        return self.group_size * self.sharing

    @property
    def level(self) -> Level:
        if self.is_float:
            return "fp8"
        return "int8" if self.bits == 8 else "int4"

    def __str__(self) -> str:
        return self.level if self.is_float else f"{self.level} in groups of {self.group_size}"


# e4m3, which has 448 as its largest number. Rounding here gives all groups of an output one scale;
# files may have one for each tile of 128 x 128, which fits, too.
FLOAT8 = Quantization(8, 128, is_float=True)


@dataclass(frozen=True, eq=False)
class Rounded:
    """A weight that is rounded as `Quantization` says: values [O, G, S] for G groups of S inputs,
    zero past the last input, and their scales [O, G]. Whole numbers are int8 with scales in
    bfloat16; floats are float8_e4m3fn with scales in float32."""

    values_OGS: Tensor
    scales_OG: Tensor


class Table(Protocol):
    """A matrix of O x I that is looked up in."""

    def rows(self, indices: Tensor) -> Tensor:
        """The named rows of the matrix, in the order of `indices`."""
        ...


class Linear(Table, Protocol):
    """A weight matrix of O x I, in whatever form suits its kernels."""

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        """x @ weight.T + bias. With `add_to`, the product is added to that tensor, in place, and
        it is returned. `out_dtype` is that of x, or float32."""
        ...


@runtime_checkable
class Packed(Protocol):
    """A Linear that can be made again of the bytes it holds."""

    @property
    def packed(self) -> Tensor:
        """[bytes]"""
        ...


@dataclass(frozen=True, eq=False)
class TorchLinear:
    """The weight as it is, multiplied by torch."""

    weight: Tensor

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        out = F.linear(x, self.weight, bias)
        if add_to is not None:
            return add_to.add_(out)
        return out if out_dtype is None else out.to(out_dtype)

    def rows(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.weight)
