"""Weights as GPTQ's tools store them: the method "gptq".

    qweight  int32 [in * bits / 32, out]      packed down the columns, the first number lowest
    qzeros   int32 [groups, out * bits / 32]  packed along the rows
    scales   float [groups, out]
    g_idx    int32 [in]                       the group of each input; left out: equal groups

    weight[o, i] = (number[i, o] - zero[g_idx[i], o]) * scales[g_idx[i], o]

The zero points of the format "gptq" are one less than meant, those of "gptq_v2" are not. The one
was taken from whole words: a zero point of 0 borrowed from its neighbour, and adding to the words
gives both back (as in gptqmodel, which wrote the later files of either kind).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized.affine import (
    affine,
    equal_groups,
    stored_groups,
    unpack,
    unpack_window,
)
from novacron.models.quantized.stored_module import (
    FLOATS,
    PackedMatrix,
    StoredModule,
    modules_with,
)

_BITS = (2, 4, 8)
_FORMATS = ("gptq", "gptq_v2")
_LEFT_OUT = "-:"  # starts the patterns of "dynamic" for modules that stay plain
_PARTS = ("qweight", "qzeros", "scales", "g_idx")


@dataclass(frozen=True)
class GptqMatrix:
    """`group_size` -1 is one group. Raises ModelLoadError if the parts do not fit."""

    module: StoredModule
    bits: int
    group_size: int
    has_lowered_zeros: bool

    def __post_init__(self) -> None:
        rows, columns = self.shape
        groups = 1 if self.group_size == -1 else -(-columns // self.group_size)
        self.module.check("scales", FLOATS, (groups, rows))
        self.module.check("qzeros", ("int32",), (groups, -(-rows * self.bits // 32)))
        if self.module.has("g_idx"):
            self.module.check("g_idx", ("int32", "int64"), (columns,))

    @property
    def parts(self) -> Collection[str]:
        return [part for part in _PARTS if self.module.has(part)]

    @cached_property
    def shape(self) -> tuple[int, int]:
        words, rows = self.module.matrix_shape("qweight", "int32")
        return rows, words * 32 // self.bits

    def rows(self, first: int, last: int) -> Tensor:
        words_RW = self.module.read("qweight")[:, first:last].T
        return affine(
            unpack(words_RW, self.bits),
            self.module.read("scales")[:, first:last].T,
            self._group_of_column,
            self._zeros_of_rows(first, last),
        )

    @cached_property
    def _group_of_column(self) -> Tensor:
        num_groups = self.module.shape("scales")[0]
        if self.module.has("g_idx"):
            return stored_groups(self.module, "g_idx", num_groups)
        return equal_groups(self.shape[1], self.group_size if num_groups > 1 else self.shape[1])

    def _zeros_of_rows(self, first: int, last: int) -> Tensor:
        words = self.module.read("qzeros")
        if self.has_lowered_zeros:
            words = words + _one_in_each(self.bits)
        return unpack_window(words, self.bits, first, last).T


def packed_matrices(checkpoint: Checkpoint, config: HFConfig) -> Iterator[PackedMatrix]:
    """Raises ModelLoadError."""
    bits, group_size = config.integer("bits"), config.integer("group_size", -1)
    if bits not in _BITS:
        raise config.error(f"GPTQ with {bits} bits is not supported; supported: 2, 4, 8")
    if group_size != -1 and group_size < 1:
        raise config.error(f"'group_size' is {group_size}, neither positive nor -1")
    form = config.text("checkpoint_format", config.text("format", "gptq"))
    if config.flag("is_marlin_format", False) or form not in _FORMATS:
        raise config.error(
            f"GPTQ weights in the format '{form}', made for one kernel, are not supported; "
            f"supported: {', '.join(_FORMATS)}"
        )
    if any(not pattern.startswith(_LEFT_OUT) for pattern in config.section("dynamic").keys):
        raise config.error("'dynamic' gives some modules other bits, which is not supported")
    for module in modules_with(checkpoint, _PARTS):
        yield GptqMatrix(module, bits, group_size, has_lowered_zeros=form == "gptq")


def _one_in_each(bits: int) -> int:
    """A word of ones as numbers of so many bits."""
    return sum(1 << shift for shift in range(0, 32, bits))
