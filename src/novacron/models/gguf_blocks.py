"""The formats in which GGUF files hold weights, and what the bytes mean.

A row of weights is cut into blocks of equal length, each stored in the same number of bytes with
scales of its own. A function here takes blocks as [N, bytes] uint8 and gives their values as
[N, values] float32, with the operations, and so the rounding, of llama.cpp's own reference.

Shapes: N blocks, S sub-blocks of a block, L values of a sub-block. A value is called q while it is
the whole number that is stored.

Source: the layouts are facts of ggml (ggml-common.h and ggml-quants.c, MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.models.gguf_bits import (
    bfloat16,
    bits,
    float16,
    float32,
    halves,
    in_bytes,
    in_runs,
    split,
)


@dataclass(frozen=True)
class BlockFormat:
    """`num_values` weights take `num_bytes`, which `dequantize` turns into float32."""

    name: str
    num_values: int
    num_bytes: int
    dequantize: Callable[[Tensor], Tensor]


def find_format(type_code: int, where: str) -> BlockFormat:
    """The format that a file calls `type_code`. Raises ModelLoadError that begins with `where`."""
    if type_code in FORMATS:
        return FORMATS[type_code]
    name = _OTHER_FORMATS.get(type_code, f"number {type_code}")
    raise ModelLoadError(
        f"{where} is of the type {name}, which is not supported. Supported: "
        f"{', '.join(known.name for known in FORMATS.values())}. Take a file of another "
        "quantization, such as Q4_K_M or Q8_0."
    )


_UNEVEN = torch.tensor(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=torch.float32
)


def _q4_0(blocks: Tensor) -> Tensor:
    """scale f16 | 16 bytes of q: value i in the low half of byte i, value 16 + i in the high one.

    value = scale * (q - 8)
    """
    scale, packed = split(blocks, 2, 16)
    return float16(scale) * (halves(packed).float() - 8)


def _q4_1(blocks: Tensor) -> Tensor:
    """scale f16 | minimum f16 | q as in Q4_0

    value = scale * q + minimum
    """
    scale, minimum, packed = split(blocks, 2, 2, 16)
    return float16(scale) * halves(packed).float() + float16(minimum)


def _q5_0(blocks: Tensor) -> Tensor:
    """scale f16 | fifth bits of q, that of value i in bit i of a u32 | the others as in Q4_0

    value = scale * (q - 16)
    """
    scale, fifth, packed = split(blocks, 2, 4, 16)
    return float16(scale) * ((halves(packed) | bits(fifth) << 4).float() - 16)


def _q5_1(blocks: Tensor) -> Tensor:
    """scale f16 | minimum f16 | q as in Q5_0

    value = scale * q + minimum
    """
    scale, minimum, fifth, packed = split(blocks, 2, 2, 4, 16)
    q = halves(packed) | bits(fifth) << 4
    return float16(scale) * q.float() + float16(minimum)


def _q8_0(blocks: Tensor) -> Tensor:
    """scale f16 | 32 q as i8

    value = scale * q
    """
    scale, q = split(blocks, 2, 32)
    return float16(scale) * q.view(torch.int8).float()


def _q2_k(blocks: Tensor) -> Tensor:
    """16 bytes, one for each sub-block of 16: its scale in the low half, its minimum in the high
    one | 64 bytes of q | scale of scales f16 | scale of minimums f16

    q lie in two runs of 32 bytes, 128 values each: value 32 * k + i of a run is in the bits 2k of
    its byte i. value = scales * scale * q - minimums * minimum
    """
    scales_and_minimums, packed, scales, minimums = split(blocks, 16, 64, 2, 2)
    scale_NS = float16(scales) * (scales_and_minimums & 15).float()
    minimum_NS = float16(minimums) * (scales_and_minimums >> 4).float()
    q_NSL = in_runs(packed, num_runs=2, num_bits=2).view(-1, 16, 16)
    return (scale_NS[..., None] * q_NSL.float() - minimum_NS[..., None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    """32 bytes of third bits: that of value 32 * k + i in bit k of byte i | 64 bytes of q as in
    Q2_K | 12 bytes of scales, for sub-blocks of 16 | scale of scales f16

    Of scale s the low four bits are in byte s % 8, in the half s // 8, and the high two in byte
    8 + s % 4, in the bits 2 * (s // 4). value = scales * (scale - 32) * (q - 4)
    """
    third, packed, low_and_high, scales = split(blocks, 32, 64, 12, 2)
    low, high = split(low_and_high, 8, 4)
    low_NS = torch.cat((low & 15, low >> 4), 1)
    high_NS = torch.cat([high >> shift & 3 for shift in (0, 2, 4, 6)], 1)
    scale_NS = float16(scales) * ((low_NS | high_NS << 4).float() - 32)
    third_bits = torch.cat([third >> k & 1 for k in range(8)], 1)
    q = in_runs(packed, num_runs=2, num_bits=2) | third_bits << 2
    q_NSL = (q.float() - 4).view(-1, 16, 16)
    return (scale_NS[..., None] * q_NSL).flatten(1)


def _q4_k(blocks: Tensor) -> Tensor:
    """scale of scales f16 | scale of minimums f16 | 12 bytes, see `_six_bits` | 128 bytes of q

    q lie in four runs of 32 bytes: value i of a run is in the low half of its byte i, value 32 + i
    in the high one. value = scales * scale * q - minimums * minimum, sub-blocks of 32
    """
    scales, minimums, six_bits, packed = split(blocks, 2, 2, 12, 128)
    return _scaled_by_six_bits(scales, minimums, six_bits, in_runs(packed, num_runs=4, num_bits=4))


def _q5_k(blocks: Tensor) -> Tensor:
    """As Q4_K, with 32 bytes before q: the fifth bit of value 32 * k + i in bit k of byte i."""
    scales, minimums, six_bits, fifth, packed = split(blocks, 2, 2, 12, 32, 128)
    fifth_bits = torch.cat([fifth >> k & 1 for k in range(8)], 1)
    q = in_runs(packed, num_runs=4, num_bits=4) | fifth_bits << 4
    return _scaled_by_six_bits(scales, minimums, six_bits, q)


def _q6_k(blocks: Tensor) -> Tensor:
    """128 bytes with the low four bits of q | 64 bytes with the high two | 16 scales as i8 |
    scale of scales f16

    The low bits lie in two runs of 64 bytes, the high ones in two of 32, each as in Q4_K and Q2_K.
    value = scales * scale * (q - 32), sub-blocks of 16
    """
    low, high, scale, scales = split(blocks, 128, 64, 16, 2)
    low_bits = in_runs(low, num_runs=2, num_bits=4)
    q = low_bits | in_runs(high, num_runs=2, num_bits=2) << 4
    scale_NS = float16(scales) * scale.view(torch.int8).float()
    q_NSL = (q.float() - 32).view(-1, 16, 16)
    return (scale_NS[..., None] * q_NSL).flatten(1)


def _iq4_nl(blocks: Tensor) -> Tensor:
    """scale f16 | q as in Q4_0

    value = scale * level q of sixteen that lie closer together near zero
    """
    scale, packed = split(blocks, 2, 16)
    return float16(scale) * _UNEVEN[halves(packed).long()]


def _iq4_xs(blocks: Tensor) -> Tensor:
    """scale of scales f16 | high two bits of the scales of eight sub-blocks, the first lowest, in a
    u16 | their low four bits, two in a byte, the first lower | 128 bytes of q: 16 for each
    sub-block of 32, as in Q4_0

    value = scales * (scale - 32) * level q, of the sixteen of IQ4_NL
    """
    scales, high, low, packed = split(blocks, 2, 2, 4, 128)
    low_NS = torch.stack((low & 15, low >> 4), 2).flatten(1)
    high_NS = in_bytes(high, num_bits=2)
    scale_NS = float16(scales) * ((low_NS | high_NS << 4).float() - 32)
    q_NSL = halves(packed.reshape(-1, 16)).view(-1, 8, 32)
    return (scale_NS[..., None] * _UNEVEN[q_NSL.long()]).flatten(1)


def _scaled_by_six_bits(scales: Tensor, minimums: Tensor, six_bits: Tensor, q: Tensor) -> Tensor:
    scale, minimum = _six_bits(six_bits)
    scale_NS = float16(scales) * scale.float()
    minimum_NS = float16(minimums) * minimum.float()
    q_NSL = q.float().view(-1, 8, 32)
    return (scale_NS[..., None] * q_NSL - minimum_NS[..., None]).flatten(1)


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minimums of eight sub-blocks, six bits each, in 12 bytes.

    The low six bits of bytes 0-3 are scales 0-3, those of bytes 4-7 minimums 0-3. Bytes 8-11 hold
    the low four bits of scales 4-7 and, in their high half, of minimums 4-7; the two bits that
    these still lack are on top of the bytes 0-3 and 4-7.
    """
    first, second, third = split(packed, 4, 4, 4)
    scale = torch.cat((first & 63, third & 15 | first >> 6 << 4), 1)
    minimum = torch.cat((second & 63, third >> 4 | second >> 6 << 4), 1)
    return scale, minimum


FORMATS: Mapping[int, BlockFormat] = {
    0: BlockFormat("F32", 1, 4, float32),
    1: BlockFormat("F16", 1, 2, float16),
    30: BlockFormat("BF16", 1, 2, bfloat16),
    8: BlockFormat("Q8_0", 32, 34, _q8_0),
    2: BlockFormat("Q4_0", 32, 18, _q4_0),
    3: BlockFormat("Q4_1", 32, 20, _q4_1),
    6: BlockFormat("Q5_0", 32, 22, _q5_0),
    7: BlockFormat("Q5_1", 32, 24, _q5_1),
    10: BlockFormat("Q2_K", 256, 84, _q2_k),
    11: BlockFormat("Q3_K", 256, 110, _q3_k),
    12: BlockFormat("Q4_K", 256, 144, _q4_k),
    13: BlockFormat("Q5_K", 256, 176, _q5_k),
    14: BlockFormat("Q6_K", 256, 210, _q6_k),
    20: BlockFormat("IQ4_NL", 32, 18, _iq4_nl),
    23: BlockFormat("IQ4_XS", 256, 136, _iq4_xs),
}

_OTHER_FORMATS: Mapping[int, str] = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    21: "IQ3_S", 22: "IQ2_S", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
