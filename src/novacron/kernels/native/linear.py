"""Weights for the native kernels: packed to be multiplied with, or as they are to be looked up in.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

from ctypes import byref

import torch
from torch import Tensor

from novacron.kernels.linear import Level, Quantization
from novacron.kernels.native.library import (
    DATA_TYPES,
    FLOAT8,
    INT4,
    INT8,
    LinearCall,
    LookupCall,
    NativeContext,
    PackCall,
)
from novacron.kernels.native.rounded_packing import pack_rounded
from novacron.kernels.pages import empty_pages
from novacron.kernels.torch_linear import round_in_parts

_WEIGHT_TYPES: dict[Level, int] = {"fp8": FLOAT8, "int8": INT8, "int4": INT4}
SEGMENTS = 4  # of the inputs, each summed for itself: what up to four ranks can share exactly


class NativeLinear:
    """Packs a copy of `weight_OI`, float32 or bfloat16: as it is, or rounded by `quantization`."""

    def __init__(
        self,
        context: NativeContext,
        weight_OI: Tensor,
        quantization: Quantization | None = None,
        *,
        packed: Tensor | None = None,
    ) -> None:
        """`packed` is what another one made of that very weight, which is then not looked into."""
        self._context = context
        self.shape = (weight_OI.shape[0], weight_OI.shape[1])
        self._dtype = weight_OI.dtype
        self._type = DATA_TYPES[weight_OI.dtype]
        self._weight_type, self._group = _type_and_group(self._type, quantization)
        input_group = 0 if quantization is None else quantization.input_group_size
        if input_group != self._group:
            assert self._weight_type == INT4, "the only one whose groups may share"
            assert self.shape[1] % input_group == 0, "none is cut"
        if packed is None and self._weight_type == FLOAT8:
            assert quantization is not None
            packed = pack_rounded(round_in_parts(weight_OI, quantization), quantization)
        elif packed is None:
            packed = _pack(context, weight_OI.contiguous(), self._weight_type, self._group)
        self._packed = packed
        self._call = LinearCall(
            weights=self._packed.data_ptr(),
            outputs=self.shape[0],
            inputs=self.shape[1],
            type=self._type,
            weight_type=self._weight_type,
            group=self._group,
            input_group=input_group,
            segments=SEGMENTS,
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

    def into(self, x: Tensor, out: Tensor, *, ranks: int = 1) -> None:
        """The product as `out`, [rows, O] of float32 or the weight's own type. Where the weight is
        that of one of `ranks` with a part of the inputs, its segments of the sum."""
        assert (x.dtype, x.shape[-1], x.stride(1)) == (self._dtype, self.shape[1], 1)
        assert (out.shape, out.stride(1)) == ((x.shape[0], self.shape[0]), 1)
        call = LinearCall.from_buffer_copy(self._call)
        call.bias = call.residual = None
        call.x, call.rows, call.x_stride = x.data_ptr(), x.shape[0], x.stride(0)
        call.out, call.out_stride, call.out_type = (
            out.data_ptr(), out.stride(0), DATA_TYPES[out.dtype]
        )  # fmt: skip
        call.segments = SEGMENTS // ranks
        self._context.stream.submit(call)

    def call_between_rows(self, *, ranks: int = 1) -> LinearCall:
        """The product of rows without gaps, of the weight's own type; but for x, out and rows. As
        one of several `ranks`, in float32."""
        call = LinearCall.from_buffer_copy(self._call)
        call.bias = call.residual = None
        call.x_stride, call.out_stride = self.shape[1], self.shape[0]
        call.out_type = self._type if ranks == 1 else DATA_TYPES[torch.float32]
        call.segments = SEGMENTS // ranks
        return call

    @property
    def packed(self) -> Tensor:
        """The weight as it lies in memory, [bytes]."""
        return self._packed

    def rows(self, indices: Tensor) -> Tensor:
        out = self._context.stream.empty((indices.shape[0], self.shape[1]), self._dtype)
        return self.rows_into(indices, out)

    def rows_into(self, ids: Tensor, out: Tensor, first_id: int = 0) -> Tensor:
        """Those rows of the named ones that are here, if the first here has the number
        `first_id`."""
        call = LookupCall(
            table=self._packed.data_ptr(),
            size=self.shape[1],
            first_id=first_id,
            num_ids=self.shape[0],
            weight_type=self._weight_type,
            group=self._group,
            is_packed=True,
        )
        return _look_up(self._context, call, ids, out)


class NativeTable:
    """Only looked up in: keeps `weight_OI` as it is."""

    def __init__(self, context: NativeContext, weight_OI: Tensor) -> None:
        assert weight_OI.is_contiguous()
        self._context = context
        self._weight_OI = weight_OI

    def rows(self, indices: Tensor) -> Tensor:
        weight = self._weight_OI
        out = self._context.stream.empty((indices.shape[0], weight.shape[1]), weight.dtype)
        return self.rows_into(indices, out)

    def rows_into(self, ids: Tensor, out: Tensor, first_id: int = 0) -> Tensor:
        """As that of NativeLinear."""
        weight = self._weight_OI
        call = LookupCall(
            table=weight.data_ptr(),
            size=weight.shape[1],
            first_id=first_id,
            num_ids=weight.shape[0],
            weight_type=DATA_TYPES[weight.dtype],
            is_packed=False,
        )
        return _look_up(self._context, call, ids, out)


def packed_bytes(
    context: NativeContext,
    shape: tuple[int, int],
    dtype: torch.dtype,
    quantization: Quantization | None,
) -> int:
    """What a NativeLinear of a weight of `shape` and `dtype` takes."""
    weight_type, group = _type_and_group(DATA_TYPES[dtype], quantization)
    size: int = context.library.novacron_packed_bytes(weight_type, group, *shape)
    return size


def _look_up(context: NativeContext, call: LookupCall, ids: Tensor, out: Tensor) -> Tensor:
    assert (ids.dtype, ids.dim()) == (torch.int64, 1)
    assert out.shape == (ids.shape[0], call.size)
    assert ids.is_contiguous()
    assert out.is_contiguous()
    call.ids, call.rows = ids.data_ptr(), ids.shape[0]
    call.out, call.type = out.data_ptr(), DATA_TYPES[out.dtype]
    context.stream.submit(call)
    return out


def _type_and_group(weight_type: int, quantization: Quantization | None) -> tuple[int, int]:
    if quantization is None:
        return weight_type, 0
    return _WEIGHT_TYPES[quantization.level], quantization.group_size


def _pack(context: NativeContext, weight_OI: Tensor, weight_type: int, group: int) -> Tensor:
    outputs, inputs = weight_OI.shape
    num_bytes = context.library.novacron_packed_bytes(weight_type, group, outputs, inputs)
    packed = empty_pages((num_bytes,), torch.uint8)
    call = PackCall(
        weight_OI.data_ptr(), packed.data_ptr(), outputs, inputs, weight_OI.stride(0),
        DATA_TYPES[weight_OI.dtype], weight_type, group,
    )  # fmt: skip
    context.library.novacron_pack(context.pointer, byref(call))
    return packed
