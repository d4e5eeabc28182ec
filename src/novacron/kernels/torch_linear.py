"""Weights for torch's own products, rounded or not."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from novacron.kernels.float8_linear import TorchFloat8Linear, round_to_float8
from novacron.kernels.linear import Linear, Quantization, Rounded, TorchLinear
from novacron.kernels.quantized_linear import TorchQuantizedLinear, in_parts, round_weights


def torch_linear(weight_OI: Tensor, quantization: Quantization | None) -> Linear:
    if quantization is None:
        return TorchLinear(weight_OI)
    return torch_linear_of_rounded(weight_OI, quantization, None)


def torch_linear_of_rounded(
    weight_OI: Tensor, quantization: Quantization, rounded: Rounded | None
) -> Linear:
    if quantization.is_float:
        return TorchFloat8Linear(weight_OI, rounded)
    return TorchQuantizedLinear(weight_OI, quantization, rounded)


def torch_weight_bytes(
    shape: tuple[int, int], dtype: torch.dtype, quantization: Quantization | None
) -> int:
    outputs, inputs = shape
    if quantization is None:
        return outputs * inputs * dtype.itemsize
    groups = -(-inputs // quantization.group_size)
    scale_bytes = 4 if quantization.is_float else 2
    return outputs * groups * (quantization.group_size * quantization.bits // 8 + scale_bytes)


def round_in_parts(weight_OI: Tensor, quantization: Quantization) -> Rounded:
    """With memory for some rows at a time beside the result."""
    if quantization.is_float:
        return in_parts(round_to_float8, weight_OI)
    return in_parts(partial(round_weights, quantization=quantization), weight_OI)
