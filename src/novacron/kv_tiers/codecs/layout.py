"""Where the keys and values of a block lie in its bytes, as data: a codec needs nothing else of the
kernels that wrote them.

Shapes: N parts of a run, H key-value heads, S tokens of a block, D dimensions of a head, C of a
cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from novacron.kv_tiers.tier import Bytes

Role = Literal["key", "value"]
FloatName = Literal["float32", "bfloat16", "float16"]

_ELEMENTS: Final[dict[FloatName, np.dtype[Any]]] = {
    "float32": np.dtype("<f4"),
    "bfloat16": np.dtype("<u2"),  # its bits: numpy has no such type
    "float16": np.dtype("<f2"),
}


@dataclass(frozen=True)
class Run:
    """Keys, or values, of `num_parts` layers that lie alike, `stride` bytes apart.

    Each is [H][D / C][S][C]: with C = D a token's dimensions lie together; kernels that load one
    dimension of neighbouring tokens have smaller cells.
    """

    role: Role
    dtype: FloatName
    start: int
    stride: int
    num_parts: int
    num_heads: int
    num_tokens: int
    head_dim: int
    cell: int

    @property
    def element(self) -> np.dtype[Any]:
        """How numpy sees a number: bfloat16 as its bits."""
        return _ELEMENTS[self.dtype]

    @property
    def part_bytes(self) -> int:
        return self.num_heads * self.num_tokens * self.head_dim * self.element.itemsize

    def view(self, block: Bytes) -> NDArray[Any]:
        """The run in a block's bytes, [N, H, D / C, S, C], not copied."""
        size, width = self.element.itemsize, self.head_dim // self.cell
        inner = (self.cell * size, size)
        of_cell = self.num_tokens * inner[0]
        shape = (self.num_parts, self.num_heads, width, self.num_tokens, self.cell)
        strides = (self.stride, width * of_cell, of_cell, *inner)
        flat = block[self.start :]
        return np.ndarray(shape, self.element, flat.data, 0, strides)


@dataclass(frozen=True)
class BlockLayout:
    """All runs of a block, which together are all its bytes."""

    block_bytes: int
    runs: tuple[Run, ...]


def layout_of(parts: Sequence[Run]) -> BlockLayout:
    """Of the keys and values of each layer in the order of their bytes, each a run of one: what
    lies evenly is joined. Raises AssertionError if they leave gaps."""
    start = 0
    for part in parts:
        assert part.start == start, "a gap between the parts of a block"
        start += part.part_bytes
    runs = [run for _, some in groupby(_by_kind(parts), key=_kind) for run in _join(list(some))]
    return BlockLayout(start, tuple(runs))


def _by_kind(parts: Sequence[Run]) -> list[Run]:
    return sorted(parts, key=lambda part: (str(_kind(part)), part.start))


def _kind(part: Run) -> Run:
    return replace(part, start=0)


def _join(parts: list[Run]) -> Iterator[Run]:
    while parts:
        first, count = parts[0], 1
        stride = parts[1].start - first.start if len(parts) > 1 else first.part_bytes
        while count < len(parts) and parts[count].start == first.start + count * stride:
            count += 1
        yield replace(first, stride=stride, num_parts=count)
        parts = parts[count:]
