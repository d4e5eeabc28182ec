"""Copies and checksums of KV blocks with the native kernels, without the interpreter's lock."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref

import numpy as np
from numpy.typing import NDArray

from novacron.kernels.native.library import CopyCall, NativeContext

Bytes = NDArray[np.uint8]

_SUM_BYTES = 16
_MOST_HEAD_BYTES = 1024


class NativeCopies:
    """What kv_tiers calls BlockCopies. From any number of threads: a call needs no other thread."""

    def __init__(self, context: NativeContext) -> None:
        self.context = context

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None:
        self._call(sources, targets, 0, 0, 0)

    def copy_and_sum(
        self, sources: Sequence[Bytes], targets: Sequence[Bytes], heads: Bytes
    ) -> Bytes:
        assert len(heads) == len(targets)
        assert heads.shape[1] <= _MOST_HEAD_BYTES
        assert heads.flags.c_contiguous
        sums = np.empty((len(targets), _SUM_BYTES), np.uint8)
        self._call(sources, targets, heads.ctypes.data, sums.ctypes.data, heads.shape[1])
        return sums

    def _call(
        self,
        sources: Sequence[Bytes],
        targets: Sequence[Bytes],
        heads: int,
        sums: int,
        head_bytes: int,
    ) -> None:
        if not targets:
            return
        places = _addresses((*sources, *targets), targets[0].nbytes)
        assert len(places) == 2 * len(targets)
        call = CopyCall(
            places.ctypes.data, places[len(targets) :].ctypes.data, heads, sums,
            len(targets), targets[0].nbytes, head_bytes,
        )  # fmt: skip
        self.context.library.novacron_copy_blocks(self.context.pointer, byref(call))


def _addresses(blocks: Sequence[Bytes], num_bytes: int) -> NDArray[np.uintp]:
    assert all(block.nbytes == num_bytes and block.flags.c_contiguous for block in blocks)
    return np.array([block.__array_interface__["data"][0] for block in blocks], np.uintp)
