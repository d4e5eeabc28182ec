"""Large memory that comes from the system page by page as it is written to, and goes back whole."""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

_MAP_NORESERVE = 0x4000  # Linux; in the module mmap from Python 3.13 on
_MADV_DONTNEED = 4
_MADV_POPULATE_WRITE = 23  # Linux 5.14
_POPULATED_AT_ONCE = 2**21
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


def populate_pages(pages: Tensor, num_bytes: int) -> None:
    """Have the system provide the memory of the first so many bytes, in the background: the first
    who writes to a page waits for it to be found and cleared, long on a virtual machine whose host
    has to find it, too. What is in the pages stays; harmless where the system cannot."""
    start = -(-pages.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (pages.data_ptr() + min(num_bytes, pages.nbytes)) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = ctypes.CDLL(None).madvise

    def populate() -> None:
        for place in range(start, end, _POPULATED_AT_ONCE):
            size = min(_POPULATED_AT_ONCE, end - place)
            if madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), _MADV_POPULATE_WRITE) != 0:
                return
        del pinned[:]

    pinned = [pages]  # must not go meanwhile
    threading.Thread(target=populate, name="populate-pages", daemon=True).start()


def drop_pages(mapped: Tensor) -> None:
    """Give back the memory of a tensor that is mapped from a file and was never written to: it is
    read from there again. Harmless where the system will not."""
    start = -(-mapped.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (mapped.data_ptr() + mapped.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        ctypes.CDLL(None).madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED
        )
