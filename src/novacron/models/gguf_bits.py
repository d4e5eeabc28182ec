"""Numbers out of the bytes of blocks: floats, and whole numbers of a few bits.

Shapes: N blocks, B bytes of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor


def float32(bytes_NB: Tensor) -> Tensor:
    return _as(torch.float32, bytes_NB)


def float16(bytes_NB: Tensor) -> Tensor:
    return _as(torch.float16, bytes_NB).float()


def bfloat16(bytes_NB: Tensor) -> Tensor:
    return _as(torch.bfloat16, bytes_NB).float()


def split(blocks: Tensor, *num_bytes: int) -> tuple[Tensor, ...]:
    return torch.split(blocks, list(num_bytes), 1)


def halves(packed: Tensor) -> Tensor:
    """[N, B] bytes -> [N, 2B]: all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), 1)


def bits(packed: Tensor) -> Tensor:
    """[N, B] bytes -> [N, 8B], the lowest bit of each byte first."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return (packed[..., None] >> shifts & 1).flatten(1)


def in_bytes(packed: Tensor, *, num_bits: int) -> Tensor:
    """Values of so many bits: those of a byte, the lowest first, then those of the next."""
    shifts = torch.arange(0, 8, num_bits, dtype=torch.uint8)
    return (packed[..., None] >> shifts & (1 << num_bits) - 1).flatten(1)


def in_runs(packed: Tensor, *, num_runs: int, num_bits: int) -> Tensor:
    """Values of so many bits. Bytes fall into runs; of each run come the lowest bits of all bytes,
    then the next ones, and so on."""
    shifts = torch.arange(0, 8, num_bits, dtype=torch.uint8)
    runs = packed.reshape(len(packed), num_runs, 1, -1)
    return (runs >> shifts[:, None] & (1 << num_bits) - 1).flatten(1)


def _as(dtype: torch.dtype, bytes_NB: Tensor) -> Tensor:
    return bytes_NB.contiguous().view(dtype)
