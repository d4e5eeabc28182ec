"""Element-wise operations in plain torch: the reference that native kernels are tested against.

Shapes: T tokens, N heads, H head dim, F feed-forward size; `...` any leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) * weight over the last dimension. A float32 weight asks for float32 inside."""
    if weight.dtype == x.dtype:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)


def rotate(x_TNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + half]) by the angle of its position.

    `sin_T1H` carries a minus sign in its first half. Dimensions past those of `cos_T1H` stay.
    """
    rotary_dim = cos_T1H.shape[-1]
    if rotary_dim == x_TNH.shape[-1]:
        return torch.addcmul(x_TNH * cos_T1H, x_TNH.roll(rotary_dim // 2, -1), sin_T1H)
    head, rest = x_TNH[..., :rotary_dim], x_TNH[..., rotary_dim:]
    return torch.cat((rotate(head, cos_T1H, sin_T1H), rest), -1)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, of [..., 2F] holding gate and up side by side."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def gelu_tanh_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate).mul_(up)
