"""BlockCopies: copying many blocks in one call, with their checksums.

A call for each block would ask for the interpreter's lock several times a block, which the thread
of the steps needs. PlainCopies is that slow way; the native kernels have one that holds no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from novacron.kv_tiers.record import checksum_of
from novacron.kv_tiers.tier import Bytes, Rows

SUM_BYTES: Final = 16


class BlockCopies(Protocol):
    """Blocks of one call are of one size, each without gaps."""

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None: ...

    def copy_and_sum(
        self, sources: Rows, targets: Rows, heads: Bytes, *, read_soon: bool = True
    ) -> Bytes:
        """Copy each source to its target, which may be the same memory. Returns the checksum
        (record.py) of each of `heads` ([blocks][any]) and its copy: [blocks][SUM_BYTES]. Copies
        that are not `read_soon` need not be left in the processor's caches."""
        ...


class PlainCopies:
    """Implements BlockCopies."""

    def copy(self, sources: Sequence[Bytes], targets: Sequence[Bytes]) -> None:
        for source, target in zip(sources, targets, strict=True):
            np.copyto(target, source)

    def copy_and_sum(
        self, sources: Rows, targets: Rows, heads: Bytes, *, read_soon: bool = True
    ) -> Bytes:
        blocks = [targets.table[number] for number in targets.numbers]
        self.copy([sources.table[number] for number in sources.numbers], blocks)
        sums = np.empty((len(blocks), SUM_BYTES), np.uint8)
        for place, (head, block) in enumerate(zip(heads, blocks, strict=True)):
            sums[place] = np.frombuffer(checksum_of(head.tobytes(), block), np.uint8)
        return sums
