"""Values that blocks of a matrix share, as scales: one for all of it, one a row, or one a tile."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from novacron.models.quantized.affine import equal_groups
from novacron.models.quantized.stored_module import FLOATS, Shape, StoredModule


@dataclass(frozen=True)
class BlockValues:
    """`block` is how many rows and columns of a matrix of `shape` share a value; blocks at the end
    of a row or column may be smaller. Raises ModelLoadError if the part holds others."""

    module: StoredModule
    part: str
    shape: tuple[int, int]
    block: tuple[int, int]
    dtypes: Collection[str] = FLOATS

    def __post_init__(self) -> None:
        shorter: list[Shape] = [self.grid[:1]] if self.grid[1] == 1 else []
        if math.prod(self.grid) == 1:
            shorter.append(())
        self.module.check(self.part, self.dtypes, self.grid, *shorter)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks down and across."""
        down, across = self.block
        return -(-self.shape[0] // down), -(-self.shape[1] // across)

    def of_rows(self, first: int, last: int) -> Tensor:
        """[last - first, blocks across]"""
        values = self.module.read(self.part).view(self.grid)
        return values[torch.arange(first, last) // self.block[0]]

    @property
    def group_of_column(self) -> Tensor:
        return equal_groups(self.shape[1], self.block[1])
