"""Weights as the compressed-tensors library stores them: the method "compressed-tensors".

The configuration lists groups of modules, each with one scheme: a type (int or float), num_bits,
and which weights share a scale (strategy: tensor, channel, group, block). By format, a module has

    pack-quantized    weight_packed      int32 [out, in * bits / 32], the first number lowest
                      weight_shape       int64 [2], the shape that was packed
                      weight_zero_point  int32 [out * bits / 32, groups], packed down the rows
    int-quantized     weight             int8 [out, in]
                      weight_zero_point  int8, shaped as the scales
    float-quantized   weight             float8_e4m3fn [out, in]
    in all of them    weight_scale       [out, groups], [out, 1], [tiles down, tiles across] or [1]
                      weight_g_idx       int32 [in], the group of each column where they were sorted

naive-quantized is one of the last two. Zero points are there if the scheme is not symmetric. Packed
numbers had half of their range added, zero points too, which makes both unsigned.

A scheme is found by the shapes of a module's tensors, which fit one only (zero points decide
between two that differ in them), and not by the patterns of names in the configuration: those may
be regular expressions that take for ever to match.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from novacron.errors import ModelLoadError
from novacron.kernels.linear import Quantization, Rounded
from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized.affine import affine, stored_groups, unpack_window
from novacron.models.quantized.block_values import BlockValues
from novacron.models.quantized.float8_form import FP8, rounded_to_float8
from novacron.models.quantized.stored_module import PackedMatrix, StoredModule, modules_with

_PACKED = "pack-quantized"
_FORMATS = (_PACKED, "int-quantized", "float-quantized", "naive-quantized")
_PACKED_BITS = (2, 4, 8)
_QUANTISED = ("int8", FP8)


@dataclass(frozen=True)
class Scheme:
    """How some modules are quantised. `block` is how many rows and columns share a scale; None is
    all that there are."""

    is_packed: bool
    stored_as: str
    bits: int
    block: tuple[int | None, int | None]
    is_symmetric: bool


@dataclass(frozen=True)
class CompressedMatrix:
    """A module that fits a scheme. Raises ModelLoadError if it does not."""

    module: StoredModule
    scheme: Scheme

    def __post_init__(self) -> None:
        rows, columns = self.shape
        if self.scheme.is_packed:
            words = _words(columns, self.scheme.bits)
            self.module.check("weight_packed", ("int32",), (rows, words))
        groups = self._scales.grid[1]
        if self.scheme.block[1] and self.scheme.block[0] == 1 and columns % self.scheme.block[1]:
            raise self.module.error(
                "weight_scale", f"is for groups of {self.scheme.block[1]} in rows of {columns}"
            )
        if self._has_packed_zero_points:
            words = _words(rows, self.scheme.bits)
            self.module.check("weight_zero_point", ("int32",), (words, groups))
        elif not self.scheme.is_symmetric:
            _ = self._zero_points
        if self.module.has("weight_g_idx"):
            self.module.check("weight_g_idx", ("int32", "int64"), (columns,))

    @property
    def parts(self) -> Collection[str]:
        weight = ("weight_packed", "weight_shape") if self.scheme.is_packed else ("weight",)
        others = ("weight_zero_point", "weight_g_idx")
        return (*weight, "weight_scale", *filter(self.module.has, others))

    @cached_property
    def shape(self) -> tuple[int, int]:
        if not self.scheme.is_packed:
            return self.module.matrix_shape("weight", self.scheme.stored_as)
        self.module.check("weight_shape", ("int64", "int32"), (2,))
        rows, columns = self.module.read("weight_shape").tolist()
        if min(rows, columns) < 1:
            raise self.module.error("weight_shape", f"says {rows} x {columns}, which is no matrix")
        return rows, columns

    def rows(self, first: int, last: int) -> Tensor:
        scales_RG = self._scales.of_rows(first, last)
        zeros_RG = None if self.scheme.is_symmetric else self._zeros_of_rows(first, last)
        return affine(self._codes(first, last), scales_RG, self._group_of_column, zeros_RG)

    def rounded(self, first: int, last: int, quantization: Quantization) -> Rounded | None:
        """Implements RoundedMatrix: symmetric, and of whole numbers those in groups, with scales in
        bfloat16."""
        scheme = self.scheme
        if quantization.is_float:
            is_fit = (scheme.stored_as, scheme.is_symmetric) == (FP8, True)
            if not is_fit or self.module.has("weight_g_idx"):
                return None
            return rounded_to_float8(
                self.module, self._scales, first, last, quantization.group_size
            )
        stored = (scheme.stored_as, scheme.bits, scheme.block, scheme.is_symmetric)
        if stored != ("int8", quantization.bits, (1, quantization.group_size), True):
            return None
        if self.module.has("weight_g_idx") or self.module.dtype("weight_scale") != "bfloat16":
            return None
        scales_OG = self._scales.of_rows(first, last)
        if not scales_OG.isfinite().all():
            raise self.module.error("weight_scale", "holds NaN or infinite values")
        codes_RC = self._codes(first, last)
        return Rounded(codes_RC.view(len(codes_RC), -1, quantization.group_size), scales_OG)

    @cached_property
    def _scales(self) -> BlockValues:
        return BlockValues(self.module, "weight_scale", self.shape, self._block)

    @cached_property
    def _zero_points(self) -> BlockValues:
        return BlockValues(self.module, "weight_zero_point", self.shape, self._block, ("int8",))

    @property
    def _block(self) -> tuple[int, int]:
        rows, columns = self.scheme.block
        return rows or self.shape[0], columns or self.shape[1]

    @property
    def _group_of_column(self) -> Tensor:
        if self.module.has("weight_g_idx"):
            return stored_groups(self.module, "weight_g_idx", self._scales.grid[1])
        return self._scales.group_of_column

    @property
    def _has_packed_zero_points(self) -> bool:
        """Those of one scale for all never are, nor are those of the library's first versions."""
        part = "weight_zero_point"
        is_meant = self.scheme.is_packed and not self.scheme.is_symmetric
        return is_meant and self.module.has(part) and self.module.dtype(part) == "int32"

    def _codes(self, first: int, last: int) -> Tensor:
        """Signed numbers [last - first, in]"""
        if not self.scheme.is_packed:
            return self.module.read("weight")[first:last]
        words = self.module.read("weight_packed")[first:last]
        return _signed(unpack_window(words, self.scheme.bits, 0, self.shape[1]), self.scheme.bits)

    def _zeros_of_rows(self, first: int, last: int) -> Tensor:
        """Signed numbers [last - first, groups]"""
        if not self._has_packed_zero_points:
            return self._zero_points.of_rows(first, last)
        words = self.module.read("weight_zero_point").T
        return _signed(unpack_window(words, self.scheme.bits, first, last), self.scheme.bits).T


