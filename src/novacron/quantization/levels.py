"""How finely a number is held, and what that takes. No torch.

fp8 is e4m3 with a scale in float32 for 128 neighbouring inputs of an output; rounding gives all of
them the same. int8 and int4 are whole numbers, of which a group has a scale in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from novacron.config.weight_layers import WeightLevel

Level = WeightLevel

LEVELS: tuple[Level, ...] = get_args(WeightLevel)  # the finest first
ROUNDED: frozenset[Level] = frozenset({"fp8", "int8", "int4"})  # what has scales
_BITS: dict[Level, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8, "int4": 4}
_SCALE_BITS: dict[Level, int] = {"fp8": 32, "int8": 16, "int4": 16}
_FLOAT8_GROUP = 128
_QUARTERS = 4  # of a product's inputs, each summed for itself
# By measured error of weights. A float holds 16 bits of range and precision better than 8 bits do;
# whole numbers whose neighbours share a scale lose less than as many bits of e4m3 do.
_FINENESS: dict[Level, int] = {"fp32": 5, "fp16": 4, "bf16": 3, "int8": 2, "fp8": 1, "int4": 0}


def finest(levels: Iterable[Level | None]) -> Level | None:
    """The one that loses least; None, which is what the model has, loses nothing."""
    found = list(levels)
    if None in found:
        return None
    return max((level for level in found if level is not None), key=_FINENESS.__getitem__)


def usual_group_size(level: Level, num_inputs: int) -> int:
    """Of int8 the largest that divides the inputs: products are a fifth faster than in groups of
    32, and lose little, if more. Four bits need the smallest."""
    sizes = (128, 64) if level == "int8" else ()
    return next((size for size in sizes if num_inputs % size == 0), 32)


def usual_sharing(level: Level, group_size: int, num_inputs: int) -> int:
    """How many neighbouring groups share the scale that inputs are rounded by. In int4, where it
    is the weights that lose, as many as make 128 inputs: products of several rows are a tenth
    faster. But none reaches into another quarter of the inputs, which ranks share out."""
    if level != "int4":
        return 1
    spans = (size for size in (128, 64) if num_inputs % (_QUARTERS * size) == 0)
    return max(1, next(spans, 0) // group_size)


def matrix_bytes(level: Level, shape: tuple[int, int], group_size: int) -> int:
    """Of a matrix of [outputs, inputs], its scales included. A last group that is shorter is filled
    up. Kernels may add padding of their own."""
    outputs, inputs = shape
    if level in ROUNDED:
        group_size = _FLOAT8_GROUP if level == "fp8" else group_size
        groups = -(-inputs // group_size)
        bits = groups * (group_size * _BITS[level] + _SCALE_BITS[level])
    else:
        bits = inputs * _BITS[level]
    return outputs * bits // 8
