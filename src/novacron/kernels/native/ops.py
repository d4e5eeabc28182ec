"""Element-wise operations of the native kernels, with the contracts of torch_ops.

Shapes: T tokens, N heads, H head dim, F feed-forward size; `...` any leading dimensions.
"""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass

import torch
from torch import Tensor

from novacron.kernels.native.library import (
    ACTIVATIONS,
    DATA_TYPES,
    GatedCall,
    NativeContext,
    NormCall,
    RotateCall,
)


@dataclass(frozen=True)
class NativeRMSNorm:
    context: NativeContext

    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Of [T, size] or [T, N, size], whose last dimension has no gaps."""
        out = torch.empty(x.shape, dtype=x.dtype)
        call = NormCall(
            x.data_ptr(), weight.data_ptr(), out.data_ptr(),
            x.shape[0], x.shape[1] if x.dim() == 3 else 1, x.shape[-1],
            x.stride(0), x.stride(1) if x.dim() == 3 else 0,
            eps, DATA_TYPES[x.dtype], DATA_TYPES[weight.dtype],
        )  # fmt: skip
        assert x.stride(-1) == 1
        self.context.library.novacron_rms_norm(self.context.pointer, byref(call))
        return out


@dataclass(frozen=True)
class NativeRotate:
    context: NativeContext

    def __call__(self, x_TNH: Tensor, cos_T1H: Tensor, sin_T1H: Tensor) -> Tensor:
        assert x_TNH.stride(-1) == 1
        cos, sin = cos_T1H.contiguous(), sin_T1H.contiguous()
        out = torch.empty(x_TNH.shape, dtype=x_TNH.dtype)
        call = RotateCall(
            x_TNH.data_ptr(), cos.data_ptr(), sin.data_ptr(), out.data_ptr(),
            *x_TNH.shape, cos.shape[-1], x_TNH.stride(0), x_TNH.stride(1),
            DATA_TYPES[x_TNH.dtype],
        )  # fmt: skip
        self.context.library.novacron_rotate(self.context.pointer, byref(call))
        return out


@dataclass(frozen=True)
class NativeGated:
    """activation(gate) * up, of [T, 2F] holding gate and up side by side."""

    context: NativeContext
    activation: str

    def __call__(self, gate_up: Tensor) -> Tensor:
        assert gate_up.stride(-1) == 1
        size = gate_up.shape[1] // 2
        out = torch.empty((gate_up.shape[0], size), dtype=gate_up.dtype)
        call = GatedCall(
            gate_up.data_ptr(), out.data_ptr(), gate_up.shape[0], size, gate_up.stride(0),
            DATA_TYPES[gate_up.dtype], ACTIVATIONS[self.activation],
        )  # fmt: skip
        self.context.library.novacron_gated(self.context.pointer, byref(call))
        return out
