"""BlockCopies: copying many blocks in one call, with their checksums.

A call for each block would ask for the interpreter's lock several times a block, which the thread
of the steps needs. PlainCopies is that slow way; the native kernels have one that holds no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import blake3
import numpy as np

from novacron.kv_tiers.tier import Bytes

SUM_BYTES: Final = 16


class BlockCopies(Protocol):
    """Blocks of one call are of one size, each without gaps."""

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None: ...

    def copy_and_sum(
        self, sources: Sequence[Bytes], targets: Sequence[Bytes], heads: Bytes
    ) -> Bytes:
        """Copy each source to its target, which may be the same memory. Returns the first bytes of
        BLAKE3 of each of `heads` ([blocks][any]) followed by the copy: [blocks][SUM_BYTES]."""
        ...


class PlainCopies:
    """Implements BlockCopies."""

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None:
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)

    def copy_and_sum(
        self, sources: Sequence[Bytes], targets: Sequence[Bytes], heads: Bytes
    ) -> Bytes:
        self.copy(sources, targets)
        sums = np.empty((len(targets), SUM_BYTES), np.uint8)
        for place, (head, block) in enumerate(zip(heads, targets, strict=True)):
            digest = blake3.blake3(head.tobytes()).update(block.data).digest(SUM_BYTES)
            sums[place] = np.frombuffer(digest, np.uint8)
        return sums
