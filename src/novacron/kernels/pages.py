"""Large memory that comes from the system page by page as it is written to, and goes back whole."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_MAP_NORESERVE = 0x4000  # Linux; in the module mmap from Python 3.13 on
_FEWEST_BYTES = 2**16


def empty_pages(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor on CPU, aligned to at least 64 bytes. What an allocator keeps for later use when a
    tensor is freed, this gives back."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < _FEWEST_BYTES:
        return torch.empty(tuple(shape), dtype=dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, num_bytes, flags), dtype=dtype).view(*shape)
