"""Weights for the native kernels: packed to be multiplied with, or as they are to be looked up in.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from novacron.kernels.native.library import (
    DATA_TYPES,
    LinearCall,
    LookupCall,
    NativeContext,
)

_ALIGNMENT_BYTES = 64
_SEGMENTS = 4  # of the inputs, each summed for itself: what up to four ranks can share exactly


class NativeLinear:
    """Packs a copy of `weight_OI`, in its own precision (float32 or bfloat16)."""

    def __init__(self, context: NativeContext, weight_OI: Tensor) -> None:
        self._context = context
        self.shape = (weight_OI.shape[0], weight_OI.shape[1])
        self._dtype = weight_OI.dtype
        self._type = DATA_TYPES[weight_OI.dtype]
        weight_OI = weight_OI.contiguous()
        num_bytes = context.library.novacron_packed_bytes(self._type, *self.shape)
        self._packed = _aligned(num_bytes)
        context.library.novacron_pack(
            context.pointer,
            self._type,
            weight_OI.data_ptr(),
            *self.shape,
            weight_OI.stride(0),
            self._packed.data_ptr(),
        )
        self._call = LinearCall(
            weights=self._packed.data_ptr(),
            outputs=self.shape[0],
            inputs=self.shape[1],
            type=self._type,
            segments=_SEGMENTS,
        )

    def __call__(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        *,
        add_to: Tensor | None = None,
        out_dtype: torch.dtype | None = None,
    ) -> Tensor:
        assert (x.dtype, x.dim(), x.shape[-1]) == (self._dtype, 2, self.shape[1])
        if x.stride(1) != 1:
            x = x.contiguous()
        call, rows = self._call, x.shape[0]
        if add_to is None:
            out = self._context.stream.empty((rows, self.shape[0]), out_dtype or x.dtype)
            call.residual = None
        else:
            assert (add_to.dtype, add_to.stride(1)) == (x.dtype, 1)
            out = add_to
            call.residual, call.residual_stride = out.data_ptr(), out.stride(0)
        call.bias = None if bias is None else bias.data_ptr()
        call.x, call.rows, call.x_stride = x.data_ptr(), rows, x.stride(0)
        call.out, call.out_stride = out.data_ptr(), out.stride(0)
        call.out_type = DATA_TYPES[out.dtype]
        self._context.stream.submit(call)
        return out

    def rows(self, indices: Tensor) -> Tensor:
        return _look_up(self._context, self._packed, self._dtype, self.shape[1], indices)


class NativeTable:
    """Only looked up in: keeps `weight_OI` as it is."""

    def __init__(self, context: NativeContext, weight_OI: Tensor) -> None:
        assert weight_OI.is_contiguous()
        self._context = context
        self._weight_OI = weight_OI

    def rows(self, indices: Tensor) -> Tensor:
        weight = self._weight_OI
        return _look_up(
            self._context, weight, weight.dtype, weight.shape[1], indices, is_packed=False
        )


def _look_up(
    context: NativeContext,
    table: Tensor,
    dtype: torch.dtype,
    size: int,
    indices: Tensor,
    *,
    is_packed: bool = True,
) -> Tensor:
    assert (indices.dtype, indices.dim()) == (torch.int64, 1)
    assert indices.is_contiguous()
    out = context.stream.empty((indices.shape[0], size), dtype)
    context.stream.submit(
        LookupCall(
            table.data_ptr(), indices.data_ptr(), out.data_ptr(), indices.shape[0], size,
            DATA_TYPES[dtype], is_packed,
        )
    )  # fmt: skip
    return out


def _aligned(num_bytes: int) -> Tensor:
    memory = torch.empty(num_bytes + _ALIGNMENT_BYTES, dtype=torch.uint8)
    first = -memory.data_ptr() % _ALIGNMENT_BYTES
    return memory[first : first + num_bytes]
