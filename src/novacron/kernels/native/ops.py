"""Element-wise operations of the native kernels, with the contracts of torch_ops.

Shapes: T tokens, N heads, H head dim, P positions, F pairs of dimensions that turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from novacron.kernels.native.library import (
    ACTIVATIONS,
    DATA_TYPES,
    SCALE,
    SOFTCAP,
    GatedCall,
    MapCall,
    NativeContext,
    NormCall,
    RotateCall,
)


@dataclass(frozen=True)
class NativeRMSNorm:
    context: NativeContext

    def __call__(
        self, x: Tensor, weight: Tensor, eps: float, add_to: Tensor | None = None
    ) -> Tensor:
        """Of [T, size] or [T, N, size], whose last dimension has no gaps."""
        assert x.stride(-1) == 1
        stream = self.context.stream
        out = stream.empty(x.shape, x.dtype) if add_to is None else add_to
        assert out.is_contiguous()
        stream.submit(
            NormCall(
                x.data_ptr(), weight.data_ptr(), None if add_to is None else out.data_ptr(),
                out.data_ptr(),
                x.shape[0], x.shape[1] if x.dim() == 3 else 1, x.shape[-1],
                x.stride(0), x.stride(1) if x.dim() == 3 else 0,
                eps, DATA_TYPES[x.dtype], DATA_TYPES[weight.dtype],
            )
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class NativeRotation:
    """Turns by the angles of a step's positions, which lie in tables of all positions."""

    context: NativeContext
    positions_T: Tensor
    cos_PF: Tensor
    sin_PF: Tensor

    def __call__(self, x_TNH: Tensor) -> Tensor:
        cos, sin, positions = self.cos_PF, self.sin_PF, self.positions_T
        assert x_TNH.stride(-1) == 1
        assert cos.dtype == sin.dtype == x_TNH.dtype
        assert all(tensor.is_contiguous() for tensor in (cos, sin, positions))
        stream = self.context.stream
        out = stream.empty(x_TNH.shape, x_TNH.dtype)
        stream.submit(
            RotateCall(
                x_TNH.data_ptr(), cos.data_ptr(), sin.data_ptr(), positions.data_ptr(),
                out.data_ptr(),
                *x_TNH.shape, 2 * cos.shape[-1], x_TNH.stride(0), x_TNH.stride(1),
                DATA_TYPES[x_TNH.dtype],
            )
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class NativeGated:
    """activation(gate) * up, of [T, 2 * size] holding gate and up side by side."""

    context: NativeContext
    activation: str

    def __call__(self, gate_up: Tensor) -> Tensor:
        assert gate_up.stride(-1) == 1
        size = gate_up.shape[1] // 2
        stream = self.context.stream
        out = stream.empty((gate_up.shape[0], size), gate_up.dtype)
        stream.submit(
            GatedCall(
                gate_up.data_ptr(), out.data_ptr(), gate_up.shape[0], size, gate_up.stride(0),
                DATA_TYPES[gate_up.dtype], ACTIVATIONS[self.activation],
            )
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class _NativeMap:
    context: NativeContext
    function: int

    def __call__(self, x: Tensor, operand: float) -> Tensor:
        assert (x.dim(), x.stride(1)) == (2, 1)
        self.context.stream.submit(
            MapCall(
                x.data_ptr(), *x.shape, x.stride(0), operand, DATA_TYPES[x.dtype], self.function
            )
        )
        return x


def native_scale(context: NativeContext) -> _NativeMap:
    return _NativeMap(context, SCALE)


def native_softcap(context: NativeContext) -> _NativeMap:
    return _NativeMap(context, SOFTCAP)
