"""Memory that processes of one host share, cut into named tensors.

It has no name in the file system: a process inherits its descriptor, and it is gone when the last
one that has it ends, however that ends. Pages are taken as they are written to.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import weakref
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

_ALIGNMENT_BYTES = 4096
_HUGE_PAGE_BYTES: Final = 2**21
_MAP_FIXED: Final = 0x10
_PROT_NONE: Final = 0
_FAILED: Final = ctypes.c_void_p(-1).value


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
        pages = _map_aligned(descriptor, num_bytes)
        self.tensors: dict[str, Tensor] = {}
        start = 0
        for name, piece in pieces.items():
            count = math.prod(piece.shape)
            part = torch.frombuffer(pages, dtype=piece.dtype, count=count, offset=start)
            self.tensors[name] = part.view(piece.shape)
            start += piece.num_bytes

    def close_descriptor(self) -> None:
        """Once all who shall inherit it have. The memory stays. Harmless when called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _map_aligned(descriptor: int, num_bytes: int) -> Any:
    """The file as a buffer, unmapped when nobody refers to it any more. It begins where a huge page
    may: else there can be none. Raises OSError."""
    size = max(1, num_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    )  # fmt: skip
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

    def map_at(address: int | None, length: int, protection: int, flags: int, file: int) -> int:
        found: int = libc.mmap(address, length, protection, flags, file, 0)
        if found == _FAILED:
            number = ctypes.get_errno()
            raise OSError(number, f"memory cannot be shared: {os.strerror(number)}")
        return found

    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    reserved = map_at(None, size + _HUGE_PAGE_BYTES, _PROT_NONE, anonymous, -1)
    start = -(-reserved // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    map_at(start, size, writable, mmap.MAP_SHARED | _MAP_FIXED, descriptor)
    buffer = (ctypes.c_uint8 * size).from_address(start)
    unmap = weakref.finalize(buffer, libc.munmap, reserved, size + _HUGE_PAGE_BYTES)
    unmap.atexit = False  # threads may still be at it; the system does it anyway
    return buffer
