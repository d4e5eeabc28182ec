"""A weight matrix packed for the native kernels.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

from ctypes import byref

import torch
from torch import Tensor

from novacron.kernels.native.library import DATA_TYPES, LinearCall, NativeContext

_ALIGNMENT_BYTES = 64
_SEGMENTS = 4  # of the inputs, each summed for itself: what up to four ranks can share exactly


class NativeLinear:
    """Packs a copy of `weight_OI`, in its own precision (float32 or bfloat16)."""

    def __init__(self, context: NativeContext, weight_OI: Tensor) -> None:
        self._context = context
        self._multiply = context.library.novacron_linear
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
            out = x.new_empty((rows, self.shape[0]), dtype=out_dtype)
            call.residual = None
        else:
            assert (add_to.dtype, add_to.stride(1)) == (x.dtype, 1)
            out = add_to
            call.residual, call.residual_stride = out.data_ptr(), out.stride(0)
        call.bias = None if bias is None else bias.data_ptr()
        call.x, call.rows, call.x_stride = x.data_ptr(), rows, x.stride(0)
        call.out, call.out_stride = out.data_ptr(), out.stride(0)
        call.out_type = DATA_TYPES[out.dtype]
        self._multiply(self._context.pointer, byref(call))
        return out

    def rows(self, indices: Tensor) -> Tensor:
        indices = indices.contiguous()
        out = torch.empty((*indices.shape, self.shape[1]), dtype=self._dtype)
        self._context.library.novacron_gather(
            self._context.pointer,
            self._type,
            self._packed.data_ptr(),
            self.shape[1],
            indices.data_ptr(),
            indices.numel(),
            out.data_ptr(),
        )
        return out


def _aligned(num_bytes: int) -> Tensor:
    memory = torch.empty(num_bytes + _ALIGNMENT_BYTES, dtype=torch.uint8)
    first = -memory.data_ptr() % _ALIGNMENT_BYTES
    return memory[first : first + num_bytes]
