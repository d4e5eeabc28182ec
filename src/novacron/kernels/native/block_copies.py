"""Copies and checksums of KV blocks with the native kernels, without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref

import numpy as np
from numpy.typing import NDArray

from novacron.kernels.native.library import CopyCall, NativeContext

Bytes = NDArray[np.uint8]
Rows = tuple[Bytes, NDArray[np.int64]]  # a table of bytes, and the numbers of some of its rows

_SUM_BYTES = 16
_MOST_HEAD_BYTES = 1024


class NativeCopies:
    """What kv_tiers calls BlockCopies. From any number of threads: a call needs no other thread."""

    def __init__(self, context: NativeContext) -> None:
        self.context = context

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None:
        assert len(sources) == len(targets)
        if targets:
            size = targets[0].nbytes
            self._call(_addresses(sources, size), _addresses(targets, size), size)

    def copy_and_sum(
        self, sources: Rows, targets: Rows, heads: Bytes, *, read_soon: bool = True
    ) -> Bytes:
        count, block_bytes = len(targets[1]), targets[0].shape[1]
        assert sources[0].shape[1] == block_bytes
        assert len(sources[1]) == len(heads) == count
        assert heads.shape[1] <= _MOST_HEAD_BYTES
        assert heads.flags.c_contiguous
        sums = np.empty((count, _SUM_BYTES), np.uint8)
        self._call(
            _addresses_of_rows(sources), _addresses_of_rows(targets), block_bytes,
            heads.ctypes.data, sums.ctypes.data, heads.shape[1], not read_soon,
        )  # fmt: skip
        return sums

    def _call(
        self,
        sources: NDArray[np.int64],
        targets: NDArray[np.int64],
        block_bytes: int,
        heads: int = 0,
        sums: int = 0,
        head_bytes: int = 0,
        is_streamed: bool = False,
    ) -> None:
        call = CopyCall(
            sources.ctypes.data, targets.ctypes.data, heads, sums,
            len(targets), block_bytes, head_bytes, is_streamed,
        )  # fmt: skip
        self.context.library.novacron_copy_blocks(self.context.pointer, byref(call))


def _addresses_of_rows(rows: Rows) -> NDArray[np.int64]:
    table, numbers = rows
    assert table.strides[1] == 1
    assert len(numbers) == 0 or 0 <= numbers.min() <= numbers.max() < len(table)
    places: NDArray[np.int64] = numbers * table.strides[0] + table.__array_interface__["data"][0]
    return places


def _addresses(blocks: Sequence[Bytes], num_bytes: int) -> NDArray[np.int64]:
    assert all(block.nbytes == num_bytes and block.flags.c_contiguous for block in blocks)
    return np.array([block.__array_interface__["data"][0] for block in blocks], np.int64)
