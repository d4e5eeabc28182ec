"""Element-wise operations in plain torch: the reference that native kernels are tested against.

Shapes: T tokens, N heads, H head dim, P positions, F pairs of dimensions that turn; `...` any
leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["silu", "gelu_tanh", "gelu"]


def rms_norm(x: Tensor, weight: Tensor, eps: float, add_to: Tensor | None = None) -> Tensor:
    """x / rms(x) * weight over the last dimension, or `add_to` with that added in place.

    A float32 weight asks for float32 inside.
    """
    if weight.dtype == x.dtype:
        normed = F.rms_norm(x, weight.shape, weight, eps)
    else:
        normed = F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)
    return normed if add_to is None else add_to.add_(normed)


@dataclass(frozen=True)
class TorchRotation:
    """Turns by the angles of a step's positions, looked up once for all layers."""

    cos_T1H: Tensor
    sin_T1H: Tensor  # its first half negated

    def __call__(self, x_TNH: Tensor) -> Tensor:
        """Turn each pair (x[i], x[i + half]). Dimensions past those that turn stay."""
        rotary_dim = self.cos_T1H.shape[-1]
        head, rest = x_TNH[..., :rotary_dim], x_TNH[..., rotary_dim:]
        turned = torch.addcmul(head * self.cos_T1H, head.roll(rotary_dim // 2, -1), self.sin_T1H)
        return torch.cat((turned, rest), -1) if rest.shape[-1] else turned


def plan_rotation(positions_T: Tensor, cos_PF: Tensor, sin_PF: Tensor) -> TorchRotation:
    cos_T1F, sin_T1F = cos_PF[positions_T].unsqueeze(1), sin_PF[positions_T].unsqueeze(1)
    return TorchRotation(torch.cat((cos_T1F, cos_T1F), -1), torch.cat((-sin_T1F, sin_T1F), -1))


def scale(x: Tensor, factor: float) -> Tensor:
    """x * factor, in place."""
    return x.mul_(factor)


def softcap(x: Tensor, cap: float) -> Tensor:
    """cap * tanh(x / cap), in place."""
    return x.div_(cap).tanh_().mul_(cap)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) * up, of [..., 2 * size] holding gate and up side by side."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def gelu_tanh_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate, approximate="tanh").mul_(up)


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, -1)
    return F.gelu(gate).mul_(up)


ACTIVATE_AND_MUL: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": silu_and_mul,
    "gelu_tanh": gelu_tanh_and_mul,
    "gelu": gelu_and_mul,
}