def packed_matrices(checkpoint: Checkpoint, config: HFConfig) -> Iterator[PackedMatrix]:
    """Raises ModelLoadError."""
    for part in ("sparsity_config", "transform_config"):
        section = config.section(part)
        if section.has("config_groups") or section.text("format", "dense") != "dense":
            raise config.error(f"its '{part}' asks for more than quantised weights have here")
    schemes = sorted(dict.fromkeys(_schemes(config)), key=lambda scheme: scheme.is_symmetric)
    for module in modules_with(checkpoint, ("weight", "weight_packed", "weight_scale")):
        is_plain = module.has("weight") and module.dtype("weight") not in _QUANTISED
        if not is_plain or module.has("weight_scale"):
            yield _first_fit(module, schemes)


def _schemes(config: HFConfig) -> Iterator[Scheme]:
    groups = config.section("config_groups")
    for name in groups.keys:
        group = groups.section(name)
        if not group.has("weights"):
            continue
        form = group.text("format", config.text("format"))
        if form not in _FORMATS:
            raise config.error(
                f"the format '{form}' of compressed-tensors is not supported; supported: "
                f"{', '.join(_FORMATS)}"
            )
        yield _scheme(group.section("weights"), is_packed=form == _PACKED)


def _scheme(weights: HFConfig, *, is_packed: bool) -> Scheme:
    kind, bits = weights.text("type", "int"), weights.size("num_bits", 8)
    is_float = kind == "float" and bits == 8 and not is_packed
    is_int = kind == "int" and bits in (_PACKED_BITS if is_packed else range(1, 9))
    if not is_float and not is_int:
        raise weights.error(f"{kind} weights of {bits} bits are not supported in this format")
    stored_as = FP8 if is_float else "int8"
    is_symmetric = weights.flag("symmetric", True)
    return Scheme(is_packed, stored_as, bits, _block(weights), is_symmetric)


def _block(weights: HFConfig) -> tuple[int | None, int | None]:
    has_groups = weights.has("group_size") and weights.integer("group_size") != -1
    match weights.text("strategy", "group" if has_groups else "tensor"):
        case "tensor":
            return None, None
        case "channel":
            return 1, None
        case "group":
            return 1, weights.size("group_size")
        case "block":
            block = weights.integers("block_structure")
            if len(block) == 2 and min(block) > 0:
                return block[0], block[1]
            raise weights.error(f"'block_structure' is {list(block)}, not two positive numbers")
        case other:
            raise weights.error(
                f"the strategy '{other}' is not supported; supported: tensor, channel, group, block"
            )


def _first_fit(module: StoredModule, schemes: list[Scheme]) -> CompressedMatrix:
    problems: list[ModelLoadError] = []
    for scheme in schemes:
        try:
            return CompressedMatrix(module, scheme)
        except ModelLoadError as problem:
            problems.append(problem)
    if problems:
        raise problems[-1]
    raise ModelLoadError(
        f"{module.checkpoint.folder}: '{module.name}' is quantised, but config.json has no "
        "'config_groups' that say how. Take the config.json that belongs to these weights."
    )


def _words(count: int, bits: int) -> int:
    return -(-count * bits // 32)


def _signed(numbers: Tensor, bits: int) -> Tensor:
    """Packed numbers had half of their range added."""
    return numbers.sub(2 ** (bits - 1)).view(torch.int8)
