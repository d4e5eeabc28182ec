"""Weights in FP8 (e4m3) with scales beside them: the methods "fp8" and "fbgemm_fp8".

    weight             float8_e4m3fn [out, in]
    weight_scale_inv   one per tile of weight_block_size, or one for all
    weight_scale       one for all or one a row (instead of weight_scale_inv)

A weight is its stored value times its scale, whatever the "inv" in the name suggests. Modules that
the method left out have a plain weight and no scale.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from novacron.kernels.linear import Quantization, Rounded
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized.affine import affine
from novacron.models.quantized.block_values import BlockValues
from novacron.models.quantized.float8_form import FP8, rounded_to_float8
from novacron.models.quantized.stored_module import PackedMatrix, StoredModule, modules_with

_SCALES = ("weight_scale_inv", "weight_scale")


@dataclass(frozen=True)
class ScaledMatrix:
    """Numbers that are stored one by one in `weight`, and scales of blocks."""

    module: StoredModule
    scales: BlockValues

    @property
    def parts(self) -> Collection[str]:
        return ("weight", self.scales.part)

    @property
    def shape(self) -> tuple[int, int]:
        return self.scales.shape

    def rows(self, first: int, last: int) -> Tensor:
        codes_RC = self.module.read("weight")[first:last]
        return affine(codes_RC, self.scales.of_rows(first, last), self.scales.group_of_column)

    def rounded(self, first: int, last: int, quantization: Quantization) -> Rounded | None:
        """Implements RoundedMatrix."""
        if not quantization.is_float:
            return None
        return rounded_to_float8(self.module, self.scales, first, last, quantization.group_size)


def packed_matrices(checkpoint: Checkpoint, config: HFConfig) -> Iterator[PackedMatrix]:
    """Raises ModelLoadError."""
    tile = config.integers("weight_block_size")
    if config.has("weight_block_size") and (len(tile) != 2 or min(tile) < 1):
        raise config.error(f"'weight_block_size' is {list(tile)}, not two positive numbers")
    for module in modules_with(checkpoint, ("weight", *_SCALES)):
        is_scaled = any(module.has(part) for part in _SCALES)
        if is_scaled or module.dtype("weight") == FP8:
            yield ScaledMatrix(module, _scales(module, tile))


def _scales(module: StoredModule, tile: tuple[int, ...]) -> BlockValues:
    shape = module.matrix_shape("weight", FP8)
    part = _SCALES[0] if module.has(_SCALES[0]) else _SCALES[1]
    if tile:
        return BlockValues(module, part, shape, (tile[0], tile[1]))
    is_one = all(length == 1 for length in module.shape(part))
    return BlockValues(module, part, shape, shape if is_one else (1, shape[1]))
