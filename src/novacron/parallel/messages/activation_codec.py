"""Tensors as payloads of messages, and back: as they are, or hidden states rounded to int8.

Rounded, a row of hidden states has one scale, and its values the nearest of 255 steps of it. The
payload begins with the relative error (root of the mean square, of the worst message so far that
led here), so whoever ends a chain of hops knows what all of them together have cost.

    error float32 | scales float32, one for each row | values int8

Shapes: T rows, D values of each.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from novacron.parallel.messages.tensor_message import (
    Bytes,
    Compression,
    Dtype,
    MessageError,
    TensorHeader,
)

_DTYPES: Final = {
    torch.uint8: Dtype.BYTES,
    torch.float32: Dtype.FLOAT32,
    torch.bfloat16: Dtype.BFLOAT16,
    torch.float16: Dtype.FLOAT16,
    torch.float64: Dtype.FLOAT64,
    torch.int64: Dtype.INT64,
}
_STEPS: Final = 127.0
_ERROR_BYTES = _SCALE_BYTES = 4


class Packed(NamedTuple):
    """What a header says of a tensor, and the payload."""

    dtype: Dtype
    compression: Compression
    shape: tuple[int, ...]
    payload: bytes
    error: float  # relative; 0: none was made


def pack(x: Tensor, compression: Compression = Compression.NONE, error: float = 0.0) -> Packed:
    """`error`: of what `x` was made from. Only rows of floats, [T, D], can be compressed."""
    if compression is Compression.INT8:
        return _round(x, error)
    payload = x.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return Packed(_DTYPES[x.dtype], Compression.NONE, tuple(x.shape), payload, error)


def unpack_into(header: TensorHeader, payload: Bytes, out: Tensor) -> float:
    """Fill `out`, which is contiguous and has the shape and type that the message was announced
    with. Returns the error that the payload tells. Raises MessageError if it holds another
    tensor."""
    if header.dtype is not _DTYPES.get(out.dtype) or header.shape != tuple(out.shape):
        raise MessageError(
            f"it holds {header.dtype.name} of shape {list(header.shape)} where "
            f"{_DTYPES[out.dtype].name} of shape {list(out.shape)} was due"
        )
    if header.compression is Compression.INT8:
        return _widen(payload, out)
    if out.numel():
        target = out.view(-1).view(torch.uint8).numpy()
        target[:] = np.frombuffer(payload, np.uint8)
    return 0.0


def round_rows(x_TD: Tensor) -> Tensor:
    """The payload of a rounded tensor, as a tensor of bytes."""
    payload = bytearray(_round(x_TD, 0.0).payload)
    return torch.frombuffer(payload, dtype=torch.uint8)


def widen_rows(payload_B: Tensor, out_TD: Tensor) -> float:
    """The inverse, into `out_TD`. Returns the error that the payload tells."""
    return _widen(payload_B.numpy().tobytes(), out_TD)


def _round(x_TD: Tensor, error: float) -> Packed:
    values_TD = x_TD.detach().float()
    scales_T = values_TD.abs().amax(1, keepdim=True) / _STEPS
    steps_TD = torch.where(scales_T > 0, values_TD / scales_T, 0.0).round_()
    size = float(values_TD.square().sum())
    lost = float((steps_TD * scales_T - values_TD).square().sum())
    worst = max(error, (lost / size) ** 0.5 if size > 0 else 0.0)
    parts = (
        np.float32(worst).tobytes(),
        scales_T.contiguous().numpy().tobytes(),
        steps_TD.to(torch.int8).numpy().tobytes(),
    )
    return Packed(_DTYPES[x_TD.dtype], Compression.INT8, tuple(x_TD.shape), b"".join(parts), worst)


def _widen(payload: Bytes, out_TD: Tensor) -> float:
    rows = out_TD.shape[0]
    data = np.frombuffer(payload, np.uint8)
    split = _ERROR_BYTES + _SCALE_BYTES * rows
    scales_T = torch.from_numpy(data[_ERROR_BYTES:split].copy().view(np.float32))
    steps_TD = torch.from_numpy(data[split:].copy().view(np.int8)).view(out_TD.shape)
    out_TD.copy_(steps_TD.float() * scales_T.unsqueeze(1))
    return float(data[:_ERROR_BYTES].copy().view(np.float32)[0])
