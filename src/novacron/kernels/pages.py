"""Large memory that comes from the system page by page as it is written to, and goes back whole."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

_MAP_NORESERVE = 0x4000  # Linux; in the module mmap from Python 3.13 on
_MADV_DONTNEED = 4
_FEWEST_BYTES = 2**16
_FEWEST_BYTES_OF_HUGE_PAGES = 2**22


def zero_pages(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros on CPU, aligned to pages, that takes memory only where it is written to and
    gives it back when it is freed.

    A large one asks for huge pages: the first touch of a page costs microseconds, and the small
    pages of a large KV cache are more than the processor's own page table holds.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    pages = mmap.mmap(-1, num_bytes, flags)
    if num_bytes >= _FEWEST_BYTES_OF_HUGE_PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without them
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(*shape)


def empty_pages(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor on CPU, aligned to at least 64 bytes. What an allocator keeps for later use when a
    large tensor is freed, this gives back."""
    if math.prod(shape) * dtype.itemsize < _FEWEST_BYTES:
        return torch.empty(tuple(shape), dtype=dtype)
    return zero_pages(shape, dtype)


def drop_pages(mapped: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and was never written to: it is
    read from there again. Harmless where the system will not."""
    start = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (mapped.data_ptr() + mapped.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED
        )
