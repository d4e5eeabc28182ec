"""Blocks of the KV cache in plain torch: into their format, and back. The reference of csrc.

A block is [token][data], then [token][scale] in bfloat16, as bytes. int4 packs dimensions d and
d + 16 of each 32 into a byte.

Shapes: K kv heads, B blocks, X bytes of a block, S tokens of a block, T tokens of the step, H head
dim, P padded head dim, G scales of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from novacron.kernels.kv_format import KVFormat

_PLAIN = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LIMITS = {"int8": 127.0, "fp8": 448.0, "int4": 7.0}
_HALF_INT4_GROUP = 16


def write_kv(
    stored_KBX: Tensor, kind: KVFormat, block_size: int, slots_T: Tensor, new_TKH: Tensor
) -> None:
    """Put a step's keys, or values, at their slots: block * block size + offset."""
    head_dim = new_TKH.shape[-1]
    new_KTH = new_TKH.transpose(0, 1)
    blocks, offsets = slots_T // block_size, slots_T % block_size
    if not kind.is_scaled:
        stored_KBSH = _split(stored_KBX.view(_PLAIN[kind.dtype]), block_size, head_dim)
        stored_KBSH[:, blocks, offsets] = new_KTH.to(stored_KBSH.dtype)
        return
    data, scales = _parts(stored_KBX, kind, block_size, head_dim)
    data_KTX, scales_KTG = _encode(new_KTH, kind)
    data[:, blocks, offsets] = data_KTX
    scales[:, blocks, offsets] = scales_KTG.contiguous().view(torch.uint8)


def read_kv(
    stored_KBX: Tensor, kind: KVFormat, block_size: int, blocks: Tensor, head_dim: int
) -> Tensor:
    """The tokens of these blocks in order, [K, T, H]; scaled formats in float32."""
    found = stored_KBX.index_select(1, blocks)
    num_heads = found.shape[0]
    if not kind.is_scaled:
        return found.view(_PLAIN[kind.dtype]).view(num_heads, -1, head_dim)
    data, scales = _parts(found, kind, block_size, head_dim)
    values = _decode(data, scales.contiguous().view(torch.bfloat16), kind, head_dim)
    return values.reshape(num_heads, -1, head_dim)


def as_stored(new_TKH: Tensor, kind: KVFormat) -> Tensor:
    """What comes back of keys, or values, that are written and read."""
    if not kind.is_scaled:
        return new_TKH.to(_PLAIN[kind.dtype]).to(new_TKH.dtype)
    data, scales = _encode(new_TKH, kind)
    return _decode(data, scales, kind, new_TKH.shape[-1]).to(new_TKH.dtype)


def _parts(
    blocks_KBX: Tensor, kind: KVFormat, block_size: int, head_dim: int
) -> tuple[Tensor, Tensor]:
    """Views of the data and of the scales as bytes, both [K, B, S, bytes of a token]."""
    num_scales = kind.padded_dims(head_dim) // kind.group_size(head_dim)
    of_data = kind.token_bytes(head_dim) - 2 * num_scales
    end = block_size * of_data
    data = _split(blocks_KBX[..., :end], block_size, of_data)
    scales = blocks_KBX[..., end : end + block_size * 2 * num_scales]
    return data, _split(scales, block_size, 2 * num_scales)


def _encode(values: Tensor, kind: KVFormat) -> tuple[Tensor, Tensor]:
    """[..., H] as bytes, and its scales [..., G]. What is not finite makes its scale so."""
    head_dim = values.shape[-1]
    padding = kind.padded_dims(head_dim) - head_dim
    padded = torch.nn.functional.pad(values.float(), (0, padding))
    grouped = _split(padded, -1, kind.group_size(head_dim))
    limit = _LIMITS[kind.dtype]
    scales = (grouped.abs().amax(-1) / limit).bfloat16()
    divisors = torch.where(scales > 2.0**-100, scales.float(), torch.inf).unsqueeze(-1)
    scaled = (grouped / divisors).nan_to_num_(0.0).clamp_(-limit, limit).flatten(-2)
    if kind.dtype == "fp8":
        return scaled.to(torch.float8_e4m3fn).view(torch.uint8), scales
    codes = scaled.round_().to(torch.int8)
    if kind.dtype == "int8":
        return codes.view(torch.uint8), scales
    low, high = _split((codes + 8).to(torch.uint8), -1, 2, _HALF_INT4_GROUP).unbind(-2)
    return (low | high << 4).flatten(-2), scales


def _decode(data: Tensor, scales: Tensor, kind: KVFormat, head_dim: int) -> Tensor:
    """The inverse: [..., H] in float32."""
    if kind.dtype == "fp8":
        values = data.contiguous().view(torch.float8_e4m3fn).float()
    elif kind.dtype == "int8":
        values = data.view(torch.int8).float()
    else:
        halves = _split(data, -1, _HALF_INT4_GROUP)
        values = (torch.stack((halves & 15, halves >> 4), -2).flatten(-3).float()) - 8.0
    grouped = _split(values, -1, kind.group_size(head_dim))
    return (grouped * scales.float().unsqueeze(-1)).flatten(-2)[..., :head_dim]


def _split(x: Tensor, *sizes: int) -> Tensor:
    """A view with the last dimension divided."""
    return x.view(*x.shape[:-1], *sizes)
