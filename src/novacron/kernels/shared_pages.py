"""SharedPages: huge pages for memory that processes share, a little ahead of its use.

Such memory gets none by itself, unlike that of one process (pages.py); but the system makes one of
an extent in which a page is there when it is asked to (MADV_COLLAPSE, Linux 6.1). Where it will
not, small pages come as they are touched.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Final

from torch import Tensor

_MADV_POPULATE_WRITE: Final = 23
_MADV_COLLAPSE: Final = 25
_PAGE_BYTES: Final = 4096
EXTENT_BYTES: Final = 2**21
_AHEAD: Final = 16  # extents


class SharedPages:
    """Of `pages`, which begin where an extent does, in memory and in its file. What is in them
    stays, whoever writes to them meanwhile. No call waits. From one thread."""

    def __init__(self, pages: Tensor) -> None:
        self._pages = pages  # must not go while a thread is at them
        self._num_extents = pages.nbytes // EXTENT_BYTES
        if pages.data_ptr() % EXTENT_BYTES:
            self._num_extents = 0
        self._num_wanted = 0
        self._num_done = 0
        self._lock = threading.Lock()
        self._is_working = False

    @property
    def is_settled(self) -> bool:
        """All that was asked for is done, or cannot be."""
        return not self._is_working

    def want(self, num_bytes: int) -> None:
        """Have the first so many bytes ready, and some behind them."""
        wanted = min(self._num_extents, num_bytes // EXTENT_BYTES + _AHEAD)
        if wanted - self._num_wanted < min(_AHEAD // 2, self._num_extents - self._num_wanted):
            return
        with self._lock:
            if wanted <= self._num_wanted:
                return
            self._num_wanted = wanted
            if self._is_working:
                return
            self._is_working = True
        threading.Thread(target=self._work, name="shared-pages", daemon=True).start()

    def _work(self) -> None:
        madvise, start = ctypes.CDLL(None).madvise, self._pages.data_ptr()
        while True:
            with self._lock:
                if self._num_done >= self._num_wanted:
                    self._is_working = False
                    return
                extent = ctypes.c_void_p(start + self._num_done * EXTENT_BYTES)
                self._num_done += 1
            madvise(extent, ctypes.c_size_t(_PAGE_BYTES), _MADV_POPULATE_WRITE)
            if madvise(extent, ctypes.c_size_t(EXTENT_BYTES), _MADV_COLLAPSE) != 0:
                madvise(extent, ctypes.c_size_t(EXTENT_BYTES), _MADV_POPULATE_WRITE)
