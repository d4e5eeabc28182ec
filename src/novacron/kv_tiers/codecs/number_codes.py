"""Numbers as codes of 8 or 4 bits, multiplied by scales: the arithmetic of all levels, in numpy.

Codes are what is left of x / scale. A scale is the largest magnitude of its group over the largest
code, in bfloat16; a group whose scale is next to nothing is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from novacron.kv_tiers.codecs.floats import (
    E4M3_VALUES,
    Floats,
    to_bfloat16,
    to_e4m3,
    widen,
)

CodeName = Literal["int8", "fp8", "int4"]
Octets = NDArray[np.uint8]

_LEAST_SCALE: Final = 2.0**-100


@dataclass(frozen=True)
class NumberCode:
    """Of numbers from -limit to limit: `encode` rounds them, `decode` gives back what is left.
    The last axis becomes bytes, `bits` for each number: an even number of them with 4 bits."""

    bits: int
    limit: float
    encode: Callable[[Floats], Octets]
    decode: Callable[[Octets], Floats]


def scales_of(grouped: Floats, axis: int, code: NumberCode) -> NDArray[np.uint16]:
    """One scale along the axis, which stays with length 1: the bits of bfloat16."""
    largest = np.maximum(grouped.max(axis, keepdims=True), -grouped.min(axis, keepdims=True))
    return to_bfloat16(np.abs(largest) / np.float32(code.limit))  # of zeros, one without a sign


def scaled_down(grouped: Floats, scales: NDArray[np.uint16], code: NumberCode) -> Floats:
    """x / scale within the limits of the code."""
    factors = widen(scales)
    inverse = np.zeros_like(factors)
    np.divide(np.float32(1.0), factors, out=inverse, where=factors > _LEAST_SCALE)
    scaled = grouped * inverse
    return np.clip(scaled, -code.limit, code.limit, out=scaled)


def _to_int8(scaled: Floats) -> Octets:
    return np.rint(scaled).astype(np.int8).view(np.uint8)


def _from_int8(codes: Octets) -> Floats:
    return codes.view(np.int8).astype(np.float32)


def _to_int4(scaled: Floats) -> Octets:
    """Number i of a group's first half and number i of its second half share a byte."""
    codes = (np.rint(scaled) + 8).astype(np.uint8)
    half = codes.shape[-1] // 2
    return codes[..., :half] | np.left_shift(codes[..., half:], np.uint8(4))


def _from_int4(codes: Octets) -> Floats:
    both = np.concatenate((codes & 15, codes >> 4), axis=-1)
    return both.astype(np.float32) - np.float32(8)


def _from_fp8(codes: Octets) -> Floats:
    return E4M3_VALUES[codes]


CODES: Final[Mapping[CodeName, NumberCode]] = {
    "int8": NumberCode(8, 127.0, _to_int8, _from_int8),
    "fp8": NumberCode(8, 448.0, to_e4m3, _from_fp8),
    "int4": NumberCode(4, 7.0, _to_int4, _from_int4),
}
