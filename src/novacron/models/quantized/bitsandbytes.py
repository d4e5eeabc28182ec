"""Weights as bitsandbytes stores them: the method "bitsandbytes", in four bits or eight.

In four (NF4, FP4), the weight in the order of its rows is cut into blocks:

    weight                              two numbers a byte, the first in the upper half; in any type
    weight.quant_map                    float32 [16], what the numbers mean
    weight.absmax                       [blocks], what to multiply a block with: float32, or uint8
    weight.nested_quant_map             float32 [256]  } if absmax is uint8: it is quantised in the
    weight.nested_absmax                float32        } same way, after nested_offset was taken off
    weight.quant_state.bitsandbytes__*  the bytes of a JSON object: shape, blocksize, nested_...

In eight (LLM.int8), rows have a scale each; the inputs that are kept in 16 bits when computing are
not in the file:

    weight         int8 [out, in], by rows
    SCB            float32 [out], 127 times the scale
    weight_format  uint8 [], 0: by rows
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized.affine import affine
from novacron.models.quantized.block_values import BlockValues
from novacron.models.quantized.stored_module import PackedMatrix, StoredModule, modules_with

_STATES = tuple(f"weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
_PARTS = (
    "weight",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
)
_STORED_AS = {"uint8": 1, "int8": 1, "bfloat16": 2, "float16": 2, "float32": 4}
_LARGEST_INT8 = 127


@dataclass(frozen=True)
class FourBitMatrix:
    """Raises ModelLoadError if the parts do not fit."""

    module: StoredModule

    def __post_init__(self) -> None:
        rows, columns = self.shape
        stored = self.module.shape("weight")
        self.module.check("weight", _STORED_AS, stored)
        if prod(stored) * _STORED_AS[self.module.dtype("weight")] != -(-rows * columns // 2):
            raise self.module.error("weight", f"has not the size of {rows} x {columns} numbers")
        num_blocks = -(-rows * columns // self._block_size)
        self.module.check("weight.quant_map", ("float32",), (16,))
        if self._is_nested:
            num_nested = -(-num_blocks // self._state.size("nested_blocksize"))
            self.module.check("weight.absmax", ("uint8",), (num_blocks,))
            self.module.check("weight.nested_quant_map", ("float32",), (256,))
            self.module.check("weight.nested_absmax", ("float32",), (num_nested,))
            self._state.number("nested_offset")
        else:
            self.module.check("weight.absmax", ("float32",), (num_blocks,))

    @property
    def parts(self) -> Collection[str]:
        return [part for part in (*_PARTS, self._state_part) if self.module.has(part)]

    @cached_property
    def shape(self) -> tuple[int, int]:
        shape = self._state.integers("shape")
        if len(shape) != 2 or min(shape) < 1:
            raise self._state.error(f"'shape' is {list(shape)}, which is no matrix")
        return shape[0], shape[1]

    def rows(self, first: int, last: int) -> Tensor:
        columns, size = self.shape[1], self._block_size
        start, end = first * columns, last * columns
        first_block = start // size
        packed = self.module.read("weight").flatten().view(torch.uint8)
        octets = packed[first_block * size // 2 : -(-end // 2)]
        numbers = torch.stack((octets >> 4, octets & 15), dim=-1).flatten()
        numbers = numbers[start - first_block * size : end - first_block * size]
        largest = self._largest_of_blocks[first_block : -(-end // size)].repeat_interleave(size)
        largest = largest[start - first_block * size : end - first_block * size]
        meant = self.module.read("weight.quant_map").index_select(0, numbers.int())
        return (meant * largest).view(last - first, columns)

    @property
    def _state_part(self) -> str:
        return _STATES[1] if self.module.has(_STATES[1]) else _STATES[0]

    @cached_property
    def _state(self) -> HFConfig:
        part = self._state_part
        self.module.check(part, ("uint8",), self.module.shape(part))
        try:
            values = json.loads(self.module.read(part).numpy().tobytes())
        except (ValueError, RecursionError) as error:
            raise self.module.error(part, f"is no JSON ({error})") from error
        if not isinstance(values, dict):
            raise self.module.error(part, "is no JSON object")
        name = self.module.tensor_name(part)
        return HFConfig(values, f"{self.module.checkpoint.file_of(name)}: '{name}'")

    @cached_property
    def _block_size(self) -> int:
        size = self._state.size("blocksize")
        if size % 2:
            raise self._state.error(f"'blocksize' is {size}, but bytes hold two numbers")
        return size

    @property
    def _is_nested(self) -> bool:
        return self.module.has("weight.nested_absmax")

    @cached_property
    def _largest_of_blocks(self) -> Tensor:
        """[blocks]"""
        stored = self.module.read("weight.absmax")
        if not self._is_nested:
            return stored
        block = torch.arange(len(stored)) // self._state.size("nested_blocksize")
        largest = self.module.read("weight.nested_absmax")[block]
        meant = self.module.read("weight.nested_quant_map")[stored.int()]
        return meant * largest + self._state.number("nested_offset")


@dataclass(frozen=True)
class EightBitMatrix:
    """Raises ModelLoadError if the parts do not fit."""

    module: StoredModule

    def __post_init__(self) -> None:
        if self._has_format:
            self.module.check("weight_format", ("uint8",), ())
            if self.module.read("weight_format").item() != 0:
                raise self.module.error("weight_format", "is not 0: it is no order by rows")
        _ = self._scales

    @property
    def parts(self) -> Collection[str]:
        return ("weight", "SCB", *(["weight_format"] if self._has_format else []))

    @property
    def shape(self) -> tuple[int, int]:
        return self.module.matrix_shape("weight", "int8")

    def rows(self, first: int, last: int) -> Tensor:
        scales_RG = self._scales.of_rows(first, last) / _LARGEST_INT8
        codes_RC = self.module.read("weight")[first:last]
        return affine(codes_RC, scales_RG, self._scales.group_of_column)

    @property
    def _scales(self) -> BlockValues:
        return BlockValues(self.module, "SCB", self.shape, (1, self.shape[1]))

    @property
    def _has_format(self) -> bool:
        return self.module.has("weight_format")


def packed_matrices(checkpoint: Checkpoint, config: HFConfig) -> Iterator[PackedMatrix]:
    """Raises ModelLoadError. The tensors tell which modules are packed, and how."""
    for module in modules_with(checkpoint, ("SCB",)):
        yield EightBitMatrix(module)
    for module in modules_with(checkpoint, (*_PARTS[1:], *_STATES)):
        yield FourBitMatrix(module)
