"""The short floats that numpy lacks: bfloat16 and e4m3, from and to float32."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_E4M3_LARGEST: Final = 0x7E  # 448


def widen(numbers: NDArray[Any]) -> Floats:
    """float32 of float16 or float32, or of the bits of bfloat16 (uint16). A new array."""
    if numbers.dtype == np.uint16:
        bits = numbers.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    return numbers.astype(np.float32)


def to_bfloat16(numbers: Floats) -> NDArray[np.uint16]:
    """The bits, rounded to nearest, to even where two are as near. Of finite numbers."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


def to_e4m3(numbers: Floats) -> NDArray[np.uint8]:
    """The bits, rounded to nearest even; larger ones than 448 become that. Of finite numbers.

    A float's bits, once it is 2^120 times smaller, are those of e4m3 with more digits behind:
    numbers too small for a normal e4m3 included.
    """
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    sign = (bits >> 24) & 0x80
    small = ((bits & 0x7FFFFFFF).view(np.float32) * np.float32(2.0**-120)).view(np.uint32)
    rounded = (small + (((small >> 20) & 1) + 0x7FFFF)) >> 20
    codes: NDArray[np.uint8] = (np.minimum(rounded, _E4M3_LARGEST) | sign).astype(np.uint8)
    return codes


def _e4m3_values() -> Floats:
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (8 + mantissa) * 2.0 ** (exponent - 10.0)
    values = np.where(exponent == 0, mantissa * 2.0**-9, normal)
    return np.where(codes < 128, values, -values).astype(np.float32)


E4M3_VALUES: Final = _e4m3_values()  # by code; those of NaN (0x7f, 0xff) are never made
