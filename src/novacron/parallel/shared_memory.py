"""Memory that processes of one host share, cut into named tensors.

It has no name in the file system: a process inherits its descriptor, and it is gone when the last
one that has it ends, however that ends. Pages are taken as they are written to.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

_ALIGNMENT_BYTES = 4096


class Piece(NamedTuple):
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """What it takes, up to where the next one may begin."""
        needed = math.prod(self.shape) * self.dtype.itemsize
        return -(-needed // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


class SharedMemory:
    """`pieces` by name, zero at first; every process names the same ones in the same order. Without
    a `descriptor`, new memory, whose descriptor children may inherit by pass_fds."""

    def __init__(self, pieces: Mapping[str, Piece], descriptor: int | None = None) -> None:
        num_bytes = sum(piece.num_bytes for piece in pieces.values())
        if descriptor is None:
            descriptor = os.memfd_create("novacron-ranks")
            os.ftruncate(descriptor, num_bytes)
        self.descriptor = descriptor
        self._pages = mmap.mmap(descriptor, num_bytes)
        self.tensors: dict[str, Tensor] = {}
        start = 0
        for name, piece in pieces.items():
            count = math.prod(piece.shape)
            part = torch.frombuffer(self._pages, dtype=piece.dtype, count=count, offset=start)
            self.tensors[name] = part.view(piece.shape)
            start += piece.num_bytes

    def close_descriptor(self) -> None:
        """Once all who shall inherit it have. The memory stays. Harmless when called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
