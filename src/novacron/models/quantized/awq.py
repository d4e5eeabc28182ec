"""Weights as AWQ's tools store them for matrix products (version "gemm"): the method "awq".

    qweight  int32 [in, out / 8]      eight numbers of four bits of neighbouring outputs
    qzeros   int32 [groups, out / 8]  zero points in the same way
    scales   float [groups, out]

    weight[o, i] = (number[i, o] - zero[i // group_size, o]) * scales[i // group_size, o]

From the lowest bits on, a word holds outputs 0, 2, 4, 6, 1, 3, 5, 7 of its eight.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from torch import Tensor

from novacron.models.checkpoint import Checkpoint
from novacron.models.hf_config import HFConfig
from novacron.models.quantized.affine import affine, equal_groups, unpack
from novacron.models.quantized.stored_module import (
    FLOATS,
    PackedMatrix,
    StoredModule,
    modules_with,
)

_PARTS = ("qweight", "qzeros", "scales")
_BITS = 4
_PER_WORD = 8


@dataclass(frozen=True)
class AwqMatrix:
    """`group_size` -1 is one group. Raises ModelLoadError if the parts do not fit."""

    module: StoredModule
    group_size: int

    def __post_init__(self) -> None:
        rows, columns = self.shape
        groups = -(-columns // self._columns_in_group)
        self.module.check("qzeros", ("int32",), (groups, rows // _PER_WORD))
        self.module.check("scales", FLOATS, (groups, rows))

    @property
    def parts(self) -> Collection[str]:
        return _PARTS

    @property
    def shape(self) -> tuple[int, int]:
        columns, words = self.module.matrix_shape("qweight", "int32")
        return words * _PER_WORD, columns

    def rows(self, first: int, last: int) -> Tensor:
        return affine(
            self._numbers("qweight", first, last).T,
            self.module.read("scales")[:, first:last].T,
            equal_groups(self.shape[1], self._columns_in_group),
            self._numbers("qzeros", first, last).T,
        )

    @property
    def _columns_in_group(self) -> int:
        return self.shape[1] if self.group_size == -1 else self.group_size

    def _numbers(self, part: str, first: int, last: int) -> Tensor:
        """Those of outputs [first, last), along the last dimension."""
        first_word = first // _PER_WORD
        words = self.module.read(part)[:, first_word : -(-last // _PER_WORD)]
        evens_then_odds = unpack(words, _BITS).view(len(words), -1, 2, _PER_WORD // 2)
        numbers = evens_then_odds.transpose(2, 3).flatten(1)
        start = first - first_word * _PER_WORD
        return numbers[:, start : start + last - first]


def packed_matrices(checkpoint: Checkpoint, config: HFConfig) -> Iterator[PackedMatrix]:
    """Raises ModelLoadError."""
    bits = config.integer("bits", config.integer("w_bit", _BITS))
    if bits != _BITS:
        raise config.error(f"AWQ with {bits} bits is not supported; supported: {_BITS}")
    version = config.text("version", config.text("checkpoint_format", "gemm")).lower()
    if version != "gemm":
        raise config.error(f"AWQ of the version '{version}' is not supported; supported: gemm")
    group_size = config.integer("group_size", config.integer("q_group_size", 128))
    if group_size != -1 and group_size < 1:
        raise config.error(f"'group_size' is {group_size}, neither positive nor -1")
    for module in modules_with(checkpoint, _PARTS):
        yield AwqMatrix(module, group_size)
